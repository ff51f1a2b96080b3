//! R9: every step and every undo is done again and again, and by several attempts at once, in worlds that are fresh, where
//! the thing is there already, and where somebody changed or removed it. The world must be what one attempt leaves.

use std::fmt;

use dssflow_engine::run::RunStatus;

use crate::cell::Place;
use crate::drift;
use crate::learn::{Learned, RUN, stood};
use crate::life::{Cut, Disk, Does, End, Moment};
use crate::oracle;
use crate::race::{Order, Raced, Spot, at_gates, held};
use crate::report::Report;
use crate::settings;
use crate::walk::{At, Visit, in_both};
use crate::world::Tamper;

/// What the step finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finds {
    /// Nothing of it is there.
    Fresh,
    /// An earlier run of this store and site has done it.
    Adopted,
    /// Another store has done it.
    Foreign,
    /// This run has done it, and somebody took it away.
    Gone,
    /// This run has done it, and somebody changed it.
    Changed,
}

impl Finds {
    const ALL: [Self; 5] = [Self::Fresh, Self::Adopted, Self::Foreign, Self::Gone, Self::Changed];
}

impl fmt::Display for Finds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fresh => "fresh",
            Self::Adopted => "adopted",
            Self::Foreign => "foreign",
            Self::Gone => "gone",
            Self::Changed => "changed",
        })
    }
}

/// In which way it is done more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// By so many processes one after another, each of which dies before it could write down that it is done.
    Again(usize),
    /// By attempts that had all seen that it is not done, one after another.
    Row(usize),
    /// By attempts that had all seen that it is not done, at once.
    Together(usize),
    /// One attempt stops at a call that changes something, another does it all, and the first goes on.
    Held { undo: bool, place: Place, at: u32, after: bool },
}

impl Way {
    fn kind(self) -> &'static str {
        match self {
            Self::Again(2) => "again-2",
            Self::Again(_) => "again-3",
            Self::Row(2) => "row-2",
            Self::Row(_) => "row-3",
            Self::Together(2) => "together-2",
            Self::Together(_) => "together-3",
            Self::Held { undo: false, .. } => "held",
            Self::Held { undo: true, .. } => "undo-held",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Held { place, at, after, .. } => {
                write!(f, "{}-{}-{place}-{at}", self.kind(), if after { "after" } else { "before" })
            }
            _ => f.write_str(self.kind()),
        }
    }
}

/// One case of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) finds: Finds,
    pub(crate) way: Way,
}

impl Case {
    /// As it is given to `DSSFLOW_CELL`.
    fn id(self, at: &At<'_>) -> String {
        format!("{}/{}/{}", at.name(), self.finds, self.way)
    }
}

/// Every case of a step.
fn all(at: &At<'_>, learned: &Learned) -> Vec<Case> {
    let changes = learned.before != learned.after;
    // What a start makes carries the marks of the definition that was started, whoever started it: it is the run's that made
    // the definition, here always this one.
    let marked_before = at.step.name.as_str() == "cluster-start";
    let ways = [Way::Again(2), Way::Again(3), Way::Row(2), Way::Row(3), Way::Together(2), Way::Together(3)];
    let mut cases = Vec::new();
    for finds in Finds::ALL {
        let there = match finds {
            Finds::Fresh => true,
            Finds::Adopted | Finds::Foreign => changes && !marked_before,
            Finds::Gone => changes && learned.undone,
            Finds::Changed => drift::of(at.step, learned).is_some(),
        };
        let ways = ways.into_iter().filter(|way| match way {
            // What is there is not done, and so there is no row of those who do it.
            Way::Row(_) => !matches!(finds, Finds::Adopted | Finds::Foreign),
            _ => true,
        });
        cases.extend(ways.filter(|_| there).map(|way| Case { finds, way }));
    }
    for (undo, counts) in [(false, learned.forward), (true, learned.backward)] {
        for (target, count) in counts.each() {
            let place = Place::of(target);
            for at in 0..count {
                for after in [false, true] {
                    // After one command of the host is before the next.
                    if place == Place::Host && after {
                        continue;
                    }
                    cases.push(Case { finds: Finds::Fresh, way: Way::Held { undo, place, at, after } });
                }
            }
        }
    }
    cases
}

