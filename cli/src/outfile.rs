//! A file that is there whole or not at all, for its owner only: written under another name, synced, renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::error::{Code, CommandError, CommandResult};

/// The file while it is written; taken away when it is not finished.
pub(crate) struct OutFile {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    done: bool,
}

impl OutFile {
    /// Begins a file at `path`, which must not exist unless `force` is given.
    ///
    /// # Errors
    /// When it exists, or cannot be made.
    pub(crate) fn create(path: &Path, force: bool) -> CommandResult<Self> {
        let refuse = |why: &str| {
            CommandError::new(Code::File, format!("{} {why}; nothing was written", path.display()))
        };
        match fs::symlink_metadata(path) {
            Ok(meta) if !meta.is_file() => return Err(refuse("is there and is no file")),
            Ok(_) if !force => {
                return Err(
                    refuse("is there already").hint("choose another name, or add --force to replace it")
                );
            }
            Ok(_) | Err(_) => {}
        }
        let Some(name) = path.file_name() else { return Err(refuse("names no file")) };
        let mut temporary = name.to_owned();
        temporary.push(".dssflow.tmp");
        let temporary = path.with_file_name(temporary);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
        let failed = |error: io::Error| failed(path, &error);
        let file = options.open(&temporary).map_err(failed)?;
        // Another process may be at it, or have given it its name since it was opened here.
        let locked = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok();
        if !locked || !is_at(&file, &temporary) {
            return Err(refuse("is being written by another process")
                .hint("wait until that has ended, or choose another name"));
        }
        file.set_len(0).map_err(failed)?;
        file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self { path: path.to_owned(), temporary, file, done: false })
    }

    /// What was written so far, to be read back.
    pub(crate) fn written(&self) -> CommandResult<File> {
        File::open(&self.temporary).map_err(|error| failed(&self.path, &error))
    }

    /// Makes it durable and gives it its name.
    ///
    /// # Errors
    /// When the system refuses; the file is then not there, or what it was before.
    pub(crate) fn finish(mut self) -> CommandResult<()> {
        let finish = || {
            self.file.sync_all()?;
            fs::rename(&self.temporary, &self.path)?;
            let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty());
            File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
        };
        finish().map_err(|error| failed(&self.path, &error))?;
        self.done = true;
        Ok(())
    }
}

impl Write for OutFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for OutFile {
    fn drop(&mut self) {
        if !self.done {
            // Left over, it is overwritten the next time.
            drop(fs::remove_file(&self.temporary));
        }
    }
}

/// Whether the open file is the one of that name.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// The file at `path` could not be written.
pub(crate) fn failed(path: &Path, error: &io::Error) -> CommandError {
    CommandError::new(Code::File, format!("failed to write {}", path.display()))
        .why(error)
        .hint("check that its directory is there, writable and has room; the store is as it was")
}
