//! What lists promise: due items, filters, labels, time, pages.

use super::super::{Expect, ListQuery, MAX_SUMMARY_BYTES, Store, StoreError};
use super::{Harness, assert_clean, commit, create, dues, head, names, refused, transition};
use crate::run::RunStatus;
use crate::time::Timestamp;

pub(super) async fn due_items_are_ordered_and_replaced<H: Harness>(harness: &mut H) {
    let mut store = harness.fresh().await;
    for (run, at) in [("c", 30), ("a", 10), ("b2", 20), ("b1", 20), ("far", u64::MAX)] {
        let mut new = transition(run, Expect::New, store.epoch());
        new.due = Some(Timestamp::from_millis(at));
        commit(&store, new).await;
    }
    create(&store, "never").await;
    let owned =
        |items: &[(u64, &str)]| items.iter().map(|(at, run)| (*at, (*run).to_owned())).collect::<Vec<_>>();
    assert!(dues(&store, 9, 10).await.is_empty(), "nothing is due too early");
    assert_eq!(dues(&store, 10, 10).await, owned(&[(10, "a")]), "what is due now is due");
    assert_eq!(
        dues(&store, 29, 10).await,
        owned(&[(10, "a"), (20, "b1"), (20, "b2")]),
        "earliest first, then by id"
    );
    assert_eq!(dues(&store, 29, 2).await.len(), 2, "the limit holds");
    for (run, at) in [("a", Some(25)), ("b1", None), ("b2", Some(20))] {
        let mut next = transition(run, Expect::At { seq: 1 }, store.epoch());
        next.due = at.map(Timestamp::from_millis);
        commit(&store, next).await;
    }
    for _ in 0..2 {
        assert_eq!(
            dues(&store, 1_000, 10).await,
            owned(&[(20, "b2"), (25, "a"), (30, "c")]),
            "a commit replaces or removes the run's due item"
        );
        assert_clean(&store).await;
        store = harness.reopen(store).await;
    }
}

/// Ten runs, the later ones newer; statuses, workflows and sites alternate.
async fn ten_runs(store: &impl Store) {
    for i in 0..10_u64 {
        let run = format!("run-{}", (i * 7) % 10);
        let mut new = transition(&run, Expect::New, store.epoch());
        new.summary.created = Timestamp::from_millis(1_000 + i / 2);
        new.summary.status = if i % 2 == 0 { RunStatus::Succeeded } else { RunStatus::Failed };
        new.summary.workflow = String::from(if i < 5 { "first" } else { "second" });
        new.summary.site = String::from(if i % 3 == 0 { "lab" } else { "" });
        commit(store, new).await;
    }
}

pub(super) async fn runs_are_listed_newest_first<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    ten_runs(&store).await;
    // Changing a run does not move it: the order is that of creation.
    let mut next = transition("run-0", Expect::At { seq: 1 }, store.epoch());
    next.summary.updated = Timestamp::from_millis(9_999);
    commit(&store, next).await;
    let page = store.list(ListQuery::default()).await.expect("listing succeeds");
    assert_eq!(page.cursor, None, "a full answer has no cursor");
    assert_eq!(page.runs.len(), 10, "every run is listed once");
    let keys: Vec<_> = page.runs.iter().map(|s| (s.created, s.run.clone())).collect();
    assert!(keys.is_sorted_by(|a, b| a > b), "newest first, and of one moment the later id first: {keys:?}");
    let zero = page.runs.iter().find(|s| s.run.as_str() == "run-0").expect("listed");
    assert_eq!(zero.updated, Timestamp::from_millis(9_999), "the list shows the last summary");
}

