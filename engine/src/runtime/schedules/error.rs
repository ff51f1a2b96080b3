//! Why a schedule was not made, changed or shown.

use crate::id::ScheduleId;
use crate::runtime::schedules::MAX_REQUEST_BYTES;
use crate::schedule::{IllegalChange, SpecError, UnreadableSchedule};
use crate::store::StoreError;

/// Why a schedule was not made, changed or shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// There is no such schedule.
    #[error("schedule {0} is not in the store")]
    NotFound(ScheduleId),
    /// There is one of that name.
    #[error("schedule {0} exists already")]
    Exists(ScheduleId),
    /// The spec is wrong.
    #[error("schedule {id}: {why}")]
    Spec {
        /// The schedule.
        id: ScheduleId,
        /// What is wrong.
        why: SpecError,
    },
    /// What it is to start cannot be started.
    #[error("schedule {id} cannot start its runs: {why}")]
    Launch {
        /// The schedule.
        id: ScheduleId,
        /// Why.
        why: String,
    },
    /// Its state does not allow it.
    #[error("schedule {id} does not allow that: {why}")]
    Illegal {
        /// The schedule.
        id: ScheduleId,
        /// Why.
        why: IllegalChange,
    },
    /// It cannot be read.
    #[error("schedule {id} cannot be read: {why}")]
    Unreadable {
        /// The schedule.
        id: ScheduleId,
        /// Why.
        why: UnreadableSchedule,
    },
    /// Others changed it whenever it was to be changed.
    #[error("schedule {0} is being changed by others over and over; try again")]
    Contended(ScheduleId),
    /// Who asks and why is over the limit.
    #[error("who asks and why have {size} bytes together, at most {MAX_REQUEST_BYTES} are allowed")]
    RequestTooLong {
        /// Their length.
        size: usize,
    },
    /// The store refused or failed.
    #[error("{0}")]
    Store(StoreError),
}

impl ScheduleError {
    pub(super) fn of(id: &ScheduleId, error: StoreError) -> Self {
        match error {
            StoreError::NotFound(_) => Self::NotFound(id.clone()),
            error => Self::Store(error),
        }
    }
}
