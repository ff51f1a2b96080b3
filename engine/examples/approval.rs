//! A run that waits for a person. The question is durable: the process may end while it waits.
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use dssflow_engine::event::EventKind;
use dssflow_engine::prelude::*;
use futures::StreamExt;

async fn prepare(_ctx: ActivityCtx, version: String) -> ActivityResult<String> {
    Ok(format!("build of {version}"))
}

async fn publish(_ctx: ActivityCtx, (build, answer): (String, Approval)) -> ActivityResult<String> {
    Ok(format!("{build} published, approved by {}", answer.by))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let release = Workflow::<String, String>::build("release", |w| {
        let build = w.step("prepare", prepare, w.input());
        let answer = w.gate("ask", "Publish it?").within(Duration::from_hours(24)).after(&build);
        w.step("publish", publish, (&build, &answer))
    })?;
    let store = MemoryStore::new(StoreId::generate([0; 16]));
    let engine = Engine::builder(Arc::new(store)).register(&release)?.build();
    let run = engine.submit(&release, "1.4".to_owned()).await?;

    // Whoever shows questions to people follows the events; this one answers at once.
    let mut events = pin!(run.events(0));
    while let Some(event) = events.next().await {
        if let EventKind::WaitStarted { step, until } = event?.kind {
            println!("{step} waits for an answer, until {}", until.ok_or("it has a limit")?);
            let request = Request { by: "ada".to_owned(), reason: "looks good".to_owned() };
            engine.act(run.id(), Verb::Approve { step }, request).await?;
        }
    }

    let answer = run.result().await?;
    println!("{answer}");
    assert_eq!(answer, "build of 1.4 published, approved by ada");
    Ok(())
}
