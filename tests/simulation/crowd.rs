//! Several runs in one process: they share locks, parallelism of the cloud and every crash, and recovery drives each
//! one on by itself. One whose code is missing is parked and holds up nobody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dssflow_engine::activity::ActivityRegistry;
use dssflow_engine::event::Request;
use dssflow_engine::id::{ActivityName, RunId, StepName, StoreId, WorkflowName};
use dssflow_engine::run::RunStatus;
use dssflow_engine::run::view::RunView;
use dssflow_engine::{ActivityContext, Binding, Engine, EngineError, Graph, StartRun, Step};
use dssflow_tests::chance::Chance;
use dssflow_tests::cloud::{Cloud, SITE};
use dssflow_tests::crash_store::{Disk, Trouble};
use dssflow_tests::deeds;
use dssflow_tests::journal::Journal;
use dssflow_tests::life::Life;
use dssflow_tests::scenario::{Scenario, random_of};
use dssflow_tests::verdict::verdict;

use crate::{Failures, number, on_all_cores};

/// What one process came to.
enum End {
    Crashed,
    Stood(BTreeMap<RunId, RunView>),
    Wrong(String),
}

struct Crowd {
    runs: Vec<(RunId, Scenario)>,
    orphan: RunId,
    cloud: Cloud,
    disk: Arc<Disk>,
    seed: u64,
}

fn orphan_graph() -> Graph {
    let name = StepName::new("orphan").expect("a fixed name");
    let activity = ActivityName::new("gone").expect("a fixed name");
    Graph::builder().step(Step::activity(name, activity, Binding::literal(()))).build().expect("one step")
}

impl Crowd {
    fn new(seed: u64, c: &mut Chance) -> Self {
        let mut runs = Vec::new();
        let mut needs = BTreeMap::new();
        let mut kept = Vec::new();
        for n in 0..c.between(2, 4) {
            let total = c.between(3, 10);
            let scenario = random_of(seed + n, c, total, &format!("r{n}x"));
            needs.extend(scenario.needs());
            kept.extend(scenario.protected.clone());
            runs.push((RunId::new(format!("run-{n}")).expect("a fixed name"), scenario));
        }
        let store = StoreId::generate([9; 16]);
        let journal = Arc::new(Journal::new(needs, &kept));
        let disk = Disk::new(store.clone(), Arc::clone(&journal), c.fork(1), true);
        let cloud = Cloud::new(c.fork(2), journal, "run", store.as_str(), c.below(25));
        for (_, scenario) in &runs {
            scenario.plants.iter().for_each(|(service, name, origin)| cloud.plant(*service, name, *origin));
            scenario.settings.iter().for_each(|(key, value)| cloud.set_up(key, value));
        }
        for _ in 0..c.below(5) {
            if c.percent(50) {
                disk.trouble_at(c.between(1, 60), *c.pick(&Trouble::CRASHES));
            } else {
                cloud.crash_at(c.between(1, 25), c.percent(50));
            }
        }
        let orphan = RunId::new("run-orphan").expect("a fixed name");
        Self { runs, orphan, cloud, disk: Arc::new(disk), seed }
    }

    fn engine(&self, life: &Life, with_orphan: bool) -> Engine {
        let mut activities: ActivityRegistry = deeds::registry(None);
        if with_orphan {
            activities
                .add_fn("gone", |ctx: ActivityContext, (): ()| async move {
                    ctx.sleep(Duration::from_hours(1)).await
                })
                .expect("a new name");
        }
        let mut options = dssflow_engine::runtime::EngineOptions::default();
        options.seed = Some(self.seed);
        Engine::builder(Arc::new(self.disk.open(life)))
            .clock(Arc::new(life.clock()))
            .activities(activities)
            .resource(self.cloud.clone())
            .resource(life.clone())
            .options(options)
            .build()
    }

    fn start(id: &RunId, graph: Graph, scenario: Option<&Scenario>) -> StartRun {
        let mut start = StartRun::new(WorkflowName::new("crowd").expect("a fixed name"), graph);
        start.id = Some(id.clone());
        SITE.clone_into(&mut start.site);
        if let Some(scenario) = scenario {
            start.options = scenario.options.clone();
        }
        start
    }

