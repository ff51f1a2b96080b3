//! The command line. What stands in the documentation comments here is what `--help` prints.

mod dss;
mod formats;
mod operate;
mod plan;
mod preflight;
mod product;
mod schedules;
mod serve;
mod store;
mod timeline;
mod tree;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Code, CommandError, CommandResult};

pub(crate) use dss::{CaptureArgs, CaptureKind, DssCommand};
pub(crate) use formats::{EventsFormat, FollowFormat, FollowOutput, GraphFormat, ListFormat, ViewFormat};
pub(crate) use operate::{
    CompleteArgs, ForkArgs, GateArgs, MarkArgs, RerunArgs, RetryArgs, SignalArgs, SkipArgs, StepRef,
    TerminateArgs, UnpauseArgs,
};

pub(crate) use plan::{
    DriftArgs, PlanArgs, ResourcesAdoptArgs, ResourcesCommand, ResourcesLsArgs, ResourcesRunArgs,
};
pub(crate) use preflight::PreflightArgs;
pub(crate) use product::{CompletionsArgs, ConfigCommand, HelpArgs, ManArgs, VersionArgs};
pub(crate) use schedules::{AskArgs, BackfillArgs, SchedulesCommand, SpecArgs, UpdateArgs};
pub(crate) use serve::ServeArgs;
pub(crate) use store::{
    BackupArgs, ExportArgs, ImportArgs, PruneArgs, RestoreArgs, RunExportArgs, StoreCommand,
};
pub(crate) use timeline::{TimelineArgs, TimelineFormat};
pub(crate) use tree::{Typed, command, leaf, parse};

/// Durable workflows that take Dataiku DSS on AWS from nothing to its reference architecture, and back.
#[derive(Debug, Parser)]
#[command(
    name = "dssflow",
    version,
    propagate_version = true,
    max_term_width = 110,
    disable_help_subcommand = true
)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 something differs, 3 paused, 4 credentials, 5 the world does not fit, 6 failed and \
                        rolled back, 7 rollback incomplete, 8 store in use or damaged, 64 usage, 130/143 signal.\n\nTopics: dssflow help \
                        environment, exit-codes, files, formatting, signals"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Directory of the store [default: $XDG_DATA_HOME/dssflow or ~/.local/share/dssflow]
    #[arg(long, global = true, value_name = "DIR", env = "DSSFLOW_STORE", hide_env_values = true)]
    pub(crate) store: Option<PathBuf>,
    /// What is logged to stderr: error, warn, info, debug, trace, off, or a list of target=level [default: warn; info
    /// for serve]
    #[arg(long, global = true, value_name = "LEVEL", env = "DSSFLOW_LOG")]
    pub(crate) log: Option<String>,
    /// How it is logged [default: text]
    #[arg(long, global = true, value_enum, value_name = "FORMAT", env = "DSSFLOW_LOG_FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// How errors are printed on stderr [default: human]
    #[arg(long, global = true, value_enum, value_name = "FORMAT", env = "DSSFLOW_ERROR_FORMAT")]
    pub(crate) error_format: Option<ErrorFormat>,
    /// Which of these were typed, and not said by the environment.
    #[arg(skip)]
    pub(crate) typed: Vec<&'static str>,
}

