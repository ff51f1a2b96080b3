//! The kit to test workflows and activities with: what the engine's own tests are made of.
//!
//! - [`Lab`] runs workflows on a [`MemoryStore`] and a virtual clock, and lets their process crash and come back:
//!   [`Lab::crash_after_event`], [`Lab::crash_before_event`]. A day of waiting takes no time.
//! - [`Faults`] makes activities fail, lose their reply, panic, hang or act twice, by script or by chance.
//! - [`check_idempotent`] is the check that every workflow should pass: repeated, and crashed at every event, it leaves
//!   the world as a plain run does; taken back, as it was before.
//! - [`HistoryBuilder`] writes histories by hand, for tests on values: states, decisions, replays.
//! - [`replay`] reads stored histories with the code of now, so that a release does not strand runs.
//! - [`conformance`] holds a store of your own to what the engine needs of it.
//!
//! # The runtime
//! A lab lives on the caller's tokio runtime: a current-thread one whose time is paused, as
//! `#[tokio::test(start_paused = true)]` makes it. That needs tokio's feature `test-util` in your dev-dependencies; the
//! engine itself does not use it. On a runtime whose time is not paused all works, and waits take as long as they take.
//!
//! # What a crash is
//! The store takes nothing more from that life, no attempt of it does anything any more, and the next life opens the
//! same data in a new epoch. What an activity has started outside of its own future (a task, a thread, a process) is
//! not stopped: it is part of the world outside. Destructors run, which they would not in a real crash.
//!
//! # Example
//! ```
//! use std::collections::BTreeMap;
//! use std::sync::{Arc, Mutex};
//!
//! use dssflow_engine::id::{ActivityName, StepName, WorkflowName};
//! use dssflow_engine::run::RunStatus;
//! use dssflow_engine::testing::{Fault, Faults, Lab, Rule, check_idempotent};
//! use dssflow_engine::{ActivityRegistry, Binding, Graph, StartRun, Step};
//!
//! /// The world outside: what is on which shelf.
//! type World = Arc<Mutex<BTreeMap<String, u32>>>;
//!
//! /// What the process is made of, in tests as in production.
//! fn activities(world: &World) -> ActivityRegistry {
//!     let (put, take) = (Arc::clone(world), Arc::clone(world));
//!     let mut activities = ActivityRegistry::new();
//!     activities
//!         .add_fn_with_undo(
//!             "put",
//!             move |_ctx, shelf: String| {
//!                 let world = Arc::clone(&put);
//!                 async move {
//!                     // Setting it may be repeated. `+= 1` may not, and the check below would tell.
//!                     world.lock().expect("nobody panics with it").insert(shelf.clone(), 1);
//!                     Ok(shelf)
//!                 }
//!             },
//!             move |_ctx, undoing| {
//!                 let world = Arc::clone(&take);
//!                 async move {
//!                     world.lock().expect("nobody panics with it").remove(&undoing.input);
//!                     Ok(())
//!                 }
//!             },
//!         )
//!         .expect("a name of its own");
//!     activities
//! }
//!
//! fn start() -> Result<StartRun, Box<dyn std::error::Error>> {
//!     let put = ActivityName::new("put")?;
//!     let first = Step::activity(StepName::new("first")?, put.clone(), Binding::literal("a"));
//!     let mut second = Step::activity(StepName::new("second")?, put, Binding::literal("b"));
//!     second.after.push(first.name.clone());
//!     let graph = Graph::builder().step(first).step(second).build()?;
//!     Ok(StartRun::new(WorkflowName::new("shelves")?, graph))
//! }
//!
//! // In a test: #[tokio::test(start_paused = true)]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?.block_on(test())
//! # }
//! async fn test() -> Result<(), Box<dyn std::error::Error>> {
//!     // One run, whose second step loses its reply, and whose process crashes after the third event.
//!     let world = World::default();
//!     let lab = Lab::new(|engine| engine.activities(activities(&world)))
//!         .faults(Faults::new().with(Rule::new(Fault::LoseReply).step("second").once()));
//!     lab.crash_after_event(3);
//!     let end = lab.run(start()?).await?;
//!     assert_eq!((end.status, lab.crashes()), (RunStatus::Succeeded, 1));
//!     assert_eq!(world.lock().expect("nobody panics with it").len(), 2);
//!
//!     // All that can be repeated and every point at which it can crash, forward and back.
//!     let code = |world: &World, engine: dssflow_engine::runtime::EngineBuilder| engine.activities(activities(world));
//!     let look = |world: &World| world.lock().expect("nobody panics with it").clone();
//!     check_idempotent(World::default, code, start()?, look).await.assert_ok();
//!     Ok(())
//! }
//! ```

mod check;
mod faults;
mod history;
mod lab;
mod replay;
mod wire;

pub use check::{CheckReport, Difference, Moment, RepeatCheck, Trial, Wrong, check_idempotent};
pub use faults::{Fault, Faults, Fired, Rates, Rule};
pub use history::{HistoryBuilder, HistoryError};
pub use lab::{End, Lab, LabError, Waiting};
pub use replay::{ReplayError, ReplayProblem, ReplayReport, StoredHistory, replay, replay_run};
pub use wire::{Commit, Crash};

pub use crate::runtime::clock::TokioClock;
pub use crate::store::conformance;
pub use crate::store::memory::{CommitFault, MemoryStore};
