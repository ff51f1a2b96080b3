//! The whole bootstrap with its host behind ssh: the sandbox's stub machine on the far side of a real `sshd`, DSS through
//! a forward; also killed on the way, and taken back.

use std::time::Duration;

use crate::sshd::{Sshd, me, with_argument, within};
use crate::support::{Home, differences, kept_by_rule};

/// The settings that put the sandbox's host behind ssh.
fn over_ssh(sshd: &Sshd) -> Vec<String> {
    let config = sshd.config("bootstrap-config", sshd.port(), "");
    let user = me();
    [
        "host.transport=ssh".to_owned(),
        "host.address=127.0.0.1".to_owned(),
        format!("host.user={user}"),
        format!("host.ssh_port={}", sshd.port()),
        format!("host.ssh_config={}", config.display()),
    ]
    .to_vec()
}

#[test]
fn the_bootstrap_runs_over_ssh_killed_on_the_way_and_goes_back() {
    let Some(sshd) = Sshd::start() else { return };
    let home = Home::with_sandbox();
    let before = home.snapshot();
    let settings = over_ssh(&sshd);
    let part = sshd.dir().join("bootstrap-config").display().to_string();
    let mut args = vec!["run", "bootstrap", "--sandbox"];
    args.extend(settings.iter().flat_map(|setting| ["--set", setting.as_str()]));
    let mut kills = 0;
    for after in [2500, 4000, 3000] {
        if home.kill_after(&args, Duration::from_millis(after)) {
            kills += 1;
            within(Duration::from_secs(2), "its ssh is gone", || with_argument(&part).is_empty());
        }
        if home.run(&["runs", "ls", "-o", "name"]).stdout.contains("bootstrap-sandbox") {
            args = vec!["resume", "@latest"];
        }
    }
    let done = args[0] == "resume" && home.json(&["runs", "get", "-o", "json"])["status"] == "succeeded";
    let end = if done { home.run(&["runs", "get"]) } else { home.run(&args) };
    end.expect(0);
    assert!(sshd.log().contains("Accepted publickey"), "{}", sshd.log());
    let built = home.snapshot();
    assert!(!differences(&before, &built).is_empty());
    println!("bootstrap over ssh: kills={kills}");
    home.run(&["rollback", "@latest"]).expect(0);
    let changed = differences(&before, &home.snapshot());
    let left: Vec<String> = changed.into_iter().filter(|d| !kept_by_rule(d)).collect();
    assert!(left.is_empty(), "{}", left.join("\n"));
    within(Duration::from_secs(3), "no ssh is left", || with_argument(&part).is_empty());
}
