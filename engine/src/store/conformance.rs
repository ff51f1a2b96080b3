//! The suite that any store must pass. Public, so that an embedder can hold a store of their own to it.
//!
//! Write a [`Harness`] that makes fresh stores and opens one again, and await [`run`] in a test. A broken promise
//! is a panic that names the case and the promise. It looks at a store through the trait only; what a disk may do
//! to the data, it does not know. Claims and leases are looked at where [`StoreCaps::multi_worker`] says that there
//! are any. The times it hands to a store are small numbers, never the clock's.
//!
//! ```
//! use dssflow_engine::id::StoreId;
//! use dssflow_engine::store::conformance::{self, Harness};
//! # use dssflow_engine::store::memory::MemoryStore as MyStore;
//! use dssflow_engine::time::BoxFuture;
//!
//! /// Counts the stores, so that each has an id of its own.
//! struct Mine(u8);
//!
//! impl Harness for Mine {
//!     type Store = MyStore;
//!
//!     fn fresh(&mut self) -> BoxFuture<'_, MyStore> {
//!         self.0 += 1;
//!         let store = MyStore::new(StoreId::generate([self.0; 16]));
//!         Box::pin(async move { store })
//!     }
//!
//!     fn reopen(&mut self, store: MyStore) -> BoxFuture<'_, MyStore> {
//!         Box::pin(async move { store.reopen() })
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let done = conformance::run(&mut Mine(0)).await;
//! assert!(done.cases > 20);
//! # }
//! ```
//!
//! A store that can be copied and pruned is held to that by [`archives`], one that keeps schedules by [`schedules()`]; both
//! need the same harness.
//!
//! [`StoreCaps::multi_worker`]: super::StoreCaps::multi_worker

mod commits;
mod lasting;
mod leases;
mod lists;
mod schedules;
mod whole;

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Claim, Expect, ListQuery, Record, RunSummary, Store, StoreError, Transition};
use crate::id::{RunId, WorkerId};
use crate::run::RunStatus;
use crate::time::{BoxFuture, Timestamp};

/// Makes the stores that the suite works on.
pub trait Harness: Send {
    /// The store under test.
    type Store: Store;

    /// An empty store that shares nothing with those made before.
    fn fresh(&mut self) -> BoxFuture<'_, Self::Store>;

    /// Ends this owner of a store in good order and opens the same data again.
    fn reopen(&mut self, store: Self::Store) -> BoxFuture<'_, Self::Store>;
}

/// What a run of the suite did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conformance {
    /// How many cases ran.
    pub cases: usize,
}

macro_rules! cases {
    ($harness:ident, $cases:ident: $($case:path),* $(,)?) => {
        $(
            tracing::debug!(case = stringify!($case), "conformance");
            Box::pin($case($harness)).await;
            $cases += 1;
        )*
    };
}

/// Runs every case of what any store promises.
///
/// # Panics
/// When the store breaks a promise, with the case and the promise.
pub async fn run<H: Harness>(harness: &mut H) -> Conformance {
    let mut cases = 0;
    cases!(harness, cases:
        commits::an_empty_store_has_nothing,
        commits::commits_of_a_run_are_in_order,
        commits::what_is_expected_is_checked,
        commits::what_makes_no_sense_is_invalid,
        commits::a_refused_commit_leaves_no_trace,
        commits::load_starts_at_the_record_asked_for,
        commits::records_of_any_size_come_back,
        commits::what_is_too_large_is_refused,
        commits::a_long_note_is_cut,
        commits::graphs_are_stored_once,
        lists::due_items_are_ordered_and_replaced,
        lists::runs_are_listed_newest_first,
        lists::lists_are_filtered,
        lists::runs_are_found_by_label,
        lists::labels_are_never_cut,
        lists::lists_are_paged,
        lists::runs_are_found_by_time,
        lasting::many_runs_commit_at_once,
        lasting::one_of_many_rivals_wins,
        lasting::everything_is_there_after_reopening,
        lasting::an_earlier_epoch_is_fenced,
        lasting::verify_finds_a_used_store_clean,
    );
    if harness.fresh().await.caps().multi_worker {
        cases!(harness, cases:
            leases::a_run_has_one_owner,
            leases::a_lease_that_is_over_can_be_taken,
            leases::a_lease_that_nobody_took_still_writes,
            leases::a_renewal_covers_all_runs_of_a_worker,
            leases::what_was_taken_stays_taken,
            leases::a_released_run_is_free_at_once,
            leases::every_commit_needs_the_claim_of_its_run,
            leases::one_of_many_claims_wins,
            leases::an_epoch_never_comes_back,
        );
    } else {
        cases!(harness, cases: leases::one_owner_needs_no_lease);
    }
    Conformance { cases }
}

/// Runs every case of what a store promises that can be copied and pruned: pages, snapshots, imports, removals, sweeps.
///
/// # Panics
/// When the store breaks a promise, with the case and the promise.
pub async fn archives<H: Harness>(harness: &mut H) -> Conformance {
    let mut cases = 0;
    cases!(harness, cases:
        whole::a_page_is_the_start_of_what_is_left,
        whole::a_snapshot_is_of_one_instant,
        whole::nothing_is_removed_while_a_snapshot_is_there,
        whole::only_ended_runs_that_own_nothing_are_removed,
        whole::a_removed_run_is_gone_for_good,
        whole::a_removal_and_a_commit_exclude_each_other,
        whole::a_sweep_removes_what_no_run_names,
        whole::a_sweep_leaves_everything_when_it_cannot_read,
        whole::a_sweep_spares_what_is_on_its_way,
        whole::an_imported_run_is_as_it_was,
        whole::an_import_is_whole_or_nothing,
        whole::of_rival_imports_one_wins,
    );
    Conformance { cases }
}

