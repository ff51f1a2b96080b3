//! What a resync found and did: counts of everything, and the first findings in words, within a bound. Pure.

use serde::{Deserialize, Serialize};

use super::partitions::Counts;

/// The most bytes that the findings of one page have as JSON.
pub const PAGE_BYTES: usize = 16 * 1024;
/// The most findings in the report of a run; the pages have the others.
pub const REPORT_FINDINGS: usize = 200;
/// The most lines on what is wrong with one table.
const MAX_LINES: usize = 8;
/// The most characters of such a line.
const MAX_LINE: usize = 300;

/// What is the matter with a table.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[schemars(rename = "TableTrouble")]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It could not be compared or mended: an error.
    Failed,
    /// Two datasets want one table.
    Conflict,
    /// Something else has the name that a dataset wants.
    Foreign,
    /// DSS has synchronised it, and it still is not what dssflow takes the dataset for.
    Disputed,
    /// It is not there.
    Added,
    /// It is not as its dataset.
    Changed,
    /// Its dataset is gone.
    Removed,
    /// A metastore can have no table of the dataset.
    Skipped,
}

impl Kind {
    /// As written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Conflict => "conflict",
            Self::Foreign => "foreign",
            Self::Disputed => "disputed",
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
            Self::Skipped => "skipped",
        }
    }
}

/// What was found of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "TableFinding")]
pub struct Finding {
    /// As `database.table`; empty when none could be told.
    pub table: String,
    /// As `PROJECT.name`; empty when no dataset is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dataset: String,
    /// What is the matter.
    pub kind: Kind,
    /// Whether it was mended by this run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mended: bool,
    /// What differs, or why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub what: Vec<String>,
    /// Whether a column has another type.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub types: bool,
    /// Its partitions, when it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<Counts>,
}

impl Finding {
    /// A finding in these words.
    pub fn new(kind: Kind, table: impl Into<String>, dataset: impl Into<String>) -> Self {
        Self {
            table: table.into(),
            dataset: dataset.into(),
            kind,
            mended: false,
            what: Vec::new(),
            types: false,
            partitions: None,
        }
    }

    /// Adds what differs, cut to a bound.
    #[must_use]
    pub fn because(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        let mut more = 0_usize;
        for line in lines {
            if self.what.len() < MAX_LINES {
                self.what.push(cut(&line));
            } else {
                more += 1;
            }
        }
        if more > 0 {
            self.what.push(format!("and {more} more"));
        }
        self
    }
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(MAX_LINE) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line.to_owned(),
    }
}

/// Counts of tables and partitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "ResyncTotals")]
#[serde(default)]
pub struct Totals {
    /// Datasets that were looked at.
    pub datasets: u64,
    /// Tables that are as their datasets.
    pub equal: u64,
    /// See [`Kind::Added`].
    pub added: u64,
    /// See [`Kind::Changed`].
    pub changed: u64,
    /// Those of the changed that have a column of another type.
    pub mismatched_types: u64,
    /// See [`Kind::Removed`].
    pub removed: u64,
    /// See [`Kind::Foreign`].
    pub foreign: u64,
    /// See [`Kind::Conflict`].
    pub conflict: u64,
    /// See [`Kind::Disputed`].
    pub disputed: u64,
    /// See [`Kind::Skipped`].
    pub skipped: u64,
    /// See [`Kind::Failed`].
    pub failed: u64,
    /// Tables that this run mended.
    pub mended: u64,
    /// Their partitions.
    pub partitions: Counts,
    /// Datasets that were not looked at because they are on other S3 connections than those selected.
    pub other_connections: u64,
    /// Datasets on those connections that were not selected.
    pub not_selected: u64,
    /// Datasets that are not on S3.
    pub not_on_s3: u64,
}

impl Totals {
    /// Counts one finding.
    pub fn count(&mut self, finding: &Finding) {
        let of = match finding.kind {
            Kind::Failed => &mut self.failed,
            Kind::Conflict => &mut self.conflict,
            Kind::Foreign => &mut self.foreign,
            Kind::Disputed => &mut self.disputed,
            Kind::Added => &mut self.added,
            Kind::Changed => &mut self.changed,
            Kind::Removed => &mut self.removed,
            Kind::Skipped => &mut self.skipped,
        };
        *of += 1;
        self.mended += u64::from(finding.mended);
        self.mismatched_types += u64::from(finding.types);
    }

