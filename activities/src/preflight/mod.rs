//! The checks that come before anything is made: they turn a failure after forty minutes into a message after five
//! seconds.
//!
//! Every check has an id of `docs/preflight.md`. It reads facts through [`Look`], which asks the world for each thing
//! once however many checks want it, and judges them with a pure function, so that every trouble can be tested on
//! values. All run at once, [`PARALLEL`] at a time. A check that may not ask says so and is skipped; it is never a
//! reason to stop. Nothing here changes anything, and nothing here decides what becomes of a run: the command does.

mod athena;
mod catalogue;
mod dss;
mod host;
mod identity;
mod inputs;
mod lake_formation;
mod leftovers;
mod look;
mod network;
mod permissions;
mod quotas;
mod spec;
mod version;
mod versions;

use std::time::Duration;

use dssflow_engine::activity::{ActivityError, ErrorClass};
use dssflow_engine::time::BoxFuture;
use futures::StreamExt as _;
use schemars::JsonSchema;
use serde::Serialize;

pub use catalogue::CHECKS;
pub use look::Look;
pub use spec::{AthenaSpec, ClusterSpec, ConnectionSpec, Demand, Endpoint, Need, Pinned, Spec, Who};

/// How many checks ask the world at the same time.
pub const PARALLEL: usize = 16;

/// How long one check may take. What it found by then counts.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a finding means for the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The run would fail: nothing is started.
    Error,
    /// The run may suffer; it is said and no more.
    Warning,
    /// It could not be looked at; the reason is the evidence.
    Skipped,
}

/// One thing that a check has to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "CheckFinding")]
pub struct Finding {
    /// The check, as `P09`.
    pub id: &'static str,
    /// What it means for the run.
    pub severity: Severity,
    /// What it is about: a subnet, a quota, a connection.
    pub subject: String,
    /// What was seen.
    pub evidence: String,
    /// What mends it; the permission that lacks, of a skipped one.
    pub fix: String,
    /// The page the rule comes from.
    pub page: &'static str,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "CheckStatus")]
pub enum Status {
    /// Everything it looks at fits.
    Passed,
    /// At least one warning, no error.
    Warning,
    /// At least one error.
    Error,
    /// It could look at nothing.
    Skipped,
}

/// One check of the catalogue.
pub struct Check {
    /// As `P09`.
    pub id: &'static str,
    /// What it makes sure of, one line.
    pub title: &'static str,
    /// What it needs to look: IAM actions, `host` for commands on the host, nothing for a look at the site alone.
    pub reads: &'static [&'static str],
    /// The page the rule comes from.
    pub page: &'static str,
    run: for<'a> fn(&'a Look, &'a mut Notes) -> BoxFuture<'a, ()>,
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Check").field("id", &self.id).field("title", &self.title).finish_non_exhaustive()
    }
}

/// What a check writes down while it looks.
#[derive(Debug)]
struct Notes {
    id: &'static str,
    page: &'static str,
    seen: Vec<String>,
    findings: Vec<Finding>,
}

impl Notes {
    fn of(check: &Check) -> Self {
        Self { id: check.id, page: check.page, seen: Vec::new(), findings: Vec::new() }
    }

    /// Something that was looked at and fits.
    fn seen(&mut self, what: impl Into<String>) {
        self.seen.push(what.into());
    }

    fn error(&mut self, subject: impl Into<String>, evidence: impl Into<String>, fix: impl Into<String>) {
        self.add(Severity::Error, subject.into(), evidence.into(), fix.into());
    }

    fn warning(&mut self, subject: impl Into<String>, evidence: impl Into<String>, fix: impl Into<String>) {
        self.add(Severity::Warning, subject.into(), evidence.into(), fix.into());
    }

    fn skipped(&mut self, subject: impl Into<String>, reason: impl Into<String>, fix: impl Into<String>) {
        self.add(Severity::Skipped, subject.into(), reason.into(), fix.into());
    }

    /// A question that got no answer: the check cannot tell, and says why. Several checks may meet the same one.
    fn unanswered(&mut self, subject: impl Into<String>, error: &ActivityError) {
        let fix = match error.class {
            ErrorClass::Credentials => "see P01".to_owned(),
            ErrorClass::Retryable | ErrorClass::Throttled => "run it again in a moment".to_owned(),
            ErrorClass::Terminal | ErrorClass::NeedsHuman | ErrorClass::Cancelled => {
                error.help.clone().unwrap_or_else(|| "the message says what AWS misses".to_owned())
            }
        };
        self.skipped(subject, error.to_string(), fix);
    }

