//! A condition is no bool.

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

async fn print(_: ActivityCtx, label: String) -> ActivityResult<()> {
    assert!(!label.is_empty());
    Ok(())
}

fn main() {
    let _ = Workflow::<u64, ()>::build("wrong", |w| {
        let paid = w.step("pay", charge, w.input());
        w.step("print", print, value("paid")).when(&paid)
    });
}
