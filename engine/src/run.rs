//! One run: its state as a fold over its history ([`state`], `apply`), what comes next (`decide`), the order of
//! undo (`compensate`), what people see of it ([`view`]), and how long its steps are likely to take ([`past`]). Pure: no
//! clock, chance, IO or tokio in here.

mod apply;
mod compensate;
pub mod decide;
mod options;
pub mod past;
pub mod resolve;
pub mod state;
mod status;
#[cfg(test)]
mod tests;
pub mod verbs;
pub mod versions;
pub mod view;

pub use apply::{IllegalEvent, apply, create};
pub(crate) use apply::{child_name, collect, restored_note};
pub use decide::{Command, decide};
pub use options::{OnTrouble, RunOptions};
pub use state::RunState;
pub use status::{RunStatus, StepStatus};
pub use verbs::Verb;
