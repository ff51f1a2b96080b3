//! From events to stretches of time.

use std::collections::BTreeMap;

use super::{Outcome, QUEUE_FROM_MS, Row, Span, SpanKind, Timeline};
use crate::activity::{Owner, Probe, Undo};
use crate::event::{Event, EventKind, LostCause, Next, Phase, Request, UndoMark};
use crate::id::StepName;
use crate::run::StepStatus;
use crate::run::view::RunView;
use crate::time::Timestamp;

struct Fold<'a> {
    view: &'a RunView,
    rows: Vec<Row>,
    /// Where a step's row is.
    at: BTreeMap<StepName, usize>,
    /// Since when a step is done, however.
    done: BTreeMap<StepName, Timestamp>,
    /// Times before which nothing could start: the run was created, or goes on.
    goes_on: Timestamp,
    run_spans: Vec<Span>,
    rolling_back: bool,
}

pub(super) fn fold(view: &RunView, history: &[Event], now: Option<Timestamp>) -> Timeline {
    let begin = history.first().map_or(view.created, |event| event.at);
    let mut fold = Fold {
        view,
        rows: Vec::new(),
        at: BTreeMap::new(),
        done: BTreeMap::new(),
        goes_on: begin,
        run_spans: Vec::new(),
        rolling_back: false,
    };
    for step in &view.steps {
        let row = fold.row(&step.step);
        fold.rows[row].group.clone_from(&step.group);
        fold.rows[row].title.clone_from(&step.title);
    }
    for event in history {
        fold.take(event);
    }
    let last = history.last().map_or(begin, |event| event.at);
    let end = now.map_or(last, |now| now.max(last));
    fold.finish(end, now.is_some());
    let mut rows = fold.rows;
    // Stable: what began at once, and what never began, stays in order of dependency.
    rows.sort_by_key(|row| row.spans.first().map_or(Timestamp::MAX, |span| span.begin));
    Timeline {
        run: view.run.clone(),
        workflow: view.workflow.clone(),
        status: view.status,
        begin,
        end,
        run_spans: fold.run_spans,
        rows,
    }
}

