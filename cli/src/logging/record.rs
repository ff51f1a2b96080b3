//! One line of a log, as text for people or as JSON for programs. Control characters never reach a terminal: what comes
//! from AWS or DSS may hold any.

use std::fmt;

use dssflow_engine::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tracing::Level;
use tracing::field::{Field, Visit};

use crate::ui::{guard, one_line};

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Text { colours: bool },
    Json,
}

/// What something was said about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Ids {
    /// The run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) run: Option<String>,
    /// The step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) step: Option<String>,
    /// The attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) attempt: Option<u64>,
}

impl Ids {
    /// Those of a span further in win.
    pub(super) fn take(&mut self, inner: &Self) {
        for (mine, theirs) in [(&mut self.run, &inner.run), (&mut self.step, &inner.step)] {
            if theirs.is_some() {
                mine.clone_from(theirs);
            }
        }
        self.attempt = inner.attempt.or(self.attempt);
    }
}

impl Visit for Ids {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "run" => self.run = Some(value.to_owned()),
            "step" => self.step = Some(value.to_owned()),
            _ => {}
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "attempt" {
            self.attempt = Some(value);
        }
    }
}

/// One line of a log. The fields of this form are only added to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "LogLine")]
pub(crate) struct Record {
    /// When, in RFC 3339 and UTC.
    pub(crate) at: String,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub(crate) level: String,
    /// Which part of the program.
    pub(crate) target: String,
    /// What about.
    #[serde(flatten)]
    pub(crate) ids: Ids,
    /// What happened.
    pub(crate) message: String,
    /// Details.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub(crate) fields: Map<String, Value>,
}

impl Record {
    pub(super) fn new(
        at: Timestamp,
        level: Level,
        target: &str,
        mut ids: Ids,
        message: String,
        mut fields: Map<String, Value>,
    ) -> Self {
        // What names a run itself is about that run.
        if ids.run.is_none()
            && let Some(Value::String(run)) = fields.get("run")
        {
            ids.run = Some(run.clone());
            fields.remove("run");
        }
        Self {
            at: at.to_string(),
            level: level.as_str().to_lowercase(),
            target: target.to_owned(),
            ids,
            message,
            fields,
        }
    }

    /// The line, without an end.
    pub(super) fn line(&self, form: Form) -> String {
        match form {
            Form::Text { colours } => self.text(colours),
            // What an escape stands for is the same to whoever reads JSON.
            Form::Json => guard(&self.json(), false).into_owned(),
        }
    }

    /// As a program reads it.
    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("a line is plain data")
    }

    /// For people, safe on a terminal.
    pub(crate) fn text(&self, colours: bool) -> String {
        let level = format!("{:>5}", self.level.to_uppercase());
        let level = match (colours, self.level.as_str()) {
            (true, "error") => format!("\x1b[31m{level}\x1b[0m"),
            (true, "warn") => format!("\x1b[33m{level}\x1b[0m"),
            (true, "debug" | "trace") => format!("\x1b[2m{level}\x1b[0m"),
            _ => level,
        };
        let mut text = format!("{} {level} {}", one_line(&self.at), one_line(&self.target));
        for (name, id) in [("run", &self.ids.run), ("step", &self.ids.step)] {
            if let Some(id) = id {
                put!(text, " {name}={}", one_line(id));
            }
        }
        if let Some(attempt) = self.ids.attempt {
            put!(text, " attempt={attempt}");
        }
        put!(text, ": {}", one_line(&self.message));
        for (name, value) in &self.fields {
            match value {
                Value::String(value) if !value.is_empty() && !value.contains([' ', '"', '=', '\n']) => {
                    put!(text, " {name}={}", one_line(value));
                }
                value => put!(text, " {name}={}", one_line(&value.to_string())),
            }
        }
        text
    }
}