/// How lines of the log are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How errors are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ErrorFormat {
    /// For people.
    Human,
    /// One JSON object on one line.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a run of a workflow, or go on with the unfinished run of the same site
    #[command(
        after_help = "Examples:\n  dssflow run bootstrap -f site.yaml\n  dssflow run bootstrap --sandbox\n  dssflow run bootstrap --plan plan.json\n  dssflow run glue-resync -f site.yaml --dry-run\n  dssflow run glue-resync --dataset SALES.orders"
    )]
    Run(RunArgs),
    /// Look whether the world fits a site, before anything is made; `run` does it by itself
    #[command(
        after_help = "Exit codes: 0 it fits, 4 there are no credentials, 5 something stands against the run. Nothing is changed. \
                      A check that may not look says so and is no reason to stop.\n\n\
                      Examples:\n  dssflow preflight -f site.yaml\n  dssflow preflight bootstrap --only P09 --only P20\n  dssflow preflight bootstrap --sandbox -o json"
    )]
    Preflight(PreflightArgs),
    /// Show what a run would do, step by step, without changing anything
    #[command(
        after_help = "Signs: + create, ~ update, = adopt, - delete, ? gate, > in progress outside, . nothing, ! conflict or cannot tell.\n\n\
                      Examples:\n  dssflow plan bootstrap -f site.yaml\n  dssflow plan bootstrap --sandbox --detailed-exitcode\n  dssflow plan bootstrap --out plan.json\n  dssflow plan bootstrap --iam-policy connection:s3-main\n  dssflow plan glue-resync --connection s3-main"
    )]
    Plan(PlanArgs),
    /// Go on with a run where it is: after a crash, a pause or a failure
    #[command(after_help = "Examples:\n  dssflow resume @latest\n  dssflow resume bootstrap-lab --upgrade")]
    Resume(ResumeArgs),
    /// Try a step at once that failed or waits for its next try, and go on with the run where it stood still for that
    #[command(
        after_help = "Of a run that has ended, that nobody drives, or that paused because of the step, the run goes on. \
                      A run that stands still for another reason stays so: the wish is written down for its next resume.\n\n\
                      Examples:\n  dssflow retry bootstrap-lab --step cluster --reason 'quota was raised'"
    )]
    Retry(RetryArgs),
    /// Do a step and everything that depends on it again, whatever became of it
    #[command(
        after_help = "Examples:\n  dssflow rerun bootstrap-lab --from images --reason 'new base image'\n  dssflow rerun @latest --from images --yes"
    )]
    Rerun(RerunArgs),
    /// Start a new run that takes over what another did before a step
    #[command(after_help = "What is taken over is not the new run's: it never takes it back.\n\n\
                      Examples:\n  dssflow fork bootstrap-lab --from cluster --id bootstrap-lab-b")]
    Fork(ForkArgs),
    /// Leave a step out; what refers to its output gets null
    #[command(after_help = "Examples:\n  dssflow skip bootstrap-lab athena --reason 'not used here'")]
    Skip(SkipArgs),
    /// Take a step as done, with an output of yours
    #[command(
        after_help = "Examples:\n  dssflow complete @latest registry --reason 'made by hand' --output '{\"url\":\"r\"}'\n  dssflow complete @latest registry --reason 'made by hand' --output @registry.json"
    )]
    Complete(CompleteArgs),
    /// Let a gate through
    #[command(after_help = "Examples:\n  dssflow approve bootstrap-lab go-live --note 'seen by ops'")]
    Approve(GateArgs),
    /// Decide against a gate
    #[command(after_help = "Examples:\n  dssflow reject bootstrap-lab go-live --note 'after the freeze'")]
    Reject(GateArgs),
    /// Send a run a signal; the first step that waits for it takes it, or the next that will
    #[command(
        after_help = "Examples:\n  dssflow signal bootstrap-lab data-ready\n  dssflow signal @latest data-ready --payload '{\"rows\":12}'"
    )]
    Signal(SignalArgs),
    /// Take back everything a run made, or what came after a step
    #[command(
        after_help = "Examples:\n  dssflow rollback bootstrap-lab --dry-run\n  dssflow rollback bootstrap-lab\n  dssflow rollback bootstrap-lab --to registry\n  dssflow rollback bootstrap-lab --retry --yes"
    )]
    Rollback(RollbackArgs),
    /// Say that a step which could not be taken back is gone: somebody took it back by hand
    #[command(
        after_help = "Examples:\n  dssflow mark-undone bootstrap-lab cluster --reason 'deleted in the console'"
    )]
    MarkUndone(MarkArgs),
    /// Leave what a step made, and could not be taken back, where it is
    #[command(
        after_help = "Examples:\n  dssflow abandon bootstrap-lab bucket --reason 'kept by audit' --yes"
    )]
    Abandon(MarkArgs),
    /// Let a run that another process drives come to a stand
    #[command(after_help = "Examples:\n  dssflow pause bootstrap-lab --reason 'maintenance'")]
    Pause(PauseArgs),
    /// Go on with a run that stands still; the same as resume
    #[command(after_help = "Examples:\n  dssflow unpause bootstrap-lab")]
    Unpause(UnpauseArgs),
    /// End a run, letting attempts under way end first
    #[command(
        after_help = "Examples:\n  dssflow cancel bootstrap-lab\n  dssflow cancel bootstrap-lab --rollback --yes"
    )]
    Cancel(CancelArgs),
    /// End a run at once; what it made stays, and what was under way is left behind
    #[command(after_help = "Examples:\n  dssflow terminate bootstrap-lab --reason 'wrong account' --yes")]
    Terminate(TerminateArgs),
    /// Look at runs
    #[command(subcommand)]
    Runs(RunsCommand),
    /// Why a run does not move, and what to type next
    #[command(after_help = "Examples:\n  dssflow why @latest")]
    Why(WhyArgs),
    /// Compare what a run left with the world, without changing anything
    #[command(after_help = "Exit codes: 0 nothing differs, 1 a look failed, 2 something differs.\n\n\
                      Examples:\n  dssflow drift bootstrap-lab\n  dssflow drift @latest -o json")]
    Drift(DriftArgs),
    /// What runs made that is still there
    #[command(subcommand)]
    Resources(ResourcesCommand),
    /// Start runs at given times: make, look at, pause and fill schedules
    #[command(subcommand)]
    Schedules(SchedulesCommand),
    /// Look at workflows
    #[command(subcommand)]
    Workflows(WorkflowsCommand),
    /// Look at the store, back it up, put it back
    #[command(subcommand)]
    Store(StoreCommand),
    /// Own the store for good: drive every run, take new ones from other commands, and serve the HTTP API
    #[command(
        after_help = "Other commands find it by the store and go through it by themselves. It stops on Ctrl-C and SIGTERM: the \
                      runs are saved, and go on when it starts again; a second signal stops at once.\n\n\
                      Exit codes: 0 stopped and everything saved, 8 the store is in use or failed, 64 a wrong option, 130/143 \
                      stopped at once.\n\n\
                      Examples:\n  dssflow serve\n  dssflow serve --listen 127.0.0.1:7477"
    )]
    Serve(ServeArgs),
    /// A cloud on this machine to try dssflow against, without an account
    #[command(subcommand)]
    Sandbox(SandboxCommand),
    /// Look at a DSS through its API
    #[command(subcommand)]
    Dss(DssCommand),
    /// Write a commented site file to start from
    #[command(
        after_help = "Examples:\n  dssflow init bootstrap -o site.yaml\n  dssflow init glue-resync -o resync.yaml"
    )]
    Init(InitArgs),
    /// Print the version
    #[command(
        after_help = "As JSON also the commit, the compiler, the target, and the formats of stores, events and backups that it \
                      reads and writes.\n\n\
                      Examples:\n  dssflow version\n  dssflow version -o json"
    )]
    Version(VersionArgs),
    /// Explain an error code
    #[command(after_help = "Examples:\n  dssflow explain DF0010")]
    Explain(ExplainArgs),
    /// Look at the settings that hold here, and write files of them
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print what a shell has to be told to complete commands, runs, steps, workflows and schedules
    #[command(
        after_help = "It goes into the shell's start file; for bash: echo 'source <(dssflow completions bash)' >> ~/.bashrc\n\n\
                      Examples:\n  dssflow completions bash\n  dssflow completions zsh"
    )]
    Completions(CompletionsArgs),
    /// Write manual pages: one a command, and one a help topic
    #[command(after_help = "Examples:\n  dssflow man share/man/man1")]
    Man(ManArgs),
    /// Print the help of a command, or a page on what holds for all of them
    #[command(after_help = "Topics: environment, exit-codes, files, formatting, signals.\n\n\
                      Examples:\n  dssflow help exit-codes\n  dssflow help runs get")]
    Help(HelpArgs),
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct RunArgs {
    /// The workflow; `dssflow workflows ls` lists them
    pub(crate) workflow: String,
    /// The site file [default: site.yaml; with --sandbox the one that comes with it]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Set a value of the site file, as cluster.mode=sdk or `connections[0].bucket=b`; the value is YAML
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// The run's id [default: made from workflow and site]
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
    /// Do not ask before something is made that costs
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Run what this plan says, made by `dssflow plan --out FILE`; refused when the world moved since
    #[arg(long, value_name = "FILE", conflicts_with_all = ["set", "parallelism"])]
    pub(crate) plan: Option<PathBuf>,
    /// Leave the run to the process that serves the store, and do not follow it
    #[arg(long)]
    pub(crate) detach: bool,
    /// Where a process serves the store: let the run act as that process, whoever you are
    #[arg(long)]
    pub(crate) as_served: bool,
    /// How many steps run at once [default: as the site file says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) parallelism: Option<u32>,
    /// Run against the sandbox, which is started when it is not there; -f is then optional
    #[arg(long)]
    pub(crate) sandbox: bool,
    #[command(flatten)]
    pub(crate) select: SelectArgs,
    #[command(flatten)]
    pub(crate) output: FollowOutput,
}

