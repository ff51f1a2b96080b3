//! Maps, conditions, gates, signals.

use dssflow_engine::event::CancelMode;
use dssflow_engine::graph::OnReject;
use dssflow_engine::run::resolve::FunctionRegistry;
use dssflow_engine::run::{OnTrouble, RunStatus, StepStatus, Verb};

use super::*;

fn terminal() -> ActivityError {
    ActivityError::terminal("No", "never").no_effect()
}

fn gate(timeout_ms: Option<u64>, default: Option<bool>, on_reject: OnReject) -> Step {
    kind("g", StepKind::Gate { question: "go?".into(), timeout_ms, default, on_reject }, &[])
}

fn signal(step: &str, after: &[&str], timeout_ms: Option<u64>, default: Option<Value>) -> Step {
    kind(step, StepKind::Signal { signal: "go".into(), timeout_ms, default }, after)
}

#[tokio::test(start_paused = true)]
async fn a_map_keeps_its_limit_tolerates_some_and_collects_in_order() {
    let world = World::new();
    for item in ["x", "y", "z", "w"] {
        world.slow(item, 10);
    }
    world.fail("y", [terminal()]);
    let engine = engine(&world);
    let steps =
        vec![map("m", texts(&["x", "y", "z", "w"]), 2, 1), of("a", Binding::output(&name("m"), ""), &[])];
    let begin = tokio::time::Instant::now();
    let handle = engine.start(run("r", steps)).await.unwrap();
    let view = end(&engine, &handle).await;
    assert_eq!((view.status, begin.elapsed().as_secs()), (RunStatus::Succeeded, 20));
    assert_eq!(step(&view, "a").output, Some(json!(["x", null, "z", "w"])));

    world.fail("y", [terminal()]);
    world.fail("z", [terminal()]);
    let steps = vec![map("m", texts(&["x", "y", "z", "w"]), 1, 1)];
    let handle = engine.start(run("r2", steps)).await.unwrap();
    let view = end(&engine, &handle).await;
    assert_eq!((view.status, view.failed_step), (RunStatus::Failed, Some(name("m[z]"))));
    let done =
        engine.act(handle.id(), Verb::Retry { step: name("m[z]") }, by()).await.unwrap().handle.unwrap();
    let view = end(&engine, &done).await;
    assert_eq!(
        (view.status, step(&view, "m").output.clone()),
        (RunStatus::Succeeded, Some(json!(["x", null, "z", "w"])))
    );

    let handle = engine.start(run("r3", vec![map("m", texts(&[]), 1, 0)])).await.unwrap();
    assert_eq!(step(&end(&engine, &handle).await, "m").output, Some(json!([])));
}

#[tokio::test(start_paused = true)]
async fn a_map_goes_on_after_a_pause_and_a_crash_in_the_middle_and_queued_children_can_be_skipped() {
    let world = World::new();
    for item in ["x", "y", "z", "w"] {
        world.slow(item, 100);
    }
    let kept = store();
    let first = builder(kept.share(), &world).build();
    let handle = first.start(run("r", vec![map("m", texts(&["x", "y", "z", "w"]), 1, 0)])).await.unwrap();
    pass(150).await;
    first.pause(handle.id(), by()).await.unwrap();
    assert_eq!(end(&first, &handle).await.status, RunStatus::Paused);
    first.act(handle.id(), Verb::Skip { step: name("m[z]") }, by()).await.unwrap();
    let handle = first.resume(handle.id(), by()).await.unwrap();
    pass(50).await;
    first.stop();
    handle.wait().await.unwrap();
    let second = builder(kept.reopen(), &world).build();
    let handle = second.recover().await.unwrap().runs.remove(0);
    let view = end(&second, &handle).await;
    assert_eq!((view.status, world.log()), (RunStatus::Succeeded, vec!["x".into(), "y".into(), "w".into()]));
    assert_eq!(step(&view, "m").output, Some(json!(["x", "y", null, "w"])));
}

