//! Stores that are put back to a backup while the world has gone on, and runs that are brought to another store.

use std::collections::BTreeSet;

use dssflow_engine::activity::{Effect, Marks, Owner, Probe, Recorded, Resources, Undo};
use dssflow_engine::archive::{self, ArchiveReader, CopyError, CopyOptions, Purpose, PutOptions, PutReport};
use dssflow_engine::event::{EventKind, PauseKind};
use dssflow_engine::graph::OnParentClose;
use dssflow_engine::run::{RunStatus, StepStatus, Verb};
use dssflow_engine::store::{ListQuery, Store};
use dssflow_engine::workflow::Definition;
use dssflow_engine::{Activity, ActivityResult, EngineError};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;

/// One thing in the world.
#[derive(Debug, Clone)]
struct Thing {
    id: u64,
    name: String,
    marks: Marks,
    /// When whoever looks begins to see it.
    seen_from: tokio::time::Instant,
    alive: bool,
}

/// A service like those that make machines: it makes another thing of the same name whenever it is asked, unless it knows
/// the token, and then it answers with what it made for it, also when that is gone. Calls land late and are seen later.
#[derive(Default)]
struct Cloud {
    things: Mutex<Vec<Thing>>,
    tokens: Mutex<BTreeMap<String, u64>>,
    chance: Mutex<Option<StdRng>>,
    calls: Mutex<u64>,
}

impl Cloud {
    fn chance(&self, below: u64) -> u64 {
        self.chance.lock().unwrap().as_mut().map_or(0, |chance| chance.random_range(0..below))
    }

    fn make(&self, name: &str, token: &str, marks: Marks) -> u64 {
        if let Some(id) = self.tokens.lock().unwrap().get(token) {
            return *id;
        }
        let seen_from = tokio::time::Instant::now() + Duration::from_secs(self.chance(8));
        let mut things = self.things.lock().unwrap();
        let id = things.len() as u64 + 1;
        things.push(Thing { id, name: name.to_owned(), marks, seen_from, alive: true });
        self.tokens.lock().unwrap().insert(token.to_owned(), id);
        id
    }

    fn alive(&self, name: &str) -> Vec<Thing> {
        self.things.lock().unwrap().iter().filter(|t| t.alive && t.name == name).cloned().collect()
    }

    fn delete(&self, name: &str) {
        self.things.lock().unwrap().iter_mut().filter(|t| t.name == name).for_each(|t| t.alive = false);
    }

    fn is_alive(&self, id: u64) -> bool {
        self.things.lock().unwrap().iter().any(|t| t.id == id && t.alive)
    }

    /// Names of which there is more than one.
    fn duplicates(&self) -> Vec<String> {
        let things = self.things.lock().unwrap();
        let mut seen = BTreeSet::new();
        things.iter().filter(|t| t.alive && !seen.insert(t.name.clone())).map(|t| t.name.clone()).collect()
    }

    fn calls(&self) -> u64 {
        *self.calls.lock().unwrap()
    }
}

struct Make;

