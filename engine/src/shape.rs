//! The shape of a Rust type as serde sees it, with a fingerprint: did a type change since its values were stored?
//!
//! [`shape_of`] reads a type without a value. It hands the type a deserializer that notes what is asked of it (a
//! struct with these fields, a list, a number of this width) and answers with examples, again and again, until every
//! field and every variant was seen. No derive and no bound beyond `DeserializeOwned` is needed.
//!
//! The text: `Order{id:str,items:[Item{sku:str,n:u32}]}`. A list is `[x]`, a map `{key=>value}`, an optional value
//! `Option<x>`, a tuple `(x,y)`, a newtype `Name(x)`, an enum `Name<One|Two(x)|Three{a:x}>`, a type inside itself
//! `^Name`. A value that may take several forms has them all, `x|y`. A `?` follows what was asked for by code that
//! refused every example, as a checked name may; `_` is what was not reached because of that; `..` is nested too deep.
//!
//! What a change of the hash tells: a field or variant was renamed, added or removed; a field has another type; a
//! type has another name. The order of fields and of variants does not count in the hash, for JSON does not know it.
//!
//! What it does not tell:
//! - whether a field may be left out (`serde(default)`, aliases): serde does not say so before a value is there. An
//!   added field changes the hash whether or not old values can still be read;
//! - what a value means, as a length that is in metres now, and what code of its own accepts (a stricter check);
//! - what is inside `any`: untagged and internally tagged enums, structs with a flattened field and
//!   `serde_json::Value` take whatever comes and sort it out themselves. Of adjacently tagged enums every content is
//!   looked at once: which tag it belongs to is not told, and enums inside may be left at `_`;
//! - how a value is written: only reading is looked at, so `skip_serializing_if` and the like do not count;
//! - what only examples of another kind would reach: code that reads a different form after a look at the value, and
//!   what follows a refused example in a tuple.
//!
//! The work is bounded, by depth and by steps: a type beyond the bounds has a shape that is cut off, always alike.

mod explorer;
mod tree;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::explorer::Explorer;
use self::tree::Order;

/// How many times a type is read at most.
const MAX_READINGS: usize = 4096;
/// How many characters of the digest a [`ShapeHash`] has.
const HASH_LEN: usize = 16;

/// The fingerprint of a [`Shape`]: the first 16 hex digits of a SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct ShapeHash(String);

impl ShapeHash {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ShapeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a type looks like to serde.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    text: String,
    hash: ShapeHash,
}

impl Shape {
    /// For people: names, fields and types, in the order in which the type declares them.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// For machines: equal when the shapes are, whatever the order of fields and variants.
    pub fn hash(&self) -> ShapeHash {
        self.hash.clone()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Finds out the shape of `T`, by reading it from examples.
///
/// The type's own `Deserialize` code runs. Where it panics over an example, the shape is what was seen until then.
pub fn shape_of<T: DeserializeOwned>() -> Shape {
    let explorer = Explorer::default();
    for _ in 0..MAX_READINGS {
        let read = catch_unwind(AssertUnwindSafe(|| explorer.read::<T>()));
        if read.is_err() || explorer.is_done() {
            break;
        }
    }
    let tree = explorer.into_tree();
    let mut hash = hex::encode(Sha256::digest(tree.text(Order::ByName)));
    hash.truncate(HASH_LEN);
    Shape { text: tree.text(Order::AsDeclared), hash: ShapeHash(hash) }
}

#[cfg(test)]
mod tests;