/// What was found wrong in a case, and whether more than one attempt took place.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) wrong: Vec<String>,
    pub(crate) met: bool,
}

impl Found {
    fn expect(&mut self, when: &str, end: End, status: RunStatus) {
        self.wrong.extend(stood(end, status).err().map(|why| format!("{when}: {why}")));
    }

    fn none(&mut self, when: &str, lines: Vec<String>) {
        self.wrong.extend(lines.into_iter().map(|line| format!("{when}: {line}")));
    }
}

/// Where a run and the world stood at a moment.
struct Stage {
    when: &'static str,
    status: String,
    world: serde_json::Value,
}

impl Stage {
    fn of(when: &'static str, end: &End, world: serde_json::Value) -> Self {
        let status = match end {
            End::Stood(view) => view.status.to_string(),
            other => format!("{other:?}"),
        };
        Self { when, status, world }
    }
}

/// What came of doing again what was gone.
struct Again {
    /// Whether the rollback before left nothing at all.
    clean: bool,
    world: serde_json::Value,
    /// Whether the attempts met.
    met: bool,
}

/// One step with one of its cases.
pub(crate) struct Trial<'a> {
    pub(crate) at: &'a At<'a>,
    pub(crate) learned: &'a Learned,
    pub(crate) case: Case,
    /// What is put around the code, for the teeth.
    pub(crate) tamper: &'a Tamper,
}

