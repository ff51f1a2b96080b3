//! Schedules as a store sees them: a name, a version, bytes, and when to look at it next.

use super::StoreError;
use crate::id::ScheduleId;
use crate::time::Timestamp;

/// The most a schedule's record may have, in bytes.
pub const MAX_SCHEDULE_BYTES: usize = 64 * 1024;

/// A schedule to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchedulePut {
    /// The schedule.
    pub id: ScheduleId,
    /// The version it was decided on; `None` for a schedule that does not exist.
    pub expect: Option<u64>,
    /// Its record.
    pub record: Vec<u8>,
    /// When it wants to be looked at next; replaces the earlier due item. `None` removes it.
    pub due: Option<Timestamp>,
}

impl SchedulePut {
    /// Checks what any store must refuse. For implementations of [`Store`](super::Store), before anything is written.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`].
    pub fn check(&self) -> Result<(), StoreError> {
        let (what, size, limit) = ("the schedule", self.record.len(), MAX_SCHEDULE_BYTES);
        if size > limit {
            return Err(StoreError::TooLarge { what, size, limit });
        }
        Ok(())
    }

    /// Compares with the version that was found, `None` when there is no such schedule. For implementations of
    /// [`Store`](super::Store), inside the change.
    ///
    /// # Errors
    /// [`StoreError::ScheduleConflict`].
    pub fn check_version(&self, found: Option<u64>) -> Result<(), StoreError> {
        if self.expect == found {
            return Ok(());
        }
        Err(StoreError::ScheduleConflict { found: found.unwrap_or(0) })
    }
}

/// A schedule as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSchedule {
    /// The schedule.
    pub id: ScheduleId,
    /// Its version: higher with every write, and never the same again.
    pub version: u64,
    /// When it wants to be looked at next.
    pub due: Option<Timestamp>,
    /// Its record.
    pub record: Vec<u8>,
}
