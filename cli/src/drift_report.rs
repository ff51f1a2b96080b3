//! What a resync found and did, for people: the report of a run as lines.

use dssflow_activities::glue::outcome::Report;
use dssflow_activities::glue::partitions::Counts;
use dssflow_activities::glue::report::{Finding, Kind};
use dssflow_engine::run::view::RunView;
use dssflow_workflows::glue_resync::{NAME, REPORT_STEP};

use crate::config::Settings;
use crate::ui::{Style, Ui, one_line};
use crate::world::SANDBOX_LABEL;

/// How many findings are shown; `-o json` has more.
const SHOWN: usize = 40;

/// The report of a run of glue-resync that came as far.
pub(crate) fn of(view: &RunView) -> Option<Report> {
    if view.workflow != NAME {
        return None;
    }
    let step = view.steps.iter().find(|step| step.step.as_str() == REPORT_STEP)?;
    serde_json::from_value(step.output.clone()?).ok()
}

/// The command that makes datasets to compare: there is one in the sandbox.
pub(crate) fn makes(settings: &Settings, is_sandbox: bool) -> Option<String> {
    is_sandbox.then(|| format!("{} sandbox datasets", settings.command()))
}

/// The report as lines; `more` is the command that prints all of it, `makes` the one that makes datasets.
pub(crate) fn lines(ui: &Ui, more: &str, makes: Option<&str>, report: &Report) -> Vec<String> {
    let mut lines = vec![totals(report)];
    for finding in report.findings.iter().take(SHOWN) {
        lines.extend(told(ui, finding, report.dry_run));
    }
    let left =
        u64::try_from(report.findings.len().saturating_sub(SHOWN)).unwrap_or(u64::MAX) + report.left_out;
    if left > 0 {
        lines.push(format!("  and {left} more: {more}"));
    }
    if !report.missing_databases.is_empty() {
        let names: Vec<String> = report.missing_databases.iter().map(|name| one_line(name)).collect();
        lines.push(format!("no such Glue database: {}", names.join(", ")));
    }
    if report.unclaimed > 0 {
        let names: Vec<String> =
            report.unclaimed_examples.iter().take(3).map(|name| one_line(name)).collect();
        let more = if report.unclaimed > 3 { ", ..." } else { "" };
        lines.push(format!(
            "left alone, of no dataset and nobody we know: {} ({}{more})",
            counted(report.unclaimed, "table"),
            names.join(", ")
        ));
    }
    lines.extend(left_out(report));
    lines.extend(nothing(report, makes));
    lines
}

/// The report of a run as lines.
pub(crate) fn of_run(ui: &Ui, settings: &Settings, view: &RunView) -> Vec<String> {
    let Some(report) = of(view) else { return Vec::new() };
    let more = format!("{} runs get {} -o json", settings.command(), view.run);
    let makes = makes(settings, view.labels.contains_key(SANDBOX_LABEL));
    lines(ui, &more, makes.as_deref(), &report)
}

/// The datasets on S3 that were not looked at, and why.
fn left_out(report: &Report) -> Option<String> {
    let reasons = [
        (report.not_synced, "not synchronised"),
        (report.totals.other_connections, "on other connections"),
        (report.totals.not_selected, "not selected"),
    ];
    let mut some = reasons.into_iter().filter(|(count, _)| *count > 0);
    let (count, why) = some.next()?;
    let mut line = format!("left out: {} {why}", counted(count, "dataset"));
    for (count, why) in some {
        put!(line, ", {count} {why}");
    }
    Some(line)
}

