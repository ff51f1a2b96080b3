//! What a rollback takes back, in which order, and what follows when it cannot.
//!
//! A rollback starts on request ([`Engine::rollback`](crate::Engine::rollback), a cancel with
//! [`CancelMode::Rollback`](crate::event::CancelMode::Rollback)) or by rule, where
//! [`RunOptions`](crate::run::RunOptions) or a step say [`OnTrouble::Rollback`](crate::run::OnTrouble::Rollback). From
//! then on the run only takes back. A crash resumes in the rollback; a cancel does not stop it, only a
//! [terminate](crate::Engine::terminate) does.
//!
//! # The undo set
//!
//! **Every step with an intent that may have had an effect**, not only those that are done: a failed or lost attempt may
//! have done its work. Left out are
//!
//! - steps that never started, and activities whose effect is [`Read`](crate::activity::Effect::Read);
//! - activities that [own nothing](crate::activity::Activity::OWNS): they bring what is others' into the state those want;
//! - steps whose attempts surely did nothing and recorded nothing;
//! - what was adopted, unless this run recorded something of its own about it;
//! - steps that a [fork](crate::Engine::fork) took over, or that an operator completed before they ever started: this run
//!   made nothing there.
//!
//! A step whose outcome is unknown is probed first, with the same rules as [going forward](super::idempotency).
//! "Not there, and nothing recorded" needs no undo.
//!
//! # The order
//!
//! Reverse topological: a step is undone when everything that depends on it is resolved. Branches that do not depend on
//! each other are undone in parallel, within the run's parallelism and the steps' locks. Children of a map are steps and
//! are undone one by one; the runs of a sub-workflow (one for each generation of its step) are rolled back as one step of
//! the run above.
//!
//! # What a compensation gets, and owes
//!
//! [`Activity::compensate`](crate::Activity::compensate) gets the input and everything that
//! [every generation recorded](crate::activity::Recorded): the output if there was one, resources, old values. It is also
//! called once for each earlier input whose effect may still be there. It owes three things:
//!
//! 1. **It proves ownership at delete time.** The journal says what this run meant to make; the marks on the thing say
//!    whose it is now. The engine cannot look at them; the activity must.
//! 2. **"Not there" is success.** Attempts to undo are at least once, too.
//! 3. **It says how it ended**: `Undone`, `NothingToDo`, or `Kept` with the reason, for what stays by rule.
//!
//! Retries follow [`Step::undo_retry`](crate::Step::undo_retry), by default the step's own policy with twice the
//! attempts. Missing credentials pause the rollback.
//!
//! A plain function is given a second one, as its undo ([`Step::undo`](crate::workflow::Step::undo),
//! [`add_fn_with_undo`](crate::ActivityRegistry::add_fn_with_undo)). It sees `output: None` when no attempt answered; the
//! effect may be there all the same.
//!
//! ```
//! # use std::collections::BTreeSet;
//! # use std::sync::{Arc, Mutex};
//! use dssflow_engine::prelude::*;
//!
//! # type Booked = Arc<Mutex<BTreeSet<String>>>;
//! async fn book(ctx: ActivityCtx, what: String) -> ActivityResult<()> {
//!     if what == "hotel" {
//!         return Err(ActivityError::terminal("Full", "the hotel is full").no_effect());
//!     }
//!     ctx.resource::<Booked>()?.lock().unwrap().insert(what);
//!     Ok(())
//! }
//!
//! async fn cancel(ctx: ActivityCtx, was: Undoing<String, ()>) -> ActivityResult<()> {
//!     ctx.resource::<Booked>()?.lock().unwrap().remove(&was.input); // Not there is fine.
//!     Ok(())
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let trip = Workflow::<(), ()>::build("trip", |w| {
//!     let flight = w.step("flight", book, workflow::value("flight")).undo(cancel);
//!     w.step("hotel", book, workflow::value("hotel")).undo(cancel).after(&flight)
//! })?
//! .options(RunOptions { on_failure: OnTrouble::Rollback, ..RunOptions::default() });
//!
//! # let booked = Booked::default();
//! # let store = Arc::new(MemoryStore::new(StoreId::generate([0; 16])));
//! # let engine = Engine::builder(store).register(&trip)?.resource(booked.clone()).build();
//! let end = engine.submit(&trip, ()).await?.wait().await?;
//! assert_eq!(end.status, RunStatus::RolledBack);
//! assert_eq!(end.steps[0].status, StepStatus::Compensated);
//! assert!(booked.lock().unwrap().is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! # Scopes: what is kept
//!
//! - [`Step::protect`](crate::Step::protect): a rollback never touches it.
//! - `keep`, given to [`Engine::rollback`](crate::Engine::rollback): these steps stay.
//! - `to`, given to [`Engine::rollback_to`](crate::Engine::rollback_to): only what depends on this step is taken back.
//!
//! Such steps are shown as `kept`, with the reason. `keep` and `to` can only be said of a run that stands still and goes
//! forward; for any other the engine refuses, so that nothing is silently deleted that should stay. In a compensation
//! [`ctx.kept()`](crate::ActivityContext::kept) lists the steps whose effects stay, for a final sweep.
//!
//! # Stuck
//!
//! A compensation that fails for good (its attempts are used up, a terminal error, a person is needed) blocks what its
//! step depends on, and nothing else. The rest is taken back, and the run ends
//! [`RollbackStuck`](crate::run::RunStatus::RollbackStuck). Then a person has three ways, each an event with who and why:
//!
//! | verb | when |
//! |---|---|
//! | [`Engine::rollback`](crate::Engine::rollback) or [`Engine::resume`](crate::Engine::resume) again | the cause is mended: stuck steps are tried again with fresh budgets |
//! | [`Verb::MarkUndone`](crate::run::Verb::MarkUndone) | it was taken back by hand; the rollback goes on below it |
//! | [`Verb::Abandon`](crate::run::Verb::Abandon) | it stays where it is; shown as kept |
//!
//! A run that is rolled back has nothing left but what was kept, and cannot be rolled back again; one that succeeded
//! still can.
