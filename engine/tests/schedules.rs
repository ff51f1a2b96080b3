//! Schedules at work, on paused time: what fires, when, how often, and what a crash changes of it, which is nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dssflow_engine::prelude::*;
use dssflow_engine::runtime::clock::TokioClock;
use dssflow_engine::runtime::{Launch, LaunchError, Launcher, ScheduleDriver, ScheduleError};
use dssflow_engine::schedule::{
    Backfill, Firing, IllegalChange, PauseCause, ScheduleStatus, Scheduled, Timing, Update,
};
use dssflow_engine::store::layer::Layer;
use dssflow_engine::store::prune::Policy;
use dssflow_engine::store::{SchedulePut, StoreError, Transition};
use dssflow_engine::time::{BoxFuture, Clock, Timestamp};
use serde_json::{Value, json};

const MINUTE: u64 = 60_000;
/// 2026-03-01T00:00:00Z.
const T0: u64 = 1_772_323_200_000;

/// What the world outside has seen: each execution of the step, by run, and what it knew of its schedule.
type Seen = Arc<Mutex<Vec<(RunId, Scheduled)>>>;

/// What the step does, by its run's number of the schedule.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    Quick,
    /// Takes three and a half minutes.
    Long,
    Fails,
}

/// Looks and changes nothing, so that its runs own nothing.
struct Look {
    seen: Seen,
    does: Does,
}

impl Activity for Look {
    type Input = Value;
    type Output = Value;

    fn effect(&self) -> Effect {
        Effect::Read
    }

    async fn execute(&self, ctx: &ActivityContext, input: &Value) -> ActivityResult<Value> {
        let Some(scheduled) = ctx.scheduled() else { return Ok(Value::Null) };
        let seen = (ctx.run().clone(), Scheduled::clone(&scheduled));
        self.seen.lock().expect("no thread panics with it").push(seen);
        match self.does {
            Does::Quick => Ok(json!({ "of": input, "at": scheduled.nominal })),
            Does::Long => ctx.sleep(Duration::from_secs(210)).await.map(|()| Value::Null),
            Does::Fails => Err(ActivityError::terminal("Broken", "it does not work")),
        }
    }
}

fn work(seen: &Seen, does: Does) -> Workflow<Value, Value> {
    let look = Look { seen: Arc::clone(seen), does };
    Workflow::<Value, Value>::build("work", |w| w.activity("only", look, w.input())).expect("it is right")
}

fn engine_on(store: Arc<dyn Store>, seen: &Seen, does: Does, clock: &Arc<dyn Clock>) -> Engine {
    let workflow = work(seen, does);
    Engine::builder(store).clock(Arc::clone(clock)).register(&workflow).expect("it is new").build()
}

struct World {
    store: Arc<MemoryStore>,
    clock: Arc<dyn Clock>,
    seen: Seen,
    engine: Engine,
    does: Does,
}

fn id(name: &str) -> ScheduleId {
    ScheduleId::new(name).expect("a name")
}

fn by() -> Request {
    Request::by("ada")
}

fn every_minute() -> ScheduleSpec {
    ScheduleSpec::cron("* * * * *", ScheduleAction::new("work").input(json!("x")))
}

