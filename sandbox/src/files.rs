//! Private files: directories 0700, files 0600, replaced by rename so that a reader never sees half of one.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::SandboxError;

/// Why nothing can be written in a directory; `None` when something can. Who has no room cannot say so in a log.
pub(crate) fn unwritable(dir: &Path) -> Option<String> {
    let path = dir.join("write-test");
    let tried = fs::write(&path, [0; 4096]);
    // Whether it could be removed does not matter: it is written over the next time.
    drop(fs::remove_file(&path));
    tried.err().map(|error| format!("nothing can be written in {}: {error}", dir.display()))
}

/// Makes a directory and its parents, readable by the owner only.
pub(crate) fn private_dir(path: &Path) -> Result<(), SandboxError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(SandboxError::io("could not make", path))
}

/// Writes a file that only the owner reads, all or nothing.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), SandboxError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = Path::new(&temporary);
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(temporary)?;
        file.write_all(content)?;
        fs::rename(temporary, path)
    };
    write().map_err(SandboxError::io("could not write", path))
}

/// Writes a value as JSON, as [`write_private`] does.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), SandboxError> {
    let text = serde_json::to_vec_pretty(value)
        .map_err(|source| SandboxError::Damaged { path: path.to_owned(), source })?;
    write_private(path, &text)
}

/// Reads a JSON file; `None` when there is none.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, SandboxError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(SandboxError::io("could not read", path)(error)),
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|source| SandboxError::Damaged { path: path.to_owned(), source })
}

/// Removes a file or a tree; not being there is success.
pub(crate) fn remove(path: &Path) -> Result<(), SandboxError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(SandboxError::io("could not remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// The last lines of a log, for an error message.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
