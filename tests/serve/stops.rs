//! What becomes of runs when the daemon ends: told to, killed, told twice.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::daemon::{Daemon, PATIENCE};
use crate::support::Home;
use crate::through::{serve, status, until};

/// Steps whose calls hang, so that a run is under way for as long as the test wants.
fn hanging(home: &Home) {
    home.faults(&json!([{ "target": "aws", "op": "glue:CreateDatabase", "action": "hang" }]));
}

/// A daemon with a bootstrap under way that does not end by itself.
fn serving_a_run_that_hangs(home: &Home) -> Daemon {
    let mut daemon = serve(home);
    hanging(home);
    home.run(&["run", "bootstrap", "--sandbox", "--detach"]).expect(3);
    daemon.until("it is under way", |daemon| {
        daemon.get("/v1/runs/bootstrap-sandbox").is_some_and(|view| view["seq"].as_u64() > Some(20))
    });
    daemon
}

#[test]
fn a_daemon_that_is_told_to_stop_saves_its_runs_and_goes_on_with_them() {
    let home = Home::with_sandbox();
    let mut daemon = serve(&home);
    hanging(&home);
    home.run(&["run", "bootstrap", "--sandbox", "--detach"]).expect(3).says("runs watch bootstrap-sandbox");
    daemon.until("a step hangs", |daemon| {
        let steps = daemon.get("/v1/runs/bootstrap-sandbox/steps").expect("its steps");
        steps.as_array().expect("a list").iter().filter(|s| s["status"] == "succeeded").count() > 5
    });
    let (code, said) = daemon.stop();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("1 runs are saved and go on when it starts again"), "{said}");
    assert_eq!(status(&home, "bootstrap-sandbox"), "paused");
    home.run(&["why"]).expect(0).says("paused by dssflow serve");

    // It goes on by itself; nobody resumes it.
    home.faults(&json!([]));
    let daemon = serve(&home);
    until(&home, "bootstrap-sandbox", "succeeded");
    home.run(&["drift"]).expect(0);
    let resumed = home.run(&["runs", "events"]).expect(0).stdout;
    assert!(resumed.contains("dssflow serve"), "{resumed}");
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_run_that_somebody_paused_stays_paused() {
    let home = Home::with_sandbox();
    let daemon = serving_a_run_that_hangs(&home);
    home.run(&["pause", "bootstrap-sandbox", "--reason", "lunch"]).expect(0);
    until(&home, "bootstrap-sandbox", "paused");
    assert_eq!(daemon.stop().0, Some(0));
    home.faults(&json!([]));
    let mut daemon = serve(&home);
    daemon.until("it has taken up what there is", |daemon| {
        daemon.get("/v1/health").is_some_and(|health| health["status"] == "ok")
    });
    assert_eq!(status(&home, "bootstrap-sandbox"), "paused");
    home.run(&["unpause", "bootstrap-sandbox"]).expect(0).says("bootstrap-sandbox: succeeded");
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_daemon_that_is_killed_goes_on_where_it_was() {
    let home = Home::with_sandbox();
    let mut daemon = serve(&home);
    home.run(&["run", "bootstrap", "--sandbox", "--detach"]).expect(3);
    for kill in 1..=4_u64 {
        daemon.until("it gets on", |daemon| {
            daemon
                .get("/v1/runs/bootstrap-sandbox")
                .is_some_and(|view| view["seq"].as_u64() > Some(kill * 40) || view["status"] == "succeeded")
        });
        daemon.kill();
        daemon = serve(&home);
    }
    until(&home, "bootstrap-sandbox", "succeeded");
    home.run(&["drift"]).expect(0);
    let events = home.run(&["runs", "events", "-o", "json"]).expect(0).stdout;
    assert!(events.contains("run_recovered"), "it was killed under way");
    drop(daemon);
}

#[test]
fn the_service_manager_is_told_how_it_stands() {
    let home = Home::new();
    let path = home.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut command = home.command(&["serve"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000").env_remove("WATCHDOG_PID");
    let daemon = Daemon::start(command, home.store());
    let receive = || {
        let mut buffer = [0; 4096];
        let n = manager.recv(&mut buffer).expect("it is told in time");
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    let first = receive();
    assert!(
        first.starts_with("READY=1\n") && first.contains(&format!("MAINPID={}", daemon.pid())),
        "{first}"
    );
    let mut told = Vec::new();
    while told.iter().filter(|text| *text == "WATCHDOG=1").count() < 3 {
        told.push(receive());
    }
    assert!(told.iter().any(|text| text.starts_with("STATUS=0 runs driven")), "{told:?}");
    daemon.send(Signal::TERM);
    let stopping = std::iter::from_fn(|| Some(receive())).find(|text| text.starts_with("STOPPING=1"));
    assert!(stopping.expect("it says so").contains("STATUS=saving"));
    drop(daemon);
}

#[test]
fn a_second_signal_stops_at_once() {
    let home = Home::with_sandbox();
    let mut daemon = serving_a_run_that_hangs(&home);
    daemon.send(Signal::INT);
    daemon.until("it stops", |daemon| daemon.said().contains("once more stops at once"));
    std::thread::sleep(Duration::from_millis(20));
    let (code, said) = daemon.stop();
    // With nothing left that hangs it may have been done already.
    assert!(matches!(code, Some(143 | 0)), "{code:?} {said}");
    home.faults(&json!([]));
    let _daemon = serve(&home);
    until(&home, "bootstrap-sandbox", "succeeded");
}
