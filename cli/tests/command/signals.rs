//! What a person at a terminal and a service manager do to a command that drives a run: Ctrl-C once and twice, SIGTERM, a
//! closed window, Ctrl-Z, another size. With real signals, from a real terminal where one is needed.
//! Whatever it was, the run is there afterwards and `resume` brings it to its end.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::sandbox::{PATIENCE, World};
use crate::support::Ran;
use crate::tty::{CTRL_C, CTRL_Z, Tty, ends, screen};

/// The step at which the run hangs for as long as the test wants.
const HELD: &str = "glue-database-dss_main";
const RUN: [&str; 3] = ["run", "bootstrap", "--sandbox"];
const RESUME: [&str; 2] = ["resume", "@latest"];

/// A world in which the run hangs in the middle.
fn held() -> World {
    let world = World::new();
    world.faults(&json!([{ "target": "aws", "op": "glue:CreateDatabase", "action": "hang" }]));
    world
}

/// Whoever is left by a signal is saved: paused by the person, or as after a crash, and `why` says how to go on.
#[track_caller]
fn is_resumable(world: &World, status: &str) {
    assert_eq!(world.view()["status"], status);
    let why = world.does(&["why"], 0);
    assert!(why.out.contains("dssflow resume bootstrap-sandbox"), "{}", why.out);
}

/// Mended, the run goes to its end, and nothing was done twice by two owners.
#[track_caller]
fn goes_to_its_end(world: &World) {
    world.faults(&json!([]));
    let ran = world.does(&RESUME, 0);
    assert!(ran.out.starts_with("run bootstrap-sandbox: succeeded after"), "{}", ran.out);
    world.does(&["store", "verify"], 0);
}

/// The command on a terminal, once the held step is on the screen.
fn at_terminal(world: &World, tty: &Tty, args: &[&str]) -> Child {
    let from = tty.len();
    let child = tty.start(&world.command(args));
    tty.until(HELD, from);
    child
}

#[test]
fn ctrl_c_saves_the_run_and_a_second_one_stops_at_once() {
    let world = held();
    let tty = Tty::new(100, 40);
    let mut child = at_terminal(&world, &tty, &RUN);
    tty.types(CTRL_C);
    tty.ends(&mut child, 130);
    let text = tty.text();
    for part in [
        "pausing: no new step starts, what runs is saved; once more stops at once",
        "run bootstrap-sandbox: \u{1b}[33mpaused\u{1b}[0m after",
        "paused by",
        "go on:     dssflow resume bootstrap-sandbox",
        "take back: dssflow rollback bootstrap-sandbox",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    is_resumable(&world, "paused");

    let from = tty.len();
    let mut child = at_terminal(&world, &tty, &RESUME);
    let begin = Instant::now();
    tty.types(CTRL_C);
    tty.until("once more stops at once", from);
    tty.types(CTRL_C);
    tty.ends(&mut child, 130);
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert!(tty.text()[from..].contains("dssflow resume bootstrap-sandbox"), "{}", tty.text());

    // The window gets another size while the tree is redrawn, and the log says much.
    world.faults(&json!([]));
    let tty = Tty::new(120, 60);
    let mut child = tty.start(world.command(&RESUME).env("DSSFLOW_LOG", "info"));
    tty.until("Install DSS", 0);
    let wide = tty.len();
    tty.resize(64, 60);
    tty.ends(&mut child, 0);
    assert!(tty.text().contains("INFO"), "the log was there as well");
    let text = tty.text();
    let end = text.rfind("run bootstrap-sandbox:").unwrap();
    assert!(text[wide..].contains("bootstrap-sandbox running: "), "it was redrawn in the new size");
    assert!(text[end..].contains("succeeded"), "{}", &text[end..]);
    assert_no_frame_is_left(&text);
}

/// Of what is redrawn only the last is left, whatever was written in between.
#[track_caller]
fn assert_no_frame_is_left(text: &str) {
    // A line of the log may be as long as it likes.
    let lines = screen(text, usize::MAX, usize::MAX);
    let frames: Vec<_> =
        lines.iter().filter(|line| line.starts_with("bootstrap-sandbox running: ")).collect();
    assert!(frames.is_empty(), "torn: {frames:#?}\n{}", lines.join("\n"));
}

/// Programs that a command started on the host, of the world with this home, and are still there.
fn on_the_host(home: &str, program: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let dir = entry.ok()?.path();
        dir.file_name()?.to_str()?.parse::<u32>().ok()?;
        // Whoever ends meanwhile is not there.
        let environment = std::fs::read(dir.join("environ")).ok()?;
        let command = std::fs::read(dir.join("cmdline")).ok()?;
        let (environment, command) =
            (String::from_utf8_lossy(&environment), String::from_utf8_lossy(&command));
        (environment.contains(home) && command.contains(program)).then(|| command.replace('\0', " "))
    });
    processes.collect()
}

