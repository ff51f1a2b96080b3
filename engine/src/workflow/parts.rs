//! What a workflow under construction consists of. All its handles share it.

use std::any::TypeId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Code, Definition, Made, Untyped, WorkflowError};
use crate::activity::{ActivityRegistry, RegistryError};
use crate::graph::{Binding, Graph, OnReject, Step, StepKind};
use crate::id::{ActivityName, InvalidName, StepName, WorkflowName};
use crate::run::resolve::FunctionRegistry;

pub(super) fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// Adds the code of one step to a registry.
type AddCode = Box<dyn FnOnce(&mut ActivityRegistry, &str) -> Result<(), RegistryError> + Send>;

struct Draft {
    step: Step,
    /// Asked before the step may start.
    gate: Option<String>,
}

struct Parts {
    workflow: WorkflowName,
    drafts: Vec<Draft>,
    by_name: BTreeMap<StepName, usize>,
    code: BTreeMap<ActivityName, AddCode>,
    functions: FunctionRegistry,
    /// How many unnamed functions work on the output of each step.
    numbers: BTreeMap<String, u32>,
    types: BTreeMap<String, TypeId>,
    carries: bool,
    subs: Vec<Untyped>,
    error: Option<WorkflowError>,
}

/// The parts as handles share them.
#[derive(Clone)]
pub(super) struct Shared {
    name: WorkflowName,
    parts: Arc<Mutex<Parts>>,
}

/// A step among the parts.
#[derive(Clone)]
pub(super) struct Place {
    at: usize,
    pub(super) name: StepName,
}

