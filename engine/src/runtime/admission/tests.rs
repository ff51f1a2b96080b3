//! Cases on values, the cost of long lines, and a model that asks at random.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(ms)
}

fn lock(name: &str) -> LockName {
    LockName::new(name).unwrap()
}

fn run(name: &str) -> RunId {
    RunId::new(name).unwrap()
}

/// A want from text: `!a` alone, `~a` shared, `+a` a permit, `%a` a rate, `slot`, and `^7` a priority.
fn want(name: &str, text: &str) -> Want {
    let mut w =
        Want { run: run(name), step: 0, priority: 0, holds: Vec::new(), rates: Vec::new(), slot: false };
    for word in text.split_whitespace() {
        match word.split_at(1) {
            ("!", n) => w.holds.push(Hold::Exclusive(lock(n))),
            ("~", n) => w.holds.push(Hold::Shared(lock(n))),
            ("+", n) => w.holds.push(Hold::Permit(lock(n))),
            ("%", n) => w.rates.push(n.to_owned()),
            ("^", n) => w.priority = n.parse().unwrap(),
            _ => w.slot = word == "slot" || panic!("{word}"),
        }
    }
    w
}

/// `slots=2 +s=4 %r=3/1000`
fn limits(text: &str) -> Limits {
    let mut limits = Limits::default();
    for word in text.split_whitespace() {
        let (name, n) = word.split_once('=').unwrap();
        match (name.split_at(1), n.split_once('/')) {
            (("+", name), None) => drop(limits.semaphores.insert(name.to_owned(), n.parse().unwrap())),
            (("%", name), Some((permits, per))) => {
                let rate = Rate { permits: permits.parse().unwrap(), per_ms: per.parse().unwrap() };
                limits.rates.insert(name.to_owned(), rate);
            }
            _ => limits.max_attempts = Some(n.parse().unwrap()),
        }
    }
    limits
}

/// Plays a script at time 0, a line each: `name: want` asks, `name: want -> yes|no` asks and compares, `drop name`
/// gives back, `leave name` leaves the line.
fn play(with: &str, script: &str) -> Arc<Admission> {
    let admission = Admission::new(limits(with));
    let mut grants = BTreeMap::new();
    for line in script.lines().map(str::trim).filter(|l| !l.is_empty()) {
        if let Some(name) = line.strip_prefix("drop ") {
            drop(grants.remove(name).unwrap_or_else(|| panic!("{line}: nothing held")));
        } else if let Some(name) = line.strip_prefix("leave ") {
            admission.leave(&run(name), &|_| false);
        } else {
            let (ask, expected) = line.split_once(" -> ").expect("an answer");
            let (name, text) = ask.split_once(':').expect("a name");
            let w = want(name, text);
            let would = admission.would_fit(&w, at(0));
            assert_eq!(would, admission.obstacles(&w, at(0)).is_empty(), "{line}");
            let got = admission.take(&w, at(0));
            assert_eq!(got.is_ok(), expected == "yes", "{line}");
            assert_eq!(got.is_ok(), would, "{line}");
            if let Ok(grant) = got {
                grants.insert(name.to_owned(), grant);
            }
        }
        admission.ledger().check();
    }
    // Held to the end of the script, and given back now.
    drop(grants);
    admission
}

#[test]
fn locks_are_shared_or_held_alone() {
    play(
        "",
        "a: ~x -> yes\n b: ~x -> yes\n c: !x -> no\n drop a\n c: !x -> no\n drop b\n c: !x -> yes\n a: ~x -> no",
    );
}

#[test]
fn all_or_nothing() {
    let admission = Admission::new(Limits::default());
    let b = admission.take(&want("b", "!y"), at(0)).unwrap();
    assert!(admission.take(&want("a", "!x !y +z"), at(0)).is_err());
    assert!(admission.holders(&lock("x")).is_empty() && admission.holders(&lock("z")).is_empty());
    drop(b);
    let a = admission.take(&want("a", "!x !y +z"), at(0)).unwrap();
    for name in ["x", "y", "z"] {
        assert_eq!(admission.holders(&lock(name)), [run("a")]);
    }
    drop(a);
    assert!(admission.ledger().is_idle());
}

#[test]
fn a_stream_of_shared_does_not_starve_who_wants_it_alone() {
    play(
        "",
        "a: ~x -> yes
         big: !x -> no
         b: ~x -> no
         drop a
         b: ~x -> no
         big: !x -> yes
         drop big
         b: ~x -> yes",
    );
}

