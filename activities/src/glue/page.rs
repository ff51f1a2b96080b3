//! One page of datasets: each compared with its table, and mended when that is wanted.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;

use dssflow_engine::activity::{Activity, ActivityContext, ActivityResult, Effect};
use serde::{Deserialize, Serialize};

use super::Rules;
use super::desired::ConnectionPlace;
use super::mend::{Mender, Outcome};
use super::report::{Finding, Findings, Kind, PAGE_BYTES};
use crate::clients::AwsClients;
use crate::dss::client::DssTarget;

/// The registered name of the activity that only compares.
pub const COMPARE: &str = "glue.compare";
/// The registered name of the activity that lets DSS mend.
pub const SYNC: &str = "glue.sync";
/// The registered name of the same where dssflow mends itself: it asks for other rights.
pub const SYNC_DIRECT: &str = "glue.sync-direct";
/// How many tables of a page are offered for a query that proves that they can be read.
const VERIFY: usize = 5;

/// A dataset and the table it names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its Glue database.
    pub database: String,
    /// Its table.
    pub table: String,
    /// As `PROJECT.name`.
    pub dataset: String,
}

/// What the activities take: an item of the map over pages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageInput {
    /// Which DSS.
    pub target: DssTarget,
    /// How tables are compared and mended.
    pub rules: Rules,
    /// The connections of the page's datasets.
    pub connections: BTreeMap<String, ConnectionPlace>,
    /// The datasets.
    pub datasets: Vec<Entry>,
}

/// What they give.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PageOutput {
    /// What was found.
    #[serde(flatten)]
    pub found: Findings,
    /// Tables that a query may prove to be readable, each with its database before it: the mended ones first.
    #[serde(default)]
    pub verify: Vec<(String, String)>,
}

/// What a heartbeat says: for people, and for the attempt that comes after a crash.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Beat {
    /// Datasets that are done.
    done: usize,
    /// All of them.
    of: usize,
    /// The table that is looked at.
    table: String,
    /// How many of its partitions were looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partitions: Option<u64>,
    /// The datasets, by number, that this attempt or one before it has mended: found equal, they count as mended.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    mended: BTreeMap<usize, Kind>,
}

/// The part of a heartbeat that changes between two datasets.
struct Pulse<'a> {
    ctx: &'a ActivityContext,
    beat: Mutex<Beat>,
}

impl Pulse<'_> {
    fn change(&self, change: impl FnOnce(&mut Beat)) {
        let mut beat = self.beat.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut beat);
        self.ctx.heartbeat(&*beat);
    }
}

async fn work(ctx: &ActivityContext, input: &PageInput, apply: bool) -> ActivityResult<PageOutput> {
    let aws = AwsClients::of(ctx)?;
    let before = ctx.last_heartbeat::<Beat>().map(|beat| beat.mended).unwrap_or_default();
    let first = Beat { of: input.datasets.len(), mended: before.clone(), ..Beat::default() };
    let pulse = Pulse { ctx, beat: Mutex::new(first) };
    let progress = |looked: u64| pulse.change(|beat| beat.partitions = Some(looked));
    let mut mender =
        Mender::connect(ctx, &aws, &input.target, &input.rules, &input.connections, apply, &progress).await?;
    let mut output = PageOutput::default();
    let mut equal = Vec::new();
    for (number, entry) in input.datasets.iter().enumerate() {
        let table = format!("{}.{}", entry.database, entry.table);
        pulse.change(|beat| {
            (beat.done, beat.partitions) = (number, None);
            beat.table.clone_from(&table);
        });
        if ctx.is_cancelled() {
            return Err(dssflow_engine::activity::ActivityError::cancelled());
        }
        let outcome = mender.look_at(entry).await?;
        output.found.totals.datasets += 1;
        let pair = || (entry.database.clone(), entry.table.clone());
        match (outcome, before.get(&number)) {
            (Outcome::Equal(counts), Some(kind)) => {
                let mut finding = Finding::new(*kind, table, &entry.dataset)
                    .because(["mended by an earlier attempt of this page".to_owned()]);
                finding.mended = true;
                finding.partitions = counts;
                output.verify.push(pair());
                output.found.push(finding);
            }
            (Outcome::Equal(counts), None) => {
                output.found.totals.equal += 1;
                let all = &mut output.found.totals.partitions;
                *all = all.plus(counts.unwrap_or_default());
                if equal.len() < VERIFY {
                    equal.push(pair());
                }
            }
            (Outcome::Found(finding), _) => {
                let all = &mut output.found.totals.partitions;
                *all = all.plus(finding.partitions.unwrap_or_default());
                if finding.mended {
                    pulse.change(|beat| {
                        beat.mended.insert(number, finding.kind);
                    });
                    output.verify.push(pair());
                }
                output.found.push(finding);
            }
        }
    }
    output.verify.extend(equal);
    output.verify.truncate(VERIFY);
    output.found = output.found.within(PAGE_BYTES, usize::MAX);
    Ok(output)
}

fn describe(input: &PageInput, verb: &str) -> String {
    let count = input.datasets.len();
    let plural = if count == 1 { "" } else { "s" };
    match input.datasets.first() {
        Some(first) => format!("{verb} {count} table{plural} from {}.{}", first.database, first.table),
        None => format!("{verb} no table"),
    }
}

/// Compares a page of datasets with Glue.
///
/// # Idempotency
/// Reads only.
///
/// # Compensation
/// None.
///
/// Page: <https://docs.aws.amazon.com/glue/latest/webapi/API_GetTable.html>
pub(crate) struct Compare;

impl Activity for Compare {
    type Input = PageInput;
    type Output = PageOutput;

    fn effect(&self) -> Effect {
        Effect::Read
    }

    async fn execute(&self, ctx: &ActivityContext, input: &PageInput) -> ActivityResult<PageOutput> {
        work(ctx, input, false).await
    }

    fn describe(&self, input: &PageInput) -> String {
        describe(input, "compare")
    }
}

/// Compares a page of datasets with Glue, and makes Glue equal.
///
/// # Idempotency
/// Every table is read, compared and only then changed, in the version that was read; what is as it should be is left
/// alone. So a repetition goes on where the last attempt ended.
///
/// # Compensation
/// None: the catalogue follows DSS, and is nobody's to put back.
///
/// Page: <https://docs.aws.amazon.com/glue/latest/webapi/API_UpdateTable.html>
pub(crate) struct Sync;

impl Activity for Sync {
    type Input = PageInput;
    type Output = PageOutput;
    const OWNS: bool = false;

    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    async fn execute(&self, ctx: &ActivityContext, input: &PageInput) -> ActivityResult<PageOutput> {
        work(ctx, input, true).await
    }

    fn describe(&self, input: &PageInput) -> String {
        describe(input, "bring into line")
    }
}
