//! The edge: where the pure core meets time, tasks and the store.
//!
//! [`Engine`] is the handle, `driver` owns one run at a time, `worker` runs one attempt, `locks` is the table
//! of locks that all runs of a process share, [`clock`] reads real time.

pub mod clock;
mod driver;
pub mod engine;
mod locks;
mod worker;

pub use clock::SystemClock;
pub use engine::{Engine, EngineBuilder, EngineError, EngineOptions, RunHandle, StartRun};
