//! The built binary in a home of its own, and stores that an engine of the test has filled.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use dssflow_store::{OpenOptions, SledStore};

/// A home directory that ends with the test.
pub(crate) struct Home {
    pub(crate) dir: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// A home in memory where there is such a place, for tests that measure: a disk may stall under others' writes. What
    /// they write is small.
    pub(crate) fn fleeting() -> Self {
        Self { dir: tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap() }
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("data/dssflow")
    }

    /// The command with nothing of this machine's environment, AWS out of reach.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dssflow"));
        command
            .args(args)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.dir.path())
            .env("XDG_DATA_HOME", self.dir.path().join("data"))
            .env("USER", "tester")
            .env("TERM", "xterm-256color")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).output().unwrap())
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) exit: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            exit: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// A site file that is right.
pub(crate) const EXAMPLE: &str = include_str!("../../../workflows/examples/site.yaml");

/// Opens a store as a process of that name would.
pub(crate) fn open(dir: &Path, command: &str) -> SledStore {
    SledStore::open(dir, OpenOptions { command: command.to_owned(), ..OpenOptions::default() }).unwrap()
}
