//! How an effect happens once although its attempt may run twice.
//!
//! # Plain functions
//!
//! [`add_fn`](crate::ActivityRegistry::add_fn) registers an async function. It is taken to be idempotent: after a crash,
//! a timeout or an error it is called again with the same input. That is right for reads, for "set this to that", for
//! calls that carry an idempotency token. It is wrong for "add one" and "send a mail" without a token.
//!
//! # Tokens
//!
//! [`ctx.token("label")`](crate::ActivityContext::token) is 64 hex characters: the SHA-256 of the store's id, the run,
//! the step, the generation and the label. It is the same in every attempt of one generation, before and after a crash,
//! and differs in everything else. Give it to services that take a client token or an idempotency key; use one label
//! for each call that an activity makes.
//!
//! ```
//! # use dssflow_engine::{ActivityContext, ActivityResult};
//! # struct Bank;
//! # impl Bank { async fn pay(&self, _: u32, _: &str) -> ActivityResult<String> { Ok(String::new()) } }
//! async fn pay(ctx: ActivityContext, cents: u32) -> ActivityResult<String> {
//!     let bank = ctx.resource::<Bank>()?;
//!     bank.pay(cents, ctx.token("pay").as_str()).await
//! }
//! # let mut activities = dssflow_engine::ActivityRegistry::new();
//! # activities.add_fn("pay", pay).unwrap();
//! ```
//!
//! # Generations
//!
//! A service that knows a token answers with what it made under it. When that thing is not wanted any more, the token
//! has to change, and that is what a generation is for. It starts at 1 and rises, durably, when
//!
//! - a probe finds something of ours that failed for good ([`Probe::Failed`](crate::activity::Probe::Failed)): the next
//!   `execute` removes it first and makes it anew;
//! - a probe finds that what this generation made is gone;
//! - the step's input changed after an attempt that may have had an effect: the old input is kept, for the undo;
//! - a step without a probe, which is done and changes something, is done again on request
//!   ([`Verb::Rerun`](crate::run::Verb::Rerun), an upgrade): only a new token makes that a repetition.
//!
//! A step *with* a probe that is done again and finds its thing as wanted takes it as it is.
//!
//! # Probes
//!
//! An activity that makes or changes something in the outside world says so
//! ([`Effect`](crate::activity::Effect)) and says how to look ([`Activity::probe`](crate::Activity::probe)). A `Create`
//! or `Update` without a probe cannot be registered.
//!
//! The engine probes before it calls `execute`, in the first attempt too, and after every attempt whose outcome is
//! unknown. What the answer means:
//!
//! | answer | after an attempt with an unknown outcome | before the first call |
//! |---|---|---|
//! | `Absent` | counts when a second probe agrees after [`settle`](crate::Activity::settle) (default 30 s); then the step is executed | `execute` is called |
//! | `Present`, owner `ThisRun` | the step is done | the step is done |
//! | `Present`, owner `ThisSite` | adopted; ours after all if this run recorded something about it | adopted |
//! | `Present`, owner `Foreign` | the run pauses for a person, unless the step may [adopt](crate::Step::adopt) it, or somebody lets it ([`Verb::Adopt`](crate::run::Verb::Adopt)) | the same |
//! | `InProgress` | asked again after [`poll_interval`](crate::Activity::poll_interval) (default 10 s), within the step's `schedule_to_close` | the same |
//! | `Failed`, owner `ThisRun` | the generation rises, `execute` replaces it; counts as a failure | the same |
//! | `Failed`, owner another | the run pauses for a person | the same |
//!
//! `settle` is there because reads are stale and a request that was lost can land late: one "not there" proves nothing.
//!
//! [`verify`](crate::Activity::verify) checks the post-condition after `execute`, and after a probe found the thing.
//!
//! ```
//! use dssflow_engine::activity::{Effect, Probe, Recorded, Undo};
//! use dssflow_engine::{Activity, ActivityContext, ActivityResult};
//! # use std::collections::BTreeMap;
//! # use std::sync::Mutex;
//! # use dssflow_engine::activity::{Marks, Owner};
//! # #[derive(Default)] struct Cloud(Mutex<BTreeMap<String, Marks>>);
//!
//! struct MakeBucket;
//!
//! impl Activity for MakeBucket {
//!     type Input = String;
//!     type Output = String;
//!     const HAS_PROBE: bool = true;
//!
//!     fn effect(&self) -> Effect {
//!         Effect::Create
//!     }
//!
//!     async fn execute(&self, ctx: &ActivityContext, name: &String) -> ActivityResult<String> {
//!         let cloud = ctx.resource::<Cloud>()?;
//!         ctx.fence()?; // Still ours? Right before the call that changes something.
//!         cloud.0.lock().unwrap().insert(name.clone(), ctx.marks());
//!         ctx.record_resource("bucket", name.clone()).await?;
//!         Ok(name.clone())
//!     }
//!
//!     async fn probe(&self, ctx: &ActivityContext, name: &String) -> ActivityResult<Probe<String>> {
//!         let cloud = ctx.resource::<Cloud>()?;
//!         let found = cloud.0.lock().unwrap().get(name).map(|marks| ctx.marks().owner_of(marks));
//!         Ok(match found {
//!             None => Probe::Absent,
//!             Some(owner) => Probe::Present { output: name.clone(), owner },
//!         })
//!     }
//!
//!     async fn compensate(&self, ctx: &ActivityContext, name: &String, _: &Recorded) -> ActivityResult<Undo> {
//!         let cloud = ctx.resource::<Cloud>()?;
//!         let mut buckets = cloud.0.lock().unwrap();
//!         // Ownership is proven now, at delete time.
//!         match buckets.get(name).map(|marks| ctx.marks().owner_of(marks)) {
//!             Some(Owner::ThisRun) => {
//!                 buckets.remove(name);
//!                 Ok(Undo::Undone)
//!             }
//!             _ => Ok(Undo::NothingToDo),
//!         }
//!     }
//! }
//! # let mut activities = dssflow_engine::ActivityRegistry::new();
//! # activities.add("bucket", MakeBucket).unwrap();
//! ```
//!
//! # Marks and owners
//!
//! [`ctx.marks()`](crate::ActivityContext::marks) names the store, site, run, step and generation. Put them on what is
//! made, in the same call, and compare them with [`Marks::owner_by`](crate::activity::Marks::owner_by) when it is
//! found: `ThisRun`, `ThisSite` (an earlier run of the same store and the same non-empty site) or `Foreign`. A thing
//! without marks is foreign.
//!
//! # Records
//!
//! - [`ctx.record_resource(kind, id)`](crate::ActivityContext::record_resource): call it the moment an id is known. It
//!   is durable when it returns, and the undo sees the records of all generations, also of attempts that never ended.
//! - [`ctx.record_before(values)`](crate::ActivityContext::record_before): the old values of what an `Update` is about
//!   to change. A key that was recorded before keeps its first value.
//! - [`ctx.heartbeat(details)`](crate::ActivityContext::heartbeat): the next attempt of the generation reads the last
//!   durable one with [`last_heartbeat`](crate::ActivityContext::last_heartbeat), as where a long upload stood.
//!
//! # Errors and what they say of the effect
//!
//! An error says what the engine does ([`ErrorClass`](crate::activity::ErrorClass)) and, apart from that, whether the
//! call surely did nothing ([`no_effect`](crate::ActivityError::no_effect)):
//!
//! | class | what follows | uses an attempt |
//! |---|---|---|
//! | `Retryable` | the retry policy | yes |
//! | `Throttled` | the same delays on a budget of its own; implies `no_effect` | no |
//! | `Credentials` | the run pauses; implies `no_effect` | no |
//! | `NeedsHuman` | the run pauses; in a rollback the step is stuck | a resume gives a fresh budget |
//! | `Terminal` | what the step's or the run's `on_failure` says | the step has failed |
//! | `Cancelled` | the attempt is lost, and repeated when the run goes on; retryable when nobody told it to stop | no |
//!
//! After an error without `no_effect` the outcome is unknown, so a step with a probe is probed before its next attempt.
//! A panic is caught and is a retryable error. Promise `no_effect` only for a request that was refused as a whole.
