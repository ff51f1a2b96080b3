//! Names and identifiers: runs, steps, activities, stores, tokens.
//!
//! Every name is checked when it is made, so that code further in never has to. Nothing here draws randomness
//! except [`RunId::generate`], [`StoreId::generate`] and [`WorkerId::generate`], which take the random bits from the
//! caller.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::time::Timestamp;

/// Longest run id, in bytes. It is part of store keys, which are capped at 256 bytes.
pub const MAX_RUN_ID_LEN: usize = 80;
/// Longest step, activity, workflow, lock or site name, in bytes.
pub const MAX_NAME_LEN: usize = 120;

/// Longest schedule id, in bytes: the ids of its runs are made of it and of an instant.
pub const MAX_SCHEDULE_ID_LEN: usize = 48;

/// A name that is not allowed, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {name:?} is not allowed: {why}")]
pub struct InvalidName {
    /// What the name was meant for, as "run id" or "step name".
    pub what: &'static str,
    /// The name as given.
    pub name: String,
    /// The rule it breaks.
    pub why: String,
}

fn check_name(what: &'static str, name: &str, max: usize) -> Result<(), InvalidName> {
    let refuse = |why: String| Err(InvalidName { what, name: name.chars().take(200).collect(), why });
    if name.is_empty() {
        return refuse("it is empty".to_owned());
    }
    if name.len() > max {
        return refuse(format!("it has {} bytes, at most {max} are allowed", name.len()));
    }
    if !name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()) {
        return refuse("it must start with a lower-case letter or a digit".to_owned());
    }
    match name.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || "._-:/[]".contains(*c))) {
        Some(c) => refuse(format!("{c:?} is not one of a-z 0-9 . _ - : / [ ]")),
        None => Ok(()),
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks and wraps a name.
            ///
            /// # Errors
            /// [`InvalidName`] when it is empty, too long or has a character outside `a-z 0-9 . _ - : / [ ]`.
            pub fn new(name: impl Into<String>) -> Result<Self, InvalidName> {
                let name = name.into();
                check_name($what, &name, $max)?;
                Ok(Self(name))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(name: &str) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(name: String) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type!(
    /// One execution of a workflow. Chosen by the caller, or generated so that later runs sort later.
    RunId, "run id", MAX_RUN_ID_LEN
);
name_type!(
    /// A step of a graph, unique in it.
    StepName, "step name", MAX_NAME_LEN
);
name_type!(
    /// The code a step names.
    ActivityName, "activity name", MAX_NAME_LEN
);
name_type!(
    /// A workflow definition.
    WorkflowName, "workflow name", MAX_NAME_LEN
);
name_type!(
    /// A lock that steps of all runs of a store share.
    LockName, "lock name", MAX_NAME_LEN
);
name_type!(
    /// A schedule.
    ScheduleId, "schedule id", MAX_SCHEDULE_ID_LEN
);

/// Crockford's base 32, lower case: no i, l, o, u.
const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl RunId {
    /// Makes an id of 16 characters from the time (48 bits of milliseconds, first, so that ids sort by age) and
    /// 32 random bits.
    pub fn generate(now: Timestamp, random: u32) -> Self {
        let value = (u128::from(now.as_millis() & 0xffff_ffff_ffff) << 32) | u128::from(random);
        let mut text = String::with_capacity(16);
        for i in (0..16).rev() {
            let digit = usize::try_from((value >> (i * 5)) & 31).expect("five bits fit");
            text.push(char::from(BASE32[digit]));
        }
        Self(text)
    }
}

/// Identifies one store for ever; part of every ownership mark and token.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StoreId(String);

impl StoreId {
    /// Makes an id of 32 hex characters from 16 random bytes.
    pub fn generate(random: [u8; 16]) -> Self {
        Self(hex::encode(random))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One engine instance that works on a store with others. Random, made when the engine is built, so that a process
/// that starts again is another worker.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkerId(String);

impl WorkerId {
    /// Makes an id of 32 hex characters from 16 random bytes.
    pub fn generate(random: [u8; 16]) -> Self {
        Self(hex::encode(random))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An idempotency token: 64 hex characters, which fits EC2's limit of 64 and Athena's of 32 to 128.
///
/// It is the SHA-256 over the length-prefixed parts (store, run, step, generation, label), so it is the same in
/// every attempt of a generation and differs in everything else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Token(String);

impl Token {
    /// Derives the token for one call of one generation of a step.
    pub fn derive(store: &StoreId, run: &RunId, step: &StepName, generation: u32, label: &str) -> Self {
        let mut hash = Sha256::new();
        for part in [
            store.as_str().as_bytes(),
            run.as_str().as_bytes(),
            step.as_str().as_bytes(),
            &generation.to_be_bytes(),
            label.as_bytes(),
        ] {
            hash.update(u64::try_from(part.len()).expect("a length fits 64 bits").to_be_bytes());
            hash.update(part);
        }
        Self(hex::encode(hash.finalize()))
    }

    /// The token as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert!(RunId::new("bootstrap-lab").is_ok());
        for bad in ["", "Upper", "-x", "a b", "a\n", &"x".repeat(81)] {
            assert!(RunId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn generated_ids_sort_by_time() {
        let a = RunId::generate(Timestamp::from_millis(1_000), u32::MAX);
        let b = RunId::generate(Timestamp::from_millis(1_001), 0);
        assert!(a < b);
        assert_eq!(a.as_str().len(), 16);
        assert!(RunId::new(a.as_str()).is_ok());
    }

    #[test]
    fn a_worker_is_told_by_its_random_bytes() {
        let worker = WorkerId::generate([0xab; 16]);
        assert_eq!(worker.to_string(), "ab".repeat(16));
        assert_ne!(worker, WorkerId::generate([0xac; 16]));
        let text = serde_json::to_string(&worker).unwrap();
        assert_eq!(serde_json::from_str::<WorkerId>(&text).unwrap(), worker);
    }

    #[test]
    fn tokens_differ_in_every_part_and_only_there() {
        let store = StoreId::generate([1; 16]);
        let run = RunId::new("r").unwrap();
        let (a, b) = (StepName::new("a").unwrap(), StepName::new("b").unwrap());
        let token = Token::derive(&store, &run, &a, 1, "create");
        assert_eq!(token, Token::derive(&store, &run, &a, 1, "create"));
        assert_eq!(token.as_str().len(), 64);
        assert_ne!(token, Token::derive(&store, &run, &a, 2, "create"));
        assert_ne!(token, Token::derive(&store, &run, &b, 1, "create"));
        assert_ne!(token, Token::derive(&store, &run, &a, 1, "delete"));
    }
}
