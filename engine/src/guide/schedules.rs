//! How a program of one's own starts runs at given times.
//!
//! A schedule is a name, a [`ScheduleSpec`](crate::schedule::ScheduleSpec) and what has become of it. It is kept in the
//! engine's store, and outlives the process. [`Engine::schedules`](crate::Engine::schedules) is the handle: make, change,
//! pause, trigger, backfill, look. Nothing fires unless somebody asks for it with
//! [`drive`](crate::runtime::Schedules::drive); what comes back fires until it is stopped or dropped.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use dssflow_engine::prelude::*;
//! use dssflow_engine::runtime::clock::TokioClock;
//! use dssflow_engine::time::Timestamp;
//!
//! async fn report(ctx: ActivityCtx, what: String) -> ActivityResult<String> {
//!     // The instant that the run is for. It is part of the history, so each attempt reads the same.
//!     let at = ctx.scheduled().map(|scheduled| scheduled.nominal.to_string());
//!     Ok(format!("{what} of {}", at.unwrap_or_else(|| "today".to_owned())))
//! }
//!
//! // A test of a schedule: on paused time a year of instants takes no time.
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let daily = Workflow::<String, String>::build("daily", |w| w.step("report", report, w.input()))?;
//!     let store = Arc::new(MemoryStore::new(StoreId::generate([0; 16])));
//!     let clock = TokioClock::starting_at(Timestamp::from_millis(1_772_323_200_000)); // 2026-03-01T00:00:00Z
//!     let engine = Engine::builder(store).clock(Arc::new(clock)).register(&daily)?.build();
//!
//!     let id = ScheduleId::new("weekday-report")?;
//!     let action = ScheduleAction::new("daily").input("sales");
//!     let spec = ScheduleSpec::cron("0 6 * * 1-5", action).zone("Europe/Berlin").overlap(Overlap::BufferOne);
//!     engine.schedules().create(id.clone(), spec, Request::by("me")).await?;
//!
//!     let firing = engine.schedules().drive();
//!     tokio::time::sleep(Duration::from_hours(7 * 24)).await;
//!     firing.stop().await?; // Runs that it started go on.
//!
//!     let view = engine.schedules().get(&id).await?;
//!     assert_eq!((view.counts.fired, view.counts.succeeded), (5, 5));
//!     // The id of a run is the schedule and the instant.
//!     let monday = engine.view(&RunId::new("weekday-report-20260302t050000z")?).await?;
//!     assert_eq!(monday.output, Some("sales of 2026-03-02T05:00:00.000Z".into()));
//!     Ok(())
//! }
//! ```
//!
//! # What is promised
//!
//! **An instant fires at most once.** The run and the note that its instant has fired are one transition of the store, so
//! no crash falls between them. What has fired is kept in the schedule itself: removing runs does not bring instants back.
//!
//! **An instant fires**, unless the schedule says why not: a run was not over and the
//! [overlap policy](crate::schedule::Overlap) skips, nobody drove for longer than the catch-up window, it was paused, its
//! limit was used up, or the run could not be started. Each is in [`ScheduleView::recent`](crate::schedule::ScheduleView),
//! and counted.
//!
//! **What was missed is caught up.** A process that comes back fires what is still within
//! [`catch_up_ms`](crate::schedule::ScheduleSpec::catch_up_ms), in order, under the overlap policy: with the default,
//! `Skip`, of several that were missed the first one fires, and those that find it running do not.
//!
//! # What a service does
//!
//! 1. Open the store, register workflows, [`recover`](crate::Engine::recover): runs of the last process go on, those that
//!    schedules started among them.
//! 2. Bring schedules to what the program says: [`create`](crate::runtime::Schedules::create), and
//!    [`update`](crate::runtime::Schedules::update) when it is there. An update that leaves the times as they are
//!    changes nothing of what has fired or is due.
//! 3. [`drive`](crate::runtime::Schedules::drive), and watch [`ended`](crate::runtime::ScheduleDriver::ended): it resolves
//!    by itself only when the store has failed.
//! 4. To stop, [`stop`](crate::runtime::ScheduleDriver::stop) the driver first, then let runs end or drop them: they go on
//!    at the next start.
//!
//! `engine/examples/embed_in_axum.rs` does all of it in a web service.
//!
//! # Other runs, other places
//!
//! By default a firing starts the registered workflow that the action names, with the action's input. A
//! [`Launcher`](crate::runtime::Launcher) of one's own makes the run instead: with another graph, labels, or an engine
//! with other resources. What it refuses for now ([`LaunchError::Later`](crate::runtime::LaunchError::Later)) is tried
//! again as long as the catch-up window is; what it refuses for good is told and counted.
//!
//! Several engines on a store that they share may all drive: an instant fires once.
