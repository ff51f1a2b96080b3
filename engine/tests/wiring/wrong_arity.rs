//! A function takes two inputs and not one tuple.

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

async fn ship(_: ActivityCtx, payment: Payment, to: String) -> ActivityResult<Parcel> {
    assert!(payment.amount > 0);
    Ok(Parcel { to })
}

fn main() {
    let _ = Workflow::<u64, Parcel>::build("wrong", |w| {
        let paid = w.step("pay", charge, w.input());
        w.step("ship", ship, (&paid, value("Paris")))
    });
}
