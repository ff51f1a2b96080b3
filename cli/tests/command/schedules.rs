//! `dssflow schedules`: every verb while nobody owns the store, and once more through a process that serves it, with the
//! same output; what is refused, and what it says mends that.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::support::{EXAMPLE, Home, Ran};

/// What only a command says that holds the store itself.
const NOBODY: &str = "schedules fire while `dssflow serve` runs; nobody owns the store now\n";

/// A home with the files that a schedule may be made from, and perhaps a daemon.
struct World {
    home: Home,
    daemon: Option<Child>,
}

impl World {
    fn new() -> Self {
        let home = Home::new();
        home.write("site.yaml", EXAMPLE);
        home.write(
            "schedule.yaml",
            "schedule: weekly\nworkflow: glue-resync\nfile: site.yaml\ncron: [\"0 4 * * 1\", \"0 5 * * 1\"]\n\
             zone: Europe/Berlin\noverlap: buffer-one\ncatch_up: 6h\njitter: 5m\nstart: 2090-01-01\nend: 2091-01-01\n\
             limit: 3\npause_on_failure: true\nlabels: { team: data }\n",
        );
        home.write(
            "over.yaml",
            "schedule: over\nworkflow: glue-resync\nfile: site.yaml\nevery: 1h\nend: 2020-01-01\n",
        );
        Self { home, daemon: None }
    }

    /// The same with a daemon that serves the store.
    fn served() -> Self {
        let mut world = Self::new();
        let mut command = world.home.command(&["serve"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let serves = |line: &String| line.starts_with("serving the store");
        assert!(said.by_ref().map_while(Result::ok).any(|line| serves(&line)), "it does not serve");
        // It must not stop for a pipe that nobody empties.
        std::thread::spawn(move || said.for_each(drop));
        world.daemon = Some(child);
        world
    }

    /// Without a daemon, and with one.
    fn both() -> [Self; 2] {
        [Self::new(), Self::served()]
    }

    #[track_caller]
    fn does(&self, args: &[&str], exit: i32) -> Ran {
        let ran = self.home.run(&[&["schedules"], args].concat());
        assert_eq!(ran.exit, exit, "{args:?} {ran:?}");
        ran
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.does(&[args, &["-o", "json"]].concat(), 0).out).unwrap()
    }

    fn nightly(&self) {
        let create =
            ["create", "nightly", "--workflow", "bootstrap", "-f", "site.yaml", "--cron", "0 3 * * *"];
        self.does(&create, 0);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            drop((daemon.kill(), daemon.wait()));
        }
    }
}

/// Text without what depends on when it was printed: times, and ids with a time in them. Short numbers stay.
fn timeless(text: &str) -> String {
    let mut out = String::new();
    let mut digits = String::new();
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        out.push_str(if digits.len() < 2 { &digits } else { "#" });
        digits.clear();
        out.push(c);
    }
    out
}

/// Every verb, where each has something to do, and whether a command that holds the store says that nobody fires.
const EVERY_VERB: &[(&[&str], bool)] = &[
    (&["ls"], false),
    (&["ls", "-o", "json"], false),
    (&["create", "--workflow", "bootstrap", "-f", "site.yaml", "--every", "30d", "--reason", "wanted"], true),
    (
        &[
            "create",
            "nightly",
            "--workflow",
            "bootstrap",
            "-f",
            "site.yaml",
            "--cron",
            "0 3 * * *",
            "--zone",
            "Europe/Berlin",
        ],
        true,
    ),
    (&["create", "-f", "schedule.yaml", "-o", "yaml"], true),
    (&["ls"], false),
    (&["ls", "-o", "name"], false),
    (&["ls", "-o", "json"], false),
    (&["ls", "-o", "yaml"], false),
    (&["get", "nightly"], false),
    (&["get", "weekly"], false),
    (&["get", "weekly", "-o", "json"], false),
    (&["next", "weekly"], false),
    (&["next", "nightly", "-n", "2", "-o", "json"], false),
    (&["next", "bootstrap-lab", "-n", "1", "-o", "yaml"], false),
    (&["update", "nightly", "--cron", "30 3 * * *", "--overlap", "buffer-all", "--catch-up", "2h"], true),
    (&["update", "nightly", "--label", "team=data", "--limit", "7", "-o", "json"], true),
    (&["update", "-f", "schedule.yaml", "--zone", "Asia/Tokyo"], true),
    (&["pause", "nightly", "--reason", "audit"], false),
    (&["get", "nightly"], false),
    (&["next", "nightly", "-n", "1"], false),
    (&["update", "nightly", "--jitter", "1m"], true),
    (&["unpause", "nightly", "--reason", "it is over"], true),
    (&["get", "nightly"], false),
    (&["update", "nightly", "--limit", "7", "--no-labels"], true),
    (&["update", "nightly", "--no-limit", "--label", "team=web", "-o", "json"], true),
    (&["create", "-f", "over.yaml"], true),
    (&["next", "over"], false),
    (&["next", "over", "-o", "json"], false),
    (&["update", "over", "--label", "team=data"], true),
    (&["rm", "over", "--yes"], false),
    (&["backfill", "nightly", "--from", "2020-11-01", "--to", "2020-11-03", "--dry-run"], false),
    (
        &["backfill", "nightly", "--from", "2020-11-01", "--to", "2020-11-03", "--dry-run", "-o", "json"],
        false,
    ),
    (&["rm", "weekly", "--yes"], false),
    (&["ls"], false),
    // From here on something waits to be started, and whoever serves the store tries.
    (&["trigger", "nightly", "--overlap", "allow-all"], true),
    (&["backfill", "nightly", "--from", "2020-11-01", "--to", "2020-11-03"], true),
    (&["backfill", "bootstrap-lab", "--from", "60d", "-o", "yaml"], true),
    (&["rm", "nightly", "--yes"], false),
    (&["ls", "-o", "name"], false),
];

