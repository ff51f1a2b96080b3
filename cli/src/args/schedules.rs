//! Arguments of what is done with schedules.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ListFormat, ViewFormat};

#[derive(Debug, Subcommand)]
pub(crate) enum SchedulesCommand {
    /// List schedules by name
    #[command(after_help = "Examples:\n  dssflow schedules ls\n  dssflow schedules ls -o json")]
    Ls {
        /// How they are printed
        #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
        output: ListFormat,
    },
    /// Show a schedule: what it starts, when next, what became of the last runs
    #[command(
        after_help = "Examples:\n  dssflow schedules get nightly\n  dssflow schedules get nightly -o yaml"
    )]
    Get {
        /// The schedule
        #[arg(value_name = "SCHEDULE")]
        id: String,
        /// How it is printed
        #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
        output: ViewFormat,
    },
    /// Make a schedule
    #[command(
        after_help = "It fires while `dssflow serve` runs. With --workflow FILE is what the workflow takes, as a site; \
                      without it FILE says everything of the schedule, and flags change it.\n\n\
                      Examples:\n  dssflow schedules create --workflow bootstrap -f site.yaml --every 1h\n  \
                      dssflow schedules create nightly --workflow bootstrap -f site.yaml --cron '0 3 * * *' --zone Europe/Berlin\n  \
                      dssflow schedules create -f schedule.yaml"
    )]
    Create(Box<SpecArgs>),
    /// Change a schedule: what is not named stays as it is
    #[command(
        after_help = "When its times are others afterwards, those before now do not fire any more. --limit begins the count \
                      anew, also with the number that it had; so does a file with another number.\n\n\
                      Examples:\n  dssflow schedules update nightly --cron '30 3 * * *'\n  \
                      dssflow schedules update nightly --limit 10 --no-end\n  \
                      dssflow schedules update nightly --workflow bootstrap -f site.yaml\n  dssflow schedules update -f schedule.yaml"
    )]
    Update(Box<UpdateArgs>),
    /// Start nothing by the clock until it is unpaused; what its time brings up meanwhile never fires
    #[command(after_help = "Examples:\n  dssflow schedules pause nightly --reason 'audit'")]
    Pause(AskArgs),
    /// Go on from now
    #[command(after_help = "Examples:\n  dssflow schedules unpause nightly --reason 'the audit is over'")]
    Unpause(AskArgs),
    /// Start one more run now, also of a schedule that is paused
    #[command(after_help = "The run says who triggered it, and why.\n\n\
                      Examples:\n  dssflow schedules trigger nightly --reason 'new data'\n  \
                      dssflow schedules trigger nightly --overlap allow-all")]
    Trigger {
        #[command(flatten)]
        ask: AskArgs,
        /// What happens when a run of it goes on [default: as the schedule says]
        #[arg(long, value_name = "POLICY")]
        overlap: Option<String>,
    },
    /// Start the runs of a stretch of time that were not started
    #[command(
        after_help = "Times are UTC, or so long ago. A date alone is the whole day: --to 2026-11-07 takes in what fires on the \
                      7th. What has fired does not fire again. The runs say who wanted them, and why.\n\n\
                      Examples:\n  dssflow schedules backfill nightly --from 2026-11-01 --to 2026-11-07 --dry-run\n  \
                      dssflow schedules backfill nightly --from 3d --to 0s --overlap allow-all"
    )]
    Backfill(BackfillArgs),
    /// Say when it fires next
    #[command(
        after_help = "Examples:\n  dssflow schedules next nightly\n  dssflow schedules next nightly -n 20 -o json"
    )]
    Next {
        /// The schedule
        #[arg(value_name = "SCHEDULE")]
        id: String,
        /// How many times
        #[arg(short = 'n', long = "count", value_name = "N", default_value_t = 5)]
        count: u16,
        /// How they are printed
        #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
        output: ViewFormat,
    },
    /// Remove a schedule; its runs stay
    #[command(after_help = "Examples:\n  dssflow schedules rm nightly")]
    Rm {
        /// The schedule
        #[arg(value_name = "SCHEDULE")]
        id: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SpecArgs {
    /// The schedule's name [default when it is made: the workflow and the site]
    #[arg(value_name = "SCHEDULE")]
    pub(crate) id: Option<String>,
    /// The workflow whose runs it starts
    #[arg(long, value_name = "WORKFLOW")]
    pub(crate) workflow: Option<String>,
    /// What the workflow takes, as a site; without --workflow a file that says everything of the schedule
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Run in the sandbox, which is started when it is not there; -f is then optional
    #[arg(long, requires = "workflow")]
    pub(crate) sandbox: bool,
    /// Change a value of what the workflow takes, as cluster.mode=sdk (may be repeated)
    #[arg(long, value_name = "KEY=VALUE", requires = "workflow")]
    pub(crate) set: Vec<String>,
    /// A cron expression of five fields, six with seconds before them, seven with a year behind them (may be repeated)
    #[arg(long, value_name = "EXPRESSION")]
    pub(crate) cron: Vec<String>,
    /// Every so often, counted from 1970, as 15m or 1h; 6h/30m is half an hour later (may be repeated)
    #[arg(long, value_name = "TIME[/OFFSET]")]
    pub(crate) every: Vec<String>,
    /// The time zone whose clock cron expressions are compared with [default: UTC]
    #[arg(long, value_name = "ZONE")]
    pub(crate) zone: Option<String>,
    /// What happens when a run of it goes on: skip, buffer-one, buffer-all, cancel-other, terminate-other, allow-all
    /// [default: skip]
    #[arg(long, value_name = "POLICY")]
    pub(crate) overlap: Option<String>,
    /// How late a firing may be [default: 24h]
    #[arg(long, value_name = "TIME")]
    pub(crate) catch_up: Option<String>,
    /// Fire up to so much later, each time another
    #[arg(long, value_name = "TIME")]
    pub(crate) jitter: Option<String>,
    /// Not before, in UTC; a date alone is its beginning
    #[arg(long, value_name = "WHEN")]
    pub(crate) start: Option<String>,
    /// Not after, in UTC and to come; a date alone is the whole day
    #[arg(long, value_name = "WHEN")]
    pub(crate) end: Option<String>,
    /// Start so many runs by the clock, from now on, and then no more
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Pause the schedule when a run fails (--pause-on-failure=false: do not)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) pause_on_failure: Option<bool>,
    /// A label of its runs (may be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// Why, for whoever looks at it
    #[arg(long, value_name = "WHY", default_value = "")]
    pub(crate) reason: String,
    /// How the result is printed
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: ViewFormat,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    pub(crate) spec: SpecArgs,
    /// Take its start away
    #[arg(long, conflicts_with = "start")]
    pub(crate) no_start: bool,
    /// Take its end away
    #[arg(long, conflicts_with = "end")]
    pub(crate) no_end: bool,
    /// Take its limit away
    #[arg(long, conflicts_with = "limit")]
    pub(crate) no_limit: bool,
    /// Take the labels of its runs away; those of --label are then all it has
    #[arg(long)]
    pub(crate) no_labels: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AskArgs {
    /// The schedule
    #[arg(value_name = "SCHEDULE")]
    pub(crate) id: String,
    /// Why, for whoever looks at it
    #[arg(long, value_name = "WHY", default_value = "")]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct BackfillArgs {
    #[command(flatten)]
    pub(crate) ask: AskArgs,
    /// From when on
    #[arg(long, value_name = "WHEN")]
    pub(crate) from: String,
    /// Until when; a date alone is the whole day, as far as it has gone
    #[arg(long, value_name = "WHEN", default_value = "0s")]
    pub(crate) to: String,
    /// What happens when a run of it goes on
    #[arg(long, value_name = "POLICY", default_value = "buffer-all")]
    pub(crate) overlap: String,
    /// Only say which runs it would start
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How they are printed
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: ViewFormat,
}
