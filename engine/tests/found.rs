//! What was found by writing programs against the engine.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::sync::Arc;

use dssflow_engine::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Serialize, Deserialize)]
struct Cents {
    cents: u32,
}

#[derive(Serialize, Deserialize)]
struct Money {
    amount: u32,
    currency: String,
}

async fn quote_cents(_ctx: ActivityCtx, cents: u32) -> ActivityResult<Cents> {
    Ok(Cents { cents })
}

async fn bill_cents(_ctx: ActivityCtx, quote: Cents) -> ActivityResult<String> {
    Err(ActivityError::terminal("Bug", format!("{} of what?", quote.cents)).no_effect())
}

async fn quote_money(_ctx: ActivityCtx, cents: u32) -> ActivityResult<Money> {
    Ok(Money { amount: cents, currency: "USD".to_owned() })
}

async fn bill_money(_ctx: ActivityCtx, quote: Money) -> ActivityResult<String> {
    Ok(format!("{} {}", quote.amount, quote.currency))
}

fn migrating(engine: EngineBuilder) -> Engine {
    let quote = ActivityName::new("bill/quote").unwrap();
    engine.migrate(quote, |old| Ok(json!({ "amount": old["cents"], "currency": "EUR" }))).build()
}

/// A run that failed at `bill` under the old types, and an engine of the next deployment on its store.
async fn half_done() -> (RunId, EngineBuilder) {
    let old = Workflow::<u32, String>::build("bill", |w| {
        let quote = w.step("quote", quote_cents, w.input());
        w.step("bill", bill_cents, &quote)
    });
    let new = Workflow::<u32, String>::build("bill", |w| {
        let quote = w.step("quote", quote_money, w.input());
        w.step("bill", bill_money, &quote)
    });
    let (old, new) = (old.unwrap(), new.unwrap().version(2));
    let store = Arc::new(MemoryStore::new(StoreId::generate([0; 16])));
    let engine = Engine::builder(store.clone()).register(&old).unwrap().build();
    let run = engine.submit(&old, 995).await.unwrap();
    assert_eq!(run.wait().await.unwrap().status, RunStatus::Failed);
    (run.id().clone(), Engine::builder(Arc::new(store.reopen())).register(&new).unwrap())
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_migrates_what_is_done() {
    let (run, engine) = half_done().await;
    let engine = migrating(engine);
    let end = engine.upgrade(&run, Request::by("me")).await.unwrap().typed::<String>();
    assert_eq!(end.result().await.unwrap(), "995 EUR");
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_without_a_migration_is_refused_and_leaves_the_run_as_it_was() {
    let (run, engine) = half_done().await;
    let engine = engine.build();
    let before = engine.history(&run, 0).await.unwrap().len();
    let refused = engine.upgrade(&run, Request::by("me")).await.unwrap_err();
    assert!(matches!(refused, EngineError::OutputChanged { .. }), "{refused}");
    assert_eq!(engine.history(&run, 0).await.unwrap().len(), before);
}
