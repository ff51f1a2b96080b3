//! Schedules on values: which instants a spec means, what is done about them, and what changes of a schedule do.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::event::Request;
use crate::id::ScheduleId;
use crate::run::RunStatus;
use crate::store::MAX_SCHEDULE_BYTES;
use crate::time::Timestamp;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
/// 2026-03-01T00:00:00Z, a Sunday.
const T0: u64 = 1_772_323_200_000;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(ms)
}

fn id() -> ScheduleId {
    ScheduleId::new("nightly").unwrap()
}

fn cron(text: &str) -> ScheduleSpec {
    ScheduleSpec::cron(text, ScheduleAction::new("flow"))
}

fn times_of(spec: &ScheduleSpec) -> Times {
    spec.check_with(&Zone::find).unwrap();
    Times::new(&id(), spec, &Zone::find).unwrap()
}

fn next(spec: &ScheduleSpec, after: u64, count: usize) -> Vec<String> {
    let times = times_of(spec);
    let mut after = at(after);
    let next = || {
        after = times.next_after(after)?;
        Some(after.to_string().replace(":00.000Z", "Z"))
    };
    std::iter::from_fn(next).take(count).collect()
}

/// A schedule with a clock, runs that end when they are told to, and a store.
struct World {
    state: ScheduleState,
    now: u64,
    fired: Vec<(u64, FiredBy)>,
    /// Why each of them fired, as its run says.
    reasons: Vec<String>,
    skipped: Vec<(u64, SkipReason)>,
}

impl World {
    fn new(spec: ScheduleSpec) -> Self {
        spec.check().unwrap();
        let state = ScheduleState::new(id(), spec, at(T0), Request::by("ada"));
        Self { state, now: T0, fired: Vec::new(), reasons: Vec::new(), skipped: Vec::new() }
    }

    fn times(&self) -> Times {
        Times::of(&self.state, &Zone::find).unwrap()
    }

    /// Looks until nothing more is to be done, and goes through the store each time.
    fn look(&mut self) -> Vec<Stop> {
        loop {
            let decision = decide(&self.state, &self.times(), at(self.now));
            assert_eq!(
                decision,
                decide(&self.state, &self.times(), at(self.now)),
                "it depends on nothing else"
            );
            self.skipped.extend(
                decision.skips.iter().map(|skip| (skip.nominal.as_millis().wrapping_sub(T0), skip.why)),
            );
            let (again, state) = match decision.fire {
                Some(fire) => {
                    self.fired.push((fire.firing.nominal.as_millis().wrapping_sub(T0), fire.firing.by));
                    self.reasons.push(fire.firing.asks().reason);
                    (true, fire.state)
                }
                None => (decision.due.is_some_and(|due| due <= at(self.now)), decision.state),
            };
            let record = encode(&state);
            assert!(record.len() <= MAX_SCHEDULE_BYTES);
            self.state = decode(&id(), &record).unwrap();
            assert_eq!(self.state, state, "it is stored as it is");
            if !again {
                return decision.stop;
            }
        }
    }

    fn until(&mut self, ms: u64) -> Vec<Stop> {
        self.now = T0 + ms;
        self.look()
    }

    fn update(&mut self, spec: ScheduleSpec) {
        self.state.update(Update::new(spec), at(self.now), Request::by("ada")).unwrap();
    }

    fn trigger(&mut self, by: &str, reason: &str) -> Result<Timestamp, IllegalChange> {
        let request = Request { by: by.to_owned(), reason: reason.to_owned() };
        self.state.trigger(None, at(self.now), request)
    }

    fn end(&mut self, nominal: u64, status: RunStatus) {
        let running = self.state.running.iter().find(|r| r.nominal == at(T0 + nominal)).cloned().unwrap();
        let ended = Ended { status: Some(status), output: Some(json!(nominal)), message: "why".to_owned() };
        self.state.ended(running.nominal, running.by, ended, at(self.now));
    }

    fn instants(&self) -> Vec<u64> {
        self.fired.iter().map(|(nominal, _)| nominal / MINUTE).collect()
    }

    fn running(&self) -> Vec<u64> {
        self.state.running.iter().map(|r| (r.nominal.as_millis() - T0) / MINUTE).collect()
    }
}

