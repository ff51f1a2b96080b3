//! The state of one run, as [`apply`](super::apply) leaves it.
//!
//! Besides what each step went through it keeps the ready set, the timer queue and the attempts in flight, so that
//! `decide` never has to look at the whole graph.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use crate::activity::{ActivityError, Effect, Recorded, Resource};
use crate::event::{ActivityShapes, CancelMode, ForkedFrom, Parent, PauseReason, Phase, Request};
use crate::graph::{Graph, StepIx, StepKind};
use crate::id::{RunId, StepName, StoreId, WorkflowName};
use crate::run::{RunOptions, RunStatus, StepStatus};
use crate::schedule::Scheduled;
use crate::store::GraphHash;
use crate::time::Timestamp;

/// What is known of a step's effect on the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ledger {
    /// Never started.
    Untouched,
    /// An attempt is acting.
    Intent,
    /// It surely took place.
    Done,
    /// It surely did not.
    NoEffect,
    /// It was there before and is not ours.
    NotOurs,
    /// Not known. For an activity with a probe it is looked at before anything else is done.
    Unknown {
        /// When a probe first found nothing; a second one must agree after the settle time.
        absent_since: Option<Timestamp>,
    },
}

/// The part a step plays in a rollback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UndoRole {
    /// No rollback yet.
    None,
    /// Has to be taken back.
    Wanted,
    /// Nothing (more) to take back.
    Resolved,
    /// Could not be taken back: blocks what it depends on.
    Stuck,
}

/// One step.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "facts that are independent of each other")]
pub struct StepState {
    /// Where it stands.
    pub status: StepStatus,
    /// Dependencies that are not done yet.
    pub missing: u32,
    /// Attempts of any phase so far.
    pub attempt: u32,
    /// Failed attempts since the budget was last fresh, those under a retry rule of their own left aside.
    pub failures: u32,
    /// The same for each retry rule, by its number.
    pub rule_failures: BTreeMap<u32, u32>,
    /// Throttled attempts in a row.
    pub throttles: u32,
    /// From 1.
    pub generation: u32,
    /// What is known of its effect.
    pub ledger: Ledger,
    /// Whether an attempt to execute ever started.
    pub intent: bool,
    /// The activity's effect, as recorded by the last attempt.
    pub effect: Effect,
    /// Whether the activity can be probed, as recorded by the last attempt.
    pub probed: bool,
    /// Whether what the activity does is nobody's to take back, as recorded by the last attempt.
    pub owns_nothing: bool,
    /// Set when a probe found something of ours broken: the next execution replaces it.
    pub replacing: bool,
    /// Set when an attempt ended with an unknown outcome that no probe can clear up: a later attempt that surely did
    /// nothing does not change that.
    pub unproven: bool,
    /// Set when somebody let it take what it finds and is not ours, whatever the graph says.
    pub adopt: bool,
    /// Whether its condition was asked and met since it last became pending.
    pub asked: bool,
    /// The input resolved last.
    pub input: Option<Arc<Value>>,
    /// Earlier inputs whose effects may still be there: they are taken back too.
    pub past_inputs: Vec<Arc<Value>>,
    /// The output.
    pub output: Option<Arc<Value>>,
    /// What was recorded, by every generation.
    pub resources: Vec<Resource>,
    /// Old values of managed keys.
    pub before: BTreeMap<String, Value>,
    /// Details of the last heartbeat of this generation.
    pub heartbeat: Option<Value>,
    /// The last error.
    pub error: Option<ActivityError>,
    /// When it is looked at again.
    pub wake: Option<Timestamp>,
    /// The active time by which its first attempt has to start, while it may start.
    pub start_by_ms: Option<u64>,
    /// The map it is a child of.
    pub map: Option<StepIx>,
    /// A child of a map whose list was read again and no longer has it. It is never started; what it made is taken
    /// back with the rest.
    pub retired: bool,
    /// Failed for good, and its map goes on without it.
    pub tolerated: bool,
    /// Active time (see [`RunState::active_ms`]) at which the first attempt of this budget started.
    pub budget_start_ms: Option<u64>,
    /// When the first attempt started.
    pub started: Option<Timestamp>,
    /// When it was done, failed or taken back.
    pub ended: Option<Timestamp>,
    /// Its part in a rollback.
    pub undo: UndoRole,
    /// Dependents that a rollback has not resolved yet.
    pub undo_missing: u32,
    /// Why it was kept.
    pub kept: Option<String>,
}

impl StepState {
    /// What a compensation is given.
    pub fn recorded(&self) -> Recorded {
        Recorded {
            output: self.output.as_deref().cloned(),
            resources: self.resources.clone(),
            before: self.before.clone(),
        }
    }

