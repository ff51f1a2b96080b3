//! The program that harnesses cut off while it does to a whole store what an owner does now and then.
//!
//! ```text
//! upkeep open PATH       opens a store, of an earlier format too, and closes it
//! upkeep compact PATH    compacts it
//! upkeep restore PATH    puts another store in its place: prints `filled` when that is whole, `restored` at the end
//! ```
#![expect(clippy::print_stderr, reason = "it is a command")]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use dssflow_durability::work;
use dssflow_store::{OpenOptions, SledStore};

type Anything<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// One write, so that a line is there whole or not at all.
fn print(line: &str) -> std::io::Result<()> {
    std::io::stdout().lock().write_all(line.as_bytes())
}

async fn act() -> Anything<()> {
    let mut words = std::env::args_os().skip(1);
    let verb = words.next().ok_or("do what?")?.to_string_lossy().into_owned();
    let path = PathBuf::from(words.next().ok_or("to which store?")?);
    match verb.as_str() {
        "open" => {
            let store = SledStore::open(&path, OpenOptions::default())?;
            print("opened\n")?;
            store.close().await?;
            print("closed\n")?;
        }
        "compact" => {
            SledStore::compact(&path, OpenOptions::default(), &mut |_| ())?;
            print("compacted\n")?;
        }
        "restore" => {
            let restore = work::restore(&path).await?;
            print("filled\n")?;
            restore.finish()?;
            print("restored\n")?;
        }
        other => return Err(format!("there is no {other}").into()),
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match act().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("upkeep: {error}");
            ExitCode::FAILURE
        }
    }
}
