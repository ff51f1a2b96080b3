//! Stores that are put back to a backup while the world has gone on, and runs that are brought to another store.

use std::collections::BTreeSet;

use dssflow_engine::activity::{Effect, Marks, Owner, Probe, Recorded, Resources, Undo};
use dssflow_engine::archive::{
    self, ArchiveReader, CopyError, CopyOptions, Part, Purpose, PutOptions, PutReport,
};
use dssflow_engine::event::{EventKind, PauseKind};
use dssflow_engine::graph::OnParentClose;
use dssflow_engine::run::{RunStatus, StepStatus, Verb};
use dssflow_engine::runtime::Pruning;
use dssflow_engine::store::layer::Layer;
use dssflow_engine::store::prune::{Policy, Stays};
use dssflow_engine::store::{ListQuery, Record, Store, StoreError};
use dssflow_engine::testing::HistoryBuilder;
use dssflow_engine::time::BoxFuture;
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
    start.site = "lab".into();
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
        assert_eq!(summary.done as usize, view.steps.iter().filter(|s| s.status.is_done()).count());
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
    tally.lost_runs += u64::from(runs.len() as u64 > report.runs);
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

#[expect(
    clippy::disallowed_methods,
    reason = "how many cases, and how long they took, is no setting of the engine"
)]
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

/// A store whose reading takes time, so that runs go on under a backup.
struct Slow(MemoryStore);

impl Layer for Slow {
    fn base(&self) -> &dyn Store {
        &self.0
    }

