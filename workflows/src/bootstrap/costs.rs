//! What a run starts that costs money, step by step. What it costs is not told: prices differ by region and contract.

use std::collections::BTreeMap;

use crate::site::{ClusterMode, Site};

/// What steps of the bootstrap start that costs money, by step name. Steps that are not named cost nothing of their own.
pub fn costs(site: &Site) -> BTreeMap<String, String> {
    let pool = &site.cluster.node_pool;
    let control_plane = format!("1 EKS control plane, Kubernetes {}", site.cluster.k8s_version);
    let grows = if pool.maximum() > pool.num_nodes {
        format!(", up to {} when the pool grows", pool.maximum())
    } else {
        String::new()
    };
    let nodes =
        format!("{} x {} with {} GB disk each{grows}", pool.num_nodes, pool.machine_type, pool.disk_gb);
    let mut costs = BTreeMap::new();
    let mut add = |step: String, what: String| costs.insert(step, what);
    if let Some(launch) = &site.host.launch {
        add(
            "host-launch".to_owned(),
            format!("1 x {} with {} GB of disk", launch.instance_type, launch.disk_gb),
        );
    }
    match site.cluster.mode {
        ClusterMode::DssPlugin => {
            add("cluster-start".to_owned(), format!("{control_plane}; {nodes}"));
        }
        ClusterMode::Sdk => {
            add("eks-cluster".to_owned(), control_plane);
            add("node-group".to_owned(), nodes);
        }
    }
    add("push-base-images".to_owned(), format!("ECR storage for the base images in {}", site.registry()));
    for athena in site.connections.iter().filter_map(|c| c.athena.as_ref()) {
        add(format!("athena-query-{}", super::plan::slug(&athena.name)), "1 small Athena query".to_owned());
    }
    costs
}
