//! R10 by real SIGKILL: the built command dies while a chosen call of it is under way, before or after the world has
//! carried it out, and is resumed or takes back what it made.
//!
//! Which calls there are is learned from a run that nobody disturbs. Calls to AWS and DSS are known by their operation and
//! how often it came before; commands on the host only by their number, because their words name the run. Several cells
//! are put to one run: whichever comes first is the next to kill.

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use dssflow_sandbox::{Action, CallRecord, Fault, Only, Target, faults};
use serde_json::{Value, json};

use crate::cell::Place;
use crate::oracle;
use crate::report::Report;
use crate::settings::{self, Mode, index};
use crate::support::{Home, Ran, masked, runtime};

/// How long a command may run without an end or a strike.
const PATIENCE: Duration = Duration::from_mins(5);
const FORWARD: usize = 5;
const BACKWARD: usize = 4;

/// A call of the command in which it is to die.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cell {
    place: Place,
    /// The operation; any on the host.
    op: String,
    /// So many of them come before it.
    at: u32,
    after: bool,
    undo: bool,
}

impl Cell {
    fn fault(&self, home: &Home) -> Fault {
        let fault = Fault::new(self.place.target(), self.op.as_str(), Action::Hang).skip(self.at).times(1);
        let fault = if self.after { fault.after() } else { fault };
        match self.place {
            Place::Aws => fault.only(Only::Changes).by(home.world().access_key_id),
            Place::Dss => fault.only(Only::Changes),
            Place::Host => fault.by(faults::BY_DSSFLOW),
        }
    }

    fn point(&self) -> String {
        let point = match (self.undo, self.after) {
            (false, false) => "C1",
            (false, true) => "C2",
            (true, false) => "U1",
            (true, true) => "U2",
        };
        format!("{point}.{}", self.place)
    }

    fn name(&self) -> String {
        format!("{} of {} #{}", self.point(), self.op, self.at)
    }
}

/// What a run that nobody disturbs does.
struct Recorded {
    mode: Mode,
    home: Home,
    /// The world when it is done.
    world: Value,
    made: std::collections::BTreeMap<String, usize>,
    forward: Vec<Cell>,
    backward: Vec<Cell>,
}

/// How a command ended.
enum End {
    Killed,
    Ended(Ran),
    Stuck,
}

/// What a run is put through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Story {
    /// Killed on the way there, each time resumed, and killed on the way back.
    Full,
    /// Killed once on the way there, and taken back.
    Back,
}

fn set_faults(home: &Home, script: &[Fault]) {
    runtime()
        .block_on(dssflow_sandbox::set_faults(&home.world(), script))
        .expect("a script that can take place");
}

fn calls(home: &Home, since: u64) -> Vec<CallRecord> {
    let report = runtime().block_on(dssflow_sandbox::calls_since(&home.world(), since)).expect("it answers");
    let kept = report.recent.first().is_none_or(|first| first.seq == since);
    assert!(kept, "the sandbox has forgotten calls; look more often");
    report.recent
}

fn calls_so_far(home: &Home) -> u64 {
    runtime().block_on(dssflow_sandbox::calls_since(&home.world(), u64::MAX)).expect("it answers").total
}

/// A snapshot that can be compared with that of another home: neither chance nor the store's id is in it, nor what is
/// derived from keys, and the names of markers are without the hash of their input, which has ports and paths in it.
fn world(home: &Home) -> Value {
    let mut text = home.snapshot().to_string();
    for mark in ["dssflow:store=", "dssflow:secret="] {
        text = masked(&text, mark, |c| c.is_ascii_hexdigit() || c == '.');
    }
    let mut world = oracle::without_chance(&serde_json::from_str(&text).expect("still JSON"));
    if let Some(files) = world.pointer_mut("/host/files").and_then(Value::as_object_mut) {
        for (path, file) in std::mem::take(files) {
            let mut name = without_input(&path);
            while files.contains_key(&name) {
                name.push('+');
            }
            files.insert(name, file);
        }
    }
    world
}

/// `/var/lib/dssflow/STEP.HASH` without the hash; every other path as it is.
fn without_input(path: &str) -> String {
    let is_hash = |part: &str| part.len() == 16 && part.chars().all(|c| c.is_ascii_hexdigit());
    match path.strip_prefix("/var/lib/dssflow/") {
        Some(name) if !name.starts_with("dir.") => {
            let parts: Vec<&str> =
                name.split('.').map(|part| if is_hash(part) { "*" } else { part }).collect();
            format!("/var/lib/dssflow/{}", parts.join("."))
        }
        _ => path.to_owned(),
    }
}