impl Activity for Make {
    type Input = String;
    type Output = u64;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn execute(&self, ctx: &ActivityContext, name: &String) -> ActivityResult<u64> {
        let cloud = ctx.resource::<Cloud>()?;
        ctx.fence()?;
        *cloud.calls.lock().unwrap() += 1;
        let (token, marks, name) = (ctx.token("make").to_string(), ctx.marks(), name.clone());
        let (land, answer) = (cloud.chance(6), cloud.chance(6));
        // A call that is on its way lands, whether its caller lives or not.
        let landed = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(land)).await;
            cloud.make(&name, &token, marks)
        });
        let id = landed.await.map_err(|_| ActivityError::retryable("Lost", "no answer"))?;
        ctx.sleep(Duration::from_secs(answer)).await?;
        ctx.record_resource("thing", id.to_string()).await?;
        Ok(id)
    }

    async fn probe(&self, ctx: &ActivityContext, name: &String) -> ActivityResult<Probe<u64>> {
        let cloud = ctx.resource::<Cloud>()?;
        let now = tokio::time::Instant::now();
        let seen = cloud.alive(name).into_iter().find(|thing| thing.seen_from <= now);
        Ok(match seen {
            Some(thing) => Probe::Present { output: thing.id, owner: ctx.marks().owner_of(&thing.marks) },
            None => Probe::Absent,
        })
    }

    async fn compensate(&self, ctx: &ActivityContext, name: &String, _: &Recorded) -> ActivityResult<Undo> {
        let cloud = ctx.resource::<Cloud>()?;
        let ours = |thing: &Thing| ctx.marks().owner_of(&thing.marks) == Owner::ThisRun;
        if cloud.alive(name).iter().any(ours) {
            *cloud.calls.lock().unwrap() += 1;
            cloud.delete(name);
            return Ok(Undo::Undone);
        }
        Ok(Undo::NothingToDo)
    }
}

fn make(step: &str, after: &[&str]) -> Step {
    named(step, step, after)
}

fn named(step: &str, thing: &str, after: &[&str]) -> Step {
    let mut step = Step::activity(name(step), ActivityName::new("make").unwrap(), Binding::literal(thing));
    step.timeouts.start_to_close_ms = Some(60_000);
    step.after = after.iter().map(|a| name(a)).collect();
    step
}

fn below() -> Definition {
    let graph = graph(vec![make("below-x", &[]), make("below-y", &["below-x"])]);
    Definition::fixed(WorkflowName::new("below").unwrap(), 1, graph)
}

fn below_as(step: &str, after: &[&str]) -> Step {
    let kind_of = StepKind::SubWorkflow {
        workflow: "below".into(),
        input: Binding::literal(Value::Null),
        on_parent_close: OnParentClose::Cancel,
    };
    kind(step, kind_of, after)
}

/// What outlives a process: the world and its time.
struct Site {
    cloud: Resources,
    clock: Arc<TokioClock>,
}

impl Site {
    fn new(chance: Option<StdRng>) -> Self {
        let mut cloud = Resources::default();
        cloud.insert(Cloud { chance: Mutex::new(chance), ..Cloud::default() });
        Self { cloud, clock: Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_700_000_000_000))) }
    }

    fn cloud(&self) -> Arc<Cloud> {
        self.cloud.get::<Cloud>().unwrap()
    }

    fn engine(&self, store: &MemoryStore) -> Engine {
        let mut activities = ActivityRegistry::new();
        activities.add("make", Make).unwrap();
        Engine::builder(Arc::new(store.share()))
            .clock(Arc::clone(&self.clock) as Arc<dyn dssflow_engine::time::Clock>)
            .activities(activities)
            .definition(below())
            .build()
            .with_resources(self.cloud.clone())
    }

    fn now(&self) -> Timestamp {
        dssflow_engine::time::Clock::now(&*self.clock)
    }

    async fn backup(&self, store: &MemoryStore) -> Vec<u8> {
        let options = CopyOptions { now: self.now(), product: "test".into(), runs: None };
        let mut told = 0;
        let (bytes, made) =
            archive::write(store, Vec::new(), options, &mut |copied| told = copied.runs).await.unwrap();
        assert_eq!((made.totals.runs, made.header.store), (told, store.id()));
        bytes
    }

    async fn put(
        &self,
        store: &MemoryStore,
        archive: &[u8],
        purpose: Purpose,
    ) -> Result<PutReport, CopyError> {
        let options = PutOptions { purpose, now: self.now(), request: by(), runs: None, salvage: false };
        let mut reader = ArchiveReader::open(archive).unwrap();
        archive::put(store, &mut reader, &options, &mut |_| {}).await
    }
}

fn id(run: &str) -> RunId {
    RunId::new(run).unwrap()
}

