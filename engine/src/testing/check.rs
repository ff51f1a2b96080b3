//! Whether a workflow leaves the same world however often its activities and undos are repeated, and wherever its
//! process crashes.

use std::fmt::{self, Debug};

use crate::activity::ActivityError;
use crate::id::{RunId, StepName};
use crate::run::view::RunView;
use crate::run::{RunStatus, StepStatus, Verb};
use crate::runtime::{EngineBuilder, StartRun};
use crate::testing::faults::Faults;
use crate::testing::lab::{End, Lab, LabError, Waiting};
use crate::testing::wire::{Commit, Crash};

/// At most so many transitions are crashed at, before and after, unless the check is told otherwise.
const MAX_CRASH_POINTS: usize = 500;
/// So many differences are printed.
const PRINTED: usize = 5;

/// What one run of a check was like. Its text says how to have it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trial {
    /// Nothing went wrong.
    Plain,
    /// Every execution and every undo was repeated so many times in a row.
    Repeated {
        /// How often.
        times: u32,
    },
    /// The process crashed while the run went forward, and the run was resumed to its end.
    CrashThenResume {
        /// Where.
        crash: Crash,
        /// What was being written.
        what: String,
    },
    /// The process crashed while the run went forward, and the run was then taken back.
    CrashThenRollback {
        /// Where.
        crash: Crash,
        /// What was being written.
        what: String,
    },
    /// The process crashed while the run was taken back, and that went on.
    CrashInRollback {
        /// Where.
        crash: Crash,
        /// What was being written.
        what: String,
    },
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => write!(f, "the plain run"),
            Self::Repeated { times } => write!(f, "every call repeated: Faults::repeat_all({times})"),
            Self::CrashThenResume { crash, what } => {
                write!(f, "lab.{crash} ({what}), then lab.run(start)")
            }
            Self::CrashThenRollback { crash, what } => {
                write!(f, "lab.{crash} ({what}), then lab.start(start), then lab.take_back(run)")
            }
            Self::CrashInRollback { crash, what } => {
                write!(f, "lab.run(start), then lab.{crash} ({what}), then lab.take_back(run)")
            }
        }
    }
}

/// When the world was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// When the run had come to its end: the world should be that of the plain run.
    AfterRun,
    /// When it was taken back: the world should be as before the run.
    AfterRollback,
}

/// What was not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// The world is another.
    World {
        /// How it should look.
        expected: String,
        /// How it looks.
        found: String,
    },
    /// The run stands elsewhere.
    Ended {
        /// Where it should.
        expected: RunStatus,
        /// Where it does.
        found: RunStatus,
        /// The step that failed.
        step: Option<StepName>,
        /// Why.
        error: Option<ActivityError>,
    },
    /// The lab could not bring the run to where it stands.
    Lab(String),
    /// The crash never came: the run took another course than the plain one, although nothing was different.
    NotReached,
}

/// One thing that a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// In which run.
    pub trial: Trial,
    /// When.
    pub moment: Moment,
    /// What.
    pub wrong: Wrong,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = match self.moment {
            Moment::AfterRun => "after the run",
            Moment::AfterRollback => "after the rollback",
        };
        writeln!(f, "{}:", self.trial)?;
        match &self.wrong {
            Wrong::World { expected, found } => {
                write!(f, "  {moment} the world is\n    {found}\n  and should be\n    {expected}")
            }
            Wrong::Ended { expected, found, step, error } => {
                write!(f, "  {moment} it is {found} and should be {expected}")?;
                if let Some(step) = step {
                    write!(f, "; step {step}")?;
                }
                if let Some(error) = error {
                    write!(f, ": {error}")?;
                }
                Ok(())
            }
            Wrong::Lab(why) => write!(f, "  {moment}: {why}"),
            Wrong::NotReached => {
                write!(f, "  the crash never came: the same run took another course; does it go by chance?")
            }
        }
    }
}

/// What a check did and found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct CheckReport {
    /// Runs it took.
    pub runs: u64,
    /// Crashes that came.
    pub crashes_fired: u64,
    /// Executions and undos that were repeated.
    pub repeats: u64,
    /// Transitions at which no crash was tried, because there were too many; see [`RepeatCheck::crash_points`].
    pub skipped: usize,
    /// What was not as it should be; empty is good.
    pub differences: Vec<Difference>,
}

