//! Two engines on one store. An owner stalls for longer than its lease, another takes its runs over and goes on, and
//! the first one wakes up in the middle of what it was doing: nothing is made twice, and whatever it still wants to
//! write is refused. Its attempts go on while it stalls; they ask before each change whether they still may.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dssflow_engine::event::Request;
use dssflow_engine::id::{RunId, StoreId, WorkerId, WorkflowName};
use dssflow_engine::run::RunStatus;
use dssflow_engine::runtime::{EngineOptions, LEASE_TTL};
use dssflow_engine::store::layer::Layer;
use dssflow_engine::store::memory::MemoryStore;
use dssflow_engine::store::{Claim, Expect, Record, Store, StoreError, Transition};
use dssflow_engine::time::{BoxFuture, Timestamp};
use dssflow_engine::{Engine, StartRun};
use dssflow_tests::chance::Chance;
use dssflow_tests::cloud::{Cloud, SITE};
use dssflow_tests::deeds;
use dssflow_tests::journal::Journal;
use dssflow_tests::life::Life;
use dssflow_tests::scenario::{Ending, Scenario, unlocked};
use dssflow_tests::verdict::verdict;
use tokio::time::Instant as SimInstant;

use crate::{Failures, number, on_all_cores};

/// What all handles on the store have seen.
#[derive(Default)]
struct Seen {
    /// The epoch of the last commit of the run that was taken.
    epoch: Mutex<u64>,
    /// The latest epoch under which each run was claimed.
    claimed: Mutex<BTreeMap<RunId, u64>>,
    takeovers: AtomicU64,
    late_writes: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

/// One engine's way to the shared store, which hangs at times.
struct Way {
    base: MemoryStore,
    journal: Arc<Journal>,
    hangs_until: Mutex<Option<SimInstant>>,
    seen: Arc<Seen>,
}

impl Way {
    fn stall(&self, time: Duration) {
        *self.hangs_until.lock().expect("no panic") = Some(SimInstant::now() + time);
    }

    fn is_stalled(&self) -> bool {
        self.hangs_until.lock().expect("no panic").is_some_and(|until| SimInstant::now() < until)
    }

    async fn pass(&self) {
        loop {
            let until = *self.hangs_until.lock().expect("no panic");
            match until {
                Some(until) if SimInstant::now() < until => tokio::time::sleep_until(until).await,
                _ => return,
            }
        }
    }

    async fn write(&self, transition: Transition) -> Result<u64, StoreError> {
        self.pass().await;
        let (run, epoch, record) = (transition.run.clone(), transition.epoch, transition.record.clone());
        let first = match transition.expect {
            Expect::New => 1,
            Expect::At { seq } => seq + 1,
        };
        let claimed = self.seen.claimed.lock().expect("no panic").get(&run).copied().unwrap_or(0);
        let done = self.base.commit(transition).await;
        // That its place in the history is taken as well is luck: whoever took over may not have written yet.
        if epoch < claimed && !matches!(done, Err(StoreError::Fenced { .. })) {
            let text =
                format!("a write under epoch {epoch} was not fenced after a claim under {claimed}: {done:?}");
            self.seen.wrong.lock().expect("no panic").push(text);
        }
        match &done {
            Ok(_) => {
                self.journal.durable(run.as_str(), first, record);
                let mut last = self.seen.epoch.lock().expect("no panic");
                if epoch < *last {
                    let text = format!("a write under epoch {epoch} was taken after one under {last}");
                    self.seen.wrong.lock().expect("no panic").push(text);
                }
                self.seen.takeovers.fetch_add(u64::from(*last > 0 && epoch > *last), Ordering::Relaxed);
                *last = epoch;
            }
            Err(StoreError::Fenced { .. }) => {
                self.seen.late_writes.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {}
        }
        // It may also stall between the write and the answer.
        self.pass().await;
        done
    }
}

impl Layer for Way {
    fn base(&self) -> &dyn Store {
        &self.base
    }

    fn commit(&self, transition: Transition) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.write(transition))
    }

    fn load<'a>(&'a self, run: &'a RunId, after: u64) -> BoxFuture<'a, Result<Vec<Record>, StoreError>> {
        Box::pin(async move {
            self.pass().await;
            self.base.load(run, after).await
        })
    }