    /// Adds those of another page.
    pub fn add(&mut self, other: &Self) {
        self.datasets += other.datasets;
        self.equal += other.equal;
        self.added += other.added;
        self.changed += other.changed;
        self.mismatched_types += other.mismatched_types;
        self.removed += other.removed;
        self.foreign += other.foreign;
        self.conflict += other.conflict;
        self.disputed += other.disputed;
        self.skipped += other.skipped;
        self.failed += other.failed;
        self.mended += other.mended;
        self.partitions = self.partitions.plus(other.partitions);
        self.other_connections += other.other_connections;
        self.not_selected += other.not_selected;
        self.not_on_s3 += other.not_on_s3;
    }

    /// Whether Glue is not as DSS, as far as this run's tables go.
    pub fn differ(&self) -> bool {
        self.added + self.changed + self.removed + self.disputed > 0 || self.partitions.differ()
    }

    /// Whether somebody has to look.
    pub fn trouble(&self) -> bool {
        self.failed + self.conflict + self.foreign > 0
    }
}

/// Findings within a bound, the gravest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Findings {
    /// The counts of all.
    pub totals: Totals,
    /// The first of them.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// How many are counted and not told.
    #[serde(default)]
    pub left_out: u64,
}

impl Findings {
    /// Counts a finding and keeps it.
    pub fn push(&mut self, finding: Finding) {
        self.totals.count(&finding);
        self.findings.push(finding);
    }

    /// Puts the gravest first and lets go of what is over the bound.
    #[must_use]
    pub fn within(mut self, bytes: usize, most: usize) -> Self {
        self.findings.sort_by(|a, b| (a.kind, &a.table, &a.dataset).cmp(&(b.kind, &b.table, &b.dataset)));
        let mut size = 0;
        let all = self.findings.len();
        let keep = self
            .findings
            .iter()
            .take(most)
            .take_while(|finding| {
                size += serde_json::to_string(finding).map_or(usize::MAX, |text| text.len());
                size <= bytes
            })
            .count();
        self.findings.truncate(keep);
        self.left_out += u64::try_from(all - keep).unwrap_or(u64::MAX);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_of_all_and_words_within_a_bound() {
        let mut findings = Findings::default();
        for n in 0..500 {
            let kind = if n % 100 == 7 { Kind::Failed } else { Kind::Changed };
            let lines = (0..20).map(|l| format!("line {l} {}", "x".repeat(500)));
            let mut finding = Finding::new(kind, format!("db.t{n:03}"), "P.d").because(lines);
            finding.mended = kind == Kind::Changed;
            findings.push(finding);
        }
        let bounded = findings.clone().within(PAGE_BYTES, usize::MAX);
        assert_eq!(bounded.totals, findings.totals);
        assert_eq!((bounded.totals.failed, bounded.totals.changed, bounded.totals.mended), (5, 495, 495));
        assert_eq!(bounded.findings.len() as u64 + bounded.left_out, 500);
        assert!(bounded.findings.len() >= 5 && bounded.findings[..5].iter().all(|f| f.kind == Kind::Failed));
        let size: usize = bounded.findings.iter().map(|f| serde_json::to_string(f).unwrap().len()).sum();
        assert!(size <= PAGE_BYTES, "{size}");
        assert_eq!(bounded.findings[0].what.len(), MAX_LINES + 1);
        assert_eq!(findings.within(usize::MAX, 3).findings.len(), 3);
    }

    #[test]
    fn totals_add_up() {
        let mut a = Totals { datasets: 2, equal: 1, ..Totals::default() };
        (a.other_connections, a.not_selected, a.not_on_s3) = (3, 4, 5);
        let mut finding = Finding::new(Kind::Changed, "d.t", "P.d");
        finding.types = true;
        a.count(&finding);
        let mut b = a;
        b.add(&a);
        assert_eq!((b.datasets, b.equal, b.changed, b.mismatched_types), (4, 2, 2, 2));
        assert_eq!((b.other_connections, b.not_selected, b.not_on_s3), (6, 8, 10));
        assert!(b.differ() && !b.trouble());
        assert!(!Totals { not_selected: 9, ..Totals::default() }.differ(), "what nobody asked for");
        assert!(!Totals { equal: 3, skipped: 1, ..Totals::default() }.differ());
    }
}
