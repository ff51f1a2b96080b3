//! `dssflow drift`: compares what a run left with the world, and changes nothing.

use dssflow_engine::id::RunId;
use dssflow_engine::runtime::{Finding, Inspected};
use schemars::JsonSchema;
use serde::Serialize;

use super::target::Target;
use crate::args::{DriftArgs, ViewFormat};
use crate::config::Settings;
use crate::describe;
use crate::error::{CommandResult, Exit};
use crate::ui::{Style, Ui, one_line};
use crate::width::cut;

/// The most characters that are shown of a value.
const MAX_VALUE: usize = 80;

/// What `drift` prints.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Drift {
    run: RunId,
    site: String,
    /// Whether anything differs.
    drifted: bool,
    steps: Vec<Inspected>,
}

/// Compares and prints.
pub(crate) async fn run(ui: &Ui, settings: &Settings, args: &DriftArgs) -> CommandResult {
    let target = Target::find(settings, &args.run.run, &format!("drift {}", args.run.run)).await?;
    let (view, found) = Box::pin(target.inspect(ui, settings, "drift")).await?;
    let drifted = found.iter().any(|step| step.finding.is_drift());
    let unknown = found.iter().any(|step| step.finding == Finding::Unknown);
    let drift = Drift { run: view.run, site: view.site, drifted, steps: found };
    match args.output {
        ViewFormat::Table => ui.out(&picture(ui, drift.run.as_str(), &drift.steps)),
        ViewFormat::Json => ui.json(&drift, true),
        ViewFormat::Yaml => ui.yaml(&drift),
    }
    Ok(match (drifted, unknown) {
        (true, _) => Exit::Changes,
        (false, true) => Exit::Failed,
        (false, false) => Exit::Ok,
    })
}

fn picture(ui: &Ui, run: &str, found: &[Inspected]) -> String {
    let told = |step: &&Inspected| step.finding.is_drift() || step.finding == Finding::Unknown;
    let width = found.iter().filter(told).map(|s| s.step.as_str().len()).max().unwrap_or_default();
    let mut lines = Vec::new();
    for step in found.iter().filter(told) {
        let word = ui.mark(Style::Red, &describe::words(step.finding.as_str()));
        let mut line = format!("{:width$}  {word}", step.step.as_str());
        if !step.title.is_empty() {
            put!(line, ": {}", one_line(&step.title));
        }
        lines.push(line);
        let mut more = |text: String| lines.push(format!("{:width$}    {text}", ""));
        if !step.note.is_empty() {
            more(one_line(&step.note));
        }
        if let Some(error) = &step.error {
            more(describe::error(error));
            if let Some(help) = &error.help {
                more(format!("help: {}", one_line(help)));
            }
        }
        for difference in &step.differences {
            more(format!(
                "{}: {} -> {}",
                one_line(&difference.at),
                short(&difference.was),
                short(&difference.is)
            ));
        }
    }
    let counts: Vec<String> = Finding::ALL
        .iter()
        .map(|&finding| (finding, found.iter().filter(|s| s.finding == finding).count()))
        .filter(|&(finding, n)| n > 0 || finding == Finding::Fine)
        .map(|(finding, n)| format!("{n} {}", describe::words(finding.as_str())))
        .collect();
    lines.push(format!("run {run}: {}", counts.join(", ")));
    lines.join("\n")
}

/// A value on one line, cut where it is long.
fn short(value: &serde_json::Value) -> String {
    cut(&one_line(&value.to_string()), MAX_VALUE)
}
