//! The settings of the whole command: flags and variables first, then files of settings, then defaults. And where the
//! store is.

mod file;

use std::path::PathBuf;

use clap::CommandFactory as _;

use crate::args::Cli;
use crate::error::{Code, CommandError, CommandResult};

pub(crate) use file::{EXAMPLE, File, KEYS, Key, files, places, read, word};

/// What holds for the whole command.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The store's directory.
    pub(crate) store: PathBuf,
    /// Whether the store was named by flag, so that commands to type must name it too.
    pub(crate) named: bool,
}

impl Settings {
    /// How dssflow is called for this store, for commands that people are told to type.
    pub(crate) fn command(&self) -> String {
        if !self.named {
            return "dssflow".to_owned();
        }
        let path = self.store.display().to_string();
        let plain = path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+".contains(c));
        if plain {
            format!("dssflow --store {path}")
        } else {
            format!("dssflow --store '{}'", path.replace('\'', "'\\''"))
        }
    }

    /// A hint whose commands name the store, when it was named by flag: whoever types them must reach the same one.
    pub(crate) fn address(&self, hint: &str) -> String {
        if !self.named {
            return hint.to_owned();
        }
        let (mut text, mut rest) = (String::new(), hint);
        while let Some(at) = rest.find(CALL) {
            let (before, call) = rest.split_at(at);
            text.push_str(before);
            rest = &call[CALL.len()..];
            let word: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            let begins = text.chars().next_back().is_none_or(|c| !c.is_alphanumeric() && !"/-_.".contains(c));
            text.push_str(&if begins && reaches_the_store(&word) {
                self.command() + " "
            } else {
                CALL.to_owned()
            });
        }
        text + rest
    }
}

/// Whether a hint has a command of ours to type.
pub(crate) fn names_a_command(hint: &str) -> bool {
    hint.split(CALL).skip(1).any(|rest| {
        let word: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
        word == "--store" || Cli::command().get_subcommands().any(|command| command.get_name() == word)
    })
}

/// How a command begins in a hint.
const CALL: &str = "dssflow ";

/// Whether a word after `dssflow` is a command that opens the store.
fn reaches_the_store(word: &str) -> bool {
    !["init", "explain", "version", "workflows", "help", "completions", "man", "config"].contains(&word)
        && Cli::command().get_subcommands().any(|command| command.get_name() == word)
}

/// The store's directory: `given` (flag or `DSSFLOW_STORE`), else as a file of settings says, else
/// `$XDG_DATA_HOME/dssflow`, else `~/.local/share/dssflow`; absolute.
///
/// # Errors
/// When nothing says where it is.
pub(crate) fn store_dir(given: Option<PathBuf>) -> CommandResult<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let dir = given
        .filter(|p| !p.as_os_str().is_empty())
        .or_else(|| files().find(|file| file.store.clone()).map(|(dir, _)| dir))
        .or_else(|| absolute("XDG_DATA_HOME").map(|p| p.join("dssflow")))
        .or_else(|| absolute("HOME").map(|p| p.join(".local/share/dssflow")))
        .ok_or_else(|| {
            CommandError::new(Code::Usage, "nothing says where the store is")
                .hint("name it with --store DIR or DSSFLOW_STORE, or set HOME")
        })?;
    std::path::absolute(&dir).map_err(|e| CommandError::new(Code::Usage, format!("{}: {e}", dir.display())))
}

/// Who asks, for the run's history: the user's name.
pub(crate) fn user() -> String {
    ["USER", "LOGNAME"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| {
            let uid = rustix::process::getuid().as_raw();
            // Services and containers have no such variables.
            let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
            account(&accounts, uid).map_or_else(|| format!("uid {uid}"), str::to_owned)
        })
}

/// The name of the account with this number.
fn account(accounts: &str, uid: u32) -> Option<&str> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_their_number() {
        let accounts = "root:x:0:0:root:/root:/bin/sh\n# a note\nops:x:1001:1001::/home/ops:/bin/bash\n";
        assert_eq!((account(accounts, 1001), account(accounts, 0)), (Some("ops"), Some("root")));
        assert_eq!(account(accounts, 7), None);
    }

    #[test]
    fn commands_in_hints_name_the_store_that_was_named() {
        let settings = |named| Settings { store: "/srv/a b".into(), named };
        for (hint, addressed) in [
            ("`dssflow store verify` reads it", "`dssflow --store '/srv/a b' store verify` reads it"),
            ("go on: dssflow resume lab", "go on: dssflow --store '/srv/a b' resume lab"),
            (
                "dssflow why a, dssflow runs get a",
                "dssflow --store '/srv/a b' why a, dssflow --store '/srv/a b' runs get a",
            ),
            ("`dssflow explain DF0001` says more", "`dssflow explain DF0001` says more"),
            (
                "with the version of dssflow that made the run",
                "with the version of dssflow that made the run",
            ),
            ("already: dssflow --store /x resume lab", "already: dssflow --store /x resume lab"),
            ("systemctl stop my-dssflow run", "systemctl stop my-dssflow run"),
        ] {
            assert_eq!(settings(true).address(hint), addressed);
            assert_eq!(settings(false).address(hint), hint);
        }
    }
}
