//! `dssflow preflight`: looks whether the world fits a site. Changes nothing.

use std::time::{Duration, Instant};

use dssflow_activities::preflight::{self, CHECKS, CheckReport, Finding, Report, Severity, Status};
use schemars::JsonSchema;
use serde::Serialize;

use crate::args::{PreflightArgs, ViewFormat};
use crate::catalog::{self, MadeOf};
use crate::commands::ground::Ground;
use crate::commands::run::choose_site;
use crate::config::Settings;
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::suggest;
use crate::ui::{Style, Ui, one_line};
use crate::world;
use dssflow_workflows::RESYNC_CHECKS;

/// The check whose failure means that nothing could be asked.
const CREDENTIALS: &str = "P01";
/// Looks, then prints.
pub(crate) async fn run(ui: &Ui, settings: &Settings, args: &PreflightArgs) -> CommandResult {
    let made_of = catalog::find(&args.workflow)?.made_of;
    if made_of == MadeOf::Resync {
        return Box::pin(resync(ui, settings, args)).await;
    }
    if made_of != MadeOf::Site {
        let error = CommandError::new(Code::Usage, format!("nothing is looked at before {}", args.workflow));
        return Err(error.hint(format!("`{} preflight bootstrap` looks at a site", settings.command())));
    }
    let only = chosen(&args.only)?;
    let chosen = choose_site(ui, settings, args.file.as_deref(), &args.set, args.sandbox).await?;
    let Ground { site, sandbox } = Ground::of(settings, chosen, None).await?;
    let workflow = catalog::build(&args.workflow, &site)?;
    let world = world::connect(&site, sandbox).await?;
    // Without a store, or while somebody owns it, what is ours is told by the site's name.
    let store = dssflow_store::id_offline(&settings.store).map(|id| id.to_string());
    let look = world.look(&site, &workflow.graph, store);
    let begun = Instant::now();
    let report = Box::pin(preflight::run(&look, &only)).await;
    match args.output {
        ViewFormat::Table => ui.out(&table(ui, &report, begun.elapsed())),
        ViewFormat::Json => ui.json(&checked(&args.workflow, &site.name, &report), true),
        ViewFormat::Yaml => ui.yaml(&checked(&args.workflow, &site.name, &report)),
    }
    Ok(exit(&report))
}

/// The same before a resync: fewer checks.
async fn resync(ui: &Ui, settings: &Settings, args: &PreflightArgs) -> CommandResult {
    let mut only = chosen(&args.only)?;
    if let Some(other) = only.iter().find(|id| !RESYNC_CHECKS.contains(&id.as_str())) {
        let error = CommandError::new(Code::Usage, format!("check {other} is not about a resync"));
        return Err(error.hint(format!("these are: {}", RESYNC_CHECKS.join(", "))));
    }
    if only.is_empty() {
        only = RESYNC_CHECKS.iter().map(|id| (*id).to_owned()).collect();
    }
    let (spec, sandbox) =
        super::resync::choose(ui, settings, args.file.as_deref(), &args.set, args.sandbox).await?;
    let world = world::connect_resync(&world::Pool::default(), &spec, sandbox).await?;
    let begun = Instant::now();
    let report = Box::pin(preflight::run(&world.look_resync(&spec), &only)).await;
    match args.output {
        ViewFormat::Table => ui.out(&table(ui, &report, begun.elapsed())),
        ViewFormat::Json => ui.json(&checked(&args.workflow, &spec.name, &report), true),
        ViewFormat::Yaml => ui.yaml(&checked(&args.workflow, &spec.name, &report)),
    }
    Ok(exit(&report))
}

/// How the command ends: 4 when there are no credentials to ask with, 5 when something stands against the run.
fn exit(report: &Report) -> Exit {
    if report.of(Severity::Error).any(|f| f.id == CREDENTIALS) {
        return Exit::Credentials;
    }
    if report.fits() { Exit::Ok } else { Exit::Preflight }
}

