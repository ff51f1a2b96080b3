//! The printed policies against what was really called: dssflow's own are equal to the record of the sandbox, both
//! ways; those of the service user and of the S3 connections cover what was called in their names.

use std::collections::BTreeSet;

use dssflow_activities::aws::permissions as declared;
use dssflow_workflows::Site;
use dssflow_workflows::permissions::{Principal, calls, needed_by, needs_of};

use crate::support::Home;

/// The site that a run was made with.
fn site(home: &Home, run: &str) -> Site {
    let history = home.run(&["runs", "events", run, "-o", "jsonl"]).expect(0).stdout;
    let events =
        history.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).expect("a line of JSON"));
    let input = events.into_iter().find_map(|e| e.get("input").cloned()).expect("a run has an input");
    serde_json::from_value(input).expect("it is a site")
}

/// Operations called with the access key whose id lies in the secret file `name` of the world.
fn called(home: &Home, name: &str) -> BTreeSet<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let world = dssflow_sandbox::find(&home.store().join("sandbox")).await.expect("asks").expect("alive");
        let (_, file) = world.secrets.iter().find(|(known, _)| known == name).expect("a secret of the world");
        let key = std::fs::read_to_string(file).expect("a file of the world");
        let report = dssflow_sandbox::calls(&world).await.expect("answers");
        let of_caller = report.by_caller.get(key.trim()).cloned().unwrap_or_default();
        of_caller.into_keys().collect()
    })
}

/// Compares after a run and its rollback, with nothing gone wrong.
#[track_caller]
pub(crate) fn are_what_was_called(home: &Home, mode: &str) {
    let site = site(home, "bootstrap-sandbox");
    let recorded = called(home, "operator-access-key-id");
    let (always, sometimes) = calls(&site);
    let undeclared: Vec<_> = recorded
        .iter()
        .filter(|op| !always.contains(op.as_str()) && !sometimes.contains_key(op.as_str()))
        .collect();
    assert!(undeclared.is_empty(), "{mode}: called and not in the policy: {undeclared:?}");
    let never: Vec<_> = always.iter().filter(|op| !recorded.contains(**op)).collect();
    assert!(never.is_empty(), "{mode}: in the policy as always called, and never called: {never:?}");

    // The same in IAM's terms, both ways: what is in the policy without having been asked for is named with its reason.
    let asked: BTreeSet<&str> = recorded.iter().flat_map(|op| needs_of(op).unwrap_or_default()).collect();
    let own = needed_by(&site, &Principal::Dssflow);
    let granted: BTreeSet<&str> = own.iter().flat_map(|p| p.actions.iter().map(String::as_str)).collect();
    // A launch hands over a role only with an instance profile; without one nothing is passed.
    let passes = site.host.launch.as_ref().is_none_or(|launch| launch.instance_profile.is_some());
    let missing: Vec<_> =
        asked.difference(&granted).filter(|action| passes || **action != "iam:PassRole").collect();
    assert!(missing.is_empty(), "{mode}: asked for and not granted: {missing:?}");
    let mut not_asked_for = Vec::new();
    for action in granted.difference(&asked) {
        let reason = sometimes
            .iter()
            .find(|(op, _)| declared::needs(op).unwrap_or_default().iter().any(|n| n.action == *action));
        let (op, when) = reason.unwrap_or_else(|| panic!("{mode}: granted and never asked for: {action}"));
        not_asked_for.push(format!("{action}: {op} is called {when}"));
    }

    // Listed for whoever reads the policy: `docs/credentials.md` has the same list.
    let page = include_str!("../../docs/credentials.md");
    let unexplained: Vec<_> = not_asked_for
        .iter()
        .filter(|line| !page.contains(line.split(':').take(2).collect::<Vec<_>>().join(":").as_str()))
        .collect();
    assert!(unexplained.is_empty(), "{mode}: not in docs/credentials.md: {unexplained:#?}");

    for (secret, principal) in [
        ("service-access-key-id", Principal::ServiceUser),
        ("s3-main-access-key-id", Principal::Connection("s3-main".to_owned())),
        ("s3-finance-access-key-id", Principal::Connection("s3-finance".to_owned())),
    ] {
        let granted = needed_by(&site, &principal);
        let recorded = called(home, secret);
        assert!(!recorded.is_empty(), "{mode}: nothing was called as {principal}");
        for op in recorded.iter().filter(|op| *op != "sts:GetCallerIdentity") {
            let (service, _) = op.split_once(':').expect("service:Operation");
            let action = match op.as_str() {
                "s3:HeadBucket" | "s3:ListObjects" => "s3:ListBucket",
                other => other,
            };
            let all = format!("{service}:*");
            let covered = granted.iter().flat_map(|p| &p.actions).any(|a| *a == all || a == action);
            assert!(covered, "{mode}: {principal} called {op}, which its policy does not allow");
        }
    }
}