#[test]
fn a_gap_is_silent_and_a_fold_fires_twice() {
    let berlin = |text: &str| cron(text).zone("Europe/Berlin");
    // 2026-03-29: 02:00 becomes 03:00. 2026-10-25: 03:00 becomes 02:00.
    let march = 1_774_652_400_000;
    assert_eq!(next(&berlin("30 2 * * *"), march, 2), ["2026-03-28T01:30Z", "2026-03-30T00:30Z"]);
    assert_eq!(
        next(&berlin("30 * * * *"), march + 25 * HOUR, 3),
        ["2026-03-29T00:30Z", "2026-03-29T01:30Z", "2026-03-29T02:30Z"],
        "an hourly one goes on"
    );
    let october = 1_792_843_200_000;
    assert_eq!(
        next(&berlin("30 2 * * *"), october, 3),
        ["2026-10-25T00:30Z", "2026-10-25T01:30Z", "2026-10-26T01:30Z"]
    );
    assert_eq!(next(&cron("30 2 * * *"), october, 1), ["2026-10-25T02:30Z"], "UTC knows neither");
    // Half an hour only, and a day that was left out.
    let howe = cron("15 2 * * *").zone("Australia/Lord_Howe");
    assert_eq!(next(&howe, 1_759_500_000_000, 2), ["2025-10-03T15:45Z", "2025-10-05T15:15Z"]);
    let apia = cron("0 12 30 12 *").zone("Pacific/Apia");
    assert_eq!(next(&apia, 1_300_000_000_000, 1), ["2012-12-29T22:00Z"], "2011 had no 30 December there");
}

#[test]
fn expressions_have_five_six_or_seven_fields() {
    assert_eq!(next(&cron("*/20 * * * *"), T0, 2), ["2026-03-01T00:20Z", "2026-03-01T00:40Z"]);
    assert_eq!(next(&cron("30 5 * * * *"), T0, 1), ["2026-03-01T00:05:30.000Z"]);
    assert_eq!(next(&cron("0 0 0 29 2 * 2027-2029"), T0, 2), ["2028-02-29T00:00Z"]);
    assert_eq!(next(&cron("0 0 13 * 5"), T0, 2), ["2026-03-06T00:00Z", "2026-03-13T00:00Z"], "either day");
    assert_eq!(next(&cron("0 0 13 * +5"), T0, 2), ["2026-03-13T00:00Z", "2026-11-13T00:00Z"], "both");
    assert_eq!(next(&cron("@weekly"), T0, 1), ["2026-03-08T00:00Z"]);
    assert_eq!(next(&cron("0 0 L 2 *"), T0, 2), ["2027-02-28T00:00Z", "2028-02-29T00:00Z"]);
}

#[test]
fn intervals_count_from_the_epoch_and_all_timings_are_one() {
    let mut spec = ScheduleSpec::every(Duration::from_hours(7), ScheduleAction::new("flow"));
    assert_eq!(next(&spec, T0, 2), ["2026-03-01T05:00Z", "2026-03-01T12:00Z"]);
    spec.timing[0] = Timing::Interval { every_ms: 7 * HOUR, offset_ms: HOUR };
    assert_eq!(next(&spec, T0, 2), ["2026-03-01T06:00Z", "2026-03-01T13:00Z"]);
    spec.timing[0] = Timing::Interval { every_ms: 7 * HOUR, offset_ms: 0 };
    spec.timing.push(Timing::Cron { cron: "0 5 * * *".to_owned() });
    assert_eq!(next(&spec, T0, 2), ["2026-03-01T05:00Z", "2026-03-01T12:00Z"], "one instant, not two");
    (spec.start, spec.end) = (Some(at(T0 + 5 * HOUR)), Some(at(T0 + 12 * HOUR)));
    assert_eq!(next(&spec, 0, 5), ["2026-03-01T05:00Z", "2026-03-01T12:00Z"], "both ends belong to it");
}

#[test]
fn a_jitter_is_the_same_for_an_instant_and_ends_before_the_next() {
    let spec = ScheduleSpec { jitter_ms: 90 * 1000, ..cron("* * * * *") };
    let times = times_of(&spec);
    let (mut seen, mut after) = (std::collections::BTreeSet::new(), at(T0));
    for _ in 0..500 {
        after = times.next_after(after).unwrap();
        let late = times.due(after).since(after);
        assert!(late < Duration::from_mins(1) && times.due(after) == after + late);
        seen.insert(late);
    }
    assert!(seen.len() > 400, "{}", seen.len());
}

