//! W5 and W6: what many finished runs cost on disk and in memory, and what they cost a new run. Each in a process of
//! its own, so that its memory is its own.
#![expect(clippy::print_stdout, reason = "a child tells its parent its figures")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::bench::engine::{self, ONE_WRITER, STEPS, chain, many, one_chain, open};
use crate::bench::report::{Bar, Report, percentile};
use crate::bench::{Anything, Options, scratch};

/// W5: how many runs.
const RUNS: usize = 10_000;
/// How many are under way at once while they are made.
const AT_ONCE: usize = 1000;

/// Runs `count` runs to their end and says what that took.
pub(crate) async fn load(dir: &Path, count: usize) -> Anything<()> {
    let workflow = chain("short", STEPS)?;
    let engine = open(dir, &[&workflow]).await?;
    for _ in 0..count / AT_ONCE {
        many(&engine, &workflow, AT_ONCE).await?;
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = |name: &str| -> Anything<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such line")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    };
    println!("{}", json!({ "peak": kib("VmHWM:")?, "resident": kib("VmRSS:")?, "disk": bytes(dir)? }));
    Ok(())
}

/// W1 on a store that has many runs.
pub(crate) async fn w6_child(dir: &Path, rounds: usize) -> Anything<()> {
    let workflow = chain("chain", engine::CHAIN)?;
    let engine = open(dir, &[&workflow]).await?;
    one_chain(&engine, &workflow).await?;
    let mut took = Vec::new();
    for _ in 0..rounds {
        took.extend(one_chain(&engine, &workflow).await?.0);
    }
    let p99 = percentile(&mut took, 99);
    println!("{}", json!({ "p50": percentile(&mut took, 50), "p99": p99 }));
    Ok(())
}

/// What a directory takes on disk.
fn bytes(dir: &Path) -> Anything<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        sum += if meta.is_dir() { bytes(&entry.path())? } else { meta.blocks() * 512 };
    }
    Ok(sum)
}

fn child(role: &str, dir: &Path, count: usize) -> Anything<Value> {
    let output = Command::new(std::env::current_exe()?)
        .arg(format!("child-{role}"))
        .arg(dir)
        .arg(count.to_string())
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("the child {role} failed").into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A store of so many finished runs below a directory.
pub(crate) fn fill(dir: &Path, count: usize) -> Anything<PathBuf> {
    child("load", dir, count)?;
    Ok(dir.join("store"))
}

fn figure(value: &Value, name: &str) -> Anything<f64> {
    Ok(value[name].as_f64().ok_or("a child told something else")?)
}

/// Disk and memory, and W1 beside many finished runs.
pub(crate) fn w5_w6(options: &Options, report: &mut Report) -> Anything<()> {
    if options.wants("w5") {
        let place = scratch(&options.dir)?;
        let told = child("load", place.path(), RUNS)?;
        let disk = figure(&told, "disk")? / (RUNS * STEPS) as f64;
        let resident = figure(&told, "peak")? / 1024.0;
        report.figure("w5_disk", disk, "bytes/step", json!({ "runs": RUNS }));
        report.bar("w5_disk", disk, Bar::AtMost(1400.0));
        report.figure("w5_memory", resident, "MiB", json!({ "at_end_kib": told["resident"] }));
        report.bar("w5_memory", resident, Bar::AtMost(150.0));
    }
    if options.wants("w6") {
        let (empty, full) = (scratch(&options.dir)?, scratch(&options.dir)?);
        child("load", full.path(), options.finished)?;
        let rounds = options.rounds * 4;
        let alone = figure(&child("w6", empty.path(), rounds)?, "p50")?;
        let told = child("w6", full.path(), rounds)?;
        let beside = figure(&told, "p50")?;
        report.figure(
            "w6_p50",
            beside,
            "ms/step",
            json!({ "finished": options.finished, "alone": alone, "p99": told["p99"] }),
        );
        report.bar("w6_p50 / w1_p50", beside / alone, Bar::AtMost(1.2));
        report.beside("w6_p50", beside, ONE_WRITER);
    }
    Ok(())
}
