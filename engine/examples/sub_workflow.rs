//! A workflow as a step of another: a run of its own, which is rolled back with the one above.
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::sync::Arc;

use dssflow_engine::prelude::*;
use dssflow_engine::runtime::sub_run_id;

async fn pick(_ctx: ActivityCtx, item: String) -> ActivityResult<String> {
    println!("picked {item}");
    Ok(item)
}

async fn put_back(_ctx: ActivityCtx, was: Undoing<String, String>) -> ActivityResult<()> {
    println!("put {} back", was.input);
    Ok(())
}

async fn pack(_ctx: ActivityCtx, item: String) -> ActivityResult<String> {
    Ok(format!("parcel with {item}"))
}

async fn send(_ctx: ActivityCtx, parcel: String) -> ActivityResult<String> {
    Ok(format!("sent {parcel}"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let parcel = Workflow::<String, String>::build("parcel", |w| {
        let item = w.step("pick", pick, w.input()).undo(put_back);
        w.step("pack", pack, &item)
    })?;
    let order = Workflow::<String, String>::build("order", |w| {
        let packed = w.sub("parcel", &parcel, w.input());
        w.step("send", send, &packed)
    })?;
    let store = MemoryStore::new(StoreId::generate([0; 16]));
    // Registering the one registers the other too.
    let engine = Engine::builder(Arc::new(store)).register(&order)?.build();

    let run = engine.submit(&order, "book".to_owned()).await?;
    let answer = run.result().await?;
    println!("{answer}");
    assert_eq!(answer, "sent parcel with book");

    let below = sub_run_id(run.id(), &StepName::new("parcel")?);
    println!("the run below is {below}: {}", engine.view(&below).await?.status);

    // Somebody changes their mind: the run above goes back, and takes the one below with it.
    let back = engine.rollback(run.id(), Vec::new(), Request::by("ada")).await?.wait().await?;
    println!("the run above is {}", back.status);
    assert_eq!(back.status, RunStatus::RolledBack);
    assert_eq!(engine.view(&below).await?.status, RunStatus::RolledBack);
    Ok(())
}
