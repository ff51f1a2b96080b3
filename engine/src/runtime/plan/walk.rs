//! The walk over the graph: which step can be looked at, with what input, and what the answer means.

use std::collections::BTreeSet;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::Value;

use super::{Action, Plan, Planned, fingerprint};
use crate::activity::{ActivityError, Effect, ErasedActivity, Owner, Probe};
use crate::graph::{Binding, Graph, Step, StepIx, StepKind, truthy};
use crate::id::StepName;
use crate::run::child_name;
use crate::run::resolve::{Known, Unresolved, resolve_from};
use crate::runtime::driver::keys;
use crate::runtime::engine::Engine;
use crate::runtime::look::{LookOptions, Looker};
use crate::runtime::sub::sub_run_id;
use crate::time::BoxFuture;

/// An output, as far as it is known.
#[derive(Debug, Clone)]
enum Output {
    Is(Value),
    Nothing,
    NotYet,
}

/// What was found out about a step.
struct Fate {
    planned: Planned,
    /// Children of a map, steps of a sub-workflow.
    inner: Vec<Planned>,
    output: Output,
    /// When it would be done on the longest path, in milliseconds.
    done_ms: u64,
    /// A step before it, or itself, that changes something first.
    changes: Option<StepName>,
}

/// What one look said, before it is put into the plan.
struct Found {
    action: Action,
    note: String,
    owner: Option<Owner>,
    looked: bool,
    error: Option<ActivityError>,
    output: Output,
    input: Option<Value>,
    inner: Vec<Planned>,
}

impl Found {
    fn new(action: Action, note: impl Into<String>) -> Self {
        Self {
            action,
            note: note.into(),
            owner: None,
            looked: false,
            error: None,
            output: Output::NotYet,
            input: None,
            inner: Vec::new(),
        }
    }

    fn failed(error: ActivityError) -> Self {
        Self { error: Some(error), ..Self::new(Action::Unknown, "") }
    }

    fn looked(mut self) -> Self {
        self.looked = true;
        self
    }
}

struct Walk<'a> {
    engine: &'a Engine,
    looker: &'a Looker<'a>,
    graph: &'a Graph,
    input: &'a Value,
    options: &'a LookOptions,
    fates: Vec<Option<Fate>>,
    /// Steps to whose output something refers.
    referred: BTreeSet<StepIx>,
    /// Checks at the beginning: reads before which nothing is changed.
    early: BTreeSet<StepIx>,
}

/// Looks at all steps.
pub(super) async fn walk(
    engine: &Engine,
    looker: &Looker<'_>,
    graph: &Graph,
    input: &Value,
    options: &LookOptions,
) -> Plan {
    let mut walk = Walk {
        engine,
        looker,
        graph,
        input,
        options,
        fates: (0..graph.len()).map(|_| None).collect(),
        referred: referred(graph),
        early: BTreeSet::new(),
    };
    walk.early = walk.early();
    let mut missing: Vec<usize> =
        (0..).zip(graph.steps()).map(|(ix, _)| graph.dependencies(ix).len()).collect();
    let mut ready: BTreeSet<(u32, StepIx)> = graph
        .order()
        .iter()
        .filter(|ix| missing[**ix as usize] == 0)
        .map(|&ix| (graph.rank(ix), ix))
        .collect();
    let mut looks = FuturesUnordered::new();
    loop {
        while looks.len() < options.parallelism.max(1)
            && let Some((_, ix)) = ready.pop_first()
        {
            let look = walk.begin(ix);
            looks.push(async move { (ix, look.await) });
        }
        let Some((ix, found)) = looks.next().await else { break };
        walk.settle(ix, found);
        for &next in graph.dependents(ix) {
            missing[next as usize] -= 1;
            if missing[next as usize] == 0 {
                ready.insert((graph.rank(next), next));
            }
        }
    }
    drop(looks);
    let mut plan = Plan { graph: graph.hash().clone(), steps: Vec::new(), expected_ms: 0 };
    for &ix in graph.order() {
        let fate =
            walk.fates[ix as usize].take().expect("a checked graph has no cycle: every step was reached");
        plan.expected_ms = plan.expected_ms.max(fate.done_ms);
        plan.steps.push(fate.planned);
        plan.steps.extend(fate.inner);
    }
    plan
}

