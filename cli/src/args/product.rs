//! Arguments of what makes the command itself at home on a machine: settings, completions, manual pages, help.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::ViewFormat;

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the settings that hold here
    #[command(
        after_help = "Of several that say something the first counts: flag, variable, ./dssflow.toml, the user's file, \
                      /etc/dssflow/config.toml, default.\n\n\
                      Examples:\n  dssflow config show\n  dssflow config show --sources\n  dssflow config show --sources -o json"
    )]
    Show {
        /// Also say where each of them comes from
        #[arg(long)]
        sources: bool,
        /// How they are printed
        #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
        output: ViewFormat,
    },
    /// List the files of settings, the one that counts most first, and whether they are there
    #[command(after_help = "Examples:\n  dssflow config path\n  dssflow config path -o json")]
    Path {
        /// How they are printed
        #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
        output: ViewFormat,
    },
    /// Write a commented file of settings to start from
    #[command(after_help = "Examples:\n  dssflow config init\n  dssflow config init -o dssflow.toml")]
    Init {
        /// The file to write; - is stdout
        #[arg(short, long, value_name = "FILE", default_value = "-")]
        output: PathBuf,
        /// Replace the file when it exists
        #[arg(long)]
        force: bool,
    },
    /// Print the JSON Schema of a file of settings
    #[command(after_help = "Examples:\n  dssflow config schema")]
    Schema,
}

#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// How it is printed
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: ViewFormat,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: Shell,
}

/// A shell that can be told how to complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The directory to write the pages to, as /usr/local/share/man/man1; made when it is not there
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct HelpArgs {
    /// A command, as `runs get`, or a topic: environment, exit-codes, formatting, files, signals
    #[arg(value_name = "COMMAND|TOPIC")]
    pub(crate) words: Vec<String>,
}