impl Fold<'_> {
    fn row(&mut self, step: &StepName) -> usize {
        if let Some(&row) = self.at.get(step) {
            return row;
        }
        self.rows.push(Row {
            step: step.clone(),
            group: String::new(),
            title: String::new(),
            spans: Vec::new(),
        });
        self.at.insert(step.clone(), self.rows.len() - 1);
        self.rows.len() - 1
    }

    fn take(&mut self, event: &Event) {
        let at = event.at;
        match &event.kind {
            EventKind::AttemptStarted { step, attempt, phase, .. } => self.start(step, *attempt, *phase, at),
            EventKind::AttemptSucceeded { step, found, .. } => {
                let (outcome, note) = match found {
                    None | Some(Owner::ThisRun) => (Outcome::Done, ""),
                    Some(Owner::ThisSite(_)) => (Outcome::Adopted, "was there, of this site"),
                    Some(Owner::Foreign) => (Outcome::Adopted, "was there, not made by dssflow"),
                };
                self.close(step, at, outcome, note.to_owned());
                self.done.insert(step.clone(), at);
            }
            EventKind::AttemptFailed { step, error, next, .. } => {
                self.close(step, at, Outcome::Failed, error.to_string());
                self.follow(step, at, *next);
            }
            EventKind::CompensationFailed { step, error, next, .. } => {
                self.close(step, at, Outcome::Failed, error.to_string());
                self.follow(step, at, *next);
            }
            EventKind::AttemptLost { step, cause, .. } => {
                let note = match cause {
                    LostCause::Crash => "the process that ran it ended",
                    LostCause::Interrupted => "interrupted",
                };
                self.close(step, at, Outcome::Lost, note.to_owned());
            }
            EventKind::ProbeAnswered { step, answer, next, .. } => {
                let note = match answer {
                    Probe::Absent => "nothing is there".to_owned(),
                    Probe::Present { .. } => "it is there".to_owned(),
                    Probe::InProgress { detail } => format!("under way: {detail}"),
                    Probe::Failed { detail, .. } => format!("there and broken: {detail}"),
                };
                self.close(step, at, Outcome::Answered, note);
                self.follow(step, at, *next);
            }
            EventKind::CompensationSucceeded { step, undo, .. } => {
                let (outcome, note) = match undo {
                    Undo::Undone => (Outcome::Done, String::new()),
                    Undo::NothingToDo => (Outcome::Done, "nothing to take back".to_owned()),
                    Undo::Kept { reason } => (Outcome::Left, reason.clone()),
                };
                if !self.close(step, at, outcome, note.clone()) {
                    // Kept by rule, without an attempt.
                    self.mark(step, at, outcome, note);
                }
            }
            EventKind::StepSkipped { step, request } => {
                let note = request.as_ref().map_or_else(|| "its condition is false".to_owned(), who);
                self.cut(step, at);
                self.mark(step, at, Outcome::Left, format!("skipped: {note}"));
                self.done.insert(step.clone(), at);
            }
            EventKind::StepCompleted { step, request, .. } => {
                self.cut(step, at);
                self.mark(step, at, Outcome::Done, format!("taken as done: {}", who(request)));
                self.done.insert(step.clone(), at);
            }
            EventKind::StepFailed { step, error, next } => {
                if !self.close(step, at, Outcome::Failed, error.to_string()) {
                    self.mark(step, at, Outcome::Failed, error.to_string());
                }
                self.follow(step, at, *next);
            }
            EventKind::StepsReset { steps, .. } => {
                for step in steps {
                    self.cut(step, at);
                    self.done.remove(step);
                }
                self.goes_on = at;
            }
            EventKind::WaitStarted { step, .. } => self.open(step, at, SpanKind::Wait, None),
            EventKind::WaitEnded { step, .. } => {
                self.close(step, at, Outcome::Done, String::new());
                self.done.insert(step.clone(), at);
            }
            EventKind::GateDecided { step, approved, request, .. } => {
                let (outcome, word) =
                    if *approved { (Outcome::Done, "approved") } else { (Outcome::Failed, "rejected") };
                self.close(step, at, outcome, format!("{word}: {}", who(request)));
                if *approved {
                    self.done.insert(step.clone(), at);
                }
            }
            EventKind::MapExpanded { step, keys, .. } => {
                self.open(step, at, SpanKind::Children, None);
                let row = self.row(step);
                if let Some(span) = self.rows[row].spans.last_mut() {
                    span.note = format!("{} items", keys.len());
                }
            }
            EventKind::MapCollected { step } => {
                self.close(step, at, Outcome::Done, String::new());
                self.done.insert(step.clone(), at);
            }
            EventKind::UndoMarked { step, mark, request } => {
                let (outcome, word) = match mark {
                    UndoMark::Undone => (Outcome::Done, "taken back by hand"),
                    UndoMark::Abandoned => (Outcome::Left, "left where it is"),
                };
                self.mark(step, at, outcome, format!("{word}: {}", who(request)));
            }
            EventKind::RunPaused { reason } => {
                // What waits is looked at anew when the run goes on.
                self.cut_waits(at);
                self.run_spans.push(span(SpanKind::Paused, at, None, reason.message.clone()));
            }
            EventKind::RunResumed { request } => {
                self.go_on(at);
                if let Some(paused) = self.run_spans.last_mut().filter(|s| s.kind == SpanKind::Paused)
                    && !request.by.is_empty()
                {
                    paused.note.push_str("; goes on: ");
                    paused.note.push_str(&who(request));
                }
            }
            EventKind::RunRecovered { gap_ms, .. } | EventKind::RunRestored { gap_ms, .. } => {
                self.go_on(at);
                let begin =
                    Timestamp::from_millis(at.as_millis().saturating_sub(*gap_ms)).max(self.view.created);
                if *gap_ms >= QUEUE_FROM_MS {
                    let mut unowned = span(SpanKind::Unowned, begin, None, String::new());
                    (unowned.end, unowned.outcome) = (at, Outcome::Done);
                    self.run_spans.push(unowned);
                }
            }
            EventKind::RollbackStarted { request, .. } | EventKind::RollbackRetried { request } => {
                self.go_on(at);
                self.cut_waits(at);
                if !self.rolling_back {
                    self.run_spans.push(span(SpanKind::RollingBack, at, None, who(request)));
                }
                self.rolling_back = true;
            }
            EventKind::RunFinished { .. } => {
                self.cut_waits(at);
                self.end_run_spans(at);
                self.rolling_back = false;
            }
            EventKind::RunUpgraded { reset, .. } => {
                for step in reset {
                    self.done.remove(step);
                }
                self.goes_on = at;
            }
            EventKind::RunCreated { .. }
            | EventKind::RunImported { .. }
            | EventKind::ResourceRecorded { .. }
            | EventKind::BeforeRecorded { .. }
            | EventKind::HeartbeatRecorded { .. }
            | EventKind::SignalReceived { .. }
            | EventKind::OutputMigrated { .. }
            | EventKind::RunTimedOut {}
            | EventKind::PauseRequested { .. }
            | EventKind::CancelRequested { .. } => {}
        }
    }

    /// A pause is over.
    fn go_on(&mut self, at: Timestamp) {
        self.goes_on = at;
        for span in self.run_spans.iter_mut().filter(|s| s.kind == SpanKind::Paused) {
            if span.outcome == Outcome::Open {
                (span.end, span.outcome) = (at, Outcome::Done);
            }
        }
    }

    fn end_run_spans(&mut self, at: Timestamp) {
        for span in self.run_spans.iter_mut().filter(|s| s.outcome == Outcome::Open) {
            (span.end, span.outcome) = (at, Outcome::Done);
        }
    }

    fn start(&mut self, step: &StepName, attempt: u32, phase: Phase, at: Timestamp) {
        let row = self.row(step);
        let mut ready = None;
        if let Some(last) = self.rows[row].spans.last_mut() {
            if last.kind == SpanKind::Backoff {
                // Its end is when it was to be tried again, which is not before it could be.
                ready = Some(last.end.min(at).max(self.goes_on));
                (last.end, last.outcome) = (last.end.min(at), Outcome::Done);
            } else if last.outcome == Outcome::Open {
                (last.end, last.outcome) = (at, Outcome::Lost);
            }
        }
        if phase == Phase::Execute && ready.is_none() {
            ready = self.ready_since(row);
        }
        self.queue(row, ready, at, Outcome::Done);
        let kind = match phase {
            Phase::Execute => SpanKind::Execute,
            Phase::Probe => SpanKind::Probe,
            Phase::Compensate => SpanKind::Compensate,
        };
        self.open(step, at, kind, Some(attempt));
    }

    /// Since when a step without attempts could start; nothing when that is not known.
    fn ready_since(&self, row: usize) -> Option<Timestamp> {
        let view = self.view.steps.iter().find(|view| view.step == self.rows[row].step)?;
        let mut since = self.goes_on;
        for before in &view.after {
            since = since.max(*self.done.get(before)?);
        }
        // After an attempt of its own it waits for what comes of that.
        Some(self.rows[row].spans.last().map_or(since, |span| since.max(span.end)))
    }

    fn queue(&mut self, row: usize, ready: Option<Timestamp>, at: Timestamp, outcome: Outcome) {
        if let Some(ready) = ready.filter(|r| r.as_millis() + QUEUE_FROM_MS <= at.as_millis()) {
            let note = "for a lock, permit, rate or slot".to_owned();
            let mut queue = span(SpanKind::Queue, ready, None, note);
            (queue.end, queue.outcome) = (at, outcome);
            self.rows[row].spans.push(queue);
        }
    }

    fn open(&mut self, step: &StepName, at: Timestamp, kind: SpanKind, attempt: Option<u32>) {
        let row = self.row(step);
        self.rows[row].spans.push(span(kind, at, attempt, String::new()));
    }

    fn mark(&mut self, step: &StepName, at: Timestamp, outcome: Outcome, note: String) {
        let row = self.row(step);
        let mut mark = span(SpanKind::Mark, at, None, note);
        mark.outcome = outcome;
        self.rows[row].spans.push(mark);
    }

    /// Ends what is open, and says whether something was.
    fn close(&mut self, step: &StepName, at: Timestamp, outcome: Outcome, note: String) -> bool {
        let row = self.row(step);
        let Some(last) = self.rows[row].spans.last_mut().filter(|s| s.outcome == Outcome::Open) else {
            return false;
        };
        (last.end, last.outcome) = (at, outcome);
        if !note.is_empty() {
            last.note = note;
        }
        true
    }

    /// Ends what waits, and leaves attempts alone.
    fn cut(&mut self, step: &StepName, at: Timestamp) {
        let row = self.row(step);
        cut(&mut self.rows[row], at);
    }

    fn cut_waits(&mut self, at: Timestamp) {
        self.rows.iter_mut().for_each(|row| cut(row, at));
    }

    fn follow(&mut self, step: &StepName, at: Timestamp, next: Next) {
        match next {
            Next::At { at: until } => {
                let row = self.row(step);
                let mut backoff = span(SpanKind::Backoff, at, None, String::new());
                backoff.end = until;
                self.rows[row].spans.push(backoff);
            }
            // A map goes on without it, so what waits for the map may start.
            Next::Tolerate => {
                self.done.insert(step.clone(), at);
            }
            Next::Now | Next::Pause | Next::Fail | Next::Rollback | Next::Stuck => {}
        }
    }

    fn finish(&mut self, end: Timestamp, live: bool) {
        let view = self.view;
        for step in &view.steps {
            let row = self.at[&step.step];
            match self.rows[row].spans.last_mut() {
                // A signal is not told by the step that takes it.
                Some(last) if last.kind == SpanKind::Wait && last.outcome == Outcome::Open => {
                    if let Some(ended) = step.ended {
                        (last.end, last.outcome) = (ended, Outcome::Done);
                    }
                }
                Some(last) if last.kind == SpanKind::Backoff && last.outcome == Outcome::Open => {
                    let over = last.end;
                    last.end = over.min(end);
                    if live && over.as_millis() + QUEUE_FROM_MS < end.as_millis() {
                        last.outcome = Outcome::Done;
                        self.queue(row, Some(over), end, Outcome::Open);
                    }
                }
                _ if live && step.status == StepStatus::Ready && !self.rolling_back => {
                    let ready = self.ready_since(row);
                    self.queue(row, ready, end, Outcome::Open);
                }
                _ => {}
            }
        }
        let spans = self.rows.iter_mut().flat_map(|row| &mut row.spans).chain(&mut self.run_spans);
        for span in spans.filter(|s| s.outcome == Outcome::Open && s.kind != SpanKind::Backoff) {
            span.end = end;
        }
    }
}

