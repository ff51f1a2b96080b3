//! The undo is that of another step.

use dssflow_engine::prelude::*;

#[derive(serde::Serialize, serde::Deserialize)]
struct Payment {
    amount: u64,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Parcel {
    to: String,
}

async fn charge(_: ActivityCtx, amount: u64) -> ActivityResult<Payment> {
    Ok(Payment { amount })
}

async fn call_back(_: ActivityCtx, _: Undoing<Payment, Parcel>) -> ActivityResult<()> {
    Ok(())
}

fn main() {
    let _ = Workflow::<u64, Payment>::build("wrong", |w| w.step("pay", charge, w.input()).undo(call_back));
}
