//! How Glue is brought into line with DSS.

use std::collections::BTreeMap;

use dssflow_activities::glue::{Include, Mode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::site::formats;

/// How the workflow `glue-resync` compares tables of Glue with datasets of DSS, and mends them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GlueResync {
    /// `dss`: DSS mends, by its own action "synchronize"; what it did is checked in Glue. `direct`: dssflow calls Glue.
    pub mode: Mode,
    /// `synced`: datasets whose synchronisation is on in DSS. `all`: all on S3; with `mode: direct`.
    pub include: Include,
    /// Names of S3 connections of DSS, with `*`; by default those of the site, in a file without any all of them.
    pub connections: Vec<String>,
    /// Datasets as `PROJECT.name`, with `*`; by default all.
    pub datasets: Vec<String>,
    /// The only Glue databases that are touched, with `*`; by default those that the datasets name.
    pub databases: Vec<String>,
    /// Compare partitions with the directories in S3.
    pub partitions: bool,
    /// Delete tables and partitions that are proven to be left over. Without it nothing is ever deleted.
    pub prune: bool,
    /// With more left-over tables than this, none is deleted.
    #[schemars(range(min = 0, max = 5000))]
    pub prune_at_most: u64,
    /// How many tables are worked on at once.
    #[schemars(range(min = 1, max = 32))]
    pub parallel: u32,
    /// How many tables make a step of the run.
    #[schemars(range(min = 1, max = 1000))]
    pub page_size: u32,
    /// Glue's type for storage types of DSS, where your DSS writes another than dssflow takes for right.
    pub types: BTreeMap<String, String>,
    /// Table parameters by which tables of your DSS are known, with their values; `{project}` and `{dataset}` stand for the
    /// dataset's. All of them must be there.
    pub dss_marks: BTreeMap<String, String>,
    /// Tables, as `database.table` with `*`, that belong to the dataset of their name although nothing proves it.
    pub adopt: Vec<String>,
    /// Query some of the tables afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify_athena: Option<VerifyAthena>,
    /// Change nothing, only report.
    pub dry_run: bool,
}

impl Default for GlueResync {
    fn default() -> Self {
        Self {
            mode: Mode::Dss,
            include: Include::Synced,
            connections: Vec::new(),
            datasets: Vec::new(),
            databases: Vec::new(),
            partitions: true,
            prune: false,
            prune_at_most: 50,
            parallel: 4,
            page_size: 50,
            types: BTreeMap::new(),
            dss_marks: BTreeMap::new(),
            adopt: Vec::new(),
            verify_athena: None,
            dry_run: false,
        }
    }
}

impl GlueResync {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A query of some tables, as the proof that they can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyAthena {
    /// The Athena workgroup.
    #[serde(default = "primary")]
    #[schemars(schema_with = "formats::plain")]
    pub workgroup: String,
    /// Where Athena writes results, as `s3://bucket/path/`; by default where the workgroup says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::s3_url")]
    pub output_location: Option<String>,
    /// How many tables, those that were mended first. Each query costs.
    #[serde(default = "some")]
    #[schemars(range(min = 1, max = 1000))]
    pub tables: u32,
}

fn primary() -> String {
    "primary".to_owned()
}

fn some() -> u32 {
    10
}