/// What a resync looks at, and whether it changes anything.
#[derive(Debug, Default, Args)]
pub(crate) struct SelectArgs {
    /// glue-resync: change nothing, only report what differs
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// glue-resync: only this dataset, as PROJECT.name, with * (may be repeated)
    #[arg(long, value_name = "DATASET")]
    pub(crate) dataset: Vec<String>,
    /// glue-resync: only datasets on this S3 connection of DSS, with * (may be repeated)
    #[arg(long, value_name = "NAME")]
    pub(crate) connection: Vec<String>,
}

impl RunArgs {
    /// Refuses what only a resync takes.
    ///
    /// # Errors
    /// When it was given.
    pub(crate) fn must_select_nothing(&self) -> CommandResult<()> {
        let SelectArgs { dry_run, dataset, connection } = &self.select;
        let given = [
            (*dry_run, "--dry-run"),
            (!dataset.is_empty(), "--dataset"),
            (!connection.is_empty(), "--connection"),
        ];
        match given.iter().find(|(given, _)| *given) {
            None => Ok(()),
            Some((_, flag)) => Err(CommandError::new(Code::Usage, format!("{flag} is for glue-resync"))
                .hint(format!("what {} would do: `dssflow plan {}`", self.workflow, self.workflow))),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// The run: its id, an unambiguous beginning of it, or @latest
    #[arg(default_value = "@latest")]
    pub(crate) run: String,
    /// Bring the run to the workflow as this version has it; what differs is shown first
    #[arg(long)]
    pub(crate) upgrade: bool,
    /// Do not ask before an upgrade
    #[arg(short, long, requires = "upgrade")]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) output: FollowOutput,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct RollbackArgs {
    /// The run: its id, an unambiguous beginning of it, or @latest
    pub(crate) run: String,
    /// Take back only what depends on this step; the step itself and everything else stays
    #[arg(long, value_name = "STEP")]
    pub(crate) to: Option<String>,
    /// Leave this step's work in place (may be repeated)
    #[arg(long, value_name = "STEP")]
    pub(crate) keep: Vec<String>,
    /// Try again what could not be taken back, and nothing else
    #[arg(long, conflicts_with_all = ["to", "keep"])]
    pub(crate) retry: bool,
    /// Only show what would be taken back and what would stay, from what the store knows of the run
    #[arg(long, conflicts_with_all = ["retry", "detach"])]
    pub(crate) dry_run: bool,
    /// Do not ask before things are deleted
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Leave it to the process that drives the run, and do not wait until it is done
    #[arg(long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) output: FollowOutput,
}

#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// The run: its id, an unambiguous beginning of it, or @latest
    pub(crate) run: String,
    /// Why, for the history
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// The run: its id, an unambiguous beginning of it, or @latest
    pub(crate) run: String,
    /// Take back what it made, instead of leaving it
    #[arg(long)]
    pub(crate) rollback: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Why, for the history
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RunsCommand {
    /// List runs, newest first
    #[command(
        after_help = "Examples:\n  dssflow runs ls --status failed --since 2d\n  dssflow runs ls --label team=data"
    )]
    Ls(LsArgs),
    /// Show one run with its steps
    #[command(after_help = "Examples:\n  dssflow runs get bootstrap-lab -o json")]
    Get(GetArgs),
    /// Print the history of a run
    #[command(after_help = "Examples:\n  dssflow runs events @latest --follow")]
    Events(EventsArgs),
    /// Print what was said while a run was driven
    #[command(
        after_help = "What is kept is set by DSSFLOW_RUN_LOG, as --log is; the default is info. It lies beside the store and goes with \
                      the run.\n\n\
                      Examples:\n  dssflow runs logs @latest --follow\n  dssflow runs logs bootstrap-lab --step cluster-start --level warn -o json"
    )]
    Logs(LogsArgs),
    /// Watch a run that is being driven
    #[command(after_help = "Examples:\n  dssflow runs watch @latest")]
    Watch(RunRef),
    /// Draw when each attempt of each step ran, and what it waited for
    #[command(
        after_help = "Examples:\n  dssflow runs timeline @latest\n  dssflow runs timeline bootstrap-lab --width 160\n  dssflow runs timeline @latest -o svg"
    )]
    Timeline(TimelineArgs),
    /// Draw a run's graph with where each step stands
    #[command(
        after_help = "Examples:\n  dssflow runs graph @latest -o mermaid\n  dssflow runs graph @latest -o svg"
    )]
    Graph(RunGraphArgs),
    /// Write one run to a file, to look at it elsewhere
    #[command(after_help = "Examples:\n  dssflow runs export @latest -o run.ndjson")]
    Export(RunExportArgs),
    /// Bring in the runs of a file as history: they can be looked at and never go on
    #[command(after_help = "Examples:\n  dssflow runs import run.ndjson")]
    Import(ImportArgs),
    /// Remove runs that have ended and own nothing, with all that is known of them
    #[command(
        after_help = "A run that has not ended, or that made things which are still there, always stays. A run goes with \
                      those that its steps started, or not at all.\n\n\
                      Examples:\n  dssflow runs prune --older-than 90d --dry-run\n  dssflow runs prune --older-than 0s --keep 100 --status rolled_back --yes"
    )]
    Prune(PruneArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RunRef {
    /// The run: its id, an unambiguous beginning of it, or @latest
    #[arg(default_value = "@latest")]
    pub(crate) run: String,
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Only runs in this state, as failed or paused (may be repeated)
    #[arg(long, value_name = "STATUS")]
    pub(crate) status: Vec<String>,
    /// Only runs of this workflow
    #[arg(long, value_name = "NAME")]
    pub(crate) workflow: Option<String>,
    /// Only runs of this site
    #[arg(long, value_name = "NAME")]
    pub(crate) site: Option<String>,
    /// Only runs with this label (may be repeated; all of them must fit)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// Only runs created since then: as 2d, 12h or 30m ago, or a time as 2026-11-23 or 2026-11-23T14:05Z
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only runs created before then, written as for --since
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) limit: usize,
    /// How it is printed
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: ListFormat,
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    pub(crate) run: RunRef,
    /// How it is printed
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: ListFormat,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    #[command(flatten)]
    pub(crate) run: RunRef,
    /// Go on until the run stands
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only events after this number
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) after: u64,
    /// How they are printed
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: EventsFormat,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    pub(crate) run: RunRef,
    /// Go on as long as the run is driven
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only lines about this step
    #[arg(long, value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// Only lines of this level and above: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL")]
    pub(crate) level: Option<String>,
    /// Only the last so many lines, before more are waited for
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) lines: Option<usize>,
    /// How they are printed
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: EventsFormat,
}