#[test]
fn order_is_priority_then_age() {
    play(
        "",
        "h: !x -> yes
         low: !x ^-1 -> no
         first: !x -> no
         second: !x -> no
         high: !x ^9 -> no
         drop h
         low: !x ^-1 -> no
         second: !x -> no
         first: !x -> no
         late: !x ^9 -> no
         high: !x ^9 -> yes
         drop high
         late: !x ^9 -> yes
         leave second
         drop late
         low: !x ^-1 -> no
         first: !x -> yes",
    );
    // Asked again with another priority it keeps its age, and it is in line once.
    play(
        "",
        "h: !x -> yes\n a: !x -> no\n b: !x ^1 -> no\n a: !x ^1 -> no\n drop h\n b: !x ^1 -> no\n a: !x ^1 -> yes",
    );
    // What it asked for before is not in its own way, not even ahead of where it stands now.
    play(
        "+s=1",
        "h: !x -> yes
         a: !x +s ^1 -> no
         a: +s -> yes",
    );
    // Who waits for something else is not in the way, nor is a shared lock to those who share it.
    play("", "h: !x -> yes\n a: !x ~y -> no\n b: ~y -> yes\n c: !z -> yes\n d: !y -> no\n e: ~y -> no");
}

#[test]
fn one_in_line_reserves_its_part_of_a_semaphore_and_no_more() {
    play(
        "+s=4",
        "h: +s !x -> yes
         front: +s !x -> no
         b: +s -> yes
         c: +s -> yes
         d: +s -> no
         higher: +s ^1 -> yes
         drop h
         front: +s !x -> yes",
    );
}

#[test]
fn a_long_line_at_one_lock_does_not_keep_slots_empty() {
    let admission = Admission::new(limits("slots=4"));
    let holder = admission.take(&want("h", "!x slot"), at(0)).unwrap();
    for i in 0..100 {
        assert!(admission.take(&want(&format!("w{i}"), "!x slot"), at(0)).is_err());
    }
    // One slot is for the first in line; the others of it come after that one has given its slot back.
    let a = admission.take(&want("a", "slot"), at(0)).unwrap();
    let _b = admission.take(&want("b", "slot"), at(0)).unwrap();
    assert!(admission.take(&want("c", "slot"), at(0)).is_err());
    drop(holder);
    let _first = admission.take(&want("w0", "!x slot"), at(0)).unwrap();
    // The second is the first now; it has the last slot, and `c` the one that comes back next.
    assert!(!admission.would_fit(&want("c", "slot"), at(0)));
    drop(a);
    assert!(admission.would_fit(&want("c", "slot"), at(0)));
    admission.ledger().check();
}

#[test]
fn numbers_are_never_nothing_and_never_more_than_there_is() {
    play("slots=0 +s=0", "a: +s slot -> yes\n b: slot -> no\n c: +s -> no");
    // Without a size there is one permit; without a limit there are slots for all.
    play("", "a: +s slot -> yes\n b: slot -> yes\n c: +s -> no");
    // Who asks for more than there are gets all there are.
    play("+s=2", "a: +s +s +s -> yes\n b: +s -> no\n drop a\n b: +s -> yes\n a: +s +s +s -> no");
    // A lock asked for in two ways is held in the stronger one.
    play("", "a: ~x !x -> yes\n b: ~x -> no");
    // Who holds the lock of a semaphore's name alone has all of it.
    play("+s=2", "a: +s -> yes\n all: !s -> no\n b: +s -> no\n drop a\n all: !s -> yes\n b: +s -> no");
}

#[test]
fn steps_of_one_run_have_no_privilege() {
    let admission = Admission::new(Limits::default());
    let mut w = want("a", "!x");
    let first = admission.take(&w, at(0)).unwrap();
    for step in 1..=3 {
        w.step = step;
        assert!(admission.take(&w, at(0)).is_err());
    }
    assert!(admission.take(&want("b", "!x"), at(0)).is_err());
    // Steps 1 and 3 are not wanted any more; step 2 still stands before the other run.
    let mut told = admission.subscribe();
    told.mark_unchanged();
    admission.leave(&run("a"), &|step| step == 2);
    assert!(told.has_changed().unwrap());
    told.mark_unchanged();
    admission.leave(&run("a"), &|step| step == 2);
    assert!(!told.has_changed().unwrap(), "nobody left");
    drop(first);
    assert!(!admission.would_fit(&want("b", "!x"), at(0)));
    w.step = 2;
    assert!(admission.would_fit(&w, at(0)));
    admission.leave(&run("a"), &|_| false);
    assert!(admission.would_fit(&want("b", "!x"), at(0)));
}

