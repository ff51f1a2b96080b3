//! `dssflow sandbox`: the cloud on this machine.

use std::path::{Path, PathBuf};

use dssflow_sandbox::dss::behaviour::Behaviour;
use dssflow_sandbox::lake::{GlueChange, SampleDataset};
use dssflow_sandbox::{Fault, FaultCount, World};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use crate::args::{FaultsCommand, SandboxCommand, ViewFormat};
use crate::commands::run::sandbox_options;
use crate::config::Settings;
use crate::describe;
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::ui::{Ui, one_line};
use crate::world::sandbox_dir;

/// Runs one of them.
pub(crate) async fn run(ui: &Ui, settings: &Settings, command: SandboxCommand) -> CommandResult {
    let dir = sandbox_dir(&settings.store);
    match command {
        SandboxCommand::Up { faults, latency, dss } => {
            up(ui, settings, faults.as_deref(), latency, dss.as_deref()).await
        }
        SandboxCommand::Down { yes } => down(ui, &dir, yes).await,
        SandboxCommand::Status { output } => status(ui, &dir, output).await,
        SandboxCommand::Snapshot => {
            let world = dssflow_sandbox::find(&dir).await?.ok_or_else(none)?;
            ui.json(&dssflow_sandbox::snapshot(&world).await?, true);
            Ok(Exit::Ok)
        }
        SandboxCommand::Datasets { count, output } => {
            let world = dssflow_sandbox::find(&dir).await?.ok_or_else(none)?;
            let made = dssflow_sandbox::put_datasets(&world, count).await?;
            let row = |d: &SampleDataset| {
                vec![d.dataset.clone(), d.table.clone(), d.partitions.to_string(), d.location.clone()]
            };
            show(ui, &["DATASET", "TABLE", "PARTITIONS", "FILES"], &made, row, output);
            ui.note("no table is made of them yet: `dssflow run glue-resync --sandbox` does that");
            Ok(Exit::Ok)
        }
        SandboxCommand::Spoil { count, output } => {
            let world = dssflow_sandbox::find(&dir).await?.ok_or_else(none)?;
            let changes = dssflow_sandbox::spoil_tables(&world, count).await?;
            let row = |c: &GlueChange| vec![c.table.clone(), c.change.clone()];
            show(ui, &["TABLE", "CHANGE"], &changes, row, output);
            Ok(Exit::Ok)
        }
        SandboxCommand::Faults(FaultsCommand::Set { file }) => {
            let faults = read_faults(&file)?;
            let world = dssflow_sandbox::find(&dir).await?.ok_or_else(none)?;
            set(ui, &world, &faults).await?;
            Ok(Exit::Ok)
        }
        SandboxCommand::Faults(FaultsCommand::Show { output }) => {
            let world = dssflow_sandbox::find(&dir).await?.ok_or_else(none)?;
            let script = dssflow_sandbox::fault_report(&world).await?;
            match output {
                ViewFormat::Json => ui.json(&script, true),
                ViewFormat::Yaml => ui.yaml(&script),
                ViewFormat::Table if script.is_empty() => ui.out("no fault is set"),
                ViewFormat::Table => ui.out(&script.iter().map(line).collect::<Vec<_>>().join("\n")),
            }
            Ok(Exit::Ok)
        }
    }
}

/// Prints a list of what was done.
fn show<T: Serialize>(
    ui: &Ui,
    heading: &[&str],
    list: &[T],
    row: impl Fn(&T) -> Vec<String>,
    output: ViewFormat,
) {
    match output {
        ViewFormat::Json => ui.json(&list, true),
        ViewFormat::Yaml => ui.yaml(&list),
        ViewFormat::Table => ui.table(heading, &list.iter().map(row).collect::<Vec<_>>(), false),
    }
}

async fn set(ui: &Ui, world: &World, faults: &[Fault]) -> CommandResult<()> {
    dssflow_sandbox::set_faults(world, faults).await?;
    let plural = if faults.len() == 1 { "fault is" } else { "faults are" };
    ui.note(&format!("{} {plural} set", faults.len()));
    Ok(())
}

