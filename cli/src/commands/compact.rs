//! `store compact`: makes the store as small as what is in it.

use dssflow_engine::event::graphs_named;
use dssflow_engine::store::Store as _;
use dssflow_store::{OpenError, OpenOptions, SledStore};
use schemars::JsonSchema;
use serde::Serialize;

use crate::args::ViewFormat;
use crate::bar::{beside, size};
use crate::commands::copies::blocking;
use crate::config::Settings;
use crate::error::{CommandError, CommandResult, Exit};
use crate::owner;
use crate::ui::Ui;

const COMMAND: &str = "dssflow store compact";

/// What `store compact` prints.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Compacted {
    /// What the data took on the disk, in bytes.
    before_bytes: u64,
    /// What they take now.
    after_bytes: u64,
    /// How many values are live.
    values: u64,
    swept: Removed,
}

/// What no run named any more, and is gone.
#[derive(Serialize, JsonSchema)]
struct Removed {
    graphs: u64,
    payload_files: u64,
    bytes: u64,
}

/// Runs it.
pub(crate) async fn run(ui: &Ui, settings: &Settings, output: ViewFormat) -> CommandResult {
    let dir = &settings.store;
    let store = owner::open_to_drive(dir, COMMAND, false).await?;
    let swept = beside(ui, "looking for what no run names", |_| {
        blocking(async {
            let swept = store.sweep(graphs_named).await;
            owner::close(store).await?;
            Ok::<_, CommandError>(swept?)
        })
    })?;
    let options = OpenOptions { command: COMMAND.to_owned(), ..OpenOptions::default() };
    let report = beside(ui, "opening", |told| {
        tokio::task::block_in_place(|| {
            SledStore::compact(dir, options, &mut |at| told.at(at.doing, at.done, at.total, "values"))
        })
    });
    let report = report.map_err(|error| match error {
        OpenError::Locked { holder, .. } => owner::locked(dir, holder.as_ref()),
        other => other.into(),
    })?;
    let done = Compacted {
        before_bytes: report.before_bytes,
        after_bytes: report.after_bytes,
        values: report.values,
        swept: Removed { graphs: swept.graphs, payload_files: swept.payloads, bytes: swept.bytes },
    };
    match output {
        ViewFormat::Table => ui.out(&format!(
            "before  {}\nafter   {}\nswept   {} graphs, {} payload files, {}",
            size(done.before_bytes),
            size(done.after_bytes),
            done.swept.graphs,
            done.swept.payload_files,
            size(done.swept.bytes)
        )),
        ViewFormat::Json => ui.json(&done, true),
        ViewFormat::Yaml => ui.yaml(&done),
    }
    Ok(Exit::Ok)
}
