//! Who may open a store, what they are told otherwise, and what is on the disk.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use dssflow_engine::Engine;
use dssflow_engine::run::RunStatus;
use dssflow_engine::store::conformance::transition;
use dssflow_engine::store::{Expect, Store as _, StoreError};
use dssflow_store::{
    Disk, ManifestState, OpenEngine as _, OpenError, OpenOptions, OsDisk, SledStore, Synced, info_offline,
    verify_offline,
};

use crate::support::{child, child_path, fill, open, wait};

fn refusal(path: &Path) -> OpenError {
    SledStore::open(path, OpenOptions::default()).expect_err("must be refused")
}

#[test]
fn a_second_opener_is_told_who_owns_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let options = OpenOptions { command: "run bootstrap".to_owned(), ..OpenOptions::default() };
    let store = SledStore::open(&path, options).unwrap();
    for error in [refusal(&path), verify_offline(&path).unwrap_err(), info_offline(&path).unwrap_err()] {
        let OpenError::Locked { holder: Some(holder), .. } = &error else { panic!("{error:?}") };
        assert_eq!((holder.pid, holder.command.as_str()), (std::process::id(), "run bootstrap"));
        assert!(
            holder.start_time > 0 && holder.since.as_millis() > 0 && !holder.host.is_empty(),
            "{holder:?}"
        );
        assert!(error.to_string().contains(&format!("process {}", holder.pid)), "{error}");
    }
    wait(store.close()).unwrap();
    open(&path);
}

#[test]
fn a_dead_owner_owns_nothing() {
    if let Some(path) = child_path() {
        let _store = open(&path);
        println!("open");
        std::thread::park();
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut owner = child("open::a_dead_owner_owns_nothing", &path).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.ends_with("open")), "the child opened the store");
    let OpenError::Locked { holder: Some(holder), .. } = refusal(&path) else { panic!("it is owned") };
    assert_eq!(holder.pid, owner.id());
    owner.kill().unwrap();
    owner.wait().unwrap();
    open(&path);
}

#[test]
fn nothing_is_open_to_others_whatever_the_umask() {
    if let Some(path) = child_path() {
        let store = open(&path);
        wait(fill(&store, 12));
        drop(store);
        let store = open(&path);
        assert_modes(&path);
        wait(store.close()).unwrap();
        return;
    }
    for umask in ["000", "077", "777"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let child = child("open::nothing_is_open_to_others_whatever_the_umask", &path);
        // The umask belongs to the process, and other tests run in this one.
        let mut shell = std::process::Command::new("sh");
        shell
            .args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"])
            .arg(child.get_program())
            .args(child.get_args());
        shell.env("DSSFLOW_CHILD", &path);
        let output = shell.output().unwrap();
        assert!(output.status.success(), "umask {umask}: {}", String::from_utf8_lossy(&output.stdout));
        assert!(assert_modes(&path) >= 10, "every file was looked at");
    }
}

/// Returns how many files and directories it looked at.
fn assert_modes(path: &Path) -> usize {
    let mode = fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
    if path.is_dir() {
        assert_eq!(mode, 0o700, "{}", path.display());
        1 + fs::read_dir(path).unwrap().map(|entry| assert_modes(&entry.unwrap().path())).sum::<usize>()
    } else {
        assert_eq!(mode, 0o600, "{}", path.display());
        1
    }
}

#[test]
fn unsafe_places_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    wait(open(&path).close()).unwrap();

    for mode in [0o750, 0o701, 0o720] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = refusal(&path);
        assert!(matches!(error, OpenError::Unsafe { .. }), "{error:?}");
        assert!(error.hint().contains("chmod -R go= "), "{}", error.hint());
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();

    let link = dir.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(matches!(refusal(&link), OpenError::Unsafe { .. }));
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(matches!(refusal(&file), OpenError::Unsafe { .. }));

    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(home.join("letters.txt"), "x").unwrap();
    assert!(matches!(refusal(&home), OpenError::NotAStore { found, .. } if found == "letters.txt"));
    assert_eq!(fs::read_dir(&home).unwrap().count(), 1, "nothing was made there");

    let absent = dir.path().join("absent");
    let options = OpenOptions { create: false, ..OpenOptions::default() };
    assert!(matches!(SledStore::open(&absent, options), Err(OpenError::NotFound { .. })));
    assert!(matches!(verify_offline(&absent), Err(OpenError::NotFound { .. })));
    assert!(!absent.exists());
    open(&path);
}

#[test]
fn a_newer_format_names_the_version_that_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    wait(open(&path).close()).unwrap();
    let text = fs::read_to_string(path.join("FORMAT")).unwrap();
    let body = text
        .rsplit_once("crc32")
        .unwrap()
        .0
        .replace("format 3", "format 7")
        .replace("needs 0.2.0", "needs 2.5.0");
    fs::write(path.join("FORMAT"), format!("{body}crc32 {:08x}\n", crc32fast::hash(body.as_bytes())))
        .unwrap();
    let error = refusal(&path);
    assert!(matches!(error, OpenError::Newer { format: 7, known: 3, .. }), "{error:?}");
    assert_eq!(error.hint(), "use dssflow 2.5.0 or later");
}

