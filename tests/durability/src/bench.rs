//! The bench program: the raw limit of the disk, the store alone, and the engine's workloads on the sled store with
//! steps that do nothing, all in one process against the same directory. Figures are ratios within one run; absolute
//! ones depend on the machine.

#![expect(clippy::cast_precision_loss, reason = "figures have fewer digits than that")]
#![expect(clippy::print_stderr, reason = "what is not as it should be is told to people")]

mod command;
mod engine;
mod load;
mod raw;
mod report;
mod resume;
mod writers;

use std::path::{Path, PathBuf};

use report::Report;

/// What can go wrong in a benchmark; it has nobody to mend it.
pub(crate) type Anything<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What is measured, in this order.
const NAMES: &[&str] = &["raw", "store", "w1", "w2", "w3", "w4", "w5", "w6", "w7", "cli"];
/// What needs the built command, and is left out unless it is asked for.
const CLI: &str = "cli";

/// What was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Stores are made in directories of their own below it.
    pub(crate) dir: PathBuf,
    /// How often each figure is measured; the median counts.
    pub(crate) rounds: usize,
    pub(crate) only: Vec<String>,
    /// Whether a missed bar is a failure.
    pub(crate) check: bool,
    /// How many finished runs W6 has beside it.
    pub(crate) finished: usize,
    /// The built command.
    pub(crate) program: Option<PathBuf>,
}

impl Options {
    fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            dir: std::env::temp_dir(),
            rounds: 5,
            only: NAMES.iter().filter(|name| **name != CLI).map(|name| (*name).to_owned()).collect(),
            check: false,
            finished: 100_000,
            program: None,
        };
        let mut args = args;
        while let Some(arg) = args.next() {
            if arg == "--check" {
                options.check = true;
                continue;
            }
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--dir" => options.dir = value()?.into(),
                "--rounds" => options.rounds = number(&value()?)?.max(1),
                "--finished" => options.finished = number(&value()?)?,
                "--program" => options.program = Some(value()?.into()),
                "--only" => {
                    options.only = value()?.split(',').map(str::to_owned).collect();
                    if let Some(name) = options.only.iter().find(|name| !NAMES.contains(&name.as_str())) {
                        return Err(format!("there is no {name}; there are: {}", NAMES.join(", ")));
                    }
                }
                _ => {
                    return Err(format!(
                        "{arg} is not known; usage: bench [--dir DIR] [--rounds N] [--finished N] [--program DSSFLOW] [--only {}] [--check]",
                        NAMES.join(",")
                    ));
                }
            }
        }
        if options.wants(CLI) && options.program.is_none() {
            return Err("cli needs --program, the built dssflow".to_owned());
        }
        Ok(options)
    }

    fn wants(&self, name: &str) -> bool {
        self.only.iter().any(|only| only == name)
    }
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("{text} is not a number"))
}

/// Measures what was asked for. `Ok(false)` when a bar was missed and `--check` given.
///
/// # Errors
/// On arguments that make no sense and on everything that goes wrong on the way.
pub fn main(mut args: impl Iterator<Item = String>) -> Anything<bool> {
    let first = args.next();
    if let Some(role) = first.as_deref().and_then(|first| first.strip_prefix("child-")) {
        return child(role, &mut args);
    }
    let options = Options::parse(first.into_iter().chain(args))?;
    if is_in_memory(&options.dir)? && options.only.iter().any(|name| name != CLI) {
        let why = format!(
            "{} is in memory, where a sync costs nothing: the figures say nothing of a disk; choose one with --dir",
            options.dir.display()
        );
        if options.check {
            return Err(why.into());
        }
        eprintln!("bench: {why}");
    }
    let mut report = Report::new(&options);
    let runtime = runtime()?;
    runtime.block_on(async {
        // The limits come first: everything else is compared with them.
        writers::limits(&options, &mut report).await?;
        if options.wants("w1") {
            engine::w1(&options, &mut report).await?;
        }
        if options.wants("w2") {
            engine::w2(&options, &mut report).await?;
        }
        if options.wants("w3") {
            engine::w3(&options, &mut report).await?;
        }
        if options.wants("w7") {
            engine::w7(&options, &mut report).await?;
        }
        if options.wants("w4") {
            resume::w4(&options, &mut report)?;
        }
        if options.wants("w5") || options.wants("w6") {
            load::w5_w6(&options, &mut report)?;
        }
        if options.wants(CLI) {
            command::cli(&options, &mut report)?;
        }
        Anything::Ok(())
    })?;
    Ok(report.end() || !options.check)
}

fn child(role: &str, args: &mut dyn Iterator<Item = String>) -> Anything<bool> {
    let path: PathBuf = args.next().ok_or("a child needs a path")?.into();
    let count = args.next().map(|text| number(&text)).transpose()?.unwrap_or(0);
    runtime()?.block_on(async {
        match role {
            "w2" => resume::first_life(&path).await,
            "resume" => resume::second_life(&path).await,
            "load" => load::load(&path, count).await,
            "w6" => load::w6_child(&path, count).await,
            _ => Err(format!("there is no child {role}").into()),
        }
    })?;
    Ok(true)
}

/// Whether what is written there never reaches a disk.
fn is_in_memory(dir: &Path) -> Anything<bool> {
    // The type of `f_type` differs between platforms; the magic numbers of tmpfs and ramfs have 32 bits.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the rest of the bits are zeros"
    )]
    let magic = rustix::fs::statfs(dir)?.f_type as u32;
    Ok([0x0102_1994, 0x8584_58f6].contains(&magic))
}

fn runtime() -> Anything<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// A new directory that is removed with what it holds.
pub(crate) fn scratch(dir: &Path) -> Anything<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix("dssflow-bench-").tempdir_in(dir)?)
}