    /// The first process knows the orphan's code; it ends by a crash of its own when nothing else ends it.
    async fn first(&self, life: &Life) {
        let engine = self.engine(life, true);
        let work = async {
            let _orphan = engine.start(Self::start(&self.orphan, orphan_graph(), None)).await;
            for (id, scenario) in &self.runs {
                let _handle = engine.start(Self::start(id, scenario.graph.clone(), Some(scenario))).await;
            }
            tokio::time::sleep(Duration::from_secs(self.seed % 20)).await;
        };
        tokio::select! {
            biased;
            () = life.ended() => {}
            () = work => life.end(),
        }
    }

    async fn later(&self, life: &Life) -> End {
        let engine = self.engine(life, false);
        tokio::select! {
            biased;
            () = life.ended() => End::Crashed,
            end = self.drive(&engine) => end,
            () = tokio::time::sleep(Duration::from_hours(12)) => End::Wrong("stuck".to_owned()),
        }
    }

    async fn drive(&self, engine: &Engine) -> End {
        let recovered = match engine.recover().await {
            Ok(recovered) => recovered,
            Err(error) => return End::Wrong(error.to_string()),
        };
        for (run, error) in recovered.parked {
            if run != self.orphan || !matches!(error, EngineError::MissingActivity { .. }) {
                return End::Wrong(format!("run {run} was parked: {error}"));
            }
        }
        let mut stood = BTreeMap::new();
        for (id, scenario) in &self.runs {
            let mut handle = match engine.handle(id) {
                Some(handle) => Ok(handle),
                None => match engine.view(id).await {
                    Ok(view) if view.status.is_end() => {
                        stood.insert(id.clone(), view);
                        continue;
                    }
                    Ok(_) => engine.resume(id, Request::by("tester")).await,
                    Err(_) => engine.start(Self::start(id, scenario.graph.clone(), Some(scenario))).await,
                },
            };
            // A person resumes what pauses, after mending what is in the way.
            loop {
                let view = match handle {
                    Ok(handle) => handle.wait().await,
                    Err(error) => Err(error),
                };
                match view {
                    Err(error) => return End::Wrong(format!("run {id}: {error}")),
                    Ok(view) if view.status == RunStatus::Paused => {
                        self.cloud.repair(&scenario.in_the_way);
                        handle = engine.resume(id, Request::by("tester")).await;
                    }
                    Ok(view) => {
                        stood.insert(id.clone(), view);
                        break;
                    }
                }
            }
        }
        End::Stood(stood)
    }

    /// All lives. Returns how many, and what was wrong.
    fn live(&self) -> (u64, Vec<String>) {
        let mut now = 1_700_000_000_000;
        for life_number in 0..40 {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .expect("a runtime without IO");
            let end = runtime.block_on(async {
                let life = Life::starting_at(now, Duration::ZERO);
                let end = if life_number == 0 {
                    self.first(&life).await;
                    End::Crashed
                } else {
                    self.later(&life).await
                };
                now = life.now_ms() + 1_000;
                end
            });
            drop(runtime);
            self.cloud.process_ended();
            match end {
                End::Crashed => {}
                End::Wrong(text) => return (life_number + 1, vec![text]),
                End::Stood(views) => {
                    self.cloud.advance(now + 300_000);
                    let mut bad = self.cloud.violations();
                    for (id, scenario) in &self.runs {
                        let found = verdict(scenario, &self.cloud, &views[id], false);
                        bad.extend(found.into_iter().map(|text| format!("{id}: {text}")));
                    }
                    return (life_number + 1, bad);
                }
            }
        }
        (40, vec!["it never ends".to_owned()])
    }
}

#[test]
fn runs_share_a_process_and_its_crashes() {
    let count = number("DSSFLOW_SEEDS", 5_000).div_ceil(10);
    let base = number("DSSFLOW_SEED", 1);
    let begin = Instant::now();
    let (failures, lives, runs) = (Failures::default(), AtomicU64::new(0), AtomicU64::new(0));
    on_all_cores(count, |n| {
        let seed = base + n;
        let crowd = Crowd::new(seed, &mut Chance::new(seed ^ 0xc0de));
        let (lived, bad) = crowd.live();
        lives.fetch_add(lived, Ordering::Relaxed);
        runs.fetch_add(crowd.runs.len() as u64, Ordering::Relaxed);
        if !bad.is_empty() {
            failures.add(seed, format!("DSSFLOW_SEED={seed} (crowd): {}", bad.join("; ")));
        }
    });
    println!(
        "crowd: cases={count} runs={} lives={} violations={} seed={base} seconds={:.1}",
        runs.into_inner(),
        lives.into_inner(),
        failures.count(),
        begin.elapsed().as_secs_f64()
    );
    failures.assert_none("crowds");
}