#[test]
fn tells_whenever_somebody_may_go_who_could_not() {
    let admission = Admission::new(limits("+s=1 %r=1/1000"));
    let mut told = admission.subscribe();
    let mut heard = || std::mem::replace(&mut told, admission.subscribe()).has_changed().unwrap();
    let h = admission.take(&want("h", "!x"), at(0)).unwrap();
    assert!(admission.take(&want("a", "!x +s"), at(0)).is_err());
    assert!(admission.take(&want("b", "+s"), at(0)).is_err(), "the permit is for a");
    assert!(!heard());
    // A higher priority takes the place of `a` at the lock; until it has gone the permit is for anybody.
    assert!(admission.take(&want("c", "!x ^1"), at(0)).is_err());
    assert!(heard());
    let b = admission.take(&want("b", "+s"), at(0)).unwrap();
    assert!(!heard());
    drop(b);
    assert!(heard());
    // It wants less than it did.
    assert!(admission.take(&want("c", "~x ^1"), at(0)).is_err());
    assert!(heard());
    // What is only spent is not given back.
    drop(admission.take(&want("d", "%r"), at(0)).unwrap());
    assert!(!heard());
    drop(h);
    assert!(heard());
    // It gets less than it stood in line for.
    assert!(admission.take(&want("a", ""), at(0)).is_ok());
    assert!(heard());
}

#[test]
fn a_rate_says_when() {
    let admission = Admission::new(limits("%r=2/1000"));
    let ask = |name: &str, text: &str, now| admission.take(&want(name, text), at(now)).map(drop);
    let later = |ms| Err(Refused { retry_at: Some(at(ms)) });
    assert_eq!(ask("a", "%r", 10_000), Ok(()));
    assert_eq!(ask("b", "%r", 10_000), Ok(()));
    assert_eq!(ask("c", "%r", 10_000), later(10_500));
    assert_eq!(ask("d", "%r", 10_100), later(11_000), "behind c");
    assert_eq!(ask("e", "%r %r %r", 10_100), later(11_500), "looks again by then");
    assert_eq!(ask("d", "%r", 10_500), later(11_000), "not before c");
    assert_eq!(ask("f", "%r ^1", 10_500), Ok(()), "but with a priority");
    assert_eq!(ask("c", "%r", 10_500), later(11_000));
    assert_eq!(ask("c", "%r", 11_000), Ok(()));
    assert_eq!(ask("d", "%r", 11_500), Ok(()));
    // A clock set back by a long time: from there on.
    assert_eq!(ask("e", "%r %r", 1_000), later(2_000));
    assert_eq!(ask("e", "%r %r", 2_000), Ok(()));
    // A rate that nobody configured holds nobody up.
    assert_eq!(ask("g", "%other", 2_000), Ok(()));
    assert!(admission.ledger().is_idle());
}

#[test]
fn who_waits_for_a_lock_keeps_no_permit_of_a_rate() {
    let admission = Admission::new(limits("%r=1/1000"));
    let h = admission.take(&want("h", "!x"), at(0)).unwrap();
    assert_eq!(admission.take(&want("a", "!x %r"), at(0)).unwrap_err(), Refused { retry_at: None });
    drop(admission.take(&want("b", "%r"), at(0)).unwrap());
    drop(admission.take(&want("b", "%r"), at(1_000)).unwrap());
    drop(h);
    // Now nothing but the rate keeps `a`, and the next permit is its own.
    assert_eq!(
        admission.take(&want("b", "%r"), at(1_900)).unwrap_err(),
        Refused { retry_at: Some(at(3_000)) }
    );
    assert_eq!(
        admission.take(&want("b", "%r"), at(2_000)).unwrap_err(),
        Refused { retry_at: Some(at(3_000)) }
    );
    assert!(admission.take(&want("a", "!x %r"), at(2_000)).is_ok());
}

