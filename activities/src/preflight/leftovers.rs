//! What is left of earlier tries under the cluster's name, and whose it is: P22.
//!
//! The service says "already exists" on create and "not found" on delete for such things; here they are named with
//! their state, and with what to do about each.

use aws_sdk_eks::types::{Cluster, ClusterStatus};
use dssflow_engine::activity::{ActivityResult, Marks, Owner};

use super::Notes;
use super::look::Look;
use super::spec::{Endpoint, Spec};
use crate::aws::cluster;
use crate::aws::eksctl::{EksctlState, SeenCluster, eksctl_state};
use crate::aws::error::classify;
use crate::clients::AwsClients;

/// What there is of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ClusterFacts {
    /// The cluster and the stacks eksctl would make.
    pub(super) state: EksctlState,
    /// Its Kubernetes version.
    pub(super) version: Option<String>,
    /// Who reaches its API.
    pub(super) endpoint: Option<Endpoint>,
    /// The security group EKS made for it.
    pub(super) security_group: Option<String>,
    /// Who has an access entry; `None` when that cannot be listed.
    pub(super) access_entries: Option<Vec<String>>,
}

/// Reads cluster, stacks and access entries.
pub(super) async fn read_cluster(clients: &AwsClients, name: &str) -> ActivityResult<ClusterFacts> {
    let (state, found) = tokio::join!(eksctl_state(clients, name), cluster::find(clients, name));
    let found = found?;
    // Without the right to list stacks the cluster itself still tells most.
    let state = match state {
        Ok(state) => state,
        Err(error) if error.message.starts_with("cloudformation:") => {
            EksctlState { cluster: found.as_ref().map(seen), stacks: Vec::new() }
        }
        Err(error) => return Err(error),
    };
    let Some(found) = found else { return Ok(ClusterFacts { state, ..ClusterFacts::default() }) };
    let network = found.resources_vpc_config();
    let endpoint = network.map(|n| Endpoint {
        public: n.endpoint_public_access(),
        private: n.endpoint_private_access(),
        public_cidrs: n.public_access_cidrs().to_vec(),
    });
    let security_group = network.and_then(|n| n.cluster_security_group_id()).map(str::to_owned);
    let entries = access_entries(clients, name).await.ok();
    Ok(ClusterFacts {
        state,
        version: found.version().map(str::to_owned),
        endpoint,
        security_group,
        access_entries: entries,
    })
}

fn seen(cluster: &Cluster) -> SeenCluster {
    SeenCluster {
        status: cluster.status().map(ClusterStatus::as_str).unwrap_or_default().to_owned(),
        arn: cluster.arn().unwrap_or_default().to_owned(),
        tags: cluster.tags().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
    }
}

async fn access_entries(clients: &AwsClients, name: &str) -> ActivityResult<Vec<String>> {
    let (mut entries, mut next) = (Vec::new(), None);
    loop {
        let call = clients.eks().list_access_entries().cluster_name(name).set_next_token(next).send().await;
        let page = call.map_err(|e| classify("eks:ListAccessEntries", e))?;
        entries.extend(page.access_entries().iter().cloned());
        next = page.next_token().filter(|t| !t.is_empty()).map(str::to_owned);
        if next.is_none() {
            return Ok(entries);
        }
    }
}

/// P22: no cluster or stack of that name is in the way.
pub(super) async fn leftovers(look: &Look, notes: &mut Notes) {
    match look.cluster().await {
        Ok(cluster) => judge(&look.spec, &cluster.state, notes),
        Err(error) => notes.unanswered(&look.spec.cluster.name, error),
    }
}

/// Whose all of it is, as a run of this site would see it.
pub(super) fn owner(spec: &Spec, state: &EksctlState) -> Option<Owner> {
    let marks = |store: &str| Marks {
        store: store.to_owned(),
        site: spec.site.clone(),
        run: String::new(),
        step: String::new(),
        generation: 0,
    };
    if let Some(store) = &spec.store {
        return state.owner(&marks(store));
    }
    // Without a store nobody is this site but by its name.
    let mut tags = state.cluster.iter().map(|c| &c.tags).chain(state.stacks.iter().map(|s| &s.tags));
    let store = tags.find_map(|t| t.get(Marks::STORE)).cloned().unwrap_or_default();
    state.owner(&marks(&store))
}

