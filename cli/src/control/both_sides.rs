//! Client and server together, on a store with runs of a few steps: what other commands can have an owner do.

use std::sync::Arc;

use dssflow_engine::event::{CancelMode, Request};
use dssflow_engine::graph::{Binding, LockUse, OnReject, StepKind};
use dssflow_engine::id::{ActivityName, LockName, RunId, StepName, WorkflowName};
use dssflow_engine::run::view::Awaited;
use dssflow_engine::run::{RunStatus, StepStatus, Verb};
use dssflow_engine::runtime::ObstacleKind;
use dssflow_engine::store::ListQuery;
use dssflow_engine::time::Timestamp;
use dssflow_engine::{ActivityContext, ActivityRegistry, Engine, Graph, RunHandle, StartRun, Step};
use dssflow_store::{OpenOptions, SledStore};
use tokio::sync::Notify;

use super::client::Client;
use super::server::{self, ControlServer};
use super::{Act, Demand};
use crate::error::Code;
use crate::progress::now;
use crate::why::{Kind, diagnose};

/// An owner with its socket, and what lets its steps named `hold` end.
struct Owner {
    engine: Engine,
    client: Client,
    go: Arc<Notify>,
    begun: Arc<Notify>,
    _server: ControlServer,
    _dir: tempfile::TempDir,
}

fn owner() -> Owner {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Arc::new(SledStore::open(&path, OpenOptions::default()).unwrap());
    let (go, begun) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut activities = ActivityRegistry::new();
    let both = (Arc::clone(&go), Arc::clone(&begun));
    activities
        .add_fn("test.hold", move |_: ActivityContext, (): ()| {
            let (go, begun) = both.clone();
            async move {
                begun.notify_one();
                go.notified().await;
                Ok(())
            }
        })
        .unwrap();
    let engine = Engine::builder(store.clone()).activities(activities).build();
    let server = server::start(server::Owner::of_command(&engine, &store)).unwrap();
    let socket = super::socket_path(&path).unwrap();
    let client = Client { socket, store: path, holder: None };
    Owner { engine, client, go, begun, _server: server, _dir: dir }
}

fn id(text: &str) -> RunId {
    RunId::new(text).unwrap()
}

fn name(text: &str) -> StepName {
    StepName::new(text).unwrap()
}

fn act(verb: Verb) -> Act {
    Act { verb, request: Request { by: "ada".to_owned(), reason: "because".to_owned() }, drive: false }
}

fn gate() -> Step {
    let question = "Go?".to_owned();
    let kind = StepKind::Gate { question, timeout_ms: None, default: None, on_reject: OnReject::Fail };
    Step::new(name("go"), kind)
}

fn hold() -> Step {
    let activity = ActivityName::new("test.hold").unwrap();
    let mut step = Step::activity(name("hold"), activity, Binding::literal(()));
    step.locks.push(LockUse::exclusive(LockName::new("host").unwrap()));
    step
}

impl Owner {
    async fn start(&self, run: &str, step: Step, label: &str) -> RunHandle {
        let graph = Graph::builder().step(step).build().unwrap();
        let start = StartRun::new(WorkflowName::new("test").unwrap(), graph).id(id(run)).label("team", label);
        self.engine.start(start).await.unwrap()
    }
}

