//! Every command that the docs, README and the help of others tell somebody to type: it exists, and has the options named.

use std::path::{Path, PathBuf};

use clap::Command;

use crate::args::command;

/// What ends a command in a line of shell.
const ENDS: &[char] = &['|', '>', '<', ';', '&', '#', ')', '(', '…'];

fn pages(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            pages(&entry, found);
        } else if entry.extension().is_some_and(|e| e == "md") && !entry.ends_with("reference/cli.md") {
            found.push(entry);
        }
    }
}

/// The commands in a page: in blocks of code by line, in prose between backticks.
fn commands(page: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
            continue;
        }
        let parts: Vec<&str> = if inside { vec![line] } else { line.split('`').skip(1).step_by(2).collect() };
        for part in parts {
            // `cargo run -- runs ls` is `dssflow runs ls`.
            let typed = part.replace("cargo run -- ", "dssflow ");
            let typed = typed.trim_start().trim_start_matches("$ ");
            if let Some(words) = typed.strip_prefix("dssflow ").filter(|words| !words.starts_with(ENDS)) {
                found.push(words.to_owned());
            }
        }
    }
    found
}

/// What is wrong with a command, if anything is.
fn wrong(root: &Command, typed: &str) -> Option<String> {
    let mut at = root;
    let mut is_value = false;
    for word in typed.split_whitespace() {
        if word.starts_with(ENDS) || word.starts_with("2>") || word == "..." {
            break;
        }
        let word =
            word.trim_start_matches(['[', '\'', '"']).trim_end_matches([']', ',', '.', ':', '\'', '"']);
        if let Some(flag) = word.strip_prefix("--") {
            let name = flag.split_once('=').map_or(flag, |(name, _)| name);
            let known = |command: &Command| command.get_arguments().any(|arg| arg.get_long() == Some(name));
            let of_all = root.get_arguments().any(|arg| arg.is_global_set() && arg.get_long() == Some(name));
            if !["help", "version", ""].contains(&name) && !known(at) && !of_all {
                return Some(format!("{} has no --{name}: dssflow {typed}", at.get_name()));
            }
            is_value = !flag.contains('=')
                && at
                    .get_arguments()
                    .chain(root.get_arguments())
                    .any(|arg| arg.get_long() == Some(name) && arg.get_action().takes_values());
            continue;
        }
        if std::mem::take(&mut is_value) || word.starts_with('-') || at.get_name() == "help" {
            continue;
        }
        if !at.has_subcommands() {
            continue;
        }
        match at.find_subcommand(word) {
            Some(below) => at = below,
            // `pause|unpause`, COMMAND, a version: not one command.
            None if word.contains(|c: char| !c.is_ascii_lowercase() && c != '-') => return None,
            None => return Some(format!("{} has no {word}: dssflow {typed}", at.get_name())),
        }
    }
    None
}

#[test]
fn every_command_in_the_docs_can_be_typed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = vec![root.join("README.md"), root.join("ARCHITECTURE.md")];
    pages(&root.join("docs"), &mut files);
    let mut tree = command();
    tree.build();
    let (mut all, mut bad) = (0, Vec::new());
    for file in files {
        let page = std::fs::read_to_string(&file).unwrap();
        for typed in commands(&page) {
            all += 1;
            bad.extend(
                wrong(&tree, &typed)
                    .map(|why| format!("{}: {why}", file.strip_prefix(root).unwrap().display())),
            );
        }
    }
    assert!(all > 300, "only {all} commands were found");
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn what_cannot_be_typed_is_seen() {
    let mut tree = command();
    tree.build();
    for (typed, is_wrong) in [
        ("runs ls --label team=data", false),
        ("--store /tmp/look runs ls | head", false),
        ("resume RUN --dry-run", true),
        ("runs list", true),
        ("runs ls --labels x", true),
        ("run bootstrap -f site.yaml --set a=b   # --nothing", false),
    ] {
        assert_eq!(wrong(&tree, typed).is_some(), is_wrong, "{typed}: {:?}", wrong(&tree, typed));
    }
    assert_eq!(
        commands("`dssflow a`, `b`\n```sh\n$ dssflow c # d\ncargo run -- e\n```\n"),
        ["a", "c # d", "e"]
    );
}