/// Steps to whose output an input, a condition or a lock refers.
fn referred(graph: &Graph) -> BTreeSet<StepIx> {
    let mut found = BTreeSet::new();
    for step in graph.steps() {
        for binding in step.kind.bindings().into_iter().chain(&step.when) {
            binding.outputs(&mut |name| found.extend(graph.index_of(name)));
        }
    }
    found
}

impl<'a> Walk<'a> {
    fn code(&self, step: &Step) -> Option<&'a dyn ErasedActivity> {
        let name = step.kind.activity()?;
        self.engine.inner.activities.get(name).map(AsRef::as_ref)
    }

    /// Reads before which there are only reads, and what changes nothing when it is repeated and cannot be looked at.
    fn early(&self) -> BTreeSet<StepIx> {
        let mut early = BTreeSet::new();
        for &ix in self.graph.order() {
            let harmless = self.code(self.graph.step(ix)).is_some_and(|code| match code.effect() {
                Effect::Read => true,
                Effect::Idempotent => !code.has_probe(),
                Effect::Create | Effect::Update | Effect::Delete => false,
            });
            if harmless && self.graph.dependencies(ix).iter().all(|d| early.contains(d)) {
                early.insert(ix);
            }
        }
        early
    }

    fn fate(&self, ix: StepIx) -> &Fate {
        self.fates[ix as usize].as_ref().expect("dependencies are settled first")
    }

    fn resolve(&self, binding: &Binding) -> Result<Value, Unresolved> {
        let known = |step: &StepName| {
            let fate = self.graph.index_of(step).map(|ix| &self.fate(ix).output);
            match fate {
                Some(Output::Is(value)) => Known::Output(value),
                Some(Output::Nothing) | None => Known::Nothing,
                Some(Output::NotYet) => Known::NotYet,
            }
        };
        resolve_from(self.input, &known, &self.engine.inner.functions, binding)
    }

    /// What changes before the step, if anything does.
    fn changes_before(&self, ix: StepIx) -> Option<StepName> {
        self.graph.dependencies(ix).iter().find_map(|&d| self.fate(d).changes.clone())
    }

    /// The look at a step whose dependencies are settled. It holds nothing of the walk that others change meanwhile.
    fn begin(&self, ix: StepIx) -> BoxFuture<'a, Found> {
        let step = self.graph.step(ix);
        let mut condition = String::new();
        if let Some(when) = &step.when {
            match self.resolve(when) {
                Ok(value) if !truthy(&value) => {
                    let skipped = Found {
                        output: Output::Nothing,
                        ..Found::new(Action::Nothing, "left out: its condition is false")
                    };
                    return now(skipped);
                }
                Ok(_) => {}
                Err(Unresolved::NotYet(on)) => {
                    condition = format!("if its condition holds, which is known after {on}");
                }
                Err(Unresolved::Never(error)) => return now(Found::failed(error)),
            }
        }
        let before = self.changes_before(ix);
        let look: BoxFuture<'a, Found> = match &step.kind {
            StepKind::Gate { question, .. } => now(Found::new(Action::Gate, question)),
            StepKind::Signal { signal, .. } => {
                now(Found::new(Action::Gate, format!("waits for signal {signal}")))
            }
            StepKind::Sleep { .. } => now(Found::new(Action::Nothing, "waits")),
            StepKind::Activity { input, .. } => match self.resolve(input) {
                Ok(input) => self.look(ix, step.name.clone(), input, before),
                Err(unresolved) => now(self.unresolved(step, unresolved)),
            },
            StepKind::Map { items, .. } => match self.resolve(items) {
                Ok(items) => self.map(ix, items, before.as_ref()),
                Err(unresolved) => now(self.unresolved(step, unresolved)),
            },
            StepKind::SubWorkflow { workflow, input, .. } => match self.resolve(input) {
                Ok(input) => self.sub(step, workflow.clone(), input),
                Err(unresolved) => now(self.unresolved(step, unresolved)),
            },
        };
        if condition.is_empty() {
            return look;
        }
        Box::pin(async move {
            let mut found = look.await;
            found.note =
                if found.note.is_empty() { condition } else { format!("{condition}; {}", found.note) };
            found
        })
    }

    /// A step whose input only a run can know.
    fn unresolved(&self, step: &Step, unresolved: Unresolved) -> Found {
        match unresolved {
            Unresolved::Never(error) => Found::failed(error),
            Unresolved::NotYet(on) => {
                let action = self.code(step).map_or(Action::Create, |code| Action::of(code.effect()));
                Found::new(action, format!("its input is known after {on}"))
            }
        }
    }

    fn look(
        &self,
        ix: StepIx,
        name: StepName,
        input: Value,
        before: Option<StepName>,
    ) -> BoxFuture<'a, Found> {
        let step = self.graph.step(ix);
        let Some(code) = self.code(step) else { return now(Found::new(Action::Unknown, "")) };
        let wanted = self.referred.contains(&ix) || self.early.contains(&ix);
        let (looker, adopt) = (self.looker, step.adopt);
        Box::pin(async move {
            let mut found = look(looker, code, &name, &input, adopt, wanted, before).await;
            found.input = Some(input);
            found
        })
    }

    /// Looks at every child of a map whose list is known.
    fn map(&self, ix: StepIx, items: Value, before: Option<&StepName>) -> BoxFuture<'a, Found> {
        let step = self.graph.step(ix);
        let Value::Array(list) = items else {
            let error =
                ActivityError::terminal("InputUnresolved", "the items of a map are a list").no_effect();
            return now(Found::failed(error));
        };
        let names: Vec<_> = keys(&step.name, &list).iter().map(|key| child_name(&step.name, key)).collect();
        let looks: Vec<_> = names
            .into_iter()
            .zip(&list)
            .map(|(name, item)| {
                let name = name.unwrap_or_else(|_| step.name.clone());
                (name.clone(), self.look(ix, name, item.clone(), before.cloned()))
            })
            .collect();
        Box::pin(async move {
            let (mut inner, mut outputs) = (Vec::new(), Some(Vec::new()));
            for (name, look) in looks {
                let found = look.await;
                outputs = outputs
                    .zip(match &found.output {
                        Output::Is(value) => Some(value.clone()),
                        Output::Nothing | Output::NotYet => None,
                    })
                    .map(|(mut all, one)| {
                        all.push(one);
                        all
                    });
                let child = Step { name, ..step.clone() };
                inner.push(planned(&child, &found));
            }
            let output = outputs.map_or(Output::NotYet, |all| Output::Is(Value::Array(all)));
            let mut found = of_inner(inner);
            (found.output, found.input) = (output, Some(Value::Array(list)));
            found
        })
    }

    /// Plans the run that a sub-workflow would be.
    fn sub(&self, step: &'a Step, workflow: String, input: Value) -> BoxFuture<'a, Found> {
        let (engine, looker, options) = (self.engine, self.looker, self.options);
        Box::pin(async move {
            let plan = match engine.start_of(&workflow, input.clone()) {
                Ok(start) => {
                    let run = sub_run_id(looker.run(), &step.name);
                    Box::pin(engine.plan_as(run, looker.site(), &start.graph, &input, options)).await
                }
                Err(error) => Err(error),
            };
            match plan {
                Err(error) => {
                    Found::failed(ActivityError::terminal("SubWorkflow", error.to_string()).no_effect())
                }
                Ok(plan) => {
                    let inner = plan.steps.into_iter().map(|mut inner| {
                        if let Ok(name) = StepName::new(format!("{}/{}", step.name, inner.step)) {
                            inner.step = name;
                        }
                        inner
                    });
                    Found { input: Some(input), ..of_inner(inner.collect()) }
                }
            }
        })
    }

    fn settle(&mut self, ix: StepIx, found: Found) {
        let step = self.graph.step(ix);
        let changes =
            if found.action.is_change() { Some(step.name.clone()) } else { self.changes_before(ix) };
        let begin =
            self.graph.dependencies(ix).iter().map(|&d| self.fate(d).done_ms).max().unwrap_or_default();
        let takes = if found.action.is_change() { step.expected_ms.unwrap_or_default() } else { 0 };
        let planned = planned(step, &found);
        let fate =
            Fate { planned, inner: found.inner, output: found.output, done_ms: begin + takes, changes };
        self.fates[ix as usize] = Some(fate);
    }
}

