//! dssflow's own principal in a resync: the calls of its activities, on the site's databases and buckets, and what Athena
//! reads and writes on its behalf.

use std::collections::BTreeSet;

use dssflow_activities::aws::permissions::{self as declared, On};
use dssflow_activities::secret::SecretRef;

use super::{Arns, Conditions, Permission, Principal, actions};
use crate::glue_resync::{ResyncSpec, glue_resync};

/// Everything that dssflow's own principal needs for a resync, in a fixed order.
pub fn resync_needs(spec: &ResyncSpec) -> Vec<Permission> {
    let arns = Arns { region: &spec.region, account: &spec.expected_account };
    let own = |actions: Vec<String>, resources: Vec<String>, why: &str| Permission {
        principal: Principal::Dssflow,
        actions,
        resources,
        conditions: Conditions::new(),
        why: why.to_owned(),
    };
    let mut all = Vec::new();
    for step in glue_resync(spec).graph.steps() {
        let Some(calls) = step.kind.activity().and_then(|name| declared::of(name.as_str())) else { continue };
        let prunes = spec.glue_resync.prune;
        let operations = calls.always.iter().chain(calls.sometimes.iter().map(|(operation, _)| operation));
        for operation in operations.filter(|o| prunes || !o.contains("Delete")) {
            for need in declared::needs(operation).unwrap_or_default() {
                let why = format!("step {}: {}", step.name, step.title);
                all.push(own(vec![need.action.to_owned()], resources(spec, arns, need.on), &why));
            }
        }
    }
    if let Some(athena) = &spec.glue_resync.verify_athena {
        // What a query reads and writes, it does as who asks.
        all.push(own(
            actions("glue", &["GetDatabase", "GetPartitions", "GetTable"]),
            resources(spec, arns, On::Databases),
            "what Athena asks of Glue",
        ));
        let data =
            resources(spec, arns, On::Buckets).into_iter().map(|bucket| format!("{bucket}/*")).collect();
        all.push(own(actions("s3", &["GetObject"]), data, "what Athena reads"));
        let results = athena.output_location.as_deref().unwrap_or("s3://*/");
        let (bucket, path) = results.trim_start_matches("s3://").split_once('/').unwrap_or((results, ""));
        let below = if path.is_empty() { "*".to_owned() } else { format!("{}/*", path.trim_matches('/')) };
        all.push(own(
            actions("s3", &["GetBucketLocation", "ListBucket"]),
            vec![arns.s3(bucket)],
            "results of Athena",
        ));
        all.push(own(
            actions("s3", &["AbortMultipartUpload", "GetObject", "PutObject"]),
            vec![arns.s3(&format!("{bucket}/{below}"))],
            "results of Athena",
        ));
    }
    match &spec.dss.api_key {
        SecretRef::SecretsManager { secrets_manager, .. } => {
            let arn = if secrets_manager.starts_with("arn:") {
                secrets_manager.clone()
            } else {
                arns.regional("secretsmanager", &format!("secret:{secrets_manager}-??????"))
            };
            all.push(own(actions("secretsmanager", &["GetSecretValue"]), vec![arn], "read dss.api_key"));
        }
        SecretRef::Ssm { ssm } => {
            let arn = arns.regional("ssm", &format!("parameter/{}", ssm.trim_start_matches('/')));
            all.push(own(actions("ssm", &["GetParameter"]), vec![arn], "read dss.api_key"));
        }
        SecretRef::Env { .. } | SecretRef::File { .. } => {}
    }
    all.sort();
    all.dedup();
    all
}

fn resources(spec: &ResyncSpec, arns: Arns<'_>, on: On) -> Vec<String> {
    match on {
        On::Databases => {
            let named: BTreeSet<&str> = if spec.glue_resync.databases.is_empty() {
                spec.connections.iter().map(|c| c.glue_database.as_str()).collect()
            } else {
                spec.glue_resync.databases.iter().map(String::as_str).collect()
            };
            // Without any, the datasets decide.
            let named = if named.is_empty() { BTreeSet::from(["*"]) } else { named };
            let all: BTreeSet<String> = named.into_iter().flat_map(|d| arns.glue(d)).collect();
            all.into_iter().filter(|arn| !arn.contains(":userDefinedFunction/")).collect()
        }
        On::Buckets => {
            let known: BTreeSet<&str> = spec.connections.iter().filter_map(|c| c.bucket.as_deref()).collect();
            let complete = !known.is_empty() && spec.connections.iter().all(|c| c.bucket.is_some());
            if complete { known.into_iter().map(|b| arns.s3(b)).collect() } else { vec![arns.s3("*")] }
        }
        On::Workgroups => {
            let group = spec.glue_resync.verify_athena.as_ref().map(|a| a.workgroup.as_str());
            vec![arns.regional("athena", &format!("workgroup/{}", group.unwrap_or("primary")))]
        }
        _ => vec!["*".to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::super::{policy, size};
    use super::*;

    #[test]
    fn a_resync_asks_for_what_its_mode_calls() {
        let mut spec =
            crate::glue_resync::parse(include_str!("../../examples/resync.yaml"), "resync.yaml").unwrap();
        let of = |spec: &ResyncSpec| -> BTreeSet<String> {
            resync_needs(spec).into_iter().flat_map(|p| p.actions).collect()
        };
        let by_dss = of(&spec);
        assert!(by_dss.contains("glue:GetTable") && by_dss.contains("s3:ListBucket"));
        assert!(
            by_dss.iter().all(|a| !a.contains("Update") && !a.contains("Create") && !a.contains("Delete"))
        );
        spec.glue_resync.mode = dssflow_activities::glue::Mode::Direct;
        let direct = of(&spec);
        assert!(direct.contains("glue:BatchCreatePartition") && !direct.contains("glue:DeleteTable"));
        spec.glue_resync.prune = true;
        assert!(of(&spec).contains("glue:DeleteTable") && of(&spec).contains("glue:BatchDeletePartition"));
        let made = policy(&resync_needs(&spec));
        assert!(size(&made) < 2_000, "{made:#}");
        let text = made.to_string();
        assert!(text.contains("arn:aws:glue:eu-west-1:123456789012:table/sales/*"));
        assert!(text.contains("arn:aws:s3:::acme-sales"));
        spec.connections.clear();
        assert!(policy(&resync_needs(&spec)).to_string().contains("database/*"), "the datasets decide");
    }
}
