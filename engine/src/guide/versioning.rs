//! Definitions and types that change while runs are under way.
//!
//! # A run keeps its graph
//!
//! A run stores its graph, by the hash of its canonical form, and its input. It follows that graph to its end,
//! whatever the registered definition says by then: a deployment changes no run by itself. Code is found by name: an
//! activity or function that a run's graph names must be registered when the run goes on, or the engine refuses with
//! one clear error before anything starts. New *code* under an old name is used from then on; that is how bugs get
//! fixed in runs under way.
//!
//! # Comparing
//!
//! [`Definition`](crate::workflow::Definition)s given to the builder are known by name, with a version number and a pure
//! function from a run's input to its graph. [`Engine::compare`](crate::Engine::compare) sets a run beside the
//! definition of now:
//!
//! | [`Verdict`](crate::run::versions::Verdict) | means |
//! |---|---|
//! | `Compatible` | every step does the same; at most titles, retries, limits, locks, flags and what the run returns differ |
//! | `PendingOnly` | only steps differ that have not started |
//! | `Incompatible` | steps differ that have started or are done |
//!
//! and lists each step that was added, removed, changed (what it calls, its input, its condition, what it waits for) or
//! retyped.
//!
//! # Upgrading
//!
//! [`Engine::upgrade`](crate::Engine::upgrade) brings a run that stands still to the definition of now and drives it on,
//! whatever the verdict; look at it first.
//!
//! - A step that is done stays done where neither what it does nor its resolved input changed.
//! - A step that started and does something else now, or gets another input, is done again, with all that depends on it.
//!   What it made with its earlier input is not forgotten: that input is kept, and the undo is called for it, too.
//! - What failed is tried again, with a fresh budget.
//! - Refused: a definition without a step that may have made something, or that calls another activity there (nobody
//!   could take it back); a run that goes backwards, one that succeeded, one that is being driven.
//!
//! A step is known by its name. A renamed step is one that is gone and one that is new.
//!
//! ```
//! # use std::sync::Arc;
//! # use dssflow_engine::event::Request;
//! # use dssflow_engine::id::{ActivityName, RunId, StepName, StoreId, WorkflowName};
//! # use dssflow_engine::run::versions::Verdict;
//! # use dssflow_engine::store::memory::MemoryStore;
//! # use dssflow_engine::workflow::Definition;
//! # use dssflow_engine::{ActivityError, ActivityRegistry, Binding, Engine, Graph, Step};
//! # use serde_json::{Value, json};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let code = || {
//! #     let mut code = ActivityRegistry::new();
//! #     code.add_fn("echo", |_ctx, what: String| async move {
//! #         if what == "broken" { Err(ActivityError::terminal("Broken", "no")) } else { Ok(what) }
//! #     }).map(|()| code)
//! # };
//! # let step = |name, input: &str| -> Result<Step, Box<dyn std::error::Error>> {
//! #     Ok(Step::activity(StepName::new(name)?, ActivityName::new("echo")?, Binding::literal(input)))
//! # };
//! # let name = WorkflowName::new("report")?;
//! # let store = Arc::new(MemoryStore::new(StoreId::generate([0; 16])));
//! let first = Graph::builder().step(step("fetch", "data")?).step(step("publish", "broken")?).build()?;
//! let old = Definition::fixed(name.clone(), 1, first);
//! # let engine = Engine::builder(store.clone()).activities(code()?).definition(old).build();
//! # let mut start = engine.start_of("report", Value::Null)?;
//! # start.id = Some(RunId::new("monday")?);
//! let run = engine.start(start).await?;
//! assert!(run.result().await.is_err());
//! # let id = run.id().clone();
//! # drop((run, engine));
//!
//! // The next deployment knows better.
//! let second = Graph::builder().step(step("fetch", "data")?).step(step("publish", "mended")?).build()?;
//! let new = Definition::fixed(name, 2, second);
//! # let engine = Engine::builder(Arc::new(store.reopen())).activities(code()?).definition(new).build();
//! let differs = engine.compare(&id).await?.expect("the workflow is registered");
//! assert_eq!(differs.verdict, Verdict::Incompatible); // "publish" has started.
//! let end = engine.upgrade(&id, Request::by("me")).await?.wait().await?;
//! assert_eq!(end.steps[0].output, Some(json!("data"))); // Still the first answer.
//! assert_eq!(end.steps[1].output, Some(json!("mended")));
//! # Ok(())
//! # }
//! ```
//!
//! # Types that change
//!
//! When a run is made, the [shapes](crate::shape) of the types that its activities take and give are stored with it. When
//! it goes on, the engine looks at the output of each step that is done whose activity gives another shape now:
//!
//! - it still fits the type: nothing happens;
//! - it does not, and [`EngineBuilder::migrate`](crate::runtime::EngineBuilder::migrate) says how to bring it to the new
//!   type: the new form is recorded in the history ([`OutputMigrated`](crate::event::EventKind::OutputMigrated));
//! - neither: [`OutputChanged`](crate::EngineError::OutputChanged), which names the steps; nothing has started.
//!
//! An *input* is resolved anew for each attempt; one that does not fit is the step's terminal error `InputMismatch`.
//!
//! A migration is named after the activity. The code of a typed workflow's step is the activity `workflow/step`, so a
//! migration of what step `quote` of workflow `bill` gives is one of `bill/quote`. It is given the stored JSON and gives
//! JSON that fits the new type; keep it as long as there are runs from before.
//!
//! ```
//! # use std::sync::Arc;
//! use dssflow_engine::prelude::*;
//! use serde::{Deserialize, Serialize};
//! use serde_json::json;
//!
//! # mod old {
//! # use super::*;
//! # #[derive(Serialize, Deserialize)]
//! # pub struct Quote { pub cents: u32 }
//! # pub async fn quote(_ctx: ActivityCtx, cents: u32) -> ActivityResult<Quote> { Ok(Quote { cents }) }
//! # pub async fn send(_ctx: ActivityCtx, _: Quote) -> ActivityResult<String> {
//! #     Err(ActivityError::terminal("Bug", "cents of what?"))
//! # }
//! # }
//! // It was `struct Quote { cents: u32 }` when the run was made.
//! #[derive(Serialize, Deserialize)]
//! struct Quote { cents: u32, currency: String }
//!
//! async fn quote(_ctx: ActivityCtx, cents: u32) -> ActivityResult<Quote> {
//!     Ok(Quote { cents, currency: "EUR".to_owned() })
//! }
//!
//! async fn send(_ctx: ActivityCtx, quote: Quote) -> ActivityResult<String> {
//!     Ok(format!("{} {}", quote.cents, quote.currency))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let old = Workflow::<u32, String>::build("bill", |w| {
//! #     let quoted = w.step("quote", old::quote, w.input());
//! #     w.step("send", old::send, &quoted)
//! # })?;
//! # let store = Arc::new(MemoryStore::new(StoreId::generate([0; 16])));
//! # let engine = Engine::builder(store.clone()).register(&old)?.build();
//! # let run = engine.submit(&old, 995).await?;
//! # assert!(run.result().await.is_err());
//! # let half_done = run.id().clone();
//! # let store = Arc::new(store.reopen());
//! let bill = Workflow::<u32, String>::build("bill", |w| {
//!     let quoted = w.step("quote", quote, w.input());
//!     w.step("send", send, &quoted)
//! })?;
//! let engine = Engine::builder(store)
//!     .register(&bill)?
//!     .migrate(ActivityName::new("bill/quote")?, |old| Ok(json!({ "cents": old["cents"], "currency": "EUR" })))
//!     .build();
//! let run = engine.resume(&half_done, Request::by("me")).await?.typed::<String>();
//! assert_eq!(run.result().await?, "995 EUR");
//! # Ok(())
//! # }
//! ```
//!
//! ## What shapes cannot see
//!
//! A shape is found by reading a type from examples, through serde, without a derive. It shows names and types of fields
//! and variants. It does not show whether a field may be left out, what a value means (metres or feet), what a custom
//! check refuses, and what is inside `serde_json::Value`, untagged or internally tagged enums and flattened structs. So
//! an equal shape does not prove that old values still mean the same, and a different one does not prove that they
//! cannot be read: that is why the stored value itself is tried. [`crate::shape`] has the full list.
//!
//! # Stored formats
//!
//! Events and graphs carry format numbers. This version writes event format 2 and reads 1 and 2; a run that a later
//! version wrote is refused as such, not taken for damage. `docs/events.md` is the page of the format.
