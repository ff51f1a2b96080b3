//! What a resync found and did, for people: the report of a run as lines.

use dssflow_activities::glue::outcome::Report;
use dssflow_activities::glue::partitions::Counts;
use dssflow_activities::glue::report::{Finding, Kind};
use dssflow_engine::run::view::RunView;
use dssflow_workflows::glue_resync::{NAME, REPORT_STEP};

use crate::config::Settings;
use crate::ui::{Style, Ui, one_line};

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

/// The report as lines; `more` is the command that prints all of it.
pub(crate) fn lines(ui: &Ui, more: &str, report: &Report) -> Vec<String> {
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
    if report.not_synced > 0 {
        let many = counted(report.not_synced, "dataset");
        lines.push(format!("not looked at, as DSS does not synchronise them: {many} on S3"));
    }
    lines
}

/// The report of a run as lines.
pub(crate) fn of_run(ui: &Ui, settings: &Settings, view: &RunView) -> Vec<String> {
    let Some(report) = of(view) else { return Vec::new() };
    lines(ui, &format!("{} runs get {} -o json", settings.command(), view.run), &report)
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