#[test]
fn ctrl_c_while_the_host_works_leaves_no_child_and_costs_no_try() {
    let world = World::new();
    world.faults(&json!([{ "target": "host", "op": "dnf*java-17*", "times": 1, "action": "hang" }]));
    let home = world.0.dir.path().to_str().unwrap();
    let tty = Tty::new(120, 60);
    let mut child = tty.start(&world.command(&RUN));
    let begin = Instant::now();
    while on_the_host(home, "java-17").is_empty() {
        assert!(begin.elapsed() < PATIENCE, "it never came to install Java:\n{}", tty.text());
        std::thread::sleep(Duration::from_millis(20));
    }
    // The terminal tells everybody in its foreground, children as well.
    tty.types(CTRL_C);
    tty.ends(&mut child, 130);
    is_resumable(&world, "paused");
    let begin = Instant::now();
    while !on_the_host(home, "java-17").is_empty() {
        let left = on_the_host(home, "java-17");
        assert!(begin.elapsed() < Duration::from_secs(10), "left behind: {left:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let view = world.view();
    let java = view["steps"].as_array().unwrap().iter().find(|step| step["step"] == "java").unwrap();
    assert_eq!(java["failures"], 0, "who was interrupted did not fail: {java}");
    goes_to_its_end(&world);
}

#[test]
fn sigterm_and_a_closed_window_save_the_run() {
    let world = held();
    let start = |args: &[&str]| {
        let mut child = world.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        world.wait_for(&mut child, HELD, "running");
        child
    };
    let child = start(&RUN);
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.exit, 143, "{ran:?}");
    assert!(ran.err.contains("pausing: no new step starts"), "{}", ran.err);
    assert!(ran.out.contains("go on:     dssflow resume bootstrap-sandbox"), "{}", ran.out);
    assert!(ran.out.contains("SIGTERM"), "{}", ran.out);
    is_resumable(&world, "paused");

    // A closed window: the system sends SIGHUP, and nothing can be written any more.
    let mut tty = Tty::new(100, 40);
    let mut child = at_terminal(&world, &tty, &RESUME);
    tty.close();
    ends(&mut child, 143, String::new);
    is_resumable(&world, "paused");

    // Nobody may be there to be told, but the one who reads a file is.
    let child = start(&RESUME);
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.exit, 143, "{ran:?}");
    is_resumable(&world, "paused");
    goes_to_its_end(&world);
}

#[test]
fn a_command_that_was_stopped_goes_on() {
    let world = held();
    let tty = Tty::new(100, 40);
    // Job control is the shell's: it takes the terminal back when the command stops.
    let command = world.command(&RUN);
    let mut shell = Command::new("sh");
    shell.args(["-c", "set -m; \"$@\"; echo \"stopped: $?\"; read line; fg >&2; echo \"ended: $?\"", "sh"]);
    shell.arg(command.get_program()).args(command.get_args()).env_clear();
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.current_dir(world.0.dir.path());
    let mut child = tty.start(&shell);
    tty.until(HELD, 0);
    tty.types(CTRL_Z);
    tty.until("stopped: 148", 0);

    // It owns the store all the same, and nobody waits for it.
    let begin = Instant::now();
    let ran = world.does(&["runs", "ls"], 8);
    assert!(ran.err.contains("DF0010") && ran.err.contains("is stopped"), "{}", ran.err);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    // Longer than a frame may be late before the command takes the terminal for somebody else's: 2 s, in ui.rs.
    std::thread::sleep(Duration::from_millis(2500));
    let stopped = tty.len();
    // As an order: the sandbox itself is not stopped.
    let file = world.0.write("none.json", "[]");
    let mended = world.command(&["sandbox", "faults", "set", file.to_str().unwrap()]).output().unwrap();
    assert!(mended.status.success(), "{mended:?}");
    tty.types(b"\n");
    tty.until("ended: ", stopped);
    tty.ends(&mut child, 0);
    let text = tty.text();
    assert!(text[stopped..].contains("ended: 0"), "{text}");
    // What the shell wrote in between stands, and no old frame is cut in two.
    let lines = screen(&text, 400, usize::MAX);
    let at = |part: &str| {
        lines.iter().position(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {lines:#?}"))
    };
    assert!(at("stopped: 148") < at("succeeded"), "{lines:#?}");
    let events = world.does(&["runs", "events", "-o", "jsonl"], 0).out;
    for never in ["run_recovered", "attempt_lost"] {
        assert!(!events.contains(never), "it was its own all the time: {events}");
    }
    assert_eq!(world.view()["status"], "succeeded");
    assert!(begin.elapsed() < PATIENCE);
}
