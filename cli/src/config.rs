//! Where things are: the store's directory, from the flag, the environment or the user's data directory.

use std::path::PathBuf;

use crate::error::{Code, CommandError, CommandResult};

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
}

/// The store's directory: `given` (flag or `DSSFLOW_STORE`), else `$XDG_DATA_HOME/dssflow`, else
/// `~/.local/share/dssflow`; absolute.
///
/// # Errors
/// When nothing says where it is.
pub(crate) fn store_dir(given: Option<PathBuf>) -> CommandResult<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let dir = given
        .filter(|p| !p.as_os_str().is_empty())
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
        .unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}
