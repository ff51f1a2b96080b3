//! The context of a build, packed so that the same files give the same bytes.
//!
//! Entries are sorted, times and owners fixed; of the mode only the executable bit counts, as in Git. The archive is
//! never held as a whole: it is written once to be hashed, and once more to the daemon. Symbolic links are packed as
//! links; what is neither a file, a directory nor a link is refused.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dssflow_engine::activity::{ActivityError, ActivityResult};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::ignore::Ignore;

/// The most files, directories and links a context may have.
pub const MAX_ENTRIES: usize = 200_000;
/// The most bytes all files of a context may have together.
pub const MAX_BYTES: u64 = 8 * 1024 * 1024 * 1024;
/// The most bytes of a `.dockerignore`.
const MAX_IGNORE_BYTES: u64 = 1024 * 1024;
/// How deep directories may lie in each other.
const MAX_DEPTH: usize = 256;
/// The time of every entry: 1980-01-01, the first that zip files can tell.
const TIME: u64 = 315_532_800;
/// What is sent at once.
const CHUNK: usize = 256 * 1024;
/// How many such pieces wait to be sent.
const AHEAD: usize = 8;

const IGNORE_FILE: &str = ".dockerignore";

/// The files of a context, found but not read.
#[derive(Debug, Clone)]
pub struct Context {
    root: PathBuf,
    entries: Arc<Vec<Entry>>,
    /// What all files have together.
    bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// Below the root; parts divided by `/`.
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Directory,
    File { size: u64, executable: bool },
    Link { target: PathBuf },
}

impl Context {
    /// Finds the files of a context. `.dockerignore` and the Dockerfile are always among them, as Docker wants it: the
    /// daemon reads both and takes them out itself.
    ///
    /// # Errors
    /// A terminal error when the directory or the Dockerfile is missing or unreadable, for what cannot be packed, and
    /// for more than the limits allow.
    pub async fn find(root: &Path, dockerfile: &str) -> ActivityResult<Self> {
        let (root, dockerfile) = (root.to_owned(), dockerfile.to_owned());
        blocking(move || Self::find_now(&root, &dockerfile)).await
    }

    fn find_now(root: &Path, dockerfile: &str) -> ActivityResult<Self> {
        let wrong = |what: String| ActivityError::terminal("ContextInvalid", what).no_effect();
        if !root.is_absolute() {
            return Err(wrong(format!("the context {} is no absolute path", root.display())));
        }
        let inside = Path::new(dockerfile).components().all(|c| matches!(c, std::path::Component::Normal(_)));
        if dockerfile.is_empty() || !inside {
            return Err(wrong(format!("the Dockerfile {dockerfile:?} must lie in the context"))
                .help("name it by its path below the context, as docker/Dockerfile"));
        }
        if !root.join(dockerfile).is_file() {
            return Err(wrong(format!("{} has no file {dockerfile}", root.display())));
        }
        let ignore = read_ignore(&root.join(IGNORE_FILE))?;
        let mut walk = Walk {
            ignore,
            always: [IGNORE_FILE.to_owned(), dockerfile.to_owned()],
            entries: Vec::new(),
            bytes: 0,
        };
        walk.directory(root, &mut Vec::new())?;
        walk.entries.sort_by(|a, b| a.path.as_os_str().as_bytes().cmp(b.path.as_os_str().as_bytes()));
        Ok(Self { root: root.to_owned(), bytes: walk.bytes, entries: Arc::new(walk.entries) })
    }

    /// How many bytes all files have together.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many files, directories and links there are.
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// The SHA-256 of the archive, in hex. Reads every file.
    ///
    /// # Errors
    /// As [`Context::find`]; a retryable error when a file changes meanwhile.
    pub async fn hash(&self) -> ActivityResult<String> {
        let this = self.clone();
        blocking(move || {
            let mut sink = Hashing { hash: Sha256::new(), to: io::sink() };
            this.pack(&mut sink)?;
            Ok(hex::encode(sink.hash.finalize()))
        })
        .await
    }