    fn claim<'a>(
        &'a self,
        run: &'a RunId,
        worker: &'a WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Claim, StoreError>> {
        Box::pin(async move {
            self.pass().await;
            let claim = self.base.claim(run, worker, now, ttl).await;
            if let Ok(claim) = &claim {
                self.seen.claimed.lock().expect("no panic").insert(run.clone(), claim.epoch);
            }
            claim
        })
    }

    fn renew<'a>(
        &'a self,
        worker: &'a WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Timestamp, StoreError>> {
        Box::pin(async move {
            self.pass().await;
            self.base.renew(worker, now, ttl).await
        })
    }

    fn release<'a>(&'a self, run: &'a RunId, worker: &'a WorkerId) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.pass().await;
            self.base.release(run, worker).await
        })
    }
}

/// What one case came to.
#[derive(Default)]
struct Came {
    stalls: u64,
    takeovers: u64,
    late_writes: u64,
    late_calls: u64,
    bad: Vec<String>,
}

struct Pair {
    scenario: Scenario,
    run: RunId,
    cloud: Cloud,
    ways: Vec<Arc<Way>>,
    engines: Vec<Engine>,
}

impl Pair {
    fn new(scenario: Scenario, life: &Life, chance: &Chance, seen: &Arc<Seen>) -> Self {
        let run = RunId::new("run").expect("a fixed name");
        let base = MemoryStore::shared(StoreId::generate([3; 16]));
        let journal = Arc::new(Journal::new(scenario.needs(), &scenario.protected));
        let store = base.id();
        let cloud =
            Cloud::new(chance.fork(1), Arc::clone(&journal), run.as_str(), store.as_str(), scenario.budget);
        scenario.settings.iter().for_each(|(key, value)| cloud.set_up(key, value));
        let ways: Vec<Arc<Way>> = (0..2)
            .map(|_| {
                let (base, journal, seen) = (base.share(), Arc::clone(&journal), Arc::clone(seen));
                Arc::new(Way { base, journal, hangs_until: Mutex::default(), seen })
            })
            .collect();
        let engines = ways.iter().map(|way| {
            let mut options = EngineOptions::default();
            options.seed = Some(scenario.seed);
            Engine::builder(Arc::clone(way) as Arc<dyn Store>)
                .clock(Arc::new(life.clock()))
                .activities(deeds::registry(None))
                .resource(cloud.clone())
                .resource(life.clone())
                .options(options)
                .build()
        });
        Self { engines: engines.collect(), scenario, run, cloud, ways }
    }

    async fn status(&self) -> Option<RunStatus> {
        let head = self.ways[0].base.head(&self.run).await.ok()??;
        Some(head.summary.status)
    }

    async fn start(&self) {
        let name = WorkflowName::new("leases").expect("a fixed name");
        let mut start = StartRun::new(name, self.scenario.graph.clone());
        start.id = Some(self.run.clone());
        SITE.clone_into(&mut start.site);
        start.options = self.scenario.options.clone();
        let _taken_over = self.engines[0].start(start).await;
    }

    /// Recovers whatever nobody drives, again and again.
    async fn care(&self, engine: usize, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            let _held_by_the_other = self.engines[engine].recover().await;
        }
    }

    /// Stalls whoever drives the run, a few times.
    async fn stall(&self, c: &mut Chance, stalls: &mut u64) {
        for _ in 0..c.between(1, 4) {
            tokio::time::sleep(Duration::from_millis(c.between(1, 12_000))).await;
            let drives =
                (0..2).find(|&n| self.engines[n].handle(&self.run).is_some() && !self.ways[n].is_stalled());
            let Some(owner) = drives else { continue };
            let time = LEASE_TTL + Duration::from_millis(c.between(0, 60_000));
            self.ways[owner].stall(time);
            *stalls += 1;
            // The other one is not stalled before it had a chance.
            tokio::time::sleep(LEASE_TTL * 2).await;
        }
        std::future::pending::<()>().await;
    }

    /// A person looks at the run now and then, mends and resumes; returns when it has ended.
    async fn look_after(&self, c: &mut Chance) {
        let mut turned = false;
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let engine = &self.engines[c.index(2)];
            match self.status().await {
                Some(RunStatus::Succeeded) if self.scenario.ending == Ending::RollbackAfter && !turned => {
                    turned = engine.rollback(&self.run, Vec::new(), Request::by("tester")).await.is_ok();
                }
                Some(RunStatus::Succeeded | RunStatus::RolledBack) => return,
                Some(status) if status.is_end() || status == RunStatus::Paused => {
                    self.cloud.repair(&[]);
                    let _held_by_the_other = engine.resume(&self.run, Request::by("tester")).await;
                }
                None => self.start().await,
                Some(_) => {}
            }
        }
    }
}

