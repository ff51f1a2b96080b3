//! What whoever listens gets to hear.

use futures::StreamExt;

use dssflow_engine::run::RunStatus;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_slow_listener_hears_the_whole_history() {
    let world = World::new();
    world.slow("last", 100);
    let engine = engine(&world);
    // More batches than the channel keeps, while the reader sleeps.
    let mut steps: Vec<Step> = Vec::new();
    for n in 0..1500 {
        let before = steps.last().map(|s| s.name.as_str().to_owned());
        steps.push(act(&format!("s{n}"), &before.iter().map(String::as_str).collect::<Vec<_>>()));
    }
    steps.push(act("last", &["s1499"]));
    let handle = engine.start(run("r", steps)).await.unwrap();
    let mut stream = Box::pin(handle.events(0));
    let mut heard = vec![stream.next().await.unwrap().unwrap()];
    pass(50).await;
    while let Some(event) = stream.next().await {
        heard.push(event.unwrap());
    }
    assert_eq!(end(&engine, &handle).await.status, RunStatus::Succeeded);
    assert_eq!(heard, engine.history(handle.id(), 0).await.unwrap());
    let rest: Vec<_> = handle.events(3000).map(Result::unwrap).collect().await;
    assert_eq!(rest, engine.history(handle.id(), 3000).await.unwrap());
}
