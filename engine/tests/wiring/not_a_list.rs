//! A map goes over what is no list.

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
    let _ = Workflow::<u64, Vec<Payment>>::build("wrong", |w| w.map("pay", w.input(), charge));
}
