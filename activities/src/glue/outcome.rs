//! The end of a resync: one report of all pages, and the verdict by which the run succeeds or fails. Neither calls anything.

use dssflow_engine::activity::{Activity, ActivityContext, ActivityError, ActivityResult, Effect};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Mode;
use super::inventory::InventoryOutput;
use super::page::PageOutput;
use super::report::{Finding, Findings, Kind, REPORT_FINDINGS, Totals};

/// The registered name of the activity that adds up.
pub const REPORT: &str = "glue.report";
/// The registered name of the activity that judges.
pub const VERDICT: &str = "glue.verdict";
/// The most bytes of the findings of a report.
const REPORT_BYTES: usize = 256 * 1024;

/// What the activity [`REPORT`] takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportInput {
    /// Who mended.
    pub mode: Mode,
    /// Whether nothing was to be changed.
    pub dry_run: bool,
    /// What the inventory said, without its pages.
    pub inventory: Value,
    /// What each page said; null for one that failed.
    pub pages: Vec<Option<PageOutput>>,
    /// What became of tables without a dataset; null when they were left alone.
    #[serde(default)]
    pub pruned: Option<Findings>,
    /// At most so many tables are to be queried.
    #[serde(default)]
    pub queries: usize,
}

/// What a resync found and did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "ResyncReport")]
pub struct Report {
    /// Who mended.
    pub mode: Mode,
    /// Whether nothing was to be changed.
    pub dry_run: bool,
    /// The counts.
    pub totals: Totals,
    /// The findings, the gravest first; the outputs of the pages have all.
    pub findings: Vec<Finding>,
    /// How many are counted and not told here.
    pub left_out: u64,
    /// Datasets on S3 that are selected and whose synchronisation is off.
    pub not_synced: u64,
    /// Glue databases that were listed.
    pub databases: Vec<String>,
    /// Glue databases that datasets name and that are not there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_databases: Vec<String>,
    /// Tables in those databases that no dataset names and of which nothing is proven: they are left alone.
    pub unclaimed: u64,
    /// The first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unclaimed_examples: Vec<String>,
    /// Pages that could not be looked at.
    pub pages_failed: u64,
    /// Tables to be queried, as database and table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verify: Vec<(String, String)>,
}

/// The report of the run.
///
/// # Idempotency
/// Calls nothing.
///
/// # Compensation
/// None.
pub(crate) struct MakeReport;

impl Activity for MakeReport {
    type Input = ReportInput;
    type Output = Report;

    fn effect(&self) -> Effect {
        Effect::Read
    }

    async fn execute(&self, _: &ActivityContext, input: &ReportInput) -> ActivityResult<Report> {
        let inventory: InventoryOutput = serde_json::from_value(input.inventory.clone()).map_err(|e| {
            ActivityError::terminal("InputMismatch", format!("the inventory cannot be read: {e}")).no_effect()
        })?;
        Ok(report(input, &inventory))
    }

    fn describe(&self, _: &ReportInput) -> String {
        "report on all tables".to_owned()
    }
}

fn report(input: &ReportInput, inventory: &InventoryOutput) -> Report {
    let mut all = Findings::default();
    let mut take = |found: &Findings| {
        all.totals.add(&found.totals);
        all.findings.extend(found.findings.iter().cloned());
        all.left_out += found.left_out;
    };
    take(&inventory.found);
    input.pages.iter().flatten().for_each(|page| take(&page.found));
    if let Some(pruned) = &input.pruned {
        take(pruned);
    } else {
        let mut left = Findings::default();
        for removed in &inventory.removed {
            let name = format!("{}.{}", removed.database, removed.table);
            let why = "its dataset is gone: `prune: true` deletes such tables";
            left.push(Finding::new(Kind::Removed, name, &removed.dataset).because([why.to_owned()]));
        }
        take(&left);
    }
    all.totals.removed += inventory.removed_left;
    let all = all.within(REPORT_BYTES, REPORT_FINDINGS);
    let mut verify: Vec<(String, String)> = Vec::new();
    // One of each page first, so that they are spread over databases.
    for nth in 0..input.pages.iter().flatten().map(|page| page.verify.len()).max().unwrap_or_default() {
        verify.extend(input.pages.iter().flatten().filter_map(|page| page.verify.get(nth).cloned()));
    }
    verify.truncate(input.queries);
    Report {
        mode: input.mode,
        dry_run: input.dry_run,
        totals: all.totals,
        findings: all.findings,
        left_out: all.left_out,
        not_synced: inventory.not_synced,
        databases: inventory.databases.clone(),
        missing_databases: inventory.missing_databases.clone(),
        unclaimed: inventory.unclaimed,
        unclaimed_examples: inventory.unclaimed_examples.clone(),
        pages_failed: u64::try_from(input.pages.iter().filter(|page| page.is_none()).count())
            .unwrap_or(u64::MAX),
        verify,
    }
}

