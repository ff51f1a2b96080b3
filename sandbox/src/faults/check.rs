//! What is wrong with a script of faults before it has run: names that nothing is ever called, states that nothing
//! has, actions that cannot take place there. A script with a typo must not look like a test that passed.

use super::{Action, Fault, Only, Phase, Target, catalog, changes};

/// Everything that is wrong with a script, one line each; empty when it can do what it says.
///
/// A call to AWS that is in no list of ours is let through when its service is one of those that are not known whole,
/// and nothing known is near to it. What never matched is told by `sandbox status`.
pub fn problems(faults: &[Fault]) -> Vec<String> {
    faults
        .iter()
        .enumerate()
        .flat_map(|(at, fault)| {
            let found = of_one(fault);
            found.into_iter().map(move |why| format!("fault {} ({}): {why}", at + 1, fault.op))
        })
        .collect()
}

fn of_one(fault: &Fault) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(match fault.target {
        Target::Aws => of_aws(&fault.op),
        Target::Dss => of_dss(&fault.op),
        Target::Host if fault.op.is_empty() => Some("it names no command".to_owned()),
        Target::Host => None,
    });
    if fault.times == Some(0) {
        found.push("with `times` 0 it never strikes".to_owned());
    }
    found.extend(match (&fault.by, fault.target) {
        (Some(_), Target::Dss) => {
            Some("calls to DSS are not told by whom they are: leave `by` out".to_owned())
        }
        (Some(by), Target::Host) if by != super::BY_DSSFLOW && by != super::BY_DSS => {
            Some(format!("host commands are run by `{}` or `{}`", super::BY_DSSFLOW, super::BY_DSS))
        }
        _ => None,
    });
    if fault.only.is_some() && fault.target == Target::Host {
        found.push(
            "of a host command nobody can tell whether it changes something: leave `only` out".to_owned(),
        );
    }
    if fault.only.is_some_and(|only| {
        !fault.op.contains('*')
            && fault.target == Target::Aws
            && (only == Only::Changes) != changes(fault.target, &fault.op)
    }) {
        found.push("`only` and the operation exclude each other".to_owned());
    }
    if fault.phase == Phase::After && fault.action.is_of_the_call() {
        found.push("`phase` does not go with this action: it is about the call itself".to_owned());
    }
    found.extend(of_action(fault));
    found
}

fn of_action(fault: &Fault) -> Option<String> {
    let meets = |known: &[&str]| known.iter().any(|op| overlap(&fault.op, op));
    match (&fault.action, fault.target) {
        (Action::State { .. }, Target::Host) => Some("a host command has no states".to_owned()),
        (Action::State { polls, end }, target) => {
            let known = ["ACTIVE", "FAILED", "GONE", "DELETE_FAILED"];
            if !known.contains(&end.as_str()) {
                return Some(format!("`end` is {end:?}; it may be {}", known.join(", ")));
            }
            if *polls > 100_000 {
                return Some("over 100000 polls nobody waits for".to_owned());
            }
            match target {
                Target::Aws if fault.op == "ec2:TerminateInstances" && end == "DELETE_FAILED" => Some(
                    "EC2 refuses at once or ends an instance: use an `error`, as OperationNotPermitted"
                        .to_owned(),
                ),
                Target::Aws if !meets(&catalog::STATEFUL) => {
                    Some(format!("only these have states: {}", catalog::STATEFUL.join(", ")))
                }
                Target::Dss if !meets(&catalog::DSS_STATEFUL) => {
                    Some("only clusters and long tasks of DSS have states".to_owned())
                }
                _ => None,
            }
        }
        (Action::Stale { reads: 0 }, _) => Some("with no read that is stale nothing happens".to_owned()),
        (Action::Stale { .. }, Target::Dss | Target::Host) => {
            Some("reads are stale in AWS only: DSS and the host are one machine".to_owned())
        }
        (Action::Stale { .. } | Action::Late { .. }, Target::Aws | Target::Dss)
            if !fault.op.contains('*') && !changes(fault.target, &fault.op) =>
        {
            Some("the call changes nothing, so nothing can be stale or late".to_owned())
        }
        (Action::Throttle { .. } | Action::Late { .. } | Action::Hold, Target::Host) => {
            Some("no command of a host answers so; use `error`, `reset`, `hang` or `delay`".to_owned())
        }
        (Action::Error { status, .. }, Target::Aws | Target::Dss) if !(400..600).contains(status) => {
            Some(format!("status {status} is no error; it may be 400 to 599"))
        }
        _ => None,
    }
}

