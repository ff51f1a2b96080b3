//! A function is not async.

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

fn ship(_: ActivityCtx, payment: Payment) -> ActivityResult<Parcel> {
    assert!(payment.amount > 0);
    Ok(Parcel { to: String::new() })
}

fn main() {
    let _ = Workflow::<u64, Parcel>::build("wrong", |w| {
        let paid = w.step("pay", charge, w.input());
        w.step("ship", ship, &paid)
    });
}