    /// Whether steps that depend on it have to wait no longer for it.
    pub fn is_settled(&self) -> bool {
        self.status.is_done() || self.tolerated || self.retired
    }

    /// Whether any attempt recorded something it made or changed.
    pub fn has_records(&self) -> bool {
        !self.resources.is_empty() || !self.before.is_empty()
    }

    /// Whether something of this run may be out there because of the step.
    pub fn may_have_effect(&self) -> bool {
        if !self.intent || self.effect == Effect::Read {
            return false;
        }
        // What owns nothing and recorded something all the same left that behind, and nobody else tells of it.
        if self.owns_nothing && !self.has_records() {
            return false;
        }
        match self.ledger {
            Ledger::Untouched => false,
            Ledger::NotOurs => self.undo != UndoRole::Resolved && self.has_records(),
            Ledger::NoEffect => self.replacing || !self.resources.is_empty() || !self.before.is_empty(),
            Ledger::Intent | Ledger::Done | Ledger::Unknown { .. } => self.undo != UndoRole::Resolved,
        }
    }
}

/// An attempt that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlight {
    /// Its number.
    pub attempt: u32,
    /// What it is for.
    pub phase: Phase,
}

/// What makes a run stop starting steps. Ordered: the gravest wins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Halt {
    /// It pauses when what is in flight has ended.
    Pause,
    /// It fails.
    Fail,
    /// It ran out of time.
    TimedOut,
    /// It takes back what it made.
    Rollback,
    /// It was cancelled.
    Cancel(CancelModeOrd),
}

/// [`CancelMode`] with an order: rollback is graver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CancelModeOrd {
    /// Keeps what it made.
    Keep,
    /// Takes it back.
    Rollback,
    /// Leaves everything as it is, at once.
    Terminate,
}

impl From<CancelMode> for CancelModeOrd {
    fn from(mode: CancelMode) -> Self {
        match mode {
            CancelMode::Keep => Self::Keep,
            CancelMode::Rollback => Self::Rollback,
            CancelMode::Terminate => Self::Terminate,
        }
    }
}

/// A map whose list is known.
#[derive(Debug, Clone, Default)]
pub struct MapState {
    /// Its children, in the order of the list.
    pub children: Vec<StepIx>,
    /// Those that wait for another to end, because only so many may go on at once.
    pub queue: VecDeque<StepIx>,
    /// Those that failed for good.
    pub failed: u32,
}

/// A run whose store was put back to a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// When the backup was made.
    pub backup: Timestamp,
    /// The generation that steps get from then on. Between the backup and the restore they may have had any of the
    /// lower ones, and a service would answer a token of theirs with what it made then.
    pub generation: u32,
}

/// Where a run comes from that is here as history only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The store it is of.
    pub store: StoreId,
    /// When the backup was made that it came in.
    pub backup: Timestamp,
}

/// One run.
#[derive(Debug, Clone)]
pub struct RunState {
    /// Its id.
    pub id: RunId,
    /// Its workflow.
    pub workflow: WorkflowName,
    /// The workflow's version.
    pub workflow_version: u32,
    /// Its site, or empty.
    pub site: String,
    /// Its graph.
    pub graph: Graph,
    /// Its input.
    pub input: Arc<Value>,
    /// Its options.
    pub options: RunOptions,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Who created it.
    pub request: Request,
    /// Number of the last event.
    pub seq: u64,
    /// When it was created.
    pub created: Timestamp,
    /// When the last event happened.
    pub updated: Timestamp,
    /// Time that does not count against timeouts: not owned, or paused. In milliseconds.
    pub suspended_ms: u64,
    /// Its steps, by [`StepIx`].
    pub steps: Vec<StepState>,
    /// Steps whose attempt may start, by topological rank (forward) or reverse rank (rollback).
    pub ready: BTreeSet<(u32, StepIx)>,
    /// Steps that are to go on at once without an attempt: gates, sleeps, signals, maps.
    pub prompt: BTreeSet<StepIx>,
    /// Steps that wait for a time.
    pub timers: BTreeSet<(Timestamp, StepIx)>,
    /// Attempts under way.
    pub in_flight: BTreeMap<StepIx, InFlight>,
    /// Steps that wait for something outside: a decision, a signal, or an hour.
    pub waiting: BTreeSet<StepIx>,
    /// Steps whose first attempt has to start by an active time.
    pub start_by: BTreeSet<(u64, StepIx)>,
    /// Signals nobody has waited for yet.
    pub signals: BTreeMap<String, VecDeque<Arc<Value>>>,
    /// Maps whose list is known.
    pub maps: BTreeMap<StepIx, MapState>,
    /// Steps that are done.
    pub done: u32,
    /// Children of maps that are not looked at any more.
    pub retired: u32,
    /// Times it was taken over with an attempt under way since a step last got on or somebody looked after it.
    pub recoveries: u32,
    /// Whether the run only takes back from here on.
    pub rolling_back: bool,
    /// Steps a rollback has not resolved yet (those that are not stuck).
    pub undo_left: u32,
    /// Steps whose compensation failed for good.
    pub stuck: BTreeSet<StepIx>,
    /// Why nothing new is started.
    pub halt: Option<Halt>,
    /// The reason of a pause to come.
    pub pause_reason: Option<PauseReason>,
    /// Why it stands still.
    pub paused: Option<PauseReason>,
    /// When it was paused.
    pub paused_at: Option<Timestamp>,
    /// How it ended.
    pub finished: Option<RunStatus>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The active time from which its own limit counts.
    pub time_from_ms: u64,
    /// The step that failed last.
    pub failed_step: Option<StepIx>,
    /// What it returned.
    pub output: Option<Arc<Value>>,
    /// Why it could not return it.
    pub error: Option<ActivityError>,
    /// The run that started it.
    pub parent: Option<Parent>,
    /// The run it took its first steps from.
    pub forked_from: Option<ForkedFrom>,
    /// The schedule that started it.
    pub scheduled: Option<Arc<Scheduled>>,
    /// The last time its store was put back to a backup.
    pub restored: Option<Restored>,
    /// The store it is of, when it is here as history only.
    pub imported: Option<Imported>,
    /// Shapes of the types its activities took and gave when its definition was last looked at.
    pub shapes: ActivityShapes,
    /// Graphs that its history refers to, besides its first. Whoever replays puts them here before.
    pub known_graphs: BTreeMap<GraphHash, Graph>,
}