impl CheckReport {
    /// Whether nothing was wrong.
    pub fn is_ok(&self) -> bool {
        self.differences.is_empty() && self.repeats > 0
    }

    /// Makes sure that nothing was wrong.
    ///
    /// # Panics
    /// When something was, with what it was and how to have it again; and when nothing was repeated at all.
    pub fn assert_ok(&self) {
        assert!(self.is_ok(), "{self}");
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, crashes_fired, repeats, skipped, differences } = self;
        write!(f, "{runs} runs, {crashes_fired} crashes, {repeats} repeats: {} wrong", differences.len())?;
        if *skipped > 0 {
            write!(f, "; {skipped} transitions not crashed at")?;
        }
        if *repeats == 0 && differences.is_empty() {
            write!(f, "; nothing was repeated, so nothing was checked")?;
        }
        for difference in differences.iter().take(PRINTED) {
            write!(f, "\n{difference}")?;
        }
        if differences.len() > PRINTED {
            write!(f, "\nand {} more", differences.len() - PRINTED)?;
        }
        Ok(())
    }
}

/// Checks that a workflow leaves the same world however often it is repeated and wherever its process crashes.
///
/// `world` makes the outside world afresh for each run, `code` gives its engine what it needs, `fingerprint` is what is
/// compared of the world. The run should succeed. What is done is told at [`RepeatCheck`], which can also be told more.
pub async fn check_idempotent<W, F: PartialEq + Debug>(
    world: impl Fn() -> W,
    code: impl Fn(&W, EngineBuilder) -> EngineBuilder,
    start: StartRun,
    fingerprint: impl Fn(&W) -> F,
) -> CheckReport {
    Box::pin(RepeatCheck::new(world, code, start, fingerprint).run()).await
}

type MakeWorld<'a, W> = Box<dyn Fn() -> W + 'a>;
type Code<'a, W> = Box<dyn Fn(&W, EngineBuilder) -> EngineBuilder + 'a>;
type Look<'a, W, F> = Box<dyn Fn(&W) -> F + 'a>;
type Operator<'a> = Box<dyn Fn(&Waiting) -> Option<Verb> + 'a>;

/// The check behind [`check_idempotent`]. Each run has a fresh world and a fresh store:
///
/// 1. a plain run, then taken back;
/// 2. the same with every execution and every undo done twice, then three times in a row;
/// 3. for each transition of the plain run, a crash right before and right after it is durable: once resumed to the end
///    and then taken back, once taken back at once;
/// 4. for each transition of its rollback, a crash before and after it, and on.
///
/// At the end of each run the world must be that of the plain run, and after each rollback that before it.
pub struct RepeatCheck<'a, W, F> {
    world: MakeWorld<'a, W>,
    code: Code<'a, W>,
    start: StartRun,
    fingerprint: Look<'a, W, F>,
    operator: Option<Operator<'a>>,
    expects: RunStatus,
    rollback: bool,
    repeats: Vec<u32>,
    crash_points: usize,
}

impl<W, F> Debug for RepeatCheck<'_, W, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RepeatCheck({})", self.start.workflow)
    }
}

/// What the plain run was like.
struct Plain<F> {
    before: F,
    after: F,
    forward: Vec<Commit>,
    backward: Vec<Commit>,
}

impl<'a, W, F: PartialEq + Debug> RepeatCheck<'a, W, F> {
    /// A check of the runs that `start` starts; see [`check_idempotent`]. All of them have the same id.
    pub fn new(
        world: impl Fn() -> W + 'a,
        code: impl Fn(&W, EngineBuilder) -> EngineBuilder + 'a,
        mut start: StartRun,
        fingerprint: impl Fn(&W) -> F + 'a,
    ) -> Self {
        start.id.get_or_insert_with(|| RunId::new("check").expect("a fixed name"));
        Self {
            world: Box::new(world),
            code: Box::new(code),
            start,
            fingerprint: Box::new(fingerprint),
            operator: None,
            expects: RunStatus::Succeeded,
            rollback: true,
            repeats: vec![2, 3],
            crash_points: MAX_CRASH_POINTS,
        }
    }

