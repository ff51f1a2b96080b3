//! A process that dies in the middle of a run, and the next one, which goes on. The first process is this program, started
//! once more, and its end is a real `abort`.
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use dssflow_engine::prelude::*;
use dssflow_store::OpenEngine as _;

type Anything<T> = Result<T, Box<dyn std::error::Error>>;

/// A file that both processes write into: what was called.
struct Calls(PathBuf);

/// Whether this process dies while it ships.
struct Dies(bool);

impl Calls {
    fn note(&self, what: &str) -> ActivityResult<()> {
        let noted = OpenOptions::new().create(true).append(true).open(&self.0);
        noted
            .and_then(|mut file| writeln!(file, "{what}"))
            .map_err(|e| ActivityError::retryable("File", e.to_string()))
    }
}

async fn pay(ctx: ActivityCtx, cents: u32) -> ActivityResult<String> {
    ctx.resource::<Calls>()?.note("pay")?;
    Ok(format!("receipt for {cents} cents"))
}

async fn ship(ctx: ActivityCtx, receipt: String) -> ActivityResult<String> {
    ctx.resource::<Calls>()?.note(&format!("ship, attempt {}", ctx.attempt()))?;
    if ctx.resource::<Dies>()?.0 {
        println!("first process: dies while it ships");
        std::process::abort();
    }
    Ok(format!("shipped, {receipt}"))
}

async fn open(dir: &Path, dies: bool) -> Anything<(Engine, Workflow<u32, String>)> {
    let order = Workflow::<u32, String>::build("order", |w| {
        let receipt = w.step("pay", pay, w.input());
        w.step("ship", ship, &receipt)
    })?;
    let engine = Engine::open(dir.join("store")).await?;
    let engine = engine.register(&order)?.resource(Calls(dir.join("calls"))).resource(Dies(dies)).build();
    Ok((engine, order))
}

async fn first_process(dir: &Path) -> Anything<()> {
    let (engine, order) = open(dir, true).await?;
    let id = RunId::new("order-7")?;
    let run = engine.submit_with(&order, 995, |start| start.id = Some(id)).await?;
    run.wait().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Anything<()> {
    if let Some(dir) = std::env::args_os().nth(1) {
        return first_process(Path::new(&dir)).await;
    }
    let dir = tempfile::tempdir()?;
    let died = Command::new(std::env::current_exe()?).arg(dir.path()).status()?;
    println!("second process: the first one ended with {died}");
    assert!(!died.success());

    let (engine, _) = open(dir.path(), false).await?;
    let recovered = engine.recover().await?;
    let run = recovered.runs.into_iter().next().ok_or("no run was under way")?.typed::<String>();
    println!("second process: goes on with {}", run.id());
    let answer = run.result().await?;
    println!("second process: {answer}");
    assert_eq!(answer, "shipped, receipt for 995 cents");

    // What was done stays done; what gave no answer was tried again.
    let calls = std::fs::read_to_string(dir.path().join("calls"))?;
    assert_eq!(calls, "pay\nship, attempt 1\nship, attempt 2\n");
    Ok(())
}
