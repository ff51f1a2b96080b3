//! The options of `dssflow preflight`.

use std::path::PathBuf;

use clap::Args;

use super::ViewFormat;

#[derive(Debug, Args)]
pub(crate) struct PreflightArgs {
    /// The workflow
    #[arg(default_value = "bootstrap")]
    pub(crate) workflow: String,
    /// The site file [default: site.yaml; with --sandbox the one that comes with it]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Set a value of the site file, as cluster.mode=sdk; the value is YAML
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Only this check, as P09 (may be repeated)
    #[arg(long, value_name = "ID")]
    pub(crate) only: Vec<String>,
    /// Look at the sandbox, which is started when it is not there; -f is then optional
    #[arg(long)]
    pub(crate) sandbox: bool,
    /// How the report is printed
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: ViewFormat,
}
