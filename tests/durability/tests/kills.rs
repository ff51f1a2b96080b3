//! The engine with 64 runs at once, killed again and again: while it works, while it opens its store, while it recovers,
//! while it ends. A new process goes on each time. Judged from outside alone: by what was acknowledged in print, and by
//! the file in which every step leaves a line when it acts.
//!
//! `DSSFLOW_ENGINE_KILLS` is how many kills there are. Every fifty a new store is begun.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dssflow_durability::dice::{self, Dice};
use dssflow_durability::mutate::fleeting_dir;
use dssflow_durability::oracle::{Acks, check, check_effects};
use dssflow_engine::store::{ListQuery, Store as _};
use dssflow_store::{OpenError, OpenOptions, SledStore, verify_offline};

const RUNS: usize = 64;
const STEPS: usize = 10;
/// Kills of one store.
const KILLS_OF_A_STORE: u64 = 50;
/// After so many kills the store is checked while it is in the middle of everything.
const VERIFY_EVERY: u64 = 10;
/// How long a process may say nothing, and the last one may take to bring all runs to their ends.
const PATIENCE: Duration = Duration::from_mins(2);

/// When a process is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// So long after it was started: while it opens the store.
    Early(Duration),
    /// So long after it said that the store is open: while it recovers.
    Opened(Duration),
    /// After so many acknowledgements: while it works.
    Acks(u64),
    /// It is to start nothing more after so long, and is killed so much later: while it ends.
    Ending(Duration, Duration),
}

impl Moment {
    fn random(dice: &mut Dice) -> Self {
        let ms = |dice: &mut Dice, end: u64| Duration::from_micros(dice.below(end * 1_000));
        match dice.below(10) {
            0 | 1 => Self::Early(ms(dice, 60)),
            2 | 3 => Self::Opened(ms(dice, 40)),
            4 => Self::Ending(ms(dice, 200), ms(dice, 400)),
            _ => Self::Acks(1 + dice.below(300)),
        }
    }
}

/// What all lives came to.
#[derive(Debug, Default)]
struct Sums {
    kills: u64,
    during_open: u64,
    during_recovery: u64,
    ended_before: u64,
    acks: u64,
    runs: u64,
    effects: u64,
    repeated: u64,
    longest_open: Duration,
    violations: Vec<String>,
}

/// A process that is at work, and what it prints.
struct Life {
    child: Child,
    lines: Receiver<String>,
    reader: JoinHandle<()>,
    begin: Instant,
    printed: Vec<String>,
}

fn storm(dir: &Path, seed: u64, more: &[String]) -> Life {
    let complaints = fs::OpenOptions::new().create(true).append(true).open(dir.join("stderr")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_storm"));
    command.arg(dir.join("store")).args(["--runs", &RUNS.to_string(), "--steps", &STEPS.to_string()]);
    command.args(["--seed", &seed.to_string()]).args(more);
    // Where the store makes the copies that it looks at.
    command.env("TMPDIR", dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(complaints);
    let begin = Instant::now();
    let mut child = command.spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let (tell, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut line = String::new();
        // What was cut off was not said.
        while out.read_line(&mut line).unwrap() > 0 && line.ends_with('\n') {
            tell.send(std::mem::take(&mut line)).unwrap();
        }
    });
    Life { child, lines, reader, begin, printed: Vec::new() }
}

impl Life {
    /// Reads lines until one is the one that is waited for; `false` when the process has ended.
    fn read_until(&mut self, mut is_it: impl FnMut(&str) -> bool) -> bool {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    let found = is_it(&line);
                    self.printed.push(line);
                    if found {
                        return true;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => {
                    self.child.kill().unwrap();
                    panic!("it has said nothing for {PATIENCE:?}");
                }
            }
        }
    }

    /// Waits for the moment; `true` when the store was open by then.
    fn live_until(&mut self, moment: Moment) {
        match moment {
            Moment::Early(time) => std::thread::sleep(time),
            Moment::Opened(time) => {
                if self.read_until(|line| line.starts_with("open ")) {
                    std::thread::sleep(time);
                }
            }
            Moment::Acks(mut count) => {
                self.read_until(|line| {
                    count -= u64::from(line.starts_with("ack "));
                    count == 0
                });
            }
            Moment::Ending(work, more) => std::thread::sleep(work + more),
        }
    }

    /// Kills it; what it printed, and whether it had ended by itself and how.
    fn kill(mut self) -> (Vec<String>, Option<bool>) {
        let ended = self.child.try_wait().unwrap();
        if ended.is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
        self.reader.join().unwrap();
        self.printed.extend(self.lines.try_iter());
        (self.printed, ended.map(|status| status.success()))
    }
}

