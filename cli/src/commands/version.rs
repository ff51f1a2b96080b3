//! `dssflow version`: what this program is, and which stores and backups it can read.

use schemars::JsonSchema;
use serde::Serialize;

use crate::args::{VersionArgs, ViewFormat};
use crate::error::Exit;
use crate::ui::Ui;

/// What this program is.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Version {
    /// As `0.2.0`.
    version: &'static str,
    /// The commit it was built from; null where that is not known. In a debug build the one that was checked out when the
    /// build was last set up: there may be later changes.
    commit: Option<&'static str>,
    /// `release` or `debug`.
    profile: &'static str,
    /// The compiler.
    rustc: &'static str,
    /// What it was built for, as `x86_64-unknown-linux-gnu`.
    target: &'static str,
    /// Formats of stores.
    store_format: Formats,
    /// Formats of events in a store and in streams.
    event_format: Formats,
    /// Formats of backups and exported runs.
    archive_format: Formats,
}

/// Which formats can be used.
#[derive(Debug, Serialize, JsonSchema)]
struct Formats {
    /// The format that is written.
    writes: u32,
    /// All that are read.
    reads: Vec<u32>,
}

impl Formats {
    fn up_to(latest: u32) -> Self {
        Self { writes: latest, reads: (1..=latest).collect() }
    }
}

impl Version {
    pub(crate) fn of_this() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            commit: Some(env!("DSSFLOW_BUILD_COMMIT")).filter(|commit| !commit.is_empty()),
            profile: env!("DSSFLOW_BUILD_PROFILE"),
            rustc: env!("DSSFLOW_BUILD_RUSTC"),
            target: env!("DSSFLOW_BUILD_TARGET"),
            store_format: Formats::up_to(dssflow_store::STORE_FORMAT),
            event_format: Formats::up_to(dssflow_engine::event::EVENT_FORMAT.into()),
            archive_format: Formats::up_to(dssflow_engine::archive::ARCHIVE_FORMAT.into()),
        }
    }
}

/// Prints name and version, or all there is to say.
pub(crate) fn run(ui: &Ui, args: &VersionArgs) -> Exit {
    match args.output {
        ViewFormat::Table => ui.out(concat!("dssflow ", env!("CARGO_PKG_VERSION"))),
        ViewFormat::Json => ui.json(&Version::of_this(), true),
        ViewFormat::Yaml => ui.yaml(&Version::of_this()),
    }
    Exit::Ok
}
