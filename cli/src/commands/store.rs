//! `dssflow store`: what it is, and whether it is whole. What copies it and puts it back is in rooms of its own.

use std::path::Path;

use dssflow_engine::store::{Store as _, VerifyReport};
use dssflow_store::{ManifestState, OpenError, StoreInfo, info_offline, verify_offline};
use schemars::JsonSchema;
use serde::Serialize;

use crate::access::Access;
use crate::args::{StoreCommand, ViewFormat};
use crate::bar::{beside, size};
use crate::commands::{compact, copies, restore};
use crate::config::Settings;
use crate::describe;
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::owner;
use crate::ui::{Ui, one_line};

/// Runs one of them.
pub(crate) async fn run(ui: &Ui, settings: &Settings, command: &StoreCommand) -> CommandResult {
    match command {
        StoreCommand::Info { output } => info(ui, &settings.store, *output).await,
        StoreCommand::Verify { output } => verify(ui, settings, *output).await,
        StoreCommand::Export(args) => copies::export(ui, settings, args).await,
        StoreCommand::Import(args) => copies::import(ui, settings, args).await,
        StoreCommand::Backup(args) => copies::backup(ui, settings, args).await,
        StoreCommand::Restore(args) => restore::run(ui, settings, args),
        StoreCommand::Compact { output } => compact::run(ui, settings, *output).await,
    }
}

/// Looks at the store on this thread, and shows that it goes on.
fn looking<T>(ui: &Ui, doing: &str, look: impl FnOnce() -> T) -> T {
    beside(ui, doing, |_| tokio::task::block_in_place(look))
}

async fn info(ui: &Ui, dir: &Path, output: ViewFormat) -> CommandResult {
    let info = match looking(ui, "reading", || info_offline(dir)) {
        Ok(info) => info,
        Err(OpenError::Locked { .. }) => match Access::open(dir).await? {
            Access::Owner(client) => client.owner().await?.info,
            // Whoever looked has gone meanwhile.
            Access::Store(store) => store.info().await?,
        },
        Err(error) => return Err(error.into()),
    };
    match output {
        ViewFormat::Table => ui.out(&lines(&info).join("\n")),
        ViewFormat::Json => ui.json(&info, true),
        ViewFormat::Yaml => ui.yaml(&info),
    }
    Ok(Exit::Ok)
}

fn lines(info: &StoreInfo) -> Vec<String> {
    let runs: u64 = info.runs.values().sum();
    let by_status: Vec<String> = info.runs.iter().map(|(status, n)| format!("{n} {status}")).collect();
    let mut lines = vec![
        format!("path     {}", info.path.display()),
        format!("store    {}", info.store),
        format!("format   {}", info.format),
        format!("epoch    {}", info.epoch),
        format!("group    {}", info.last_group),
        format!(
            "runs     {runs}{}",
            if runs > 0 { format!(" ({})", by_status.join(", ")) } else { String::new() }
        ),
        format!("events   {}", info.events),
        format!(
            "on disk  {} ({} data, {} in {} payload file{})",
            size(info.bytes_on_disk),
            size(info.parts.log_bytes),
            size(info.parts.payload_bytes),
            info.parts.payload_files,
            if info.parts.payload_files == 1 { "" } else { "s" }
        ),
        match (info.lag.runs, info.lag.since) {
            (0, _) | (_, None) => "lag      none: nothing is overdue".to_owned(),
            (1, Some(at)) => format!("lag      1 run is overdue since {}", describe::when(at)),
            (n, Some(at)) => format!("lag      {n} runs are overdue, the first since {}", describe::when(at)),
        },
    ];
    if info.parts.leftover_bytes > 0 {
        lines.push(format!(
            "unused   {} left over by a compaction that did not end; the next one removes it",
            size(info.parts.leftover_bytes)
        ));
    }
    if let Some(oldest) = &info.oldest {
        lines.push(format!("oldest   {}, created {}", oldest.run, describe::when(oldest.created)));
    }
    lines.push(match &info.holder {
        Some(holder) => {
            format!("owner    {}; {}", one_line(&holder.to_string()), owner::process_state(holder))
        }
        None => "owner    nobody".to_owned(),
    });
    lines
}

async fn verify(ui: &Ui, settings: &Settings, output: ViewFormat) -> CommandResult {
    let dir = settings.store.as_path();
    let (report, notes, manifest) = match looking(ui, "reading everything", || verify_offline(dir)) {
        Ok(found) => {
            let manifest = match &found.manifest {
                ManifestState::Absent => "none (the last owner did not close the store)".to_owned(),
                ManifestState::Checked { files } => format!("{files} files compared byte by byte"),
                ManifestState::Differs { problems } => format!("{} files differ", problems.len()),
            };
            (found.report, found.notes, manifest)
        }
        Err(OpenError::Locked { .. }) => {
            let access = Access::open(dir).await?;
            let read = beside(ui, "reading everything", |_| {
                copies::blocking(async {
                    Ok::<_, CommandError>(match &access {
                        Access::Owner(client) => client.verify().await?,
                        Access::Store(store) => store.verify().await?,
                    })
                })
            });
            access.close().await?;
            (
                read?,
                vec!["read by the process that owns it; files on disk were not compared".to_owned()],
                "not compared".to_owned(),
            )
        }
        Err(error) => return Err(error.into()),
    };
    let verified = StoreVerified { report, manifest, notes };
    match output {
        ViewFormat::Table => ui.out(&findings(&verified).join("\n")),
        ViewFormat::Json => ui.json(&verified, true),
        ViewFormat::Yaml => ui.yaml(&verified),
    }
    let report = verified.report;
    if report.damage.is_empty() {
        return Ok(Exit::Ok);
    }
    let (n, first) = (report.damage.len(), &report.damage[0]);
    let place = match (&first.run, first.seq) {
        (Some(run), Some(seq)) => format!("run {run}, event {seq}: "),
        (Some(run), None) => format!("run {run}: "),
        (None, _) => String::new(),
    };
    let plural = if n == 1 { "" } else { "s" };
    Err(CommandError::new(
        Code::StoreDamaged,
        format!("the store {} is damaged in {n} place{plural}", dir.display()),
    )
    .why(format!("first: {place}{}", one_line(&first.what)))
    .hint(format!(
        "put the last backup back: {} store restore BACKUP; what is here is kept",
        settings.command()
    ))
    .hint(format!("save what can be read: {} store export -o FILE", settings.command())))
}

/// What `store verify` prints.
#[derive(Serialize, JsonSchema)]
pub(crate) struct StoreVerified {
    report: VerifyReport,
    /// How the files compare with what they were when the store was closed, in words.
    manifest: String,
    /// What else was seen.
    notes: Vec<String>,
}

fn findings(verified: &StoreVerified) -> Vec<String> {
    let StoreVerified { report, manifest, notes } = verified;
    let mut lines = vec![
        format!("read      {} runs, {} events, {} bytes", report.runs, report.events, report.bytes),
        format!("manifest  {manifest}"),
    ];
    lines.extend(notes.iter().map(|note| format!("note      {}", one_line(note))));
    for damage in &report.damage {
        let run = damage.run.as_ref().map_or_else(String::new, |run| format!("run {run} "));
        let seq = damage.seq.map_or_else(String::new, |seq| format!("event {seq} "));
        lines.push(format!("damage    {run}{seq}{}", one_line(&damage.what)));
    }
    if report.damage.is_empty() {
        lines.push("whole     nothing is wrong".to_owned());
    }
    lines
}