impl Shared {
    pub(super) fn new(workflow: WorkflowName) -> Self {
        let parts = Parts {
            workflow: workflow.clone(),
            drafts: Vec::new(),
            by_name: BTreeMap::new(),
            code: BTreeMap::new(),
            functions: FunctionRegistry::default(),
            numbers: BTreeMap::new(),
            types: BTreeMap::new(),
            carries: false,
            subs: Vec::new(),
            error: None,
        };
        Self { name: workflow, parts: Arc::new(Mutex::new(parts)) }
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The workflow that is being built.
    pub(super) fn workflow(&self) -> &WorkflowName {
        &self.name
    }

    /// Keeps the first mistake.
    pub(super) fn wrong(&self, error: WorkflowError) {
        self.parts().error.get_or_insert(error);
    }

    fn bad_name(&self, error: InvalidName) {
        self.wrong(WorkflowError::Name { workflow: self.name.to_string(), error });
    }

    /// A name, or nothing and a mistake noted.
    pub(super) fn checked<N>(&self, name: Result<N, InvalidName>) -> Option<N> {
        name.map_err(|error| self.bad_name(error)).ok()
    }

    /// Whether a handle with the parts `other` belongs here; a mistake is noted when not.
    pub(super) fn owns(&self, other: &Self, what: impl FnOnce() -> String) -> bool {
        let own = Arc::ptr_eq(&self.parts, &other.parts);
        if !own {
            let (workflow, other) = (self.name.clone(), other.name.clone());
            self.wrong(WorkflowError::Foreign { workflow, what: what(), other });
        }
        own
    }

    /// Adds a step; nothing and a mistake noted when its name is bad or taken.
    pub(super) fn add(&self, name: String, kind: StepKind) -> Option<Place> {
        let name = self.checked(StepName::new(name))?;
        let mut parts = self.parts();
        let at = parts.drafts.len();
        if parts.by_name.insert(name.clone(), at).is_some() {
            let workflow = parts.workflow.clone();
            parts.error.get_or_insert(WorkflowError::DuplicateStep { workflow, step: name });
            return None;
        }
        parts.drafts.push(Draft { step: Step::new(name.clone(), kind), gate: None });
        Some(Place { at, name })
    }

    /// The name under which a step's code is found.
    pub(super) fn activity_name(&self, step: &str) -> Option<ActivityName> {
        // A bad step name is told as such.
        self.checked(StepName::new(step))?;
        self.checked(ActivityName::new(format!("{}/{step}", self.name)))
    }

    /// Sets the code of a step, in place of what was set before.
    pub(super) fn set_code(&self, name: &ActivityName, types: &[TypeId], add: AddCode) {
        let mut parts = self.parts();
        for (role, of) in ["", " undo"].into_iter().zip(types) {
            parts.types.insert(format!("{name}{role}"), *of);
        }
        parts.code.insert(name.clone(), add);
    }

    /// Notes whether code of this type carries values.
    pub(super) fn note_values<F>(&self) {
        self.parts().carries |= size_of::<F>() != 0;
    }

    /// Changes a step.
    pub(super) fn change(&self, place: Option<&Place>, change: impl FnOnce(&mut Step)) {
        let Some(place) = place else { return };
        // Nothing is there any more once the workflow is built.
        if let Some(draft) = self.parts().drafts.get_mut(place.at) {
            change(&mut draft.step);
        }
    }

    /// Puts a gate before a step.
    pub(super) fn set_gate(&self, place: Option<&Place>, question: String) {
        let Some(place) = place else { return };
        if let Some(draft) = self.parts().drafts.get_mut(place.at) {
            draft.gate = Some(question);
        }
    }

    pub(super) fn add_sub(&self, workflow: Untyped) {
        self.parts().subs.push(workflow);
    }

    /// Adds a pure function on what `root` gives, and gives its name.
    pub(super) fn add_function<T, U, F>(&self, root: &str, name: Option<String>, function: F) -> String
    where
        T: DeserializeOwned,
        U: Serialize,
        F: Fn(T) -> U + Send + Sync + 'static,
    {
        self.note_values::<F>();
        let mut parts = self.parts();
        let name = name.unwrap_or_else(|| {
            let number = parts.numbers.entry(root.to_owned()).or_default();
            *number += 1;
            number.to_string()
        });
        let name = format!("{}/{root}#{name}", self.name);
        if parts.functions.contains(&name) {
            let (workflow, function) = (parts.workflow.clone(), name.clone());
            parts.error.get_or_insert(WorkflowError::DuplicateFunction { workflow, function });
        }
        parts.types.insert(name.clone(), TypeId::of::<F>());
        parts.functions.insert(name.clone(), move |argument: &Value| {
            let argument =
                T::deserialize(argument).map_err(|e| format!("what it is given does not fit: {e}"))?;
            serde_json::to_value(function(argument))
                .map_err(|e| format!("its result cannot be written as JSON: {e}"))
        });
        name
    }

    /// The workflow.
    pub(super) fn finish(
        &self,
        output: Binding,
        fits: fn(&Value) -> Result<(), String>,
    ) -> Result<Untyped, WorkflowError> {
        let mut parts = self.parts();
        if let Some(error) = parts.error.take() {
            return Err(error);
        }
        let workflow = parts.workflow.clone();
        let mut graph = Graph::builder().output(output);
        for Draft { mut step, gate } in std::mem::take(&mut parts.drafts) {
            if let Some(question) = gate {
                let gate = gate_before(&step, question)
                    .map_err(|error| WorkflowError::Name { workflow: workflow.to_string(), error })?;
                step.after.push(gate.name.clone());
                graph.push(gate);
            }
            graph.push(step);
        }
        let graph =
            graph.build().map_err(|error| WorkflowError::Graph { workflow: workflow.clone(), error })?;
        let mut activities = ActivityRegistry::new();
        for (name, add) in std::mem::take(&mut parts.code) {
            add(&mut activities, name.as_str())
                .map_err(|error| WorkflowError::Code { workflow: workflow.clone(), error })?;
        }
        let code = std::mem::take(&mut parts.types);
        let made = Made { graph: graph.hash().clone(), code, carries: parts.carries };
        let given = graph.clone();
        let mut definition = Definition::computed(workflow, 1, move |input| {
            fits(input)?;
            Ok(given.clone())
        });
        definition.made = Some(Arc::new(made));
        let functions = std::mem::take(&mut parts.functions);
        let code = Code { graph, activities, functions, subs: std::mem::take(&mut parts.subs) };
        Ok(Untyped { definition, code: Arc::new(code) })
    }
}

/// The gate before a step: it waits for all that the step waits for, and is skipped with it.
fn gate_before(step: &Step, question: String) -> Result<Step, InvalidName> {
    let name = StepName::new(format!("{}.gate", step.name))?;
    let kind = StepKind::Gate { question, timeout_ms: None, default: None, on_reject: OnReject::Fail };
    let mut after: BTreeSet<StepName> = step.after.iter().cloned().collect();
    let keys = step.locks.iter().filter_map(|l| l.key.as_ref());
    for binding in step.kind.bindings().into_iter().chain(&step.when).chain(keys) {
        binding.outputs(&mut |name| {
            after.insert(name.clone());
        });
    }
    let mut gate = Step::new(name, kind);
    gate.after = after.into_iter().collect();
    gate.when.clone_from(&step.when);
    gate.group.clone_from(&step.group);
    (gate.on_failure, gate.on_exhausted) = (step.on_failure, step.on_exhausted);
    Ok(gate)
}
