//! A store on top of another one: what it does otherwise it says, and everything else goes on to the one below.
//!
//! A store that wraps another must pass on every method, those with a default too; with a [`Layer`] it cannot forget
//! one. Used for stores that count, wait, or fail on purpose.
//!
//! ```
//! use dssflow_engine::store::layer::Layer;
//! use dssflow_engine::store::{Store, StoreError, Transition};
//! use dssflow_engine::time::BoxFuture;
//!
//! /// Refuses every commit.
//! struct ReadOnly<S>(S);
//!
//! impl<S: Store> Layer for ReadOnly<S> {
//!     fn base(&self) -> &dyn Store {
//!         &self.0
//!     }
//!
//!     fn commit(&self, _: Transition) -> BoxFuture<'_, Result<u64, StoreError>> {
//!         Box::pin(async { Err(StoreError::Unavailable("it is read only".to_owned())) })
//!     }
//! }
//! # fn is_store(_: impl Store) {}
//! # is_store(ReadOnly(dssflow_engine::store::memory::MemoryStore::new(
//! #     dssflow_engine::id::StoreId::generate([0; 16]))));
//! ```

use std::time::Duration;

use super::{
    Claim, GraphHash, Head, ListPage, ListQuery, NamesGraphs, Record, SchedulePut, Snapshot, Store,
    StoreCaps, StoreError, StoredSchedule, Swept, Transition, VerifyReport, WholeRun,
};
use crate::id::{RunId, ScheduleId, StoreId, WorkerId};
use crate::time::{BoxFuture, Timestamp};

/// Makes a store of a type that says what it does otherwise than the store below it. Each method is that of [`Store`].
pub trait Layer: Send + Sync + 'static {
    /// The store below.
    fn base(&self) -> &dyn Store;

    /// [`Store::id`].
    fn id(&self) -> StoreId {
        self.base().id()
    }

    /// [`Store::epoch`].
    fn epoch(&self) -> u64 {
        self.base().epoch()
    }

    /// [`Store::caps`].
    fn caps(&self) -> StoreCaps {
        self.base().caps()
    }

    /// [`Store::commit`].
    fn commit(&self, transition: Transition) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.base().commit(transition)
    }

    /// [`Store::load`].
    fn load<'a>(&'a self, run: &'a RunId, after: u64) -> BoxFuture<'a, Result<Vec<Record>, StoreError>> {
        self.base().load(run, after)
    }

    /// [`Store::head`].
    fn head<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, Result<Option<Head>, StoreError>> {
        self.base().head(run)
    }

    /// [`Store::graph`].
    fn graph<'a>(&'a self, hash: &'a GraphHash) -> BoxFuture<'a, Result<Vec<u8>, StoreError>> {
        self.base().graph(hash)
    }

    /// [`Store::list`].
    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<ListPage, StoreError>> {
        self.base().list(query)
    }

    /// [`Store::due`].
    fn due(
        &self,
        until: Timestamp,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Timestamp, RunId)>, StoreError>> {
        self.base().due(until, limit)
    }

    /// [`Store::claim`].
    fn claim<'a>(
        &'a self,
        run: &'a RunId,
        worker: &'a WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Claim, StoreError>> {
        self.base().claim(run, worker, now, ttl)
    }

    /// [`Store::renew`].
    fn renew<'a>(
        &'a self,
        worker: &'a WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Timestamp, StoreError>> {
        self.base().renew(worker, now, ttl)
    }

    /// [`Store::release`].
    fn release<'a>(&'a self, run: &'a RunId, worker: &'a WorkerId) -> BoxFuture<'a, Result<(), StoreError>> {
        self.base().release(run, worker)
    }

    /// [`Store::page`].
    fn page<'a>(
        &'a self,
        run: &'a RunId,
        after: u64,
        bytes: usize,
    ) -> BoxFuture<'a, Result<Vec<Record>, StoreError>> {
        self.base().page(run, after, bytes)
    }

    /// [`Store::snapshot`].
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, StoreError>> {
        self.base().snapshot()
    }

    /// [`Store::put_graph`].
    fn put_graph<'a>(&'a self, hash: &'a GraphHash, bytes: Vec<u8>) -> BoxFuture<'a, Result<(), StoreError>> {
        self.base().put_graph(hash, bytes)
    }

    /// [`Store::import`].
    fn import<'a>(&'a self, run: WholeRun<'a>) -> BoxFuture<'a, Result<(), StoreError>> {
        self.base().import(run)
    }

    /// [`Store::remove`].
    fn remove<'a>(&'a self, run: &'a RunId, seq: u64, epoch: u64) -> BoxFuture<'a, Result<(), StoreError>> {
        self.base().remove(run, seq, epoch)
    }

    /// [`Store::sweep`].
    fn sweep(&self, names: NamesGraphs) -> BoxFuture<'_, Result<Swept, StoreError>> {
        self.base().sweep(names)
    }

    /// [`Store::put_schedule`].
    fn put_schedule(&self, put: SchedulePut, epoch: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.base().put_schedule(put, epoch)
    }

    /// [`Store::schedule`].
    fn schedule<'a>(
        &'a self,
        id: &'a ScheduleId,
    ) -> BoxFuture<'a, Result<Option<StoredSchedule>, StoreError>> {
        self.base().schedule(id)
    }

    /// [`Store::schedules`].
    fn schedules<'a>(
        &'a self,
        after: Option<&'a ScheduleId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<StoredSchedule>, StoreError>> {
        self.base().schedules(after, limit)
    }

    /// [`Store::due_schedules`].
    fn due_schedules(
        &self,
        until: Timestamp,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Timestamp, ScheduleId)>, StoreError>> {
        self.base().due_schedules(until, limit)
    }

    /// [`Store::remove_schedule`].
    fn remove_schedule<'a>(
        &'a self,
        id: &'a ScheduleId,
        version: u64,
        epoch: u64,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.base().remove_schedule(id, version, epoch)
    }

    /// [`Store::verify`].
    fn verify(&self) -> BoxFuture<'_, Result<VerifyReport, StoreError>> {
        self.base().verify()
    }
}

