//! Backends that live in memory, for tests of the fake DSS and of its clients.
//!
//! Clusters become ACTIVE at once with the nodes they asked for, pushes are written down, and every query answers
//! one row. There is no cloud behind them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::backend::{
    BoxFuture, ClusterBackend, ClusterInfo, ClusterSpec, ImageBackend, NodeInfo, QueryBackend, QueryResult,
    QuerySpec,
};
use super::{FakeDss, FakeDssOptions};
use crate::faults::FaultEngine;

/// What the backends were asked for.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Living clusters.
    pub clusters: BTreeMap<String, ClusterSpec>,
    /// How often a cluster was created.
    pub creations: u32,
    /// Pushed images: `repository:tag` to digest.
    pub images: BTreeMap<String, String>,
    /// Queries in order.
    pub queries: Vec<QuerySpec>,
}

/// All three backends; clones share what they saw.
#[derive(Debug, Clone, Default)]
pub struct MemoryCloud {
    seen: Arc<Mutex<Seen>>,
}

impl MemoryCloud {
    /// What has been asked for so far.
    pub fn seen(&self) -> Seen {
        self.lock().clone()
    }

    /// Puts a cluster there that DSS did not make, for attaching.
    pub fn add_cluster(&self, spec: ClusterSpec) {
        self.lock().clusters.insert(spec.name.clone(), spec);
    }

    /// A fake DSS in memory, without latencies, on top of this cloud.
    pub fn dss(&self, major: u32, faults: Arc<FaultEngine>) -> FakeDss {
        let shared = Arc::new(self.clone());
        FakeDss::new(FakeDssOptions {
            state_file: None,
            major,
            version: format!("{major}.2.0"),
            faults,
            clusters: shared.clone(),
            images: shared.clone(),
            queries: shared,
            latency: 0.0,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn info(spec: &ClusterSpec) -> ClusterInfo {
    ClusterInfo {
        name: spec.name.clone(),
        arn: format!("arn:aws:eks:eu-west-1:123456789012:cluster/{}", spec.name),
        endpoint: format!("https://{}.eks.invalid", spec.name),
        status: "ACTIVE".to_owned(),
        version: spec.version.clone(),
        tags: spec.tags.clone(),
    }
}

impl ClusterBackend for MemoryCloud {
    fn create(&self, spec: ClusterSpec) -> BoxFuture<'_, Result<ClusterInfo, String>> {
        Box::pin(async move {
            let mut seen = self.lock();
            if seen.clusters.contains_key(&spec.name) {
                return Err(format!(
                    "creating CloudFormation stack \"eksctl-{}-cluster\": AlreadyExistsException",
                    spec.name
                ));
            }
            seen.creations += 1;
            let made = info(&spec);
            seen.clusters.insert(spec.name.clone(), spec);
            Ok(made)
        })
    }

    fn delete(&self, name: String, _region: String) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            self.lock().clusters.remove(&name);
            Ok(())
        })
    }

    fn nodes(&self, name: String) -> BoxFuture<'_, Result<Vec<NodeInfo>, String>> {
        Box::pin(async move {
            let seen = self.lock();
            let spec =
                seen.clusters.get(&name).ok_or_else(|| "Unable to connect to the server".to_owned())?;
            let node = |index: u32| NodeInfo {
                name: format!("ip-10-0-0-{index}.compute.internal"),
                ready: true,
                instance_type: spec.node_pool.machine_type.clone(),
                version: format!("v{}.1", spec.version),
            };
            Ok((0..spec.node_pool.num_nodes).map(node).collect())
        })
    }

    fn describe(&self, name: String) -> BoxFuture<'_, Result<Option<ClusterInfo>, String>> {
        Box::pin(async move { Ok(self.lock().clusters.get(&name).map(info)) })
    }
}

impl ImageBackend for MemoryCloud {
    fn push(&self, repository: String, tag: String, digest: String) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            self.lock().images.insert(format!("{repository}:{tag}"), digest);
            Ok(())
        })
    }
}

impl QueryBackend for MemoryCloud {
    fn query(&self, spec: QuerySpec) -> BoxFuture<'_, Result<QueryResult, String>> {
        Box::pin(async move {
            self.lock().queries.push(spec);
            Ok(QueryResult {
                columns: vec![("_col0".to_owned(), "int".to_owned())],
                rows: vec![vec!["1".to_owned()]],
            })
        })
    }
}