impl Trial<'_> {
    async fn live(&self, disk: &Disk, does: Does, cut: Cut) -> End {
        Box::pin(disk.live(self.at.world, does, cut, self.tamper)).await
    }

    fn start(&self) -> Does {
        Does::Start(self.at.graph.clone())
    }

    fn disk(&self, run: &str, other: u8) -> Disk {
        let disk = Disk::new(self.at.world, &self.at.step.name, run, other);
        if matches!(self.case.way, Way::Held { place: Place::Host, .. }) { disk.shared() } else { disk }
    }

    /// Does the step in the way of the case, beginning with `first`.
    async fn forward(&self, disk: &Disk, first: Does, spot: Spot) -> Raced {
        let (world, tamper) = (self.at.world, self.tamper);
        let raced = match self.case.way {
            Way::Held { undo: true, .. } => {
                return Raced { met: true, end: self.live(disk, first, Cut::Never).await };
            }
            Way::Again(times) => {
                let (mut does, mut met) = (first, true);
                for _ in 1..times {
                    let died = self.live(disk, does, Cut::Before(Moment::Done)).await;
                    met &= matches!(died, End::Died);
                    does = Does::Resume;
                }
                // What is not ours stops the run before it is done: it is asked again as often.
                Raced { met: met || spot == Spot::Look, end: self.live(disk, does, Cut::Never).await }
            }
            Way::Row(times) => Box::pin(at_gates(world, disk, first, times, spot, Order::Row, tamper)).await,
            Way::Together(times) => {
                Box::pin(at_gates(world, disk, first, times, spot, Order::Together, tamper)).await
            }
            Way::Held { place, at, after, .. } => {
                Box::pin(held(world, disk, first, place, at, after, tamper)).await
            }
        };
        self.once_more(disk, raced, RunStatus::Succeeded).await
    }

    /// Attempts that got in each other's way may have used up their tries; the operator is told to resume.
    async fn once_more(&self, disk: &Disk, raced: Raced, wanted: RunStatus) -> Raced {
        match &raced.end {
            End::Stood(view) if view.status != wanted && !view.status.is_end() => {
                Raced { end: self.live(disk, Does::Resume, Cut::Never).await, ..raced }
            }
            _ => raced,
        }
    }

    /// Takes the step back in the way of the case.
    async fn backward(&self, disk: &Disk) -> Raced {
        let (world, tamper) = (self.at.world, self.tamper);
        let raced = match self.case.way {
            Way::Held { undo: false, .. } => {
                return Raced { met: true, end: self.live(disk, Does::Rollback, Cut::Never).await };
            }
            Way::Again(times) => {
                let mut does = Does::Rollback;
                for _ in 1..times {
                    does = match self.live(disk, does, Cut::Before(Moment::Undone)).await {
                        End::Died => Does::Resume,
                        // What was changed by hand stays, and it is asked for again.
                        End::Stood(view) if view.status == RunStatus::RollbackStuck => Does::Rollback,
                        end => return Raced { met: !disk.undid().await, end },
                    };
                }
                Raced { met: true, end: self.live(disk, does, Cut::Never).await }
            }
            Way::Row(times) => {
                Box::pin(at_gates(world, disk, Does::Rollback, times, Spot::Undo, Order::Row, tamper)).await
            }
            Way::Together(times) => {
                Box::pin(at_gates(world, disk, Does::Rollback, times, Spot::Undo, Order::Together, tamper))
                    .await
            }
            Way::Held { place, at, after, .. } => {
                Box::pin(held(world, disk, Does::Rollback, place, at, after, tamper)).await
            }
        };
        // Without an undo there is nothing to meet at.
        let raced = Raced { met: raced.met || !disk.undid().await, ..raced };
        self.once_more(disk, raced, RunStatus::RolledBack).await
    }

    pub(crate) async fn run(&self) -> Found {
        match self.case.finds {
            Finds::Fresh => Box::pin(self.fresh()).await,
            Finds::Adopted => Box::pin(self.there("matrix-earlier", 0)).await,
            Finds::Foreign => Box::pin(self.there(RUN, 1)).await,
            Finds::Gone => Box::pin(self.gone()).await,
            Finds::Changed => Box::pin(self.changed()).await,
        }
    }

    async fn fresh(&self) -> Found {
        let (world, learned) = (self.at.world, self.learned);
        let mut found = Found::default();
        let disk = self.disk(RUN, 0);
        let seq = world.calls_so_far().await;
        // What does nothing here, as there is nothing to do, can meet only where it looks.
        let spot = if learned.before == learned.after { Spot::Look } else { Spot::Act };
        let done = Box::pin(self.forward(&disk, self.start(), spot)).await;
        found.expect("done", done.end, RunStatus::Succeeded);
        found.none("done", self.made_twice(seq).await);
        found.none("done", oracle::unlike(&learned.after, &world.snapshot().await));
        let undone = Box::pin(self.backward(&disk)).await;
        found.expect("taken back", undone.end, RunStatus::RolledBack);
        self.nothing_left(&mut found).await;
        found.met = done.met && undone.met;
        found
    }

    /// What another run has made is used as it is, or refused, and never touched.
    async fn there(&self, run: &str, store: u8) -> Found {
        let world = self.at.world;
        let mut found = Found::default();
        let theirs = self.disk(run, store);
        found.expect("theirs", self.live(&theirs, self.start(), Cut::Never).await, RunStatus::Succeeded);
        let there = world.snapshot().await;
        let disk = self.disk(RUN, 0);
        let done = Box::pin(self.forward(&disk, self.start(), Spot::Look)).await;
        match &done.end {
            // A person is asked what is to be done with what is foreign.
            End::Stood(view) if view.status == RunStatus::Paused && store != 0 => {}
            _ => found.expect("found", done.end, RunStatus::Succeeded),
        }
        found.none("found", oracle::unlike(&there, &world.snapshot().await));
        for when in ["taken back", "taken back twice"] {
            let back = self.live(&disk, Does::Rollback, Cut::Never).await;
            if !matches!(back, End::Refused(_)) || when == "taken back" {
                found.expect(when, back, RunStatus::RolledBack);
            }
            found.none(when, oracle::unlike(&there, &world.snapshot().await));
        }
        found.expect("theirs", self.live(&theirs, Does::Rollback, Cut::Never).await, RunStatus::RolledBack);
        self.nothing_left(&mut found).await;
        found.met = done.met;
        found
    }

    /// What was taken away is made again by whoever asks for it, and is no trouble for who takes it back.
    async fn gone(&self) -> Found {
        let mut found = Found::default();
        let many = Box::pin(self.gone_once(&mut found)).await;
        // Where a rollback leaves something by rule, as the old data directory of DSS, that is there beside what is done
        // again, and one attempt shows what there is then.
        let expected = if many.clean {
            self.learned.after.clone()
        } else {
            let single = Trial { case: Case { way: Way::Again(1), ..self.case }, ..*self };
            Box::pin(single.gone_once(&mut found)).await.world
        };
        found.none("done again", oracle::unlike(&expected, &many.world));
        found.met = many.met;
        found
    }

    /// Does it once and has it taken away; takes it back unawares and does it again, in the way of the case.
    async fn gone_once(&self, found: &mut Found) -> Again {
        let world = self.at.world;
        let disk = self.disk(RUN, 0);
        found.expect("first", self.live(&disk, self.start(), Cut::Never).await, RunStatus::Succeeded);
        let somebody = disk.copy().await;
        let gone = self.live(&somebody, Does::Rollback, Cut::Never).await;
        found.expect("taken away", gone, RunStatus::RolledBack);
        let unaware = disk.copy().await;
        let undone = Box::pin(self.backward(&unaware)).await;
        found.expect("taken back when it was gone", undone.end, RunStatus::RolledBack);
        self.nothing_left(found).await;
        let clean = world.snapshot().await == self.learned.before;
        let seq = world.calls_so_far().await;
        let done = Box::pin(self.forward(&disk, Does::Rerun, Spot::Act)).await;
        found.expect("done again", done.end, RunStatus::Succeeded);
        found.none("done again", self.made_twice(seq).await);
        let again = world.snapshot().await;
        let back = self.live(&disk, Does::Rollback, Cut::Never).await;
        found.expect("taken back", back, RunStatus::RolledBack);
        self.nothing_left(found).await;
        world.tidy(self.at.now).await;
        Again { clean, world: again, met: done.met && undone.met }
    }

    /// What somebody has changed is treated by many as by one.
    async fn changed(&self) -> Found {
        let mut found = Found::default();
        let single = Trial { case: Case { way: Way::Again(1), ..self.case }, ..*self };
        let (one, _) = Box::pin(single.changed_once(&mut found)).await;
        let (many, met) = Box::pin(self.changed_once(&mut found)).await;
        for (one, many) in one.into_iter().zip(many) {
            if one.status != many.status {
                found.wrong.push(format!("{}: one ends {}, many end {}", one.when, one.status, many.status));
            }
            found.none(one.when, oracle::unlike(&one.world, &many.world));
        }
        found.met = met;
        found
    }

    /// Does it once, has it changed, does it in the way of the case; has it changed, and takes it back in that way.
    async fn changed_once(&self, found: &mut Found) -> ([Stage; 3], bool) {
        let world = self.at.world;
        let drift = drift::of(self.at.step, self.learned).expect("there is something to change");
        let disk = self.disk(RUN, 0);
        found.expect("first", self.live(&disk, self.start(), Cut::Never).await, RunStatus::Succeeded);
        drift.make(world).await;
        let done = Box::pin(self.forward(&disk, Does::Rerun, Spot::Look)).await;
        let after_it = Stage::of("done on what was changed", &done.end, world.snapshot().await);
        drift.unmake(world).await;
        drift.make(world).await;
        let undone = Box::pin(self.backward(&disk)).await;
        let back = Stage::of("what was changed taken back", &undone.end, world.snapshot().await);
        let end = match &undone.end {
            // What is taken back is not put back by hand: nobody would take it away any more.
            End::Stood(view) if view.status == RunStatus::RolledBack => undone.end,
            _ => {
                drift.unmake(world).await;
                self.live(&disk, Does::Rollback, Cut::Never).await
            }
        };
        let last = Stage::of("taken back in the end", &end, world.snapshot().await);
        found.expect("taken back in the end", end, RunStatus::RolledBack);
        // A file that was changed is not ours any more and may stay; the host is put back by the harness.
        if !matches!(drift, drift::Drift::File(_)) {
            self.nothing_left(found).await;
        }
        world.tidy(self.at.now).await;
        ([after_it, back, last], done.met && undone.met)
    }

    async fn made_twice(&self, seq: u64) -> Vec<String> {
        let (ours, calls) = (&self.at.world.sandbox.access_key_id, self.at.world.calls_since(seq).await);
        oracle::made_twice(ours, &self.learned.made, &calls)
    }

    async fn nothing_left(&self, found: &mut Found) {
        let left = oracle::left_behind(&self.learned.before, &self.at.world.snapshot().await);
        found.none("after the rollback", left);
    }
}

