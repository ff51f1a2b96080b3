//! `store restore`: puts a backup in the place of a store that is damaged, or of none.

use std::path::Path;

use dssflow_engine::archive::{self, ArchiveReader, CopyError, Purpose};
use dssflow_engine::store::{Store as _, VerifyReport};
use dssflow_store::{OpenError, OpenOptions, Restore, id_offline, verify_offline};

use crate::args::RestoreArgs;
use crate::bar::{Bar, size};
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
pub(crate) async fn run(ui: &Ui, settings: &Settings, args: &RestoreArgs) -> CommandResult {
    let dir = &settings.store;
    // It is read twice, which a pipe is not.
    if std::fs::metadata(&args.file).is_ok_and(|meta| !meta.is_file() && !meta.is_dir())
        || args.file == Path::new("-")
    {
        return Err(CommandError::new(Code::File, format!("{} is no file", args.file.display()))
            .why("a backup is read once before anything is touched, and then put back")
            .hint("write it to a file first; one that is packed is unpacked first"));
    }
    let mut bar = Bar::new(ui);
    // Before anything is touched all of it is read once.
    let reader = ArchiveReader::open(copies::open(&args.file)?).map_err(CopyError::from)?;
    let header = reader.header().clone();
    if header.runs.is_some() {
        return Err(CommandError::new(Code::BadArchive, "the file has only some runs of its store")
            .why("a restore puts a whole store back")
            .hint(format!("bring its runs in as history: {} store import FILE", settings.command())));
    }
    if !args.salvage {
        copies::check(copies::open(&args.file)?, &mut bar).map_err(|error| {
            CommandError::from(CopyError::from(error))
                .hint("nothing was changed; use another copy of the backup, or --salvage to take the runs that are whole")
        })?;
    }
    drop(bar);
    match look(settings, &header.store)? {
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

    let mut bar = Bar::new(ui);
    let options = OpenOptions { command: "dssflow store restore".to_owned(), ..OpenOptions::default() };
    let (restore, store) =
        Restore::begin(dir, header.store.clone(), options).map_err(|error| match error {
            OpenError::Locked { holder, .. } => owner::locked(dir, holder.as_ref()),
            other => other.into(),
        })?;
    let mut reader = ArchiveReader::open(copies::open(&args.file)?).map_err(CopyError::from)?;
    let options = copies::put_options(Purpose::Restore, args.salvage, None);
    let mut progress = |copied: archive::Copied| {
        bar.at("putting back", copied.runs, 0, &format!("runs, {}", size(copied.bytes)));
    };
    let report = match copies::blocking(archive::put(&store, &mut reader, &options, &mut progress)) {
        Ok(report) => report,
        Err(error) => {
            drop(store);
            restore.give_up();
            return Err(CommandError::from(error).hint("the store that was here is as it was"));
        }
    };
    let checked = store.verify().await?;
    store.close().await?;
    if let Some(wrong) = checked.damage.first() {
        return Err(CommandError::new(
            Code::StoreFailed,
            "what was put back does not read as it was written",
        )
        .why(&wrong.what)
        .hint("the store that was here is as it was; check the disk"));
    }
    drop(store);
    let kept = restore.finish()?;
    drop(bar);

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

fn look(settings: &Settings, backup: &dssflow_engine::id::StoreId) -> CommandResult<Found> {
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