    /// Who decides at gates and sends signals; see [`Lab::operator`].
    #[must_use]
    pub fn operator(mut self, operator: impl Fn(&Waiting) -> Option<Verb> + 'a) -> Self {
        self.operator = Some(Box::new(operator));
        self
    }

    /// How every run should end. Default: it succeeds. One that takes itself back is not taken back again.
    #[must_use]
    pub fn expects(mut self, status: RunStatus) -> Self {
        self.expects = status;
        self.rollback &= status != RunStatus::RolledBack;
        self
    }

    /// Takes nothing back: for workflows that have no undo.
    #[must_use]
    pub fn without_rollback(mut self) -> Self {
        self.rollback = false;
        self
    }

    /// How often calls are repeated, a run for each. Default: twice, three times.
    #[must_use]
    pub fn repeats(mut self, times: impl Into<Vec<u32>>) -> Self {
        self.repeats = times.into();
        self
    }

    /// Crashes at so many transitions of each direction at most, spread evenly. Default 500.
    #[must_use]
    pub fn crash_points(mut self, limit: usize) -> Self {
        self.crash_points = limit;
        self
    }

    /// Does it all.
    pub async fn run(&self) -> CheckReport {
        let mut report = CheckReport::default();
        let Some(plain) = Box::pin(self.plain(&mut report)).await else { return report };
        for &times in &self.repeats {
            let trial = Trial::Repeated { times };
            let world = (self.world)();
            let lab = self.lab(&world).faults(Faults::repeat_all(times));
            Box::pin(self.whole(&lab, &world, &trial, &plain, &mut report)).await;
            report.repeats += lab.the_faults().fired().len() as u64;
        }
        let forward = self.points(&plain.forward, &mut report);
        for (crash, what) in forward {
            let trial = Trial::CrashThenResume { crash, what: what.clone() };
            let world = (self.world)();
            let lab = self.lab(&world);
            lab.crash_at(crash);
            Box::pin(self.whole(&lab, &world, &trial, &plain, &mut report)).await;
            self.count(&lab, &trial, Moment::AfterRun, &mut report);
            if self.rollback {
                let trial = Trial::CrashThenRollback { crash, what };
                Box::pin(self.turned_round(&trial, crash, &plain, &mut report)).await;
            }
        }
        let backward = self.points(&plain.backward, &mut report);
        for (crash, what) in backward {
            let trial = Trial::CrashInRollback { crash, what };
            let world = (self.world)();
            let lab = self.lab(&world);
            report.runs += 1;
            if let Err(error) = lab.run(self.start.clone()).await {
                report.lab(&trial, Moment::AfterRun, &error);
                continue;
            }
            lab.crash_at(crash);
            Box::pin(self.back(&lab, &world, &trial, &plain.before, &mut report)).await;
            self.count(&lab, &trial, Moment::AfterRollback, &mut report);
        }
        report
    }

    fn lab<'b>(&'b self, world: &'b W) -> Lab<'b> {
        let lab = Lab::new(move |builder| (self.code)(world, builder));
        match &self.operator {
            Some(operator) => lab.operator(move |waiting| operator(waiting)),
            None => lab,
        }
    }

    fn id(&self) -> &RunId {
        self.start.id.as_ref().expect("set when it was made")
    }

    /// The plain run; nothing when it is not as it should be, for then there is nothing to compare with.
    async fn plain(&self, report: &mut CheckReport) -> Option<Plain<F>> {
        let world = (self.world)();
        let before = (self.fingerprint)(&world);
        let lab = self.lab(&world);
        report.runs += 1;
        let stood = lab.run(self.start.clone()).await;
        if !self.stands(stood, self.expects, &Trial::Plain, Moment::AfterRun, report) {
            return None;
        }
        let after = (self.fingerprint)(&world);
        let forward = lab.commits();
        let mut backward = Vec::new();
        if self.rollback {
            let known = report.differences.len();
            self.back(&lab, &world, &Trial::Plain, &before, report).await;
            if report.differences.len() > known {
                return None;
            }
            backward = lab.commits().split_off(forward.len());
        } else if self.expects == RunStatus::RolledBack {
            self.same(&world, &before, &Trial::Plain, Moment::AfterRollback, report);
        }
        Some(Plain { before, after, forward, backward })
    }