#[tokio::test]
async fn the_owner_decides_at_a_gate_that_it_drives_and_writes_down_the_rest() {
    let owner = owner();
    let run = owner.start("gated", gate(), "data").await;
    let view = owner.client.view(run.id()).await.unwrap();
    assert!(matches!(view.steps[0].awaits, Some(Awaited::Decision { .. })), "{view:?}");
    let why = diagnose(&view, true, &owner.client.obstacles(run.id()).await.unwrap(), now(), "dssflow");
    assert_eq!(why.steps[0].kind, Kind::Decision);
    assert_eq!(why.next[0], "dssflow approve gated go");
    let acted = owner.client.act(run.id(), &act(Verb::Approve { step: name("go") })).await.unwrap();
    assert!(acted.driven);
    let end = run.wait().await.unwrap();
    assert_eq!(end.status, RunStatus::Succeeded);
    assert_eq!(end.steps[0].output.as_ref().unwrap()["reason"], "because");

    // Nobody drives it any more, and a run that has ended takes no signal.
    let late = Verb::Signal { signal: "x".to_owned(), payload: serde_json::Value::Null };
    let refused = owner.client.act(run.id(), &act(late)).await.unwrap_err();
    assert_eq!(refused.code, Code::RunRefused, "{refused}");
    let nobody = owner.client.act(&id("nobody"), &act(Verb::Skip { step: name("go") })).await.unwrap_err();
    assert_eq!(nobody.code, Code::NoSuchRun);

    let paused = owner.start("paused", gate(), "ops").await;
    owner.client.demand(paused.id(), "pause", &Demand::from(Request::by("ada"))).await.unwrap();
    assert_eq!(paused.wait().await.unwrap().status, RunStatus::Paused);
    let acted = owner.client.act(paused.id(), &act(Verb::Skip { step: name("go") })).await.unwrap();
    assert!(!acted.driven);
    let view = owner.client.view(paused.id()).await.unwrap();
    assert_eq!((view.status, view.steps[0].status), (RunStatus::Paused, StepStatus::Skipped));

    // An end needs no world; taking back does.
    let back = Demand::cancel(CancelMode::Rollback, Request::by("ada"));
    assert_eq!(owner.client.demand(paused.id(), "cancel", &back).await.unwrap_err().code, Code::RunRefused);
    let end = Demand::cancel(CancelMode::Terminate, Request::by("ada"));
    owner.client.demand(paused.id(), "cancel", &end).await.unwrap();
    assert_eq!(owner.client.view(paused.id()).await.unwrap().status, RunStatus::Cancelled);

    let only = |label: &str| ListQuery {
        labels: [("team".to_owned(), label.to_owned())].into(),
        ..ListQuery::default()
    };
    let found = owner.client.list(&only("ops")).await.unwrap().runs;
    assert_eq!(found.iter().map(|r| r.run.as_str()).collect::<Vec<_>>(), ["paused"]);
    let none = ListQuery { created_before: Some(Timestamp::from_millis(1)), ..ListQuery::default() };
    assert!(owner.client.list(&none).await.unwrap().runs.is_empty());
    let all = ListQuery { created_from: Some(Timestamp::from_millis(1)), ..ListQuery::default() };
    assert_eq!(owner.client.list(&all).await.unwrap().runs.len(), 2);
}

#[tokio::test]
async fn what_a_step_stands_in_line_for_is_told_with_who_holds_it() {
    let owner = owner();
    let first = owner.start("first", hold(), "data").await;
    owner.begun.notified().await;
    let second = owner.start("second", hold(), "data").await;
    assert!(owner.client.obstacles(first.id()).await.unwrap().is_empty());
    let obstacles = owner.client.obstacles(second.id()).await.unwrap();
    let lock = &obstacles[&name("hold")][0];
    assert_eq!((lock.kind, lock.name.as_str()), (ObstacleKind::Lock, "host"));
    assert_eq!(lock.held_by, [id("first")]);

    let view = owner.client.view(second.id()).await.unwrap();
    let why = diagnose(&view, true, &obstacles, now(), "dssflow");
    assert_eq!(why.steps[0].kind, Kind::Blocked);
    assert_eq!(why.steps[0].why, "waits for lock host, held by run first");
    assert_eq!(why.steps[0].next, ["dssflow why first"]);

    owner.go.notify_one();
    assert_eq!(first.wait().await.unwrap().status, RunStatus::Succeeded);
    owner.go.notify_one();
    assert_eq!(second.wait().await.unwrap().status, RunStatus::Succeeded);
}
