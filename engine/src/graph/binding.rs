//! Where inputs and conditions come from: values, outputs of earlier steps, the run's input, named functions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::GraphError;
use crate::id::StepName;

/// Where a step's input comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "from")]
pub enum Binding {
    /// A value known when the graph is built.
    Literal {
        /// The value.
        value: Value,
    },
    /// A part of an earlier step's output.
    Output {
        /// The step.
        step: StepName,
        /// JSON pointer into its output; empty for all of it.
        #[serde(default)]
        pointer: String,
    },
    /// A part of the run's own input.
    Input {
        /// JSON pointer; empty for all of it.
        #[serde(default)]
        pointer: String,
    },
    /// The result of a registered function on other bindings. It must be pure: it is asked for each attempt, and a
    /// result that differs counts as a new input.
    Function {
        /// Its name.
        name: String,
        /// What it is given.
        argument: Box<Binding>,
    },
    /// An object of bindings.
    Object {
        /// By key.
        fields: BTreeMap<String, Binding>,
    },
    /// A list of bindings.
    List {
        /// In order.
        items: Vec<Binding>,
    },
}

impl Binding {
    /// A value known when the graph is built.
    ///
    /// # Panics
    /// When `value` cannot be written as JSON (a map with keys that are no strings).
    pub fn literal(value: impl Serialize) -> Self {
        Self::Literal { value: serde_json::to_value(value).expect("a literal is plain data") }
    }

    /// A part of an earlier step's output; an empty pointer means all of it.
    pub fn output(step: &StepName, pointer: impl Into<String>) -> Self {
        Self::Output { step: step.clone(), pointer: pointer.into() }
    }

    /// Turns a JSON value into bindings, replacing every object of the form `{"$output": "step", "pointer": "/x"}`
    /// by a reference to that output. The form in which typed inputs carry references.
    ///
    /// # Errors
    /// When a reference names a step that is no valid name.
    pub fn from_template(value: Value) -> Result<Self, GraphError> {
        Ok(match value {
            Value::Object(map) if map.contains_key("$output") => {
                let step = map["$output"].as_str().unwrap_or_default().to_owned();
                let step = StepName::new(step).map_err(|e| GraphError::Name(e.to_string()))?;
                let pointer = map.get("pointer").and_then(Value::as_str).unwrap_or_default().to_owned();
                Self::Output { step, pointer }
            }
            Value::Object(map) => {
                let mut fields = BTreeMap::new();
                let mut literal = true;
                for (key, value) in map {
                    let field = Self::from_template(value)?;
                    literal &= matches!(field, Self::Literal { .. });
                    fields.insert(key, field);
                }
                if literal {
                    Self::Literal { value: literal_object(fields) }
                } else {
                    Self::Object { fields }
                }
            }
            Value::Array(list) => {
                let items: Vec<_> = list.into_iter().map(Self::from_template).collect::<Result<_, _>>()?;
                if items.iter().all(|i| matches!(i, Self::Literal { .. })) {
                    Self::Literal {
                        value: Value::Array(items.into_iter().filter_map(Self::into_literal).collect()),
                    }
                } else {
                    Self::List { items }
                }
            }
            value => Self::Literal { value },
        })
    }

    fn into_literal(self) -> Option<Value> {
        match self {
            Self::Literal { value } => Some(value),
            Self::Output { .. }
            | Self::Input { .. }
            | Self::Function { .. }
            | Self::Object { .. }
            | Self::List { .. } => None,
        }
    }

    /// Calls `visit` with every step whose output is referred to.
    pub(crate) fn outputs<'a>(&'a self, visit: &mut dyn FnMut(&'a StepName)) {
        match self {
            Self::Literal { .. } | Self::Input { .. } => {}
            Self::Output { step, .. } => visit(step),
            Self::Function { argument, .. } => argument.outputs(visit),
            Self::Object { fields } => fields.values().for_each(|b| b.outputs(visit)),
            Self::List { items } => items.iter().for_each(|b| b.outputs(visit)),
        }
    }

    /// Calls `visit` with every value that is written out.
    pub(super) fn literals<'a>(&'a self, visit: &mut dyn FnMut(&'a Value)) {
        match self {
            Self::Literal { value } => visit(value),
            Self::Input { .. } | Self::Output { .. } => {}
            Self::Function { argument, .. } => argument.literals(visit),
            Self::Object { fields } => fields.values().for_each(|b| b.literals(visit)),
            Self::List { items } => items.iter().for_each(|b| b.literals(visit)),
        }
    }

    /// Calls `visit` with every function that is named.
    pub fn functions<'a>(&'a self, visit: &mut dyn FnMut(&'a str)) {
        match self {
            Self::Literal { .. } | Self::Input { .. } | Self::Output { .. } => {}
            Self::Function { name, argument } => {
                visit(name);
                argument.functions(visit);
            }
            Self::Object { fields } => fields.values().for_each(|b| b.functions(visit)),
            Self::List { items } => items.iter().for_each(|b| b.functions(visit)),
        }
    }
}

fn literal_object(fields: BTreeMap<String, Binding>) -> Value {
    Value::Object(fields.into_iter().filter_map(|(k, b)| b.into_literal().map(|v| (k, v))).collect())
}

/// A typed reference to an earlier step's output, for building inputs: serialises as the template form of
/// [`Binding::from_template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputRef {
    /// The step.
    pub step: StepName,
    /// JSON pointer into its output.
    pub pointer: String,
}

impl OutputRef {
    /// The template form.
    pub fn to_value(&self) -> Value {
        serde_json::json!({ "$output": self.step.as_str(), "pointer": self.pointer })
    }
}

/// What counts as true in a condition.
pub fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty(),
    }
}