/// One store: its past, as the outside knows it.
struct Torture<'a> {
    dir: &'a Path,
    seed: u64,
    acks: Acks,
    /// What has acted in earlier lives.
    acted: BTreeSet<(String, String)>,
    /// How long the file of effects was when this life began.
    effects: usize,
    sums: &'a mut Sums,
}

impl Torture<'_> {
    fn wrong(&mut self, what: impl Into<String>) {
        self.sums.violations.push(what.into());
    }

    /// Compares what steps did since the last look with what was acknowledged before.
    fn look_at_effects(&mut self, printed: &[String]) {
        let all = fs::read_to_string(self.dir.join("effects")).unwrap_or_default();
        let mut in_this_life: BTreeMap<(String, String), Vec<u32>> = BTreeMap::new();
        for line in all[self.effects..].lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let ["effect", run, step, attempt] = words[..] else {
                self.wrong(format!("the effect {line:?} cannot be read"));
                continue;
            };
            self.sums.effects += 1;
            let place = (run.to_owned(), step.to_owned());
            if self.acks.done.contains(&place) || self.acks.ended.contains_key(run) {
                self.wrong(format!("{run} {step}: done again, and it was acknowledged"));
            }
            in_this_life.entry(place).or_default().push(attempt.parse().unwrap());
        }
        self.effects = all.len();
        for (place, attempts) in in_this_life {
            // The first attempt of some is meant to fail; nothing else makes a process do a step twice.
            if attempts.len() > 1 && (attempts.len() > 2 || attempts[0] != 1) {
                self.wrong(format!("{place:?}: one process did it as attempts {attempts:?}"));
            }
            self.sums.repeated += u64::from(!self.acted.insert(place));
        }
        let before = self.acks.count;
        for line in printed {
            self.acks.note(line.trim_end());
        }
        self.sums.acks += self.acks.count - before;
    }

    fn live_and_die(&mut self, moment: Moment) {
        let more = match moment {
            Moment::Ending(work, _) => vec!["--seconds".to_owned(), work.as_secs_f64().to_string()],
            _ => Vec::new(),
        };
        let mut life = storm(self.dir, self.seed, &more);
        life.live_until(moment);
        let (printed, ended) = life.kill();
        match ended {
            None => {
                self.sums.kills += 1;
                let epoch = printed.first().and_then(|line| line.strip_prefix("open ")).map(str::trim_end);
                // Runs are begun once all that was found is taken up.
                let new = |epoch: &str| printed.iter().any(|line| line.contains(&format!(" r{epoch}-")));
                match epoch {
                    None => self.sums.during_open += 1,
                    Some(epoch) if !new(epoch) => self.sums.during_recovery += 1,
                    Some(_) => {}
                }
            }
            Some(true) => self.sums.ended_before += 1,
            Some(false) => {
                let said = fs::read_to_string(self.dir.join("stderr")).unwrap();
                self.wrong(format!("a process failed: {}", said.trim_end()));
            }
        }
        self.look_at_effects(&printed);
        if self.sums.kills.is_multiple_of(VERIFY_EVERY) {
            match verify_offline(self.dir.join("store")) {
                Ok(report) if report.report.damage.is_empty() => {}
                // It was killed before it had made anything.
                Err(OpenError::NotFound { .. }) if self.acks.epoch == 0 => {}
                other => self.wrong(format!("after a kill: {other:?}")),
            }
        }
    }

    /// The last process brings everything to its end, and all of it is compared.
    async fn end(mut self) {
        let mut last = storm(self.dir, self.seed, &["--total".to_owned(), "0".to_owned()]);
        let open = last.read_until(|line| line.starts_with("open "));
        self.sums.longest_open = self.sums.longest_open.max(last.begin.elapsed());
        last.read_until(|_| false);
        let status = last.child.wait().unwrap();
        let (printed, _) = last.kill();
        if !open || !status.success() {
            let said = fs::read_to_string(self.dir.join("stderr")).unwrap();
            self.wrong(format!("the last process failed: {}", said.trim_end()));
        }
        self.look_at_effects(&printed);

        let path = self.dir.join("store");
        match verify_offline(&path) {
            Ok(report) if report.report.damage.is_empty() => {}
            other => self.wrong(format!("in the end: {other:?}")),
        }
        let store = SledStore::open(&path, OpenOptions::default()).unwrap();
        let verdict = check(&store, &self.acks).await;
        self.sums.runs += verdict.runs;
        self.sums.violations.extend(verdict.lost.into_iter().chain(verdict.wrong));
        let effects = fs::read_to_string(self.dir.join("effects")).unwrap();
        self.sums.violations.extend(check_effects(&store, &effects).await);
        let mut steps: BTreeMap<&str, usize> = BTreeMap::new();
        for (run, _) in &self.acted {
            *steps.entry(run).or_default() += 1;
        }
        let mut cursor = None;
        loop {
            let page = store.list(ListQuery { cursor, ..ListQuery::default() }).await.unwrap();
            for run in page.runs {
                let acted = steps.get(run.run.as_str()).copied().unwrap_or(0);
                if run.status.to_string() != "succeeded" || acted != STEPS {
                    let what = format!("{}: {} in the end, and {acted} steps acted", run.run, run.status);
                    self.sums.violations.push(what);
                }
            }
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
        }
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn killed_at_any_moment_the_engine_goes_on_where_it_was() {
    let begin = Instant::now();
    let wanted: u64 =
        std::env::var("DSSFLOW_ENGINE_KILLS").map_or(KILLS_OF_A_STORE, |text| text.parse().unwrap());
    let (mut dice, seed) = dice::from_env(20_261_123);
    let mut sums = Sums::default();
    while sums.kills < wanted && sums.violations.is_empty() {
        // A kill leaves to the system what was written, synced or not: what a disk keeps is not tried here.
        let dir = fleeting_dir().unwrap();
        let acks = Acks::default();
        let acted = BTreeSet::new();
        let before = sums.kills;
        let mut torture =
            Torture { dir: dir.path(), seed: dice.draw(), acks, acted, effects: 0, sums: &mut sums };
        while torture.sums.kills < wanted.min(before + KILLS_OF_A_STORE) {
            torture.live_and_die(Moment::random(&mut dice));
        }
        Box::pin(torture.end()).await;
        if !sums.violations.is_empty() {
            println!("kept: {}", dir.keep().display());
        }
    }
    println!(
        "engine killed: cases={wanted} faults_fired={} during_open={} during_recovery={} ended_before={} runs={} acks={} \
         effects={} repeated_in_flight={} longest_last_open_ms={} violations={} seed={seed} seconds={:.1}",
        sums.kills,
        sums.during_open,
        sums.during_recovery,
        sums.ended_before,
        sums.runs,
        sums.acks,
        sums.effects,
        sums.repeated,
        sums.longest_open.as_millis(),
        sums.violations.len(),
        begin.elapsed().as_secs_f64()
    );
    let some = &sums.violations[..sums.violations.len().min(20)];
    assert!(some.is_empty(), "DSSFLOW_SEED={seed} DSSFLOW_ENGINE_KILLS={wanted}: {some:#?}");
    assert!(sums.kills >= wanted, "{sums:?}");
    assert!(sums.during_open > 0 && sums.during_recovery > 0, "{sums:?}");
    assert!(sums.acks > 20 * wanted && sums.repeated > 0, "there was work to interrupt: {sums:?}");
}