#[test]
fn every_verb_says_the_same_with_and_without_a_daemon() {
    let [alone, served] = World::both();
    for (args, says_so) in EVERY_VERB {
        let (here, there) = (alone.does(args, 0), served.does(args, 0));
        assert_eq!(timeless(&here.out), timeless(&there.out), "{args:?}");
        assert_eq!(here.err.contains(NOBODY), *says_so, "{args:?} {here:?}");
        assert!(!there.err.contains("nobody owns"), "{args:?} {there:?}");
        assert_eq!(timeless(&here.err.replace(NOBODY, "")), timeless(&there.err), "{args:?}");
        assert!(!there.out.contains('\u{1b}') && !there.err.contains('\u{1b}'), "{args:?} {there:?}");
    }
    assert_eq!(alone.does(&["ls", "-o", "name"], 0).out, "bootstrap-lab\n");
    // What was asked for while nobody served is there for whoever does.
    let waits = alone.json(&["get", "bootstrap-lab"]);
    assert_eq!(waits["backfills"].as_array().map(Vec::len), Some(1), "{waits:#}");
}

#[test]
fn what_is_printed_as_json_is_as_it_was() {
    for world in World::both() {
        world.does(&["create", "-f", "schedule.yaml", "--reason", "wanted"], 0);
        world.does(&["pause", "weekly", "--reason", "audit"], 0);
        let mut view = world.json(&["get", "weekly"]);
        for at in ["/created", "/updated", "/mark", "/paused/at"] {
            let time = view.pointer_mut(at).unwrap_or_else(|| panic!("{at}"));
            assert!(time.as_u64() > Some(1_700_000_000_000), "{at}: milliseconds since 1970, not {time}");
            *time = json!(0);
        }
        let input = view.pointer_mut("/spec/action/input").unwrap().take();
        assert_eq!(input["name"], "lab", "what the workflow takes is kept whole");
        let expected = json!({
            "schedule": "weekly",
            "status": "paused",
            "spec": {
                "timing": [{ "cron": "0 4 * * 1" }, { "cron": "0 5 * * 1" }],
                "zone": "Europe/Berlin",
                "overlap": "buffer_one",
                "catch_up_ms": 21_600_000,
                "jitter_ms": 300_000,
                "start": 3_786_912_000_000_u64,
                "end": 3_818_534_399_999_u64,
                "limit": 3,
                "pause_on_failure": true,
                "action": { "workflow": "glue-resync", "input": null, "labels": { "team": "data" } }
            },
            "created": 0,
            "request": { "by": "tester", "reason": "wanted" },
            "updated": 0,
            "paused": { "by": "tester", "reason": "audit", "at": 0, "cause": "requested" },
            "mark": 0,
            "left": 3,
            "running": [],
            "waiting": [],
            "recent": [],
            "counts": {
                "fired": 0, "succeeded": 0, "failed": 0, "cancelled": 0, "overlapped": 0, "missed": 0, "refused": 0
            }
        });
        assert_eq!(view, expected, "{view:#}");
        // A list has the same of each.
        world.does(&["unpause", "weekly"], 0);
        let view = world.json(&["get", "weekly"]);
        assert_eq!(world.json(&["ls"]), json!([view]));
        // 2090-01-02T04:00:00+01:00, the first Monday.
        let next = [&view["status"], &view["next"], &view["next_local"]];
        assert_eq!(next, [&json!("active"), &json!(3_787_009_200_000_u64), &json!("2090-01-02T04:00:00")]);
        assert_eq!(view["paused"], Value::Null);
        assert_eq!(
            world.json(&["next", "weekly", "-n", "2"]),
            json!(["2090-01-02T03:00:00.000Z", "2090-01-02T04:00:00.000Z"])
        );
        world.nightly();
        assert_eq!(
            world.json(&[
                "backfill",
                "nightly",
                "--from",
                "2020-11-01T12:00",
                "--to",
                "2020-11-02T12:00",
                "--dry-run"
            ]),
            // 2020-11-02T03:00:00Z
            json!({ "instants": [{ "nominal": 1_604_286_000_000_u64 }], "more": false })
        );
        // A date alone is the whole day.
        assert_eq!(
            world.json(&["backfill", "nightly", "--from", "2020-11-01", "--to", "2020-11-02", "--dry-run"]),
            json!({
                "instants": [{ "nominal": 1_604_199_600_000_u64 }, { "nominal": 1_604_286_000_000_u64 }],
                "more": false
            })
        );
    }
}

