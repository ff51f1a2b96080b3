//! What can go wrong with the sandbox itself, each with what the reader can do about it.

use std::path::PathBuf;

/// Why the sandbox could not do as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// There is no Python 3.
    #[error("python3 was not found")]
    NoPython,
    /// Python is too old for the pinned moto.
    #[error("python3 is version {found}, the sandbox needs {needed} or later")]
    PythonTooOld {
        /// Version found.
        found: String,
        /// Oldest version that will do.
        needed: &'static str,
    },
    /// Python has no venv module or no pip for it.
    #[error("python3 cannot make a virtual environment: {detail}")]
    NoVenv {
        /// What it printed last.
        detail: String,
    },
    /// The packages could not be fetched.
    #[error("pip could not install {package}: {detail}")]
    Packages {
        /// What was asked for.
        package: String,
        /// What pip printed last.
        detail: String,
    },
    /// The daemon ended, or was not ready in time.
    #[error("the sandbox did not start: {detail}")]
    Start {
        /// The end of its log.
        detail: String,
        /// The whole log.
        log: PathBuf,
    },
    /// The emulator ended, or was not ready in time.
    #[error("moto did not start: {detail}")]
    Moto {
        /// The end of its log.
        detail: String,
    },
    /// A call to the emulator failed.
    #[error("{operation} failed in the emulator: {detail}")]
    Aws {
        /// `service:Operation`.
        operation: String,
        /// Status and text of the reply.
        detail: String,
    },
    /// The daemon did not answer as it should.
    #[error("the sandbox did not answer {route}: {detail}")]
    Admin {
        /// Method and path.
        route: String,
        /// What was seen instead.
        detail: String,
    },
    /// What is to be worked on is not in the sandbox yet.
    #[error("{what}")]
    TooEarly {
        /// What is missing.
        what: String,
        /// The command that makes it.
        command: String,
    },
    /// A file of the sandbox could not be read or written.
    #[error("{what} {}", path.display())]
    Io {
        /// What was tried, for example `could not write`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file of the sandbox holds something else than it should.
    #[error("{} is not what the sandbox wrote", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl SandboxError {
    /// What mends it, in a sentence for the person at the terminal.
    pub fn help(&self) -> String {
        match self {
            Self::NoPython => {
                "install Python 3.9 or later (AlmaLinux: dnf install python3.11; Debian: apt-get \
                               install python3 python3-venv) and run the command again"
                    .to_owned()
            }
            Self::PythonTooOld { needed, .. } => {
                format!("install Python {needed} or later and put it first in PATH as python3")
            }
            Self::NoVenv { .. } => {
                "install the venv module (Debian and Ubuntu: apt-get install python3-venv; \
                                    AlmaLinux: it comes with python3.11)"
                    .to_owned()
            }
            Self::Packages { .. } => {
                "the sandbox needs a Python package index once; check the network, or point pip \
                                      at yours with PIP_INDEX_URL or pip.conf, and run the command again"
                    .to_owned()
            }
            Self::Start { log, .. } => {
                format!("read {}, then `dssflow sandbox down` and try again", log.display())
            }
            Self::Moto { .. } => {
                "`dssflow sandbox down` and try again; if it stays, remove the cached environment \
                                  named in the sandbox's log"
                    .to_owned()
            }
            Self::Aws { .. } | Self::Admin { .. } => {
                "`dssflow sandbox down`, then `dssflow sandbox up` makes a new world".to_owned()
            }
            Self::TooEarly { command, .. } => format!("`{command}` comes first"),
            Self::Io { path, .. } => format!("check the rights and free space of {}", path.display()),
            Self::Damaged { .. } => "`dssflow sandbox down` removes it".to_owned(),
        }
    }

    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}