    /// The archive as a stream, and its hash once it was all read: what was sent may differ from what was hashed before.
    pub fn stream(&self) -> (impl futures::Stream<Item = io::Result<Bytes>> + Send + 'static, SentHash) {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let sent = SentHash::default();
        let (this, told) = (self.clone(), sent.clone());
        tokio::task::spawn_blocking(move || {
            let to = Chunks { sender: sender.clone(), buffer: Vec::with_capacity(CHUNK) };
            let mut sink = Hashing { hash: Sha256::new(), to };
            let packed = this.pack(&mut sink).and_then(|()| {
                sink.to.flush().map_err(|e| ActivityError::retryable("ContextNotSent", e.to_string()))
            });
            match packed {
                Ok(()) => told.set(hex::encode(sink.hash.finalize())),
                // The daemon hung up, or a file changed: an archive that is cut off must not pass for a whole one.
                Err(error) => drop(sender.blocking_send(Err(io::Error::other(error.message)))),
            }
        });
        let stream = futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|chunk| (chunk, receiver))
        });
        (stream, sent)
    }

    fn pack(&self, sink: &mut impl Write) -> ActivityResult<()> {
        let mut archive = tar::Builder::new(sink);
        archive.mode(tar::HeaderMode::Deterministic);
        for entry in self.entries.iter() {
            let failed = |error: &io::Error| file_trouble(&self.root.join(&entry.path), error);
            let mut header = tar::Header::new_gnu();
            header.set_mtime(TIME);
            header.set_uid(0);
            header.set_gid(0);
            match &entry.kind {
                Kind::Directory => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(0o755);
                    header.set_size(0);
                    archive.append_data(&mut header, &entry.path, io::empty()).map_err(|e| failed(&e))?;
                }
                Kind::Link { target } => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_mode(0o777);
                    header.set_size(0);
                    archive.append_link(&mut header, &entry.path, target).map_err(|e| failed(&e))?;
                }
                Kind::File { size, executable } => {
                    header.set_entry_type(tar::EntryType::Regular);
                    header.set_mode(if *executable { 0o755 } else { 0o644 });
                    header.set_size(*size);
                    let mut file =
                        Exactly::open(&self.root.join(&entry.path), *size).map_err(|e| failed(&e))?;
                    archive.append_data(&mut header, &entry.path, &mut file).map_err(|e| failed(&e))?;
                    file.check(&entry.path)?;
                }
            }
        }
        let finished = archive.finish();
        finished.map_err(|e| ActivityError::retryable("ContextNotSent", e.to_string()))
    }
}

/// The hash of an archive that was streamed; none until all of it was.
#[derive(Debug, Clone, Default)]
pub struct SentHash(Arc<Mutex<Option<String>>>);

impl SentHash {
    fn set(&self, hash: String) {
        *self.0.lock().expect("nobody panics while it is held") = Some(hash);
    }

    /// The hash, once everything was read.
    pub fn get(&self) -> Option<String> {
        self.0.lock().expect("nobody panics while it is held").clone()
    }
}

struct Walk {
    ignore: Ignore,
    always: [String; 2],
    entries: Vec<Entry>,
    bytes: u64,
}

impl Walk {
    fn directory(&mut self, at: &Path, parts: &mut Vec<String>) -> ActivityResult<()> {
        if parts.len() > MAX_DEPTH {
            return Err(too_much(format!("{} lies more than {MAX_DEPTH} directories deep", at.display())));
        }
        for found in std::fs::read_dir(at).map_err(|e| file_trouble(at, &e))? {
            let found = found.map_err(|e| file_trouble(at, &e))?;
            let path = found.path();
            // By its bytes where it is no text: patterns are text, and so such a name can only be taken.
            parts.push(found.file_name().to_string_lossy().into_owned());
            let meta = found.metadata().map_err(|e| file_trouble(&path, &e))?;
            self.entry(&path, &found.file_name(), &meta, parts)?;
            parts.pop();
        }
        Ok(())
    }