#[test]
fn what_an_update_does_not_name_stays_and_can_be_taken_away() {
    for world in World::both() {
        world.does(&["create", "-f", "schedule.yaml"], 0);
        let named = |view: &Value| {
            let (spec, labels) = (&view["spec"], &view["spec"]["action"]["labels"]);
            [&spec["start"], &spec["end"], &spec["limit"], &view["left"], labels].map(Value::clone)
        };
        let before = named(&world.json(&["get", "weekly"]));
        let left = world.json(&["update", "weekly", "--jitter", "1m"]);
        assert_eq!(named(&left), before, "it was not named");
        let more = world.json(&["update", "weekly", "--limit", "5", "--no-labels", "--label", "team=web"]);
        let expected = [before[0].clone(), before[1].clone(), json!(5), json!(5), json!({ "team": "web" })];
        assert_eq!(named(&more), expected);
        let none = world.json(&["update", "weekly", "--no-start", "--no-end", "--no-limit", "--no-labels"]);
        assert_eq!(named(&none), [const { Value::Null }; 5], "{none:#}");
        assert_eq!(none["spec"]["jitter_ms"], 60_000);
        // What contradicts itself is no command line.
        world.does(&["update", "weekly", "--limit", "5", "--no-limit"], 64);
    }
}

#[test]
fn of_one_that_has_ended_nothing_is_said_to_fire() {
    let worlds = World::both();
    for world in &worlds {
        let made = world.does(&["create", "-f", "over.yaml"], 0);
        assert!(made.err.contains("is created; it has ended: no time"), "{made:?}");
        let next = world.does(&["next", "over"], 0);
        assert_eq!(next.out, "");
        assert!(next.err.contains("it has ended") && next.err.contains("schedules update over"), "{next:?}");
        assert_eq!(world.json(&["get", "over"])["status"], "ended");
        let renewed = world.does(&["update", "over", "--no-end"], 0);
        assert!(renewed.err.contains("is changed; it fires 20"), "{renewed:?}");
    }
}

/// What is wrong, how it ends, and what is said of it: the code, and what mends it.
type Wrong<'a> = (&'a [&'a str], i32, &'a [&'a str]);

/// As `create` with a site, and what makes it wrong.
fn create<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["create", "other", "--workflow", "bootstrap", "-f", "site.yaml"], more].concat()
}

#[track_caller]
fn refused(worlds: &[World; 2], args: &[&str], exit: i32, says: &[&str]) {
    let [here, there] = worlds.each_ref().map(|world| world.does(args, exit));
    assert_eq!((here.out.as_str(), there.out.as_str()), ("", ""), "{args:?}");
    assert_eq!(timeless(&here.err), timeless(&there.err), "{args:?}");
    for text in says {
        assert!(here.err.contains(text), "{text:?} is not in what {args:?} says:\n{}", here.err);
    }
    let helps = here.err.contains("\nhint: ") || here.err.contains("help: ");
    assert!(helps, "{args:?} says nothing of what to do:\n{}", here.err);
    // The same for programs.
    let ran = worlds[1].does(&[args, &["--error-format", "json"]].concat(), exit);
    let error: Value = serde_json::from_str(&ran.err).unwrap_or_else(|e| panic!("{e}: {}", ran.err));
    let code = error["error"]["code"].as_str().unwrap();
    assert!(here.err.starts_with(&format!("error[{code}]: ")), "{code}: {}", here.err);
}

