//! A workflow ends with what it does not return.

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

fn main() {
    let _ = Workflow::<u64, Parcel>::build("wrong", |w| w.step("pay", charge, w.input()));
}
