//! Workflows as steps of others.

use dssflow_engine::event::CancelMode;
use dssflow_engine::graph::OnParentClose;
use dssflow_engine::run::{OnTrouble, RunStatus, Verb};
use dssflow_engine::workflow::Definition;

use super::*;

fn sub(step: &str, on_parent_close: OnParentClose, after: &[&str]) -> Step {
    let kind_of =
        StepKind::SubWorkflow { workflow: "below".into(), input: Binding::literal(7), on_parent_close };
    kind(step, kind_of, after)
}

/// The workflow below: `x` does what it is given, and that is what it returns.
fn below() -> Definition {
    let x = of("x", Binding::Input { pointer: String::new() }, &[]);
    let graph = Graph::builder().step(x).step(act("y", &["x"])).output(Binding::output(&name("x"), ""));
    Definition::fixed(WorkflowName::new("below").unwrap(), 1, graph.build().unwrap())
}

fn with_below(kept: MemoryStore, world: &Arc<World>) -> Engine {
    builder(kept, world).definition(below()).build()
}

fn id(text: &str) -> RunId {
    RunId::new(text).unwrap()
}

async fn status(engine: &Engine, run: &str) -> RunStatus {
    engine.view(&id(run)).await.unwrap().status
}

#[tokio::test(start_paused = true)]
async fn its_output_is_the_steps_and_a_rollback_goes_down() {
    let world = World::new();
    let engine = with_below(store(), &world);
    let steps = vec![
        act("a", &[]),
        sub("s", OnParentClose::Cancel, &["a"]),
        of("b", Binding::output(&name("s"), ""), &[]),
    ];
    let handle = engine.start(run("r", steps)).await.unwrap();
    let view = end(&engine, &handle).await;
    assert_eq!((view.status, step(&view, "b").output.clone()), (RunStatus::Succeeded, Some(json!(7))));
    let view = engine.view(&id("r:s")).await.unwrap();
    assert_eq!(view.parent.unwrap().run, id("r"));
    let back = engine.rollback(handle.id(), vec![], by()).await.unwrap();
    assert_eq!(end(&engine, &back).await.status, RunStatus::RolledBack);
    assert_eq!(status(&engine, "r:s").await, RunStatus::RolledBack);
    assert_eq!(world.log(), ["a", "7", "y", "7", "undo 7", "undo y", "undo 7", "undo a"]);
}

