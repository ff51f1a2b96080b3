//! The options of the verbs with which people steer a run that is there.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::FollowOutput;

/// A run and one of its steps.
#[derive(Debug, Args)]
pub(crate) struct StepRef {
    /// The run: its id, an unambiguous beginning of it, or @latest
    pub(crate) run: String,
    /// The step; `dssflow runs get RUN` shows them
    pub(crate) step: String,
}

/// Why something is done, where the history must say it.
#[derive(Debug, Args)]
pub(crate) struct Reason {
    /// Why, for the history
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct RetryArgs {
    /// The run: its id, an unambiguous beginning of it, or @latest
    pub(crate) run: String,
    /// The step that failed or waits for its next try
    #[arg(long, value_name = "STEP")]
    pub(crate) step: String,
    #[command(flatten)]
    pub(crate) reason: Reason,
    #[command(flatten)]
    pub(crate) output: FollowOutput,
}

#[derive(Debug, Args)]
pub(crate) struct RerunArgs {
    /// The run: its id, an unambiguous beginning of it, or @latest
    pub(crate) run: String,
    /// The first step to do again; everything that depends on it follows
    #[arg(long, value_name = "STEP")]
    pub(crate) from: String,
    /// Do not ask before steps are done again
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Why, for the history
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) output: FollowOutput,
}

#[derive(Debug, Args)]
pub(crate) struct ForkArgs {
    /// The run to take over from: its id, an unambiguous beginning of it, or @latest
    pub(crate) run: String,
    /// The first step that the new run does itself; what comes before is taken over
    #[arg(long, value_name = "STEP")]
    pub(crate) from: String,
    /// The new run's id [default: generated]
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
    /// Do not ask before something is made that costs
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Why, for the history
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) output: FollowOutput,
}

#[derive(Debug, Args)]
pub(crate) struct SkipArgs {
    #[command(flatten)]
    pub(crate) at: StepRef,
    #[command(flatten)]
    pub(crate) reason: Reason,
}

#[derive(Debug, Args)]
pub(crate) struct CompleteArgs {
    #[command(flatten)]
    pub(crate) at: StepRef,
    #[command(flatten)]
    pub(crate) reason: Reason,
    /// What the step gives: JSON, @FILE with JSON in it, or - for stdin
    #[arg(long, value_name = "JSON")]
    pub(crate) output: String,
}

#[derive(Debug, Args)]
pub(crate) struct GateArgs {
    #[command(flatten)]
    pub(crate) at: StepRef,
    /// A word on the decision, for the history and for later steps
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) note: String,
}

#[derive(Debug, Args)]
pub(crate) struct SignalArgs {
    /// The run: its id, an unambiguous beginning of it, or @latest
    pub(crate) run: String,
    /// The signal's name
    pub(crate) name: String,
    /// What it carries: JSON, @FILE with JSON in it, or - for stdin [default: null]
    #[arg(long, value_name = "JSON")]
    pub(crate) payload: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct UnpauseArgs {
    /// The run: its id, an unambiguous beginning of it, or @latest
    #[arg(default_value = "@latest")]
    pub(crate) run: String,
    #[command(flatten)]
    pub(crate) output: FollowOutput,
}

#[derive(Debug, Args)]
pub(crate) struct TerminateArgs {
    /// The run: its id, an unambiguous beginning of it, or @latest
    pub(crate) run: String,
    #[command(flatten)]
    pub(crate) reason: Reason,
    /// Do not ask before attempts under way are left behind
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MarkArgs {
    #[command(flatten)]
    pub(crate) at: StepRef,
    #[command(flatten)]
    pub(crate) reason: Reason,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}
