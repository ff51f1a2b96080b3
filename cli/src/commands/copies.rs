//! Copies of a store in files: `store backup`, `store export`, `store import`, `runs export`, `runs import`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read as _, Write};
use std::path::Path;

use dssflow_engine::archive::{
    self, ArchiveError, ArchiveReader, Copied, CopyError, CopyOptions, Part, Purpose, PutOptions, PutReport,
    Totals,
};
use dssflow_engine::event::Request;
use dssflow_engine::id::RunId;
use dssflow_store::{ExportError, ExportReport, OpenError, export_offline};

use crate::access::Access;
use crate::args::{BackupArgs, ExportArgs, ImportArgs, RunExportArgs};
use crate::bar::{Told, beside, size};
use crate::config::{self, Settings};
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::outfile::{self, OutFile};
use crate::owner;
use crate::progress::now;
use crate::ui::{Ui, one_line};

/// How many lost runs are told one by one.
const MAX_TOLD: usize = 20;

/// What an archive says of who wrote it.
pub(crate) fn product() -> String {
    format!("dssflow {}", env!("CARGO_PKG_VERSION"))
}

pub(crate) fn copy_options(runs: Option<Vec<RunId>>) -> CopyOptions {
    CopyOptions { now: now(), product: product(), runs }
}

/// Where an archive goes.
enum Out {
    File(BufWriter<OutFile>),
    Stdout(BufWriter<io::Stdout>),
}

impl Out {
    fn create(path: &Path, force: bool) -> CommandResult<Self> {
        Ok(if path == Path::new("-") {
            Self::Stdout(BufWriter::new(io::stdout()))
        } else {
            Self::File(BufWriter::new(OutFile::create(path, force)?))
        })
    }

    /// Makes it final. A file is read back first; it must say what was written.
    fn finish(self, path: &Path, totals: Option<Totals>, told: &Told) -> CommandResult<()> {
        match self {
            Self::Stdout(mut out) => out.flush().map_err(|error| outfile::failed(path, &error)),
            Self::File(out) => {
                let file = out.into_inner().map_err(|error| outfile::failed(path, error.error()))?;
                let found = check(BufReader::new(file.written()?), told)
                    .map_err(|error| CommandError::from(CopyError::from(error)))?;
                if totals.is_some_and(|totals| totals != found) {
                    return Err(CommandError::new(
                        Code::BadArchive,
                        format!("{} does not read back as it was written", path.display()),
                    ));
                }
                file.finish()
            }
        }
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(out) => out.write(bytes),
            Self::Stdout(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(out) => out.flush(),
            Self::Stdout(out) => out.flush(),
        }
    }
}

/// Reads an archive to its end and says what it has.
pub(crate) fn check(input: impl BufRead, told: &Told) -> Result<Totals, ArchiveError> {
    told.begin("checking");
    let mut reader = ArchiveReader::open(input)?;
    while let Some(part) = reader.next_part()? {
        if matches!(part, Part::EndOfRun(_)) {
            told.at("checking", reader.totals().runs, 0, "runs");
        }
    }
    Ok(reader.totals())
}

/// Does what waits for the store and writes to files, on this thread.
pub(crate) fn blocking<T>(work: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work))
}

fn show(told: &Told, doing: &str, copied: Copied) {
    told.at(doing, copied.runs, copied.of, &format!("runs, {}", size(copied.bytes)));
}

/// Refuses a file in the store's own directory: what is no part of a store keeps it from opening.
pub(crate) fn outside(store: &Path, file: &Path) -> CommandResult<()> {
    let parent = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (Ok(parent), Ok(store)) = (parent.canonicalize(), store.canonicalize()) else { return Ok(()) };
    if file == Path::new("-") || !parent.starts_with(store) {
        return Ok(());
    }
    Err(CommandError::new(
        Code::File,
        format!("{} would lie in the store's own directory; nothing was written", file.display()),
    )
    .hint("choose a place outside of it, best on another disk"))
}

/// `store backup`.
pub(crate) async fn backup(ui: &Ui, settings: &Settings, args: &BackupArgs) -> CommandResult {
    outside(&settings.store, &args.file)?;
    let access = Access::open_as(&settings.store, "dssflow store backup").await?;
    let result = copy_out(ui, &access, &args.file, args.force, None);
    access.close().await?;
    let totals = result?;
    told(ui, &args.file, totals);
    Ok(Exit::Ok)
}

/// `runs export`.
pub(crate) async fn export_run(ui: &Ui, access: &Access, args: &RunExportArgs) -> CommandResult {
    let run = access.resolve(&args.run).await?;
    let totals = copy_out(ui, access, &args.output, args.force, Some(run))?;
    told(ui, &args.output, totals);
    Ok(Exit::Ok)
}

