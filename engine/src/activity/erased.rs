//! An activity without its types: the form under which the engine calls it, values in and values out.

use std::sync::OnceLock;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Activity, ActivityContext, ActivityError, ActivityResult, Effect, Probe, Recorded, Undo};
use crate::shape::{ShapeHash, shape_of};
use crate::time::BoxFuture;

/// The type-erased form under which the engine calls an activity. Made by registering an [`Activity`].
pub trait ErasedActivity: Send + Sync {
    /// See [`Activity::effect`].
    fn effect(&self) -> Effect;
    /// See [`Activity::HAS_PROBE`].
    fn has_probe(&self) -> bool;
    /// See [`Activity::OWNS`].
    fn owns(&self) -> bool {
        true
    }
    /// See [`Activity::execute`].
    fn execute<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<Value>>;
    /// See [`Activity::probe`].
    fn probe<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<Probe<Value>>>;
    /// See [`Activity::verify`].
    fn verify<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
        output: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<()>>;
    /// See [`Activity::compensate`].
    fn compensate<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
        recorded: &'a Recorded,
    ) -> BoxFuture<'a, ActivityResult<Undo>>;
    /// See [`Activity::describe`]; empty when the input does not fit.
    fn describe(&self, input: &Value) -> String;
    /// See [`Activity::settle`].
    fn settle(&self) -> Duration;
    /// See [`Activity::poll_interval`].
    fn poll_interval(&self) -> Duration;
    /// Whether `input` can be read as the activity's input type.
    ///
    /// # Errors
    /// What does not fit.
    fn check_input(&self, input: &Value) -> Result<(), String>;
    /// Whether `output` can be read as the activity's output type.
    ///
    /// # Errors
    /// What does not fit.
    fn check_output(&self, output: &Value) -> Result<(), String>;
    /// The shapes of the input and output types. Found out at the first call, by running their `Deserialize` code.
    fn shapes(&self) -> Shapes;
}

/// What an activity's types look like, to see whether they changed; see [`crate::shape`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Shapes {
    /// Of [`Activity::Input`].
    pub input: ShapeHash,
    /// Of [`Activity::Output`].
    pub output: ShapeHash,
}

pub(super) struct Erased<A> {
    activity: A,
    shapes: OnceLock<Shapes>,
}

impl<A> Erased<A> {
    pub(super) fn new(activity: A) -> Self {
        Self { activity, shapes: OnceLock::new() }
    }
}

pub(super) fn read_input<T: DeserializeOwned>(input: &Value) -> ActivityResult<T> {
    serde_json::from_value(input.clone()).map_err(|e| {
        let error = ActivityError::terminal(
            "InputMismatch",
            format!("the stored input does not fit the activity: {e}"),
        )
        .no_effect();
        let has_null = input.is_null() || input.as_array().is_some_and(|list| list.contains(&Value::Null));
        if has_null {
            error.help("a step that was skipped gives null: hand on its `optional()`, and take an `Option`")
        } else {
            error
        }
    })
}

/// Reads back what the activity itself gave.
fn read_output<T: DeserializeOwned>(output: &Value) -> ActivityResult<T> {
    serde_json::from_value(output.clone()).map_err(|e| {
        ActivityError::terminal(
            "OutputMismatch",
            format!("the output cannot be read back from its JSON: {e}"),
        )
    })
}

pub(super) fn write_output<T: Serialize>(output: &T) -> ActivityResult<Value> {
    serde_json::to_value(output).map_err(|e| {
        ActivityError::terminal("OutputMismatch", format!("the output cannot be written as JSON: {e}"))
    })
}

impl<A: Activity> ErasedActivity for Erased<A> {
    fn effect(&self) -> Effect {
        self.activity.effect()
    }

    fn has_probe(&self) -> bool {
        A::HAS_PROBE
    }

    fn owns(&self) -> bool {
        A::OWNS
    }

    fn execute<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<Value>> {
        Box::pin(async move {
            let input: A::Input = read_input(input)?;
            write_output(&self.activity.execute(ctx, &input).await?)
        })
    }

    fn probe<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<Probe<Value>>> {
        Box::pin(async move {
            let input: A::Input = read_input(input)?;
            Ok(match self.activity.probe(ctx, &input).await? {
                Probe::Absent => Probe::Absent,
                Probe::Present { output, owner } => Probe::Present { output: write_output(&output)?, owner },
                Probe::InProgress { detail } => Probe::InProgress { detail },
                Probe::Failed { owner, detail } => Probe::Failed { owner, detail },
            })
        })
    }

    fn verify<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
        output: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<()>> {
        Box::pin(async move {
            let input: A::Input = read_input(input)?;
            let output: A::Output = read_output(output)?;
            self.activity.verify(ctx, &input, &output).await
        })
    }

    fn compensate<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
        recorded: &'a Recorded,
    ) -> BoxFuture<'a, ActivityResult<Undo>> {
        Box::pin(async move {
            let input: A::Input = read_input(input)?;
            self.activity.compensate(ctx, &input, recorded).await
        })
    }

    fn describe(&self, input: &Value) -> String {
        serde_json::from_value(input.clone()).map(|input| self.activity.describe(&input)).unwrap_or_default()
    }

    fn settle(&self) -> Duration {
        self.activity.settle()
    }

    fn poll_interval(&self) -> Duration {
        self.activity.poll_interval()
    }

    fn check_input(&self, input: &Value) -> Result<(), String> {
        serde_json::from_value::<A::Input>(input.clone()).map(drop).map_err(|e| e.to_string())
    }

    fn check_output(&self, output: &Value) -> Result<(), String> {
        serde_json::from_value::<A::Output>(output.clone()).map(drop).map_err(|e| e.to_string())
    }

    fn shapes(&self) -> Shapes {
        let find = || Shapes { input: shape_of::<A::Input>().hash(), output: shape_of::<A::Output>().hash() };
        self.shapes.get_or_init(find).clone()
    }
}
