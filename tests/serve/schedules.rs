//! Schedules, whole: the daemon fires a resync every few seconds, tables that people changed by hand are mended by the next
//! firing, and a daemon that was killed between two firings acts on what it missed as the catch-up window says. No
//! instant has two runs, whatever happened to the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dssflow_engine::time::Timestamp;
use serde_json::{Value, json};

use crate::daemon::{Daemon, PATIENCE};
use crate::lake::Lake;
use crate::support::Home;
use crate::through::serve;

const COLUMNS: [(&str, &str); 2] = [("id", "bigint"), ("note", "string")];
/// The schedule of every test.
const ID: &str = "resync";
/// It fires so often: a multiple of it since 1970 is an instant.
const EVERY_MS: u64 = 6_000;
/// The least window that a schedule may have.
const LEAST_WINDOW_MS: u64 = 10_000;

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    u64::try_from(since.as_millis()).expect("a time of these days")
}

fn sleep_until(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms.saturating_sub(now())));
}

/// A sandbox with tables that are right, and a daemon that fires the resync.
fn scheduled(more: &[&str]) -> (Lake, Daemon) {
    let lake = Lake::new();
    for name in ["orders", "items", "places"] {
        lake.dataset(name, &COLUMNS, false, true);
    }
    lake.resync(&[]).expect(0).says("3 datasets: 0 equal, 3 added");
    let daemon = serve(&lake.home);
    let site = lake.home.store().join("sandbox/site.yaml");
    let site = site.to_str().expect("a plain path");
    let create = ["schedules", "create", ID, "--workflow", "glue-resync", "-f", site, "--every", "6s"];
    let made = lake.home.run(&[&create[..], more].concat()).expect(0);
    assert_eq!(made.stdout, format!("{ID}\n"));
    assert!(made.stderr.contains("is created; it fires 20"), "{}", made.stderr);
    (lake, daemon)
}

/// The schedule as commands see it, and what its runs say of themselves.
struct Seen {
    view: Value,
    /// The runs by their instants.
    runs: BTreeMap<u64, Value>,
}

impl Seen {
    /// Asks, and checks what holds at any time: each run is that of one instant, and no instant has two.
    fn of(home: &Home) -> Self {
        let label = format!("schedule={ID}");
        // A run and its schedule are asked for one after the other: what begins in between is in the later answer.
        let view = home.json(&["schedules", "get", ID, "-o", "json"]);
        let listed = home.json(&["runs", "ls", "--label", &label, "--limit", "1000", "-o", "json"]);
        let mut runs = BTreeMap::new();
        for run in listed.as_array().expect("a list") {
            let name = run["run"].as_str().expect("an id");
            let run = home.json(&["runs", "get", name, "-o", "json"]);
            let scheduled = &run["scheduled"];
            assert_eq!((&scheduled["schedule"], &scheduled["by"]), (&json!(ID), &json!("clock")), "{run}");
            let nominal = scheduled["nominal"].as_u64().expect("an instant");
            assert_eq!(name, run_of(nominal), "a run is named after its instant");
            assert_eq!(nominal % EVERY_MS, 0, "{name} is no instant");
            assert_eq!(runs.insert(nominal, run), None, "{name}: an instant has two runs");
        }
        let seen = Self { view, runs };
        for nominal in seen.told("started") {
            assert!(seen.runs.contains_key(&nominal), "{} was started and is not there", run_of(nominal));
        }
        seen
    }

    /// What the schedule tells of its last instants, of one kind.
    fn recent<'a>(&'a self, what: &str) -> Vec<&'a Value> {
        let recent = self.view["recent"].as_array().expect("a list");
        recent.iter().filter(|recent| recent["what"] == what).collect()
    }

    fn told(&self, what: &str) -> BTreeSet<u64> {
        let all = self.recent(what);
        let told: BTreeSet<u64> = all.iter().map(|r| r["nominal"].as_u64().expect("an instant")).collect();
        assert_eq!(told.len(), all.len(), "{what} twice: {all:#?}");
        told
    }

    /// Instants whose run has succeeded.
    fn done(&self) -> BTreeSet<u64> {
        let done = self.runs.iter().filter(|(_, run)| run["status"] == "succeeded");
        done.map(|(nominal, _)| *nominal).collect()
    }

    /// The counts of what the run of an instant reports.
    fn totals(&self, nominal: u64) -> Value {
        let run = &self.runs[&nominal];
        let steps = run["steps"].as_array().expect("steps");
        let report = steps.iter().find(|step| step["step"] == "report").expect("a report");
        report["output"]["totals"].clone()
    }

    fn sum(&self, nominals: &BTreeSet<u64>, of: &str) -> u64 {
        nominals.iter().map(|nominal| self.totals(*nominal)[of].as_u64().unwrap_or_default()).sum()
    }
}

