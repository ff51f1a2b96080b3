//! A month in a moment: a lab runs a workflow by a virtual clock, lets an activity fail, and its process crash on the way.
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::time::Duration;

use dssflow_engine::prelude::*;
use dssflow_engine::testing::{Fault, Faults, Lab, Rule};
use dssflow_engine::time::Timestamp;

const DAY: Duration = Duration::from_hours(24);

async fn remind(ctx: ActivityCtx, name: String) -> ActivityResult<Timestamp> {
    println!("{}: {name} is reminded", ctx.now());
    Ok(ctx.now())
}

// Paused: whenever nothing else can happen, time goes on to the next timer. In a test, `#[tokio::test(start_paused =
// true)]` does the same.
#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let reminder = Workflow::<String, Timestamp>::build("reminder", |w| {
        let month = w.sleep("month", 30 * DAY);
        w.step("remind", remind, w.input()).after(&month)
    })?;

    // The mail server is down for two days, and says so.
    let down = ActivityError::retryable("Down", "no answer").retry_after(DAY);
    let down = Rule::new(Fault::Fail(down)).step("remind").attempts(1..=2);
    let lab = Lab::new(|engine| engine.register(&reminder).expect("a workflow of its own"))
        .faults(Faults::new().with(down));
    // Once the run sleeps, the process dies; the next one goes on sleeping.
    lab.crash_after_event(2);

    let end = lab.run(reminder.start("ada".to_owned())?).await?;

    for event in lab.history(&end.run).await? {
        let kind = serde_json::to_value(&event.kind)?;
        println!("{}: {}", event.at, kind["type"].as_str().unwrap_or_default());
    }
    let reminded: Timestamp = serde_json::from_value(end.output.unwrap_or_default())?;
    let days = reminded.since(end.created).as_secs() / DAY.as_secs();
    println!("{days} days and {} crash later", lab.crashes());
    assert_eq!((end.status, days, lab.crashes()), (RunStatus::Succeeded, 32, 1));
    Ok(())
}