async fn live(seed: u64) -> Came {
    let chance = Chance::new(seed ^ 0x1ea5e);
    let (mut c, mut person) = (chance.fork(2), chance.fork(3));
    let life = Life::starting_at(1_700_000_000_000, Duration::ZERO);
    let seen = Arc::new(Seen::default());
    let pair = Pair::new(unlocked(seed), &life, &chance, &seen);
    pair.cloud.dawdle(if c.percent(60) { 40_000 } else { 0 });
    let mut stalls = 0;
    let ended = {
        let work = async {
            tokio::select! {
                biased;
                () = pair.look_after(&mut person) => {}
                () = pair.stall(&mut c, &mut stalls) => {}
                () = pair.care(0, Duration::from_secs(4)) => {}
                () = pair.care(1, Duration::from_secs(5)) => {}
            }
        };
        let starts = pair.start();
        let both = Box::pin(async { tokio::join!(starts, work) });
        tokio::time::timeout(Duration::from_hours(12), both).await.is_ok()
    };
    // Whoever still stalls wakes up, and writes and calls what it had in mind.
    tokio::time::sleep(Duration::from_mins(5)).await;
    pair.cloud.advance(life.now_ms() + 60_000);
    let mut bad = pair.cloud.violations();
    bad.extend(seen.wrong.lock().expect("no panic").drain(..));
    if !ended {
        bad.push(format!("stuck: {:?}", pair.status().await));
    }
    match dssflow_engine::runtime::load(&pair.ways[0].base, &pair.run).await {
        Ok(state) => {
            let view = dssflow_engine::run::view::view(&state);
            bad.extend(verdict(&pair.scenario, &pair.cloud, &view, false));
        }
        Err(error) => bad.push(error.to_string()),
    }
    Came {
        stalls,
        takeovers: seen.takeovers.load(Ordering::Relaxed),
        late_writes: seen.late_writes.load(Ordering::Relaxed),
        late_calls: pair.cloud.fenced(),
        bad,
    }
}

#[test]
fn a_stalled_owner_does_nothing_any_more() {
    let count = number("DSSFLOW_SEEDS", 5_000).div_ceil(10);
    let base = number("DSSFLOW_SEED", 1);
    let begin = Instant::now();
    let (failures, sums) = (Failures::default(), Mutex::new(BTreeMap::<&str, u64>::new()));
    on_all_cores(count, |n| {
        let seed = base + n;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without IO");
        let came = runtime.block_on(live(seed));
        let mut sums = sums.lock().expect("no thread panics with it");
        let counts = [
            ("stalls", came.stalls),
            ("takeovers", came.takeovers),
            ("late_writes_refused", came.late_writes),
            ("late_calls_refused", came.late_calls),
        ];
        for (what, count) in counts {
            *sums.entry(what).or_default() += count;
        }
        if !came.bad.is_empty() {
            failures.add(seed, format!("DSSFLOW_SEED={seed} (leases): {}", came.bad.join("; ")));
        }
    });
    let sums = sums.into_inner().expect("no thread panics with it");
    let figures: Vec<String> = sums.iter().map(|(what, count)| format!("{what}={count}")).collect();
    println!(
        "leases: cases={count} {} violations={} seed={base} seconds={:.1}",
        figures.join(" "),
        failures.count(),
        begin.elapsed().as_secs_f64()
    );
    failures.assert_none("leases");
    if count >= 300 {
        assert!(sums.values().all(|n| *n > 20), "not everything happened: {figures:?}");
    }
}