impl<L: Layer> Store for L {
    fn id(&self) -> StoreId {
        Layer::id(self)
    }

    fn epoch(&self) -> u64 {
        Layer::epoch(self)
    }

    fn caps(&self) -> StoreCaps {
        Layer::caps(self)
    }

    fn commit(&self, transition: Transition) -> BoxFuture<'_, Result<u64, StoreError>> {
        Layer::commit(self, transition)
    }

    fn load<'a>(&'a self, run: &'a RunId, after: u64) -> BoxFuture<'a, Result<Vec<Record>, StoreError>> {
        Layer::load(self, run, after)
    }

    fn head<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, Result<Option<Head>, StoreError>> {
        Layer::head(self, run)
    }

    fn graph<'a>(&'a self, hash: &'a GraphHash) -> BoxFuture<'a, Result<Vec<u8>, StoreError>> {
        Layer::graph(self, hash)
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<ListPage, StoreError>> {
        Layer::list(self, query)
    }

    fn due(
        &self,
        until: Timestamp,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Timestamp, RunId)>, StoreError>> {
        Layer::due(self, until, limit)
    }

    fn claim<'a>(
        &'a self,
        run: &'a RunId,
        worker: &'a WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Claim, StoreError>> {
        Layer::claim(self, run, worker, now, ttl)
    }

    fn renew<'a>(
        &'a self,
        worker: &'a WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Timestamp, StoreError>> {
        Layer::renew(self, worker, now, ttl)
    }

    fn release<'a>(&'a self, run: &'a RunId, worker: &'a WorkerId) -> BoxFuture<'a, Result<(), StoreError>> {
        Layer::release(self, run, worker)
    }

    fn page<'a>(
        &'a self,
        run: &'a RunId,
        after: u64,
        bytes: usize,
    ) -> BoxFuture<'a, Result<Vec<Record>, StoreError>> {
        Layer::page(self, run, after, bytes)
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, StoreError>> {
        Layer::snapshot(self)
    }

    fn put_graph<'a>(&'a self, hash: &'a GraphHash, bytes: Vec<u8>) -> BoxFuture<'a, Result<(), StoreError>> {
        Layer::put_graph(self, hash, bytes)
    }

    fn import<'a>(&'a self, run: WholeRun<'a>) -> BoxFuture<'a, Result<(), StoreError>> {
        Layer::import(self, run)
    }

    fn remove<'a>(&'a self, run: &'a RunId, seq: u64, epoch: u64) -> BoxFuture<'a, Result<(), StoreError>> {
        Layer::remove(self, run, seq, epoch)
    }

    fn sweep(&self, names: NamesGraphs) -> BoxFuture<'_, Result<Swept, StoreError>> {
        Layer::sweep(self, names)
    }

    fn put_schedule(&self, put: SchedulePut, epoch: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        Layer::put_schedule(self, put, epoch)
    }

    fn schedule<'a>(
        &'a self,
        id: &'a ScheduleId,
    ) -> BoxFuture<'a, Result<Option<StoredSchedule>, StoreError>> {
        Layer::schedule(self, id)
    }

    fn schedules<'a>(
        &'a self,
        after: Option<&'a ScheduleId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<StoredSchedule>, StoreError>> {
        Layer::schedules(self, after, limit)
    }

    fn due_schedules(
        &self,
        until: Timestamp,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Timestamp, ScheduleId)>, StoreError>> {
        Layer::due_schedules(self, until, limit)
    }

    fn remove_schedule<'a>(
        &'a self,
        id: &'a ScheduleId,
        version: u64,
        epoch: u64,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Layer::remove_schedule(self, id, version, epoch)
    }

    fn verify(&self) -> BoxFuture<'_, Result<VerifyReport, StoreError>> {
        Layer::verify(self)
    }
}
