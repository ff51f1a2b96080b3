//! What a store must hold, going by what `storm` printed and did: the judge of all harnesses. It never asks the
//! program that wrote.

use std::collections::{BTreeMap, BTreeSet};

use dssflow_engine::event::{Event, EventKind};
use dssflow_engine::id::RunId;
use dssflow_engine::runtime::history;
use dssflow_engine::store::{ListQuery, Store};

use crate::scheduled::{self, Told};
use crate::work::{self, Made};

/// What `storm` printed. Each line stands for something durable:
///
/// - `open EPOCH`: the store was opened;
/// - `ack RUN SEQ`: the run has at least so many events;
/// - `done RUN STEP`: the step's output is stored;
/// - `ended RUN STATUS`: the run has ended so;
/// - `changed SCHEDULE POSITION`: a writer's schedule was changed by itself, after its event at that position;
/// - `at SCHEDULE VERSION`: the engine's schedule has at least this version;
/// - `closed`: the store was closed in good order.
#[derive(Debug, Clone, Default)]
pub struct Acks {
    /// The last acknowledged event of each run.
    pub seqs: BTreeMap<String, u64>,
    /// Steps said to be done.
    pub done: BTreeSet<(String, String)>,
    /// Runs said to have ended, and how.
    pub ended: BTreeMap<String, String>,
    /// What was said of schedules.
    pub schedules: Told,
    /// The highest epoch said to be open.
    pub epoch: u64,
    /// `ack` lines read.
    pub count: u64,
    /// Whether the last line was `closed`.
    pub closed: bool,
}

impl Acks {
    /// Takes in one line; `false` when it says nothing.
    pub fn note(&mut self, line: &str) -> bool {
        let mut words = line.split_ascii_whitespace();
        let mut word = || words.next().map(str::to_owned);
        self.closed = false;
        match (word().as_deref(), word(), word()) {
            (Some("open"), Some(epoch), None) => {
                let Ok(epoch) = epoch.parse() else { return false };
                self.epoch = self.epoch.max(epoch);
            }
            (Some("ack"), Some(run), Some(seq)) => {
                let Ok(seq) = seq.parse::<u64>() else { return false };
                let last = self.seqs.entry(run).or_default();
                *last = seq.max(*last);
                self.count += 1;
            }
            (Some("done"), Some(run), Some(step)) => drop(self.done.insert((run, step))),
            (Some("ended"), Some(run), Some(status)) => drop(self.ended.insert(run, status)),
            (Some(word @ ("changed" | "at")), Some(schedule), Some(number)) => {
                let Ok(number) = number.parse::<u64>() else { return false };
                let told = match word {
                    "changed" => &mut self.schedules.changed,
                    _ => &mut self.schedules.versions,
                };
                let last = told.entry(schedule).or_default();
                *last = number.max(*last);
            }
            (Some("closed"), None, None) => self.closed = true,
            _ => return false,
        }
        true
    }

    /// Takes in whole lines; a last one that was cut off is left out.
    pub fn read(&mut self, printed: &str) {
        for line in printed.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            self.note(line);
        }
    }
}

/// What looking at a store gave.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Runs found.
    pub runs: u64,
    /// Events found.
    pub events: u64,
    /// What was acknowledged and is not there.
    pub lost: Vec<String>,
    /// What is there and is not what was written, and all else that is wrong.
    pub wrong: Vec<String>,
}

impl Verdict {
    /// Whether all is as it must be.
    pub fn is_good(&self) -> bool {
        self.lost.is_empty() && self.wrong.is_empty()
    }
}

/// Reads all of a store and compares it with what was acknowledged.
pub async fn check(store: &dyn Store, acks: &Acks) -> Verdict {
    check_all(store, acks, None).await
}

