//! `store compact`: makes the store as small as what is in it.

use dssflow_engine::event::graphs_named;
use dssflow_engine::store::Store as _;
use dssflow_store::{OpenError, OpenOptions, SledStore};
use serde_json::json;

use crate::args::ViewFormat;
use crate::bar::{Bar, size};
use crate::config::Settings;
use crate::error::{CommandResult, Exit};
use crate::owner;
use crate::ui::Ui;

const COMMAND: &str = "dssflow store compact";

/// Runs it.
pub(crate) async fn run(ui: &Ui, settings: &Settings, output: ViewFormat) -> CommandResult {
    let dir = &settings.store;
    let store = owner::open_to_drive(dir, COMMAND, false).await?;
    let swept = store.sweep(graphs_named).await;
    owner::close(store).await?;
    let swept = swept?;
    let mut bar = Bar::new(ui);
    let options = OpenOptions { command: COMMAND.to_owned(), ..OpenOptions::default() };
    let report = tokio::task::block_in_place(|| {
        SledStore::compact(dir, options, &mut |at| bar.at(at.doing, at.done, at.total, "values"))
    });
    drop(bar);
    let report = report.map_err(|error| match error {
        OpenError::Locked { holder, .. } => owner::locked(dir, holder.as_ref()),
        other => other.into(),
    })?;
    let value = json!({
        "before_bytes": report.before_bytes,
        "after_bytes": report.after_bytes,
        "values": report.values,
        "swept": { "graphs": swept.graphs, "payload_files": swept.payloads, "bytes": swept.bytes },
    });
    match output {
        ViewFormat::Table => ui.out(&format!(
            "before  {}\nafter   {}\nswept   {} graphs, {} payload files, {}",
            size(report.before_bytes),
            size(report.after_bytes),
            swept.graphs,
            swept.payloads,
            size(swept.bytes)
        )),
        ViewFormat::Json => ui.json(&value, true),
        ViewFormat::Yaml => ui.yaml(&value),
    }
    Ok(Exit::Ok)
}
