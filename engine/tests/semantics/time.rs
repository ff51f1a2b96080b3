//! Retries and limits on time.

use std::sync::atomic::{AtomicU64, Ordering};

use dssflow_engine::activity::ErrorClass;
use dssflow_engine::graph::{LockUse, Timeouts};
use dssflow_engine::id::LockName;
use dssflow_engine::retry::{RetryPolicy, RetryRule};
use dssflow_engine::run::{OnTrouble, RunStatus};
use dssflow_engine::time::{BoxFuture, Clock};

use super::*;

fn busy() -> ActivityError {
    ActivityError::retryable("Busy", "later").no_effect()
}

fn patient(attempts: u32) -> RetryPolicy {
    RetryPolicy::attempts(attempts).without_jitter()
}

#[tokio::test(start_paused = true)]
async fn each_rule_counts_for_itself_and_the_first_that_matches_wins() {
    let world = World::new();
    let locked = || ActivityError::retryable("Locked", "held").no_effect();
    // 2 of its own budget, 3 of the rule's: neither is used up by the other.
    world.fail("a", [busy(), locked(), locked(), busy(), locked()]);
    let mut a = act("a", &[]);
    a.retry = patient(3)
        .rule(RetryRule::for_code("Lock*", patient(4)))
        .rule(RetryRule::for_class(ErrorClass::Retryable, patient(3)));
    let engine = engine(&world);
    let handle = engine.start(run("r", vec![a])).await.unwrap();
    let view = end(&engine, &handle).await;
    assert_eq!((view.status, step(&view, "a").attempt), (RunStatus::Succeeded, 6));

    world.fail("b", [locked(), locked(), busy(), busy(), busy()]);
    let mut b = act("b", &[]);
    let pausing = RetryPolicy { on_exhausted: Some(OnTrouble::Pause), ..patient(3) };
    b.retry = patient(9).rule(RetryRule::for_code("Busy", pausing));
    let handle = engine.start(run("r2", vec![b])).await.unwrap();
    let view = end(&engine, &handle).await;
    assert_eq!((view.status, step(&view, "b").attempt), (RunStatus::Paused, 5));
    let handle = engine.resume(handle.id(), by()).await.unwrap();
    assert_eq!(end(&engine, &handle).await.status, RunStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn what_follows_the_last_attempt_is_the_rules_then_the_steps_then_the_runs() {
    for (rule, of_step, expected) in [
        (Some(OnTrouble::Rollback), Some(OnTrouble::Pause), RunStatus::RolledBack),
        (None, Some(OnTrouble::Pause), RunStatus::Paused),
        (None, None, RunStatus::Failed),
    ] {
        let world = World::new();
        world.fail("a", [busy(), busy()]);
        let mut a = act("a", &[]);
        a.on_exhausted = of_step;
        a.retry = RetryPolicy { on_exhausted: rule, ..patient(2) };
        let engine = engine(&world);
        let handle = engine.start(run("r", vec![a])).await.unwrap();
        assert_eq!(end(&engine, &handle).await.status, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn throttling_has_its_own_budget_credentials_pause_and_an_error_may_say_when() {
    let world = World::new();
    let slow = || ActivityError::throttled("Slow", "down").no_effect();
    world.fail("a", (0..5).map(|_| slow()));
    world
        .fail("a", [busy().retry_after(Duration::from_secs(100)), ActivityError::credentials("Expired", "")]);
    let mut a = act("a", &[]);
    a.retry = patient(2);
    let engine = engine(&world);
    let begin = tokio::time::Instant::now();
    let handle = engine.start(run("r", vec![a])).await.unwrap();
    let view = end(&engine, &handle).await;
    assert_eq!((view.status, step(&view, "a").failures), (RunStatus::Paused, 1));
    assert_eq!(begin.elapsed().as_secs(), 2 + 4 + 8 + 16 + 32 + 100);
    let handle = engine.resume(handle.id(), by()).await.unwrap();
    assert_eq!(end(&engine, &handle).await.status, RunStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_waits_too_long_for_a_lock_fails_and_the_time_nobody_owned_the_run_is_left_out() {
    let world = World::new();
    world.slow("holder", 400);
    let lock = || vec![LockUse::exclusive(LockName::new("dss").unwrap())];
    let (mut holder, mut late) = (act("holder", &[]), act("late", &[]));
    (holder.locks, late.locks) = (lock(), lock());
    late.timeouts = Timeouts::default().to_start(Duration::from_secs(100));
    let kept = store();
    let first = builder(kept.share(), &world).build();
    let _holding = first.start(run("holding", vec![holder])).await.unwrap();
    let waiting = first.start(run("waiting", vec![late])).await.unwrap();
    pass(60).await;
    first.stop();
    waiting.wait().await.unwrap();
    drop((first, waiting));
    pass(1000).await;

    let clock = TokioClock::starting_at(Timestamp::from_millis(1_000_000 + 1_060_000));
    let second = builder(kept.reopen(), &world).clock(Arc::new(clock)).build();
    let _holding = second.resume(&RunId::new("holding").unwrap(), by()).await.unwrap();
    pass(1).await;
    let recovered = second.recover().await.unwrap();
    assert_eq!(recovered.runs.len(), 1, "{recovered:?}");
    let begin = tokio::time::Instant::now();
    let handle = second.handle(&RunId::new("waiting").unwrap()).unwrap();
    let view = end(&second, &handle).await;
    assert_eq!((view.status, code(&view, "late")), (RunStatus::Failed, "ScheduleToStart".into()));
    let waited = begin.elapsed().as_secs();
    assert!((40..=100).contains(&waited), "{waited}");
}

#[tokio::test(start_paused = true)]
async fn all_attempts_together_have_a_time_and_no_wait_goes_past_it() {
    let world = World::new();
    world.fail("a", (0..9).map(|_| busy()));
    let mut a = act("a", &[]);
    a.retry = RetryPolicy { initial_interval_ms: 10_000, ..patient(100) };
    a.timeouts = Timeouts::default().in_all(Duration::from_secs(65));
    let engine = engine(&world);
    let begin = tokio::time::Instant::now();
    let handle = engine.start(run("r", vec![a])).await.unwrap();
    assert_eq!(end(&engine, &handle).await.status, RunStatus::Failed);
    // 10 + 20 have passed; another 40 would be too long.
    assert_eq!((begin.elapsed().as_secs(), world.count("a")), (30, 3));
}

#[tokio::test(start_paused = true)]
async fn a_silent_attempt_is_ended_and_the_next_one_reads_the_last_details() {
    let world = World::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let mut activities = ActivityRegistry::new();
    activities
        .add_fn("beat", move |ctx: ActivityContext, (): ()| {
            let told = Arc::clone(&told);
            async move {
                told.lock().unwrap().push(ctx.last_heartbeat::<u32>());
                for n in 1..=3 {
                    ctx.heartbeat(n + 10 * ctx.attempt());
                    ctx.sleep(Duration::from_secs(1)).await?;
                }
                if ctx.attempt() == 1 {
                    std::future::pending::<()>().await;
                }
                Ok(json!(null))
            }
        })
        .unwrap();
    let engine = builder(store(), &world).add_code(activities, Default::default()).unwrap().build();
    let mut beat =
        Step::activity(name("b"), ActivityName::new("beat").unwrap(), Binding::literal(json!(null)));
    beat.timeouts = Timeouts::default().heartbeat(Duration::from_secs(30));
    let handle = engine.start(run("r", vec![beat])).await.unwrap();
    assert_eq!(end(&engine, &handle).await.status, RunStatus::Succeeded);
    assert_eq!(*seen.lock().unwrap(), [None, Some(13)], "also what the throttle held back");
}

#[tokio::test(start_paused = true)]
async fn a_run_has_its_own_time_less_pauses_and_a_resume_gives_it_anew() {
    let world = World::new();
    world.slow("a", 80);
    world.slow("b", 50);
    let engine = engine(&world);
    let mut wanted = run("r", vec![act("a", &[]), act("b", &["a"])]);
    wanted.options.timeout_ms = Some(100_000);
    let handle = engine.start(wanted).await.unwrap();
    pass(10).await;
    engine.pause(handle.id(), by()).await.unwrap();
    assert_eq!(end(&engine, &handle).await.status, RunStatus::Paused);
    pass(500).await;
    let handle = engine.resume(handle.id(), by()).await.unwrap();
    pass(85).await;
    assert_eq!(step(&handle.status().await.unwrap(), "a").status.as_str(), "succeeded");
    assert_eq!(end(&engine, &handle).await.status, RunStatus::TimedOut);
    let handle = engine.resume(handle.id(), by()).await.unwrap();
    assert_eq!(end(&engine, &handle).await.status, RunStatus::Succeeded);
    assert_eq!(world.log(), ["a", "b"]);
}

/// A clock that is set by hand, beside the time that passes.
#[derive(Clone)]
struct HandClock(TokioClock, Arc<AtomicU64>);

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.now().as_millis() + self.1.load(Ordering::SeqCst) - 1_000_000_000)
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        // As the machine's: looked at again every 10 seconds.
        Box::pin(tokio::time::sleep(at.since(self.now()).min(Duration::from_secs(10))))
    }
}

#[tokio::test(start_paused = true)]
async fn a_sleep_survives_a_crash_and_a_clock_that_jumps() {
    for (jump, expected) in [(0_i64, 300), (-500_000, 300), (200_000, 100)] {
        let world = World::new();
        let offset = Arc::new(AtomicU64::new(1_000_000_000));
        let start = TokioClock::starting_at(Timestamp::from_millis(5_000_000_000));
        let clock = Arc::new(HandClock(start, Arc::clone(&offset)));
        let kept = store();
        let first = builder(kept.share(), &world).clock(clock.clone()).build();
        let nap = StepKind::Sleep { duration_ms: Binding::literal(300_000) };
        let begin = tokio::time::Instant::now();
        let handle = first.start(run("r", vec![kind("z", nap, &[]), act("a", &["z"])])).await.unwrap();
        pass(50).await;
        first.stop();
        handle.wait().await.unwrap();
        let second = builder(kept.reopen(), &world).clock(clock).build();
        let handle = second.recover().await.unwrap().runs.remove(0);
        pass(10).await;
        let set = i64::try_from(offset.load(Ordering::SeqCst)).unwrap() + jump;
        offset.store(u64::try_from(set).unwrap(), Ordering::SeqCst);
        let view = end(&second, &handle).await;
        assert_eq!(view.status, RunStatus::Succeeded);
        let took = begin.elapsed().as_secs();
        assert!((expected..=expected + 20).contains(&took), "jump {jump}: {took} s, not {expected}");
    }
}
