//! Recordings of the real program, each checked against the directory that it left.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::OnceLock;

use dssflow_durability::dice::Dice;
use dssflow_durability::mutate::fleeting_dir;
use dssflow_durability::oracle::Acks;
use dssflow_durability::replay::{Before, Ignored, Kept, Replay};
use dssflow_durability::shim::{Log, Op, Shim};

/// How many images are wanted unless `DSSFLOW_IMAGES` says so.
const IMAGES: u64 = 500;
/// From so many on the engine is recorded for longer; each image costs more then.
const MANY: u64 = 2_000;

pub(crate) fn images() -> u64 {
    std::env::var("DSSFLOW_IMAGES").map_or(IMAGES, |images| images.parse().unwrap())
}

/// Where things are made: in memory where there is such a place, as thousands of stores are written and synced.
pub(crate) fn scratch() -> tempfile::TempDir {
    match std::env::var_os("DSSFLOW_IMAGE_DIR") {
        Some(dir) => tempfile::tempdir_in(dir).unwrap(),
        None => fleeting_dir().unwrap(),
    }
}

/// One or more lives of the program, written down.
pub(crate) struct Recording {
    pub(crate) name: &'static str,
    pub(crate) is_engine: bool,
    pub(crate) log: Log,
    pub(crate) before: Before,
    /// What had been acknowledged before it begins.
    pub(crate) acks: Acks,
}

impl Recording {
    /// Whether it begins with what a power cut has left.
    pub(crate) fn is_second(&self) -> bool {
        !self.before.is_empty()
    }
}

pub(crate) struct Recorder {
    name: &'static str,
    shim: Shim,
    dir: tempfile::TempDir,
    before: Before,
    acks: Acks,
}

impl Recorder {
    /// On an empty disk, or one made by `fill`.
    pub(crate) fn new(name: &'static str, acks: Acks, fill: impl FnOnce(&Path)) -> Self {
        let dir = scratch();
        let shim = Shim::build(dir.path()).unwrap();
        std::fs::create_dir(dir.path().join("disk")).unwrap();
        fill(&dir.path().join("disk"));
        let before = Before::read(&dir.path().join("disk")).unwrap();
        Self { name, shim, dir, before, acks }
    }

    /// The program that looks after a whole store, and what it said when it failed.
    pub(crate) fn upkeep(&self, verb: &str) {
        let root = self.dir.path().join("disk");
        let mut command =
            self.shim.command(env!("CARGO_BIN_EXE_upkeep"), &root, &self.dir.path().join("log"));
        let ended = command.arg(verb).arg(root.join("store")).stderr(Stdio::piped()).output().unwrap();
        assert!(ended.status.success(), "{verb}: {}", String::from_utf8_lossy(&ended.stderr));
    }

    fn life(&self, args: &[&str], stop: Option<&str>) -> ExitStatus {
        let root = self.dir.path().join("disk");
        let mut command = self.shim.command(env!("CARGO_BIN_EXE_storm"), &root, &self.dir.path().join("log"));
        command.arg(root.join("store")).args(args).envs(stop.map(|stop| ("SHIM_STOP", stop)));
        command.status().unwrap()
    }

    /// Reads the log. All of it taken together is exactly what is on the disk: the shim has missed nothing.
    pub(crate) fn end(self) -> Recording {
        let log = Log::read(&self.dir.path().join("log")).unwrap();
        let mut replay = Replay::new(&log, &self.before, Ignored::Nothing);
        replay.advance(log.ops.len());
        let image = self.dir.path().join("image");
        let made = replay.image("store", Kept::All, &mut Dice::new(0), &image).unwrap();
        assert!(made.is_there);
        let (found, expected) = (files(&image), files(&self.dir.path().join("disk/store")));
        let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&expected), "{}: the files", self.name);
        for (name, bytes) in &expected {
            assert!(found[name] == *bytes, "{}: the bytes of {name}", self.name);
        }
        let Self { name, before, acks, .. } = self;
        let is_engine = log.ops.iter().any(|op| matches!(op, Op::Open { path, .. } if path == "effects"));
        Recording { name, is_engine, log, before, acks }
    }
}

/// All files below a directory.
pub(crate) fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                found.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    found
}

/// 64 runs at once, killed in the middle; a second life that goes on with them, and a third.
pub(crate) fn engine() -> &'static Recording {
    static RECORDING: OnceLock<Recording> = OnceLock::new();
    RECORDING.get_or_init(|| {
        let recorder = Recorder::new("engine", Acks::default(), |_| {});
        // With the write of a slot of HEAD, which is in memory only then.
        let (calls, more) = if images() < MANY { ("4000:512", "16") } else { ("6000:512", "200") };
        assert_eq!(recorder.life(&["--runs", "64"], Some(calls)).code(), Some(137));
        assert!(recorder.life(&["--runs", "64", "--total", more], None).success());
        assert!(recorder.life(&["--runs", "8", "--total", "8"], None).success());
        recorder.end()
    })
}

/// Writers on the store, closed in good order; opened again, and closed again, and once more.
pub(crate) fn store() -> &'static Recording {
    static RECORDING: OnceLock<Recording> = OnceLock::new();
    RECORDING.get_or_init(|| {
        let recorder = Recorder::new("store", Acks::default(), |_| {});
        for commits in ["24", "8", "4"] {
            let args = ["--store", "--writers", "16", "--commits", commits];
            assert!(recorder.life(&args, None).success());
        }
        recorder.end()
    })
}

/// A life that begins with what a power cut left of the first one, in its part of this name.
pub(crate) fn after_cut(name: &'static str, part: &str, dice: &mut Dice) -> Recording {
    let first = store();
    let ops = parts(&first.log).into_iter().find(|found| found.name == part).unwrap().ops;
    let at = ops.start + ops.len() / 2 + dice.index(ops.len() / 2);
    let mut replay = Replay::new(&first.log, &first.before, Ignored::Nothing);
    replay.advance(at);
    let mut acks = Acks::default();
    acks.read(&first.log.said(0, at));
    let recorder = Recorder::new(name, acks, |disk| {
        assert!(replay.image("store", Kept::Torn, dice, &disk.join("store")).unwrap().is_there);
    });
    assert!(recorder.life(&["--store", "--writers", "8", "--commits", "8"], None).success());
    recorder.end()
}

/// A part of a recording, by what the program did then.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) name: &'static str,
    /// How many images it gets, as against the others.
    pub(crate) share: u64,
    pub(crate) ops: Range<usize>,
}

/// Each life has an opening, which ends when it says so, and a closing, which begins after its last other word.
pub(crate) fn parts(log: &Log) -> Vec<Part> {
    let starts: Vec<usize> =
        (0..log.ops.len()).filter(|at| matches!(log.ops[*at], Op::Life { .. })).collect();
    let mut parts = Vec::new();
    for (life, start) in starts.iter().enumerate() {
        let end = starts.get(life + 1).copied().unwrap_or(log.ops.len());
        let said: Vec<usize> = (*start..end).filter(|at| matches!(log.ops[*at], Op::Said { .. })).collect();
        let opened = *said.first().unwrap() + 1;
        let closes = log.said(*start, end).ends_with("closed\n");
        let ran = if closes { said[said.len() - 2] + 1 } else { end };
        let name = if life == 0 { "creating" } else { "opening" };
        parts.push(Part { name, share: 20, ops: *start..opened });
        parts.push(Part { name: "running", share: if closes { 30 } else { 60 }, ops: opened..ran });
        if closes {
            parts.push(Part { name: "closing", share: 15, ops: ran..end });
        }
    }
    parts
}