fn now<'a>(found: Found) -> BoxFuture<'a, Found> {
    Box::pin(std::future::ready(found))
}

fn planned(step: &Step, found: &Found) -> Planned {
    let activity = match &step.kind {
        StepKind::Activity { activity, .. } | StepKind::Map { activity, .. } => activity.to_string(),
        StepKind::SubWorkflow { workflow, .. } => workflow.clone(),
        kind @ (StepKind::Gate { .. } | StepKind::Sleep { .. } | StepKind::Signal { .. }) => {
            kind.word().to_owned()
        }
    };
    let print = fingerprint(&step.name, &activity, found.input.as_ref(), found.action, found.owner.as_ref());
    Planned {
        step: step.name.clone(),
        group: step.group.clone(),
        title: step.title.clone(),
        activity,
        action: found.action,
        note: found.note.clone(),
        owner: found.owner.clone(),
        looked: found.looked,
        error: found.error.clone(),
        expected_ms: step.expected_ms,
        fingerprint: print,
    }
}

/// What a step does whose parts do these things. The parts are counted for themselves.
fn of_inner(inner: Vec<Planned>) -> Found {
    let looked = inner.iter().all(|step| step.looked);
    Found { looked, inner, ..Found::new(Action::Nothing, "") }
}

/// What the world says of one activity.
async fn look(
    looker: &Looker<'_>,
    code: &dyn ErasedActivity,
    name: &StepName,
    input: &Value,
    adopt: bool,
    wanted: bool,
    before: Option<StepName>,
) -> Found {
    let effect = code.effect();
    if !code.has_probe() {
        return match (effect, &before) {
            (Effect::Read, None) if wanted => match looker.read(code, name, input).await {
                Ok(output) => {
                    Found { output: Output::Is(output), ..Found::new(Action::Nothing, "") }.looked()
                }
                Err(error) => Found::failed(error).looked(),
            },
            (Effect::Read, _) => Found::new(Action::Nothing, "a check"),
            (Effect::Idempotent, None) => {
                Found::new(Action::Nothing, "is repeated, which leaves the same world")
            }
            (Effect::Idempotent | Effect::Create | Effect::Update | Effect::Delete, _) => {
                Found::new(Action::of(effect), "")
            }
        };
    }
    match looker.probe(code, name, 1, input).await {
        Ok(Probe::Present { output, owner }) => {
            let (action, note) = match (&owner, effect) {
                (Owner::Foreign, _) if !adopt => (Action::Conflict, "it is there and not ours".to_owned()),
                (_, Effect::Delete) => (Action::Delete, String::new()),
                (Owner::Foreign, _) => {
                    (Action::Adopt, "it is there and not ours; it is never undone".to_owned())
                }
                (Owner::ThisSite(run), _) if !run.is_empty() => {
                    (Action::Nothing, format!("made by run {run}"))
                }
                (Owner::ThisRun | Owner::ThisSite(_), _) => (Action::Nothing, String::new()),
            };
            // Also of a conflict: what stands on it is looked at as well, so that all conflicts are told at once.
            Found { owner: Some(owner), output: Output::Is(output), ..Found::new(action, note) }.looked()
        }
        Ok(Probe::Absent) if effect == Effect::Delete => {
            Found::new(Action::Nothing, "it is not there").looked()
        }
        Ok(Probe::Absent) => Found::new(Action::of(effect), "").looked(),
        Ok(Probe::InProgress { detail }) => Found::new(Action::Wait, detail).looked(),
        Ok(Probe::Failed { owner, detail }) => {
            let (action, note) = match &owner {
                Owner::Foreign => (Action::Conflict, format!("it is there, broken and not ours: {detail}")),
                Owner::ThisRun | Owner::ThisSite(_) => {
                    (Action::of(effect), format!("in place of what failed: {detail}"))
                }
            };
            Found { owner: Some(owner), ..Found::new(action, note) }.looked()
        }
        // What it is looked for in may have to be made first.
        Err(_) if before.is_some() => {
            let note = before.map_or_else(String::new, |first| format!("cannot be looked at before {first}"));
            Found::new(Action::of(effect), note)
        }
        Err(error) => Found::failed(error).looked(),
    }
}