#[test]
fn what_makes_no_sense_is_refused() {
    let wrong = |change: fn(&mut ScheduleSpec)| {
        let mut spec = cron("* * * * *");
        change(&mut spec);
        spec.check().unwrap_err().to_string()
    };
    for (error, word) in [
        (wrong(|s| s.timing.clear()), "nothing about when"),
        (wrong(|s| s.timing = vec![Timing::Cron { cron: "61 * * * *".to_owned() }]), "no cron expression"),
        (wrong(|s| s.timing = vec![Timing::Cron { cron: "0 0 30 2 *".to_owned() }]), "never matches"),
        (
            wrong(|s| s.timing = vec![Timing::Interval { every_ms: 10, offset_ms: 0 }]),
            "shorter than a second",
        ),
        (wrong(|s| s.timing = vec![Timing::Interval { every_ms: 1_500, offset_ms: 0 }]), "whole seconds"),
        (wrong(|s| s.zone = "Europe/Berlim".to_owned()), "no time zone"),
        (wrong(|s| s.zone = "../../etc/passwd".to_owned()), "no time zone"),
        (wrong(|s| s.catch_up_ms = 9_999), "catch-up"),
        (wrong(|s| s.limit = Some(0)), "limit of 0"),
        (wrong(|s| (s.start, s.end) = (Some(at(2)), Some(at(1)))), "before it starts"),
        (wrong(|s| s.action.workflow.clear()), "no workflow"),
        (wrong(|s| s.action.input = json!("x".repeat(MAX_SPEC_BYTES))), "bytes"),
    ] {
        assert!(error.contains(word), "{error}");
    }
}

/// Each is an error or a schedule, quickly, and never a panic.
#[test]
fn ten_thousand_malformed_expressions() {
    let fields = [
        "*",
        "*/5",
        "1-5",
        "7",
        "1,2,3",
        "0",
        "12",
        "*",
        "*/2",
        "3",
        "4-5",
        "+5",
        "L",
        "15W",
        "5#3",
        "?",
        "59",
        "60",
        "31",
        "MON",
        "JAN",
        "2030",
        "4294967296",
        "*/4294967295",
        "0-59/61",
        "5L",
        "LW",
        "99999999999999999999",
        "-1",
        "1-",
        "/",
        "#",
        "W",
        "é",
        "\u{0}",
        "1/2",
        ",",
        "* *",
        "@daily",
        "*/0",
        "5-1",
        "A",
        "LLL",
        "1#9",
    ];
    let mut seed = 7_u64;
    let mut draw = |n: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % n
    };
    let (mut good, mut bad) = (0, 0);
    for _ in 0..10_000 {
        // Some of them nearly right.
        let (count, of) = if draw(4) == 0 { (5, 12) } else { (3 + draw(6), fields.len()) };
        let words: Vec<&str> = (0..count).map(|_| fields[draw(of)]).collect();
        let mut text = words.join(" ");
        if draw(3) == 0 {
            let mut bytes = text.into_bytes();
            for _ in 0..=draw(4) {
                let at = draw(bytes.len());
                bytes[at] = u8::try_from(draw(256)).unwrap();
            }
            text = String::from_utf8_lossy(&bytes).into_owned();
        }
        match cron(&text).check() {
            Ok(()) => good += 1,
            Err(error) => {
                assert!(error.to_string().len() < 1_000);
                bad += 1;
            }
        }
    }
    assert!(good > 500 && bad > 5_000, "{good} {bad}");
}

#[test]
fn each_instant_fires_once_however_often_it_is_looked_at() {
    let mut world = World::new(cron("* * * * *").overlap(Overlap::AllowAll));
    for second in 0..600 {
        world.until(second * 1_000);
        world.look();
    }
    assert_eq!(world.instants(), (1..10).collect::<Vec<_>>());
    assert!(world.skipped.is_empty());
}

#[test]
fn overlap_skip() {
    let mut world = World::new(cron("* * * * *"));
    world.until(MINUTE);
    world.until(3 * MINUTE);
    assert_eq!(world.skipped, [(2 * MINUTE, SkipReason::Overlap), (3 * MINUTE, SkipReason::Overlap)]);
    world.end(MINUTE, RunStatus::Succeeded);
    world.until(4 * MINUTE);
    assert_eq!(world.instants(), [1, 4]);
    assert_eq!(world.state.counts.overlapped, 2);
    assert_eq!(world.state.last_result.as_ref().unwrap().output, Some(json!(MINUTE)));
}

#[test]
fn overlap_buffer_one_and_buffer_all() {
    let mut one = World::new(cron("* * * * *").overlap(Overlap::BufferOne));
    one.until(4 * MINUTE);
    assert_eq!(one.skipped, [(3 * MINUTE, SkipReason::Overlap), (4 * MINUTE, SkipReason::Overlap)]);
    one.end(MINUTE, RunStatus::Succeeded);
    one.look();
    assert_eq!(one.instants(), [1, 2], "the one that waited, not a later one");

    let mut all = World::new(cron("* * * * *").overlap(Overlap::BufferAll));
    all.until(4 * MINUTE);
    for minute in 1..=4 {
        assert_eq!(all.running(), [minute]);
        all.end(minute * MINUTE, RunStatus::Failed);
        all.look();
    }
    assert_eq!((all.instants(), all.skipped.len()), (vec![1, 2, 3, 4], 0));
}

