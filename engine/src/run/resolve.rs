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

/// A skipped step has no output, nor has one that failed and was tolerated; what refers to it gets null.
fn output<'a>(state: &'a RunState, step: &StepName) -> Option<&'a Value> {
    let s = state.step(step)?;
    s.output.as_deref().filter(|_| matches!(s.status, StepStatus::Succeeded | StepStatus::Adopted))
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
    let bad = |message: String| ActivityError::terminal("InputUnresolved", message).no_effect();
    Ok(match binding {
        Binding::Literal { value } => value.clone(),
        Binding::Input { pointer } => state
            .input
            .pointer(pointer)
            .cloned()
            .ok_or_else(|| bad(format!("the run's input has nothing at {pointer:?}")))?,
        Binding::Output { step, pointer } => match output(state, step) {
            None => Value::Null,
            Some(output) => output
                .pointer(pointer)
                .cloned()
                .ok_or_else(|| bad(format!("the output of step {step} has nothing at {pointer:?}")))?,
        },
        Binding::Function { name, argument } => {
            let argument = resolve(state, functions, argument)?;
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
                object.insert(key.clone(), resolve(state, functions, field)?);
            }
            Value::Object(object)
        }
        Binding::List { items } => {
            Value::Array(items.iter().map(|i| resolve(state, functions, i)).collect::<Result<_, _>>()?)
        }
    })
}