/// One fault and what it did.
fn line(count: &FaultCount) -> String {
    let FaultCount { fault, matched, fired } = count;
    let value = json!(fault);
    let word = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let action = match &value["action"] {
        serde_json::Value::String(action) => action.clone(),
        action => action.as_object().and_then(|fields| fields.keys().next().cloned()).unwrap_or_default(),
    };
    let never = if *matched == 0 { "; no call has matched it" } else { "" };
    format!(
        "{} {} {action} {}: matched {matched}, struck {fired}{never}",
        word("target"),
        one_line(&fault.op),
        word("phase")
    )
}

fn none() -> CommandError {
    CommandError::new(Code::NoSandbox, "there is no sandbox").hint("`dssflow sandbox up` starts one")
}

/// Ends the sandbox; what stands still in it can then never go on, so that wants a yes.
async fn down(ui: &Ui, dir: &Path, yes: bool) -> CommandResult {
    // A sandbox that does not answer is what this command is for.
    let holds = dssflow_sandbox::status(dir).await.map(|status| status.holds).unwrap_or_default();
    let runs = one_line(&holds.join(", "));
    let lost = match holds.len() {
        0 => String::new(),
        1 => format!("run {runs} can then neither be resumed nor rolled back"),
        _ => format!("runs {runs} can then neither be resumed nor rolled back"),
    };
    if !holds.is_empty() && !yes {
        if !ui.can_ask() {
            return Err(CommandError::new(
                Code::NotConfirmed,
                "the sandbox still holds runs that are not finished",
            )
            .why(lost)
            .hint("add --yes to end it all the same"));
        }
        ui.confirm(&format!("The sandbox ends with everything in it; {lost}."))?;
    }
    let was = dssflow_sandbox::down(dir).await?;
    ui.note(if was { "the sandbox is gone, with everything in it" } else { "there was no sandbox" });
    for run in &holds {
        ui.note(&format!("run {} can no longer be resumed or rolled back", one_line(run)));
    }
    Ok(Exit::Ok)
}

async fn up(
    ui: &Ui,
    settings: &Settings,
    faults: Option<&Path>,
    latency: Option<f64>,
    dss: Option<&Path>,
) -> CommandResult {
    // Read first: a wrong file must not start anything.
    let faults = faults.map(read_faults).transpose()?;
    let behaviour = dss.map(read_behaviour).transpose()?;
    let mut options = sandbox_options(settings)?;
    if let Some(latency) = latency {
        options.latency = latency;
    }
    options.dss = behaviour;
    let world = dssflow_sandbox::up(&options, &|text| ui.note(&one_line(text))).await?;
    if latency.is_some_and(|wanted| (wanted - world.latency).abs() > f64::EPSILON) {
        ui.note(&format!(
            "it runs already, at latency {}: `dssflow sandbox down` first to change that",
            world.latency
        ));
    }
    if let Some(faults) = faults {
        set(ui, &world, &faults).await?;
    }
    for (what, value) in
        [("sandbox", world.id.as_str()), ("AWS", &world.aws_endpoint), ("DSS", &world.dss_url)]
    {
        ui.out(&format!("{what:<8} {value}"));
    }
    ui.out(&format!("{:<8} {}", "site", world.site_yaml.display()));
    ui.out(&format!("{:<8} {}", "sdk site", world.site_yaml_sdk.display()));
    Ok(Exit::Ok)
}

fn read_faults(file: &Path) -> CommandResult<Vec<Fault>> {
    let text = std::fs::read_to_string(file).map_err(|e| {
        CommandError::new(Code::File, format!("the file {} cannot be read", file.display())).why(e)
    })?;
    let faults: Vec<Fault> = serde_json::from_str(&text).map_err(|e| {
        CommandError::new(Code::WrongFaults, format!("{} is no list of faults", file.display())).why(e).hint(
            r#"as [{"target": "aws", "op": "eks:CreateCluster", "action": {"error": {"status": 400, "code": "X", "message": "no"}}}]"#,
        )
    })?;
    let problems = dssflow_sandbox::faults::problems(&faults);
    if problems.is_empty() {
        return Ok(faults);
    }
    let mut error = CommandError::new(
        Code::WrongFaults,
        format!("{} asks for what can never take place; no fault was set", file.display()),
    );
    error.why = problems;
    Err(error.hint("docs/sandbox.md lists what an operation may be and which actions there are"))
}