#[test]
fn overlap_cancel_and_terminate() {
    for (overlap, terminate) in [(Overlap::CancelOther, false), (Overlap::TerminateOther, true)] {
        let mut world = World::new(cron("* * * * *").overlap(overlap));
        world.until(MINUTE);
        let stop = world.until(4 * MINUTE);
        let run = run_id(&id(), at(T0 + MINUTE), FiredBy::Clock);
        assert_eq!(stop, [Stop { run: run.clone(), terminate }]);
        assert_eq!(world.look(), [Stop { run, terminate }], "told until it is over");
        assert_eq!(world.instants(), [1]);
        world.end(MINUTE, RunStatus::Cancelled);
        world.look();
        assert_eq!(world.instants(), [1, 4], "the last one takes the place");
        let superseded = SkipReason::Superseded;
        assert_eq!(world.skipped, [(2 * MINUTE, superseded), (3 * MINUTE, superseded)]);
        assert_eq!((world.state.counts.failed, world.state.counts.cancelled), (0, 1));
    }
}

#[test]
fn overlap_allow_all_has_a_bound() {
    let mut world = World::new(cron("* * * * *").overlap(Overlap::AllowAll));
    world.until(130 * MINUTE);
    assert_eq!(world.running().len(), MAX_RUNNING);
    assert_eq!(world.state.queue.len(), 30);
    world.end(MINUTE, RunStatus::Succeeded);
    world.look();
    assert_eq!(world.instants().len(), 101);
}

#[test]
fn what_is_later_than_the_window_is_missed() {
    let spec = ScheduleSpec { catch_up_ms: 10 * MINUTE, ..cron("* * * * *") };
    let mut world = World::new(spec.overlap(Overlap::AllowAll));
    world.until(30 * MINUTE);
    assert_eq!(world.instants(), (20..=30).collect::<Vec<_>>(), "late by ten minutes is in time");
    assert_eq!(world.state.counts.missed, 19);
    // A month later not each is looked at.
    world.until(30 * 24 * HOUR);
    assert_eq!(world.instants().len(), 22);
    assert_eq!(world.state.counts.missed, 19 + 1_000);
}

#[test]
fn what_has_fired_or_waits_is_not_missed_when_the_clock_comes_by_again() {
    let spec = ScheduleSpec { catch_up_ms: 10 * MINUTE, ..cron("* * * * *") };
    let mut world = World::new(spec.clone().overlap(Overlap::AllowAll));
    world.until(5 * MINUTE);
    world.until(0);
    world.until(30 * MINUTE);
    assert_eq!((world.fired.len(), world.state.counts.missed), (5 + 11, 14), "6 to 19");
    let mut world = World::new(spec.overlap(Overlap::BufferAll));
    world.until(5 * MINUTE);
    world.until(0);
    world.until(30 * MINUTE);
    assert_eq!((world.state.queue.len(), world.state.counts.missed), (4 + 11, 14), "2 to 5 wait");
}

#[test]
fn a_clock_that_was_ahead_and_is_put_right_does_not_silence_it() {
    let spec = ScheduleSpec { catch_up_ms: 10 * MINUTE, ..cron("* * * * *") };
    let mut world = World::new(spec.overlap(Overlap::AllowAll));
    world.until(5 * MINUTE);
    world.until(365 * 24 * HOUR);
    let ahead = world.fired.len();
    assert_eq!(ahead, 5 + 11);
    world.until(5 * MINUTE + 30_000);
    assert_eq!(world.fired.len(), ahead, "what fired stays fired");
    for minute in 6..=8 {
        world.until(minute * MINUTE);
    }
    assert_eq!(world.instants()[ahead..], [6, 7, 8]);
    // What had fired ahead of its time does not fire when it comes.
    let again = world.fired.len();
    world.until(365 * 24 * HOUR - 5 * MINUTE);
    world.until(365 * 24 * HOUR + MINUTE);
    let mut all = world.instants();
    assert_eq!(all.len(), again + 5 + 1, "{:?}", &all[again..]);
    all.sort_unstable();
    assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "{all:?}");
}

