//! A function for each item of a list that is known only at run time, two at once, one failure tolerated.
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::sync::Arc;

use dssflow_engine::prelude::*;

async fn list(_ctx: ActivityCtx, folder: String) -> ActivityResult<Vec<String>> {
    println!("{folder} has four files");
    Ok(["a.txt", "b.txt", "broken.txt", "c.txt"].map(str::to_owned).to_vec())
}

async fn count_words(_ctx: ActivityCtx, file: String) -> ActivityResult<usize> {
    if file.starts_with("broken") {
        return Err(ActivityError::terminal("Unreadable", format!("{file} is no text")));
    }
    Ok(file.len())
}

async fn sum(_ctx: ActivityCtx, counts: Vec<Option<usize>>) -> ActivityResult<(usize, usize)> {
    Ok((counts.iter().flatten().sum(), counts.iter().filter(|count| count.is_none()).count()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words = Workflow::<String, (usize, usize)>::build("words", |w| {
        let files = w.step("list", list, w.input());
        let counts = w.map("count", &files, count_words).max_concurrency(2).tolerate(1);
        w.step("sum", sum, &counts)
    })?;
    let store = MemoryStore::new(StoreId::generate([0; 16]));
    let engine = Engine::builder(Arc::new(store)).register(&words)?.build();

    let run = engine.submit(&words, "letters".to_owned()).await?;
    let (total, missing) = run.result().await?;
    for step in run.wait().await?.steps {
        println!("{}: {}", step.step, step.status);
    }
    println!("{total} words, {missing} file could not be read");
    assert_eq!((total, missing), (15, 1));
    Ok(())
}