fn read_behaviour(file: &Path) -> CommandResult<Behaviour> {
    let text = std::fs::read_to_string(file).map_err(|e| {
        CommandError::new(Code::File, format!("the file {} cannot be read", file.display())).why(e)
    })?;
    let wrong = |why: String| {
        CommandError::new(Code::WrongBehaviour, format!("{} does not say how DSS behaves", file.display()))
            .why(why)
            .hint(r#"as {"redaction": "masked", "spellings": {"glue_flavor": "AWS_GLUE"}}"#)
    };
    let behaviour: Behaviour = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
    behaviour.check().map_err(wrong)?;
    Ok(behaviour)
}

/// What `sandbox status` prints.
#[derive(Serialize, JsonSchema)]
pub(crate) struct SandboxShown {
    /// Null when there is none.
    world: Option<WorldShown>,
    /// How long it has been there, in seconds.
    uptime_s: u64,
    /// How long nobody has called it, in seconds.
    idle_s: u64,
    /// Runs that are not finished and need it.
    holds: Vec<String>,
    /// Where the fake DSS listens, when it runs.
    dss_port: Option<u16>,
    /// Calls since it is there.
    calls: u64,
    /// Those of them that may change something.
    mutating_calls: u64,
    /// How many faults are set.
    faults: usize,
    fault_script: Vec<FaultCount>,
}

/// A cloud on this machine.
#[derive(Serialize, JsonSchema)]
struct WorldShown {
    id: String,
    dir: PathBuf,
    pid: u32,
    aws_endpoint: String,
    dss_url: String,
    account: String,
    region: String,
    /// Scale of simulated durations.
    latency: f64,
    /// Its site file.
    site: PathBuf,
}

async fn status(ui: &Ui, dir: &Path, output: ViewFormat) -> CommandResult {
    let status = dssflow_sandbox::status(dir).await?;
    let shown = || SandboxShown {
        world: status.world.as_ref().map(|w| WorldShown {
            id: w.id.clone(),
            dir: w.dir.clone(),
            pid: w.daemon_pid,
            aws_endpoint: w.aws_endpoint.clone(),
            dss_url: w.dss_url.clone(),
            account: w.account.clone(),
            region: w.region.clone(),
            latency: w.latency,
            site: w.site_yaml.clone(),
        }),
        uptime_s: status.uptime_s,
        idle_s: status.idle_s,
        holds: status.holds.clone(),
        dss_port: status.dss_port,
        calls: status.calls,
        mutating_calls: status.mutating_calls,
        faults: status.faults.len(),
        fault_script: status.faults.clone(),
    };
    match output {
        ViewFormat::Json => ui.json(&shown(), true),
        ViewFormat::Yaml => ui.yaml(&shown()),
        ViewFormat::Table => match &status.world {
            None => ui.out("there is no sandbox"),
            Some(world) => {
                let faults = match status.faults.as_slice() {
                    [] => "none".to_owned(),
                    some => some.iter().map(line).collect::<Vec<_>>().join("\n          "),
                };
                let seconds = |s| describe::duration(std::time::Duration::from_secs(s));
                let dss = status
                    .dss_port
                    .map_or_else(|| "not running".to_owned(), |port| format!("listens on port {port}"));
                let holds =
                    if status.holds.is_empty() { "no run".to_owned() } else { status.holds.join(", ") };
                ui.out(
                    &[
                        format!(
                            "sandbox   {} (process {}, since {})",
                            world.id,
                            world.daemon_pid,
                            seconds(status.uptime_s)
                        ),
                        format!(
                            "AWS       {} (account {}, {})",
                            world.aws_endpoint, world.account, world.region
                        ),
                        format!("DSS       {dss}"),
                        format!(
                            "calls     {}, of them changing something {}",
                            status.calls, status.mutating_calls
                        ),
                        format!("faults    {faults}"),
                        format!("idle      {}", seconds(status.idle_s)),
                        format!("held by   {}", one_line(&holds)),
                    ]
                    .join("\n"),
                );
            }
        },
    }
    Ok(if status.world.is_some() { Exit::Ok } else { Exit::Failed })
}