    /// A run to its end, and back.
    async fn whole(
        &self,
        lab: &Lab<'_>,
        world: &W,
        trial: &Trial,
        plain: &Plain<F>,
        report: &mut CheckReport,
    ) {
        report.runs += 1;
        let stood = lab.run(self.start.clone()).await;
        if self.stands(stood, self.expects, trial, Moment::AfterRun, report)
            && self.same(world, &plain.after, trial, Moment::AfterRun, report)
            && self.rollback
        {
            self.back(lab, world, trial, &plain.before, report).await;
        }
    }

    /// A run that is taken back after its first life.
    async fn turned_round(&self, trial: &Trial, crash: Crash, plain: &Plain<F>, report: &mut CheckReport) {
        let world = (self.world)();
        let lab = self.lab(&world);
        lab.crash_at(crash);
        report.runs += 1;
        match lab.start(self.start.clone()).await {
            Err(error) => return report.lab(trial, Moment::AfterRun, &error),
            Ok(End::Stood(_) | End::Crashed) => self.count(&lab, trial, Moment::AfterRun, report),
        }
        if lab.view(self.id()).await.is_ok() {
            self.back(&lab, &world, trial, &plain.before, report).await;
        } else {
            // It was never written down, so it did nothing.
            self.same(&world, &plain.before, trial, Moment::AfterRollback, report);
        }
    }

    async fn back(&self, lab: &Lab<'_>, world: &W, trial: &Trial, before: &F, report: &mut CheckReport) {
        let stood = lab.take_back(self.id()).await;
        if self.stands(stood, RunStatus::RolledBack, trial, Moment::AfterRollback, report) {
            self.same(world, before, trial, Moment::AfterRollback, report);
        }
    }

    fn stands(
        &self,
        stood: Result<RunView, LabError>,
        expected: RunStatus,
        trial: &Trial,
        moment: Moment,
        report: &mut CheckReport,
    ) -> bool {
        match stood {
            Ok(view) if view.status == expected => true,
            Ok(view) => {
                let failed = [StepStatus::Failed, StepStatus::CompensationFailed];
                let step = view.steps.into_iter().find(|step| failed.contains(&step.status));
                let (step, error) = step.map_or((None, None), |step| (Some(step.step), step.error));
                report.add(trial, moment, Wrong::Ended { expected, found: view.status, step, error });
                false
            }
            Err(error) => {
                report.lab(trial, moment, &error);
                false
            }
        }
    }

    fn same(&self, world: &W, expected: &F, trial: &Trial, moment: Moment, report: &mut CheckReport) -> bool {
        let found = (self.fingerprint)(world);
        if found == *expected {
            return true;
        }
        let (expected, found) = (format!("{expected:?}"), format!("{found:?}"));
        report.add(trial, moment, Wrong::World { expected, found });
        false
    }

    /// Counts the crash that was planned, which must have come.
    fn count(&self, lab: &Lab<'_>, trial: &Trial, moment: Moment, report: &mut CheckReport) {
        report.crashes_fired += lab.crashes();
        if lab.crash_to_come().is_some() {
            report.add(trial, moment, Wrong::NotReached);
        }
    }

    /// Before and after each transition, or an even spread of them.
    fn points(&self, commits: &[Commit], report: &mut CheckReport) -> Vec<(Crash, String)> {
        let taken = commits.len().min(self.crash_points);
        report.skipped += commits.len() - taken;
        let chosen = (0..taken).map(|n| &commits[n * commits.len() / taken]);
        chosen
            .flat_map(|commit| {
                let what = commit.what.clone();
                [(Crash::BeforeEvent(commit.first), what.clone()), (Crash::AfterEvent(commit.last), what)]
            })
            .collect()
    }
}

impl CheckReport {
    fn add(&mut self, trial: &Trial, moment: Moment, wrong: Wrong) {
        self.differences.push(Difference { trial: trial.clone(), moment, wrong });
    }

    fn lab(&mut self, trial: &Trial, moment: Moment, error: &LabError) {
        self.add(trial, moment, Wrong::Lab(error.to_string()));
    }
}
