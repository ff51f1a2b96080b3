//! Cells by a real SIGKILL: the built command on the sandbox, killed while a call of it hangs before or after it was
//! carried out, again and again on one way there and back.

use std::process::Child;
use std::time::Duration;

use dssflow_sandbox::{Target, World};
use serde_json::Value;

use crate::learn::hang;
use crate::oracle;
use crate::report::Report;
use crate::settings::{self, Mode};
use crate::support::Home;

/// Longer than the command needs to come to a call, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn set(mode: Mode) -> &'static str {
    match mode {
        Mode::Plugin => "cluster.mode=dss-plugin",
        Mode::Sdk => "cluster.mode=sdk",
    }
}

/// Differences between two worlds that only say whose they are: two stores, hence two names in marks.
fn of_this_store(difference: &str) -> bool {
    let marked = difference.contains("/var/lib/dssflow/") && difference.contains("> sha256:");
    marked || ["dssflow:store=", "> /etc/passwd > sha256:"].iter().any(|text| difference.contains(text))
}

/// Which call is let hang: the kinds take turns, and some calls of the kind pass first.
fn cut(number: u64, undo: bool) -> (Target, u32, bool) {
    let chance = settings::seed().wrapping_add(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    let target = match number % 3 {
        0 => Target::Aws,
        1 => Target::Dss,
        _ => Target::Host,
    };
    // There are fewer calls on the way back.
    let skip = u32::try_from(chance % if undo { 2 } else { 4 }).expect("small");
    (target, skip, (number / 3).is_multiple_of(2))
}

/// Lets the command run into a call that hangs and kills it there; false when it came to its end instead.
fn kill_at(home: &Home, args: &[&str], (target, skip, after): (Target, u32, bool)) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let found = dssflow_sandbox::find(&home.store().join("sandbox")).await.expect("its papers are there");
        let world = found.expect("it lives");
        let fault = hang(&world, target, skip, after);
        dssflow_sandbox::set_faults(&world, &[fault]).await.expect("it can take place");
        let mut child = home.spawn(args);
        let struck = wait(&world, &mut child).await;
        // SIGKILL. A child that has ended is no error.
        let killed = child.kill().is_ok();
        let status = child.wait().expect("a child of ours");
        dssflow_sandbox::set_faults(&world, &[]).await.expect("no faults");
        struck && killed && status.code().is_none()
    })
}

/// Waits until the fault has struck, or the command has ended.
async fn wait(world: &World, child: &mut Child) -> bool {
    let begun = std::time::Instant::now();
    while begun.elapsed() < PATIENCE {
        let step = Duration::from_millis(250);
        if dssflow_sandbox::wait_for_faults(world, 1, step).await.expect("the sandbox answers") {
            return true;
        }
        if child.try_wait().expect("a child of ours").is_some() {
            return false;
        }
    }
    // Nothing may be left behind.
    drop(child.kill());
    panic!("the command neither comes to the call nor to its end");
}

/// The world that nobody disturbed.
fn undisturbed(mode: Mode) -> Value {
    let home = Home::with_sandbox();
    home.run(&["run", "bootstrap", "--sandbox", "--set", set(mode)]).expect(0);
    oracle::without_chance(&home.snapshot())
}

/// One way there and back with up to so many kills on each.
fn there_and_back(mode: Mode, forward: u64, back: u64, salt: u64, report: &mut Report) {
    let reference = undisturbed(mode);
    let home = Home::with_sandbox();
    let before = home.snapshot();
    let mut args = vec!["run", "bootstrap", "--sandbox", "--set", set(mode)];
    let (mut kills, mut tries) = (0, 0);
    while kills < forward && tries < 3 * forward {
        tries += 1;
        let cell = cut(salt + tries, false);
        if kill_at(&home, &args, cell) {
            kills += 1;
            report.case(&format!("kill.C{}", if cell.2 { 2 } else { 1 }));
            args = vec!["resume", "@latest"];
        } else {
            report.not_reached += 1;
        }
    }
    let mut found = Vec::new();
    let end = home.run(&args);
    // A run that had come to its end already has nothing to go on with.
    if end.code != 0 && !end.stderr.contains("has ended") {
        found.push(format!("{args:?}: exit {}\n{}", end.code, end.stderr));
    }
    let world = oracle::without_chance(&home.snapshot());
    found.extend(oracle::unlike(&reference, &world).into_iter().filter(|line| !of_this_store(line)));
    let rollback = ["rollback", "@latest"];
    let (mut kills, mut tries) = (0, 0);
    while kills < back && tries < 3 * back {
        tries += 1;
        let cell = cut(salt + 1_000 + tries, true);
        if kill_at(&home, &rollback, cell) {
            kills += 1;
            report.case(&format!("kill.U{}", if cell.2 { 2 } else { 1 }));
        } else {
            report.not_reached += 1;
        }
    }
    let end = home.run(&rollback);
    if end.code != 0 {
        found.push(format!("{rollback:?}: exit {}\n{}\n{}", end.code, end.stdout, end.stderr));
    }
    let left = oracle::left_behind(&before, &home.snapshot());
    found.extend(left.into_iter().map(|line| format!("after the rollback: {line}")));
    if !found.is_empty() {
        let again = format!("DSSFLOW_SEED={} ./campaign matrix-kills", settings::seed());
        report.violations.push(format!("{mode}:\n  {}\n  again: {again}", found.join("\n  ")));
    }
}

#[test]
fn killed_while_a_call_hangs_and_resumed() {
    if settings::only().is_some() {
        return;
    }
    let wanted = settings::number::<u64>("DSSFLOW_SIGKILLS", 20);
    let mut report = Report::new("matrix_kills");
    let mut round = 0_u64;
    while report.cases < wanted && report.violations.is_empty() && round < 20 {
        let mode = Mode::ALL[usize::from(round % 2 == 1)];
        let left = wanted - report.cases;
        let (forward, back) = (left.min(20).div_ceil(2) + 2, left.min(20) / 2);
        there_and_back(mode, forward, back, round * 10_000, &mut report);
        round += 1;
    }
    println!("{report}");
    assert!(report.violations.is_empty(), "{report}");
    assert!(report.cases >= wanted, "too few kills: {report}");
}
