//! What became of what a run made.

use dssflow_engine::run::RunStatus;
use dssflow_engine::runtime::{Finding, LookOptions};
use dssflow_engine::{EngineError, Step};
use serde_json::json;

use crate::support::{Shared, activities, engine_on, foreign, make, run_id, run_of, step, store};

#[tokio::test(start_paused = true)]
async fn changed_missing_foreign_and_broken_things_are_found() {
    let world = Shared::default();
    let engine = engine_on(store(), activities(&world));
    foreign(&world, "adopted");
    let steps = vec![
        make("fine", &[]),
        make("changed", &[]),
        make("gone", &[]),
        make("taken", &[]),
        make("broken", &[]),
        make("unseen", &[]),
        Step { adopt: true, ..make("adopted", &[]) },
        step("again", "again", json!(null)),
    ];
    let view = engine.start(run_of("r", steps)).await.unwrap().wait().await.unwrap();
    assert_eq!(view.status, RunStatus::Succeeded);
    let look = || async { engine.inspect(&run_id("r"), &LookOptions::default()).await.unwrap() };
    for step in look().await {
        let wanted = if step.step.as_str() == "again" { Finding::NotLooked } else { Finding::Fine };
        assert_eq!(step.finding, wanted, "{step:?}");
    }
    {
        let mut world = world.lock().unwrap();
        world.things.get_mut("changed").unwrap().value = json!(7);
        world.things.remove("gone");
        world.things.get_mut("taken").unwrap().marks = None;
        world.things.get_mut("broken").unwrap().broken = true;
        world.failing.insert("unseen".to_owned(), 1);
    }
    let changes = world.lock().unwrap().changes.len();
    let found = look().await;
    let of = |name: &str| found.iter().find(|s| s.step.as_str() == name).unwrap();
    for (name, finding) in [
        ("fine", Finding::Fine),
        ("changed", Finding::Changed),
        ("gone", Finding::Missing),
        ("taken", Finding::Foreign),
        ("broken", Finding::Broken),
        ("unseen", Finding::Unknown),
        ("adopted", Finding::Fine),
    ] {
        assert_eq!(of(name).finding, finding, "{:?}", of(name));
    }
    let difference = &of("changed").differences;
    assert_eq!((difference.len(), difference[0].at.as_str(), &difference[0].is), (1, "/value", &json!(7)));
    assert_eq!(of("gone").resources[0].id, "gone");
    assert_eq!(world.lock().unwrap().changes.len(), changes, "nothing was changed");
    let missing = engine.inspect(&run_id("nobody"), &LookOptions::default()).await;
    assert!(matches!(missing, Err(EngineError::NoSuchRun(_))));
}
