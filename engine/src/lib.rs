//! Durable workflows: DAGs of idempotent activities that survive any crash and can be taken back.
//!
//! A [`Graph`] of [`Step`]s names activities; the [`Engine`] runs them and writes every step to a
//! [`store::Store`] before and after it acts. When it says that a step is done, that survives a crash. Attempts are
//! at least once: an activity without a probe must be idempotent. One that provisions something says how to look
//! whether its effect took place ([`Activity::probe`]) and how to take it back ([`Activity::compensate`]); an
//! attempt whose outcome is unknown is then looked at before it is repeated or undone.
//!
//! ```
//! use std::sync::Arc;
//!
//! use dssflow_engine::prelude::*;
//!
//! async fn greet(_ctx: ActivityCtx, name: String) -> ActivityResult<String> {
//!     Ok(format!("hello, {name}"))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hello = Workflow::<String, String>::build("hello", |w| {
//!     let first = w.step("first", greet, w.input());
//!     w.step("second", greet, &first).retry(RetryPolicy::attempts(3))
//! })?;
//!
//! let store = MemoryStore::new(StoreId::generate([0; 16]));
//! let engine = Engine::builder(Arc::new(store)).register(&hello)?.build();
//! assert_eq!(engine.run(&hello, "world".to_owned()).await?, "hello, hello, world");
//! # Ok(())
//! # }
//! ```
//!
//! Functions are steps, and a step's input is what earlier steps give: wrong wiring does not compile. See
//! [`Workflow::build`](workflow::Workflow::build) and what [`workflow::Step`] and [`workflow::WorkflowBuilder`] can do.
//! Where the graph itself depends on data, build a [`Graph`] by hand and start it with [`Engine::start`].
//!
//! The [`guide`] says what is promised and how to keep one's own side of it.
//!
//! The rooms: [`workflow`] is where workflows are written, [`run`] is the pure core, [`schedule`] that of schedules,
//! [`runtime`] the edge, [`event`] what is stored, [`store`] the port to disk, [`timeline`] a run in time, [`testing`] the kit to test
//! workflows and activities with.
#![warn(missing_docs)]

pub mod activity;
pub mod archive;
pub mod event;
pub mod graph;
pub mod guide;
pub mod id;
pub mod retry;
pub mod run;
pub mod runtime;
pub mod schedule;
pub mod shape;
pub mod store;
pub mod takeover;
pub mod testing;
pub mod time;
pub mod timeline;
pub mod workflow;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use activity::{Activity, ActivityContext, ActivityError, ActivityRegistry, ActivityResult};
pub use graph::{Binding, Graph, GraphBuilder, Step};
pub use runtime::{Engine, EngineError, RunHandle, StartRun};
pub use workflow::{Workflow, WorkflowError};

/// What an activity function is given first; see [`ActivityContext`].
pub type ActivityCtx = ActivityContext;

/// What one needs to write workflows and to run them.
///
/// [`Step`](workflow::Step) is the typed handle here, not the [`graph::Step`] of a graph written by hand.
pub mod prelude {
    pub use crate::activity::{
        Activity, ActivityContext, ActivityError, ActivityResult, Effect, ErrorClass, Owner, Probe, Recorded,
        Undo, Undoing,
    };
    pub use crate::event::{CancelMode, Request};
    pub use crate::graph::{OnParentClose, Timeouts};
    pub use crate::id::{ActivityName, RunId, ScheduleId, StepName, StoreId};
    pub use crate::retry::{RetryPolicy, RetryRule};
    pub use crate::run::{OnTrouble, RunOptions, RunStatus, StepStatus, Verb};
    pub use crate::runtime::{Engine, EngineBuilder, EngineError, Rate, RunHandle, StartRun};
    pub use crate::schedule::{Overlap, ScheduleAction, ScheduleSpec};
    pub use crate::store::Store;
    pub use crate::store::memory::MemoryStore;
    pub use crate::workflow::{Approval, Given, Step, Workflow, WorkflowBuilder, WorkflowError, value};
    pub use crate::{ActivityCtx, workflow};
}