    fn page<'a>(
        &'a self,
        run: &'a RunId,
        after: u64,
        bytes: usize,
    ) -> BoxFuture<'a, Result<Vec<Record>, StoreError>> {
        Box::pin(async move {
            pass(3).await;
            // Little at a time, so that a run takes many looks.
            self.0.page(run, after, bytes.min(700)).await
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_backup_of_a_store_in_use_is_of_one_instant() {
    let site = Site::new(None);
    let store = MemoryStore::new(StoreId::generate([9; 16]));
    let engine = site.engine(&store);
    for i in 0..4_u64 {
        let steps = (0..12).map(|s| format!("r{i}-{s}")).collect::<Vec<_>>();
        let steps = steps.iter().map(|s| {
            let mut step = make(s, &[]);
            step.timeouts.start_to_close_ms = Some(600_000);
            step
        });
        let mut start = run(&format!("r{i}"), steps.collect());
        start.options.parallelism = 1;
        site.cloud().chance.lock().unwrap().get_or_insert_with(|| StdRng::seed_from_u64(1));
        engine.start(start).await.unwrap();
    }
    pass(7).await;
    let heads = store.snapshot().await.unwrap().heads;
    let options = CopyOptions { now: site.now(), product: "test".into(), runs: None };
    let slow = Slow(store.share());
    let (bytes, made) = archive::write(&slow, Vec::new(), options, &mut |_| {}).await.unwrap();
    assert_eq!(made.totals.runs, 4);
    let mut went_on = 0;
    let mut reader = ArchiveReader::open(&bytes[..]).unwrap();
    let second = MemoryStore::new(StoreId::generate([8; 16]));
    while let Some(part) = reader.next_part().unwrap() {
        let Part::Run(archived) = part else { continue };
        let head = heads.iter().find(|head| head.run == archived.run).unwrap();
        assert_eq!((archived.seq, archived.due), (head.seq, head.due), "as it was at that instant");
        let now = store.head(&archived.run).await.unwrap().unwrap();
        went_on += u64::from(now.seq > archived.seq);
        let then = dssflow_engine::runtime::load_at(&store, &archived.run, archived.seq).await.unwrap();
        let shown = view(&then);
        assert_eq!(archived.summary.status, shown.status);
        assert_eq!(archived.summary.updated, shown.updated);
        assert_eq!(archived.summary.done as usize, shown.steps.iter().filter(|s| s.status.is_done()).count());
    }
    assert!(went_on >= 2, "runs went on under the backup: {went_on}");
    let report = site.put(&second, &bytes, Purpose::Import).await.unwrap();
    assert_eq!((report.runs, report.unfinished), (4, 4));
    for head in &heads {
        let there = second.load(&head.run, 0).await.unwrap();
        let mut here = store.load(&head.run, 0).await.unwrap();
        here.retain(|record| record.first_seq <= head.seq);
        assert_eq!(there[..there.len() - 1], here[..], "records come as they are, and one more says how");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_of_another_store_can_be_read_and_nothing_else() {
    let site = Site::new(None);
    let first = MemoryStore::new(StoreId::generate([9; 16]));
    let engine = site.engine(&first);
    engine.start(run("done", vec![make("d", &[])])).await.unwrap().wait().await.unwrap();
    let gate = StepKind::Gate {
        question: "?".into(),
        timeout_ms: None,
        default: None,
        on_reject: Default::default(),
    };
    engine.start(run("waits", vec![make("w", &[]), kind("g", gate, &["w"])])).await.unwrap();
    pass(30).await;
    let archive = site.backup(&first).await;

    let second = MemoryStore::new(StoreId::generate([8; 16]));
    let there = site.engine(&second);
    let own = there.start(run("own", vec![make("o", &[])])).await.unwrap();
    own.wait().await.unwrap();
    let report = site.put(&second, &archive, Purpose::Import).await.unwrap();
    assert_eq!((report.runs, report.unfinished, report.existing), (2, 1, 0));
    let calls = (site.cloud().calls(), second.commits());
    let recovered = there.recover().await.unwrap();
    assert!(recovered.runs.is_empty() && recovered.parked.is_empty(), "{recovered:?}");
    for (run, status) in [("done", RunStatus::Succeeded), ("waits", RunStatus::Cancelled)] {
        let run = id(run);
        let shown = there.view(&run).await.unwrap();
        assert_eq!((shown.status, shown.live), (status, false));
        assert_eq!(shown.imported, Some(first.id()));
        let listed =
            there.list(ListQuery { prefix: Some(run.to_string()), ..ListQuery::default() }).await.unwrap();
        assert_eq!((listed.runs[0].status, listed.runs[0].live), (status, false));
        assert!(there.history(&run, 0).await.unwrap().len() > 3);
        let step = name(if run.as_str() == "done" { "d" } else { "w" });
        let refusals = [
            there.resume(&run, by()).await.err(),
            there.rollback(&run, vec![], by()).await.err(),
            there.act(&run, Verb::Rerun { from: step.clone() }, by()).await.err(),
            there.note(&run, Verb::Skip { step: step.clone() }, by()).await.err(),
            there.cancel_idle(&run, dssflow_engine::event::CancelMode::Keep, by()).await.err(),
            there.terminate(&run, by()).await.err(),
            there.fork(&run, &step, None, by()).await.err(),
            there.upgrade(&run, by()).await.err(),
        ];
        for refusal in refusals {
            let Some(EngineError::Imported { store, .. }) = &refusal else { panic!("{refusal:?}") };
            assert_eq!(*store, first.id());
        }
    }
    assert_eq!((site.cloud().calls(), second.commits()), calls, "refused before anything is written");

    // A second time nothing changes; and the purpose must fit the store.
    let again = site.put(&second, &archive, Purpose::Import).await.unwrap();
    assert_eq!((again.runs, again.existing), (0, 2));
    let wrong = site.put(&second, &archive, Purpose::Restore).await.unwrap_err();
    assert!(matches!(wrong, CopyError::OtherStore { .. }), "{wrong}");
    let wrong = site.put(&first, &archive, Purpose::Import).await.unwrap_err();
    assert!(matches!(wrong, CopyError::SameStore(_)), "{wrong}");

    // A backup of the second store keeps what is another's.
    let copy = site.backup(&second).await;
    let third = MemoryStore::new(second.id());
    site.put(&third, &copy, Purpose::Restore).await.unwrap();
    let last = site.engine(&third);
    let refused = last.resume(&id("waits"), by()).await.unwrap_err();
    assert!(matches!(refused, EngineError::Imported { .. }), "{refused}");
    last.act(&id("own"), Verb::Rerun { from: name("o") }, by()).await.unwrap();
    assert!(third.verify().await.unwrap().damage.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_whole_is_saved_from_a_backup_that_was_cut_off() {
    let site = Site::new(None);
    let first = MemoryStore::new(StoreId::generate([9; 16]));
    let engine = site.engine(&first);
    for i in 0..5 {
        let step = format!("s{i}");
        engine.start(run(&format!("r{i}"), vec![make(&step, &[])])).await.unwrap().wait().await.unwrap();
    }
    let archive = site.backup(&first).await;
    let cut = &archive[..archive.len() * 3 / 5];
    let refused = site.put(&MemoryStore::new(first.id()), cut, Purpose::Restore).await.unwrap_err();
    assert!(matches!(refused, CopyError::Archive(archive::ArchiveError::CutOff { .. })), "{refused}");
    let mut damaged = archive.clone();
    let middle = archive.len() / 2;
    damaged[middle] ^= 1;
    for (bytes, lost) in [(cut, 1), (&damaged[..], 1)] {
        let store = MemoryStore::new(first.id());
        let options = PutOptions {
            purpose: Purpose::Restore,
            now: site.now(),
            request: by(),
            runs: None,
            salvage: true,
        };
        let mut reader = ArchiveReader::open(bytes).unwrap();
        let report = archive::put(&store, &mut reader, &options, &mut |_| {}).await.unwrap();
        assert_eq!(report.lost.len(), lost, "{:?}", report.lost);
        assert!(report.runs >= 2 && report.runs < 5, "{report:?}");
        let listed = store.list(ListQuery::default()).await.unwrap().runs;
        assert_eq!(listed.len() as u64, report.runs);
        for summary in listed {
            assert_eq!(site.engine(&store).view(&summary.run).await.unwrap().status, RunStatus::Succeeded);
        }
    }
    // Only some, and one that is not there.
    let store = MemoryStore::new(first.id());
    let runs = Some([id("r1"), id("r9")].into());
    let options =
        PutOptions { purpose: Purpose::Restore, now: site.now(), request: by(), runs, salvage: false };
    let mut reader = ArchiveReader::open(&archive[..]).unwrap();
    let report = archive::put(&store, &mut reader, &options, &mut |_| {}).await.unwrap();
    assert_eq!((report.runs, report.missing), (1, vec![id("r9")]));
    let options = CopyOptions { now: site.now(), product: "test".into(), runs: Some(vec![id("r9")]) };
    let refused = archive::write(&first, Vec::new(), options, &mut |_| {}).await.unwrap_err();
    assert!(matches!(refused, CopyError::NoSuchRun(_)), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn old_runs_are_removed_with_what_they_alone_named() {
    let site = Site::new(None);
    let store = MemoryStore::new(StoreId::generate([9; 16]));
    let engine = site.engine(&store);
    let live = engine.start(run("live", vec![make("x", &[])])).await.unwrap();
    live.wait().await.unwrap();
    let tree = engine.start(run("tree", vec![below_as("s", &[])])).await.unwrap();
    tree.wait().await.unwrap();
    engine.rollback(tree.id(), vec![], by()).await.unwrap().wait().await.unwrap();
    let back = engine.start(run("back", vec![make("y", &[])])).await.unwrap();
    back.wait().await.unwrap();
    engine.rollback(back.id(), vec![], by()).await.unwrap().wait().await.unwrap();
    pass(91 * 86_400).await;
    let young = engine.start(run("young", vec![make("y", &[]), make("z", &[])])).await.unwrap();
    young.wait().await.unwrap();
    engine.rollback(young.id(), vec![], by()).await.unwrap().wait().await.unwrap();

    let policy = Policy::default();
    let listed = || async {
        let runs = engine.list(ListQuery::default()).await.unwrap().runs;
        runs.into_iter().map(|s| s.run.to_string()).collect::<Vec<_>>()
    };
    let before = listed().await;
    let graph = store.load(&id("back"), 0).await.unwrap();
    let graph = dssflow_engine::event::graphs_named(1, &graph[0].bytes).unwrap().remove(0);
    let mut goes = Vec::new();
    let mut note = |step| {
        if let Pruning::Goes { run } = step {
            goes.push(run.to_string());
        }
    };
    let dry = engine.prune(&policy, true, &mut note).await.unwrap();
    assert_eq!((dry.seen, dry.removed, dry.swept), (5, 3, None));
    assert_eq!(dry.stays, [(id("live"), Stays::Live)]);
    assert_eq!(listed().await, before, "a dry run removes nothing");
    let held = store.snapshot().await.unwrap();
    let refused = engine.prune(&policy, false, &mut |_| {}).await.unwrap_err();
    let EngineError::Store { error: StoreError::Unavailable(_), .. } = &refused else { panic!("{refused}") };
    drop(held);
    let pruned = engine.prune(&policy, false, &mut note).await.unwrap();
    assert_eq!((pruned.removed, pruned.events, pruned.stayed), (3, dry.events, 1));
    assert_eq!(
        goes,
        ["back", "tree:s", "tree", "back", "tree:s", "tree"],
        "what was announced, starters last"
    );
    assert_eq!(listed().await, ["young", "live"]);
    assert_eq!(pruned.swept.unwrap().graphs, 3);
    assert!(matches!(store.graph(&graph).await, Err(StoreError::NotFound(_))));
    engine.view(&id("live")).await.unwrap();
    assert_eq!(engine.prune(&policy, false, &mut |_| {}).await.unwrap().removed, 0);
    // The id is free, and its next run begins anew.
    let again = engine.start(run("back", vec![make("y", &[])])).await.unwrap();
    assert_eq!(again.wait().await.unwrap().status, RunStatus::Succeeded);
    assert_eq!(engine.history(&id("back"), 0).await.unwrap()[0].seq, 1);
    assert!(store.verify().await.unwrap().damage.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_run_that_may_have_gone_on_since_the_backup_is_not_pruned() {
    let site = Site::new(None);
    let mut activities = ActivityRegistry::new();
    activities.add("make", Make).unwrap();
    let refused = ActivityError::terminal("Refused", "it surely made nothing").no_effect();
    let failed = HistoryBuilder::new(run("failed", vec![make("x", &[])]))
        .activities(activities)
        .attempt_fails("x", refused)
        .finished();
    let there = MemoryStore::new(StoreId::generate([9; 16]));
    failed.into_store(&there).await.unwrap();
    let prunes = async |store: &MemoryStore| {
        site.engine(store).prune(&Policy::default(), false, &mut |_| {}).await.unwrap()
    };
    pass(91 * 86_400).await;
    let backup = site.backup(&there).await;
    let here = MemoryStore::new(there.id());
    site.put(&here, &backup, Purpose::Restore).await.unwrap();
    assert!(!here.head(&id("failed")).await.unwrap().unwrap().summary.live, "as it was then");

    // It may have been resumed since, and have made what it had not.
    let pruned = prunes(&here).await;
    assert_eq!((pruned.removed, pruned.stays), (0, vec![(id("failed"), Stays::Live)]));
    // Where nothing was put back it surely made nothing.
    assert_eq!(prunes(&there).await.removed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_of_plain_functions_is_removed_unless_one_recorded_something() {
    let mut activities = ActivityRegistry::new();
    activities.add_fn("plain", |_, value: Value| async move { Ok(value) }).unwrap();
    let records = |ctx: ActivityContext, value: Value| async move {
        ctx.record_resource("thing", "t1").await?;
        Ok::<Value, ActivityError>(value)
    };
    activities.add_fn("records", records).unwrap();
    let engine = Engine::builder(Arc::new(store()))
        .clock(Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_000_000))))
        .activities(activities)
        .build();
    for called in ["plain", "records"] {
        let does =
            Step::activity(name("a"), ActivityName::new(called).unwrap(), Binding::literal(json!("x")));
        let handle = engine.start(run(called, vec![does])).await.unwrap();
        let view = end(&engine, &handle).await;
        assert_eq!((view.status, view.live), (RunStatus::Succeeded, called == "records"));
    }
    pass(91 * 86_400).await;
    let pruned = engine.prune(&Policy::default(), false, &mut |_| {}).await.unwrap();
    assert_eq!((pruned.removed, pruned.stays), (1, vec![(id("records"), Stays::Live)]));
    // Nothing takes back what a plain function did; after a rollback nobody waits for that any more.
    engine.rollback(&id("records"), vec![], by()).await.unwrap().wait().await.unwrap();
    pass(91 * 86_400).await;
    assert_eq!(engine.prune(&Policy::default(), false, &mut |_| {}).await.unwrap().removed, 1);
}