#[tokio::test(start_paused = true)]
async fn a_rerun_reads_the_list_again_and_what_left_it_is_still_taken_back() {
    let world = World::new();
    let lists = Arc::new(Mutex::new(VecDeque::from([json!(["x", "y"]), json!(["y", "z"])])));
    let mut functions = FunctionRegistry::default();
    functions.insert("list", move |_| Ok(lists.lock().unwrap().pop_front().unwrap()));
    let engine = builder(store(), &world).functions(functions).build();
    let items =
        Binding::Function { name: "list".into(), argument: Box::new(Binding::output(&name("a"), "")) };
    let handle = engine.start(run("r", vec![act("a", &[]), map("m", items, 1, 0)])).await.unwrap();
    assert_eq!(end(&engine, &handle).await.status, RunStatus::Succeeded);
    let again = engine.act(handle.id(), Verb::Rerun { from: name("a") }, by()).await.unwrap().handle.unwrap();
    let view = end(&engine, &again).await;
    assert_eq!(step(&view, "m").output, Some(json!(["y", "z"])));
    assert_eq!(world.log(), ["a", "x", "y", "a", "y", "z"]);
    // One child alone, and the map collects again.
    let again =
        engine.act(handle.id(), Verb::Rerun { from: name("m[z]") }, by()).await.unwrap().handle.unwrap();
    assert_eq!(end(&engine, &again).await.status, RunStatus::Succeeded);
    assert_eq!((world.count("z"), world.count("y")), (2, 2));

    let back = engine.rollback(handle.id(), vec![], by()).await.unwrap();
    assert_eq!(end(&engine, &back).await.status, RunStatus::RolledBack);
    let log = world.log();
    let undone = |what: &str| log.iter().position(|l| l == what).unwrap();
    for child in ["undo x", "undo y", "undo z"] {
        assert!(undone(child) < undone("undo a"), "{log:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_map_is_not_done_again_while_its_children_act() {
    let world = World::new();
    world.slow("x", 100);
    let engine = engine(&world);
    let handle = engine.start(run("r", vec![map("m", texts(&["x"]), 0, 0)])).await.unwrap();
    pass(10).await;
    let refused = engine.act(handle.id(), Verb::Rerun { from: name("m") }, by()).await.unwrap_err();
    assert!(refused.to_string().contains("m[x]"), "{refused}");
    assert_eq!(end(&engine, &handle).await.status, RunStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_map_of_two_thousand_is_quick() {
    let world = World::new();
    let items: Vec<Value> = (0..2000).map(Value::from).collect();
    let engine = engine(&world);
    let handle = engine.start(run("r", vec![map("m", Binding::literal(json!(items)), 50, 0)])).await.unwrap();
    let view = end(&engine, &handle).await;
    assert_eq!(step(&view, "m").output, Some(json!(items)));
    assert_eq!(world.log().len(), 2000);
}

#[tokio::test(start_paused = true)]
async fn a_condition_is_asked_once_and_what_was_skipped_gives_null() {
    let world = World::new();
    let mut no = act("b", &[]);
    no.when = Some(Binding::output(&name("a"), "/go"));
    let steps = vec![
        of("a", Binding::literal(json!({"go": false})), &[]),
        no,
        of("c", Binding::output(&name("b"), ""), &[]),
    ];
    let engine = engine(&world);
    let handle = engine.start(run("r", steps)).await.unwrap();
    let view = end(&engine, &handle).await;
    assert_eq!((view.status, step(&view, "b").status), (RunStatus::Succeeded, StepStatus::Skipped));
    assert_eq!(step(&view, "c").output, Some(Value::Null));
    // A fork after a step that was skipped leaves it out too.
    let fork = engine.fork(handle.id(), &name("c"), None, by()).await.unwrap();
    let view = end(&engine, &fork).await;
    assert_eq!((view.status, step(&view, "b").status), (RunStatus::Succeeded, StepStatus::Skipped));
    assert_eq!((world.count("b"), world.count("null")), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn gates_wait_for_somebody_or_for_their_time() {
    for (timeout, default, on_reject, verb, expected) in [
        (None, None, OnReject::Fail, Some(true), RunStatus::Succeeded),
        (None, None, OnReject::Fail, Some(false), RunStatus::Failed),
        (None, None, OnReject::Continue, Some(false), RunStatus::Succeeded),
        (Some(60_000), None, OnReject::Fail, None, RunStatus::Failed),
        (Some(60_000), Some(true), OnReject::Fail, None, RunStatus::Succeeded),
        (Some(60_000), Some(false), OnReject::Fail, None, RunStatus::Failed),
        (Some(60_000), Some(false), OnReject::Continue, None, RunStatus::Succeeded),
    ] {
        let world = World::new();
        let engine = engine(&world);
        let steps = vec![gate(timeout, default, on_reject), act("a", &["g"])];
        let handle = engine.start(run("r", steps)).await.unwrap();
        pass(1).await;
        assert_eq!(handle.status().await.unwrap().status, RunStatus::Waiting);
        let step = name("g");
        match verb {
            Some(true) => drop(engine.act(handle.id(), Verb::Approve { step }, by()).await.unwrap()),
            Some(false) => drop(engine.act(handle.id(), Verb::Reject { step }, by()).await.unwrap()),
            None => {}
        }
        assert_eq!(end(&engine, &handle).await.status, expected, "{timeout:?} {default:?} {verb:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_gate_is_approved_while_the_run_stands_still_and_by_who_does_not_drive_it() {
    let world = World::new();
    let kept = store();
    let first = builder(kept.share(), &world).build();
    let steps = || vec![gate(None, None, OnReject::Fail), act("a", &["g"])];
    let paused = first.start(run("paused", steps())).await.unwrap();
    let left = first.start(run("left", steps())).await.unwrap();
    pass(1).await;
    first.pause(paused.id(), by()).await.unwrap();
    assert_eq!(end(&first, &paused).await.status, RunStatus::Paused);
    let acted = first.act(paused.id(), Verb::Approve { step: name("g") }, by()).await.unwrap();
    assert!(acted.handle.is_none() && world.log().is_empty(), "a paused run stays paused");
    first.stop();
    left.wait().await.unwrap();
    let second = builder(kept.reopen(), &world).build();
    second.note(left.id(), Verb::Approve { step: name("g") }, by()).await.unwrap();
    assert!(world.log().is_empty());
    for handle in [
        second.resume(paused.id(), by()).await.unwrap(),
        second.recover().await.unwrap().runs.into_iter().find(|h| h.id() == left.id()).unwrap(),
    ] {
        assert_eq!(end(&second, &handle).await.status, RunStatus::Succeeded);
    }
    assert_eq!(world.count("a"), 2);
}

#[tokio::test(start_paused = true)]
async fn signals_that_come_early_are_kept_in_order_across_a_restart() {
    let world = World::new();
    world.slow("a", 100);
    let kept = store();
    let first = builder(kept.share(), &world).build();
    let steps = vec![
        act("a", &[]),
        signal("s1", &["a"], None, None),
        signal("s2", &["s1"], None, None),
        signal("s3", &["s2"], Some(60_000), Some(json!("default"))),
        signal("s4", &["s3"], Some(60_000), None),
    ];
    let handle = first.start(run("r", steps)).await.unwrap();
    for n in 1..=2 {
        handle.signal("go", n, by()).await.unwrap();
    }
    first.stop();
    handle.wait().await.unwrap();
    let second = builder(kept.reopen(), &world).build();
    let handle = second.recover().await.unwrap().runs.remove(0);
    let view = end(&second, &handle).await;
    let outputs: Vec<_> = ["s1", "s2", "s3"].iter().map(|s| step(&view, s).output.clone().unwrap()).collect();
    assert_eq!(outputs, [json!(1), json!(2), json!("default")]);
    assert_eq!((view.status, code(&view, "s4")), (RunStatus::Failed, "SignalTimeout".into()));
    assert!(handle.signal("go", 3, by()).await.is_err(), "it has ended");
}

#[tokio::test(start_paused = true)]
async fn signals_have_a_limit() {
    let world = World::new();
    let engine = engine(&world);
    let handle = engine.start(run("r", vec![gate(None, None, OnReject::Fail)])).await.unwrap();
    for n in 0..1000 {
        handle.signal("later", n, by()).await.unwrap();
    }
    let refused = handle.signal("later", 1000, by()).await.unwrap_err();
    assert!(refused.to_string().contains("1000 signals"), "{refused}");
    engine.cancel(handle.id(), CancelMode::Keep, by()).await.unwrap();
    assert_eq!(end(&engine, &handle).await.status, RunStatus::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn what_another_step_was_about_to_do_stays_when_one_is_tried_again() {
    let world = World::new();
    world.fail("a", [terminal()]);
    world.slow("a", 5);
    world
        .fail("b", [ActivityError::retryable("Busy", "").no_effect().retry_after(Duration::from_secs(1000))]);
    let engine = engine(&world);
    let mut wanted = run("r", vec![act("a", &[]), act("b", &[])]);
    wanted.options.on_failure = OnTrouble::Fail;
    let handle = engine.start(wanted).await.unwrap();
    let view = end(&engine, &handle).await;
    let wake = step(&view, "b").wake;
    assert_eq!((view.status, wake.is_some()), (RunStatus::Failed, true));
    let again = engine.act(handle.id(), Verb::Retry { step: name("a") }, by()).await.unwrap().handle.unwrap();
    pass(100).await;
    let view = again.status().await.unwrap();
    assert_eq!((step(&view, "a").status, step(&view, "b").wake), (StepStatus::Succeeded, wake));
    assert_eq!(end(&engine, &again).await.status, RunStatus::Succeeded);
}
