//! Turns a step's bindings into its input, from outputs that are there. Pure; named functions come in as a table.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::activity::ActivityError;
use crate::graph::Binding;
use crate::id::StepName;
use crate::run::StepStatus;
use crate::run::state::RunState;

type Function = Arc<dyn Fn(&Value) -> Result<Value, String> + Send + Sync>;

/// Named functions that bindings may use. Each must be pure: it is asked for each attempt, what an attempt was given is
/// recorded, and a result that differs counts as a new input.
#[derive(Clone, Default)]
pub struct FunctionRegistry {
    by_name: BTreeMap<String, Function>,
}

impl fmt::Debug for FunctionRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

impl FunctionRegistry {
    /// Adds a function, in place of an earlier one of that name.
    pub fn insert(
        &mut self,
        name: impl Into<String>,
        function: impl Fn(&Value) -> Result<Value, String> + Send + Sync + 'static,
    ) {
        self.by_name.insert(name.into(), Arc::new(function));
    }

    /// Adds those of another registry, in place of those of the same name.
    pub fn merge(&mut self, other: Self) {
        self.by_name.extend(other.by_name);
    }

    /// Whether there is one of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }
}

/// What is known of a step's output.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Known<'a> {
    /// This is it.
    Output(&'a Value),
    /// It has none and never will: what refers to it gets null.
    Nothing,
    /// Only the step itself can tell, and it has not run.
    NotYet,
}

/// Why a binding has no value.
#[derive(Debug)]
pub(crate) enum Unresolved {
    /// The output of this step is not known yet.
    NotYet(StepName),
    /// It never will have one.
    Never(ActivityError),
}

/// A skipped step has no output, nor has one that failed and was tolerated; what refers to it gets null.
fn output<'a>(state: &'a RunState, step: &StepName) -> Known<'a> {
    let done = state.step(step).filter(|s| matches!(s.status, StepStatus::Succeeded | StepStatus::Adopted));
    done.and_then(|s| s.output.as_deref()).map_or(Known::Nothing, Known::Output)
}

/// Resolves a binding.
///
/// # Errors
/// A terminal error when a pointer leads nowhere or a function is missing or refuses.
pub fn resolve(
    state: &RunState,
    functions: &FunctionRegistry,
    binding: &Binding,
) -> Result<Value, ActivityError> {
    let known = |step: &StepName| output(state, step);
    resolve_from(&state.input, &known, functions, binding).map_err(|unresolved| match unresolved {
        Unresolved::Never(error) => error,
        Unresolved::NotYet(_) => unreachable!("a run knows of every step whether it gave something"),
    })
}

/// Resolves a binding from what is known of outputs.
pub(crate) fn resolve_from<'a>(
    input: &Value,
    known: &dyn Fn(&StepName) -> Known<'a>,
    functions: &FunctionRegistry,
    binding: &Binding,
) -> Result<Value, Unresolved> {
    let bad =
        |message: String| Unresolved::Never(ActivityError::terminal("InputUnresolved", message).no_effect());
    let inner = |binding: &Binding| resolve_from(input, known, functions, binding);
    Ok(match binding {
        Binding::Literal { value } => value.clone(),
        Binding::Input { pointer } => input
            .pointer(pointer)
            .cloned()
            .ok_or_else(|| bad(format!("the run's input has nothing at {pointer:?}")))?,
        Binding::Output { step, pointer } => match known(step) {
            Known::Nothing => Value::Null,
            Known::NotYet => return Err(Unresolved::NotYet(step.clone())),
            Known::Output(output) => output
                .pointer(pointer)
                .cloned()
                .ok_or_else(|| bad(format!("the output of step {step} has nothing at {pointer:?}")))?,
        },
        Binding::Function { name, argument } => {
            let argument = inner(argument)?;
            let function = functions
                .by_name
                .get(name)
                .ok_or_else(|| bad(format!("function {name} was not given to the engine")))?;
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| function(&argument)))
                .unwrap_or_else(|_| Err("it panicked".to_owned()))
                .map_err(|e| bad(format!("function {name}: {e}")))?
        }
        Binding::Object { fields } => {
            let mut object = serde_json::Map::new();
            for (key, field) in fields {
                object.insert(key.clone(), inner(field)?);
            }
            Value::Object(object)
        }
        Binding::List { items } => Value::Array(items.iter().map(inner).collect::<Result<_, _>>()?),
    })
}
