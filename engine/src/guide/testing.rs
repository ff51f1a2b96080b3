//! How to test workflows and activities: without waiting, with crashes, and without a word about them in the code.
//!
//! [`crate::testing`] is the kit. It needs a tokio runtime of one thread whose time is paused, as
//! `#[tokio::test(start_paused = true)]` makes it, with tokio's feature `test-util` in the dev-dependencies. Then a month
//! of sleep takes no time: whenever nothing else can happen, the clock goes on to the next timer.
//!
//! # One function
//!
//! An activity is an async function: call what is inside it from an ordinary test. What needs the context is easiest
//! tested as a workflow of one step.
//!
//! # One run
//!
//! [`Lab`](crate::testing::Lab) is a process with a [`MemoryStore`](crate::store::memory::MemoryStore), a virtual clock and
//! your code. [`Faults`](crate::testing::Faults) make activities fail, lose their reply, panic, hang or act twice; the
//! process can be made to crash right before or right after any event is durable, and comes back on the same store.
//!
//! ```
//! use std::sync::{Arc, Mutex};
//!
//! use dssflow_engine::prelude::*;
//! use dssflow_engine::testing::{Fault, Faults, Lab, Rule, check_idempotent};
//!
//! /// The world outside: who was paid, by the token of the payment.
//! type Bank = Arc<Mutex<std::collections::BTreeMap<String, u32>>>;
//!
//! async fn pay(ctx: ActivityCtx, cents: u32) -> ActivityResult<u32> {
//!     let bank = ctx.resource::<Bank>()?;
//!     bank.lock().unwrap().insert(ctx.token("pay").to_string(), cents);
//!     Ok(cents)
//! }
//!
//! async fn pay_back(ctx: ActivityCtx, _was: Undoing<u32, u32>) -> ActivityResult<()> {
//!     let bank = ctx.resource::<Bank>()?;
//!     bank.lock().unwrap().remove(ctx.token("pay").as_str());
//!     Ok(())
//! }
//!
//! // In a test: #[tokio::test(start_paused = true)]
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let salary = Workflow::<u32, u32>::build("salary", |w| {
//!         let month = w.sleep("month", std::time::Duration::from_hours(30 * 24));
//!         w.step("pay", pay, w.input()).undo(pay_back).after(&month)
//!     })?;
//!     let code = |bank: &Bank, engine: EngineBuilder| {
//!         engine.register(&salary).expect("a workflow of its own").resource(bank.clone())
//!     };
//!     let start = salary.start(995)?;
//!
//!     // The first payment is made and its answer lost; the process dies when it would write that down.
//!     let bank = Bank::default();
//!     let lab = Lab::new(|engine| code(&bank, engine))
//!         .faults(Faults::new().with(Rule::new(Fault::LoseReply).step("pay").attempt(1)));
//!     lab.crash_before_event(5);
//!     let end = lab.run(start.clone()).await?;
//!     assert_eq!((end.status, lab.crashes()), (RunStatus::Succeeded, 1));
//!     assert_eq!(bank.lock().unwrap().len(), 1); // Paid once, although it was called twice.
//!
//!     // Every call repeated, and a crash at every event, forward and back.
//!     let look = |bank: &Bank| bank.lock().unwrap().len();
//!     check_idempotent(Bank::default, code, start, look).await.assert_ok();
//!     Ok(())
//! }
//! ```
//!
//! # Every way it can go
//!
//! [`check_idempotent`](crate::testing::check_idempotent), at the end of the example, is the check that every workflow
//! should pass. It makes a plain run and takes it back; does the same with every execution and every undo done twice and
//! three times in a row; and crashes at each decision, before and after it is durable, forward and back. The world must
//! look as after the plain run, and after each rollback as before it. What it finds says how to have it again.
//! [`RepeatCheck`](crate::testing::RepeatCheck) can be told more: who answers at gates, how the runs should end, and, for a
//! workflow that is not meant to be taken back, that no run is
//! ([`without_rollback`](crate::testing::RepeatCheck::without_rollback)). It is an ordinary value; print it, or fail by it
//! with `assert_ok`.
//!
//! # Values
//!
//! - [`HistoryBuilder`](crate::testing::HistoryBuilder) writes a history by hand, event by event, to look at the state and
//!   the decisions that follow, or to put it into a store.
//! - [`replay`](crate::testing::replay()) reads stored histories with the code of now: whether a release strands runs.
//!   Keep the histories of a release, and replay them in the tests of the next.
//!
//! # A store
//!
//! [`conformance`](crate::store::conformance) holds a store of your own to what the engine needs of it;
//! [`CommitFault`](crate::store::memory::CommitFault) lets a [`MemoryStore`](crate::store::memory::MemoryStore) refuse,
//! forget and lie.
//!
//! # What none of this shows
//!
//! That the services outside do what your fakes do. Tests of a probe are worth as much as the fake's answers to it: let
//! it be stale, and let a lost request land late.
