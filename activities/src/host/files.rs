//! File operations on a host, as fixed scripts.
//!
//! The script is a constant; paths and modes are positional parameters, contents travel by stdin and stdout, and so does
//! the script itself where stdin is free. The scripts use coreutils only and name no absolute path, so that a wrapper can map the parameters. Writes are
//! durable when they return: temporary file 0600 of a name of its own (steps may write the same file at once), sync,
//! rename, sync of the directory. The name ends in the writer's pid, so that the next write or removal can clear away
//! what a killed one left. That a process has this pid says nothing: the number may be another's by now, or a zombie's. It
//! is the writer when its command line has the path.

use zeroize::Zeroizing;

use super::transport::{Host, HostCommand, HostError, HostOutput, HostUser};

/// Status by which a script says "not there".
const MISSING: i32 = 44;

const READ: &str = r#"[ -e "$1" ] || exit 44; exec cat "$1""#;
const WRITE: &str = r#"set -eu; umask 077
path=$1 mode=$2 owner=$3 size=$4 tmp=$1.dssflow-new.$$
trap 'rm -f "$tmp"' EXIT; trap 'exit 143' TERM HUP INT
for old in "$1".dssflow-new.*; do grep -qsF -e "$1" "/proc/${old##*.}/cmdline" || rm -f "$old"; done
[ ! -d "$path" ] || { echo "it is a directory" >&2; exit 45; }
[ -d "${path%/*}/" ] || mkdir -p "${path%/*}/"
rm -f "$tmp"; set -C; cat > "$tmp"; set +C
[ "$(wc -c < "$tmp")" -eq "$size" ] || { rm -f "$tmp"; echo "the data was cut short" >&2; exit 46; }
chmod "$mode" "$tmp"
[ -z "$owner" ] || chown "$owner" "$tmp"
sync "$tmp"; mv -f "$tmp" "$path"; sync "${path%/*}/""#;
const MAKE_DIR: &str = r#"set -eu
if [ -d "$1" ]; then echo there; exit 0; fi
mkdir -p "$1"; chmod "$2" "$1"; [ -z "$3" ] || chown "$3" "$1"; sync "${1%/*}/"; echo made"#;
const STAT: &str = r#"[ -e "$1" ] || [ -L "$1" ] || exit 44
kind=other; [ ! -f "$1" ] || kind=file; [ ! -d "$1" ] || kind=dir; [ ! -L "$1" ] || kind=link
size=0; [ "$kind" != file ] || size=$(wc -c < "$1")
entries=0; [ "$kind" != dir ] || entries=$(ls -A "$1" | wc -l)
echo $kind $size $entries"#;
const SHA256: &str = r#"[ -f "$1" ] || exit 44; sha256sum < "$1""#;
const MOVE: &str = r#"set -eu; [ -e "$1" ] || exit 44
[ ! -e "$2" ] || { echo "the target exists" >&2; exit 47; }
[ ! -f "$1" ] || sync "$1"
mv "$1" "$2"; sync "${2%/*}/""#;
const COPY: &str = r#"set -eu; umask 077; [ -e "$1" ] || exit 44; tmp=$2.dssflow-new.$$
trap 'rm -f "$tmp"' EXIT; trap 'exit 143' TERM HUP INT
for old in "$2".dssflow-new.*; do grep -qsF -e "$2" "/proc/${old##*.}/cmdline" || rm -f "$old"; done
cat "$1" > "$tmp"; sync "$tmp"; mv -f "$tmp" "$2"; sync "${2%/*}/""#;
const CLEAR: &str = r#"set -eu
for old in "$1".dssflow-new.*; do grep -qsF -e "$1" "/proc/${old##*.}/cmdline" || rm -f "$old"; done"#;
const REMOVE: &str = r#"set -eu
for old in "$1".dssflow-new.*; do grep -qsF -e "$1" "/proc/${old##*.}/cmdline" || rm -f "$old"; done
[ -e "$1" ] || [ -L "$1" ] || exit 44; rm -f "$1"; sync "${1%/*}/""#;
const REMOVE_TREE: &str = r#"set -eu; [ -e "$1" ] || exit 44; rm -rf "$1"; sync "${1%/*}/""#;
const REMOVE_EMPTY: &str = r#"[ -d "$1" ] || exit 0; rmdir "$1" 2>/dev/null || :"#;
const LIST: &str = r#"[ -d "$1" ] || exit 44; ls -A "$1""#;

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link; where it leads is not looked at.
    Link,
    /// Something else.
    Other,
}

/// A short look at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: FileKind,
    /// Bytes of a regular file, else 0.
    pub size: u64,
    /// Entries of a directory, else 0.
    pub entries: u64,
}

