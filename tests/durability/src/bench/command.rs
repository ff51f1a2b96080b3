//! What a person waits for: the command's start, and a list of many runs.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::json;

use crate::bench::report::{Bar, Report, median, ms};
use crate::bench::{Anything, Options, load, scratch};

/// Finished runs in the store that is listed.
const LISTED: usize = 10_000;
/// Starts that are measured; a start is short, and the machine does other things.
const STARTS: usize = 21;

/// The median of the wall time of a program, from its start to its end, in milliseconds.
fn wall(program: &Path, args: &[&str]) -> Anything<f64> {
    let mut walls = Vec::new();
    for _ in 0..STARTS {
        let started = Instant::now();
        let output = Command::new(program).args(args).stdin(Stdio::null()).output()?;
        walls.push(ms(started.elapsed()));
        if !output.status.success() {
            return Err(format!("{} {args:?}: {output:?}", program.display()).into());
        }
    }
    Ok(median(walls))
}

/// Starts of the command beside those of a program that does nothing, and a list of many runs.
pub(crate) fn cli(options: &Options, report: &mut Report) -> Anything<()> {
    let program = options.program.as_ref().ok_or("which program?")?;
    let nothing = wall(Path::new("true"), &[])?;
    report.figure("cli_nothing", nothing, "ms", json!({ "program": "true" }));
    let version = wall(program, &["version"])?;
    report.figure("cli_version", version, "ms", json!({ "to_nothing": version / nothing }));
    let dir = scratch(&options.dir)?;
    let store = load::fill(dir.path(), LISTED)?;
    let store = store.to_str().ok_or("the directory's name is no text")?;
    let list = wall(program, &["--store", store, "runs", "ls"])?;
    report.figure("cli_runs_ls", list, "ms", json!({ "runs": LISTED, "to_version": list / version }));
    report.bar("cli_version", version, Bar::AtMost(15.0));
    report.bar("cli_runs_ls", list, Bar::AtMost(100.0));
    Ok(())
}
