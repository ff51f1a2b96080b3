//! The command line as a whole: what is declared, and what is the same for many commands and so is added here: `--jq`
//! where JSON is printed, and what a shell may complete.

use std::ffi::OsString;

use clap::{Arg, ArgMatches, Command, CommandFactory as _, FromArgMatches as _, ValueHint};

use super::Cli;
use crate::completions;

/// The option that filters JSON.
pub(crate) const JQ: &str = "jq";
/// The option that says how something is printed.
const OUTPUT: &str = "output";

/// The command line.
pub(crate) fn command() -> Command {
    dress(Cli::command())
}

/// What was typed.
#[derive(Debug)]
pub(crate) struct Typed {
    /// As the commands take it.
    pub(crate) cli: Cli,
    /// What JSON goes through before it is printed.
    pub(crate) jq: Option<String>,
}

/// Reads a command line.
///
/// # Errors
/// When it is wrong, or asks for help.
pub(crate) fn parse(words: Vec<OsString>) -> Result<Typed, clap::Error> {
    let matches = command().try_get_matches_from(&words)?;
    let leaf = leaf(&matches);
    let jq = leaf.try_get_one::<String>(JQ).ok().flatten().cloned();
    if jq.is_none() {
        return Ok(Typed { cli: cli(&matches)?, jq });
    }
    if !is_default(leaf, OUTPUT) {
        let format = leaf.get_raw(OUTPUT).and_then(|mut values| values.next()).unwrap_or_default();
        if format != "json" && format != "jsonl" {
            let why = "--jq is for JSON: it needs -o json or -o jsonl, or no -o at all";
            return Err(command().error(clap::error::ErrorKind::ArgumentConflict, why));
        }
        return Ok(Typed { cli: cli(&matches)?, jq });
    }
    // A filter is for JSON: nobody has to say so.
    let mut words = words;
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    words.splice(end..end, ["--output".into(), "json".into()]);
    Ok(Typed { cli: cli(&command().try_get_matches_from(words)?)?, jq })
}

fn cli(matches: &ArgMatches) -> Result<Cli, clap::Error> {
    let mut cli = Cli::from_arg_matches(matches)?;
    let is_typed = |id: &str| matches.value_source(id) == Some(clap::parser::ValueSource::CommandLine);
    cli.global.typed =
        ["store", "log", "log_format", "error_format"].into_iter().filter(|id| is_typed(id)).collect();
    Ok(cli)
}

/// What the innermost command was given.
pub(crate) fn leaf(matches: &ArgMatches) -> &ArgMatches {
    let mut at = matches;
    while let Some((_, below)) = at.subcommand() {
        at = below;
    }
    at
}

fn is_default(matches: &ArgMatches, id: &str) -> bool {
    matches.value_source(id) == Some(clap::parser::ValueSource::DefaultValue)
}

/// Whether a command can print JSON.
fn prints_json(command: &Command) -> bool {
    let output = command.get_arguments().find(|arg| arg.get_id() == OUTPUT);
    output.is_some_and(|arg| arg.get_possible_values().iter().any(|value| value.get_name() == "json"))
}

fn dress(command: Command) -> Command {
    let mut command = command.mut_args(|arg| {
        // What a variable holds belongs to no help.
        let arg = completions::attach(arg).hide_env_values(true);
        match arg.get_value_names().and_then(|names| names.first()).map(clap::builder::Str::as_str) {
            Some("FILE") => arg.value_hint(ValueHint::FilePath),
            Some("DIR") => arg.value_hint(ValueHint::DirPath),
            _ => arg,
        }
    });
    if prints_json(&command) {
        command = command.arg(
            Arg::new(JQ)
                .long("jq")
                .value_name("EXPRESSION")
                .value_parser(crate::jq::check)
                .help("Filter the JSON with an expression of jq; a string is printed bare"),
        );
    }
    command.mut_subcommands(dress)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command as Typed, ListFormat, RunsCommand};

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn a_filter_means_json() {
        let typed = parse(words("dssflow runs ls --jq .[].run")).unwrap();
        assert_eq!(typed.jq.as_deref(), Some(".[].run"));
        let Typed::Runs(RunsCommand::Ls(args)) = typed.cli.command else { panic!("another command") };
        assert_eq!(args.output, ListFormat::Json);
        let typed = parse(words("dssflow runs ls -o jsonl --jq .run")).unwrap();
        let Typed::Runs(RunsCommand::Ls(args)) = typed.cli.command else { panic!("another command") };
        assert_eq!(args.output, ListFormat::Jsonl, "what is said is left as it is");
        // Where nothing is printed as JSON there is no filter.
        assert!(parse(words("dssflow completions bash --jq .")).is_err());
        assert!(parse(words("dssflow pause lab --jq .")).is_err());
        let error = parse(words("dssflow runs ls --jq .[")).unwrap_err().to_string();
        assert!(error.contains("invalid value '.['"), "{error}");
    }

    #[test]
    fn what_was_typed_is_told_from_what_the_environment_says() {
        let typed = parse(words("dssflow --log debug runs ls --store /x")).unwrap();
        assert_eq!(typed.cli.global.typed, ["store", "log"]);
    }

    #[test]
    fn the_whole_is_consistent() {
        command().debug_assert();
    }
}
