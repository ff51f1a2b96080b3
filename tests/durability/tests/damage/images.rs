//! The stores that are damaged: closed in good order and not, with payload files, chunks, many runs, several
//! segments of sled's log, snapshots, and pasts of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dssflow_durability::content::Content;
use dssflow_durability::mutate;
use dssflow_engine::id::ScheduleId;
use dssflow_engine::run::RunStatus;
use dssflow_engine::store::conformance::transition;
use dssflow_engine::store::{Expect, GraphHash, SchedulePut, Store as _, Transition};
use dssflow_engine::time::Timestamp;
use dssflow_store::{OpenOptions, SledStore};
use futures::future::join_all;
use rustix::process::{Signal, getpid, kill_process};

use crate::wait;

/// Names the image that a child of this test is to write to, as `name:phase:path`.
const BUILD: &str = "DSSFLOW_BUILD_IMAGE";

/// How an image is made.
pub(crate) struct Recipe {
    pub(crate) name: &'static str,
    /// In each phase a process opens the store, adds events to every run, and ends.
    phases: u64,
    runs: u64,
    /// Per run and phase.
    events: u64,
    sizes: &'static [usize],
    /// Whether the last process closes the store. The others take turns.
    closed: bool,
}

/// Sizes of records: one value, several, and a payload file.
const MIXED: &[usize] = &[70, 900, 9_000, 300, 66_000, 40, 5_000, 200, 60, 4_100, 300, 90, 1_500];
const SMALL: &[usize] = &[120, 300, 60];

pub(crate) const RECIPES: &[Recipe] = &[
    Recipe { name: "closed", phases: 3, runs: 12, events: 3, sizes: MIXED, closed: true },
    Recipe { name: "killed", phases: 3, runs: 12, events: 3, sizes: MIXED, closed: false },
    Recipe { name: "crowd", phases: 3, runs: 120, events: 3, sizes: SMALL, closed: false },
    Recipe { name: "worn", phases: 16, runs: 5, events: 2, sizes: MIXED, closed: false },
    Recipe { name: "young", phases: 1, runs: 2, events: 3, sizes: SMALL, closed: false },
    Recipe { name: "young-closed", phases: 2, runs: 2, events: 3, sizes: SMALL, closed: true },
];

/// A store and its pasts.
pub(crate) struct Image {
    pub(crate) now: PathBuf,
    /// Copies from between the phases, oldest first.
    pub(crate) pasts: Vec<PathBuf>,
    /// What is read of it.
    pub(crate) content: Content,
}

fn run_name(run: u64) -> String {
    format!("run-{run:03}")
}

pub(crate) fn graph_name(graph: u64) -> String {
    format!("{graph:064x}")
}

/// What an event's record holds: its place, again and again.
pub(crate) fn record(run: &str, seq: u64, size: usize) -> Vec<u8> {
    format!("{run}:{seq};").into_bytes().into_iter().cycle().take(size).collect()
}

impl Recipe {
    pub(crate) fn size(&self, run: u64, seq: u64) -> usize {
        self.sizes[usize::try_from(run + seq).expect("small") % self.sizes.len()]
    }

    fn next(&self, run: u64, seq: u64, epoch: u64) -> Transition {
        let name = run_name(run);
        let expect = if seq == 1 { Expect::New } else { Expect::At { seq: seq - 1 } };
        let mut next = transition(&name, expect, epoch);
        next.record = record(&name, seq, self.size(run, seq));
        next.summary.created = Timestamp::from_millis(1_000 + run / 3);
        next.summary.labels = [("team".to_owned(), format!("t{}", run % 4))].into();
        next.due = (!(run + seq).is_multiple_of(3)).then(|| Timestamp::from_millis(5_000 + run * 7 + seq));
        if run % 4 == 3 && seq == self.events * self.phases {
            next.summary.status = RunStatus::Succeeded;
        }
        if seq == 1 {
            let size = [500, 6_000, 66_000][usize::try_from(run / 5 % 3).expect("small")];
            next.graph = Some((GraphHash(graph_name(run / 5)), vec![b'g'; size]));
        }
        next
    }