/// The ids of `--only`, each one that exists.
fn chosen(only: &[String]) -> CommandResult<Vec<String>> {
    let known = |id: &String| {
        let upper = id.to_uppercase();
        if CHECKS.iter().any(|c| c.id == upper) {
            return Ok(upper);
        }
        let error = CommandError::new(Code::Usage, format!("there is no check {id:?}"));
        Err(match suggest::nearest(&upper, CHECKS.iter().map(|c| c.id)) {
            Some(near) => error.hint(format!("did you mean {near}?")),
            None => error.hint("`dssflow preflight` without --only shows them all"),
        })
    };
    only.iter().map(known).collect()
}

/// For programs. Additive: keys are added, never taken away or given another meaning.
/// What `preflight` prints.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Checked<'a> {
    /// Of this shape.
    version: u32,
    workflow: &'a str,
    site: &'a str,
    /// Whether nothing stands against the run.
    fits: bool,
    errors: usize,
    warnings: usize,
    skipped: usize,
    checks: &'a [CheckReport],
    #[serde(skip_serializing_if = "Option::is_none")]
    account_alias: Option<&'a str>,
}

fn checked<'a>(workflow: &'a str, site: &'a str, report: &'a Report) -> Checked<'a> {
    let count = |severity| report.of(severity).count();
    Checked {
        version: 1,
        workflow,
        site,
        fits: report.fits(),
        errors: count(Severity::Error),
        warnings: count(Severity::Warning),
        skipped: count(Severity::Skipped),
        checks: &report.checks,
        account_alias: report.account_alias.as_deref(),
    }
}

fn table(ui: &Ui, report: &Report, took: Duration) -> String {
    let mut lines = Vec::new();
    for check in &report.checks {
        lines.push(format!("{}  {}  {}", check.id, word(ui, check.status), check.title));
        lines.extend(details(check));
    }
    let count = |status| report.checks.iter().filter(|c| c.status == status).count();
    lines.push(format!(
        "{} checks in {:.1} s: {} passed, {} warnings, {} errors, {} skipped",
        report.checks.len(),
        took.as_secs_f64(),
        count(Status::Passed),
        count(Status::Warning),
        count(Status::Error),
        count(Status::Skipped),
    ));
    lines.join("\n")
}

fn word(ui: &Ui, status: Status) -> String {
    let (text, style) = match status {
        Status::Passed => ("ok     ", Style::Green),
        Status::Warning => ("warning", Style::Yellow),
        Status::Error => ("error  ", Style::Red),
        Status::Skipped => ("skipped", Style::Dim),
    };
    ui.mark(style, text)
}

fn details(check: &CheckReport) -> Vec<String> {
    let seen = check.seen.iter().map(|s| format!("       {}", one_line(s)));
    seen.chain(check.findings.iter().flat_map(lines_of)).collect()
}

fn lines_of(finding: &Finding) -> Vec<String> {
    let what = format!("{}: {}", one_line(&finding.subject), one_line(&finding.evidence));
    let fix = one_line(&finding.fix);
    match finding.severity {
        Severity::Error | Severity::Warning => {
            let word = if finding.severity == Severity::Error { "error" } else { "warning" };
            vec![
                format!("       {word}: {what}"),
                format!("         help: {fix}"),
                format!("         page: {}", finding.page),
            ]
        }
        Severity::Skipped => vec![format!("       not looked at: {what}"), format!("         help: {fix}")],
    }
}

/// What a report means for a run that is to be started.
pub(crate) struct Verdict {
    /// What is said and no more.
    pub(crate) warnings: Vec<String>,
    /// Everything that stands against the run, as one error.
    pub(crate) error: Option<CommandError>,
}

/// What stands against a run as one error, warnings said on stderr. For the command that starts it.
///
/// # Errors
/// Every error of the report.
pub(crate) fn judge(ui: &Ui, report: &Report) -> CommandResult<()> {
    let verdict = verdict(report);
    for warning in &verdict.warnings {
        warn(ui, warning);
    }
    verdict.error.map_or(Ok(()), Err)
}

