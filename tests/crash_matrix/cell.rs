//! One cell of the matrix: a step, the moment at which the process dies, and what is done then.

use std::fmt;

use dssflow_engine::graph::{Graph, Step};
use dssflow_engine::run::RunStatus;
use dssflow_sandbox::Target;

use crate::learn::{Learned, RUN, hang, stood};
use crate::life::{Cut, Disk, Does, End, Moment};
use crate::oracle;
use crate::settings::Mode;
use crate::world::{Tamper, World};

/// When the process dies. The names are those of the matrix: C0 before the intent is durable, C1 after it, C2 carried out
/// and not answered, C3 answered and not written down, C4 written down; U0 to U4 the same of the undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Point {
    /// At a write of the store, before or after it.
    Write { moment: Moment, after: bool },
    /// At a call that changes something, before or after it is carried out.
    Call { undo: bool, target: Place, at: u32, after: bool },
}

/// A [`Target`] that can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Aws,
    Dss,
    Host,
}

impl Place {
    pub(crate) fn of(target: Target) -> Self {
        match target {
            Target::Aws => Self::Aws,
            Target::Dss => Self::Dss,
            Target::Host => Self::Host,
        }
    }

    pub(crate) fn target(self) -> Target {
        match self {
            Self::Aws => Target::Aws,
            Self::Dss => Target::Dss,
            Self::Host => Target::Host,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Aws => "aws",
            Self::Dss => "dss",
            Self::Host => "host",
        })
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |after| if after { "after" } else { "before" };
        match *self {
            Self::Write { moment: Moment::Recorded(at), after } => {
                write!(f, "C2.{}-record-{at}", side(after))
            }
            Self::Write { .. } => write!(f, "{}", self.name()),
            Self::Call { target, at, .. } => write!(f, "{}.{target}-{at}", self.name()),
        }
    }
}

impl Point {
    /// Its name in the matrix.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Write { moment: Moment::Started, after: false } => "C0",
            Self::Write { moment: Moment::Started, after: true } => "C1",
            Self::Write { moment: Moment::Recorded(_), .. } => "C2",
            Self::Write { moment: Moment::Done, after: false } => "C3",
            Self::Write { moment: Moment::Done, after: true } => "C4",
            Self::Write { moment: Moment::UndoStarted, after: false } => "U0",
            Self::Write { moment: Moment::UndoStarted, after: true } => "U1",
            Self::Write { moment: Moment::Undone, after: false } => "U3",
            Self::Write { moment: Moment::Undone, after: true } => "U4",
            Self::Call { undo: false, after: false, .. } => "C1",
            Self::Call { undo: false, after: true, .. } => "C2",
            Self::Call { undo: true, after: false, .. } => "U1",
            Self::Call { undo: true, after: true, .. } => "U2",
        }
    }

    pub(crate) fn in_undo(self) -> bool {
        self.name().starts_with('U')
    }

    fn cut(self, world: &World) -> Cut {
        match self {
            Self::Write { moment, after: false } => Cut::Before(moment),
            Self::Write { moment, after: true } => Cut::After(moment),
            Self::Call { target, at, after, .. } => {
                Cut::Struck(hang(&world.sandbox, target.target(), at, after))
            }
        }
    }
}

/// What is typed after the crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    Resume,
    Rollback,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Resume => "resume",
            Self::Rollback => "rollback",
        })
    }
}

/// One cell of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    pub(crate) point: Point,
    pub(crate) ending: Ending,
}

impl Cell {
    /// As it is given to `DSSFLOW_CELL`.
    pub(crate) fn id(self, mode: Mode, step: &Step) -> String {
        format!("{mode}/{}/{}/{}", step.name, self.point, self.ending)
    }
}