/// [`check`], and [`check_effects`] when there are any, reading each run once.
pub async fn check_all(store: &dyn Store, acks: &Acks, effects: Option<&str>) -> Verdict {
    let mut verdict = Verdict::default();
    match store.verify().await {
        Ok(report) => {
            verdict.wrong.extend(report.damage.into_iter().map(|damage| format!("verify: {damage:?}")));
        }
        Err(error) => verdict.wrong.push(format!("verify: {error}")),
    }
    if store.epoch() <= acks.epoch {
        verdict.lost.push(format!("epoch {}: this opening got {}", acks.epoch, store.epoch()));
    }
    let mut found = BTreeMap::new();
    let mut cursor = None;
    loop {
        match store.list(ListQuery { cursor, ..ListQuery::default() }).await {
            Ok(page) => {
                found.extend(page.runs.into_iter().map(|summary| (summary.run.clone(), summary)));
                cursor = page.cursor;
            }
            Err(error) => {
                verdict.wrong.push(format!("list: {error}"));
                break;
            }
        }
        if cursor.is_none() {
            break;
        }
    }
    verdict.runs = found.len() as u64;
    let mut seqs = BTreeMap::new();
    let mut done = BTreeSet::new();
    let mut deeds = effects.map(|effects| Deeds::read(effects, &mut verdict.wrong));
    for (run, summary) in &found {
        match store.head(run).await {
            Ok(Some(head)) if head.summary == *summary => {}
            other => verdict.wrong.push(format!("{run}: its head is {other:?}")),
        }
        let events = if run.as_str().starts_with('w') {
            check_records(store, run, &mut verdict.wrong).await
        } else {
            let events = check_history(store, run, &mut done, &mut verdict.wrong).await;
            if let Some(deeds) = &mut deeds {
                deeds.compare(run, &events, &mut verdict.wrong);
            }
            events.len() as u64
        };
        verdict.events += events;
        seqs.insert(run.as_str(), events);
    }
    let standing = found.iter().map(|(run, summary)| {
        let events = seqs.get(run.as_str()).copied().unwrap_or(0);
        (run.clone(), (events, summary.status))
    });
    let (lost, wrong) = scheduled::check(store, &standing.collect(), &acks.schedules).await;
    verdict.lost.extend(lost);
    verdict.wrong.extend(wrong);
    for run in deeds.into_iter().flat_map(|deeds| deeds.0.into_keys()) {
        verdict.wrong.push(format!("{run}: it has acted and is not there"));
    }
    for (run, acknowledged) in &acks.seqs {
        match seqs.get(run.as_str()) {
            Some(found) if found >= acknowledged => {}
            Some(found) => verdict.lost.push(format!("{run}: {found} events of {acknowledged}")),
            None => verdict.lost.push(format!("{run}: the run, with {acknowledged} events")),
        }
    }
    for (run, step) in acks.done.difference(&done) {
        verdict.lost.push(format!("{run}: the output of {step}"));
    }
    for (run, status) in &acks.ended {
        let summary = RunId::new(run.as_str()).ok().and_then(|run| found.get(&run));
        let now = summary.map(|summary| summary.status.to_string());
        if now.as_ref() != Some(status) {
            verdict.lost.push(format!("{run}: it had {status} and is {now:?}"));
        }
    }
    verdict
}

/// A run written by the store mode; its number of events.
async fn check_records(store: &dyn Store, run: &RunId, wrong: &mut Vec<String>) -> u64 {
    let records = match store.load(run, 0).await {
        Ok(records) => records,
        Err(error) => {
            wrong.push(format!("{run}: {error}"));
            return 0;
        }
    };
    for (seq, record) in (1..).zip(&records) {
        if record.first_seq != seq || record.bytes != work::record(run.as_str(), seq) {
            wrong.push(format!("{run}: event {seq} is not what was written"));
        }
    }
    match store.head(run).await {
        Ok(Some(head)) if head.seq == records.len() as u64 => {
            if head.summary.status.is_end() != (head.seq == work::RUN_EVENTS) {
                wrong.push(format!("{run}: {} after event {}", head.summary.status, head.seq));
            }
        }
        other => wrong.push(format!("{run}: {} events, and its head is {other:?}", records.len())),
    }
    records.len() as u64
}