fn of_aws(op: &str) -> Option<String> {
    let Some((service, operation)) = op.split_once(':') else {
        return (!op.contains('*')).then(|| "an operation of AWS is written `service:Operation`".to_owned());
    };
    if !catalog::SERVICES.iter().any(|known| overlap(service, known)) {
        let near = nearest(service, catalog::SERVICES.iter().map(|s| (*s).to_owned()));
        return Some(format!("there is no service {service:?}{near}"));
    }
    if catalog::aws().any(|known| overlap(op, &known)) {
        return None;
    }
    let near = nearest(op, catalog::aws());
    let whole = service.contains('*') || catalog::is_whole(service);
    (whole || !near.is_empty()).then(|| format!("nothing is ever called {operation:?} of {service}{near}"))
}

fn of_dss(op: &str) -> Option<String> {
    const METHODS: [&str; 5] = ["GET", "POST", "PUT", "DELETE", "HEAD"];
    let Some((method, path)) = op.split_once(' ') else {
        return (!op.contains('*')).then(|| "a call to DSS is written `METHOD /path`".to_owned());
    };
    if !METHODS.iter().any(|known| overlap(method, known)) {
        return Some(format!("{method:?} is no method that DSS is asked with"));
    }
    for base in ["/public/api", "/dip/publicapi"] {
        if path.starts_with(base) {
            return Some(format!("leave {base} out: paths are written below it"));
        }
    }
    if catalog::DSS.iter().any(|known| overlap(op, known)) {
        return None;
    }
    Some("no route of DSS begins so".to_owned())
}

/// `; did you mean X?` when one of them is two letters or less away.
fn nearest(text: &str, known: impl Iterator<Item = String>) -> String {
    let text = text.replace('*', "").to_lowercase();
    known
        .map(|name| (distance(&text, &name.replace('*', "").to_lowercase()), name))
        .filter(|(far, _)| *far <= 2)
        .min()
        .map(|(_, name)| format!("; did you mean {name}?"))
        .unwrap_or_default()
}

/// Letters to put in, take out or change to make one text of the other.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, a) in left.chars().enumerate() {
        let mut before = row[0];
        row[0] = at + 1;
        for (ix, b) in right.iter().enumerate() {
            let change = before + usize::from(a != *b);
            before = row[ix + 1];
            row[ix + 1] = change.min(row[ix] + 1).min(row[ix + 1] + 1);
        }
    }
    row[right.len()]
}