#[test]
fn a_pause_drops_what_its_time_brings_up() {
    let mut world = World::new(cron("* * * * *").overlap(Overlap::AllowAll));
    world.until(2 * MINUTE);
    world.state.pause(at(world.now), Request { by: "ada".to_owned(), reason: "audit".to_owned() }).unwrap();
    assert!(world.state.pause(at(world.now), Request::by("bob")).is_err());
    world.until(10 * MINUTE);
    assert_eq!(world.instants(), [1, 2]);
    let wanted = world.trigger("ada", "").unwrap();
    assert_ne!(world.trigger("ada", "").unwrap(), wanted, "each trigger has a time of its own");
    world.look();
    assert_eq!(world.fired[2..].len(), 2, "a trigger is not held up");
    let resume = Request { by: "bob".to_owned(), reason: "it is over".to_owned() };
    world.state.unpause(at(world.now), resume.clone()).unwrap();
    assert!(world.state.unpause(at(world.now), Request::by("bob")).is_err());
    world.until(11 * MINUTE);
    assert_eq!(world.instants(), [1, 2, 10, 10, 11]);
    let resumed = view(&world.state, &world.times(), at(world.now)).resumed.unwrap();
    let at_ten = at(T0 + 10 * MINUTE);
    assert_eq!((resumed.by, resumed.reason, resumed.at), (resume.by, resume.reason, at_ten));
    world.state.pause(at(world.now), Request::by("bob")).unwrap();
    assert_eq!(world.state.resumed, None, "it does not go on any more");
}

#[test]
fn it_pauses_on_failure_and_says_why() {
    let spec = ScheduleSpec { pause_on_failure: true, ..cron("* * * * *") };
    let mut world = World::new(spec);
    world.until(MINUTE);
    world.end(MINUTE, RunStatus::Cancelled);
    assert!(world.state.paused.is_none(), "a cancel is no failure");
    world.until(2 * MINUTE);
    world.end(2 * MINUTE, RunStatus::TimedOut);
    let paused = world.state.paused.clone().unwrap();
    assert_eq!(paused.cause, PauseCause::Failure);
    assert!(paused.reason.contains("timed out"), "{paused:?}");
    assert!(world.state.last_failure.as_ref().unwrap().message.contains("why"));
    world.until(5 * MINUTE);
    assert_eq!(world.instants(), [1, 2]);

    // A run that cannot be started is one.
    let mut world = World::new(ScheduleSpec { pause_on_failure: true, ..cron("* * * * *") });
    world.now = T0 + MINUTE;
    let decision = decide(&world.state, &world.times(), at(world.now));
    world.state = decision.refused("no such workflow", at(world.now));
    assert!(world.state.paused.is_some() && world.state.queue.is_empty());
    assert_eq!(world.state.counts, Counts { refused: 1, ..Counts::default() });
}

#[test]
fn a_limit_counts_what_the_clock_started() {
    let spec = ScheduleSpec { limit: Some(2), ..cron("* * * * *") };
    let mut world = World::new(spec.clone().overlap(Overlap::AllowAll));
    world.trigger("ada", "").unwrap();
    world.until(5 * MINUTE);
    assert_eq!((world.instants(), world.state.left), (vec![0, 1, 2], Some(0)));
    let status = view(&world.state, &world.times(), at(world.now)).status;
    assert_eq!(status, ScheduleStatus::Ended);
    world.now = T0 + 8 * MINUTE;
    world.update(ScheduleSpec { limit: Some(1), ..spec.clone() }.overlap(Overlap::AllowAll));
    world.until(12 * MINUTE);
    assert_eq!(world.instants(), [0, 1, 2, 9], "from the change on");

    // The same limit is used up, unless it is to begin anew.
    let same = ScheduleSpec { limit: Some(1), ..spec }.overlap(Overlap::AllowAll);
    world.update(same.clone());
    world.until(13 * MINUTE);
    assert_eq!((world.instants().len(), world.state.left), (4, Some(0)));
    let anew = Update { renew_limit: true, ..Update::new(same) };
    world.state.update(anew, at(world.now), Request::by("ada")).unwrap();
    world.until(16 * MINUTE);
    assert_eq!(world.instants(), [0, 1, 2, 9, 14], "one more, and none of before");
}

#[test]
fn of_two_changes_of_one_spec_the_second_is_refused() {
    let mut world = World::new(cron("0 * * * *"));
    let seen = world.state.updated;
    let change = |text: &str| Update { seen: Some(seen), ..Update::new(cron(text)) };
    world.state.update(change("5 * * * *"), at(world.now), Request::by("bob")).unwrap();
    let before = world.state.clone();
    // In the same millisecond.
    let error = world.state.update(change("9 * * * *"), at(world.now), Request::by("ada")).unwrap_err();
    assert!(matches!(&error, IllegalChange::Changed { by, .. } if by == "bob"), "{error}");
    assert_eq!(world.state, before, "nothing was changed");
    // Firings do not stand in the way.
    let seen = Some(world.state.updated);
    world.until(6 * MINUTE);
    let change = Update { seen, ..Update::new(cron("9 * * * *")) };
    world.state.update(change, at(world.now), Request::by("ada")).unwrap();
    assert_eq!((world.state.request.by.as_str(), world.instants()), ("ada", vec![5]));
}