impl dyn Host + '_ {
    async fn script(
        &self,
        user: &HostUser,
        script: &'static str,
        arguments: &[&str],
        stdin: Option<&[u8]>,
    ) -> Result<Option<HostOutput>, HostError> {
        for path in arguments.iter().filter(|a| a.contains('/')) {
            check_path(path)?;
        }
        let all = arguments.iter().copied();
        let command = match stdin {
            None => HostCommand::script(user.clone(), script, all),
            // Stdin belongs to the contents.
            Some(bytes) => {
                let fixed = ["sh", "-c", script, "dssflow-file"];
                HostCommand::new(user.clone(), fixed.into_iter().chain(all)).stdin(bytes)
            }
        };
        let output = self.exec(command).await?;
        match output.status {
            0 => Ok(Some(output)),
            MISSING => Ok(None),
            status => {
                let what = arguments.first().copied().unwrap_or_default();
                let command = format!("the file operation on {what}");
                Err(HostError::Failed { command, status, complaint: output.complaint() })
            }
        }
    }

    /// Reads a whole file; `None` when there is none.
    ///
    /// # Errors
    /// What [`Host::exec`] gives, and [`HostError::Failed`] when it cannot be read.
    pub async fn read_file(
        &self,
        user: &HostUser,
        path: &str,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, HostError> {
        Ok(self.script(user, READ, &[path], None).await?.map(|o| o.stdout))
    }

    /// Removes what killed writers of this file left beside it. Writing and removing the file does so as well.
    ///
    /// # Errors
    /// What [`Host::exec`] gives, and [`HostError::Failed`] when they cannot be removed.
    pub async fn clear_unfinished(&self, user: &HostUser, path: &str) -> Result<(), HostError> {
        self.script(user, CLEAR, &[path], None).await.map(drop)
    }

    /// Replaces a file durably and atomically. `mode` is octal text as `0600`; `owner` is `user:group`, changed
    /// before the rename. A missing parent is made with mode 0700.
    ///
    /// # Errors
    /// What [`Host::exec`] gives, and [`HostError::Failed`] when it cannot be written; the old file stays then.
    pub async fn write_file(
        &self,
        user: &HostUser,
        path: &str,
        bytes: &[u8],
        mode: &str,
        owner: Option<&str>,
    ) -> Result<(), HostError> {
        let size = bytes.len().to_string();
        let arguments = [path, mode, owner.unwrap_or(""), &size];
        self.script(user, WRITE, &arguments, Some(bytes)).await.map(drop)
    }

    /// Makes a directory with its parents; true when it was not there.
    ///
    /// # Errors
    /// What [`Host::exec`] gives, and [`HostError::Failed`] when it cannot be made.
    pub async fn make_dir(
        &self,
        user: &HostUser,
        path: &str,
        mode: &str,
        owner: Option<&str>,
    ) -> Result<bool, HostError> {
        let output = self.script(user, MAKE_DIR, &[path, mode, owner.unwrap_or("")], None).await?;
        Ok(output.is_some_and(|o| o.text() == "made"))
    }

    /// Looks at a path; `None` when there is nothing.
    ///
    /// # Errors
    /// What [`Host::exec`] gives.
    pub async fn stat(&self, user: &HostUser, path: &str) -> Result<Option<Stat>, HostError> {
        let Some(output) = self.script(user, STAT, &[path], None).await? else { return Ok(None) };
        let text = output.text();
        let mut words = text.split_whitespace();
        let kind = match words.next() {
            Some("file") => FileKind::File,
            Some("dir") => FileKind::Dir,
            Some("link") => FileKind::Link,
            _ => FileKind::Other,
        };
        let mut number = || words.next().and_then(|w| w.parse().ok()).unwrap_or(0);
        Ok(Some(Stat { kind, size: number(), entries: number() }))
    }

    /// Whether something is at `path`.
    ///
    /// # Errors
    /// What [`Host::exec`] gives.
    pub async fn exists(&self, user: &HostUser, path: &str) -> Result<bool, HostError> {
        Ok(self.stat(user, path).await?.is_some())
    }

    /// The SHA-256 of a file in lower-case hex; `None` when there is none.
    ///
    /// # Errors
    /// What [`Host::exec`] gives, and [`HostError::Failed`] when it cannot be read.
    pub async fn sha256(&self, user: &HostUser, path: &str) -> Result<Option<String>, HostError> {
        let output = self.script(user, SHA256, &[path], None).await?;
        Ok(output.map(|o| o.text().split_whitespace().next().unwrap_or_default().to_owned()))
    }

    /// Renames `from` to `to`, which must not exist; false when `from` is not there.
    ///
    /// # Errors
    /// What [`Host::exec`] gives, and [`HostError::Failed`] when `to` exists.
    pub async fn move_path(&self, user: &HostUser, from: &str, to: &str) -> Result<bool, HostError> {
        Ok(self.script(user, MOVE, &[from, to], None).await?.is_some())
    }

    /// Copies a file on the host, mode 0600; false when `from` is not there.
    ///
    /// # Errors
    /// What [`Host::exec`] gives, and [`HostError::Failed`] when it cannot be copied.
    pub async fn copy_file(&self, user: &HostUser, from: &str, to: &str) -> Result<bool, HostError> {
        Ok(self.script(user, COPY, &[from, to], None).await?.is_some())
    }

    /// Removes a file; false when it was not there.
    ///
    /// # Errors
    /// What [`Host::exec`] gives, and [`HostError::Failed`] when it cannot be removed.
    pub async fn remove_file(&self, user: &HostUser, path: &str) -> Result<bool, HostError> {
        Ok(self.script(user, REMOVE, &[path], None).await?.is_some())
    }

    /// Removes a directory with all in it; false when it was not there. The path must be at least two levels deep.
    ///
    /// # Errors
    /// What [`Host::exec`] gives, and [`HostError::Failed`] when it cannot be removed.
    pub async fn remove_tree(&self, user: &HostUser, path: &str) -> Result<bool, HostError> {
        if path.split('/').filter(|part| !part.is_empty()).count() < 2 {
            return Err(refused(path, "it is too close to the root to be removed"));
        }
        Ok(self.script(user, REMOVE_TREE, &[path], None).await?.is_some())
    }

    /// Removes a directory if it is empty.
    ///
    /// # Errors
    /// What [`Host::exec`] gives.
    pub async fn remove_empty_dir(&self, user: &HostUser, path: &str) -> Result<(), HostError> {
        self.script(user, REMOVE_EMPTY, &[path], None).await.map(drop)
    }

    /// The names in a directory, sorted; `None` when there is none.
    ///
    /// # Errors
    /// What [`Host::exec`] gives.
    pub async fn list_dir(&self, user: &HostUser, path: &str) -> Result<Option<Vec<String>>, HostError> {
        let output = self.script(user, LIST, &[path], None).await?;
        Ok(output.map(|o| o.text().lines().map(str::to_owned).collect()))
    }
}

