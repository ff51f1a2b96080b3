//! A number that a step gave is the same for whoever reads it from the store later, to the last bit.

use dssflow_durability::dice::Dice;
use dssflow_durability::mutate::fleeting_dir;
use dssflow_engine::graph::Binding;
use dssflow_engine::id::{ActivityName, StepName, WorkflowName};
use dssflow_engine::{ActivityContext, ActivityRegistry, Engine, Graph, StartRun, Step};
use dssflow_store::OpenEngine as _;

const NUMBERS: usize = 1_000;

#[tokio::test]
async fn numbers_come_back_to_the_last_bit() {
    let mut dice = Dice::new(1);
    let numbers: Vec<f64> =
        (0..NUMBERS).map(|_| f64::from_bits(dice.draw())).filter(|n| n.is_finite()).collect();
    let dir = fleeting_dir().unwrap();
    let mut activities = ActivityRegistry::new();
    let given = numbers.clone();
    activities
        .add_fn("give", move |_: ActivityContext, (): ()| {
            let given = given.clone();
            async move { Ok(given) }
        })
        .unwrap();
    let (step, activity) = (StepName::new("give").unwrap(), ActivityName::new("give").unwrap());
    let graph = Graph::builder().step(Step::activity(step, activity, Binding::literal(()))).build().unwrap();

    let engine = Engine::open(dir.path().join("store")).await.unwrap().activities(activities).build();
    let run = engine.start(StartRun::new(WorkflowName::new("numbers").unwrap(), graph)).await.unwrap();
    let id = run.id().clone();
    run.wait().await.unwrap();
    let view = engine.view(&id).await.unwrap();
    let read: Vec<f64> = serde_json::from_value(view.steps[0].output.clone().unwrap()).unwrap();
    let changed = numbers.iter().zip(&read).filter(|(gave, read)| gave.to_bits() != read.to_bits()).count();
    assert_eq!((read.len(), changed), (numbers.len(), 0));
}