/// What differs from the world of an undisturbed run. The comment of the service user names the store.
fn unlike(expected: &Value, found: &Value) -> Vec<String> {
    let found = oracle::unlike(expected, found);
    found.into_iter().filter(|line| !line.contains("> /etc/passwd > sha256")).collect()
}

fn mode_setting(mode: Mode) -> String {
    format!(
        "cluster.mode={}",
        match mode {
            Mode::Plugin => "dss-plugin",
            Mode::Sdk => "sdk",
        }
    )
}

/// Calls of ours that change something, each with how often its operation came before.
fn cells(home: &Home, calls: &[CallRecord], host: u32, undo: bool) -> Vec<Cell> {
    let ours = home.world().access_key_id;
    let mut seen = std::collections::BTreeMap::<&str, u32>::new();
    let mut cells = Vec::new();
    let mut add = |place, op: &str, at| {
        let both = [false, true].map(|after| Cell { place, op: op.to_owned(), at, after, undo });
        cells.extend(both);
    };
    for call in calls.iter().filter(|call| call.mutating && (call.target != "aws" || call.caller == ours)) {
        let at = seen.entry(call.op.as_str()).or_default();
        add(if call.target == "aws" { Place::Aws } else { Place::Dss }, &call.op, *at);
        *at += 1;
    }
    (0..host).for_each(|at| add(Place::Host, "*", at));
    cells
}

/// Runs a command until it ends, or until it waits in one of the cells and is killed. That cell is taken out.
fn drive(home: &Home, args: &[&str], left: &mut Vec<Cell>, report: &mut Report) -> End {
    let script: Vec<Fault> = left.iter().map(|cell| cell.fault(home)).collect();
    set_faults(home, &script);
    let (out, err) = (home.path().join("out"), home.path().join("err"));
    let file = |path| Stdio::from(File::create(path).expect("a file of ours"));
    let mut child = home.command(args).stdout(file(&out)).stderr(file(&err)).spawn().expect("it starts");
    let begun = std::time::Instant::now();
    let (runtime, sandbox) = (runtime(), home.world());
    loop {
        let struck = dssflow_sandbox::wait_for_faults(&sandbox, 1, Duration::from_millis(50));
        if runtime.block_on(struck).expect("it answers") {
            let alive = child.try_wait().expect("a child of ours").is_none();
            // SIGKILL.
            child.kill().expect("a child of ours");
            child.wait().expect("a child of ours");
            let counts = runtime.block_on(dssflow_sandbox::fault_report(&sandbox)).expect("it answers");
            for (cell, count) in left.iter_mut().zip(&counts) {
                cell.at = cell.at.saturating_sub(count.matched);
                if count.fired > 0 && alive {
                    report.case(&cell.point());
                }
            }
            let mut fired = counts.iter().map(|count| count.fired > 0);
            left.retain(|_| !fired.next().unwrap_or_default());
            return End::Killed;
        }
        if let Some(status) = child.try_wait().expect("a child of ours") {
            let text = |path| std::fs::read_to_string(path).unwrap_or_default();
            let code = status.code().unwrap_or(-1);
            return End::Ended(Ran { code, stdout: text(&out), stderr: text(&err) });
        }
        if begun.elapsed() > PATIENCE {
            child.kill().expect("a child of ours");
            child.wait().expect("a child of ours");
            return End::Stuck;
        }
    }
}

/// Drives to the end, past every kill. `again` is typed after one.
fn drive_on(
    home: &Home,
    first: &[&str],
    again: &[&str],
    left: &mut Vec<Cell>,
    report: &mut Report,
) -> Vec<String> {
    let mut args = first;
    loop {
        match drive(home, args, left, report) {
            End::Killed => args = again,
            // It died in the checks that come before there is a run: that is typed anew.
            End::Ended(ran) if first != again && args == again && ran.stderr.contains("error[DF0004]") => {
                args = first;
            }
            End::Ended(ran) if ran.code == 0 => return Vec::new(),
            End::Ended(ran) => {
                return vec![format!("{args:?} exits {}: {}{}", ran.code, ran.stdout, ran.stderr)];
            }
            End::Stuck => return vec![format!("{args:?} neither ends nor comes to the call")],
        }
    }
}

