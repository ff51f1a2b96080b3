//! `dssflow`: durable workflows that take Dataiku DSS on AWS from nothing to its reference architecture, and back.
//!
//! Thin: it reads the command line, opens the store, makes the clients, prints. Whatever it can do, a user of the
//! libraries can do as well.

/// Adds formatted text to a `String`.
macro_rules! put {
    ($to:expr, $($format:tt)*) => {
        std::fmt::Write::write_fmt(&mut $to, format_args!($($format)*)).expect("a String takes everything")
    };
}

mod access;
mod api;
mod args;
mod bar;
mod catalog;
mod commands;
mod completions;
mod config;
mod control;
mod describe;
mod drift_report;
mod drive;
mod error;
mod gantt;
mod iam_policy;
mod jq;
mod launch;
mod logging;
mod moment;
mod outfile;
mod owner;
mod past;
mod plans;
mod progress;
#[cfg(test)]
mod reference;
mod remote;
mod renewal;
mod serve;
mod spec;
mod suggest;
mod takeovers;
mod ui;
mod why;
mod width;
mod world;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use rustix::fs::Mode;

use crate::args::{ErrorFormat, Typed};
use crate::error::{Code, CommandError, Exit};
use crate::ui::Ui;

fn main() -> ExitCode {
    // The sandbox's own processes come first: its host stubs start thousands of times.
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == "__sandbox") {
        return dssflow_sandbox::main(words.collect());
    }
    // Whatever is written is for this user alone.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    quiet_sled();
    if completions::answer() {
        return ExitCode::SUCCESS;
    }
    let mut ui = Ui::detect();
    let mut json = asks_for_json();
    let exit = match args::parse(std::env::args_os().collect()) {
        Ok(Typed { cli, jq }) => {
            let given = cli.global.error_format;
            ui.filter(jq);
            let done = commands::run(&ui, cli);
            // What the files of settings say is known by now, unless they are what is wrong.
            let format = given.or_else(|| config::files().find(|file| file.error_format).map(|(f, _)| f));
            json = format == Some(ErrorFormat::Json);
            let exit = done.unwrap_or_else(|error| {
                ui.error(&error, json);
                error.exit
            });
            match ui.misfit() {
                Some(why) => {
                    let error = CommandError::new(Code::Usage, "--jq does not fit what is printed")
                        .why(why)
                        .hint("-o json without --jq prints what the expression is given");
                    ui.error(&error, json);
                    error.exit
                }
                None => exit,
            }
        }
        Err(error) => wrong_command_line(&ui, &error, json),
    };
    if ui.has_failed() && exit == Exit::Ok {
        let error =
            CommandError::new(Code::Output, "the output could not be written").hint("is the disk full?");
        ui.error(&error, json);
        return ExitCode::from(error.exit.status());
    }
    ExitCode::from(exit.status())
}

/// What sled throws at damaged files is caught by the store, which tells it as an error: said before that by Rust itself,
/// it would look as if dssflow had broken down. All other panics are told as always.
fn quiet_sled() {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.location().is_some_and(|at| is_of_sled(at.file())) {
            tracing::debug!(%panic, "sled gave up");
        } else {
            told(panic);
        }
    }));
}

/// Whether a file of source is of the dependency, which lies in a directory with its name and version.
fn is_of_sled(file: &str) -> bool {
    file.split("/sled-").skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Whether errors are wanted as JSON, by a command line that may be wrong.
fn asks_for_json() -> bool {
    let words = std::env::args_os().collect::<Vec<OsString>>();
    words.windows(2).any(|w| w[0] == "--error-format" && w[1] == "json")
        || words.iter().any(|w| w == "--error-format=json")
        || std::env::var_os("DSSFLOW_ERROR_FORMAT").is_some_and(|format| format == "json")
}

/// Help and version are data; everything else is a mistake of the caller.
fn wrong_command_line(ui: &Ui, error: &clap::Error, json: bool) -> Exit {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            ui.out(error.render().to_string().trim_end());
            return Exit::Ok;
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            ui.note(error.render().to_string().trim_end());
            return Exit::Usage;
        }
        _ => {}
    }
    let text = error.render().to_string();
    let mut lines = text.trim_end().lines();
    let first = lines.next().unwrap_or_default();
    let mut made = CommandError::new(Code::Usage, first.strip_prefix("error: ").unwrap_or(first));
    made.why = lines.map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect();
    ui.error(&made, json);
    made.exit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_panics_of_the_dependency_are_taken_for_those_of_sled() {
        assert!(is_of_sled("/home/me/registry/src/index.crates.io-0/sled-0.34.7/src/serialization.rs"));
        for other in
            ["store/src/sled-notes.rs", "/home/sled-team/registry/hyper-1.0.0/src/lib.rs", "cli/src/main.rs"]
        {
            assert!(!is_of_sled(other), "{other}");
        }
    }
}
