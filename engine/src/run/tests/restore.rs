//! A run whose store was put back to a backup, and one of another store.

use super::*;
use crate::event::PauseKind;
use crate::id::StoreId;
use crate::run::state::Ledger;
use crate::run::view::view;

fn restored() -> EventKind {
    EventKind::RunRestored {
        format: EVENT_FORMAT,
        backup: Timestamp::from_millis(900),
        gap_ms: 5_000,
        request: Request::by("ann"),
    }
}

fn imported() -> EventKind {
    let (store, backup) = (StoreId::generate([3; 16]), Timestamp::from_millis(900));
    EventKind::RunImported { format: EVENT_FORMAT, store, backup, request: Request::by("ann") }
}

fn resumed() -> EventKind {
    EventKind::RunResumed { request: Request::default() }
}

fn generation(bench: &Bench, n: &str) -> u32 {
    bench.state.step(&name(n)).unwrap().generation
}

fn answer(bench: &mut Bench, n: &str, answer: Probe<serde_json::Value>, next: Next) {
    let attempt = bench.attempt(n);
    bench.feed(EventKind::ProbeAnswered { step: name(n), attempt, answer, next }).unwrap();
}

#[test]
fn it_stands_still_and_what_was_in_flight_is_lost() {
    let mut bench = Bench::new(diamond(), RunOptions::default());
    bench.done("a");
    bench.start("b", Phase::Execute);
    bench.feed(restored()).unwrap();
    assert_eq!(bench.state.status(), RunStatus::Paused);
    let reason = bench.state.paused.clone().unwrap();
    assert_eq!(reason.kind, PauseKind::Restored);
    assert_eq!(reason.message, "restored from a backup of 1970-01-01T00:00:00.900Z");
    assert!(bench.state.in_flight.is_empty() && bench.next().is_empty());
    assert_eq!(bench.state.suspended_ms, 5_000);
    bench.feed(resumed()).unwrap();
    let next = bench.next();
    assert!(next.contains(&"Probe b".to_owned()), "what was in flight is looked at first: {next:?}");
    assert!(next.contains(&"Execute c".to_owned()), "{next:?}");
}

#[test]
fn the_reason_of_an_earlier_pause_stays_to_be_read() {
    let mut bench = Bench::new(diamond(), RunOptions::default());
    bench.feed(EventKind::PauseRequested { request: Request::by("bob") }).unwrap();
    let reason = bench.state.pause_reason.clone().unwrap();
    bench.feed(EventKind::RunPaused { reason }).unwrap();
    let since = bench.state.paused_at;
    for _ in 0..2 {
        bench.feed(restored()).unwrap();
        let message = bench.state.paused.clone().unwrap().message;
        assert_eq!(
            message,
            "restored from a backup of 1970-01-01T00:00:00.900Z; it was paused then: paused by bob"
        );
        assert_eq!(bench.state.paused_at, since, "the pause counts from its start");
    }
}

#[test]
fn a_step_is_in_doubt_until_it_is_known_anew_and_gets_a_generation_that_was_never_used() {
    let mut bench = Bench::new(diamond(), RunOptions::default());
    bench.done("a");
    bench.feed(restored()).unwrap();
    bench.feed(resumed()).unwrap();
    let first = bench.state.restored.unwrap().generation;
    let b = bench.state.graph.index_of(&name("b")).unwrap();
    assert!(bench.state.in_doubt(b), "also one that had not started");
    bench.start("b", Phase::Execute);
    let at = Timestamp::from_millis(bench.now + 30_000);
    answer(&mut bench, "b", Probe::Absent, Next::At { at });
    assert!(matches!(bench.state.steps[b as usize].ledger, Ledger::Unknown { absent_since: Some(_) }));
    assert_eq!(generation(&bench, "b"), 1, "one look is none");
    bench.now += 30_000;
    bench.start("b", Phase::Probe);
    answer(&mut bench, "b", Probe::Absent, Next::Now);
    assert_eq!(generation(&bench, "b"), first);
    assert!(!bench.state.in_doubt(b));
    bench.done("b");

    // What is found is taken as it is; done once more it is in doubt again.
    bench.start("c", Phase::Execute);
    let (attempt, found) = (bench.attempt("c"), Some(Owner::ThisRun));
    bench.feed(EventKind::AttemptSucceeded { step: name("c"), attempt, output: json!(1), found }).unwrap();
    assert_eq!(generation(&bench, "c"), 1);
    let c = bench.state.graph.index_of(&name("c")).unwrap();
    assert!(bench.state.in_doubt(c));

    // The same backup once more: generations of its own again.
    bench.now += 1_000;
    bench.feed(restored()).unwrap();
    assert!(bench.state.restored.unwrap().generation > first);
    assert!(bench.state.in_doubt(b));
}

