//! A trip of three bookings. The last one fails for good, and the run takes the others back, in reverse.
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dssflow_engine::prelude::*;

/// What is booked in the world outside.
#[derive(Clone, Default)]
struct Bookings(Arc<Mutex<Vec<String>>>);

impl Bookings {
    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn book(ctx: ActivityCtx, what: String) -> ActivityResult<String> {
    if what == "hotel" {
        // The request was refused as a whole: it did nothing, so there is nothing to look for.
        return Err(ActivityError::terminal("Full", "no room is left").no_effect());
    }
    // A real service would be given `ctx.token("book")`, so that a second attempt books nothing twice.
    println!("{what}: booked");
    ctx.resource::<Bookings>()?.lock().push(what.clone());
    Ok(format!("{what}-1"))
}

/// Runs for every booking that started. "Not there" is success.
async fn cancel(ctx: ActivityCtx, was: Undoing<String, String>) -> ActivityResult<()> {
    println!("{}: cancelled, was {}", was.input, was.output.as_deref().unwrap_or("never confirmed"));
    ctx.resource::<Bookings>()?.lock().retain(|booked| *booked != was.input);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let trip = Workflow::<(), (String, String, String)>::build("trip", |w| {
        let flight = w.step("flight", book, workflow::value("flight")).undo(cancel);
        let car = w.step("car", book, workflow::value("car")).undo(cancel).after(&flight);
        let hotel = w.step("hotel", book, workflow::value("hotel")).undo(cancel).after(&car);
        (flight, car, hotel)
    })?
    .options(RunOptions { on_failure: OnTrouble::Rollback, ..RunOptions::default() });

    let bookings = Bookings::default();
    let store = MemoryStore::new(StoreId::generate([0; 16]));
    let engine = Engine::builder(Arc::new(store)).register(&trip)?.resource(bookings.clone()).build();

    let run = engine.submit(&trip, ()).await?;
    let error = run.result().await.expect_err("the hotel is full");
    println!("{error}");

    let end = run.wait().await?;
    for step in &end.steps {
        println!("{}: {}", step.step, step.status);
    }
    assert_eq!(end.status, RunStatus::RolledBack);
    assert!(bookings.lock().is_empty());
    println!("nothing is booked");
    Ok(())
}