    fn entry(
        &mut self,
        path: &Path,
        name: &OsStr,
        meta: &Metadata,
        parts: &mut Vec<String>,
    ) -> ActivityResult<()> {
        let words: Vec<&str> = parts.iter().map(String::as_str).collect();
        let out = self.ignore.leaves_out(&words) && !self.always.contains(&words.join("/"));
        let below: PathBuf = words[..words.len() - 1].iter().collect::<PathBuf>().join(name);
        if meta.is_dir() {
            if !out {
                self.add(Entry { path: below.clone(), kind: Kind::Directory })?;
            }
            let holds_always = self.always.iter().any(|a| Path::new(a).starts_with(&below));
            if !out || holds_always || self.ignore.takes_some_in() {
                self.directory(path, parts)?;
            }
            return Ok(());
        }
        if out {
            return Ok(());
        }
        let kind = if meta.is_symlink() {
            Kind::Link { target: std::fs::read_link(path).map_err(|e| file_trouble(path, &e))? }
        } else if meta.is_file() {
            self.bytes += meta.len();
            Kind::File { size: meta.len(), executable: meta.permissions().mode() & 0o111 != 0 }
        } else {
            return Err(ActivityError::terminal(
                "ContextInvalid",
                format!("{} is neither a file, a directory nor a link", path.display()),
            )
            .help(format!("move it out of the context, or name it in {IGNORE_FILE}"))
            .no_effect());
        };
        self.add(Entry { path: below, kind })
    }

    fn add(&mut self, entry: Entry) -> ActivityResult<()> {
        self.entries.push(entry);
        if self.entries.len() > MAX_ENTRIES {
            return Err(too_much(format!("the context has more than {MAX_ENTRIES} files and directories")));
        }
        if self.bytes > MAX_BYTES {
            return Err(too_much(format!("the files of the context have more than {MAX_BYTES} bytes")));
        }
        Ok(())
    }
}

fn too_much(message: String) -> ActivityError {
    ActivityError::terminal("ContextTooLarge", message)
        .help(format!("name what the build does not need in {IGNORE_FILE}"))
        .no_effect()
}

fn read_ignore(path: &Path) -> ActivityResult<Ignore> {
    let mut text = String::new();
    match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Ignore::default()),
        opened => opened
            .and_then(|file| file.take(MAX_IGNORE_BYTES).read_to_string(&mut text))
            .map_err(|e| file_trouble(path, &e))?,
    };
    Ok(Ignore::parse(&text))
}

/// A file of which exactly so many bytes are read: the header of the archive has told so many.
struct Exactly {
    file: io::Take<File>,
    left: u64,
}

impl Exactly {
    fn open(path: &Path, size: u64) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?.take(size), left: size })
    }

    fn check(mut self, path: &Path) -> ActivityResult<()> {
        let more = self.file.get_mut().read(&mut [0]).unwrap_or(0);
        if self.left == 0 && more == 0 {
            return Ok(());
        }
        Err(ActivityError::retryable(
            "ContextChanged",
            format!("{} changed while it was read", path.display()),
        )
        .help("let nothing write into the context while it is built")
        .no_effect())
    }
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.left -= n as u64;
        Ok(n)
    }
}

/// Hashes what is written through it.
struct Hashing<W> {
    hash: Sha256,
    to: W,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write_all(bytes)?;
        self.hash.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Sends what is written in pieces.
struct Chunks {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        if full.is_empty() {
            return Ok(());
        }
        self.sender.blocking_send(Ok(full.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

fn file_trouble(path: &Path, error: &io::Error) -> ActivityError {
    let what = format!("{}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::NotFound => ActivityError::retryable("ContextChanged", what)
            .help("let nothing write into the context while it is built"),
        _ => ActivityError::terminal("ContextUnreadable", what),
    }
    .no_effect()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> ActivityResult<T> + Send + 'static,
) -> ActivityResult<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(ActivityError::terminal("ContextUnreadable", e.to_string()).no_effect()))
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn names(context: &Context) -> Vec<String> {
        context.entries.iter().map(|e| e.path.display().to_string()).collect()
    }

    #[tokio::test]
    async fn the_same_files_give_the_same_bytes_whatever_their_times() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (dir, order) in [(&a, ["z", "m/n", "Dockerfile"]), (&b, ["Dockerfile", "m/n", "z"])] {
            for name in order {
                write(dir.path(), name, name);
            }
        }
        let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        File::open(b.path().join("z")).unwrap().set_modified(old).unwrap();
        std::fs::set_permissions(b.path().join("z"), std::fs::Permissions::from_mode(0o600)).unwrap();
        let find = |dir: PathBuf| async move { Context::find(&dir, "Dockerfile").await.unwrap() };
        let (first, second) = (find(a.path().to_owned()).await, find(b.path().to_owned()).await);
        assert_eq!(names(&first), ["Dockerfile", "m", "m/n", "z"]);
        assert_eq!((first.entries(), first.bytes()), (4, 14));
        let hash = first.hash().await.unwrap();
        assert_eq!(hash, second.hash().await.unwrap());
        std::fs::set_permissions(b.path().join("z"), std::fs::Permissions::from_mode(0o700)).unwrap();
        assert_ne!(hash, find(b.path().to_owned()).await.hash().await.unwrap(), "it can be run now");
        write(a.path(), "m/n", "N");
        assert_ne!(
            hash,
            find(a.path().to_owned()).await.hash().await.unwrap(),
            "another text of the same length"
        );
    }

