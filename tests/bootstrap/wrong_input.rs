//! What is wrong is told before anything is made.

use crate::support::{Home, differences};

#[test]
fn a_wrong_site_file_is_told_all_at_once() {
    let home = Home::with_sandbox();
    let good = std::fs::read_to_string(home.store().join("sandbox/site.yaml")).expect("the shipped site");
    let subnets = good.lines().find(|l| l.trim_start().starts_with("subnets:")).expect("subnets").to_owned();
    let one = format!("  subnets: [{}]", subnets.split(['[', ',']).nth(1).expect("a list").trim());
    let wrong = good
        .replace("region:", "regoin:")
        .replace(&subnets, &one)
        .replacen("credentials: s3-main", "credentials: nobody", 1)
        .replacen("admin_password:", "admin_password: hunter2 #", 1);
    let file = home.path().join("wrong.yaml");
    std::fs::write(&file, &wrong).expect("a file of ours");
    let before = home.snapshot();
    let ran =
        home.run(&["run", "bootstrap", "--sandbox", "-f", file.to_str().expect("plain path")]).expect(64);
    let ran = ran.says("regoin").says("region").says("subnets").says("admin_password");
    assert!(!ran.stderr.contains("hunter2"), "a secret is on the screen:\n{}", ran.stderr);
    assert!(differences(&before, &home.snapshot()).is_empty());
    let runs = home.run(&["runs", "ls", "-o", "name"]);
    assert_eq!(runs.stdout.trim(), "", "nothing was started");
}

#[test]
fn a_world_that_does_not_fit_is_found_before_anything_is_made() {
    let home = Home::with_sandbox();
    let before = home.snapshot();
    let unknown =
        ["run", "bootstrap", "--sandbox", "--set", "cluster.security_groups=[sg-0123456789abcdef0]"];
    home.run(&unknown).expect(5).says("sg-0123456789abcdef0");
    assert!(differences(&before, &home.snapshot()).is_empty());
}

#[test]
fn without_a_store_or_a_run_the_message_says_what_to_do() {
    let home = Home::new();
    home.run(&["resume", "@latest"]).expect(1).says("dssflow run");
    home.run(&["frobnicate"]).expect(64);
    home.run(&["run", "bootstrp", "--sandbox"]).expect(64).says("bootstrap");
}
