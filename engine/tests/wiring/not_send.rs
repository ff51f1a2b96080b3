//! A function holds what may not move between threads over an await.

use dssflow_engine::prelude::*;

async fn count(ctx: ActivityCtx, n: u64) -> ActivityResult<u64> {
    let shared = std::rc::Rc::new(n);
    ctx.cancelled().await;
    Ok(*shared)
}

fn main() {
    let _ = Workflow::<u64, u64>::build("wrong", |w| w.step("count", count, w.input()));
}