/// Some of the calls, in turns of AWS, DSS and the host, as far as there are such calls.
fn choose(from: &[Cell], wanted: usize, salt: u64) -> Vec<Cell> {
    let mut chosen: Vec<Cell> = Vec::new();
    for turn in 0.. {
        let place = [Place::Aws, Place::Dss, Place::Host][turn % 3];
        let known = |cell: &Cell| chosen.iter().any(|it| it.op == cell.op && it.at == cell.at);
        let fits: Vec<&Cell> = from.iter().filter(|cell| cell.place == place && !known(cell)).collect();
        if chosen.len() == wanted || turn > 10 * wanted {
            break;
        }
        if !fits.is_empty() {
            let turns = u32::try_from(turn).expect("a small number");
            chosen.push(fits[index(salt.rotate_left(11 * turns), fits.len())].clone());
        }
    }
    chosen
}

impl Recorded {
    fn of(mode: Mode) -> Self {
        let home = Home::with_sandbox();
        let counter = Fault::new(Target::Host, "*", Action::Delay { ms: 0 }).by(faults::BY_DSSFLOW);
        let counter = [counter.skip(u32::MAX)];
        let commands = |home: &Home| {
            let report =
                runtime().block_on(dssflow_sandbox::fault_report(&home.world())).expect("it answers");
            report[0].matched
        };
        set_faults(&home, &counter);
        home.run(&["run", "bootstrap", "--sandbox", "--set", &mode_setting(mode)]).expect(0);
        let there = calls(&home, 0);
        let forward = cells(&home, &there, commands(&home), false);
        let made = oracle::made(&home.world().access_key_id, &there);
        let done = world(&home);
        set_faults(&home, &counter);
        let seq = calls_so_far(&home);
        home.run(&["rollback", "@latest"]).expect(0);
        let backward = cells(&home, &calls(&home, seq), commands(&home), true);
        set_faults(&home, &[]);
        Self { mode, home, world: done, made, forward, backward }
    }

    fn story(&self, story: Story, number: u64, report: &mut Report) {
        let id = format!("{}/{story:?}-{number}", self.mode).to_lowercase();
        if settings::only().is_some_and(|only| only != id) {
            return;
        }
        let salt = settings::salt(&id);
        let found = match story {
            Story::Full => self.full(salt, report),
            Story::Back => self.back(salt, report),
        };
        report.steps += 1;
        if !found.is_empty() {
            let again = format!("DSSFLOW_SEED={} DSSFLOW_CELL={id} ./campaign matrixkills", settings::seed());
            report.violations.push(format!("{id}:\n  {}\n  again: {again}", found.join("\n  ")));
        }
    }

    fn run_args(setting: &str) -> [&str; 5] {
        ["run", "bootstrap", "--sandbox", "--set", setting]
    }

    fn full(&self, salt: u64, report: &mut Report) -> Vec<String> {
        let home = Home::with_sandbox();
        let before = world(&home);
        let setting = mode_setting(self.mode);
        let mut there = choose(&self.forward, FORWARD, salt);
        let told: Vec<String> = there.iter().map(Cell::name).collect();
        let first = Self::run_args(&setting);
        let mut found = drive_on(&home, &first, &["resume", "@latest"], &mut there, report);
        let ours = home.world().access_key_id;
        found.extend(oracle::made_twice(&ours, &self.made, &calls(&home, 0)));
        found.extend(unlike(&self.world, &world(&home)));
        let mut back = choose(&self.backward, BACKWARD, salt);
        let undone: Vec<String> = back.iter().map(Cell::name).collect();
        let rollback = ["rollback", "@latest"];
        found.extend(drive_on(&home, &rollback, &rollback, &mut back, report));
        found.extend(left_behind(&before, &world(&home)));
        let verified = home.run(&["store", "verify"]);
        if verified.code != 0 {
            found.push(format!("store verify: {}", verified.stdout));
        }
        report.not_reached += (there.len() + back.len()) as u64;
        report.unmet.extend(there.iter().chain(&back).map(Cell::name));
        if !found.is_empty() {
            found.push(format!("killed at {}", [told, undone].concat().join(", ")));
        }
        found
    }

