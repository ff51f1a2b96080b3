//! How output is printed: the words of `-o`. docs/help/formatting.md says which command knows which.

use clap::{Args, ValueEnum};

/// What commands that drive a run print on stdout.
#[derive(Debug, Args)]
pub(crate) struct FollowOutput {
    /// What stdout gets: a summary, the run as JSON or YAML, the stream of events, or its id
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: FollowFormat,
}

/// How lists are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormat {
    Table,
    Wide,
    Json,
    Jsonl,
    Yaml,
    Name,
}

/// How one thing is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ViewFormat {
    Table,
    Json,
    Yaml,
}

/// How a run is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FollowFormat {
    Table,
    Json,
    Jsonl,
    Yaml,
    Name,
}

/// How events are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EventsFormat {
    Table,
    Json,
    Jsonl,
}

/// How graphs are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphFormat {
    Text,
    Svg,
    Dot,
    Mermaid,
    Json,
}

#[cfg(test)]
mod tests {
    use crate::args::command;

    /// Adds the formats of every command below `command`, by how it is called.
    fn formats(command: &clap::Command, path: &str, found: &mut Vec<(String, String)>) {
        let output = command.get_arguments().find(|arg| arg.get_id() == "output");
        let values = output.map(clap::Arg::get_possible_values).unwrap_or_default();
        let names: Vec<_> = values.iter().map(clap::builder::PossibleValue::get_name).collect();
        if !names.is_empty() {
            found.push((path.to_owned(), names.join(" ")));
        }
        for below in command.get_subcommands() {
            formats(below, &format!("{path} {}", below.get_name()), found);
        }
    }

    #[test]
    fn commands_of_a_kind_know_the_same_formats() {
        const ALL: &str = "table wide json jsonl yaml name";
        let mut found = Vec::new();
        formats(&command(), "dssflow", &mut found);
        assert!(found.len() > 30, "{found:?}");
        for (path, known) in found {
            let expected = match path.as_str() {
                "dssflow resources verify" | "dssflow resources orphans" | "dssflow runs get" => ALL,
                "dssflow runs events" | "dssflow runs logs" => "table json jsonl",
                path if path.ends_with(" ls") => ALL,
                path if path.ends_with(" graph") => "text svg dot mermaid json",
                path if path.ends_with(" timeline") => "text svg json yaml",
                _ if known.contains("jsonl") => "table json jsonl yaml name",
                _ => "table json yaml",
            };
            assert_eq!(known, expected, "{path}");
        }
    }
}