fn refused(path: &str, why: &str) -> HostError {
    HostError::BadCommand { command: format!("a file operation on {path:?}"), why: why.to_owned() }
}

/// Refuses paths that are relative, climb, or hide control characters.
///
/// # Errors
/// [`HostError::BadCommand`] naming the rule.
pub fn check_path(path: &str) -> Result<(), HostError> {
    if path.contains("//") || !path.starts_with('/') && !path.contains(':') {
        return Err(refused(path, "it is not an absolute path in its short form"));
    }
    if path.split('/').any(|part| part == ".." || part == ".") {
        return Err(refused(path, "it has a `.` or `..` in it"));
    }
    if path.chars().any(char::is_control) {
        return Err(refused(path, "it has a control character"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::LocalHost;
    use super::*;

    fn scratch(name: &str) -> String {
        let path = std::env::temp_dir().join(format!("dssflow-files-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&path));
        std::fs::create_dir(&path).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn files_make_the_round() {
        let (local, user) = (LocalHost::default(), HostUser::Login);
        let host: &dyn Host = &local;
        let dir = scratch("round");
        let path = format!("{dir}/sub dir/it's $HOME");
        assert_eq!(host.read_file(&user, &path).await.unwrap(), None);
        assert_eq!(host.stat(&user, &path).await.unwrap(), None);
        let large = vec![7; 200_000];
        for bytes in [&b"one\0\xff"[..], b"", &large] {
            host.write_file(&user, &path, bytes, "0640", None).await.unwrap();
            assert_eq!(host.read_file(&user, &path).await.unwrap().unwrap().as_slice(), bytes);
        }
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o640);
        let stat = host.stat(&user, &path).await.unwrap().unwrap();
        assert_eq!((stat.kind, stat.size), (FileKind::File, 200_000));
        let hash = host.sha256(&user, &path).await.unwrap().unwrap();
        assert_eq!(hash.len(), 64);
        let moved = format!("{dir}/moved");
        assert!(host.move_path(&user, &path, &moved).await.unwrap());
        assert!(!host.move_path(&user, &path, &moved).await.unwrap());
        assert!(host.copy_file(&user, &moved, &path).await.unwrap());
        assert!(host.move_path(&user, &path, &moved).await.is_err(), "an existing target is not overwritten");
        assert_eq!(host.list_dir(&user, &dir).await.unwrap().unwrap(), ["moved", "sub dir"]);
        assert!(host.remove_file(&user, &moved).await.unwrap());
        assert!(!host.remove_file(&user, &moved).await.unwrap());
        assert!(host.make_dir(&user, &format!("{dir}/new"), "0700", None).await.unwrap());
        assert!(!host.make_dir(&user, &format!("{dir}/new"), "0700", None).await.unwrap());
        assert!(host.write_file(&user, &format!("{dir}/new"), b"x", "0600", None).await.is_err());
        assert!(host.remove_tree(&user, &dir).await.unwrap());
        assert!(!host.exists(&user, &dir).await.unwrap());
    }

    #[test]
    fn climbing_paths_are_refused() {
        for bad in ["relative/x", "/a/../etc", "/a/./b", "/a//b", "/a\nb/c"] {
            assert!(check_path(bad).is_err(), "{bad:?}");
        }
        assert!(check_path("/var/lib/dssflow/host.kit.abc").is_ok());
    }
}
