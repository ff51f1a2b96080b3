//! The help of every command as one page of the docs, which is also what it is compared with: a change of any help is seen.

use std::fmt::Write as _;

use super::is_written;
use crate::args::command;

/// Columns, whatever terminal the test runs on.
const WIDTH: usize = 100;

fn page() -> String {
    let mut root = command().term_width(WIDTH);
    root.build();
    let mut out = String::from(
        "# Every command\n\nMade from the code: `DSSFLOW_WRITE_DOCS=1 cargo test --workspace --bins reference` writes it anew.\n\
         Options that every command takes stand with `dssflow` and are left out below it.\n",
    );
    let globals: Vec<String> = root
        .get_arguments()
        .filter(|arg| arg.is_global_set())
        .filter_map(|arg| arg.get_long().map(|long| format!("--{long}")))
        .collect();
    add(&mut out, &mut root, "dssflow", &globals);
    out
}

fn add(out: &mut String, command: &mut clap::Command, path: &str, globals: &[String]) {
    // Below the root the options of all commands are said once.
    let hide = path != "dssflow";
    let mut shown = command.clone().bin_name(path).term_width(WIDTH);
    if hide {
        shown = shown.mut_args(|arg| {
            let is_global = arg.get_long().is_some_and(|long| globals.contains(&format!("--{long}")));
            if is_global || ["help", "version"].contains(&arg.get_id().as_str()) {
                arg.hide(true)
            } else {
                arg
            }
        });
    }
    let help = shown.render_long_help().to_string();
    let help: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    write!(out, "\n## {path}\n\n```text\n{}\n```\n", help.join("\n")).unwrap();
    for below in command.get_subcommands_mut() {
        let path = format!("{path} {}", below.get_name());
        add(out, below, &path, globals);
    }
}

#[test]
fn the_help_of_every_command_is_that_of_the_docs() {
    let now = page();
    assert!(now.matches("\n## dssflow").count() > 60, "{now}");
    assert!(!now.contains('\u{1b}'));
    is_written("cli.md", &now);
}