    fn add(&mut self, severity: Severity, subject: String, evidence: String, fix: String) {
        self.findings.push(Finding { id: self.id, severity, subject, evidence, fix, page: self.page });
    }
}

/// What became of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CheckReport {
    /// As `P09`.
    pub id: &'static str,
    /// What it makes sure of.
    pub title: &'static str,
    /// How it ended.
    pub status: Status,
    /// What was looked at and fits.
    pub seen: Vec<String>,
    /// What it has to say.
    pub findings: Vec<Finding>,
}

impl CheckReport {
    fn of(check: &Check, notes: Notes) -> Self {
        let has = |severity| notes.findings.iter().any(|f| f.severity == severity);
        let status = match () {
            () if has(Severity::Error) => Status::Error,
            () if has(Severity::Warning) => Status::Warning,
            () if has(Severity::Skipped) && notes.seen.is_empty() => Status::Skipped,
            () => Status::Passed,
        };
        Self { id: check.id, title: check.title, status, seen: notes.seen, findings: notes.findings }
    }
}

/// What became of all checks, in the order of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Report {
    /// One a check.
    pub checks: Vec<CheckReport>,
    /// The alias of the account, where it has one and the check of the account could read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_alias: Option<String>,
}

impl Report {
    /// Whether nothing stands against the run.
    pub fn fits(&self) -> bool {
        self.of(Severity::Error).next().is_none()
    }

    /// The findings of one severity.
    pub fn of(&self, severity: Severity) -> impl Iterator<Item = &Finding> {
        self.checks.iter().flat_map(|c| &c.findings).filter(move |f| f.severity == severity)
    }

    /// The check of that id, if it was run.
    pub fn check(&self, id: &str) -> Option<&CheckReport> {
        self.checks.iter().find(|c| c.id == id)
    }
}

/// Runs the checks of the catalogue whose id is in `only`, all when it is empty.
pub async fn run(look: &Look, only: &[String]) -> Report {
    let chosen: Vec<&Check> =
        CHECKS.iter().filter(|c| only.is_empty() || only.iter().any(|id| id == c.id)).collect();
    run_checks(look, &chosen).await
}

async fn run_checks(look: &Look, checks: &[&Check]) -> Report {
    // Made before they are awaited: a stream that makes them cannot be sent between threads.
    let looks: Vec<_> = checks
        .iter()
        .enumerate()
        .map(|(place, check)| async move {
            let mut notes = Notes::of(check);
            if tokio::time::timeout(PATIENCE, (check.run)(look, &mut notes)).await.is_err() {
                let reason = format!("no answer within {} s", PATIENCE.as_secs());
                notes.skipped("all of it", reason, "run it again; `--log debug` shows the calls");
            }
            (place, CheckReport::of(check, notes))
        })
        .collect();
    let mut reports: Vec<(usize, CheckReport)> =
        futures::stream::iter(looks).buffer_unordered(PARALLEL).collect().await;
    reports.sort_by_key(|(place, _)| *place);
    Report {
        checks: reports.into_iter().map(|(_, report)| report).collect(),
        account_alias: look.alias.get().cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_is_the_status_and_skipping_in_part_is_no_skip() {
        let check = &CHECKS[0];
        let status = |write: fn(&mut Notes)| {
            let mut notes = Notes::of(check);
            write(&mut notes);
            CheckReport::of(check, notes).status
        };
        assert_eq!(status(|n| n.seen("x")), Status::Passed);
        assert_eq!(status(|n| n.skipped("a", "b", "c")), Status::Skipped);
        assert_eq!(
            status(|n| {
                n.seen("x");
                n.skipped("a", "b", "c");
            }),
            Status::Passed
        );
        assert_eq!(
            status(|n| {
                n.skipped("a", "b", "c");
                n.warning("a", "b", "c");
            }),
            Status::Warning
        );
        assert_eq!(
            status(|n| {
                n.warning("a", "b", "c");
                n.error("a", "b", "c");
            }),
            Status::Error
        );
    }

    #[test]
    fn a_question_without_an_answer_is_never_an_error() {
        let denied = ActivityError::terminal("AccessDenied", "no").help("allow x");
        for error in
            [denied, ActivityError::throttled("Throttling", "no"), ActivityError::credentials("E", "no")]
        {
            let mut notes = Notes::of(&CHECKS[0]);
            notes.unanswered("x", &error);
            assert_eq!(notes.findings[0].severity, Severity::Skipped, "{error}");
            assert!(!notes.findings[0].fix.is_empty());
        }
    }
}
