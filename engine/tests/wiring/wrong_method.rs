//! An activity is given a limit that only waits have.

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
    let _ = Workflow::<u64, Payment>::build("wrong", |w| {
        w.step("pay", charge, w.input()).within(std::time::Duration::from_secs(1))
    });
}