    /// One phase, in a process of its own that then ends as the recipe says.
    fn phase(&self, phase: u64, path: &Path) {
        let store = SledStore::open(path, OpenOptions::default()).unwrap();
        wait(join_all((0..self.runs).map(async |run| {
            for event in 1..=self.events {
                store.commit(self.next(run, phase * self.events + event, store.epoch())).await.unwrap();
            }
        })));
        wait(self.schedules(phase, &store));
        if (self.phases - 1 - phase) % 2 == u64::from(!self.closed) {
            wait(store.close()).unwrap();
        } else {
            kill_process(getpid(), Signal::KILL).unwrap();
        }
    }

    /// Each phase writes them again, in another order of sizes, and removes one.
    async fn schedules(&self, phase: u64, store: &SledStore) {
        for number in 0..5_u64 {
            let id = ScheduleId::new(format!("plan-{number}")).unwrap();
            let expect = store.schedule(&id).await.unwrap().map(|stored| stored.version);
            let size = [300, 9_000, 40_000][usize::try_from((number + phase) % 3).unwrap()];
            let record = vec![b'a' + u8::try_from(phase).unwrap(); size];
            let due = (number != 2).then(|| Timestamp::from_millis(9_000 + number));
            let put = SchedulePut { id: id.clone(), expect, record, due };
            let version = store.put_schedule(put, store.epoch()).await.unwrap();
            if number == 4 {
                store.remove_schedule(&id, version, store.epoch()).await.unwrap();
            }
        }
    }

    pub(crate) fn run_names(&self) -> Vec<String> {
        (0..self.runs).map(run_name).collect()
    }

    fn graph_names(&self) -> Vec<String> {
        (0..self.runs.div_ceil(5)).map(graph_name).collect()
    }

    /// Makes the store below `dir`.
    pub(crate) fn make(&self, dir: &Path) -> Image {
        let now = dir.join(self.name);
        let mut pasts = Vec::new();
        for phase in 0..self.phases {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["images::builder", "--exact", "--nocapture"]);
            child.env(BUILD, format!("{}:{phase}:{}", self.name, now.display()));
            let output = child.stdin(Stdio::null()).output().unwrap();
            // Killed by itself, or in good order: never panicked.
            assert!(output.status.code().is_none_or(|code| code == 0), "{phase}: {output:?}");
            if phase + 1 < self.phases {
                let past = dir.join(format!("{}-{phase}", self.name));
                mutate::copy(&now, &past).unwrap();
                pasts.push(past);
            }
        }
        assert_eq!(now.join("MANIFEST").exists(), self.closed, "{}", self.name);
        let copy = dir.join("to-read");
        mutate::copy(&now, &copy).unwrap();
        let store = SledStore::open(&copy, OpenOptions::default()).unwrap();
        let content = wait(Content::read(&store, &self.run_names(), &self.graph_names()));
        drop(store);
        fs::remove_dir_all(&copy).unwrap();
        assert_eq!(content.events, self.runs * self.phases * self.events);
        let bad = content.answers.iter().find(|(_, answer)| answer.is_err());
        assert_eq!(bad, None, "all of it can be read");
        Image { now, pasts, content }
    }
}

/// No test of its own: the process that fills a store for one that is.
#[test]
fn builder() {
    let Some(wanted) = std::env::var_os(BUILD) else { return };
    let wanted = wanted.to_str().unwrap();
    let (name, rest) = wanted.split_once(':').unwrap();
    let (phase, path) = rest.split_once(':').unwrap();
    let recipe = RECIPES.iter().find(|recipe| recipe.name == name).unwrap();
    recipe.phase(phase.parse().unwrap(), Path::new(path));
}