pub(super) async fn lists_are_filtered<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    ten_runs(&store).await;
    create(&store, "other").await;
    let count = async |query: ListQuery| names(&store, query).await.len();
    let all = ListQuery::default();
    assert_eq!(count(ListQuery { statuses: vec![RunStatus::Failed], ..all.clone() }).await, 5, "by status");
    let ends = vec![RunStatus::Failed, RunStatus::Succeeded];
    assert_eq!(count(ListQuery { statuses: ends, ..all.clone() }).await, 10, "by several statuses");
    assert_eq!(
        count(ListQuery { workflow: Some("second".to_owned()), ..all.clone() }).await,
        5,
        "by workflow"
    );
    assert_eq!(count(ListQuery { site: Some("lab".to_owned()), ..all.clone() }).await, 4, "by site");
    assert_eq!(count(ListQuery { prefix: Some("run-".to_owned()), ..all.clone() }).await, 10, "by prefix");
    assert_eq!(
        count(ListQuery { prefix: Some("run-3".to_owned()), ..all.clone() }).await,
        1,
        "by a whole id"
    );
    let mut both = ListQuery { site: Some("lab".to_owned()), ..all };
    both.statuses = vec![RunStatus::Succeeded];
    assert_eq!(count(both).await, 2, "all filters hold at once");
}

pub(super) async fn lists_are_paged<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    ten_runs(&store).await;
    let everything = names(&store, ListQuery::default()).await;
    for statuses in [vec![], vec![RunStatus::Failed]] {
        let filtered = names(&store, ListQuery { statuses: statuses.clone(), ..ListQuery::default() }).await;
        for limit in [1, 2, 3, 5, 10, 11] {
            let mut query = ListQuery { limit, statuses: statuses.clone(), ..ListQuery::default() };
            let mut seen = Vec::new();
            loop {
                let page = store.list(query.clone()).await.expect("listing succeeds");
                assert!(page.runs.len() <= limit, "a page has at most {limit} runs");
                seen.extend(page.runs.iter().map(|s| s.run.to_string()));
                if page.cursor.is_none() {
                    break;
                }
                assert!(seen.len() <= everything.len(), "paging comes to an end");
                query.cursor = page.cursor;
            }
            assert_eq!(seen, filtered, "pages of {limit} hold every run once, in order");
        }
    }
    let page = store.list(ListQuery { limit: 1, ..ListQuery::default() }).await.expect("listing succeeds");
    let mut newer = transition("newer", Expect::New, store.epoch());
    newer.summary.created = Timestamp::from_millis(99_999);
    commit(&store, newer).await;
    let rest = names(&store, ListQuery { cursor: page.cursor, ..ListQuery::default() }).await;
    assert_eq!(rest, everything[1..], "a run that is created between two pages disturbs neither");
}

fn labels(labels: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub(super) async fn runs_are_found_by_label<H: Harness>(harness: &mut H) {
    let mut store = harness.fresh().await;
    let runs: [(&str, &[(&str, &str)]); 4] = [
        ("a", &[("team", "data"), ("env", "prod")]),
        ("b", &[("team", "data"), ("env", "test")]),
        ("c", &[("team", "web"), ("note", "\"quoted\", é\n")]),
        ("d", &[]),
    ];
    for (run, given) in runs {
        let mut new = transition(run, Expect::New, store.epoch());
        new.summary.labels = labels(given);
        commit(&store, new).await;
    }
    for round in ["before", "after"] {
        for (query, expected) in [
            (labels(&[]), &["d", "c", "b", "a"][..]),
            (labels(&[("team", "data")]), &["b", "a"]),
            (labels(&[("team", "data"), ("env", "prod")]), &["a"]),
            (labels(&[("team", "web"), ("env", "prod")]), &[]),
            (labels(&[("team", "dat")]), &[]),
            (labels(&[("Team", "data")]), &[]),
            (labels(&[("note", "\"quoted\", é\n")]), &["c"]),
            (labels(&[("env", "")]), &[]),
        ] {
            let text = format!("{round} reopening: runs with all of the labels {query:?}");
            assert_eq!(
                names(&store, ListQuery { labels: query, ..ListQuery::default() }).await,
                expected,
                "{text}"
            );
        }
        for (run, given) in runs {
            let summary = head(&store, run).await.expect("the run is there").summary;
            assert_eq!(summary.labels, labels(given), "{round} reopening: labels come back unchanged");
        }
        store = harness.reopen(store).await;
    }
    let mut next = transition("b", Expect::At { seq: 1 }, store.epoch());
    next.summary.labels = labels(&[("team", "web")]);
    commit(&store, next).await;
    let web = ListQuery { labels: labels(&[("team", "web")]), ..ListQuery::default() };
    assert_eq!(names(&store, web.clone()).await, ["c", "b"], "the labels are those of the last summary");
    let page = store.list(ListQuery { limit: 1, ..web.clone() }).await.expect("listing succeeds");
    assert!(page.cursor.is_some(), "a page of a search has a cursor when there is more");
    assert_eq!(names(&store, ListQuery { cursor: page.cursor, ..web }).await, ["b"], "a search has pages");
}

pub(super) async fn labels_are_never_cut<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    let mut new = transition("a", Expect::New, store.epoch());
    new.summary.labels = labels(&[("text", &"v".repeat(200))]);
    new.summary.note = "n".repeat(2_000);
    commit(&store, new.clone()).await;
    let summary = head(&store, "a").await.expect("the run is there").summary;
    assert_eq!(summary.labels, new.summary.labels, "it is the note that is cut");
    let size = serde_json::to_vec(&summary).expect("a summary can be written as JSON").len();
    assert!(size <= MAX_SUMMARY_BYTES, "a summary has at most {MAX_SUMMARY_BYTES} bytes, not {size}");

    let mut long = transition("b", Expect::New, store.epoch());
    long.summary.labels = labels(&[("text", &"v".repeat(MAX_SUMMARY_BYTES))]);
    let error = refused(&store, long).await;
    assert!(
        matches!(error, StoreError::TooLarge { what: "the run summary", .. }),
        "labels that do not fit are TooLarge, not {error:?}"
    );
    assert_eq!(head(&store, "b").await, None, "nothing of it is written");
}