#[derive(Debug, Args)]
pub(crate) struct RunGraphArgs {
    #[command(flatten)]
    pub(crate) run: RunRef,
    /// How it is drawn
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: GraphFormat,
}

#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    #[command(flatten)]
    pub(crate) run: RunRef,
    /// How it is printed
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: ViewFormat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkflowsCommand {
    /// List workflows
    #[command(after_help = "Examples:\n  dssflow workflows ls")]
    Ls {
        /// How they are printed
        #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
        output: ListFormat,
    },
    /// Say what a workflow does and what it takes
    #[command(after_help = "Examples:\n  dssflow workflows get bootstrap")]
    Get {
        /// The workflow
        workflow: String,
        /// How it is printed
        #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
        output: ViewFormat,
    },
    /// Print the JSON Schema of a workflow's site file
    #[command(after_help = "Examples:\n  dssflow workflows schema bootstrap")]
    Schema {
        /// The workflow
        workflow: String,
    },
    /// Draw a workflow's graph
    #[command(
        after_help = "Examples:\n  dssflow workflows graph bootstrap --set cluster.mode=sdk -o dot\n  dssflow workflows graph bootstrap -o svg"
    )]
    Graph {
        /// The workflow
        workflow: String,
        /// The site file it is built from [default: the shipped example]
        #[arg(short, long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Set a value of the site file
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// How it is drawn
        #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
        output: GraphFormat,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SandboxCommand {
    /// Start it, or find the one that runs
    #[command(after_help = "Examples:\n  dssflow sandbox up --latency 0")]
    Up {
        /// Script what goes wrong: a JSON list of faults
        #[arg(long, value_name = "FILE")]
        faults: Option<PathBuf>,
        /// Scale of simulated durations: 1 shows a bootstrap in well under a minute, 0 is for tests
        #[arg(long, value_name = "FACTOR", value_parser = latency)]
        latency: Option<f64>,
        /// Say how the fake DSS behaves: a JSON object of switches; {} is the usual
        #[arg(long, value_name = "FILE")]
        dss: Option<PathBuf>,
    },
    /// End it, with everything in it
    #[command(after_help = "Examples:\n  dssflow sandbox down --yes")]
    Down {
        /// Do not ask, even when runs in it can then never be resumed
        #[arg(short, long)]
        yes: bool,
    },
    /// Whether it runs, and where
    #[command(after_help = "Examples:\n  dssflow sandbox status")]
    Status {
        /// How it is printed
        #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
        output: ViewFormat,
    },
    /// Print what is in it, in a form that can be compared
    #[command(after_help = "Examples:\n  dssflow sandbox snapshot")]
    Snapshot,
    /// Put datasets with files in S3 into its DSS, so that glue-resync has something to do
    #[command(after_help = "Examples:\n  dssflow sandbox datasets\n  dssflow sandbox datasets 100 -o json")]
    Datasets {
        /// How many; done again, the same ones are there
        #[arg(value_name = "COUNT", default_value = "6", value_parser = datasets())]
        count: u16,
        /// How they are printed
        #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
        output: ViewFormat,
    },
    /// Change tables in its Glue as a person would by hand: a type, a table, a partition
    #[command(after_help = "Examples:\n  dssflow sandbox spoil\n  dssflow sandbox spoil 10 -o json")]
    Spoil {
        /// How many tables
        #[arg(value_name = "COUNT", default_value = "3", value_parser = datasets())]
        count: u16,
        /// How the changes are printed
        #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
        output: ViewFormat,
    },
    /// Script what goes wrong in it
    #[command(subcommand)]
    Faults(FaultsCommand),
}

/// A number of the sandbox's datasets.
fn datasets() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..=i64::from(dssflow_sandbox::lake::MOST_DATASETS))
}