/// A run written by the engine; its events. Its steps that are done go to `done`.
async fn check_history(
    store: &dyn Store,
    run: &RunId,
    done: &mut BTreeSet<(String, String)>,
    wrong: &mut Vec<String>,
) -> Vec<Event> {
    let events = match history(store, run, 0).await {
        Ok(events) => events,
        Err(error) => {
            wrong.push(format!("{run}: {error}"));
            return Vec::new();
        }
    };
    for (seq, event) in (1..).zip(&events) {
        if event.seq != seq {
            wrong.push(format!("{run}: event {seq} has number {}", event.seq));
        }
        if let EventKind::AttemptSucceeded { step, output, .. } = &event.kind {
            let made: Result<Made, _> = serde_json::from_value(output.clone());
            if !made.is_ok_and(|made| made.is_of(run, step)) {
                wrong.push(format!("{run}: the output of {step} is not what it gave"));
            }
            done.insert((run.to_string(), step.to_string()));
        }
    }
    events
}

/// Compares what the steps did, a line `effect RUN STEP ATTEMPT` each, with the histories: nothing was done that was
/// not durably intended before, nothing twice by one attempt, and nothing counts as done that was not.
pub async fn check_effects(store: &dyn Store, effects: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut deeds = Deeds::read(effects, &mut wrong);
    let runs: Vec<String> = deeds.0.keys().cloned().collect();
    for run in runs {
        let id = RunId::new(run.as_str()).expect("the program's run ids are valid");
        match history(store, &id, 0).await {
            Ok(events) => deeds.compare(&id, &events, &mut wrong),
            Err(error) => wrong.push(format!("{run}: it has acted, and {error}")),
        }
    }
    wrong
}

/// What each run's steps did, by step and attempt.
struct Deeds(BTreeMap<String, BTreeSet<(String, u32)>>);

impl Deeds {
    fn read(effects: &str, wrong: &mut Vec<String>) -> Self {
        let mut deeds = Self(BTreeMap::new());
        for line in effects.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let (["effect", run, step, _], Some(Ok(attempt))) =
                (&words[..], words.get(3).map(|attempt| attempt.parse()))
            else {
                wrong.push(format!("the effect {line:?} cannot be read"));
                continue;
            };
            let did = deeds.0.entry((*run).to_owned()).or_default();
            if !did.insert(((*step).to_owned(), attempt)) {
                wrong.push(format!("{run}: attempt {attempt} of {step} acted twice"));
            }
        }
        deeds
    }

    /// Takes out a run.
    fn compare(&mut self, run: &RunId, events: &[Event], wrong: &mut Vec<String>) {
        let did = self.0.remove(run.as_str()).unwrap_or_default();
        let mut intended = BTreeSet::new();
        for event in events {
            match &event.kind {
                EventKind::AttemptStarted { step, attempt, .. } => {
                    intended.insert((step.to_string(), *attempt));
                }
                EventKind::AttemptSucceeded { step, attempt, .. }
                    if !did.contains(&(step.to_string(), *attempt)) =>
                {
                    wrong.push(format!("{run}: attempt {attempt} of {step} succeeded and did nothing"));
                }
                _ => {}
            }
        }
        for (step, attempt) in did.difference(&intended) {
            wrong.push(format!("{run}: attempt {attempt} of {step} acted and is in no history"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_are_read_and_the_last_half_line_is_not() {
        let mut acks = Acks::default();
        acks.read("open 3\nack r-1 4\nack r-1 2\ndone r-1 s0\nended r-1 succeeded\nnoise\nack r-2 7");
        assert_eq!((acks.epoch, acks.count, acks.seqs["r-1"]), (3, 2, 4));
        assert!(acks.done.contains(&("r-1".to_owned(), "s0".to_owned())));
        assert_eq!(acks.ended["r-1"], "succeeded");
        assert!(!acks.seqs.contains_key("r-2"));
        assert!(!acks.closed);
        acks.read("closed\n");
        assert!(acks.closed);
    }
}
