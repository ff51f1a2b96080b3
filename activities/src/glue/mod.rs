//! Brings the Glue Data Catalog to what DSS says of its datasets on S3: lists, compares, mends, reports.
//!
//! The comparison is pure: [`desired`] makes a table of a dataset's settings ([`types`], [`mod@format`], [`pattern`]),
//! [`table`] compares it with Glue's and says how Glue's should be, [`partitions`] does the same for partitions, [`whose`]
//! tells whom a table belongs to, [`report`] counts. Around it stand the activities: [`inventory`] lists datasets and
//! tables and cuts the work into pages, [`page`] compares or mends one page, [`prune`] deletes what is proven to be left
//! over, [`outcome`] adds it all up.
//!
//! Nothing here is a run's own: the catalogue follows DSS, so there is nothing to take back
//! ([`Activity::OWNS`](dssflow_engine::activity::Activity::OWNS)). Foreign tables are never touched, and files in S3 are
//! only listed. Memory is bounded by the page, not by the catalogue.

mod batches;
mod calls;
mod instance;
mod mend;

pub mod desired;
pub mod format;
pub mod inventory;
pub mod outcome;
pub mod page;
pub mod partitions;
pub mod pattern;
pub mod prune;
pub mod report;
pub mod table;
pub mod types;
pub mod whose;

use std::collections::BTreeMap;

use dssflow_engine::activity::{ActivityRegistry, RegistryError};
use serde::{Deserialize, Serialize};

pub use types::Types;
pub use whose::DssMarks;

/// Who mends tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// DSS, by its own "synchronize" action; what it did is checked in Glue.
    #[default]
    Dss,
    /// dssflow, by calls to Glue.
    Direct,
}

/// Which datasets are to have tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Include {
    /// Those that DSS is to keep in the metastore.
    #[default]
    Synced,
    /// All on S3, also those whose synchronisation is off in DSS. For `mode: direct`.
    All,
}

/// How tables are compared and mended; the same for all pages of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// Who mends.
    pub mode: Mode,
    /// Which datasets.
    pub include: Include,
    /// Compare partitions with S3.
    pub partitions: bool,
    /// Delete what is proven to be left over.
    pub prune: bool,
    /// Types for storage types of DSS, in place of the usual ones.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub types: Types,
    /// Parameters by which tables of DSS are known.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dss_marks: DssMarks,
    /// Tables, as `database.table` with `*`, that belong to the dataset of their name although nothing proves it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub adopt: Vec<String>,
}

/// Registers the activities of this module.
///
/// # Errors
/// When a name is taken.
pub fn register(registry: &mut ActivityRegistry) -> Result<(), RegistryError> {
    registry.add(inventory::NAME, inventory::Inventory)?;
    registry.add(page::COMPARE, page::Compare)?;
    registry.add(page::SYNC, page::Sync)?;
    registry.add(page::SYNC_DIRECT, page::Sync)?;
    registry.add(prune::NAME, prune::Prune)?;
    registry.add(outcome::REPORT, outcome::MakeReport)?;
    registry.add(outcome::VERDICT, outcome::Verdict)
}