    #[tokio::test]
    async fn what_is_sent_is_a_tar_with_the_hash_that_was_told() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "Dockerfile", "FROM scratch\n");
        let deep = format!("d/{}/{}", "x".repeat(120), "y".repeat(120));
        write(dir.path(), &deep, &"0123456789".repeat(CHUNK / 5));
        std::os::unix::fs::symlink("../outside", dir.path().join("link")).unwrap();
        let context = Context::find(dir.path(), "Dockerfile").await.unwrap();
        let (stream, sent) = context.stream();
        let bytes: Vec<u8> = stream.map(|chunk| chunk.unwrap().to_vec()).collect::<Vec<_>>().await.concat();
        assert_eq!(sent.get(), Some(context.hash().await.unwrap()));
        assert_eq!(hex::encode(Sha256::digest(&bytes)), sent.get().unwrap());
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut seen = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut text = Vec::new();
            entry.read_to_end(&mut text).unwrap();
            assert_eq!((entry.header().mtime().unwrap(), entry.header().uid().unwrap()), (TIME, 0));
            seen.push((path, text.len()));
        }
        let long = format!("d/{}", "x".repeat(120));
        let expected = [
            ("Dockerfile", 13),
            ("d", 0),
            (long.as_str(), 0),
            (deep.as_str(), CHUNK * 2 / 10 * 10),
            ("link", 0),
        ];
        let seen: Vec<_> = seen.iter().map(|(path, n)| (path.trim_end_matches('/'), *n)).collect();
        assert_eq!(seen.len(), expected.len());
        for ((path, size), (wanted, expected)) in seen.iter().zip(expected) {
            assert_eq!(*path, wanted);
            assert!(*size == expected || *path == deep, "{path}: {size}");
        }
    }

    #[tokio::test]
    async fn ignored_files_stay_out_and_the_dockerfile_stays_in() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["docker/Dockerfile", "docker/notes", "src/a.rs", "target/x/y", "keep/target/z", "a.log"]
        {
            write(dir.path(), name, "");
        }
        write(dir.path(), IGNORE_FILE, "docker\ntarget\n*.log\n");
        let context = Context::find(dir.path(), "docker/Dockerfile").await.unwrap();
        assert_eq!(
            names(&context),
            [".dockerignore", "docker/Dockerfile", "keep", "keep/target", "keep/target/z", "src", "src/a.rs"]
        );
    }

    #[tokio::test]
    async fn what_cannot_be_built_is_told_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let code = |dockerfile: &'static str| {
            let root = dir.path().to_owned();
            async move { Context::find(&root, dockerfile).await.unwrap_err().code }
        };
        assert_eq!(code("Dockerfile").await, "ContextInvalid");
        assert_eq!(code("../Dockerfile").await, "ContextInvalid");
        assert_eq!(code("/Dockerfile").await, "ContextInvalid");
        write(dir.path(), "Dockerfile", "FROM scratch\n");
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        assert_eq!(code("Dockerfile").await, "ContextInvalid");
        write(dir.path(), IGNORE_FILE, "socket");
        assert!(Context::find(dir.path(), "Dockerfile").await.is_ok());
    }

    #[tokio::test]
    async fn a_file_that_changes_meanwhile_is_no_context() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "Dockerfile", "FROM scratch\n");
        let context = Context::find(dir.path(), "Dockerfile").await.unwrap();
        write(dir.path(), "Dockerfile", "FROM scratch\nCOPY a /\n");
        assert_eq!(context.hash().await.unwrap_err().code, "ContextChanged");
        write(dir.path(), "Dockerfile", "FROM\n");
        assert_eq!(context.hash().await.unwrap_err().code, "ContextChanged");
        let (stream, sent) = context.stream();
        let mut stream = std::pin::pin!(stream);
        let mut failed = false;
        while let Some(chunk) = stream.next().await {
            failed |= chunk.is_err();
        }
        assert!(failed && sent.get().is_none());
    }
}
