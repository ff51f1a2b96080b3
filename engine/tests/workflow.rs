//! Every feature of the workflow builder, run to its end on the memory store and paused time.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dssflow_engine::prelude::*;
use dssflow_engine::runtime::clock::TokioClock;
use dssflow_engine::time::Timestamp;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u32,
    address: String,
    amount: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Payment {
    order: u32,
    amount: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Parcel {
    to: String,
    paid: u64,
}

/// What happened in the world outside, in order.
#[derive(Clone, Default)]
struct World(Arc<Mutex<Vec<String>>>);

impl World {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn seen(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

fn order() -> Order {
    Order { id: 7, address: "Paris".to_owned(), amount: 30 }
}

fn builder() -> EngineBuilder {
    Engine::builder(Arc::new(MemoryStore::new(StoreId::generate([7; 16]))))
        .clock(Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_000_000))))
}

async fn charge(ctx: ActivityCtx, order: Order) -> ActivityResult<Payment> {
    ctx.resource::<World>()?.note(format!("charge {}", order.amount));
    Ok(Payment { order: order.id, amount: order.amount })
}

async fn refund(ctx: ActivityCtx, was: Undoing<Order, Payment>) -> ActivityResult<()> {
    let paid = was.output.map(|p| p.amount);
    ctx.resource::<World>()?.note(format!("refund {} of order {}", paid.unwrap_or_default(), was.input.id));
    Ok(())
}

async fn ship(ctx: ActivityCtx, (payment, address): (Payment, String)) -> ActivityResult<Parcel> {
    ctx.resource::<World>()?.note(format!("ship to {address}"));
    if address == "nowhere" {
        return Err(ActivityError::terminal("NoSuchPlace", "nobody lives there"));
    }
    Ok(Parcel { to: address, paid: payment.amount })
}

#[tokio::test(start_paused = true)]
async fn a_saga_gives_what_its_last_step_gives() {
    let saga = Workflow::<Order, Parcel>::build("order", |w| {
        let order = w.input();
        let paid = w
            .step("pay", charge, &order)
            .undo(refund)
            .retry(RetryPolicy::attempts(5))
            .timeout(Duration::from_secs(30))
            .lock("till");
        w.step("ship", ship, (&paid, order.map(|o| o.address)))
    })
    .unwrap();
    let world = World::default();
    let engine = builder().register(&saga).unwrap().resource(world.clone()).build();
    let parcel = engine.run(&saga, order()).await.unwrap();
    assert_eq!(parcel, Parcel { to: "Paris".to_owned(), paid: 30 });
    assert_eq!(world.seen(), ["charge 30", "ship to Paris"]);
}