pub(super) async fn runs_are_found_by_time<H: Harness>(harness: &mut H) {
    let store = harness.fresh().await;
    ten_runs(&store).await;
    for (run, created) in [("first", 0), ("early", 1_001), ("late", 1_004), ("last", u64::MAX)] {
        let mut new = transition(run, Expect::New, store.epoch());
        new.summary.created = Timestamp::from_millis(created);
        commit(&store, new).await;
    }
    let all = store.list(ListQuery::default()).await.expect("listing succeeds").runs;
    let bounds = [0, 1, 999, 1_000, 1_001, 1_002, 1_004, 1_005, u64::MAX];
    let bounds: Vec<_> =
        std::iter::once(None).chain(bounds.map(|at| Some(Timestamp::from_millis(at)))).collect();
    for statuses in [vec![], vec![RunStatus::Running], vec![RunStatus::Failed]] {
        for created_from in bounds.clone() {
            for created_before in bounds.clone() {
                let expected: Vec<_> = all
                    .iter()
                    .filter(|run| statuses.is_empty() || statuses.contains(&run.status))
                    .filter(|run| created_from.is_none_or(|from| run.created >= from))
                    .filter(|run| created_before.is_none_or(|before| run.created < before))
                    .map(|run| run.run.to_string())
                    .collect();
                let query = ListQuery {
                    statuses: statuses.clone(),
                    created_from,
                    created_before,
                    ..ListQuery::default()
                };
                let text = format!("{statuses:?}, from {created_from:?}, before {created_before:?}");
                assert_eq!(names(&store, query.clone()).await, expected, "{text}");
                let mut seen = Vec::new();
                let mut page = ListQuery { limit: 2, ..query };
                loop {
                    let answer = store.list(page.clone()).await.expect("listing succeeds");
                    seen.extend(answer.runs.iter().map(|run| run.run.to_string()));
                    page.cursor = answer.cursor;
                    if page.cursor.is_none() || seen.len() > expected.len() {
                        break;
                    }
                }
                assert_eq!(seen, expected, "in pages of two: {text}");
            }
        }
    }
    // A cursor of another query: it says where to go on, the times what is shown.
    let oldest = all.last().map(ListQuery::cursor_after);
    let query = ListQuery {
        created_from: Some(Timestamp::from_millis(1_000)),
        cursor: oldest,
        ..ListQuery::default()
    };
    assert!(names(&store, query).await.is_empty(), "nothing is both after the oldest run and newer");
    let newest = all.first().map(ListQuery::cursor_after);
    let query = ListQuery {
        created_before: Some(Timestamp::from_millis(1_000)),
        cursor: newest,
        ..ListQuery::default()
    };
    assert_eq!(names(&store, query).await, ["first"], "what is after the newest run and older");
}