#[test]
fn a_run_says_who_wanted_it_and_why() {
    let mut world = World::new(cron("* * * * *").overlap(Overlap::BufferAll));
    world.until(MINUTE);
    world.now += 1_000;
    for (by, reason) in [("ada", "new data"), ("ada", "new data"), ("bob", "")] {
        world.trigger(by, reason).unwrap();
    }
    let request = Request { by: "eve".to_owned(), reason: "the disk was full".to_owned() };
    let backfill = Backfill::new(at(T0 - 2 * MINUTE), at(T0 - MINUTE));
    world.state.backfill(&backfill, at(world.now), request).unwrap();
    // Two of the same in a row are kept once.
    assert_eq!(world.state.asked.len(), 2);
    world.look();
    assert_eq!(world.state.backfills.len(), 1, "what waits is somebody's wish still");
    while let Some(running) = world.state.running.first().cloned() {
        let ended = Ended { status: Some(RunStatus::Succeeded), output: None, message: String::new() };
        world.state.ended(running.nominal, running.by, ended, at(world.now));
        world.look();
    }
    let (ada, eve) = ("triggered by ada: new data", "backfilled by eve: the disk was full");
    assert_eq!(world.reasons, ["", ada, ada, "triggered by bob", eve, eve]);
    assert!(world.state.asked.is_empty() && world.state.backfills.is_empty(), "{:?}", world.state);
}

#[test]
fn who_wanted_triggers_takes_little_room() {
    let mut world = World::new(cron("* * * * *").overlap(Overlap::BufferAll));
    world.until(MINUTE);
    for _ in 0..100 {
        world.trigger("ada", &"r".repeat(500)).unwrap();
    }
    let (mut waiting, names) = (100, ["bob", "ada"].into_iter().cycle());
    for name in names {
        match world.trigger(name, "now") {
            Ok(_) => waiting += 1,
            Err(error) => {
                assert!(error.to_string().contains("triggers"), "{error}");
                break;
            }
        }
        assert!(waiting < 150, "they would not fit the record");
    }
    assert!(waiting > 110, "{waiting}");
    world.look();
    assert_eq!(world.state.queue.len(), waiting, "nothing of a refused one is there");
    // Whoever asked last may go on.
    let last = world.state.asked.last().unwrap().request.clone();
    world.trigger(&last.by, &last.reason).unwrap();
}

#[test]
fn an_instant_that_waits_is_not_lost_to_a_pause_when_a_backfill_wants_it() {
    let mut world = World::new(cron("* * * * *").overlap(Overlap::BufferAll));
    world.until(3 * MINUTE);
    assert_eq!((world.instants(), world.state.queue.len()), (vec![1], 2));
    // Nobody looks between the two.
    world.state.pause(at(world.now), Request::by("ada")).unwrap();
    let backfill = Backfill::new(at(T0 + MINUTE), at(T0 + 2 * MINUTE));
    let why = |world: &World| -> Vec<_> {
        let foreseen = world.state.foresee(&backfill, &world.times(), at(world.now), 10).unwrap();
        foreseen.into_iter().map(|(_, why)| why).collect()
    };
    assert_eq!(why(&world), [Some(SkipReason::Fired), None], "the second has not fired");
    world.state.backfill(&backfill, at(world.now), Request::by("ada")).unwrap();
    world.look();
    assert_eq!(world.skipped, [(MINUTE, SkipReason::Fired), (3 * MINUTE, SkipReason::Paused)]);
    assert_eq!(why(&world), [Some(SkipReason::Fired), Some(SkipReason::Waiting)]);
    world.end(MINUTE, RunStatus::Succeeded);
    world.look();
    assert_eq!(world.fired.last(), Some(&(2 * MINUTE, FiredBy::Backfill)));
    assert_eq!(world.reasons.last().map(String::as_str), Some("backfilled by ada"));
    world.end(2 * MINUTE, RunStatus::Succeeded);
    world.look();
    assert_eq!((world.fired.len(), world.state.backfills.len()), (2, 0));
}

