//! `store restore`: puts a backup in the place of a store that is damaged, or of none.

use std::path::{Path, PathBuf};

use dssflow_engine::archive::{self, ArchiveReader, Copied, CopyError, Purpose, PutReport};
use dssflow_engine::id::StoreId;
use dssflow_engine::store::{Store as _, VerifyReport};
use dssflow_store::{OpenError, OpenOptions, Restore, SledStore, id_offline, verify_offline};

use crate::args::RestoreArgs;
use crate::bar::{Told, beside, size};
use crate::commands::copies;
use crate::config::Settings;
use crate::describe;
use crate::error::{Code, CommandError, CommandResult};
use crate::owner;
use crate::ui::Ui;

/// What is where the backup is to go.
enum Found {
    Nothing,
    /// A store in which nothing is wrong.
    Whole {
        runs: u64,
        schedules: u64,
    },
    Damaged,
}

/// Runs it.
pub(crate) fn run(ui: &Ui, settings: &Settings, args: &RestoreArgs) -> CommandResult {
    let dir = &settings.store;
    // It is read twice, which a pipe is not.
    if std::fs::metadata(&args.file).is_ok_and(|meta| !meta.is_file() && !meta.is_dir())
        || args.file == Path::new("-")
    {
        return Err(CommandError::new(Code::File, format!("{} is no file", args.file.display()))
            .why("a backup is read once before anything is touched, and then put back")
            .hint("write it to a file first; one that is packed is unpacked first"));
    }
    // Before anything is touched all of it is read once.
    let reader = ArchiveReader::open(copies::open(&args.file)?).map_err(CopyError::from)?;
    let header = reader.header().clone();
    if header.runs.is_some() {
        return Err(CommandError::new(Code::BadArchive, "the file has only some runs of its store")
            .why("a restore puts a whole store back")
            .hint(format!("bring its runs in as history: {} store import FILE", settings.command())));
    }
    if !args.salvage {
        let file = copies::open(&args.file)?;
        beside(ui, "checking", |told| copies::check(file, told)).map_err(|error| {
            CommandError::from(CopyError::from(error))
                .hint("nothing was changed; use another copy of the backup, or --salvage to take the runs that are whole")
        })?;
    }
    match beside(ui, "looking at what is here", |_| look(settings, &header.store))? {
        Found::Nothing | Found::Damaged | Found::Whole { runs: 0, schedules: 0 } => {}
        Found::Whole { .. } if args.yes => {}
        Found::Whole { runs, schedules } => {
            let plural = if runs == 1 { "" } else { "s" };
            let schedules = match schedules {
                0 => String::new(),
                1 => " and 1 schedule".to_owned(),
                n => format!(" and {n} schedules"),
            };
            ui.confirm(&format!(
                "The store {} is whole and has {runs} run{plural}{schedules}. Put the backup of {} in its place?",
                dir.display(),
                describe::when(header.created)
            ))?;
        }
    }

    let (report, kept) =
        beside(ui, "putting back", |told| copies::blocking(put_back(dir, args, &header.store, told)))?;

    let command = settings.command();
    let when = describe::when(header.created);
    ui.note(&match report.runs {
        1 => format!("1 run is as it was on {when}"),
        n => format!("{n} runs are as they were on {when}"),
    });
    if let Some(kept) = kept {
        ui.note(&format!(
            "what was here is kept in {}; remove it when nothing in it is needed",
            kept.display()
        ));
    }
    if report.unfinished > 0 {
        let which = match report.unfinished {
            1 => "1 run had not ended and is paused".to_owned(),
            n => format!("{n} runs had not ended and are paused"),
        };
        ui.note(&format!(
            "{which}: what was done since is looked for when it goes on\nsee `{command} runs ls --status paused`, then \
             `{command} resume RUN`"
        ));
    }
    if report.schedules > 0 {
        let which = match report.schedules {
            1 => "1 schedule is paused".to_owned(),
            n => format!("{n} schedules are paused"),
        };
        ui.note(&format!(
            "{which}: what it started since is not known here\nsee `{command} schedules ls`, then \
             `{command} schedules unpause SCHEDULE`"
        ));
    }
    copies::incomplete(&report)
}

/// Fills a store beside the one that is here, and changes the two. What was begun is gone when it does not succeed.
async fn put_back(
    dir: &Path,
    args: &RestoreArgs,
    id: &StoreId,
    told: &Told,
) -> CommandResult<(PutReport, Option<PathBuf>)> {
    let options = OpenOptions { command: "dssflow store restore".to_owned(), ..OpenOptions::default() };
    let (restore, store) = Restore::begin(dir, id.clone(), options).map_err(|error| match error {
        OpenError::Locked { holder, .. } => owner::locked(dir, holder.as_ref()),
        other => other.into(),
    })?;
    let filled = fill(&store, args, told).await;
    // A store that is dropped lets go of its files, also when it could not be closed.
    drop(store);
    match filled {
        Ok(report) => Ok((report, restore.finish()?)),
        Err(error) => {
            restore.give_up();
            Err(error.hint("the store that was here is as it was"))
        }
    }
}

/// Puts the backup into a new store, reads it back and closes it.
async fn fill(store: &SledStore, args: &RestoreArgs, told: &Told) -> CommandResult<PutReport> {
    let mut reader = ArchiveReader::open(copies::open(&args.file)?).map_err(CopyError::from)?;
    let options = copies::put_options(Purpose::Restore, args.salvage, None);
    let mut progress = |copied: Copied| {
        told.at("putting back", copied.runs, copied.of, &format!("runs, {}", size(copied.bytes)));
    };
    let report = archive::put(store, &mut reader, &options, &mut progress).await?;
    told.begin("checking what was put back");
    let checked = store.verify().await?;
    store.close().await?;
    match checked.damage.first() {
        None => Ok(report),
        Some(wrong) => {
            Err(CommandError::new(Code::StoreFailed, "what was put back does not read as it was written")
                .why(&wrong.what)
                .hint("check the disk"))
        }
    }
}

fn look(settings: &Settings, backup: &StoreId) -> CommandResult<Found> {
    let dir = settings.store.as_path();
    let report = match tokio::task::block_in_place(|| verify_offline(dir)) {
        Ok(report) => report,
        Err(OpenError::NotFound { .. }) => return Ok(Found::Nothing),
        Err(OpenError::Locked { holder, .. }) => return Err(owner::locked(dir, holder.as_ref())),
        Err(error) => return Err(error.into()),
    };
    // A damaged store may still say whose it is.
    if let Some(here) = id_offline(dir).filter(|here| here != backup) {
        return Err(CommandError::new(
            Code::OtherStore,
            format!("the backup is of store {backup}, here is store {here}"),
        )
        .hint("restore it into a directory of its own: dssflow --store DIR store restore FILE")
        .hint(format!("or bring its runs in here as history: {} store import FILE", settings.command())));
    }
    if report.report.damage.is_empty() {
        let VerifyReport { runs, schedules, .. } = report.report;
        return Ok(Found::Whole { runs, schedules });
    }
    Ok(Found::Damaged)
}
