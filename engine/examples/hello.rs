//! The smallest workflow: two functions, wired by their types.
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::sync::Arc;

use dssflow_engine::prelude::*;

async fn greet(_ctx: ActivityCtx, name: String) -> ActivityResult<String> {
    println!("greeting {name}");
    Ok(format!("hello, {name}"))
}

async fn shout(_ctx: ActivityCtx, text: String) -> ActivityResult<String> {
    println!("shouting");
    Ok(text.to_uppercase())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let hello = Workflow::<String, String>::build("hello", |w| {
        let greeting = w.step("greet", greet, w.input());
        w.step("shout", shout, &greeting)
    })?;

    // A store in memory survives nothing; see `resume_after_crash` for one on disk.
    let store = MemoryStore::new(StoreId::generate([0; 16]));
    let engine = Engine::builder(Arc::new(store)).register(&hello)?.build();

    let answer = engine.run(&hello, "world".to_owned()).await?;
    println!("the run returned {answer:?}");
    assert_eq!(answer, "HELLO, WORLD");
    Ok(())
}
