//! The command killed at random moments, by a real SIGKILL, and resumed until it is done.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use serde_json::Value;

use crate::support::{Home, differences, kept_by_rule, without_installation};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// A world that nobody disturbed, to compare with.
fn undisturbed(set: &str) -> Value {
    let home = Home::with_sandbox();
    home.run(&["run", "bootstrap", "--sandbox", "--set", set]).expect(0);
    without_installation(&home.snapshot())
}

#[test]
fn killed_at_random_moments_and_resumed() {
    let wanted = setting("DSSFLOW_KILLS", 40);
    let seed = setting("DSSFLOW_SEED", 20_261_123);
    let started = Instant::now();
    let mut rng = StdRng::seed_from_u64(seed);
    let modes = ["cluster.mode=dss-plugin", "cluster.mode=sdk"];
    let references = modes.map(undisturbed);
    let (mut kills, mut attempts, mut runs, mut undo_kills) = (0, 0, 0, 0);
    let mut violations = Vec::new();
    while kills < wanted {
        let mode = runs % 2;
        let home = Home::with_sandbox();
        let before = home.snapshot();
        let mut here = 0;
        // Forward: killed up to eight times, then left alone.
        let mut args = vec!["run", "bootstrap", "--sandbox", "--set", modes[mode]];
        while here < 8 && kills < wanted {
            attempts += 1;
            let after = Duration::from_millis(rng.random_range(20..1500));
            if !home.kill_after(&args, after) {
                break;
            }
            kills += 1;
            here += 1;
            // Killed before the run existed: started again. Otherwise resumed.
            let listed = home.run(&["runs", "ls", "-o", "name"]);
            if listed.stdout.contains("bootstrap-sandbox") {
                args = vec!["resume", "@latest"];
            }
        }
        let end = if here == 0 { home.run(&["runs", "get"]) } else { home.run(&args) };
        if end.code != 0 {
            violations.push(format!("run {runs} ({}): exit {}\n{}", modes[mode], end.code, end.stderr));
            break;
        }
        let world = without_installation(&home.snapshot());
        violations.extend(
            differences(&references[mode], &world)
                .into_iter()
                .filter(|d| !of_this_world(d))
                .map(|d| format!("run {runs} ({}): {d}", modes[mode])),
        );
        // And back, killed twice on the way.
        let mut args = vec!["rollback", "@latest"];
        for _ in 0..2 {
            if kills < wanted && home.kill_after(&args, Duration::from_millis(rng.random_range(20..1500))) {
                kills += 1;
                undo_kills += 1;
                args = vec!["rollback", "@latest"];
            }
        }
        let end = home.run(&args);
        if end.code != 0 {
            let events = home.run(&["runs", "events"]).stdout;
            let failed: Vec<_> = events.lines().filter(|l| l.contains("fail")).collect();
            violations.push(format!(
                "rollback of run {runs}: exit {}\n{}{}",
                end.code,
                end.stdout,
                failed.join("\n")
            ));
        }
        let left = differences(&before, &home.snapshot()).into_iter().filter(|d| !kept_by_rule(d));
        violations.extend(left.map(|d| format!("rollback of run {runs} ({}): {d}", modes[mode])));
        let verified = home.run(&["store", "verify"]);
        if verified.code != 0 {
            violations.push(format!("run {runs}: store verify: {}", verified.stdout));
        }
        runs += 1;
        if !violations.is_empty() {
            break;
        }
    }
    println!(
        "kills: cases={runs} faults_fired={kills} in_rollback={undo_kills} attempts={attempts} violations={} seed={seed} seconds={}",
        violations.len(),
        started.elapsed().as_secs()
    );
    assert!(violations.is_empty(), "DSSFLOW_SEED={seed}\n{}", violations.join("\n"));
}

/// Differences between two worlds that say nothing about the run: what names the run, its store, or chance.
fn of_this_world(difference: &str) -> bool {
    // Markers on the host, marks in descriptions and the service user's comment name the run and its store; the
    // installer writes its id.
    ["/var/lib/dssflow/", "dssflow:store=", "> /etc/passwd > sha256", "> /data/dss/install.ini > sha256"]
        .iter()
        .any(|text| difference.contains(text))
}