/// Writes an archive of a store that is whole, through its owner when it has one.
fn copy_out(ui: &Ui, access: &Access, path: &Path, force: bool, run: Option<RunId>) -> CommandResult<Totals> {
    let mut out = Out::create(path, force)?;
    beside(ui, "copying", |told| match access {
        Access::Store(store) => {
            let options = copy_options(run.map(|run| vec![run]));
            let mut progress = |copied| show(told, "copying", copied);
            let copy = archive::write(store.as_ref(), out, options, &mut progress);
            let (out, made) = blocking(copy).map_err(|error| writing(path, error))?;
            out.finish(path, Some(made.totals), told)?;
            Ok(made.totals)
        }
        Access::Owner(client) => {
            let mut bytes = 0;
            let mut tail = Tail::default();
            blocking(client.archive(run.as_ref(), &mut |data| {
                bytes += data.len() as u64;
                told.at("copying", bytes / 1024, 0, "KiB");
                tail.take(data);
                out.write_all(data).map_err(|error| outfile::failed(path, &error))
            }))?;
            let totals = tail.totals().ok_or_else(|| {
                CommandError::new(
                    Code::StoreFailed,
                    "the process that owns the store broke the copy off; nothing was written",
                )
                .hint("try again; `dssflow store verify` says whether the store is whole")
            })?;
            out.finish(path, Some(totals), told)?;
            Ok(totals)
        }
    })
}

/// The end of a stream, where an archive says that it is whole.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    /// More than the last line of an archive has.
    const LEN: usize = 1024;

    fn take(&mut self, data: &[u8]) {
        self.0.extend_from_slice(&data[data.len().saturating_sub(Self::LEN)..]);
        let excess = self.0.len().saturating_sub(Self::LEN);
        self.0.drain(..excess);
    }

    fn totals(&self) -> Option<Totals> {
        let text = self.0.strip_suffix(b"\n")?;
        let last = text.rsplit(|byte| *byte == b'\n').next()?;
        let line: serde_json::Value = serde_json::from_slice(last).ok()?;
        serde_json::from_value(line.get("end")?.clone()).ok()
    }
}

fn told(ui: &Ui, path: &Path, totals: Totals) {
    if path != Path::new("-") {
        let plural = if totals.runs == 1 { "" } else { "s" };
        let schedules = match totals.schedules {
            0 => String::new(),
            1 => ", 1 schedule".to_owned(),
            n => format!(", {n} schedules"),
        };
        ui.note(&format!(
            "{} run{plural}, {} records{schedules} saved to {}",
            totals.runs,
            totals.records,
            path.display()
        ));
    }
}

/// An archive that could not be written.
fn writing(path: &Path, error: CopyError) -> CommandError {
    match error {
        CopyError::Io(error) => outfile::failed(path, &error),
        other => {
            let made = CommandError::from(other);
            if made.code == Code::StoreDamaged {
                made.hint("`dssflow store export -o FILE` saves what can be read")
            } else {
                made
            }
        }
    }
}

/// `store export`: from the files when nobody owns the store, so that a damaged one can be saved.
pub(crate) async fn export(ui: &Ui, settings: &Settings, args: &ExportArgs) -> CommandResult {
    let runs = args.run.iter().map(|run| {
        RunId::new(run.as_str()).map_err(|error| CommandError::new(Code::Usage, error.to_string()))
    });
    let runs = runs.collect::<CommandResult<Vec<_>>>()?;
    let wanted = (!runs.is_empty()).then_some(runs);
    outside(&settings.store, &args.output)?;
    let out = Out::create(&args.output, args.force)?;
    let written = beside(ui, "looking at the store", |told| {
        let mut progress = |copied| show(told, "saving", copied);
        blocking(export_offline(&settings.store, out, copy_options(wanted.clone()), &mut progress))
    });
    let (out, report) = match written {
        Ok(written) => written,
        Err(ExportError::Open(OpenError::Locked { .. })) => {
            return export_owned(ui, settings, args, wanted).await;
        }
        Err(ExportError::Open(error @ OpenError::Damaged { .. })) => {
            return Err(CommandError::new(Code::StoreDamaged, error.to_string())
                .hint("put the last backup back: dssflow store restore BACKUP; what is here is kept"));
        }
        Err(ExportError::Open(error)) => return Err(error.into()),
        Err(ExportError::Copy(error)) => return Err(writing(&args.output, error)),
    };
    let totals = Some(report.made.totals);
    beside(ui, "checking", |told| out.finish(&args.output, totals, told))?;
    told(ui, &args.output, report.made.totals);
    losses(ui, settings, &report)
}

async fn export_owned(
    ui: &Ui,
    settings: &Settings,
    args: &ExportArgs,
    runs: Option<Vec<RunId>>,
) -> CommandResult {
    let run = match runs.as_deref() {
        None => None,
        Some([run]) => Some(run.clone()),
        Some(_) => {
            return Err(CommandError::new(Code::Usage, "from a store in use one run or all are exported")
                .hint("give --run once, or wait until nobody owns the store"));
        }
    };
    let access = Access::open(&settings.store).await?;
    let result = copy_out(ui, &access, &args.output, args.force, run);
    access.close().await?;
    told(ui, &args.output, result?);
    Ok(Exit::Ok)
}