#[test]
fn a_failure_that_surely_had_no_effect_is_looked_at_all_the_same() {
    let mut bench = Bench::new(vec![step("a", &[])], RunOptions::default());
    bench.start("a", Phase::Execute);
    let error = ActivityError::retryable("Quota", "no room").no_effect();
    let (attempt, next) = (bench.attempt("a"), Next::At { at: Timestamp::from_millis(60_000) });
    bench.feed(EventKind::AttemptFailed { step: name("a"), attempt, error, next }).unwrap();
    assert_eq!(bench.state.steps[0].ledger, Ledger::NoEffect);
    bench.feed(restored()).unwrap();
    // Turned round at once it is looked at as well.
    bench.feed(EventKind::RollbackStarted { keep: vec![], to: None, request: Request::default() }).unwrap();
    assert_eq!(bench.next(), ["Probe a"]);
}

#[test]
fn a_wish_to_end_outlives_the_restore() {
    let mut bench = Bench::new(diamond(), RunOptions::default());
    bench.start("a", Phase::Execute);
    let mode = crate::event::CancelMode::Rollback;
    bench.feed(EventKind::CancelRequested { mode, request: Request::default() }).unwrap();
    bench.feed(restored()).unwrap();
    bench.feed(resumed()).unwrap();
    assert_eq!(bench.next(), ["BeginRollback"]);
}

#[test]
fn a_run_that_had_ended_stays_so_and_its_steps_are_in_doubt() {
    let mut bench = Bench::new(vec![step("a", &[])], RunOptions::default());
    bench.done("a");
    bench.feed(EventKind::RunFinished { status: RunStatus::Succeeded, output: None, error: None }).unwrap();
    bench.feed(restored()).unwrap();
    assert_eq!(bench.state.status(), RunStatus::Succeeded);
    assert!(bench.state.in_doubt(0));
}

#[test]
fn a_run_of_another_store_is_history() {
    for ended in [false, true] {
        let mut bench = Bench::new(vec![step("a", &[]), step("b", &["a"])], RunOptions::default());
        bench.done("a");
        bench.start("b", Phase::Execute);
        if ended {
            let (attempt, next) = (bench.attempt("b"), Next::Fail);
            let error = ActivityError::terminal("No", "never");
            bench.feed(EventKind::AttemptFailed { step: name("b"), attempt, error, next }).unwrap();
            bench
                .feed(EventKind::RunFinished { status: RunStatus::Failed, output: None, error: None })
                .unwrap();
        }
        assert!(bench.state.is_live());
        bench.feed(imported()).unwrap();
        let expected = if ended { RunStatus::Failed } else { RunStatus::Cancelled };
        assert_eq!(bench.state.status(), expected);
        assert!(!bench.state.is_live(), "what it made is the other store's");
        assert!(bench.next().is_empty());
        assert_eq!(view(&bench.state).imported, Some(StoreId::generate([3; 16])));
        let request = Request::default;
        for refused in [
            resumed(),
            EventKind::RollbackStarted { keep: vec![], to: None, request: request() },
            EventKind::RunRecovered { epoch: 2, gap_ms: 1, format: EVENT_FORMAT },
            EventKind::CancelRequested { mode: crate::event::CancelMode::Keep, request: request() },
            EventKind::StepsReset {
                steps: vec![name("b")],
                again: crate::event::Again::Retry,
                request: request(),
            },
        ] {
            let error = bench.feed(refused).unwrap_err();
            assert!(error.contains("history of store") || error.contains("has ended"), "{error}");
        }
        // A copy of a copy.
        bench.feed(restored()).unwrap();
        bench.feed(imported()).unwrap();
        assert_eq!(bench.state.status(), expected);
        assert!(bench.next().is_empty());
    }
}

#[test]
fn the_new_events_are_written_and_read_the_same() {
    for kind in [restored(), imported()] {
        let events = vec![Event { seq: 4, at: Timestamp::from_millis(5), kind }];
        let bytes = crate::event::encode(&events);
        assert_eq!(crate::event::decode(4, &bytes).unwrap(), events);
        let newer = String::from_utf8(bytes).unwrap().replace("\"format\":2", "\"format\":9");
        let error = crate::event::decode(4, newer.as_bytes()).unwrap_err();
        assert_eq!(error, crate::event::DecodeError::Newer { found: 9 });
    }
}
