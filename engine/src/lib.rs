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
//! use dssflow_engine::id::{ActivityName, StepName, StoreId, WorkflowName};
//! use dssflow_engine::store::memory::MemoryStore;
//! use dssflow_engine::{ActivityRegistry, Binding, Engine, Graph, StartRun, Step};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut activities = ActivityRegistry::new();
//! activities.add_fn("greet", |_ctx, name: String| async move { Ok(format!("hello, {name}")) })?;
//!
//! let greet = ActivityName::new("greet")?;
//! let first = Step::activity(StepName::new("first")?, greet.clone(), Binding::literal("world"));
//! let second = Step::activity(StepName::new("second")?, greet, Binding::output(&first.name, ""));
//! let graph = Graph::builder().step(first).step(second).build()?;
//!
//! let store = MemoryStore::new(StoreId::generate([0; 16]));
//! let engine = Engine::builder(Arc::new(store)).activities(activities).build();
//! let run = engine.start(StartRun::new(WorkflowName::new("hello")?, graph)).await?;
//! let end = run.wait().await?;
//! assert_eq!(end.steps[1].output, Some("hello, hello, world".into()));
//! # Ok(())
//! # }
//! ```
//!
//! The rooms: [`run`] is the pure core, [`runtime`] the edge, [`event`] what is stored, [`store`] the port to disk.
#![warn(missing_docs)]

pub mod activity;
pub mod event;
pub mod graph;
pub mod guide;
pub mod id;
pub mod retry;
pub mod run;
pub mod runtime;
pub mod shape;
pub mod store;
pub mod time;
pub mod workflow;

pub use activity::{Activity, ActivityContext, ActivityError, ActivityRegistry, ActivityResult};
pub use graph::{Binding, Graph, GraphBuilder, Step};
pub use runtime::{Engine, EngineError, RunHandle, StartRun};
