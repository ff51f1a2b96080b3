//! Backends that live in memory, for tests of the fake DSS and of its clients.
//!
//! Clusters become ACTIVE at once with the nodes they asked for, unless they are held; pushes are written down; a query
//! that counts a table of a job answers its rows, every other one answers 1. There is no cloud behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::backend::{
    BoxFuture, ClusterBackend, ClusterInfo, ClusterSpec, DataBackend, DatasetSpec, ImageBackend,
    MetastoreTable, NodeInfo, QueryBackend, QueryResult, QuerySpec,
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
    /// Clusters whose creation is not over.
    pub creating: BTreeSet<String>,
    /// Queries in order.
    pub queries: Vec<QuerySpec>,
    /// Rows of every dataset that was written, by `bucket/path`.
    pub data: BTreeMap<String, u64>,
    /// Tables: `database.table` to `bucket/path`.
    pub tables: BTreeMap<String, String>,
}

/// All three backends; clones share what they saw.
#[derive(Debug, Clone, Default)]
pub struct MemoryCloud {
    seen: Arc<Mutex<Seen>>,
    /// Whether creations wait.
    held: Arc<watch::Sender<bool>>,
    /// Whether deleting a dataset leaves its files and its table behind.
    careless: Arc<AtomicBool>,
}

impl MemoryCloud {
    /// What has been asked for so far.
    pub fn seen(&self) -> Seen {
        self.lock().clone()
    }

    /// Creations that begin from now on are not over before [`MemoryCloud::let_go`].
    pub fn hold_creations(&self) {
        self.held.send_replace(true);
    }

    /// Lets creations end.
    pub fn let_go(&self) {
        self.held.send_replace(false);
    }

    /// Deleting a dataset leaves its files and its table behind from now on.
    pub fn be_careless(&self) {
        self.careless.store(true, Ordering::SeqCst);
    }

    /// Removes a table; false when there is none.
    pub fn delete_table(&self, name: &str) -> bool {
        self.lock().tables.remove(name).is_some()
    }

    /// Puts a table there, or points it elsewhere.
    pub fn put_table(&self, name: &str, place: &str) {
        self.lock().tables.insert(name.to_owned(), place.to_owned());
    }

    /// Removes one object, `bucket/path/part-N`: the files of a dataset are as many as its rows.
    pub fn delete_object(&self, key: &str) {
        let mut seen = self.lock();
        if let Some((place, _)) = key.rsplit_once('/')
            && let Some(rows) = seen.data.get_mut(place)
        {
            *rows = rows.saturating_sub(1);
            if *rows == 0 {
                seen.data.remove(place);
            }
        }
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
            queries: shared.clone(),
            data: shared,
            latency: 0.0,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn info(spec: &ClusterSpec, creating: bool) -> ClusterInfo {
    ClusterInfo {
        name: spec.name.clone(),
        arn: format!("arn:aws:eks:eu-west-1:123456789012:cluster/{}", spec.name),
        endpoint: format!("https://{}.eks.invalid", spec.name),
        status: if creating { "CREATING" } else { "ACTIVE" }.to_owned(),
        version: spec.version.clone(),
        tags: spec.tags.clone(),
    }
}

impl ClusterBackend for MemoryCloud {
    fn create(&self, spec: ClusterSpec) -> BoxFuture<'_, Result<ClusterInfo, String>> {
        Box::pin(async move {
            let name = spec.name.clone();
            {
                let mut seen = self.lock();
                if seen.clusters.contains_key(&name) {
                    return Err(format!(
                        "creating CloudFormation stack \"eksctl-{name}-cluster\": AlreadyExistsException"
                    ));
                }
                seen.creations += 1;
                seen.clusters.insert(name.clone(), spec.clone());
                seen.creating.insert(name.clone());
            }
            // The sender lives as long as this cloud.
            let mut held = self.held.subscribe();
            let _held = held.wait_for(|held| !held).await.is_ok();
            self.lock().creating.remove(&name);
            Ok(info(&spec, false))
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
        Box::pin(async move {
            let seen = self.lock();
            Ok(seen.clusters.get(&name).map(|spec| info(spec, seen.creating.contains(&name))))
        })
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

impl DataBackend for MemoryCloud {
    fn write(&self, spec: DatasetSpec, rows: u64) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let mut seen = self.lock();
            seen.data.insert(format!("{}/{}", spec.bucket, spec.path), rows);
            Ok(())
        })
    }

    fn partitions(&self, _table: MetastoreTable) -> BoxFuture<'_, Result<Vec<Vec<String>>, String>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn synchronize(&self, table: MetastoreTable) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let place = format!("{}/{}", table.bucket, table.path);
            self.lock().tables.insert(format!("{}.{}", table.database, table.table), place);
            Ok(())
        })
    }

    fn drop_data(&self, spec: DatasetSpec) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            if self.careless.load(Ordering::SeqCst) {
                return Ok(());
            }
            let mut seen = self.lock();
            seen.data.remove(&format!("{}/{}", spec.bucket, spec.path));
            if let Some((database, table)) = spec.table {
                seen.tables.remove(&format!("{database}.{table}"));
            }
            Ok(())
        })
    }
}

impl QueryBackend for MemoryCloud {
    fn query(&self, spec: QuerySpec) -> BoxFuture<'_, Result<QueryResult, String>> {
        Box::pin(async move {
            let mut seen = self.lock();
            let counted = super::backend::counted_table(&spec.sql)
                .and_then(|(database, table)| seen.tables.get(&format!("{database}.{table}")))
                .and_then(|place| seen.data.get(place).copied());
            seen.queries.push(spec);
            Ok(QueryResult {
                columns: vec![("_col0".to_owned(), "int".to_owned())],
                rows: vec![vec![counted.unwrap_or(1).to_string()]],
            })
        })
    }
}