#[tokio::test(start_paused = true)]
async fn its_failure_is_the_steps_and_trying_again_takes_the_same_run_further() {
    let world = World::new();
    world.fail("y", [ActivityError::terminal("No", "never").no_effect()]);
    let engine = with_below(store(), &world);
    let handle = engine.start(run("r", vec![sub("s", OnParentClose::Cancel, &[])])).await.unwrap();
    let view = end(&engine, &handle).await;
    assert_eq!((view.status, code(&view, "s")), (RunStatus::Failed, "SubWorkflowEnded".into()));
    let handle = engine.resume(handle.id(), by()).await.unwrap();
    assert_eq!(end(&engine, &handle).await.status, RunStatus::Succeeded);
    assert_eq!(world.log(), ["7", "y", "y"]);
    // Done once more it is another run; both are taken back.
    let again = engine.act(handle.id(), Verb::Rerun { from: name("s") }, by()).await.unwrap().handle.unwrap();
    assert_eq!(end(&engine, &again).await.status, RunStatus::Succeeded);
    assert_eq!((world.count("7"), world.count("y")), (2, 3));
    assert_eq!(status(&engine, "r:s/2").await, RunStatus::Succeeded);
    let back = engine.rollback(handle.id(), vec![], by()).await.unwrap();
    assert_eq!(end(&engine, &back).await.status, RunStatus::RolledBack);
    assert_eq!((world.count("undo 7"), world.count("undo y")), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_pause_goes_down_and_a_resume_comes_back_also_in_a_rollback() {
    let world = World::new();
    world.slow("7", 100);
    let engine = with_below(store(), &world);
    let handle = engine.start(run("r", vec![sub("s", OnParentClose::Cancel, &[])])).await.unwrap();
    pass(20).await;
    engine.pause(handle.id(), by()).await.unwrap();
    assert_eq!(end(&engine, &handle).await.status, RunStatus::Paused);
    assert_eq!(status(&engine, "r:s").await, RunStatus::Paused);
    let handle = engine.resume(handle.id(), by()).await.unwrap();
    assert_eq!(end(&engine, &handle).await.status, RunStatus::Succeeded);
    assert_eq!(world.log(), ["7", "y"]);
}

#[tokio::test(start_paused = true)]
async fn a_run_below_that_pauses_for_somebody_pauses_the_one_above() {
    let world = World::new();
    world.fail("y", [ActivityError::needs_human("Look", "here").no_effect()]);
    let engine = with_below(store(), &world);
    let handle = engine.start(run("r", vec![sub("s", OnParentClose::Cancel, &[])])).await.unwrap();
    let view = end(&engine, &handle).await;
    assert_eq!((view.status, code(&view, "s")), (RunStatus::Paused, "SubWorkflowPaused".into()));
    let handle = engine.resume(handle.id(), by()).await.unwrap();
    assert_eq!(end(&engine, &handle).await.status, RunStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_it_when_the_run_above_is_cancelled_or_terminated() {
    for (close, mode, expected) in [
        (OnParentClose::Cancel, CancelMode::Keep, RunStatus::Cancelled),
        (OnParentClose::Terminate, CancelMode::Keep, RunStatus::Cancelled),
        (OnParentClose::Abandon, CancelMode::Keep, RunStatus::Succeeded),
        (OnParentClose::Cancel, CancelMode::Terminate, RunStatus::Cancelled),
        (OnParentClose::Terminate, CancelMode::Terminate, RunStatus::Cancelled),
        (OnParentClose::Abandon, CancelMode::Terminate, RunStatus::Succeeded),
        (OnParentClose::Abandon, CancelMode::Rollback, RunStatus::RolledBack),
    ] {
        let world = World::new();
        world.slow("7", 100);
        let engine = with_below(store(), &world);
        let handle = engine.start(run("r", vec![act("a", &[]), sub("s", close, &["a"])])).await.unwrap();
        pass(20).await;
        engine.cancel(handle.id(), mode, by()).await.unwrap();
        let view = end(&engine, &handle).await;
        let above = if mode == CancelMode::Rollback { RunStatus::RolledBack } else { RunStatus::Cancelled };
        assert_eq!(view.status, above, "{close:?} {mode:?}");
        pass(200).await;
        assert_eq!(status(&engine, "r:s").await, expected, "{close:?} {mode:?}");
        if mode == CancelMode::Keep && expected == RunStatus::Cancelled {
            let handle = engine.resume(handle.id(), by()).await.unwrap();
            assert_eq!(end(&engine, &handle).await.status, RunStatus::Succeeded, "both go on");
            assert_eq!(world.log(), ["a", "7", "y"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_the_middle_leaves_both_to_go_on() {
    let world = World::new();
    world.slow("y", 100);
    let kept = store();
    let first = with_below(kept.share(), &world);
    let handle = first.start(run("r", vec![sub("s", OnParentClose::Cancel, &[])])).await.unwrap();
    pass(20).await;
    first.stop();
    handle.wait().await.unwrap();
    let second = with_below(kept.reopen(), &world);
    let recovered = second.recover().await.unwrap();
    assert!(recovered.parked.is_empty(), "{recovered:?}");
    let handle = second.handle(&id("r")).unwrap();
    assert_eq!(end(&second, &handle).await.status, RunStatus::Succeeded);
    assert_eq!(world.log(), ["7", "y"]);
    assert_eq!(second.list(Default::default()).await.unwrap().runs.len(), 2, "one run below, not two");
}

#[tokio::test(start_paused = true)]
async fn one_that_somebody_terminated_fails_its_step() {
    let world = World::new();
    world.slow("7", 100);
    let engine = with_below(store(), &world);
    let mut wanted = run("r", vec![sub("s", OnParentClose::Cancel, &[])]);
    wanted.options.on_failure = OnTrouble::Pause;
    let handle = engine.start(wanted).await.unwrap();
    pass(20).await;
    engine.terminate(&id("r:s"), by()).await.unwrap();
    let view = end(&engine, &handle).await;
    assert_eq!((view.status, code(&view, "s")), (RunStatus::Paused, "SubWorkflowEnded".into()));
}