fn judge(spec: &Spec, state: &EksctlState, notes: &mut Notes) {
    let name = &spec.cluster.name;
    let Some(owner) = owner(spec, state) else {
        return notes.seen(format!("neither a cluster {name} nor a stack eksctl-{name}-* is there"));
    };
    let there = state.summary();
    let failed = state.failed();
    let evidence = if failed.is_empty() { there.clone() } else { failed.join("; ") };
    let delete = if spec.cluster.by_plugin || !state.stacks.is_empty() {
        format!("`eksctl delete cluster --name {name} --region {} --wait`", spec.region)
    } else {
        format!("`aws eks delete-cluster --name {name}`, after its node groups")
    };
    match owner {
        Owner::Foreign if failed.is_empty() && spec.cluster.adopt && !state.in_progress() => {
            notes.seen(format!("{there}: not ours, taken as it is because the site's `adopt` allows it"));
        }
        Owner::Foreign => notes.error(
            name,
            format!("{evidence}: dssflow did not make it for this site, and does not touch it"),
            format!("choose another cluster.name; if nobody needs what is there: {delete}; a healthy cluster can be allowed in `adopt`"),
        ),
        Owner::ThisRun | Owner::ThisSite(_) if failed.is_empty() && !state.in_progress() => {
            notes.seen(format!("{there}: of an earlier run of this site, taken over"));
        }
        Owner::ThisRun | Owner::ThisSite(_) if failed.is_empty() => notes.warning(
            name,
            format!("{there}: of an earlier run of this site, and AWS works on it"),
            "the run waits for its end; `dssflow runs ls` shows whether that run still goes on",
        ),
        Owner::ThisRun => notes.warning(name, evidence, format!("clean it first: {delete}")),
        Owner::ThisSite(run) => notes.warning(
            name,
            format!("{evidence}: left by run {run} of this site"),
            format!("clean it first: `dssflow rollback {run}`, or {delete}; a healthy cluster would be taken over"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{CHECKS, Severity};
    use super::*;
    use crate::aws::eksctl::SeenStack;

    fn spec() -> Spec {
        let mut spec = Spec {
            site: "lab".into(),
            store: Some("s1".into()),
            region: "eu-west-1".into(),
            ..Spec::default()
        };
        spec.cluster.name = "eks-main".into();
        spec.cluster.by_plugin = true;
        spec
    }

    fn tags(store: &str, site: &str) -> BTreeMap<String, String> {
        [(Marks::STORE, store), (Marks::SITE, site), (Marks::RUN, "bootstrap-lab")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into()
    }

    fn stack(status: &str, tags: BTreeMap<String, String>) -> EksctlState {
        let stack = SeenStack {
            name: "eksctl-eks-main-cluster".into(),
            id: "arn".into(),
            status: status.into(),
            reason: Some("Resource creation cancelled".into()),
            tags,
        };
        EksctlState { cluster: None, stacks: vec![stack] }
    }

    fn found(spec: &Spec, state: &EksctlState) -> Option<super::super::Finding> {
        let mut notes = Notes::of(&CHECKS[0]);
        judge(spec, state, &mut notes);
        notes.findings.pop()
    }

    #[test]
    fn p22_a_failed_stack_of_ours_is_offered_and_a_foreign_one_refused() {
        let ours = found(&spec(), &stack("ROLLBACK_COMPLETE", tags("s1", "lab"))).unwrap();
        assert_eq!(ours.severity, Severity::Warning);
        assert!(ours.evidence.contains("eksctl-eks-main-cluster is ROLLBACK_COMPLETE"), "{ours:?}");
        assert!(ours.fix.contains("dssflow rollback bootstrap-lab"), "{ours:?}");
        let foreign = found(&spec(), &stack("ROLLBACK_COMPLETE", BTreeMap::new())).unwrap();
        assert_eq!(foreign.severity, Severity::Error);
        assert!(foreign.fix.contains("eksctl delete cluster --name eks-main"), "{foreign:?}");
        assert_eq!(found(&spec(), &EksctlState::default()), None);
    }

    #[test]
    fn p22_a_healthy_cluster_is_ours_adopted_or_in_the_way() {
        let cluster = |tags| EksctlState {
            cluster: Some(SeenCluster { status: "ACTIVE".into(), arn: "arn".into(), tags }),
            stacks: Vec::new(),
        };
        assert_eq!(found(&spec(), &cluster(tags("s1", "lab"))), None);
        assert_eq!(found(&spec(), &cluster(tags("s2", "lab"))).map(|f| f.severity), Some(Severity::Error));
        // Without a store the site's name is all there is.
        let storeless = Spec { store: None, ..spec() };
        assert_eq!(found(&storeless, &cluster(tags("s2", "lab"))), None);
        assert_eq!(
            found(&storeless, &cluster(tags("s2", "other"))).map(|f| f.severity),
            Some(Severity::Error)
        );
        let mut adopting = spec();
        adopting.cluster.adopt = true;
        assert_eq!(found(&adopting, &cluster(BTreeMap::new())), None);
        let mut failed = cluster(BTreeMap::new());
        failed.cluster.as_mut().unwrap().status = "FAILED".into();
        let refused = found(&adopting, &failed).unwrap();
        assert_eq!(refused.severity, Severity::Error, "a failed one cannot be adopted");
        assert!(refused.evidence.contains("the cluster is FAILED"), "{refused:?}");
    }
}
