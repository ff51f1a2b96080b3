//! What the site names and must be there: its secrets on this machine, the instance, the buckets.

use std::collections::BTreeSet;

use dssflow_engine::activity::ErrorClass;

use super::Notes;
use super::look::Look;
use crate::aws::bucket::check_bucket;
use crate::aws::instance::InstanceFacts;
use crate::secret::{self, SecretClients, SecretRef};

/// S01: references to this machine's environment and files can be read. No value is kept or shown.
pub(super) async fn secrets(look: &Look, notes: &mut Notes) {
    if look.spec.secrets.is_empty() {
        return notes.seen("the site names no secret");
    }
    let (mut here, mut elsewhere) = (0, 0);
    for (path, reference) in &look.spec.secrets {
        let fix = match reference {
            SecretRef::Env { env } => format!("set the variable {env} for this command"),
            SecretRef::File { .. } => "name a file of mode 0600 with the secret in it".to_owned(),
            // Those lie where the run's own credentials lead; P08 asks whether they may be read.
            SecretRef::SecretsManager { .. } | SecretRef::Ssm { .. } => {
                elsewhere += 1;
                continue;
            }
        };
        match secret::resolve(reference, SecretClients::default()).await {
            Ok(_) => here += 1,
            Err(error) => notes.error(path, error.to_string(), fix),
        }
    }
    if here + elsewhere > 0 {
        notes.seen(format!("{here} secrets of this machine can be read, {elsewhere} are in AWS"));
    }
}

/// I01: the instance of DSS is there and carries DSS.
pub(super) async fn instance(look: &Look, notes: &mut Notes) {
    let Some(id) = &look.spec.instance else { return notes.seen("the run launches the instance") };
    match look.instance().await {
        Ok(facts) => judge_instance(facts, look.spec.min_memory_mib, notes),
        // Not there, or in no VPC: nothing of the run can work.
        Err(error) if error.class == ErrorClass::Terminal && error.code.starts_with("Instance") => {
            let fix =
                error.help.clone().unwrap_or_else(|| "correct host.instance in the site file".to_owned());
            notes.error(id, error.to_string(), fix);
        }
        Err(error) if error.code == "DefaultSecurityGroupMissing" => {
            notes.error(id, error.to_string(), error.help.clone().unwrap_or_default());
        }
        Err(error) => notes.unanswered(id, error),
    }
}

fn judge_instance(facts: &InstanceFacts, min_memory_mib: u64, notes: &mut Notes) {
    let misfits = facts.misfits(min_memory_mib);
    if misfits.is_empty() {
        notes.seen(format!("{} is a running {} in {}", facts.instance_id, facts.instance_type, facts.vpc_id));
    }
    for misfit in misfits {
        notes.error(&facts.instance_id, misfit, "take an instance that fits, or correct host.instance");
    }
}

/// B01: the buckets of the connections exist.
pub(super) async fn buckets(look: &Look, notes: &mut Notes) {
    let names: BTreeSet<&str> = look.spec.connections.iter().map(|c| c.bucket.as_str()).collect();
    let looks = names.into_iter().map(|name| async move { (name, check_bucket(&look.clients, name).await) });
    for (name, answer) in futures::future::join_all(looks).await {
        match answer {
            Ok(found) if found.accessible => notes.seen(format!("bucket {name} is there")),
            // DSS reads with the connection's own credentials.
            Ok(_) => notes.seen(format!("bucket {name} is there; dssflow itself may not look into it")),
            Err(error) if error.code == "BucketNotFound" => {
                let fix = error.help.clone().unwrap_or_else(|| "correct connections[].bucket".to_owned());
                notes.error(name, error.to_string(), fix);
            }
            Err(error) => notes.unanswered(name, &error),
        }
    }
}