/// Every cell of a step.
pub(crate) fn all(learned: &Learned) -> Vec<Cell> {
    let both = [false, true];
    let write = |moment| both.map(|after| Point::Write { moment, after });
    let calls = |undo, counts: crate::learn::Counts| {
        let places = counts.each().into_iter();
        places.flat_map(move |(target, count)| {
            let target = Place::of(target);
            (0..count).flat_map(move |at| both.map(|after| Point::Call { undo, target, at, after }))
        })
    };
    let mut points: Vec<Point> = write(Moment::Started).into_iter().chain(write(Moment::Done)).collect();
    points.extend((0..learned.recorded).flat_map(|at| write(Moment::Recorded(at))));
    points.extend(calls(false, learned.forward));
    if learned.undone {
        points.extend(write(Moment::UndoStarted).into_iter().chain(write(Moment::Undone)));
        points.extend(calls(true, learned.backward));
    }
    points
        .into_iter()
        .flat_map(|point| [Ending::Resume, Ending::Rollback].map(|ending| Cell { point, ending }))
        .collect()
}

/// What came of a cell.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The process died there, and the world was judged.
    Judged(Vec<String>),
    /// The process never came there.
    NotReached,
}

/// Lets a process die in one cell, and judges the world.
pub(crate) async fn attempt(
    world: &World,
    step: &Step,
    graph: &Graph,
    learned: &Learned,
    cell: Cell,
    tamper: &Tamper,
) -> Outcome {
    let disk = Disk::new(world, &step.name, RUN, 0);
    let live = async |does, cut| disk.live(world, does, cut, tamper).await;
    let seq = world.calls_so_far().await;
    let mut found = Vec::new();
    let cut = cell.point.cut(world);
    if cell.point.in_undo() {
        if let Err(why) = stood(live(Does::Start(graph.clone()), Cut::Never).await, RunStatus::Succeeded) {
            return Outcome::Judged(vec![format!("before the crash: {why}")]);
        }
        match live(Does::Rollback, cut).await {
            End::Died => {}
            End::Stood(_) => return Outcome::NotReached,
            other => found.extend(stood(other, RunStatus::RolledBack).err()),
        }
        let view = disk.view().await.expect("it was written long ago");
        if view.status != RunStatus::RolledBack {
            // A crash before the turn was durable leaves a run that is done: only `rollback` turns it round.
            let does = match cell.ending {
                Ending::Resume if view.rolling_back => Does::Resume,
                Ending::Resume | Ending::Rollback => Does::Rollback,
            };
            found.extend(stood(live(does, Cut::Never).await, RunStatus::RolledBack).err());
        }
    } else {
        match live(Does::Start(graph.clone()), cut).await {
            End::Died => {}
            End::Stood(_) => {
                let back = stood(live(Does::Rollback, Cut::Never).await, RunStatus::RolledBack);
                return back.map_or_else(|why| Outcome::Judged(vec![why]), |()| Outcome::NotReached);
            }
            other => found.extend(stood(other, RunStatus::Succeeded).err()),
        }
        if cell.ending == Ending::Resume {
            let does = match disk.view().await {
                None => Some(Does::Start(graph.clone())),
                Some(view) => (!view.status.is_end()).then_some(Does::Resume),
            };
            if let Some(does) = does {
                found.extend(stood(live(does, Cut::Never).await, RunStatus::Succeeded).err());
            }
            found.extend(oracle::made_twice(
                &world.sandbox.access_key_id,
                &learned.made,
                &world.calls_since(seq).await,
            ));
            found.extend(oracle::unlike(&learned.after, &world.snapshot().await));
        }
        if disk.view().await.is_some() {
            found.extend(stood(live(Does::Rollback, Cut::Never).await, RunStatus::RolledBack).err());
        }
        if cell.ending == Ending::Rollback {
            found.extend(oracle::made_twice(
                &world.sandbox.access_key_id,
                &learned.made,
                &world.calls_since(seq).await,
            ));
        }
    }
    let left = oracle::left_behind(&learned.before, &world.snapshot().await);
    found.extend(left.into_iter().map(|line| format!("after the rollback: {line}")));
    Outcome::Judged(found)
}
