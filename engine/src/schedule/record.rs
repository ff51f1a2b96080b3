//! A schedule as it is stored: JSON with the number of its format.
//!
//! # Format changelog
//! - 1: the first.

use serde::{Deserialize, Serialize};

use super::state::ScheduleState;
use crate::id::ScheduleId;

/// The format of schedules that this version writes. It reads all up to this one.
pub const RECORD_FORMAT: u16 = 1;

/// A stored schedule that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableSchedule {
    /// Written by a later version.
    #[error("it was written in format {found}; this version reads up to {RECORD_FORMAT}")]
    Newer {
        /// The format found.
        found: u16,
    },
    /// No schedule.
    #[error("it is no schedule: {why}")]
    Damaged {
        /// Why.
        why: String,
    },
}

#[derive(Serialize)]
struct Written<'a> {
    format: u16,
    #[serde(flatten)]
    state: &'a ScheduleState,
}

/// Encodes a schedule.
///
/// # Panics
/// Never: it is plain data.
pub fn encode(state: &ScheduleState) -> Vec<u8> {
    serde_json::to_vec(&Written { format: RECORD_FORMAT, state }).expect("a schedule is plain data")
}

/// Decodes the record of a schedule.
///
/// # Errors
/// When a later version wrote it, or it is none, or another's.
pub fn decode(id: &ScheduleId, bytes: &[u8]) -> Result<ScheduleState, UnreadableSchedule> {
    #[derive(Deserialize)]
    struct Peek {
        format: u16,
    }
    let damaged = |why: String| UnreadableSchedule::Damaged { why };
    let Peek { format } = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
    if format > RECORD_FORMAT {
        return Err(UnreadableSchedule::Newer { found: format });
    }
    let state: ScheduleState = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
    if state.id != *id {
        return Err(damaged(format!("it is schedule {}", state.id)));
    }
    Ok(state)
}