/// Says a note; one that begins so is marked as a warning.
pub(crate) fn warn(ui: &Ui, note: &str) {
    match note.strip_prefix("warning:") {
        Some(rest) => ui.note(&format!("{}:{rest}", ui.mark_err(Style::Yellow, "warning"))),
        None => ui.note(note),
    }
}

/// What a report means for a run that is to be started.
pub(crate) fn verdict(report: &Report) -> Verdict {
    let mut warnings = Vec::new();
    for finding in report.of(Severity::Warning) {
        let what = format!("{} {}: {}", finding.id, one_line(&finding.subject), one_line(&finding.evidence));
        warnings.push(format!("warning: {what}\n  help: {}", one_line(&finding.fix)));
    }
    let skipped = report.checks.iter().filter(|c| c.status == Status::Skipped).count();
    if skipped > 0 {
        warnings.push(format!("{skipped} checks could not look; `dssflow preflight` says why"));
    }
    let errors: Vec<&Finding> = report.of(Severity::Error).collect();
    let Some(first) = errors.first() else { return Verdict { warnings, error: None } };
    let (count, plural) = (errors.len(), if errors.len() == 1 { "" } else { "s" });
    let code = if errors.iter().any(|f| f.id == CREDENTIALS) { Code::Credentials } else { Code::Preflight };
    let mut error =
        CommandError::new(code, format!("the world does not fit the site: {count} problem{plural}"));
    error.why = errors
        .iter()
        .map(|f| format!("[{}] {}: {}\n  help: {}", f.id, f.subject, f.evidence, f.fix))
        .collect();
    let error = error
        .hint("nothing was created; mend this and run the command again")
        .hint(format!("look again without starting anything: dssflow preflight --only {}", first.id));
    Verdict { warnings, error: Some(error) }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn report(id: &'static str, severity: Severity) -> Report {
        let finding = Finding {
            id,
            severity,
            subject: "subnet-a".into(),
            evidence: "it is full".into(),
            fix: "free some".into(),
            page: "https://example.com",
        };
        let status = if severity == Severity::Error { Status::Error } else { Status::Skipped };
        Report {
            checks: vec![CheckReport { id, title: "t", status, seen: Vec::new(), findings: vec![finding] }],
            account_alias: None,
        }
    }

    #[test]
    fn errors_are_five_no_credentials_are_four_and_skips_are_none() {
        assert_eq!(exit(&report("P21", Severity::Error)), Exit::Preflight);
        assert_eq!(exit(&report("P01", Severity::Error)), Exit::Credentials);
        assert_eq!(exit(&report("P08", Severity::Skipped)), Exit::Ok);
    }

    #[test]
    fn a_run_is_told_everything_that_stands_against_it() {
        let error = judge(&Ui::detect(), &report("P21", Severity::Error)).unwrap_err();
        assert_eq!(error.exit, Exit::Preflight);
        assert!(error.to_string().contains("[P21] subnet-a: it is full"), "{error}");
        assert!(judge(&Ui::detect(), &report("P21", Severity::Warning)).is_ok());
    }

    #[test]
    fn only_takes_ids_in_any_case_and_suggests() {
        assert_eq!(chosen(&["p09".to_owned()]).unwrap(), ["P09"]);
        assert_eq!(chosen(&["P99".to_owned()]).unwrap_err().code, Code::Usage);
    }

    #[test]
    fn the_report_for_programs() {
        let report = report("P21", Severity::Error);
        let json = serde_json::to_value(checked("bootstrap", "lab", &report)).unwrap();
        assert_eq!((&json["fits"], &json["errors"]), (&Value::from(false), &Value::from(1)));
        assert_eq!(json["checks"][0]["findings"][0]["severity"], "error");
    }
}