/// The fewest cases that the tests must try.
const LEAST: u64 = 150;

struct Repeats {
    report: Report,
}

/// How many cases of a step are tried in the tests.
const EACH: usize = 2;

/// So many cases of a step; 0 is all. Two attempts at once are always tried, three in a row for every other step, and the
/// seed says which else.
fn choose(cases: Vec<Case>, each: usize, salt: u64) -> Vec<Case> {
    if each == 0 {
        return cases;
    }
    let fresh = |way| Case { finds: Finds::Fresh, way };
    let mut first = vec![fresh(Way::Together(2))];
    if salt.is_multiple_of(2) {
        first.push(fresh(Way::Again(3)));
    }
    let (mut chosen, mut others): (Vec<Case>, Vec<Case>) =
        cases.into_iter().partition(|case| first.contains(case));
    while chosen.len() < each && !others.is_empty() {
        let turn = u32::try_from(chosen.len()).expect("a step has few cases");
        let at = settings::index(salt.rotate_right(7 * turn), others.len());
        chosen.push(others.swap_remove(at));
    }
    chosen
}

impl Visit for Repeats {
    async fn before(&mut self, at: &At<'_>) -> Result<(), String> {
        let Some(learned) = at.learned().await? else { return Ok(()) };
        self.report.steps += 1;
        let mut cases = all(at, &learned);
        cases.retain(|case| settings::wants(&case.id(at)));
        self.report.enumerated += cases.len() as u64;
        if settings::only().is_none() {
            cases = choose(cases, settings::number("DSSFLOW_REPEATS", EACH), settings::salt(&at.name()));
        }
        let tamper = Tamper::default();
        for case in cases {
            let id = case.id(at);
            let found = Box::pin(Trial { at, learned: &learned, case, tamper: &tamper }.run()).await;
            at.world.tidy(at.now).await;
            if found.met {
                self.report.case(&format!("{}.{}", case.finds, case.way.kind()));
            } else {
                self.report.not_reached += 1;
                self.report.unmet.push(id.clone());
            }
            if !found.wrong.is_empty() {
                self.report.wrong(&id, &found.wrong, "repeats");
            }
        }
        Ok(())
    }