#[test]
fn a_backfill_fires_what_has_not_fired() {
    let mut world = World::new(cron("* * * * *"));
    world.until(MINUTE);
    world.until(3 * MINUTE);
    world.end(MINUTE, RunStatus::Succeeded);
    world.until(4 * MINUTE);
    world.end(4 * MINUTE, RunStatus::Succeeded);
    let now = at(world.now);
    let backfill = Backfill::new(at(T0 - 2 * MINUTE), at(T0 + 4 * MINUTE));
    let foreseen = world.state.foresee(&backfill, &world.times(), now, 100).unwrap();
    let fires = |(nominal, why): &(Timestamp, Option<SkipReason>)| {
        (why.is_none()).then(|| i64::try_from(nominal.as_millis()).unwrap() - i64::try_from(T0).unwrap())
    };
    let fires: Vec<i64> = foreseen.iter().filter_map(fires).map(|ms| ms / 60_000).collect();
    assert_eq!(fires, [-2, -1, 0, 2, 3]);
    world.state.backfill(&backfill, now, Request::by("ada")).unwrap();
    for nominal in [-2_i64, -1, 0, 2, 3] {
        world.look();
        let running = world.state.running[0].clone();
        assert_eq!(running.nominal.as_millis(), T0.checked_add_signed(nominal * 60_000).unwrap());
        let ended = Ended { status: Some(RunStatus::Succeeded), output: None, message: String::new() };
        world.state.ended(running.nominal, running.by, ended, now);
    }
    world.look();
    // Once more, and it finds nothing to do.
    world.state.backfill(&backfill, now, Request::by("ada")).unwrap();
    world.skipped.clear();
    world.look();
    assert!(world.state.running.is_empty() && world.state.backfills.is_empty());
    assert_eq!(world.skipped.iter().filter(|(_, why)| *why == SkipReason::Fired).count(), 7);
    for (from, to) in [(5, 4), (0, 100)] {
        let wrong = Backfill::new(at(T0 + from * MINUTE), at(T0 + to * MINUTE));
        assert!(world.state.backfill(&wrong, now, Request::by("ada")).is_err());
    }
}

#[test]
fn what_fired_is_known_across_changes_of_the_timing() {
    let mut world = World::new(cron("0 * * * *").overlap(Overlap::AllowAll));
    world.until(3 * HOUR);
    let fired = |world: &World, ms: u64| world.state.fired.contains(at(T0 + ms), &world.times());
    assert!(fired(&world, HOUR) && fired(&world, 2 * HOUR));
    world.update(cron("*/30 * * * *").overlap(Overlap::AllowAll));
    assert!(
        fired(&world, 2 * HOUR) && !fired(&world, 2 * HOUR + 30 * MINUTE),
        "only what was an instant then"
    );
    world.until(4 * HOUR);
    assert_eq!(world.instants(), [60, 120, 180, 210, 240]);
    // Too many changes: the oldest is not known any more, and nothing there fires.
    for minute in 0..8 {
        world.update(cron(&format!("{minute} * * * *")).overlap(Overlap::AllowAll));
        world.until((5 + minute) * HOUR + 59 * MINUTE);
    }
    assert!(world.state.fired.floor() >= at(T0 + 3 * HOUR));
    let backfill = Backfill::new(at(T0), at(T0 + HOUR));
    let foreseen = world.state.foresee(&backfill, &world.times(), at(world.now), 10).unwrap();
    assert!(foreseen.iter().all(|(_, why)| *why == Some(SkipReason::Unknown)), "{foreseen:?}");
}