/// Says what an export has not got.
fn losses(ui: &Ui, settings: &Settings, report: &ExportReport) -> CommandResult {
    for lost in report.lost.iter().take(MAX_TOLD) {
        let what = one_line(&lost.what);
        let until = lost.until.map_or_else(String::new, |until| format!(" of {until}"));
        ui.note(&match lost.from {
            1 => format!("lost  run {}: all of it: {what}", lost.run),
            from => format!("lost  run {}: from event {from}{until} on: {what}", lost.run),
        });
    }
    if report.lost.len() > MAX_TOLD {
        ui.note(&format!("lost  {} more runs", report.lost.len() - MAX_TOLD));
    }
    if report.damage.is_empty() && report.lost.is_empty() {
        return Ok(Exit::Ok);
    }
    let message = match report.lost.len() {
        0 => "the store is damaged; every run that is in it was saved".to_owned(),
        1 => "the store is damaged; 1 run was not saved as a whole".to_owned(),
        n => format!("the store is damaged; {n} runs were not saved as a whole"),
    };
    let error = CommandError::new(Code::StoreDamaged, message);
    let error = match report.damage.first() {
        Some(first) => error.why(one_line(&first.what)),
        None => error,
    };
    Err(error
        .hint(format!("put a backup back, or what was saved: {} store restore FILE", settings.command()))
        .hint("what is in the directory is kept by that"))
}

/// Opens an archive on disk or stdin.
pub(crate) fn open(path: &Path) -> CommandResult<Box<dyn BufRead + Send>> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let failed = |error: io::Error| {
        CommandError::new(Code::File, format!("failed to read {}", path.display())).why(error)
    };
    let mut file = File::open(path).map_err(failed)?;
    // A directory opens and fails when it is read.
    let mut nothing = [0; 0];
    file.read_exact(&mut nothing).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(CommandError::new(Code::File, format!("{} is a directory", path.display())));
    }
    Ok(Box::new(BufReader::new(file)))
}

pub(crate) fn put_options(purpose: Purpose, salvage: bool, runs: Option<BTreeSet<RunId>>) -> PutOptions {
    PutOptions { purpose, now: now(), request: Request::by(config::user()), runs, salvage }
}

/// `store import` and `runs import`.
pub(crate) async fn import(ui: &Ui, settings: &Settings, args: &ImportArgs) -> CommandResult {
    let mut reader = ArchiveReader::open(open(&args.file)?).map_err(CopyError::from)?;
    let store = owner::open_to_drive(&settings.store, "dssflow store import", true).await?;
    let options = put_options(Purpose::Import, args.salvage, None);
    let result = beside(ui, "bringing in", |told| {
        let mut progress = |copied| show(told, "bringing in", copied);
        blocking(archive::put(store.as_ref(), &mut reader, &options, &mut progress))
    });
    owner::close(store).await?;
    let report = result.map_err(|error| {
        let cut =
            matches!(error, CopyError::Archive(_) | CopyError::BadRun { .. } | CopyError::BadGraph { .. });
        let error = CommandError::from(error);
        if cut && !args.salvage {
            error.hint("runs that came before that are here already; --salvage takes every run that is whole")
        } else {
            error
        }
    })?;
    ui.note(&format!(
        "{} of store {} came in as history; `{} runs ls` shows what is here",
        if report.runs == 1 { "1 run".to_owned() } else { format!("{} runs", report.runs) },
        reader.header().store,
        settings.command()
    ));
    if report.existing > 0 {
        let first =
            report.first_existing.as_ref().map_or_else(String::new, |run| format!(", {run} among them"));
        ui.note(&format!("{} runs were here already{first}, and stay as they are", report.existing));
    }
    if report.schedules_left > 0 {
        ui.note(&format!("its schedules stay out ({}): they are the other store's", report.schedules_left));
    }
    incomplete(&report)
}

/// What a copy that went on past damage did not get.
pub(crate) fn incomplete(report: &PutReport) -> CommandResult {
    let Some(first) = report.lost.first() else { return Ok(Exit::Ok) };
    let n = report.lost.len();
    let plural = if n == 1 { "" } else { "s" };
    Err(CommandError::new(
        Code::BadArchive,
        format!("the backup is damaged in {n} place{plural}; what is whole was taken"),
    )
    .why(one_line(&first.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_stream_says_whether_it_is_whole() {
        let mut tail = Tail::default();
        tail.take(&[b'x'; 5_000]);
        tail.take(b"\n{\"end\":{\"runs\":3,\"records\":7,\"graphs\":1},\"sum\":\"0123456789abcdef\"}");
        assert_eq!(tail.totals(), None, "without its line end it is cut off");
        tail.take(b"\n");
        assert_eq!(tail.totals().map(|totals| (totals.runs, totals.records)), Some((3, 7)));
        tail.take(b"more\n");
        assert_eq!(tail.totals(), None);
    }
}