fn cut(row: &mut Row, at: Timestamp) {
    // A gate goes on waiting while its run stands still, and an attempt ends by itself.
    let waits = row.spans.last_mut().filter(|s| s.outcome == Outcome::Open && s.kind == SpanKind::Backoff);
    if let Some(last) = waits {
        (last.end, last.outcome) = (last.end.min(at), Outcome::Left);
    }
}

fn span(kind: SpanKind, at: Timestamp, attempt: Option<u32>, note: String) -> Span {
    Span { kind, begin: at, end: at, outcome: Outcome::Open, attempt, note }
}

fn who(request: &Request) -> String {
    match (request.by.as_str(), request.reason.as_str()) {
        ("", reason) => reason.to_owned(),
        (by, "") => by.to_owned(),
        (by, reason) => format!("{by}, {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `execute 1 done 0..5, ...` of every row with something in it.
    fn told(timeline: &Timeline) -> Vec<String> {
        let word = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
        let base = timeline.begin.as_millis();
        let line = |name: &str, spans: &[Span]| {
            let spans: Vec<String> = spans
                .iter()
                .map(|s| {
                    let (from, to) = (s.begin.as_millis() - base, s.end.as_millis() - base);
                    format!("{} {} {from}..{to}", word(&s.kind), word(&s.outcome))
                })
                .collect();
            format!("{name}: {}", spans.join(", "))
        };
        let mut lines: Vec<String> = timeline
            .rows
            .iter()
            .filter(|r| !r.spans.is_empty())
            .map(|r| line(r.step.as_str(), &r.spans))
            .collect();
        if !timeline.run_spans.is_empty() {
            lines.push(line("run", &timeline.run_spans));
        }
        lines
    }

    /// A run of steps `a` and `b` after it, and its history: JSON of events with times.
    fn run(events: &[(u64, serde_json::Value)]) -> (RunView, Vec<Event>) {
        use crate::graph::{Binding, Graph, Step};
        use crate::id::ActivityName;

        let step = |name: &str, after: &[&str]| {
            let mut step = Step::activity(
                StepName::new(name).unwrap(),
                ActivityName::new("test.do").unwrap(),
                Binding::literal(()),
            );
            step.after = after.iter().map(|a| StepName::new(*a).unwrap()).collect();
            step
        };
        let graph = Graph::builder().step(step("a", &[])).step(step("b", &["a"])).build().unwrap();
        let created = serde_json::json!({
            "seq": 1, "at": 1000, "type": "run_created", "format": 2, "workflow": "test", "workflow_version": 1,
            "graph": graph.hash(), "input": null, "options": crate::run::RunOptions::default(),
        });
        let mut history = vec![serde_json::from_value::<Event>(created).unwrap()];
        let mut state =
            crate::run::create(crate::id::RunId::new("lab").unwrap(), graph, &history[0]).unwrap();
        for (seq, (at, kind)) in (2_u64..).zip(events) {
            let mut event = kind.clone();
            event["seq"] = seq.into();
            event["at"] = (1000 + at).into();
            let event: Event = serde_json::from_value(event).unwrap();
            crate::run::apply(&mut state, &event).unwrap_or_else(|e| panic!("{event:?}: {e}"));
            history.push(event);
        }
        (crate::run::view::view(&state), history)
    }

    fn start(step: &str, attempt: u32, phase: &str) -> serde_json::Value {
        serde_json::json!({ "type": "attempt_started", "step": step, "attempt": attempt, "phase": phase,
            "generation": 1, "effect": "create", "probed": true, "input": 1 })
    }

    fn done(step: &str, attempt: u32) -> serde_json::Value {
        serde_json::json!({ "type": "attempt_succeeded", "step": step, "attempt": attempt, "output": null })
    }

    fn failed(step: &str, attempt: u32, next: &serde_json::Value) -> serde_json::Value {
        serde_json::json!({ "type": "attempt_failed", "step": step, "attempt": attempt,
            "error": { "class": "retryable", "code": "Busy", "message": "try later" }, "next": next })
    }

    #[test]
    fn attempts_waits_and_queues_are_told_apart() {
        let retry = serde_json::json!({ "then": "at", "at": 1300 });
        let (view, history) = run(&[
            (0, start("a", 1, "execute")),
            (100, failed("a", 1, &retry)),
            (350, start("a", 2, "execute")),
            (400, done("a", 2)),
            (900, start("b", 1, "execute")),
        ]);
        let stood = Timeline::of(&view, &history, None);
        assert_eq!(
            told(&stood),
            [
                "a: execute failed 0..100, backoff done 100..300, queue done 300..350, execute done 350..400",
                "b: queue done 400..900, execute open 900..900"
            ]
        );
        assert_eq!(stood.rows[0].spans[0].note, "Busy: try later");
        assert_eq!(stood.rows[0].spans[3].attempt, Some(2));
        let live = Timeline::of(&view, &history, Some(Timestamp::from_millis(2500)));
        assert_eq!(told(&live)[1], "b: queue done 400..900, execute open 900..1500");
        assert_eq!(live.length_ms(), 1500);
    }

    #[test]
    fn a_wait_under_way_ends_where_the_picture_does() {
        let retry = serde_json::json!({ "then": "at", "at": 9000 });
        let (view, history) = run(&[(0, start("a", 1, "execute")), (100, failed("a", 1, &retry))]);
        let live = |now| told(&Timeline::of(&view, &history, Some(Timestamp::from_millis(now))));
        assert_eq!(live(2000), ["a: execute failed 0..100, backoff open 100..1000"]);
        assert_eq!(live(9500), ["a: execute failed 0..100, backoff done 100..8000, queue open 8000..8500"]);
    }

    #[test]
    fn pauses_crashes_and_the_way_back_are_there() {
        let request = serde_json::json!({ "by": "ada", "reason": "enough" });
        let (view, history) = run(&[
            (0, start("a", 1, "execute")),
            (50, serde_json::json!({ "type": "run_recovered", "epoch": 2, "gap_ms": 30, "format": 2 })),
            (50, serde_json::json!({ "type": "attempt_lost", "step": "a", "attempt": 1, "cause": "crash" })),
            (60, start("a", 2, "probe")),
            (70, done("a", 2)),
            (
                80,
                serde_json::json!({ "type": "run_paused", "reason": { "kind": "requested", "message": "asked" } }),
            ),
            (500, serde_json::json!({ "type": "run_resumed", "request": request })),
            (500, start("b", 1, "execute")),
            (600, done("b", 1)),
            (600, serde_json::json!({ "type": "run_finished", "status": "succeeded" })),
            (700, serde_json::json!({ "type": "rollback_started", "request": request })),
            (700, start("b", 2, "compensate")),
            (
                750,
                serde_json::json!({ "type": "compensation_succeeded", "step": "b", "attempt": 2, "undo": { "undo": "undone" } }),
            ),
        ]);
        let timeline = Timeline::of(&view, &history, None);
        assert_eq!(
            told(&timeline),
            [
                "a: execute lost 0..50, probe done 60..70",
                "b: execute done 500..600, compensate done 700..750",
                "run: unowned done 20..50, paused done 80..500, rollingback open 700..750",
            ]
        );
        assert_eq!(timeline.run_spans[1].note, "asked; goes on: ada, enough");
    }
}