/// Outputs of steps that were done after the last restore.
async fn made_since_restore(engine: &Engine, run: &RunId) -> Vec<u64> {
    let events = engine.history(run, 0).await.unwrap();
    let restored = events.iter().rposition(|e| matches!(e.kind, EventKind::RunRestored { .. }));
    let since = events.iter().skip(restored.map_or(0, |at| at + 1));
    let outputs = since.filter_map(|event| match &event.kind {
        EventKind::AttemptSucceeded { output, .. } => output.as_u64(),
        _ => None,
    });
    outputs.collect()
}

fn told(view: &RunView) -> String {
    let steps: Vec<_> = view.steps.iter().map(|s| format!("{} {} {:?}", s.step, s.status, s.error)).collect();
    format!("{} {:?}\n{}", view.status, view.paused, steps.join("\n"))
}

#[derive(Default)]
struct Tally {
    moved: u64,
    found: u64,
    remade: u64,
    rolled_back: u64,
    lost_runs: u64,
}

/// A run to a random point, a backup, the world goes on, a crash, a restore, a resume.
async fn case(seed: u64, tally: &mut Tally) {
    let mut chance = StdRng::seed_from_u64(seed);
    let site = Site::new(Some(StdRng::seed_from_u64(seed ^ 0xc10d)));
    let cloud = site.cloud();
    let mut names: Vec<String> = Vec::new();
    let mut steps = Vec::new();
    for i in 0..chance.random_range(2..7) {
        let after: Vec<String> = names.iter().filter(|_| chance.random_range(0..3) == 0).cloned().collect();
        let after: Vec<&str> = after.iter().map(String::as_str).collect();
        let step = format!("s{i}");
        let is_below = i == 2 && chance.random_range(0..2) == 0;
        steps.push(if is_below { below_as(&step, &after) } else { make(&step, &after) });
        names.push(step);
    }
    let mut start = run("r", steps);
    // Where a workflow below is done once more, its new run finds what the last one made.
    start.site = "lab".to_owned();
    let first = MemoryStore::new(StoreId::generate([9; 16]));
    let mut engine = site.engine(&first);
    let mut handle = engine.start(start).await.unwrap();
    pass(chance.random_range(0..60)).await;
    let archive = site.backup(&first).await;
    let (before, calls) = (cloud.things.lock().unwrap().len(), cloud.calls());

    // The world goes on, and nobody will know.
    pass(chance.random_range(0..60)).await;
    for _ in 0..chance.random_range(0..3) {
        let step = names[chance.random_range(0..names.len())].clone();
        match chance.random_range(0..5) {
            0 => {
                if let Ok(back) = engine.rollback(&id("r"), vec![], by()).await {
                    handle = back;
                }
            }
            1 => {
                let _it_may_be_over = engine.pause(&id("r"), by()).await;
                handle.wait().await.unwrap();
                if let Ok(again) = engine.resume(&id("r"), by()).await {
                    handle = again;
                }
            }
            2 => {
                // Somebody deletes it, and it is made anew under the next generation.
                cloud.delete(&step);
                if let Ok(acted) = engine.act(&id("r"), Verb::Rerun { from: name(&step) }, by()).await
                    && let Some(again) = acted.handle
                {
                    handle = again;
                }
            }
            3 => {
                engine.stop();
                engine = site.engine(&first.reopen());
                let mut recovered = engine.recover().await.unwrap();
                if let Some(at) = recovered.runs.iter().position(|h| h.id() == &id("r")) {
                    handle = recovered.runs.swap_remove(at);
                }
            }
            _ => {}
        }
        pass(chance.random_range(0..80)).await;
    }
    tally.moved += u64::from(cloud.calls() > calls);
    engine.stop();
    drop((engine, handle));

    let second = MemoryStore::new(StoreId::generate([9; 16]));
    let report = site.put(&second, &archive, Purpose::Restore).await.unwrap();
    assert_eq!(report.existing, 0);
    let engine = site.engine(&second);
    let recovered = engine.recover().await.unwrap();
    assert!(recovered.runs.is_empty() && recovered.parked.is_empty(), "nothing goes on by itself");
    let calls = cloud.calls();
    for summary in engine.list(ListQuery::default()).await.unwrap().runs {
        let view = engine.view(&summary.run).await.unwrap();
        assert_eq!((view.status, view.live), (summary.status, summary.live), "lists tell what views do");
        assert_eq!(summary.done, view.steps.iter().filter(|s| s.status.is_done()).count() as u32);
        assert!(summary.status.is_end() || view.paused.unwrap().kind == PauseKind::Restored, "it is parked");
    }
    pass(chance.random_range(0..3)).await;
    assert_eq!(cloud.calls(), calls, "nothing is touched before somebody says so");

    let view = engine.view(&id("r")).await.unwrap();
    let mut view = if view.status.is_end() {
        view
    } else {
        let handle = engine.resume(&id("r"), by()).await.unwrap();
        handle.wait().await.unwrap()
    };
    assert!(view.status.is_end(), "{}", told(&view));
    assert_eq!(view.status, RunStatus::Succeeded, "{}", told(&view));
    // A rerun of what was done before the backup looks, too.
    if chance.random_range(0..3) == 0 {
        let step = names[chance.random_range(0..names.len())].clone();
        let acted = engine.act(&id("r"), Verb::Rerun { from: name(&step) }, by()).await.unwrap();
        view = acted.handle.unwrap().wait().await.unwrap();
        assert_eq!(view.status, RunStatus::Succeeded, "{}", told(&view));
    }
    pass(60).await;
    assert_eq!(cloud.duplicates(), Vec::<String>::new(), "made twice");
    let mut runs = vec![id("r")];
    runs.extend(
        engine
            .list(ListQuery { prefix: Some("r:".into()), ..ListQuery::default() })
            .await
            .unwrap()
            .runs
            .into_iter()
            .map(|s| s.run),
    );
    for run in &runs {
        for made in made_since_restore(&engine, run).await {
            assert!(cloud.is_alive(made), "run {run} takes {made} for done, and it is gone");
            let found = made <= before as u64;
            tally.found += u64::from(found);
            tally.remade += u64::from(!found);
        }
    }
    tally.lost_runs += u64::from(runs.len() > report.runs as usize);
    // Taken back, nothing of it is left: what is known again is taken back as ever.
    let succeeded_all = view.steps.iter().all(|s| s.status == StepStatus::Succeeded);
    if succeeded_all && chance.random_range(0..2) == 0 {
        let back = engine.rollback(&id("r"), vec![], by()).await.unwrap().wait().await.unwrap();
        assert_eq!(back.status, RunStatus::RolledBack, "{}", told(&back));
        let left: Vec<_> = cloud.things.lock().unwrap().iter().filter(|t| t.alive).cloned().collect();
        assert!(left.is_empty(), "{left:?}");
        tally.rolled_back += 1;
    }
    assert!(second.verify().await.unwrap().damage.is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_made_twice_after_a_restore_however_the_world_went_on() {
    let cases: u64 = std::env::var("DSSFLOW_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(400);
    let first: u64 = std::env::var("DSSFLOW_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let begin = std::time::Instant::now();
    let mut tally = Tally::default();
    for seed in first..first + cases {
        println!("DSSFLOW_SEED={seed} DSSFLOW_CASES=1");
        Box::pin(case(seed, &mut tally)).await;
    }
    let Tally { moved, found, remade, rolled_back, lost_runs } = tally;
    println!(
        "restores: cases={cases} faults_fired={moved} violations=0 seed={first} seconds={:.1} found={found} \
         remade={remade} rolled_back={rolled_back} lost_runs={lost_runs}",
        begin.elapsed().as_secs_f64()
    );
    if cases >= 100 {
        assert!(moved > cases / 3 && found > cases / 4 && remade > cases / 4, "{moved} {found} {remade}");
        assert!(rolled_back > cases / 10 && lost_runs > cases / 50, "{rolled_back} {lost_runs}");
    }
}