/// Whether there is a text that fits both globs.
fn overlap(left: &str, right: &str) -> bool {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    // fits[j]: whether what is left of both, from i and j on, can be the same.
    let mut fits = vec![false; right.len() + 1];
    for i in (0..=left.len()).rev() {
        let later = fits.clone();
        for j in (0..=right.len()).rev() {
            let (a, b) = (left.get(i), right.get(j));
            fits[j] = match (a, b) {
                (None, None) => true,
                (Some('*'), _) if later[j] => true,
                (_, Some('*')) if fits.get(j + 1) == Some(&true) => true,
                (Some('*'), Some(_)) => fits[j + 1],
                (Some(_), Some('*')) => later[j],
                (Some(a), Some(b)) => a == b && later[j + 1],
                (Some(_), None) | (None, Some(_)) => false,
            };
        }
    }
    fits[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_globs_overlap_when_one_text_fits_both() {
        for (left, right, wanted) in [
            ("a", "a", true),
            ("a", "b", false),
            ("*", "", true),
            ("a*c", "*b*", true),
            ("a*c", "b*", false),
            ("eks:Create*", "eks:CreateCluster", true),
            ("eks:Create*", "eks:DeleteCluster", false),
            ("GET *", "* /auth/info*", true),
            ("PUT /admin/general-settings", "* /admin/*", true),
            ("*:Delete*", "s3:DeleteObject", true),
        ] {
            assert_eq!(overlap(left, right), wanted, "{left} and {right}");
            assert_eq!(overlap(right, left), wanted, "{right} and {left}");
        }
    }

    fn state(end: &str) -> Action {
        Action::State { polls: 1, end: end.to_owned() }
    }

    #[test]
    fn what_can_take_place_is_taken() {
        let good = [
            Fault::new(Target::Aws, "*", Action::Reset),
            Fault::new(Target::Aws, "eks:Create*", state("FAILED")),
            Fault::new(Target::Aws, "ec2:RunInstances", state("ACTIVE")),
            Fault::new(Target::Aws, "cloudformation:DeleteStack", state("DELETE_FAILED")),
            Fault::new(Target::Aws, "s3:GetBucketTagging", Action::Hang),
            Fault::new(Target::Dss, "POST /projects", Action::Hold).after(),
            Fault::new(Target::Aws, "ec2:DescribeVolumes", Action::Hang),
            Fault::new(Target::Aws, "*:Delete*", Action::Hang).only(Only::Changes),
            Fault::new(Target::Aws, "glue:CreateDatabase", Action::Stale { reads: 2 }),
            Fault::new(Target::Dss, "POST /admin/connections*", Action::Reset).after().times(1),
            Fault::new(Target::Dss, "POST /admin/clusters/*/actions/start", state("FAILED")),
            Fault::new(Target::Dss, "PUT /admin/general-settings", Action::Late { ms: 10 }),
            Fault::new(Target::Host, "dnf*install*docker-ce*", Action::Reset),
        ];
        assert_eq!(problems(&good), Vec::<String>::new());
    }

    #[test]
    fn what_can_never_take_place_is_told() {
        let error = Action::Error { status: 200, code: "X".to_owned(), message: String::new() };
        for (fault, says) in [
            (
                Fault::new(Target::Aws, "eks:CreateNodeGroup", Action::Reset),
                "did you mean eks:CreateNodegroup?",
            ),
            (Fault::new(Target::Aws, "ekss:CreateCluster", Action::Reset), "did you mean eks?"),
            (Fault::new(Target::Aws, "glue:CreateDatabse", Action::Reset), "glue:CreateDatabase"),
            (Fault::new(Target::Aws, "CreateCluster", Action::Reset), "service:Operation"),
            (Fault::new(Target::Aws, "eks:Explode*", Action::Reset), "nothing is ever called"),
            (Fault::new(Target::Aws, "eks:DescribeCluster", state("ACTIVE")), "only these have states"),
            (Fault::new(Target::Aws, "eks:CreateCluster", state("READY")), "it may be ACTIVE"),
            (Fault::new(Target::Aws, "eks:ListClusters", Action::Stale { reads: 1 }), "changes nothing"),
            (Fault::new(Target::Aws, "eks:CreateCluster", Action::Late { ms: 1 }).after(), "`phase`"),
            (Fault::new(Target::Aws, "eks:CreateCluster", error), "no error"),
            (Fault::new(Target::Aws, "eks:CreateCluster", Action::Reset).only(Only::Reads), "exclude"),
            (Fault::new(Target::Aws, "eks:CreateCluster", Action::Reset).times(0), "never strikes"),
            (Fault::new(Target::Dss, "/admin/connections", Action::Reset), "METHOD /path"),
            (Fault::new(Target::Dss, "PATCH /admin/connections", Action::Reset), "no method"),
            (Fault::new(Target::Dss, "GET /public/api/auth/info", Action::Reset), "leave /public/api out"),
            (Fault::new(Target::Dss, "GET /adnim/clusters", Action::Reset), "no route"),
            (Fault::new(Target::Dss, "POST /projects", Action::Stale { reads: 1 }), "in AWS only"),
            (Fault::new(Target::Host, "dnf*", Action::Throttle { retry_after_s: None }), "no command"),
            (Fault::new(Target::Host, "dnf*", Action::Hold), "no command"),
            (Fault::new(Target::Host, "dnf*", Action::Reset).only(Only::Changes), "leave `only` out"),
        ] {
            let found = problems(std::slice::from_ref(&fault));
            assert!(found.len() == 1 && found[0].contains(says), "{fault:?}: {found:?}");
        }
    }
}
