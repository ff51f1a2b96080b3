//! What is known of a step's effect: what a probe found, what attempts recorded, how an undo ended.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Owner;

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "found")]
pub enum Probe<T> {
    /// Nothing is there, or (for an Update) the managed keys do not hold our values yet.
    Absent,
    /// It is there as wanted.
    Present {
        /// What `execute` would have returned.
        output: T,
        /// Whose it is.
        owner: Owner,
    },
    /// It is being made or removed right now; ask again later.
    InProgress {
        /// One line for people: the state the service reports.
        detail: String,
    },
    /// It is there and broken for good; `execute` of the next generation removes it first, if it is ours.
    Failed {
        /// Whose it is.
        owner: Owner,
        /// One line for people: what the service says of it.
        detail: String,
    },
}

/// How a compensation ended well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "undo")]
pub enum Undo {
    /// What the step made is gone, or the old values are back.
    Undone,
    /// There was nothing of ours to take back.
    NothingToDo,
    /// Left in place by rule; the reason is shown to people.
    Kept {
        /// Why, as "packages stay on an adopted host".
        reason: String,
    },
}

/// Something in the outside world that an attempt made, recorded durably the moment its id is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Resource {
    /// What it is, as `ec2:instance` or `glue:database`.
    pub kind: String,
    /// Its id or ARN.
    pub id: String,
    /// The generation of the step that made it.
    pub generation: u32,
}

/// What the ledger knows of a step when it is compensated: everything every generation recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// The output, if an attempt or a probe gave one.
    pub output: Option<Value>,
    /// Resources of every generation, in the order they were recorded.
    pub resources: Vec<Resource>,
    /// Old values of the managed keys of an Update, as given to [`ActivityContext::record_before`](super::ActivityContext::record_before).
    pub before: BTreeMap<String, Value>,
}

impl Recorded {
    /// Reads the output as a type; `None` when there is none or it does not fit.
    pub fn output_as<T: DeserializeOwned>(&self) -> Option<T> {
        self.output.as_ref().and_then(|v| serde_json::from_value(v.clone()).ok())
    }

    /// The ids recorded under `kind`, oldest first.
    pub fn ids<'a>(&'a self, kind: &'a str) -> impl DoubleEndedIterator<Item = &'a str> + 'a {
        self.resources.iter().filter(move |r| r.kind == kind).map(|r| r.id.as_str())
    }
}