    /// In the home of the recording, which stands as its rollback left it.
    fn back(&self, salt: u64, report: &mut Report) -> Vec<String> {
        let home = &self.home;
        let before = world(home);
        let setting = mode_setting(self.mode);
        let mut there = choose(&self.forward, 3, salt);
        let mut cell = vec![there.swap_remove(index(salt.rotate_left(3), there.len()))];
        let told = cell[0].name();
        let first = Self::run_args(&setting);
        let End::Killed = drive(home, &first, &mut cell, report) else {
            report.not_reached += 1;
            report.unmet.push(told);
            return Vec::new();
        };
        let rollback = ["rollback", "@latest"];
        let mut found = drive_on(home, &rollback, &rollback, &mut cell, report);
        found.extend(left_behind(&before, &world(home)));
        if !found.is_empty() {
            found.push(format!("killed at {told}"));
        }
        found
    }

    /// What the judge must not miss: a run that was killed and left there, and a thing that was made twice.
    fn teeth(&self) -> Vec<String> {
        let home = &self.home;
        let before = world(home);
        let setting = mode_setting(self.mode);
        let create = |cell: &&Cell| cell.op == "glue:CreateDatabase" && cell.at == 0 && cell.after;
        let mut cell: Vec<Cell> = self.forward.iter().filter(create).cloned().collect();
        let mut unused = Report::new("teeth");
        let mut blind = Vec::new();
        let seq = calls_so_far(home);
        let end = drive(home, &Self::run_args(&setting), &mut cell, &mut unused);
        if !matches!(end, End::Killed) {
            return vec!["the command was not killed".to_owned()];
        }
        if left_behind(&before, &world(home)).is_empty() {
            blind.push("a run that is left where it was killed".to_owned());
        }
        // Somebody makes with the same key what the run has made already.
        let hands = dssflow_sandbox::Hands::of(&home.world());
        let database = json!({ "DatabaseInput": { "Name": "dss_twice" } });
        for _ in 0..=self.made.get("glue:CreateDatabase").copied().unwrap_or(0) {
            let (create, delete) = ("AWSGlue.CreateDatabase", "AWSGlue.DeleteDatabase");
            runtime().block_on(hands.json("glue", create, &database)).expect("made");
            runtime().block_on(hands.json("glue", delete, &json!({ "Name": "dss_twice" }))).expect("deleted");
        }
        let without_deletions: Vec<CallRecord> =
            calls(home, seq).into_iter().filter(|call| call.op != "glue:DeleteDatabase").collect();
        if oracle::made_twice(&home.world().access_key_id, &self.made, &without_deletions).is_empty() {
            blind.push("a database that was made twice".to_owned());
        }
        let rollback = ["rollback", "@latest"];
        blind.extend(drive_on(home, &rollback, &rollback, &mut Vec::new(), &mut unused));
        blind.extend(left_behind(&before, &world(home)));
        blind
    }
}

fn left_behind(before: &Value, after: &Value) -> Vec<String> {
    oracle::left_behind(before, after).into_iter().map(|line| format!("after the rollback: {line}")).collect()
}

/// Kills in ./test.
const KILLS: u64 = 20;

fn in_mode(mode: Mode, wanted: u64) -> (Report, Vec<String>) {
    let mut report = Report::new("matrixkills");
    let recorded = Recorded::of(mode);
    report.enumerated = (recorded.forward.len() + recorded.backward.len()) as u64;
    // The judge is the same in both modes.
    let bites = mode == Mode::Plugin && settings::only().is_none();
    let blind = if bites { recorded.teeth() } else { Vec::new() };
    for number in 0.. {
        recorded.story(Story::Back, number, &mut report);
        recorded.story(Story::Full, number, &mut report);
        if report.cases >= wanted
            || settings::only().is_some() && number > wanted
            || !report.violations.is_empty()
        {
            break;
        }
    }
    (report, blind)
}

#[test]
fn the_command_dies_by_sigkill_in_a_call_and_the_world_is_right() {
    let wanted = settings::number("DSSFLOW_MATRIX_KILLS", KILLS);
    let modes = Mode::ALL.map(|mode| std::thread::spawn(move || in_mode(mode, wanted.div_ceil(2))));
    let mut whole = Report::new("matrixkills");
    let mut unseen = Vec::new();
    for walk in modes {
        match walk.join() {
            Ok((report, blind)) => {
                whole.add(report);
                unseen.extend(blind);
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    println!("{whole}");
    assert!(unseen.is_empty(), "what nobody saw: {unseen:?}");
    assert!(whole.violations.is_empty(), "{whole}");
    assert_eq!(whole.fired, whole.cases, "a kill that did not take place is no case");
    assert!(settings::only().is_some() || whole.cases >= wanted, "too few kills: {whole}");
}