#[test]
fn the_largest_schedule_fits_its_record() {
    let mut spec = cron("* * * * * *").overlap(Overlap::AllowAll);
    spec.action.input = json!("");
    let rest = MAX_SPEC_BYTES - serde_json::to_vec(&spec).unwrap().len();
    spec.action.input = json!("x".repeat(rest));
    let mut world = World::new(spec);
    let id = ScheduleId::new("n".repeat(crate::id::MAX_SCHEDULE_ID_LEN)).unwrap();
    world.state.id = id.clone();
    // Alternating, so that no two ranges join: fires at every other second.
    let times = world.times();
    for n in 0..600_u64 {
        world.state.fired.add(at(T0 + n * 2_000), &times);
    }
    let long = "w".repeat(2_000);
    for n in 0..MAX_RUNNING as u64 {
        world.state.running.push(Running {
            nominal: at(T0 + n),
            by: FiredBy::Backfill,
            started: at(T0 + n),
            stop: Some(Overlap::TerminateOther),
        });
    }
    while world.state.queue.len() < MAX_QUEUE {
        let nominal = at(T0 + world.state.queue.len() as u64);
        let overlap = Some(Overlap::TerminateOther);
        world.state.queue.push_back(Wanted { nominal, by: FiredBy::Backfill, overlap });
    }
    let request = Request { by: "b".repeat(256), reason: "r".repeat(256) };
    for _ in 0..MAX_BACKFILLS {
        let backfill = Backfill { overlap: Overlap::TerminateOther, ..Backfill::new(at(0), at(T0)) };
        world.state.backfill(&backfill, at(T0), request.clone()).unwrap();
    }
    let mut kept = Asked::size(&request);
    while kept <= MAX_ASKED_BYTES {
        world.state.asked.push(Asked { first: at(T0), last: at(T0), request: request.clone() });
        kept += Asked::size(&request);
    }
    assert!(world.state.asked.len() > 2);
    world.state.pause(at(T0), request.clone()).unwrap();
    world.state.request = request;
    for n in 0..(2 * MAX_RECENT as u64) {
        world.state.refuse(at(T0 + n), FiredBy::Backfill, &long, at(T0));
    }
    world.state.note_trouble(at(T0), &long, at(T0));
    let output = json!("o".repeat(MAX_INLINE_RESULT - 2));
    let running = world.state.running[0].clone();
    let ended = Ended { status: Some(RunStatus::Succeeded), output: Some(output), message: String::new() };
    world.state.ended(running.nominal, running.by, ended, at(T0));
    assert!(world.state.last_result.as_ref().unwrap().output.is_some());
    for minute in 0..5 {
        let cron = format!("{minute}{} * * * *", ",1".repeat(crate::schedule::MAX_CRON_BYTES / 2 - 5));
        let timing = vec![Timing::Cron { cron }; MAX_TIMINGS];
        let other = ScheduleSpec { timing, ..world.state.spec.clone() };
        world.state.fired.turn(&other);
        world.state.fired.add(at(T0 + minute), &times);
    }
    let size = encode(&world.state).len();
    println!("{size} of {MAX_SCHEDULE_BYTES} bytes");
    assert!(size <= MAX_SCHEDULE_BYTES, "{size}");
}

#[test]
fn a_run_id_says_schedule_and_instant() {
    let nominal = at(T0 + 2 * HOUR);
    assert_eq!(run_id(&id(), nominal, FiredBy::Clock).as_str(), "nightly-20260301t020000z");
    assert_eq!(run_id(&id(), nominal, FiredBy::Backfill), run_id(&id(), nominal, FiredBy::Clock));
    assert_eq!(run_id(&id(), nominal, FiredBy::Trigger).as_str(), "nightly-20260301t020000.000z");
    let longest = ScheduleId::new("n".repeat(crate::id::MAX_SCHEDULE_ID_LEN)).unwrap();
    run_id(&longest, nominal, FiredBy::Trigger);
}

#[test]
fn a_record_of_a_later_format_is_named_as_such() {
    let state = ScheduleState::new(id(), cron("* * * * *"), at(T0), Request::by("ada"));
    let text = String::from_utf8(encode(&state)).unwrap();
    let later = text.replace("\"format\":1", "\"format\":9");
    assert_eq!(decode(&id(), later.as_bytes()), Err(UnreadableSchedule::Newer { found: 9 }));
    let other = ScheduleId::new("other").unwrap();
    for (id, bytes) in [(&other, text.as_bytes()), (&id(), b"{}"), (&id(), &text.as_bytes()[..40])] {
        assert!(matches!(decode(id, bytes), Err(UnreadableSchedule::Damaged { .. })));
    }
}

/// As it was written before it was kept who wanted what.
#[test]
fn a_record_of_before_is_read_and_its_firings_fire() {
    let spec = serde_json::to_string(&cron("* * * * *").overlap(Overlap::BufferAll)).unwrap();
    let text = format!(
        r#"{{"format":1,"id":"nightly","spec":{spec},"created":{T0},"request":{{"by":"ada"}},"updated":{T0},"mark":{T0},
        "queue":[[{T0},32]],"backfills":[{{"after":{},"to":{},"overlap":"buffer_all","request":{{"by":"eve"}}}}]}}"#,
        T0 - 3 * MINUTE,
        T0 - 2 * MINUTE,
    );
    let mut world = World::new(cron("* * * * *"));
    world.state = decode(&id(), text.as_bytes()).unwrap();
    world.look();
    world.state.running.clear();
    world.look();
    assert_eq!(world.reasons, ["", "backfilled by eve"]);
    assert!(world.state.backfills.is_empty(), "{:?}", world.state.backfills);
}

#[test]
fn after_a_restore_it_stands_still() {
    let mut world = World::new(cron("* * * * *").overlap(Overlap::BufferAll));
    world.until(3 * MINUTE);
    world.state.restored(at(world.now), at(world.now + HOUR));
    world.until(2 * HOUR);
    assert_eq!(world.instants(), [1]);
    world.end(MINUTE, RunStatus::Succeeded);
    world.state.unpause(at(world.now), Request::by("ada")).unwrap();
    world.until(2 * HOUR + MINUTE);
    assert_eq!(world.instants(), [1, 121], "nothing of before");
}
