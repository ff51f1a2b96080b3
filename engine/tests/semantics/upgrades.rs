//! Runs and newer definitions of their workflow.

use dssflow_engine::EngineError;
use dssflow_engine::graph::OnReject;
use dssflow_engine::run::versions::Verdict;
use dssflow_engine::run::{RunStatus, Verb};
use dssflow_engine::workflow::Definition;

use super::*;

fn never() -> ActivityError {
    ActivityError::terminal("No", "never").no_effect()
}

fn with(kept: &MemoryStore, world: &Arc<World>, steps: Vec<Step>) -> Engine {
    let definition = Definition::fixed(WorkflowName::new("test").unwrap(), 2, graph(steps));
    builder(kept.reopen(), world).definition(definition).build()
}

#[tokio::test(start_paused = true)]
async fn what_is_done_and_the_same_stays_done_and_the_rest_follows_the_new_definition() {
    let world = World::new();
    world.fail("c", [never()]);
    let kept = store();
    let first = builder(kept.share(), &world).build();
    let old = vec![
        act("a", &[]),
        map("m", texts(&["x", "y"]), 0, 0),
        act("b", &["a"]),
        of("after-b", Binding::output(&name("b"), ""), &[]),
        act("c", &["a", "after-b", "m"]),
    ];
    let handle = first.start(run("r", old.clone())).await.unwrap();
    assert_eq!(end(&first, &handle).await.status, RunStatus::Failed);

    let second = with(&kept, &world, old.clone());
    assert_eq!(second.compare(handle.id()).await.unwrap().unwrap().verdict, Verdict::Compatible);
    let mut new = old;
    new[2] = of("b", Binding::literal("b2"), &["a"]);
    new.push(act("d", &["c"]));
    let second = with(&kept, &world, new);
    let comparison = second.compare(handle.id()).await.unwrap().unwrap();
    assert_eq!((comparison.verdict, comparison.differences.len()), (Verdict::Incompatible, 2));
    let upgraded = second.upgrade(handle.id(), by()).await.unwrap();
    let view = end(&second, &upgraded).await;
    assert_eq!((view.status, view.workflow_version), (RunStatus::Succeeded, 2));
    // What `b` gave is what `after-b` is given, so each of them is there twice.
    let times = ["a", "x", "y", "d", "b", "b2", "c"].map(|s| world.count(s));
    assert_eq!(times, [1, 1, 1, 1, 2, 2, 2], "{:?}", world.log());
    let back = second.rollback(handle.id(), vec![], by()).await.unwrap();
    assert_eq!(end(&second, &back).await.status, RunStatus::RolledBack);
    for made in ["undo x", "undo y", "undo b", "undo b2", "undo d"] {
        assert!(world.count(made) >= 1, "{made}: {:?}", world.log());
    }
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_to_the_same_definition_tries_again_what_failed() {
    let world = World::new();
    world.fail("a", [never()]);
    let kept = store();
    let first = builder(kept.share(), &world).build();
    let handle = first.start(run("r", vec![act("a", &[])])).await.unwrap();
    assert_eq!(end(&first, &handle).await.status, RunStatus::Failed);
    let second = with(&kept, &world, vec![act("a", &[])]);
    let upgraded = second.upgrade(handle.id(), by()).await.unwrap();
    assert_eq!(end(&second, &upgraded).await.status, RunStatus::Succeeded);

    world.fail("b", [never()]);
    let handle = second.start(run("r2", vec![act("b", &[])])).await.unwrap();
    assert_eq!(end(&second, &handle).await.status, RunStatus::Failed);
    let third = with(&kept, &world, vec![act("b", &[]), act("z", &["b"])]);
    let upgraded = third.upgrade(handle.id(), by()).await.unwrap();
    assert_eq!(end(&third, &upgraded).await.status, RunStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_taken_back_any_more_is_not_left_out_or_exchanged() {
    let world = World::new();
    world.fail("b", [never()]);
    let kept = store();
    let first = builder(kept.share(), &world).build();
    let handle = first.start(run("r", vec![act("a", &[]), act("b", &["a"])])).await.unwrap();
    assert_eq!(end(&first, &handle).await.status, RunStatus::Failed);
    let mut activities = ActivityRegistry::new();
    activities.add_fn("other", |_, value: Value| async move { Ok(value) }).unwrap();
    let other = Step::activity(name("a"), ActivityName::new("other").unwrap(), Binding::literal("a"));
    for steps in [vec![act("b", &[])], vec![other, act("b", &["a"])]] {
        let definition = Definition::fixed(WorkflowName::new("test").unwrap(), 2, graph(steps));
        let second = builder(kept.reopen(), &world).definition(definition);
        let second = second.add_code(activities.clone(), Default::default()).unwrap().build();
        let refused = second.upgrade(handle.id(), by()).await.unwrap_err();
        assert!(refused.to_string().contains("step a may have made something"), "{refused}");
        assert!(second.handle(handle.id()).is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_is_asked_anew_has_its_time_anew() {
    let world = World::new();
    let gate = |question: &str, timeout_ms| {
        let (default, on_reject) = (Some(true), OnReject::Fail);
        kind("g", StepKind::Gate { question: question.into(), timeout_ms, default, on_reject }, &[])
    };
    let kept = store();
    let first = builder(kept.share(), &world).build();
    let handle = first.start(run("r", vec![gate("old?", None)])).await.unwrap();
    pass(1).await;
    first.pause(handle.id(), by()).await.unwrap();
    assert_eq!(end(&first, &handle).await.status, RunStatus::Paused);
    let second = with(&kept, &world, vec![gate("new?", Some(60_000))]);
    let upgraded = second.upgrade(handle.id(), by()).await.unwrap();
    assert_eq!(end(&second, &upgraded).await.status, RunStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn an_output_of_another_type_needs_a_migration() {
    let kept = store();
    let world = World::new();
    let mut old = ActivityRegistry::new();
    old.add_fn("typed", |_, n: u64| async move { Ok(n) }).unwrap();
    let typed = |n: &str, input| Step::activity(name(n), ActivityName::new("typed").unwrap(), input);
    let steps = || {
        vec![
            typed("a", Binding::literal(1)),
            kind("z", StepKind::Sleep { duration_ms: Binding::literal(1_000_000) }, &["a"]),
        ]
    };
    let first = builder(kept.share(), &world).add_code(old, Default::default()).unwrap().build();
    let handle = first.start(run("r", steps())).await.unwrap();
    pass(1).await;
    first.pause(handle.id(), by()).await.unwrap();
    end(&first, &handle).await;
    let new = || {
        let mut new = ActivityRegistry::new();
        new.add_fn("typed", |_, n: u64| async move { Ok(n.to_string()) }).unwrap();
        builder(kept.reopen(), &world).add_code(new, Default::default()).unwrap()
    };
    let second = new().build();
    let refused = second.resume(handle.id(), by()).await.unwrap_err();
    assert!(matches!(refused, EngineError::OutputChanged { .. }), "{refused}");
    let third = new().migrate(ActivityName::new("typed").unwrap(), |old| Ok(json!(old.to_string()))).build();
    let handle = third.resume(handle.id(), by()).await.unwrap();
    let view = end(&third, &handle).await;
    assert_eq!((view.status, step(&view, "a").output.clone()), (RunStatus::Succeeded, Some(json!("1"))));
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_done_again_needs_no_migration() {
    let (kept, world) = (store(), World::new());
    let mut old = ActivityRegistry::new();
    old.add_fn("typed", |_, n: u64| async move { Ok(n) }).unwrap();
    let typed = Step::activity(name("a"), ActivityName::new("typed").unwrap(), Binding::literal(1));
    let gate =
        StepKind::Gate { question: "?".into(), timeout_ms: None, default: None, on_reject: OnReject::Fail };
    let first = builder(kept.share(), &world).add_code(old, Default::default()).unwrap().build();
    let handle = first.start(run("r", vec![typed, kind("g", gate, &["a"])])).await.unwrap();
    pass(1).await;
    first.pause(handle.id(), by()).await.unwrap();
    end(&first, &handle).await;
    let mut new = ActivityRegistry::new();
    new.add_fn("typed", |_, n: u64| async move { Ok(n.to_string()) }).unwrap();
    let second = builder(kept.reopen(), &world).add_code(new, Default::default()).unwrap().build();
    let rerun = Verb::Rerun { from: name("a") };
    second.act(handle.id(), rerun, by()).await.unwrap();
    let handle = second.resume(handle.id(), by()).await.unwrap();
    pass(1).await;
    second.act(handle.id(), Verb::Approve { step: name("g") }, by()).await.unwrap();
    let view = end(&second, &handle).await;
    assert_eq!((view.status, step(&view, "a").output.clone()), (RunStatus::Succeeded, Some(json!("1"))));
}