impl World {
    fn new(does: Does) -> Self {
        let store = Arc::new(MemoryStore::new(StoreId::generate([1; 16])));
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(Timestamp::from_millis(T0)));
        let seen = Seen::default();
        let engine = engine_on(Arc::clone(&store) as Arc<dyn Store>, &seen, does, &clock);
        Self { store, clock, seen, engine, does }
    }

    /// Lets go of everything, as a crash would, and begins anew on the same data.
    fn restart(&mut self) {
        self.store = Arc::new(self.store.reopen());
        let store = Arc::clone(&self.store) as Arc<dyn Store>;
        self.engine = engine_on(store, &self.seen, self.does, &self.clock);
    }

    async fn create(&self, name: &str, spec: ScheduleSpec) {
        self.engine.schedules().create(id(name), spec, by()).await.expect("it is right");
    }

    fn drive(&self) -> ScheduleDriver {
        self.engine.schedules().drive()
    }

    async fn until(&self, ms: u64) {
        let at = Timestamp::from_millis(T0 + ms);
        while self.clock.now() < at {
            self.clock.sleep_until(at).await;
        }
    }

    /// Minutes of the instants whose runs did something, in order.
    fn minutes(&self) -> Vec<u64> {
        let seen = self.seen.lock().expect("no thread panics with it");
        seen.iter().map(|(_, scheduled)| (scheduled.nominal.as_millis() - T0) / MINUTE).collect()
    }

    async fn view(&self, name: &str) -> dssflow_engine::schedule::ScheduleView {
        self.engine.schedules().get(&id(name)).await.expect("it is there")
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_knows_its_instant_and_what_the_last_one_returned() {
    let world = World::new(Does::Quick);
    world.create("nightly", every_minute()).await;
    let driver = world.drive();
    world.until(3 * MINUTE + 30_000).await;
    assert_eq!(world.minutes(), [1, 2, 3]);
    let (run, scheduled) = world.seen.lock().unwrap()[2].clone();
    assert_eq!(run.as_str(), "nightly-20260301t000300z");
    assert_eq!(scheduled.nominal, Timestamp::from_millis(T0 + 3 * MINUTE));
    let last = scheduled.last_result.unwrap();
    assert_eq!(
        (last.run.as_str(), last.output.unwrap()["of"].clone()),
        ("nightly-20260301t000200z", json!("x"))
    );
    let view = world.engine.view(&run).await.unwrap();
    assert_eq!(view.labels["schedule"], "nightly");
    assert_eq!(view.request.by, "schedule nightly");
    assert_eq!(view.scheduled.unwrap().nominal, scheduled.nominal);
    let shown = world.view("nightly").await;
    assert_eq!((shown.counts.fired, shown.counts.succeeded, shown.running.len()), (3, 3, 0));
    assert_eq!(shown.next, Some(Timestamp::from_millis(T0 + 4 * MINUTE)));
    driver.stop().await.unwrap();
    world.until(6 * MINUTE).await;
    assert_eq!(world.minutes(), [1, 2, 3], "nobody drives");
}

#[tokio::test(start_paused = true)]
async fn overlapping_runs_do_as_the_policy_says() {
    for (overlap, minutes) in [
        (Overlap::Skip, &[1, 5, 9][..]),
        (Overlap::BufferOne, &[1, 2, 5]),
        (Overlap::BufferAll, &[1, 2, 3, 4]),
        (Overlap::CancelOther, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        (Overlap::TerminateOther, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        (Overlap::AllowAll, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
    ] {
        let world = World::new(Does::Long);
        world.create("s", every_minute().overlap(overlap)).await;
        let driver = world.drive();
        world.until(11 * MINUTE + 40_000).await;
        let seen = world.minutes();
        assert!(seen.starts_with(minutes), "{overlap}: {seen:?}");
        let most = if overlap == Overlap::AllowAll { 4 } else { 1 };
        let view = world.view("s").await;
        assert!(view.running.len() <= most, "{overlap}: {view:?}");
        let ended_others = matches!(overlap, Overlap::CancelOther | Overlap::TerminateOther);
        assert_eq!(view.counts.cancelled > 5, ended_others, "{overlap}: {view:?}");
        drop(driver);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_missed_is_caught_up_within_the_window() {
    let mut world = World::new(Does::Quick);
    let spec = ScheduleSpec { catch_up_ms: 5 * MINUTE, ..every_minute() };
    world.create("s", spec.overlap(Overlap::BufferAll)).await;
    let driver = world.drive();
    world.until(2 * MINUTE + 1_000).await;
    drop(driver);
    world.restart();
    world.until(20 * MINUTE + 1_000).await;
    let _driver = world.drive();
    world.until(21 * MINUTE + 1_000).await;
    assert_eq!(world.minutes(), [1, 2, 16, 17, 18, 19, 20, 21]);
    assert_eq!(world.view("s").await.counts.missed, 13);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_goes_on_is_followed_after_a_restart() {
    let mut world = World::new(Does::Long);
    world.create("s", every_minute()).await;
    let driver = world.drive();
    world.until(MINUTE + 1_000).await;
    drop(driver);
    world.restart();
    let recovered = world.engine.recover().await.unwrap();
    assert_eq!(recovered.runs.len(), 1);
    let _driver = world.drive();
    world.until(6 * MINUTE + 1_000).await;
    let mut runs = world.minutes();
    runs.dedup();
    assert_eq!(runs, [1, 5], "while it goes on instants are skipped");
}

#[tokio::test(start_paused = true)]
async fn it_pauses_on_failure_and_goes_on_when_told() {
    let world = World::new(Does::Fails);
    world.create("s", ScheduleSpec { pause_on_failure: true, ..every_minute() }).await;
    let _driver = world.drive();
    world.until(3 * MINUTE + 1_000).await;
    assert_eq!(world.minutes(), [1]);
    let view = world.view("s").await;
    assert_eq!((view.status, view.paused.unwrap().cause), (ScheduleStatus::Paused, PauseCause::Failure));
    assert!(view.last_failure.unwrap().message.contains("it does not work"));
    let schedules = world.engine.schedules();
    schedules.unpause(&id("s"), by()).await.unwrap();
    assert!(matches!(schedules.unpause(&id("s"), by()).await, Err(ScheduleError::Illegal { .. })));
    world.until(4 * MINUTE + 1_000).await;
    assert_eq!(world.minutes(), [1, 4]);
}

#[tokio::test(start_paused = true)]
async fn triggers_backfills_and_changes() {
    let world = World::new(Does::Quick);
    let schedules = world.engine.schedules();
    world.create("s", every_minute()).await;
    assert!(matches!(schedules.create(id("s"), every_minute(), by()).await, Err(ScheduleError::Exists(_))));
    schedules.pause(&id("s"), Request { reason: "audit".to_owned(), ..by() }).await.unwrap();
    let _driver = world.drive();
    world.until(3 * MINUTE).await;
    let because = Request { reason: "new data".to_owned(), ..by() };
    let triggered = schedules.trigger(&id("s"), None, because).await.unwrap();
    world.until(3 * MINUTE + 1_000).await;
    let (run, scheduled) = world.seen.lock().unwrap()[0].clone();
    assert_eq!((&run, scheduled.nominal), (&triggered.run, triggered.nominal));
    let asked = world.engine.view(&run).await.unwrap().request;
    assert_eq!((asked.by.as_str(), asked.reason.as_str()), ("schedule s", "triggered by ada: new data"));

    let from = Timestamp::from_millis(T0 - 2 * MINUTE);
    let to = Timestamp::from_millis(T0 + 2 * MINUTE);
    let dry = schedules.backfill(&id("s"), Backfill::new(from, to), true, by()).await.unwrap();
    assert_eq!(dry.instants.len(), 5);
    world.until(3 * MINUTE + 2_000).await;
    assert_eq!(world.seen.lock().unwrap().len(), 1, "a dry run does nothing");
    schedules.backfill(&id("s"), Backfill::new(from, to), false, by()).await.unwrap();
    world.until(3 * MINUTE + 20_000).await;
    assert_eq!(world.seen.lock().unwrap().len(), 6);

    // Pruning takes the runs; what fired is known all the same.
    let policy = Policy { older_than: Duration::ZERO, ..Policy::default() };
    world.until(5 * MINUTE).await;
    let pruned = world.engine.prune(&policy, false, &mut |_| ()).await.unwrap();
    assert_eq!(pruned.removed, 6, "{pruned:?}");
    let told = schedules.backfill(&id("s"), Backfill::new(from, to), false, by()).await.unwrap();
    assert!(told.instants.iter().all(|instant| instant.skipped.is_some()), "{told:?}");
    world.until(6 * MINUTE).await;
    assert_eq!(world.seen.lock().unwrap().len(), 6, "an instant fires once");

    let mut spec = every_minute();
    spec.timing = vec![Timing::Cron { cron: "*/10 * * * *".to_owned() }];
    let seen = Some(world.view("s").await.updated);
    let change = Update { seen, ..Update::new(spec) };
    schedules.update_as(&id("s"), change.clone(), by()).await.unwrap();
    let again = schedules.update_as(&id("s"), change, by()).await.unwrap_err();
    let refused = matches!(again, ScheduleError::Illegal { why: IllegalChange::Changed { .. }, .. });
    assert!(refused, "it was changed since: {again}");
    schedules.unpause(&id("s"), by()).await.unwrap();
    assert_eq!(world.view("s").await.resumed.unwrap().by, "ada");
    let next = schedules.next(&id("s"), 2).await.unwrap();
    assert_eq!(next, [10, 20].map(|minute| Timestamp::from_millis(T0 + minute * MINUTE)));
    world.until(10 * MINUTE + 1_000).await;
    assert_eq!(world.seen.lock().unwrap().len(), 7);
    schedules.remove(&id("s")).await.unwrap();
    world.until(21 * MINUTE).await;
    assert_eq!(world.seen.lock().unwrap().len(), 7);
    assert!(matches!(schedules.get(&id("s")).await, Err(ScheduleError::NotFound(_))));
    assert!(schedules.list(None, 10).await.unwrap().schedules.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_comes_next_ends_with_the_limit() {
    let world = World::new(Does::Quick);
    let schedules = world.engine.schedules();
    let spec = ScheduleSpec { limit: Some(2), ..every_minute() };
    assert_eq!(schedules.preview(&id("s"), &spec, 5).unwrap().len(), 2);
    world.create("s", spec.clone()).await;
    let next = async || schedules.next(&id("s"), 5).await.unwrap().len();
    assert_eq!(next().await, 2);
    let _driver = world.drive();
    world.until(MINUTE + 1_000).await;
    assert_eq!(next().await, 1);
    world.until(4 * MINUTE).await;
    assert_eq!((next().await, world.view("s").await.status), (0, ScheduleStatus::Ended));
    let anew = Update { renew_limit: true, ..Update::new(spec) };
    schedules.update_as(&id("s"), anew, by()).await.unwrap();
    assert_eq!((next().await, world.view("s").await.status), (2, ScheduleStatus::Active));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_started_is_refused_when_it_is_made_and_told_when_it_is_due() {
    let world = World::new(Does::Quick);
    let schedules = world.engine.schedules();
    let unknown = ScheduleSpec::cron("* * * * *", ScheduleAction::new("wrok"));
    let error = schedules.create(id("s"), unknown, by()).await.unwrap_err();
    assert!(matches!(error, ScheduleError::Launch { .. }), "{error}");
    let wrong = every_minute().zone("Mars/Olympus");
    let error = schedules.create(id("s"), wrong, by()).await.unwrap_err();
    assert!(matches!(error, ScheduleError::Spec { .. }), "{error}");

    // A run of that id is there already: the instant has fired.
    world.create("s", every_minute()).await;
    let taken = StartRun { ..world.engine.start_of("work", json!(1)).unwrap() };
    let taken = taken.id(RunId::new("s-20260301t000100z").unwrap());
    drop(world.engine.start(taken).await);
    let _driver = world.drive();
    world.until(2 * MINUTE + 1_000).await;
    assert_eq!(world.minutes(), [2]);
}

/// Cannot start anything until it is told that it can.
struct Slow {
    may: Arc<AtomicBool>,
    after: Arc<Mutex<Vec<RunId>>>,
}

impl Launcher for Slow {
    fn check(&self, _: &Engine, _: &ScheduleAction) -> Result<(), LaunchError> {
        Ok(())
    }

    fn launch<'a>(
        &'a self,
        engine: &'a Engine,
        firing: &'a Firing,
    ) -> BoxFuture<'a, Result<Launch, LaunchError>> {
        Box::pin(async move {
            if !self.may.load(Ordering::Relaxed) {
                return Err(LaunchError::Later("no answer".to_owned()));
            }
            let start = engine.start_of("work", json!(firing.nominal)).expect("it is registered");
            let after = Arc::clone(&self.after);
            Ok(Launch::new(start, engine.clone())
                .then(move |handle| after.lock().expect("nobody panics").push(handle.id().clone())))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_firing_that_cannot_start_yet_waits_as_long_as_the_window_is() {
    let world = World::new(Does::Quick);
    let (may, after) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let launcher = Slow { may: Arc::clone(&may), after: Arc::clone(&after) };
    let schedules = world.engine.schedules().with_launcher(Arc::new(launcher));
    let spec = ScheduleSpec { catch_up_ms: 3 * MINUTE, ..every_minute() };
    schedules.create(id("s"), spec.overlap(Overlap::BufferAll), by()).await.unwrap();
    let _driver = schedules.drive();
    world.until(2 * MINUTE + 30_000).await;
    let trouble = world.view("s").await.trouble.unwrap();
    assert_eq!((trouble.why.as_str(), trouble.nominal.as_millis()), ("no answer", T0 + MINUTE));
    world.until(8 * MINUTE + 10_000).await;
    may.store(true, Ordering::Relaxed);
    world.until(14 * MINUTE + 10_000).await;
    let minutes = world.minutes();
    assert!(minutes[0] >= 5 && minutes.len() >= 7, "what was too late is missed: {minutes:?}");
    assert!(minutes.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{minutes:?}");
    let view = world.view("s").await;
    assert!(view.trouble.is_none() && view.counts.missed >= 3, "{view:?}");
    assert_eq!(after.lock().unwrap().len(), minutes.len(), "each run is handed on");
}

/// Dies at a write: before it takes place, or between the write and its answer.
struct Mortal {
    base: Arc<MemoryStore>,
    left: AtomicI64,
    writes: bool,
    dead: AtomicBool,
    died: tokio::sync::Notify,
}

impl Mortal {
    fn new(base: &Arc<MemoryStore>, after: i64, writes: bool) -> Arc<Self> {
        let (left, dead) = (AtomicI64::new(after), AtomicBool::new(false));
        Arc::new(Self { base: Arc::clone(base), left, writes, dead, died: tokio::sync::Notify::new() })
    }

    /// Whether this write is made; it never comes back from the one that it dies at.
    async fn may_write(&self) -> bool {
        if self.dead.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return true;
        }
        self.dead.store(true, Ordering::SeqCst);
        false
    }

    async fn die(&self) -> ! {
        self.died.notify_waiters();
        std::future::pending::<()>().await;
        unreachable!("it is dead")
    }
}

impl Layer for Mortal {
    fn base(&self) -> &dyn Store {
        &*self.base
    }

    fn commit(&self, transition: Transition) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            if self.may_write().await {
                return self.base.commit(transition).await;
            }
            if self.writes {
                drop(self.base.commit(transition).await);
            }
            self.die().await
        })
    }

    fn put_schedule(&self, put: SchedulePut, epoch: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            if self.may_write().await {
                return self.base.put_schedule(put, epoch).await;
            }
            if self.writes {
                drop(self.base.put_schedule(put, epoch).await);
            }
            self.die().await
        })
    }
}

/// Every write from the first to the last of some minutes: the process dies there, the next one goes on, and the world
/// outside has seen each instant in one run and no instant in none.
#[tokio::test(start_paused = true)]
async fn a_crash_at_any_write_neither_loses_nor_repeats_an_instant() {
    let mut cases = 0;
    for writes in [false, true] {
        for after in 0.. {
            let base = Arc::new(MemoryStore::new(StoreId::generate([1; 16])));
            let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(Timestamp::from_millis(T0)));
            let seen = Seen::default();
            let made = engine_on(Arc::clone(&base) as Arc<dyn Store>, &seen, Does::Quick, &clock);
            let spec =
                every_minute().overlap(if after % 2 == 0 { Overlap::BufferAll } else { Overlap::AllowAll });
            made.schedules().create(id("s"), spec, by()).await.unwrap();
            drop(made);

            let mortal = Mortal::new(&base, after, writes);
            let engine = engine_on(Arc::clone(&mortal) as Arc<dyn Store>, &seen, Does::Quick, &clock);
            let driver = engine.schedules().drive();
            let end = Timestamp::from_millis(T0 + 5 * MINUTE + 30_000);
            let through = async {
                while clock.now() < end {
                    clock.sleep_until(end).await;
                }
            };
            let died = tokio::select! {
                () = mortal.died.notified() => true,
                () = through => false,
            };
            drop(driver);
            drop(engine);
            if !died {
                assert!(after >= 15, "five firings take more writes than {after}");
                break;
            }
            let next = Arc::new(base.reopen());
            let engine = engine_on(Arc::clone(&next) as Arc<dyn Store>, &seen, Does::Quick, &clock);
            engine.recover().await.unwrap();
            let driver = engine.schedules().drive();
            let end = Timestamp::from_millis(T0 + 8 * MINUTE + 30_000);
            while clock.now() < end {
                clock.sleep_until(end).await;
            }
            drop(driver);
            let mut runs = BTreeMap::<u64, Vec<RunId>>::new();
            for (run, scheduled) in seen.lock().unwrap().iter() {
                let of = runs.entry((scheduled.nominal.as_millis() - T0) / MINUTE).or_default();
                if !of.contains(run) {
                    of.push(run.clone());
                }
            }
            let expected: Vec<u64> = (1..=8).collect();
            let at = format!("died at write {after}, written: {writes}");
            assert_eq!(runs.keys().copied().collect::<Vec<_>>(), expected, "{at}: none is lost");
            assert!(runs.values().all(|runs| runs.len() == 1), "{at}: none is twice: {runs:?}");
            let view = engine.schedules().get(&id("s")).await.unwrap();
            assert_eq!((view.counts.fired, view.running.len()), (8, 0), "{at}: {view:?}");
            cases += 1;
        }
    }
    println!("{cases} crashes");
    assert!(cases >= 30, "{cases}");
}

#[tokio::test(start_paused = true)]
async fn of_two_engines_on_one_store_one_fires() {
    let store = MemoryStore::shared(StoreId::generate([1; 16]));
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(Timestamp::from_millis(T0)));
    let seen = Seen::default();
    let engines: Vec<Engine> =
        (0..2).map(|_| engine_on(Arc::new(store.share()), &seen, Does::Quick, &clock)).collect();
    engines[0].schedules().create(id("s"), every_minute().overlap(Overlap::AllowAll), by()).await.unwrap();
    let drivers: Vec<_> = engines.iter().map(|engine| engine.schedules().drive()).collect();
    let until = async |minute: u64| {
        let at = Timestamp::from_millis(T0 + minute * MINUTE + 30_000);
        while clock.now() < at {
            clock.sleep_until(at).await;
        }
    };
    until(10).await;
    // Told to one, done by whoever is first.
    engines[1].schedules().pause(&id("s"), by()).await.unwrap();
    until(15).await;
    engines[0].schedules().trigger(&id("s"), None, by()).await.unwrap();
    until(16).await;
    drop(drivers);
    let mut runs: Vec<String> = seen.lock().unwrap().iter().map(|(run, _)| run.to_string()).collect();
    runs.sort();
    let before = runs.len();
    runs.dedup();
    assert_eq!((runs.len(), before), (11, 11), "{runs:?}");
    let view = engines[0].schedules().get(&id("s")).await.unwrap();
    assert_eq!((view.counts.fired, view.counts.succeeded, view.running.len()), (11, 11, 0), "{view:?}");
}