#[derive(Debug, Subcommand)]
pub(crate) enum FaultsCommand {
    /// Take this script in place of the one before; counts start again
    #[command(after_help = "Examples:\n  dssflow sandbox faults set faults.json")]
    Set {
        /// A JSON list of faults; `[]` ends all of them
        file: PathBuf,
    },
    /// Print the script, and how often each fault matched a call and struck
    #[command(after_help = "Examples:\n  dssflow sandbox faults show -o json")]
    Show {
        /// How it is printed
        #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
        output: ViewFormat,
    },
}

fn latency(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if (0.0..=1000.0).contains(&factor) => Ok(factor),
        _ => Err("a number from 0 to 1000 is needed".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The workflow
    pub(crate) workflow: String,
    /// The file to write; - is stdout
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub(crate) output: PathBuf,
    /// Replace the file when it exists
    #[arg(long)]
    pub(crate) force: bool,
    /// Do not look at the instance's metadata and at AWS
    #[arg(long)]
    pub(crate) offline: bool,
    /// The AWS endpoint to ask, when it is not AWS itself
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint_url: Option<String>,
    /// The instance metadata service to ask, when it is not the usual one
    #[arg(long, value_name = "URL", env = "AWS_EC2_METADATA_SERVICE_ENDPOINT")]
    pub(crate) imds_endpoint: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The code, as DF0010; without it all are listed
    pub(crate) code: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::{command, parse};

    /// Words as a shell makes them, with single quotes.
    fn words(line: &str) -> Vec<String> {
        line.split('\'')
            .enumerate()
            .flat_map(|(n, part)| match n % 2 {
                0 => part.split_whitespace().map(str::to_owned).collect(),
                _ => vec![part.to_owned()],
            })
            .collect()
    }

    /// Every command without commands of its own, by how it is called.
    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, String)>) {
        if !command.has_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            found.push((path.to_owned(), help));
        }
        for below in command.get_subcommands() {
            leaves(below, &format!("{path} {}", below.get_name()), found);
        }
    }

    #[test]
    fn every_command_has_examples_that_are_command_lines() {
        let mut found = Vec::new();
        leaves(&command(), "dssflow", &mut found);
        assert!(found.len() > 30, "{found:?}");
        for (path, help) in found {
            let (_, examples) = help.split_once("Examples:\n").unwrap_or_else(|| panic!("{path} has none"));
            for line in examples.lines() {
                let line = line.strip_prefix("  ").unwrap_or_else(|| panic!("{path}: {line:?}"));
                assert!(line.starts_with(&path), "{line} is no example of {path}");
                if let Err(error) = parse(words(line).into_iter().map(Into::into).collect()) {
                    panic!("{line}: {error}");
                }
            }
        }
    }
}