impl RunState {
    /// Where the run stands.
    pub fn status(&self) -> RunStatus {
        if let Some(end) = self.finished {
            return end;
        }
        if self.paused.is_some() {
            return RunStatus::Paused;
        }
        if self.rolling_back {
            return RunStatus::RollingBack;
        }
        let waits = !self.timers.is_empty() || !self.waiting.is_empty();
        if self.in_flight.is_empty() && self.ready.is_empty() && self.prompt.is_empty() && waits {
            return RunStatus::Waiting;
        }
        if self.seq <= 1 { RunStatus::Pending } else { RunStatus::Running }
    }

    /// Time that counts against timeouts, in milliseconds since the epoch less all suspensions.
    pub fn active_ms(&self, at: Timestamp) -> u64 {
        at.as_millis().saturating_sub(self.suspended_ms)
    }

    /// A step by name.
    pub fn step(&self, name: &StepName) -> Option<&StepState> {
        self.graph.index_of(name).map(|ix| &self.steps[ix as usize])
    }

    /// Whether something of this run may still be out there.
    pub fn is_live(&self) -> bool {
        // What is there is another store's.
        self.imported.is_none() && self.steps.iter().any(StepState::may_have_effect)
    }

    /// Whether a step may have done more than its history says, because its store was put back to a backup and nothing
    /// has made its effect known since. A sub-workflow tells by itself: its steps are in doubt, not the run.
    pub fn in_doubt(&self, ix: StepIx) -> bool {
        let sub = matches!(self.graph.step(ix).kind, StepKind::SubWorkflow { .. });
        self.restored.is_some_and(|r| !sub && self.steps[ix as usize].generation < r.generation)
    }

    /// The generation after a step's present one.
    pub fn next_generation(&self, ix: StepIx) -> u32 {
        match self.restored {
            Some(restored) if self.in_doubt(ix) => restored.generation,
            _ => self.steps[ix as usize].generation + 1,
        }
    }

    /// The active time at which the run has used up its own time.
    pub fn ends_by_ms(&self) -> Option<u64> {
        self.options.timeout_ms.map(|limit| self.time_from_ms.saturating_add(limit))
    }

    /// When an active time comes, if nothing suspends the run before.
    pub fn wall(&self, active_ms: u64) -> Timestamp {
        Timestamp::from_millis(active_ms.saturating_add(self.suspended_ms))
    }

    /// How many steps there are that have to be settled.
    pub fn total(&self) -> u32 {
        u32::try_from(self.steps.len()).expect("a checked graph") - self.retired
    }

    /// A step and everything that depends on it: what a rerun does again. A map that is reached through what it waits
    /// for reads its list again; one that is reached through a child only collects again.
    pub fn closure(&self, ix: StepIx) -> Vec<StepIx> {
        let down = self.graph.downstream(ix);
        let mut closure = vec![ix];
        closure.extend(self.graph.order().iter().copied().filter(|&d| d != ix && down.contains(&d)));
        closure
    }
}