    async fn after(&mut self, _: &At<'_>) {}
}

#[test]
fn a_choice_has_the_race_and_no_case_twice() {
    let ways = [Way::Again(2), Way::Again(3), Way::Row(2), Way::Together(2), Way::Together(3)];
    let every = Finds::ALL.into_iter().flat_map(|finds| ways.map(|way| Case { finds, way }));
    let all: Vec<Case> = every.collect();
    assert_eq!(choose(all.clone(), 0, 1), all);
    for salt in 0..100 {
        let chosen = choose(all.clone(), 3, salt);
        assert_eq!(chosen.len(), 3);
        assert!(chosen.contains(&Case { finds: Finds::Fresh, way: Way::Together(2) }));
        let apart = |case: &Case| chosen.iter().filter(|other| *other == case).count() == 1;
        assert!(chosen.iter().all(apart), "{chosen:?}");
    }
}

#[test]
fn every_step_and_undo_repeated_and_raced_leaves_the_world_of_one() {
    let visitor = |_| Repeats { report: Report::new("repeats") };
    let report = in_both("repeats", visitor, |visit| visit.report);
    println!("{report}");
    assert!(report.violations.is_empty(), "{report}");
    assert_eq!(report.fired, report.cases, "attempts that did not meet are no case");
    let least = if settings::only().is_some() { 1 } else { LEAST };
    assert!(report.cases >= least, "too few cases: {report}");
}