#[test]
fn obstacles_name_what_and_who() {
    let admission = Admission::new(limits("slots=2 +s=1 %r=1/1000"));
    let _h = admission.take(&want("h", "!x +s %r slot"), at(0)).unwrap();
    let _i = admission.take(&want("i", "~y slot"), at(0)).unwrap();
    assert!(admission.take(&want("q", "!x"), at(0)).is_err());
    let obstacle = |kind, name: &str, by: &[&str]| Obstacle {
        kind,
        name: name.to_owned(),
        held_by: by.iter().map(|r| run(r)).collect(),
        until: None,
    };
    let found = admission.obstacles(&want("w", "!x +s %r slot ~y"), at(250));
    assert_eq!(
        found,
        [
            obstacle(ObstacleKind::Lock, "x", &["h"]),
            obstacle(ObstacleKind::Queue, "x", &["q"]),
            obstacle(ObstacleKind::Slots, "attempts", &["h", "i"]),
            obstacle(ObstacleKind::Semaphore, "s", &["h"]),
            Obstacle { until: Some(at(1_000)), ..obstacle(ObstacleKind::Rate, "r", &[]) },
        ]
    );
    // Asking why changes nothing, though it be about something else than what stands in line.
    assert_eq!(admission.obstacles(&want("q", "~y ^-5"), at(0)), []);
    assert_eq!(admission.obstacles(&want("q", "!x"), at(0)), [obstacle(ObstacleKind::Lock, "x", &["h"])]);
    let text = serde_json::to_string(&found).unwrap();
    assert!(text.starts_with(r#"[{"kind":"lock","name":"x","held_by":["h"]}"#), "{text}");
    assert_eq!(serde_json::from_str::<Vec<Obstacle>>(&text).unwrap(), found);
}

#[test]
fn a_grant_goes_with_the_task() {
    let admission = Admission::new(Limits::default());
    let grant = admission.take(&want("a", "!x"), at(0)).unwrap();
    let task = std::thread::spawn(move || {
        let _held = grant;
        panic!("an attempt that panics gives back as well");
    });
    assert!(task.join().is_err());
    assert!(admission.ledger().is_idle());
}

/// Queues wants, drains them in order, and counts the entries of the line that were looked at on the way.
fn drain(with: &str, hold: &str, wants: &[Want], mut now: u64) -> u64 {
    let admission = Admission::new(limits(with));
    let holder = admission.take(&want("holder", hold), at(now)).unwrap();
    for w in wants {
        assert!(admission.take(w, at(now)).is_err());
    }
    drop(holder);
    for (i, w) in wants.iter().enumerate() {
        // The one behind cannot go first, and the last one costs no more to refuse.
        for other in wants.get(i + 1).into_iter().chain(wants.last().filter(|_| i + 1 < wants.len())) {
            assert!(admission.take(other, at(now)).is_err());
        }
        let mut got = admission.take(w, at(now));
        if let Err(Refused { retry_at: Some(then) }) = got {
            now = then.as_millis();
            got = admission.take(w, at(now));
        }
        drop(got.unwrap());
    }
    let ledger = admission.ledger();
    assert!(ledger.is_idle());
    ledger.visited
}

#[test]
fn a_long_line_costs_a_few_looks_each() {
    const N: u64 = 10_000;
    let wants = |text: &dyn Fn(u64) -> String| -> Vec<Want> {
        (0..N).map(|i| want(&format!("r{i}"), &text(i))).collect()
    };
    for (with, hold, texts) in [
        ("slots=8", "!x slot", wants(&|_| "!x slot".to_owned())),
        ("+s=1 %r=3/10", "+s", wants(&|_| "+s %r".to_owned())),
        ("slots=1", "slot", wants(&|i| format!("slot !l{}", i % 7))),
        ("%r=1/1000", "%r", wants(&|_| "%r".to_owned())),
        ("slots=4 %r=5/10", "!x ~y slot", wants(&|_| "!x ~y %r slot".to_owned())),
    ] {
        let visited = drain(with, hold, &texts, 1_000);
        assert!(visited < 20 * N, "{with}: {visited} looks for {N} wants");
    }
}

#[test]
fn many_who_share_behind_one_alone_cost_a_few_looks_each() {
    const N: u64 = 10_000;
    let admission = Admission::new(limits("slots=100000"));
    let holder = admission.take(&want("h", "!x"), at(0)).unwrap();
    let alone = want("alone", "!x slot");
    assert!(admission.take(&alone, at(0)).is_err());
    let many: Vec<Want> = (0..N).map(|i| want(&format!("r{i}"), "~x slot")).collect();
    for w in &many {
        assert!(admission.take(w, at(0)).is_err());
    }
    let last = want("last", "!x slot");
    assert!(admission.take(&last, at(0)).is_err());
    drop(holder);
    drop(admission.take(&alone, at(0)).unwrap());
    let all: Vec<Grant> = many.iter().map(|w| admission.take(w, at(0)).unwrap()).collect();
    assert!(admission.take(&last, at(0)).is_err());
    drop(all);
    drop(admission.take(&last, at(0)).unwrap());
    let visited = admission.ledger().visited;
    assert!(visited < 20 * N, "{visited} looks");
}

/// One that was refused, and what it was told.
struct Waiting {
    want: Want,
    /// When it first stood in line, as a count of wants.
    age: u64,
    heard: u64,
    retry_at: Option<Timestamp>,
}

struct Model {
    rng: StdRng,
    admission: Arc<Admission>,
    told: watch::Receiver<u64>,
    now: u64,
    ages: u64,
    held: Vec<(Want, Grant)>,
    waiting: Vec<Waiting>,
    /// Weight left of the rate `r`, 3 permits a second, were every step forward of the clock counted.
    weight: u64,
}

const SLOTS: usize = 6;
const SEMAPHORE: usize = 3;

impl Model {
    fn new(seed: u64) -> Self {
        let admission = Admission::new(limits(&format!("slots={SLOTS} +s={SEMAPHORE} %r=3/1000")));
        let told = admission.subscribe();
        let rng = StdRng::seed_from_u64(seed);
        Self {
            rng,
            admission,
            told,
            now: 1_000_000,
            ages: 0,
            held: Vec::new(),
            waiting: Vec::new(),
            weight: 3_000,
        }
    }

    fn heard(&self) -> u64 {
        *self.told.borrow()
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms;
        self.weight = (self.weight + ms.saturating_mul(3)).min(3_000);
    }

    fn some_want(&mut self) -> Want {
        let mut words = vec![format!("^{}", self.rng.random_range(-1..2))];
        for (chance, word) in [
            (15, "!x"),
            (15, "~x"),
            (10, "!y"),
            (15, "~y"),
            (25, "+s"),
            (5, "+s"),
            (2, "!s"),
            (20, "%r"),
            (50, "slot"),
        ] {
            if self.rng.random_range(0..100) < chance {
                words.push(word.to_owned());
            }
        }
        let mut w = want(&format!("run{}", self.rng.random_range(0..12)), &words.join(" "));
        w.step = self.rng.random_range(0..4);
        w
    }

    fn ask(&mut self, w: Want) {
        let known = self.waiting.iter().position(|q| (&q.want.run, q.want.step) == (&w.run, w.step));
        let known = known.map(|i| self.waiting.swap_remove(i));
        let age = known.as_ref().map_or(self.ages, |q| q.age);
        self.ages += 1;
        // One that asks for something else leaves its old place first, and others move up in front of those behind.
        let changed = known.is_some_and(|q| q.want != w);
        let could = if changed { Vec::new() } else { self.could_go_before(&w, age) };
        let would = self.admission.would_fit(&w, at(self.now));
        assert_eq!(would, self.admission.obstacles(&w, at(self.now)).is_empty());
        match self.admission.take(&w, at(self.now)) {
            Ok(grant) => {
                assert!(would);
                self.in_order(&w, age, &could);
                self.weight = self.weight.checked_sub(1_000 * w.rates.len() as u64).expect("within the rate");
                self.held.push((w, grant));
                self.within_limits();
            }
            Err(Refused { retry_at }) => {
                assert!(!would);
                assert!(retry_at.is_none_or(|then| then > at(self.now)), "no busy loop");
                self.waiting.push(Waiting { want: w, age, heard: self.heard(), retry_at });
            }
        }
    }

    /// Those in line before this one.
    fn ahead(&self, w: &Want, age: u64) -> impl Iterator<Item = &Want> {
        let place = (-w.priority, age);
        self.waiting.iter().filter(move |q| (-q.want.priority, q.age) < place).map(|q| &q.want)
    }

    fn could_go_before(&self, w: &Want, age: u64) -> Vec<Want> {
        let ahead = self.ahead(w, age);
        ahead.filter(|q| self.admission.would_fit(q, at(self.now))).cloned().collect()
    }

    /// Nobody who comes before this one wants a lock against it, could go until it went, or is its equal and cannot
    /// go now.
    fn in_order(&self, w: &Want, age: u64, could: &[Want]) {
        for q in self.ahead(w, age) {
            let against = |b| w.holds.iter().any(|a| against(a, b));
            assert!(!q.holds.iter().any(against), "{w:?} went before {q:?}");
            let equal = q.holds == w.holds && q.rates == w.rates && q.slot == w.slot;
            if equal {
                assert!(self.admission.would_fit(q, at(self.now)), "{w:?} went instead of its equal {q:?}");
            }
        }
        for q in could {
            assert!(self.admission.would_fit(q, at(self.now)), "{w:?} took what was for {q:?}");
        }
    }

    fn within_limits(&self) {
        assert!(self.held.iter().filter(|(w, _)| w.slot).count() <= SLOTS);
        let permits = self.held.iter().flat_map(|(w, _)| &w.holds).filter(|h| matches!(h, Hold::Permit(_)));
        assert!(permits.count() <= SEMAPHORE);
        for (i, (a, _)) in self.held.iter().enumerate() {
            for (b, _) in &self.held[..i] {
                assert!(!a.holds.iter().any(|a| b.holds.iter().any(|b| against(a, b))), "{a:?} with {b:?}");
            }
        }
    }

    /// Who was told to wait until it hears something, and has not, cannot go.
    fn nothing_missed(&self) {
        let heard = self.heard();
        for q in self.waiting.iter().filter(|q| q.heard == heard && q.retry_at.is_none()) {
            assert!(!self.admission.would_fit(&q.want, at(self.now)), "nobody told {:?}", q.want);
        }
    }

    fn step(&mut self, n: u32) {
        match self.rng.random_range(0..100) {
            0..=39 => {
                let w = self.some_want();
                // One attempt at a time of each step.
                if !self.held.iter().any(|(h, _)| (&h.run, h.step) == (&w.run, w.step)) {
                    self.ask(w);
                }
            }
            40..=64 if !self.waiting.is_empty() => {
                let i = self.rng.random_range(0..self.waiting.len());
                self.ask(self.waiting[i].want.clone());
            }
            65..=89 if !self.held.is_empty() => {
                let i = self.rng.random_range(0..self.held.len());
                drop(self.held.swap_remove(i));
            }
            90..=91 => {
                let run = run(&format!("run{}", self.rng.random_range(0..12)));
                let keep = self.rng.random_range(0..4);
                self.admission.leave(&run, &|step| step == keep);
                self.waiting.retain(|q| q.want.run != run || q.want.step == keep);
            }
            92 => self.now -= self.rng.random_range(0..4_000),
            93 => self.pass(3_600_000),
            _ => {
                let ms = self.rng.random_range(0..400);
                self.pass(ms);
            }
        }
        if n.is_multiple_of(20) {
            self.nothing_missed();
            self.admission.ledger().check();
        }
    }

    /// Everything is given back; everyone who waits asks only when told, or when the time has come. All of them go.
    fn drain(&mut self) {
        self.held.clear();
        while !self.waiting.is_empty() {
            let (heard, now) = (self.heard(), at(self.now));
            let told: Vec<Want> = self
                .waiting
                .iter()
                .filter(|q| q.heard != heard || q.retry_at.is_some_and(|then| then <= now))
                .map(|q| q.want.clone())
                .collect();
            if told.is_empty() {
                assert!(self.held.is_empty());
                let next = self.waiting.iter().filter_map(|q| q.retry_at).min();
                let next = next.expect("somebody waits and nobody will tell").as_millis();
                self.pass(next - self.now);
                continue;
            }
            for w in told {
                self.ask(w);
            }
            self.held.clear();
        }
        assert!(self.admission.ledger().is_idle());
    }
}

/// Whether two holds cannot be held together, numbers aside.
fn against(a: &Hold, b: &Hold) -> bool {
    let name = |h: &Hold| match h {
        Hold::Exclusive(n) | Hold::Shared(n) | Hold::Permit(n) => n.clone(),
    };
    let alone = |h: &Hold| matches!(h, Hold::Exclusive(_));
    name(a) == name(b) && (alone(a) || alone(b))
}

#[test]
fn holds_whatever_is_asked() {
    let mut waited = 0;
    for seed in 0..50 {
        println!("seed {seed}");
        let mut model = Model::new(seed);
        for n in 0..2_000 {
            model.step(n);
        }
        waited += model.waiting.len();
        model.drain();
    }
    assert!(waited > 500, "there were lines to drain: {waited}");
}