/// As the id of a run has it.
fn run_of(nominal: u64) -> String {
    let text = Timestamp::from_millis(nominal).to_string();
    let compact: String = text[..19].chars().filter(char::is_ascii_alphanumeric).collect();
    format!("{ID}-{}z", compact.to_lowercase())
}

/// Looks until something is so.
#[track_caller]
fn until(home: &Home, what: &str, is_so: impl Fn(&Seen) -> bool) -> Seen {
    let begin = Instant::now();
    loop {
        let seen = Seen::of(home);
        if is_so(&seen) {
            return seen;
        }
        assert!(begin.elapsed() < PATIENCE, "it never was so that {what}: {:#}", seen.view);
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Two tables as somebody leaves them who knows no DSS.
fn spoil(lake: &Lake) {
    lake.spoil("orders", |stored| {
        for column in stored.columns.iter_mut().flatten().filter(|c| c.name == "id") {
            column.r#type = Some("string".to_owned());
        }
    });
    lake.drop_table("places");
}

fn tables(lake: &Lake) -> [Value; 3] {
    ["orders", "items", "places"].map(|name| lake.is(name))
}

#[test]
fn the_next_firing_mends_what_was_changed_by_hand_and_its_report_says_so() {
    let (lake, daemon) = scheduled(&[]);
    let home = &lake.home;
    let right = tables(&lake);
    let first = until(home, "it has fired", |seen| !seen.done().is_empty());
    let nominal = *first.done().first().expect("one has succeeded");
    assert_eq!(first.totals(nominal)["equal"], 3, "there was nothing to mend: {:#}", first.totals(nominal));

    let before = first.done();
    spoil(&lake);
    assert_ne!(tables(&lake), right);
    let spoilt = now();
    let seen = until(home, "a firing after it is over", |seen| seen.done().iter().any(|at| *at >= spoilt));
    assert_eq!(tables(&lake), right, "the next firing mends it");
    // A firing that was on its way while the tables were changed may have met the first change alone.
    let after: BTreeSet<u64> = seen.done().difference(&before).copied().collect();
    for (of, count) in [("mended", 2), ("added", 1), ("changed", 1), ("mismatched_types", 1), ("failed", 0)] {
        assert_eq!(
            seen.sum(&after, of),
            count,
            "{of}: {:?}",
            after.iter().map(|at| seen.totals(*at)).collect::<Vec<_>>()
        );
    }
    // The report is there for people as well, and the run knows what the one before it returned.
    let at = after.iter().find(|at| seen.totals(**at)["mended"].as_u64() > Some(0)).expect("one mended");
    home.run(&["runs", "get", &run_of(*at)]).expect(0).says("dss_main.churn_places").says("mended");
    let told = &seen.runs[at]["scheduled"]["last_result"];
    assert!(told["nominal"].as_u64() < Some(*at) && told["run"].is_string(), "{told}");

    // The one after that finds nothing to do.
    let last = *after.last().expect("one is over");
    let seen = until(home, "it fires once more", |seen| seen.done().iter().any(|at| *at > last));
    let next = *seen.done().last().expect("one is over");
    assert_eq!((&seen.totals(next)["equal"], &seen.totals(next)["mended"]), (&json!(3), &json!(0)));
    let shown = home.run(&["schedules", "get", ID]).expect(0);
    assert!(shown.stdout.contains(&format!("run {}: succeeded", run_of(next))), "{}", shown.stdout);
    let (code, said) = daemon.stop();
    assert_eq!(code, Some(0), "{said}");
}

/// Kills the daemon right after a firing is over, and waits until it has missed two more and `late_ms` have gone by since.
/// What had fired, and the instants that nobody was there for.
fn killed_between_firings(lake: &Lake, daemon: Daemon, late_ms: u64) -> (BTreeSet<u64>, Vec<u64>) {
    until(&lake.home, "it has fired", |seen| !seen.done().is_empty() && seen.view["running"] == json!([]));
    daemon.kill();
    // Nobody owns the store: what has fired is read there.
    let fired: BTreeSet<u64> = Seen::of(&lake.home).runs.into_keys().collect();
    let last = *fired.last().expect("it has fired");
    let missed = [last + EVERY_MS, last + 2 * EVERY_MS];
    spoil(lake);
    sleep_until(missed[1] + late_ms + 300);
    (fired, missed.to_vec())
}

#[test]
fn firings_missed_by_a_killed_daemon_are_caught_up_once_each_within_the_window() {
    let (lake, daemon) = scheduled(&["--catch-up", "1h", "--overlap", "buffer-all"]);
    let home = &lake.home;
    let right = tables(&lake);
    let (fired, missed) = killed_between_firings(&lake, daemon, 0);
    assert_ne!(tables(&lake), right);

    // It is killed once more while it catches up, in the second of them.
    let mut daemon = serve(home);
    daemon.until("it catches up", |daemon| daemon.get(&format!("/v1/runs/{}", run_of(missed[1]))).is_some());
    daemon.kill();
    let daemon = serve(home);
    let all = |seen: &Seen| missed.iter().all(|at| seen.done().contains(at));
    let seen = until(home, "what was missed is caught up", all);
    assert_eq!(tables(&lake), right);
    // The first of them mended what was changed meanwhile, and left nothing to the second.
    let reports = [seen.totals(missed[0]), seen.totals(missed[1])];
    assert_eq!((&reports[0]["mended"], &reports[1]["mended"]), (&json!(2), &json!(0)), "{reports:#?}");
    assert_eq!(reports[1]["equal"], 3);
    assert_eq!(seen.view["counts"]["missed"], 0);
    assert_eq!(seen.recent("skipped"), [] as [&Value; 0]);

    // It goes on by the clock. From the first to the last there is no hole and nothing twice.
    let caught_up = now();
    let seen = until(home, "it goes on by the clock", |seen| seen.done().iter().any(|at| *at > caught_up));
    let (first, last) = (fired.first().expect("one"), seen.runs.last_key_value().expect("one").0);
    let whole: BTreeSet<u64> =
        (*first..=*last).step_by(usize::try_from(EVERY_MS).expect("it is small")).collect();
    assert_eq!(seen.runs.keys().copied().collect::<BTreeSet<_>>(), whole);
    drop(daemon);
    let seen = Seen::of(home);
    assert_eq!(seen.view["counts"]["fired"], seen.runs.len());
}

#[test]
fn firings_missed_for_longer_than_the_window_are_told_and_never_fire() {
    let (lake, daemon) = scheduled(&["--catch-up", "10s", "--overlap", "buffer-all"]);
    let home = &lake.home;
    let right = tables(&lake);
    let (fired, missed) = killed_between_firings(&lake, daemon, LEAST_WINDOW_MS);
    let daemon = serve(home);
    let seen = until(home, "it fires again", |seen| seen.done().iter().any(|at| !fired.contains(at)));
    assert_eq!(tables(&lake), right, "what fires after that mends");

    let skipped = seen.recent("skipped");
    assert_eq!(skipped.len(), 1, "{skipped:#?}");
    assert_eq!((&skipped[0]["why"], &skipped[0]["nominal"]), (&json!("missed"), &json!(missed[0])));
    let last = skipped[0]["last"].as_u64().expect("an instant");
    assert!(last >= missed[1], "{skipped:#?}");
    let times = (last - missed[0]) / EVERY_MS + 1;
    assert_eq!((&skipped[0]["times"], &seen.view["counts"]["missed"]), (&json!(times), &json!(times)));
    let shown = home.run(&["schedules", "get", ID]).expect(0).stdout;
    assert!(shown.contains(&format!("{times} skipped until")) && shown.contains(": missed"), "{shown}");
    // What the window still covered fired, late; nothing of before it did.
    let started = seen.recent("started");
    let late = started.iter().find(|s| s["nominal"].as_u64() > Some(last)).expect("it fired again");
    assert_eq!(late["nominal"], last + EVERY_MS);
    let by = late["at"].as_u64().expect("a time") - (last + EVERY_MS);
    assert!(by <= LEAST_WINDOW_MS + 2_000, "it fired {by} ms late");
    assert!(seen.runs.keys().all(|at| fired.contains(at) || *at > last), "{:?}", seen.runs.keys());

    // After one more restart they still do not: that they were missed is written down.
    assert_eq!(daemon.stop().0, Some(0));
    let daemon = serve(home);
    let again = now();
    let seen = until(home, "it goes on by the clock", |seen| seen.done().iter().any(|at| *at > again));
    assert!(!seen.runs.keys().any(|at| (missed[0]..=last).contains(at)), "{:?}", seen.runs.keys());
    assert_eq!(daemon.stop().0, Some(0));
    let seen = Seen::of(home);
    assert_eq!(seen.view["counts"]["fired"], seen.runs.len());
}