/// What to do when there was no dataset to look at; `makes` is the command that makes some.
fn nothing(report: &Report, makes: Option<&str>) -> Option<String> {
    let totals = &report.totals;
    if totals.datasets + totals.skipped + totals.conflict + report.pages_failed > 0 {
        return None;
    }
    let why = if left_out(report).is_some() {
        "`connections`, `datasets` and `include` of glue_resync, --connection and --dataset say what is looked at"
            .to_owned()
    } else if let Some(makes) = makes {
        format!("DSS has no dataset on S3; `{makes}` makes some")
    } else if totals.not_on_s3 > 0 {
        format!("of {} in DSS none is on S3", counted(totals.not_on_s3, "dataset"))
    } else {
        "DSS shows no dataset; has it any, and is the API key an administrator's?".to_owned()
    };
    Some(format!("nothing to compare: {why}"))
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn totals(report: &Report) -> String {
    let totals = &report.totals;
    let mut parts = vec![format!("{} equal", totals.equal)];
    for (count, word) in [
        (totals.added, "added"),
        (totals.changed, "changed"),
        (totals.mismatched_types, "of them with other types"),
        (totals.removed, "removed"),
        (totals.disputed, "disputed"),
        (totals.foreign, "foreign"),
        (totals.conflict, "in conflict"),
        (totals.skipped, "without a table"),
        (totals.failed, "failed"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {word}"));
        }
    }
    let mut line = format!("{}: {}", counted(totals.datasets, "dataset"), parts.join(", "));
    let partitions = totals.partitions;
    if partitions.looked > 0 {
        put!(
            line,
            "; {}: {} added, {} changed, {} vanished",
            counted(partitions.looked, "partition"),
            partitions.added,
            partitions.changed,
            partitions.vanished
        );
    }
    if report.dry_run {
        line.push_str("; nothing was changed");
    } else {
        put!(line, "; mended: {}", counted(totals.mended, "table"));
        if partitions.looked > 0 {
            put!(line, ", {}", counted(partitions.mended, "partition"));
        }
    }
    if report.pages_failed > 0 {
        put!(line, "; not looked at: {} of tables", counted(report.pages_failed, "page"));
    }
    line
}

fn told(ui: &Ui, finding: &Finding, dry_run: bool) -> Vec<String> {
    let (sign, style) = match finding.kind {
        Kind::Added => ("+", Style::Green),
        Kind::Changed => ("~", Style::Yellow),
        Kind::Removed => ("-", Style::Red),
        Kind::Skipped => (".", Style::Bold),
        Kind::Failed | Kind::Conflict | Kind::Foreign | Kind::Disputed => ("!", Style::Red),
    };
    let name = if finding.table.is_empty() { &finding.dataset } else { &finding.table };
    let mut line = format!("  {} {}: {}", ui.mark(style, sign), one_line(name), finding.kind.as_str());
    if !finding.table.is_empty() && !finding.dataset.is_empty() {
        put!(line, ", dataset {}", one_line(&finding.dataset));
    }
    if finding.mended {
        line.push_str(", mended");
    } else if !dry_run && matches!(finding.kind, Kind::Added | Kind::Changed | Kind::Removed) {
        line.push_str(", left as it is");
    }
    let mut lines = vec![line];
    lines.extend(finding.what.iter().map(|what| format!("      {}", one_line(what))));
    if let Some(partitions) = finding.partitions.filter(Counts::differ) {
        lines.push(format!(
            "      partitions: {} added, {} changed, {} vanished, {} mended",
            partitions.added, partitions.changed, partitions.vanished, partitions.mended
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A report as a run of an earlier version has stored it, with these counts.
    fn report(not_synced: u64, totals: &Value) -> Report {
        let stored = json!({
            "mode": "dss", "dry_run": false, "totals": totals, "findings": [], "left_out": 0, "not_synced": not_synced,
            "databases": [], "unclaimed": 0, "pages_failed": 0
        });
        serde_json::from_value(stored).expect("a report, also without what was not counted in those days")
    }

    #[test]
    fn what_was_not_looked_at_is_counted_by_reason() {
        let told = |not_synced, totals: Value| left_out(&report(not_synced, &totals)).unwrap_or_default();
        assert_eq!(told(0, json!({"datasets": 3, "equal": 3})), "");
        assert_eq!(told(1, json!({})), "left out: 1 dataset not synchronised");
        assert_eq!(
            told(2, json!({"other_connections": 4, "not_selected": 1})),
            "left out: 2 datasets not synchronised, 4 on other connections, 1 not selected"
        );
        assert_eq!(told(0, json!({"not_selected": 2})), "left out: 2 datasets not selected");
        assert_eq!(told(0, json!({"not_on_s3": 9})), "", "they are not what a resync is about");
    }

    #[test]
    fn where_there_is_no_dataset_it_says_why_and_what_to_do() {
        let told = |makes, totals: Value| nothing(&report(0, &totals), makes).unwrap_or_default();
        let makes = Some("dssflow sandbox datasets");
        for looked in ["datasets", "skipped", "conflict"] {
            assert_eq!(told(makes, json!({looked: 1})), "", "{looked}");
        }
        assert!(told(makes, json!({})).ends_with("`dssflow sandbox datasets` makes some"));
        assert!(told(makes, json!({"other_connections": 6})).contains("--connection"), "there are some");
        assert!(told(None, json!({"not_on_s3": 1})).ends_with("of 1 dataset in DSS none is on S3"));
        assert!(told(None, json!({})).contains("API key"));
        assert_eq!(makes_of(true).as_deref(), makes);
        assert_eq!(makes_of(false), None);
    }

    fn makes_of(is_sandbox: bool) -> Option<String> {
        makes(&Settings { store: "x".into(), named: false }, is_sandbox)
    }
}
