//! A closure gives away what it captured, so it could be called once only.

use dssflow_engine::prelude::*;

fn main() {
    let prefix = String::from("to ");
    let _ = Workflow::<String, String>::build("letter", |w| {
        w.step(
            "address",
            move |_ctx: ActivityCtx, name: String| async move { Ok::<_, ActivityError>(prefix + &name) },
            w.input(),
        )
    });
}