#[test]
fn an_interrupted_creation_is_taken_up() {
    for keep in [&[][..], &["FORMAT"], &["FORMAT", "HEAD"]] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let id = {
            let store = open(&path);
            store.id()
        };
        // As it was before the first group: what came later is gone.
        for name in ["CURRENT", "gen-1", "payloads", "HEAD", "FORMAT"] {
            if !keep.contains(&name) || name == "HEAD" {
                let path = path.join(name);
                if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
            }
        }
        let store = open(&path);
        assert_eq!(store.id() == id, keep.contains(&"FORMAT"), "the id is the one in FORMAT");
        wait(store.commit(transition("a", Expect::New, store.epoch()))).unwrap();
    }
}

/// The system refuses to sync a tree.
struct NoTreeSync;

impl Disk for NoTreeSync {
    fn sync(&self, file: &fs::File, what: Synced) -> std::io::Result<()> {
        if what == Synced::Tree { Err(std::io::Error::other("injected")) } else { OsDisk.sync(file, what) }
    }
}

#[test]
fn a_tree_that_was_cut_off_while_it_was_made_is_made_anew_and_a_used_one_never() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let options = OpenOptions { disk: Arc::new(NoTreeSync), ..OpenOptions::default() };
    assert!(matches!(SledStore::open(&path, options), Err(OpenError::Io { doing: "sync", .. })));
    assert!(!path.join("CURRENT").exists(), "it comes last");
    let conf = path.join("gen-1/conf");
    fs::write(&conf, &fs::read(&conf).unwrap()[..10]).unwrap();
    {
        let store = open(&path);
        wait(fill(&store, 2));
    }

    fs::remove_file(path.join("CURRENT")).unwrap();
    let before = listing(&path.join("gen-1"));
    assert!(matches!(refusal(&path), OpenError::Damaged { .. }));
    fs::remove_file(path.join("HEAD")).unwrap();
    assert!(matches!(refusal(&path), OpenError::Damaged { .. }));
    assert_eq!(listing(&path.join("gen-1")), before, "nothing of it was touched");
}

#[test]
fn a_closed_store_says_so_and_is_checked_byte_by_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = open(&path);
    wait(async {
        fill(&store, 12).await;
        let info = store.info().await.unwrap();
        assert_eq!(info.holder.map(|holder| holder.pid), Some(std::process::id()));
        assert_eq!(
            (info.events, info.runs[&RunStatus::Succeeded], info.runs[&RunStatus::Running]),
            (48, 4, 8)
        );
        store.close().await.unwrap();
        store.close().await.unwrap();
        let error = store.commit(transition("b", Expect::New, store.epoch())).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    });
    let before = listing(&path);
    let report = verify_offline(&path).unwrap();
    assert!(report.report.damage.is_empty() && report.notes.is_empty(), "{report:?}");
    assert_eq!((report.report.runs, report.report.events), (12, 48));
    assert!(matches!(report.manifest, ManifestState::Checked { files } if files > 10), "{report:?}");
    let info = info_offline(&path).unwrap();
    assert_eq!((info.epoch, info.events, &info.holder), (1, 48, &None));
    assert!(info.bytes_on_disk > 70_000 * 12, "{info:?}");
    assert_eq!(info.oldest.map(|oldest| oldest.created.as_millis()), Some(1_000));
    assert_eq!(listing(&path), before, "looking changes nothing");

    drop(open(&path));
    let report = verify_offline(&path).unwrap();
    assert_eq!(report.manifest, ManifestState::Absent);
    assert!(report.report.damage.is_empty() && report.notes.len() == 1, "{report:?}");
}

#[test]
fn an_engine_owns_its_store_until_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep").join("state");
    wait(async {
        let engine = Engine::open(&path).await.unwrap().build();
        assert_eq!(engine.store().caps().backend, "sled");
        let error = Engine::open(&path).await.map(|_| ()).unwrap_err();
        assert!(matches!(error, OpenError::Locked { .. }), "{error:?}");
        engine.store().commit(transition("a", Expect::New, engine.store().epoch())).await.unwrap();
        let first = engine.store().epoch();
        drop(engine);
        let engine = Engine::open(&path).await.unwrap().build();
        assert_eq!(engine.store().epoch(), first + 1);
        assert_eq!(engine.list(Default::default()).await.unwrap().runs.len(), 1);
    });
}

/// Every file with its content.
fn listing(path: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(listing(&path));
        } else {
            let content = fs::read(&path).unwrap();
            files.push((path, content));
        }
    }
    files.sort();
    files
}
