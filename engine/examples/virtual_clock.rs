//! Thirty days in a moment: the engine sleeps by the clock it is given, and tokio moves a paused one by itself.
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::sync::Arc;
use std::time::Duration;

use dssflow_engine::prelude::*;
use dssflow_engine::runtime::clock::TokioClock;
use dssflow_engine::time::Timestamp;

const DAY: Duration = Duration::from_hours(24);

async fn remind(ctx: ActivityCtx, name: String) -> ActivityResult<Timestamp> {
    if ctx.attempt() < 3 {
        println!("{}: the mail server is down", ctx.now());
        return Err(ActivityError::retryable("Down", "no answer").retry_after(DAY));
    }
    println!("{}: {name} is reminded", ctx.now());
    Ok(ctx.now())
}

// Paused: whenever nothing else can happen, time goes on to the next timer.
#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let reminder = Workflow::<String, Timestamp>::build("reminder", |w| {
        let month = w.sleep("month", 30 * DAY);
        w.step("remind", remind, w.input()).after(&month)
    })?;
    let begin = Timestamp::from_millis(1_700_000_000_000);
    let store = MemoryStore::new(StoreId::generate([0; 16]));
    let engine = Engine::builder(Arc::new(store))
        .clock(Arc::new(TokioClock::starting_at(begin)))
        .register(&reminder)?
        .build();

    println!("{begin}: starts");
    let reminded = engine.run(&reminder, "ada".to_owned()).await?;
    // Thirty days of sleep, and two more until the mail server was back.
    println!("{} days later", reminded.since(begin).as_secs() / DAY.as_secs());
    assert_eq!(reminded.since(begin), 32 * DAY);
    Ok(())
}
