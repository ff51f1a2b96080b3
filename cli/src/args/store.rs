//! Arguments of what is done with the store as a whole: looked at, copied, put back, made smaller.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ViewFormat;

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Where it is, how large, what it has, how far it is behind, who owns it
    #[command(after_help = "Examples:\n  dssflow store info\n  dssflow store info -o json")]
    Info {
        /// How it is printed
        #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
        output: ViewFormat,
    },
    /// Read everything and check it; exit 8 when something is wrong
    #[command(after_help = "Examples:\n  dssflow store verify")]
    Verify {
        /// How it is printed
        #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
        output: ViewFormat,
    },
    /// Save what can be read, of a damaged store too: each run up to its first bad event
    #[command(after_help = "Changes nothing. Of a damaged store it says what is lost, and exits 8.\n\n\
                      Examples:\n  dssflow store export -o store.ndjson\n  dssflow store export --run bootstrap-lab -o -")]
    Export(ExportArgs),
    /// Bring in the runs of another store as history: they can be looked at and never go on
    #[command(after_help = "Examples:\n  dssflow store import other.ndjson")]
    Import(ImportArgs),
    /// Write a backup, also while runs are going on
    #[command(after_help = "The file is there whole or not at all, and was read back.\n\n\
                      Examples:\n  dssflow store backup dssflow.ndjson\n  dssflow store backup /backup/dssflow.ndjson --force")]
    Backup(BackupArgs),
    /// Put a backup back, into an empty directory or in place of what is there, which is kept
    #[command(
        after_help = "The store keeps its id. Runs that had not ended are paused: what they did since the backup is \
                      looked for when they are resumed.\n\n\
                      Examples:\n  dssflow store restore dssflow.ndjson\n  dssflow store restore dssflow.ndjson --yes"
    )]
    Restore(RestoreArgs),
    /// Make it as small as what is in it; nobody may own it
    #[command(after_help = "Examples:\n  dssflow store compact")]
    Compact {
        /// How the result is printed
        #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
        output: ViewFormat,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The file to write; - is stdout
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub(crate) output: PathBuf,
    /// Only this run, by its whole id (may be repeated)
    #[arg(long, value_name = "RUN")]
    pub(crate) run: Vec<String>,
    /// Replace the file when it exists
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The file, as written by `store backup`, `store export` or `runs export`; - is stdin
    pub(crate) file: PathBuf,
    /// Go on past what is damaged, and take every run that is whole
    #[arg(long)]
    pub(crate) salvage: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The file to write
    pub(crate) file: PathBuf,
    /// Replace the file when it exists
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The backup
    pub(crate) file: PathBuf,
    /// Do not ask before a store that is whole is put aside
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Go on past what is damaged in the backup, and take every run that is whole
    #[arg(long)]
    pub(crate) salvage: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunExportArgs {
    /// The run: its id, an unambiguous beginning of it, or @latest
    pub(crate) run: String,
    /// The file to write; - is stdout
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub(crate) output: PathBuf,
    /// Replace the file when it exists
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Only runs to which nothing happened for so long, as 90d or 12h
    #[arg(long, value_name = "AGE", default_value = "90d")]
    pub(crate) older_than: String,
    /// But not the last so many, of each workflow and site, that have ended
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) keep: usize,
    /// Only runs that ended so, as succeeded or rolled_back (may be repeated)
    #[arg(long, value_name = "STATUS")]
    pub(crate) status: Vec<String>,
    /// Only runs of this workflow
    #[arg(long, value_name = "NAME")]
    pub(crate) workflow: Option<String>,
    /// Only runs of this site
    #[arg(long, value_name = "NAME")]
    pub(crate) site: Option<String>,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// How what is removed is printed
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: ViewFormat,
}
