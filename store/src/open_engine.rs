//! [`OpenEngine`]: an engine on a store on disk, in one call.
//!
//! It chooses nothing that [`SledStore::open`] and [`Engine::builder`] would not; those are there for whoever wants
//! other [`OpenOptions`], or to end the store with [`SledStore::close`].

use std::path::Path;
use std::sync::Arc;

use dssflow_engine::Engine;
use dssflow_engine::runtime::EngineBuilder;

use crate::error::OpenError;
use crate::store::{OpenOptions, SledStore, on_thread};

/// Gives [`Engine`] an `open`.
///
/// ```
/// use dssflow_engine::id::{ActivityName, StepName, WorkflowName};
/// use dssflow_engine::{ActivityRegistry, Binding, Engine, Graph, StartRun, Step};
/// use dssflow_store::OpenEngine as _;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let state = dir.path().join("state");
/// let mut activities = ActivityRegistry::new();
/// activities.add_fn("greet", |_ctx, name: String| async move { Ok(format!("hello, {name}")) })?;
///
/// // `state` is a directory of the engine's own; it is made when it is missing.
/// let engine = Engine::open(state).await?.activities(activities).build();
///
/// let greet = Step::activity(StepName::new("greet")?, ActivityName::new("greet")?, Binding::literal("world"));
/// let graph = Graph::builder().step(greet).build()?;
/// let run = engine.start(StartRun::new(WorkflowName::new("hello")?, graph)).await?;
/// assert_eq!(run.wait().await?.steps[0].output, Some("hello, world".into()));
/// # Ok(())
/// # }
/// ```
pub trait OpenEngine {
    /// Opens the store in a directory, or makes one there, and builds an engine on it. The store belongs to this
    /// process until the engine, all its handles and the attempts that they let go of are gone, which is a moment after
    /// the last of them was dropped: an `open` right behind it can still find the store locked. Opening takes milliseconds, after a crash as long as
    /// reading the log does; a thread of its own does it.
    ///
    /// # Errors
    /// See [`OpenError`]; its `hint` says what to do.
    fn open(path: impl AsRef<Path>) -> impl Future<Output = Result<EngineBuilder, OpenError>> + Send;
}

impl OpenEngine for Engine {
    fn open(path: impl AsRef<Path>) -> impl Future<Output = Result<EngineBuilder, OpenError>> + Send {
        let path = path.as_ref().to_owned();
        async move {
            let opening = path.clone();
            let store = on_thread(move || SledStore::open(opening, OpenOptions::default())).await;
            let store = store.map_err(OpenError::io("start a thread for", &path))??;
            Ok(Engine::builder(Arc::new(store)))
        }
    }
}
