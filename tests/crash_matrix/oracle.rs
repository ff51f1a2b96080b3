//! Judges the world: what differs that should not, and what was made twice. It sees snapshots and recorded calls, never
//! what an engine thinks.

use std::collections::BTreeMap;

use dssflow_sandbox::CallRecord;
use serde_json::Value;

use crate::support::{differences, kept_by_rule, masked, without_installation};

/// A snapshot without what differs between two installations of DSS, and without how often something was made anew,
/// which is no difference in what is there.
pub(crate) fn without_chance(world: &Value) -> Value {
    let text = masked(&world.to_string(), "dssflow:generation=", |c| c.is_ascii_digit());
    without_installation(&serde_json::from_str(&text).expect("still JSON"))
}

/// What differs from the world that an undisturbed run leaves.
pub(crate) fn unlike(expected: &Value, found: &Value) -> Vec<String> {
    differences(expected, found).into_iter().filter(|line| !by_chance(line)).collect()
}

/// What differs from the world before, and is not left by rule.
pub(crate) fn left_behind(before: &Value, found: &Value) -> Vec<String> {
    let kept = |line: &String| by_chance(line) || kept_by_rule(line) || started_once(line);
    differences(before, found).into_iter().filter(|line| !kept(line)).collect()
}

/// What one step alone leaves: an instance of DSS that was started has data and is seen from then on; pushed images go
/// with their repositories, which are another step's.
fn started_once(difference: &str) -> bool {
    let pushed =
        difference.starts_with("world > aws > ecr > dku-") && difference.contains(" > images: [] -> ");
    // The admin's first password is one that everybody knows; it is not put back.
    difference.starts_with("world > dss: null -> ")
        || difference == "world > dss > adminHasDefaultPassword: true -> false"
        || pushed
}

/// What is not the same in every run, and need not be: what the installer of DSS draws, and what markers and notes of
/// ours say of generations and of who made what.
fn by_chance(difference: &str) -> bool {
    if difference.contains("> /var/lib/dssflow/") && difference.contains("> sha256:") {
        return true;
    }
    ["> /data/dss/install.ini > sha256:", "> /data/dss/bin/env-default.sh > sha256:"]
        .iter()
        .any(|text| difference.contains(text))
}

/// How often each operation that makes something was carried out for `ours`, an access key id; calls to DSS are always
/// ours. A reply that was kept for a token made nothing.
pub(crate) fn made(ours: &str, calls: &[CallRecord]) -> BTreeMap<String, usize> {
    let mut made = BTreeMap::new();
    for call in calls
        .iter()
        .filter(|call| done(call) && makes(&call.op) && (call.target != "aws" || call.caller == ours))
    {
        *made.entry(call.op.clone()).or_default() += 1;
    }
    made
}

/// What was made more often than an undisturbed run makes it, beyond what was removed again meanwhile.
pub(crate) fn made_twice(ours: &str, usual: &BTreeMap<String, usize>, calls: &[CallRecord]) -> Vec<String> {
    let removed = calls.iter().filter(|call| done(call) && removes(&call.op)).count();
    made(ours, calls)
        .into_iter()
        .filter(|(op, times)| *times > usual.get(op).copied().unwrap_or(0) + removed)
        .map(|(op, times)| {
            let usual = usual.get(&op).copied().unwrap_or(0);
            format!("{op} made something {times} times, an undisturbed run {usual} times; {removed} removed")
        })
        .collect()
}

fn done(call: &CallRecord) -> bool {
    call.mutating && !call.replayed && (200..300).contains(&call.status)
}

fn makes(op: &str) -> bool {
    let verb = op.split_once(':').map_or("", |(_, operation)| operation);
    ["Create", "Run", "Start", "Import", "Allocate", "Publish"].iter().any(|makes| verb.starts_with(makes))
        || op.starts_with("POST ") && op.ends_with("/actions/start")
}

fn removes(op: &str) -> bool {
    let verb = op.split_once(':').map_or("", |(_, operation)| operation);
    ["Delete", "Terminate"].iter().any(|removes| verb.starts_with(removes))
        || op.starts_with("DELETE ")
        || op.ends_with("/actions/stop")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(op: &str, status: u16, replayed: bool) -> CallRecord {
        let value = json!({ "seq": 0, "target": "aws", "op": op, "mutating": true, "status": status,
                            "caller": "AKIAOURS", "replayed": replayed, "fault": null });
        serde_json::from_value(value).expect("a record")
    }

    #[test]
    fn what_is_made_twice_is_told_and_what_is_replayed_is_not() {
        let run = || call("ec2:RunInstances", 200, false);
        let made_twice =
            |usual: &BTreeMap<String, usize>, calls: &[CallRecord]| made_twice("AKIAOURS", usual, calls);
        let usual = made("AKIAOURS", &[run()]);
        assert!(made("AKIAOTHER", &[run()]).is_empty());
        assert!(made_twice(&usual, &[run(), call("ec2:RunInstances", 200, true)]).is_empty());
        assert!(made_twice(&usual, &[run(), call("ec2:RunInstances", 503, false)]).is_empty());
        assert_eq!(made_twice(&usual, &[run(), run()]).len(), 1);
        assert!(made_twice(&usual, &[run(), call("ec2:TerminateInstances", 200, false), run()]).is_empty());
    }

    #[test]
    fn what_is_drawn_by_chance_is_left_out_and_nothing_else() {
        let world = |id: &str, digest: &str| {
            without_chance(&json!({ "a": format!("dku-exec-base-{id}-x"), "b": format!("sha256:{digest}") }))
        };
        assert_eq!(world("0a0a0a0a", "12ff"), world("9f9f9f9f", "34"));
        assert_ne!(world("old", "1"), world("bad", "1"), "no id of an installation");
        let (one, other) = (json!({ "files": { "/etc/x": 1 } }), json!({ "files": { "/etc/x": 2 } }));
        assert_eq!(unlike(&one, &other).len(), 1);
        assert_eq!(left_behind(&one, &other).len(), 1);
    }
}