#[test]
fn a_wrong_wish_is_refused_before_anything_is_written() {
    let worlds = World::both();
    for world in &worlds {
        for (name, text) in [
            ("unknown.yaml", "workflow: bootstrap\nfile: site.yaml\ncorn: \"0 3 * * *\"\n"),
            ("both.yaml", "workflow: bootstrap\nfile: site.yaml\ninput: {}\ncron: \"0 3 * * *\"\n"),
            ("no-input.yaml", "workflow: bootstrap\ninput: {}\ncron: \"0 3 * * *\"\n"),
            ("no-times.yaml", "workflow: bootstrap\nfile: site.yaml\n"),
            ("bad-cron.yaml", "workflow: bootstrap\nfile: site.yaml\ncron: [\"0 3 * * *\", \"later\"]\n"),
            ("no-yaml.yaml", "workflow: [\n"),
        ] {
            world.home.write(name, text);
        }
    }
    let with_cron = |cron| create(&["--cron", cron]);
    let nightly = |more: &[&'static str]| create(&[&["--cron", "0 3 * * *"], more].concat());
    let file = |name| vec!["create", "-f", name];
    let wrong: Vec<(Vec<&str>, &[&str])> = vec![
        (with_cron("0 25 * * *"), &["DF0071", "0 25 * * *", "day of month"]),
        (with_cron("soon"), &["DF0071", "soon", "0 3 * * 1-5"]),
        (with_cron("0 0 30 2 *"), &["DF0071", "never matches"]),
        (with_cron("@every 5m"), &["DF0071", "--every 5m"]),
        (
            with_cron("CRON_TZ=Europe/Berlin 0 3 * * *"),
            &["DF0071", "--cron '0 3 * * *' --zone Europe/Berlin"],
        ),
        (nightly(&["--end", "30d"]), &["DF0071", "--end 30d is 20", "which is over", "--end 2099-12-31"]),
        (nightly(&["--end", "2020-11-01"]), &["DF0071", "2020-11-01 23:59:59Z, which is over"]),
        (create(&["--every", "0s"]), &["DF0071", "15m"]),
        (create(&["--every", "1h/2h"]), &["DF0071", "6h/30m"]),
        (create(&["--every", "soon"]), &["DF0002", "30m"]),
        (create(&[]), &["DF0071", "--cron '0 3 * * *'", "--every 1h"]),
        (nightly(&["--zone", "Europe/Berln"]), &["DF0071", "Europe/Berln", "Europe/Berlin"]),
        (nightly(&["--catch-up", "5s"]), &["DF0071", "--catch-up 1m"]),
        (nightly(&["--limit", "0"]), &["DF0071", "schedules pause"]),
        (
            nightly(&["--start", "2091-02-01", "--end", "2091-01-01"]),
            &["DF0071", "before it starts", "schedules.md"],
        ),
        (nightly(&["--start", "tomorrow"]), &["DF0002", "2026-11-23T14:05"]),
        (nightly(&["--overlap", "bufer-one"]), &["DF0002", "did you mean buffer-one?"]),
        (nightly(&["--set", "expected_account=12"]), &["DF0100", "expected_account"]),
        (
            vec!["create", "x", "--workflow", "bootsrap", "--every", "1h"],
            &["DF0006", "did you mean bootstrap?"],
        ),
        (
            vec!["create", "x", "--workflow", "teardown", "-f", "site.yaml", "--every", "1h"],
            &["dssflow run teardown"],
        ),
        (vec!["create", "x", "--every", "1h"], &["DF0002", "--workflow bootstrap -f site.yaml"]),
        // No sandbox is started for what is wrong.
        (
            vec!["create", "x", "--workflow", "glue-resync", "--sandbox", "--cron", "soon"],
            &["DF0071", "soon"],
        ),
        (vec!["create", "x", "--workflow", "glue-resync", "--sandbox"], &["DF0071", "--every 1h"]),
        (
            vec!["create", "x", "--workflow", "bootstrap", "--sandbox", "-f", "none.yaml", "--every", "1h"],
            &["DF0003", "none.yaml"],
        ),
        (
            vec!["create", "x", "--workflow", "teardown", "--sandbox", "--every", "1h"],
            &["dssflow run teardown"],
        ),
        (
            vec!["update", "x", "--workflow", "glue-resync", "--sandbox", "--zone", "Nowhere"],
            &["DF0071", "Europe/Berlin"],
        ),
        (
            vec!["update", "--workflow", "glue-resync", "--sandbox", "--every", "1h"],
            &["DF0002", "dssflow schedules ls"],
        ),
        (
            vec!["create", "x", "--workflow", "bootstrap", "-f", "none.yaml", "--every", "1h"],
            &["DF0003", "dssflow init"],
        ),
        (file("site.yaml"), &["DF0071", "--workflow"]),
        (file("none.yaml"), &["DF0003", "none.yaml"]),
        (file("unknown.yaml"), &["DF0071", "corn"]),
        (file("both.yaml"), &["DF0071", "`file` and `input`"]),
        (file("no-input.yaml"), &["DF0100"]),
        (file("no-times.yaml"), &["DF0071", "--cron"]),
        (file("bad-cron.yaml"), &["DF0071", "later"]),
        (file("no-yaml.yaml"), &["DF0071", "no-yaml.yaml"]),
    ];
    for (args, says) in &wrong {
        refused(&worlds, args, 64, says);
    }
    assert!(!worlds[0].home.store().exists(), "what is wrong without a store makes none");
    assert_eq!(worlds[1].does(&["ls", "-o", "name"], 0).out, "");
}

#[test]
fn what_is_not_there_or_not_possible_is_told_with_the_command_that_helps() {
    let worlds = World::both();
    for world in &worlds {
        world.nightly();
    }
    let near: &[&str] = &["DF0070", "there is no schedule nigthly", "did you mean nightly?"];
    let gets = "dssflow schedules get nightly";
    let wrong: &[Wrong<'_>] = &[
        (&["get", "nigthly"], 1, near),
        (&["update", "nigthly", "--every", "1h"], 1, near),
        (&["pause", "nigthly"], 1, near),
        (&["unpause", "nigthly"], 1, near),
        (&["trigger", "nigthly"], 1, near),
        (&["backfill", "nigthly", "--from", "1d"], 1, near),
        (&["next", "nigthly"], 1, near),
        (&["rm", "nigthly", "--yes"], 1, near),
        (&["get", "unlike-any"], 1, &["DF0070", "dssflow schedules ls"]),
        (&["update", "--every", "1h"], 64, &["DF0002", "dssflow schedules ls"]),
        (
            &["create", "nightly", "--workflow", "bootstrap", "-f", "site.yaml", "--every", "1h"],
            1,
            &["DF0072", "exists already", "dssflow schedules update nightly"],
        ),
        (&["update", "nightly", "--cron", "0 25 * * *"], 64, &["DF0071", "day of month"]),
        (&["update", "nightly", "--zone", "Nowhere"], 64, &["DF0071", "Europe/Berlin"]),
        (&["unpause", "nightly"], 1, &["DF0072", "it is not paused", gets]),
        (&["backfill", "nightly", "--from", "2020-11-02", "--to", "2020-11-01"], 1, &["DF0072", gets]),
        (
            &["backfill", "nightly", "--from", "2020-11-02", "--to", "2999-11-01"],
            1,
            &["DF0072", "still to come", gets],
        ),
        (&["backfill", "nightly", "--from", "then"], 64, &["DF0002", "2026-11-23"]),
        (&["trigger", "nightly", "--overlap", "skpi"], 64, &["DF0002", "did you mean skip?"]),
        (&["rm", "nightly"], 64, &["DF0008", "--yes"]),
    ];
    for (args, exit, says) in wrong {
        refused(&worlds, args, *exit, says);
    }
    for world in &worlds {
        world.does(&["pause", "nightly"], 0);
    }
    refused(&worlds, &["pause", "nightly"], 1, &["DF0072", "paused already, by tester", gets]);
    for world in &worlds {
        let view = world.json(&["get", "nightly"]);
        assert_eq!(view["spec"]["timing"], json!([{ "cron": "0 3 * * *" }]), "nothing was changed");
        assert_eq!((&view["waiting"], &view["counts"]["fired"]), (&json!([]), &json!(0)));
    }
}