/// The most tables that an error names.
const NAMED: usize = 5;

/// What the activity [`VERDICT`] takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerdictInput {
    /// The counts.
    pub totals: Totals,
    /// Pages that could not be looked at.
    pub pages_failed: u64,
    /// What each query gave; null for one that failed. Null when nothing was queried.
    #[serde(default)]
    pub queries: Option<Vec<Value>>,
    /// Database and name of the table of each query.
    #[serde(default)]
    pub queried: Option<Vec<(String, String)>>,
}

/// What the activity [`VERDICT`] gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictOutput {
    /// Tables that a query has read.
    pub queried: u64,
}

/// Fails when something could not be compared, mended or read.
///
/// # Idempotency
/// Calls nothing.
///
/// # Compensation
/// None.
pub(crate) struct Verdict;

impl Activity for Verdict {
    type Input = VerdictInput;
    type Output = VerdictOutput;

    fn effect(&self) -> Effect {
        Effect::Read
    }

    async fn execute(&self, _: &ActivityContext, input: &VerdictInput) -> ActivityResult<VerdictOutput> {
        let queries = input.queries.as_deref().unwrap_or_default();
        let tables = input.queried.as_deref().unwrap_or_default();
        let unread = queries.iter().filter(|answer| answer.is_null()).count();
        let mut troubles = Vec::new();
        let mut note = |count: u64, one: &str, many: &str| {
            if count > 0 {
                troubles.push(format!("{count} {}", if count == 1 { one } else { many }));
            }
        };
        note(
            input.totals.failed,
            "table could not be compared or mended",
            "tables could not be compared or mended",
        );
        note(input.pages_failed, "page of tables failed", "pages of tables failed");
        note(
            u64::try_from(unread).unwrap_or(u64::MAX),
            "table cannot be queried",
            "tables cannot be queried",
        );
        if troubles.is_empty() {
            let queried = u64::try_from(queries.len()).unwrap_or(u64::MAX);
            return Ok(VerdictOutput { queried });
        }
        let names = tables.iter().zip(queries).filter(|(_, answer)| answer.is_null());
        let names: Vec<_> = names.map(|((database, name), _)| format!("{database}.{name}")).collect();
        if !names.is_empty() {
            let more = if names.len() > NAMED { ", ..." } else { "" };
            troubles.push(format!("not readable: {}{more}", names[..names.len().min(NAMED)].join(", ")));
        }
        Err(ActivityError::terminal("TablesFailed", troubles.join(", "))
            .help(
                "the report names the first kinds and why, the items of step queries the last; when that is mended, run it \
                 again: what is equal is left alone",
            )
            .no_effect())
    }

    fn describe(&self, _: &VerdictInput) -> String {
        "verdict".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::inventory::Removed;
    use super::*;

    fn page(kind: Kind, n: u32, verify: &[&str]) -> PageOutput {
        let mut found = Findings::default();
        found.totals.datasets = u64::from(n);
        for i in 0..n {
            found.push(Finding::new(kind, format!("d.{}{i}", kind.as_str()), "P.x"));
        }
        PageOutput { found, verify: verify.iter().map(|t| ("d".to_owned(), (*t).to_owned())).collect() }
    }

    #[test]
    fn a_report_adds_up_and_names_the_gravest() {
        let mut inventory = InventoryOutput {
            removed: vec![Removed { database: "d".into(), table: "old".into(), dataset: "P.old".into() }],
            unclaimed: 7,
            ..InventoryOutput::default()
        };
        inventory.found.totals.other_connections = 4;
        let mut input = ReportInput {
            mode: Mode::Direct,
            dry_run: false,
            inventory: json!(inventory),
            pages: vec![
                Some(page(Kind::Changed, 150, &["a", "b"])),
                None,
                Some(page(Kind::Failed, 2, &["c"])),
                Some(page(Kind::Added, 150, &[])),
            ],
            pruned: None,
            queries: 2,
        };
        let made = report(&input, &inventory);
        assert_eq!((made.totals.datasets, made.totals.changed, made.totals.removed), (302, 150, 1));
        assert_eq!((made.findings.len(), made.left_out, made.pages_failed), (REPORT_FINDINGS, 103, 1));
        assert_eq!(made.totals.other_connections, 4, "what was not looked at is told");
        assert_eq!(made.findings[0].kind, Kind::Failed);
        assert_eq!(
            made.verify,
            [("d".into(), "a".into()), ("d".into(), "c".into())],
            "one of each page first"
        );
        // What was deleted takes the place of what would be.
        let mut gone = Findings::default();
        let mut finding = Finding::new(Kind::Removed, "d.old", "P.old");
        finding.mended = true;
        gone.push(finding);
        input.pruned = Some(gone);
        let made = report(&input, &inventory);
        assert_eq!((made.totals.removed, made.totals.mended), (1, 1));
    }
}