/// Runs every case of what a store promises that keeps schedules.
///
/// # Panics
/// When the store breaks a promise, with the case and the promise.
pub async fn schedules<H: Harness>(harness: &mut H) -> Conformance {
    let mut cases = 0;
    cases!(harness, cases:
        schedules::a_schedule_comes_back_as_it_was,
        schedules::of_rivals_one_wins,
        schedules::a_version_never_comes_back,
        schedules::due_schedules_are_ordered_and_replaced,
        schedules::a_run_and_its_schedule_are_written_together,
        schedules::an_earlier_epoch_changes_no_schedule,
        schedules::schedules_are_there_after_reopening,
        schedules::a_snapshot_has_the_schedules,
    );
    Conformance { cases }
}

/// A plain transition of one event for run `run`, to build others from.
///
/// # Panics
/// When `run` is no valid run id.
pub fn transition(run: &str, expect: Expect, epoch: u64) -> Transition {
    let run = RunId::new(run).expect("the suite's run ids are valid");
    let seq = match expect {
        Expect::New => 1,
        Expect::At { seq } => seq.saturating_add(1),
    };
    Transition {
        summary: RunSummary {
            run: run.clone(),
            workflow: "flow".to_owned(),
            site: String::new(),
            status: RunStatus::Running,
            created: Timestamp::from_millis(1_000),
            updated: Timestamp::from_millis(seq.saturating_add(1_000)),
            done: 0,
            total: 3,
            live: false,
            note: String::new(),
            labels: BTreeMap::new(),
        },
        record: format!("{run}:{seq}").into_bytes(),
        run,
        expect,
        epoch,
        events: 1,
        due: None,
        graph: None,
        schedule: None,
    }
}

fn id(run: &str) -> RunId {
    RunId::new(run).expect("the suite's run ids are valid")
}

/// One of the workers that the suite plays; 0 is the one that commits unless a case says otherwise.
fn worker(number: u8) -> WorkerId {
    WorkerId::generate([number; 16])
}

/// A claim at `now`, for a lease of ten milliseconds.
async fn claim(store: &impl Store, run: &str, by: u8, now: u64) -> Result<Claim, StoreError> {
    store.claim(&id(run), &worker(by), Timestamp::from_millis(now), Duration::from_millis(10)).await
}

/// What names the store's epoch is done as the run's owner; any other epoch is meant as it is.
async fn owned(store: &impl Store, mut transition: Transition) -> Transition {
    if transition.epoch == store.epoch() {
        let run = transition.run.as_str();
        let claim = claim(store, run, 0, 0).await;
        transition.epoch =
            claim.unwrap_or_else(|error| panic!("claiming {run} again must succeed: {error}")).epoch;
    }
    transition
}

async fn commit(store: &impl Store, transition: Transition) -> u64 {
    let text = format!("{} {:?}", transition.run, transition.expect);
    let transition = owned(store, transition).await;
    store
        .commit(transition)
        .await
        .unwrap_or_else(|error| panic!("a good commit ({text}) must succeed: {error}"))
}

async fn create(store: &impl Store, run: &str) {
    let seq = commit(store, transition(run, Expect::New, store.epoch())).await;
    assert_eq!(seq, 1, "a commit returns the sequence number of its last event");
}

async fn refused(store: &impl Store, transition: Transition) -> StoreError {
    let text = format!("{} {:?}", transition.run, transition.expect);
    let transition = owned(store, transition).await;
    match store.commit(transition).await {
        Err(error) => error,
        Ok(seq) => panic!("the commit ({text}) must be refused, and was acknowledged at event {seq}"),
    }
}

async fn load(store: &impl Store, run: &str, after: u64) -> Vec<Record> {
    store.load(&id(run), after).await.unwrap_or_else(|error| panic!("loading {run} must succeed: {error}"))
}

async fn head(store: &impl Store, run: &str) -> Option<super::Head> {
    store
        .head(&id(run))
        .await
        .unwrap_or_else(|error| panic!("reading the head of {run} must succeed: {error}"))
}

async fn names(store: &impl Store, query: ListQuery) -> Vec<String> {
    let page = store.list(query).await.unwrap_or_else(|error| panic!("listing must succeed: {error}"));
    page.runs.into_iter().map(|summary| summary.run.to_string()).collect()
}

async fn dues(store: &impl Store, until: u64, limit: usize) -> Vec<(u64, String)> {
    let due = store.due(Timestamp::from_millis(until), limit).await;
    let due = due.unwrap_or_else(|error| panic!("reading due items must succeed: {error}"));
    due.into_iter().map(|(at, run)| (at.as_millis(), run.to_string())).collect()
}

async fn assert_clean(store: &impl Store) -> super::VerifyReport {
    let report = store.verify().await.unwrap_or_else(|error| panic!("verify must succeed: {error}"));
    assert!(report.damage.is_empty(), "verify must find nothing wrong, and found {:?}", report.damage);
    report
}
