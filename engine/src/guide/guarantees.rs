//! What the engine guarantees, and what it does not.
//!
//! # What "done" means
//!
//! A run is the fold of its history; there is no other state. Everything that happens to it goes one way: the core
//! decides, the events are applied in memory, all events of the decision are committed in one atomic batch, the store
//! says that they are durable, and only then does anything act or answer. So:
//!
//! - When [`Engine::start`](crate::Engine::start) returns, the run exists durably.
//! - An attempt's intent ([`AttemptStarted`](crate::event::EventKind::AttemptStarted), with its resolved input) is
//!   durable before the activity is called.
//! - A step that is shown as done, by [`RunHandle::wait`](crate::RunHandle::wait), an event stream or a view that was
//!   read from the store, stays done. Events are published after they are durable.
//! - [`ctx.record_resource`](crate::ActivityContext::record_resource) and
//!   [`ctx.record_before`](crate::ActivityContext::record_before) return when the record is durable.
//!   [`ctx.heartbeat`](crate::ActivityContext::heartbeat) does not wait; it is written every five seconds at most, and
//!   its last details when the attempt fails.
//!
//! "Durable" is what the store makes of it; [`StoreCaps::durable`](crate::store::StoreCaps::durable) says whether an
//! acknowledged commit survives a power cut on a disk that honours flush. The sled store of `dssflow-store` does.
//! [`MemoryStore`](crate::store::memory::MemoryStore) survives nothing: it is for tests.
//!
//! # What may happen again
//!
//! **Attempts are at least once.** A process can end between a call and the record of its answer, and nothing can tell
//! these two apart from inside. After a crash the attempt under way counts as lost
//! ([`AttemptLost`](crate::event::EventKind::AttemptLost)), without using up the step's budget, and:
//!
//! - an activity without a probe is simply called again: it must be idempotent;
//! - an activity with a probe is asked first what its effect came to; see [`idempotency`](super::idempotency).
//!
//! A lost attempt is not only a crash: a timeout, a pause whose grace is over, and a lost lease drop the attempt's
//! future at its next await point. What it had in flight then is unknown. Work on a thread of its own
//! (`spawn_blocking`) is not stopped by that.
//!
//! **Effects are effectively once**, for activities that do their part: every changing call carries a
//! [token](crate::ActivityContext::token) where the service takes one, or a deterministic name and an
//! [ownership mark](crate::ActivityContext::marks); and an outcome that is not known is looked at before it is
//! repeated or undone. The engine supplies the tokens, the marks and the order; that the activity uses them is up to
//! its author.
//!
//! What is recorded never happens again: a step's output, a resolved condition, the list of a map, a decision at a
//! gate, the wake time of a retry. Whatever depended on chance or time stands in the events, so replay needs neither.
//! No workflow code is replayed, so there are no rules of determinism for it: a graph is data. Functions that bindings
//! name must be pure; an input is resolved for each attempt to execute, and one that differs counts as a new input.
//!
//! ```
//! # use std::sync::{Arc, Mutex};
//! use dssflow_engine::prelude::*;
//! use dssflow_engine::testing::Lab;
//!
//! # type Calls = Arc<Mutex<Vec<String>>>;
//! async fn call(ctx: ActivityCtx, name: String) -> ActivityResult<()> {
//!     ctx.resource::<Calls>()?.lock().unwrap().push(name);
//!     Ok(())
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let order = Workflow::<(), ()>::build("order", |w| {
//!     let paid = w.step("pay", call, workflow::value("pay"));
//!     w.step("ship", call, workflow::value("ship")).after(&paid)
//! })?;
//! # let calls = Calls::default();
//! # let lab = Lab::new(|engine| engine.register(&order).expect("its own").resource(calls.clone()));
//! // 1 created, 2 pay started, 3 pay done, 4 ship started, 5 ship done: the process dies before it can write 5.
//! lab.crash_before_event(5);
//! let end = lab.run(order.start(())?).await?;
//! assert_eq!(end.status, RunStatus::Succeeded);
//! // Done stays done; what gave no answer is called again.
//! assert_eq!(*calls.lock().unwrap(), ["pay", "ship", "ship"]);
//! # Ok(())
//! # }
//! ```
//!
//! # What a recovery does
//!
//! [`Engine::recover`](crate::Engine::recover) drives on every run that was under way. A run that cannot be driven is
//! told with its reason and holds up nobody. A run that was recovered five times
//! ([`crash_loop_cap`](crate::runtime::EngineOptions::crash_loop_cap)) without a step getting on is paused: perhaps it
//! is what ends the process. Time in which nobody owned a run, or in which it was paused, counts against no timeout;
//! gates, sleeps and retry delays are wall time and go on.
//!
//! # One owner
//!
//! A store with one owner process lets only that process in. A store that several share
//! ([`multi_worker`](crate::store::StoreCaps::multi_worker)) gives each run to one worker at a time, by a lease (15 s,
//! renewed every 5 s) with an epoch that rises with each new owner. A commit under an old epoch is refused inside the
//! commit, so no late writer can alter a history. Calls to the outside world cannot be fenced that way:
//! [`ctx.fence()`](crate::ActivityContext::fence) right before a changing call narrows the gap to the moment between
//! the look and the call; once the lease was over it stays shut, even if the lease is renewed. Tokens and names that
//! stay the same are what makes that moment harmless.
//!
//! # What is not promised
//!
//! - **Exactly-once calls.** Nobody can promise them. See above for what is promised instead.
//! - **That an activity is idempotent.** A plain function that is not will be called twice one day.
//! - **Times.** A step starts at its time or later. Waits are looked at again at least every ten seconds, so that a
//!   clock that was set or a machine that slept is noticed.
//! - **Order** between steps that do not depend on each other, beyond who is asked first.
//! - **That signals are told apart.** One that is sent twice is received twice; put an id into its payload. Up to
//!   1,000 of one name are kept until they are taken.
//! - **Locks, semaphores and rates across processes.** They live in the engine that drives the runs, and are free after
//!   a crash. Engines that share a store do not share them.
//! - **Protection from a store that is replaced by an older copy of itself**, or a disk that lies about flush.
//! - **Secrets.** Inputs, outputs, records and heartbeats are stored as they are. Never put a secret's value into one.
//!
//! # Limits
//!
//! | what | at most |
//! |---|---|
//! | an input, an output, a run's input, what a run returns | 16 MiB of JSON, nested 64 deep |
//! | details of a heartbeat | 4 KiB |
//! | a graph | 20,000 steps, 200,000 dependencies |
//! | one record (all events of one decision) | 64 MiB |
//! | a run's summary in lists, labels included | 512 bytes |
//! | signals of one name that wait to be taken | 1,000 |
