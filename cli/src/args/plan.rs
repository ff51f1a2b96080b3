//! The options of commands that look at the world and change nothing: plans, drift, resources.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::operate::Reason;
use super::{FollowOutput, ListFormat, RunRef, ViewFormat};

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The workflow; `dssflow workflows ls` lists them
    pub(crate) workflow: String,
    /// The site file [default: site.yaml; with --sandbox the one that comes with it]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Set a value of the site file, as cluster.mode=sdk or `connections[0].bucket=b`; the value is YAML
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Look at the sandbox, which is started when it is not there; -f is then optional
    #[arg(long)]
    pub(crate) sandbox: bool,
    /// Save the plan, for `dssflow run WORKFLOW --plan FILE`
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Replace the file when it exists
    #[arg(long, requires = "out")]
    pub(crate) force: bool,
    /// Exit with 0 when nothing would change, 2 when something would, 5 when a run would stop
    #[arg(long)]
    pub(crate) detailed_exitcode: bool,
    /// Print the IAM policies that the site's principals need, as JSON, and look at nothing: all of them, or those of
    /// dssflow, source, service-user or connection:NAME. One that is too large for IAM comes in parts, as dssflow:look,
    /// dssflow:machines and dssflow:data, which can be asked for by name
    #[arg(
        long,
        value_name = "PRINCIPAL",
        num_args = 0..=1,
        default_missing_value = "all",
        conflicts_with_all = ["out", "detailed_exitcode", "output"]
    )]
    pub(crate) iam_policy: Option<String>,
    /// glue-resync: only this dataset, as PROJECT.name, with * (may be repeated)
    #[arg(long, value_name = "DATASET")]
    pub(crate) dataset: Vec<String>,
    /// glue-resync: only datasets on this S3 connection of DSS, with * (may be repeated)
    #[arg(long, value_name = "NAME")]
    pub(crate) connection: Vec<String>,
    /// How it is printed
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: ViewFormat,
}

#[derive(Debug, Args)]
pub(crate) struct DriftArgs {
    #[command(flatten)]
    pub(crate) run: RunRef,
    /// How it is printed
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: ViewFormat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ResourcesCommand {
    /// List what runs made that is still there, as the store knows it
    #[command(after_help = "Examples:\n  dssflow resources ls\n  dssflow resources ls bootstrap-lab -o json")]
    Ls(ResourcesLsArgs),
    /// Look whether what runs made is there, and whose it is
    #[command(after_help = "Exit codes: 0 all is there and the run's, 2 something is not.\n\n\
                      Examples:\n  dssflow resources verify bootstrap-lab")]
    Verify(ResourcesRunArgs),
    /// Search AWS for what carries the marks of a run's store and site and is in no run's list
    #[command(after_help = "Exit codes: 0 nothing was found, 2 something was.\n\n\
                      Examples:\n  dssflow resources orphans bootstrap-lab")]
    Orphans(ResourcesRunArgs),
    /// Let a run use what it found in the place of what a step makes and nobody of this site made
    #[command(
        after_help = "Only where the site file allows it (`adopt`). What is adopted is never changed back or deleted. The run goes on.\n\n\
                      Examples:\n  dssflow resources adopt bootstrap-lab --reason 'the team uses it already'\n  dssflow resources adopt @latest --step ecr-repositories -f site.yaml --reason 'made by terraform'"
    )]
    Adopt(ResourcesAdoptArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ResourcesAdoptArgs {
    /// The run: its id, an unambiguous beginning of it, or @latest
    pub(crate) run: String,
    /// The step whose thing is there already (may be repeated) [default: every step that something stands in the way of]
    #[arg(long, value_name = "STEP")]
    pub(crate) step: Vec<String>,
    /// The site file, whose `adopt` must name the steps [default: site.yaml; of a run in the sandbox the one that came with it]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Set a value of the site file, as adopt=[ecr-repositories]; the value is YAML
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) reason: Reason,
    #[command(flatten)]
    pub(crate) output: FollowOutput,
}

#[derive(Debug, Args)]
pub(crate) struct ResourcesLsArgs {
    /// The run: its id, an unambiguous beginning of it, or @latest [default: all runs]
    pub(crate) run: Option<String>,
    /// How they are printed
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: ListFormat,
}

#[derive(Debug, Args)]
pub(crate) struct ResourcesRunArgs {
    #[command(flatten)]
    pub(crate) run: RunRef,
    /// How they are printed
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: ListFormat,
}
