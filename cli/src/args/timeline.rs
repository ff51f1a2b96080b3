//! `runs timeline`.

use clap::{Args, ValueEnum};

use super::RunRef;

#[derive(Debug, Args)]
pub(crate) struct TimelineArgs {
    #[command(flatten)]
    pub(crate) run: RunRef,
    /// How many columns the chart has [default: those of the terminal, else 100]
    #[arg(long, value_name = "COLUMNS", value_parser = clap::value_parser!(u16).range(40..=200))]
    pub(crate) width: Option<u16>,
    /// How it is drawn
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: TimelineFormat,
}

/// How a run in time is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TimelineFormat {
    Text,
    Svg,
    Json,
    Yaml,
}
