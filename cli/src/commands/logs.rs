//! `dssflow runs logs`: what was said while a run was driven. The files are read where they lie, whoever drives.

use std::time::Duration;

use dssflow_engine::id::RunId;
use tracing::Level;

use super::target::step_of;
use crate::access::Access;
use crate::args::{EventsFormat, LogsArgs};
use crate::config::Settings;
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::logging::runs::Reader;
use crate::logging::{self, Record};
use crate::ui::Ui;

/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Prints a log, and goes on as long as the run is driven when that is wanted.
pub(crate) async fn run(ui: &Ui, settings: &Settings, args: &LogsArgs) -> CommandResult {
    let wanted = Wanted::of(args)?;
    let access = Access::open(&settings.store).await?;
    let run = access.resolve(&args.run.run).await;
    let step = match (&run, &args.step) {
        (Ok(run), Some(step)) => access.view(run).await.and_then(|view| step_of(&view, step)).map(drop),
        _ => Ok(()),
    };
    // Nobody is kept from driving a run by somebody who reads its log.
    access.close().await?;
    let run = run?;
    let mut reader = Reader::new(&settings.store, &run);
    let mut records = read(&mut reader, &run)?;
    let nothing = records.is_empty();
    records.retain(|record| wanted.has(record));
    if records.is_empty() {
        // A step that the run does not have any more may still be in its log.
        step?;
    }
    if let Some(lines) = args.lines {
        records.drain(..records.len().saturating_sub(lines));
    }
    if args.output == EventsFormat::Json && !args.follow {
        ui.json(&records, true);
        return Ok(Exit::Ok);
    }
    for record in &records {
        print(ui, record, args.output);
    }
    if nothing && !args.follow {
        ui.note(&format!(
            "nothing is logged of run {run}: it was driven by another version, or its log was removed"
        ));
    }
    while args.follow && !ui.is_closed() {
        // Asked first: what is written before the end of the drive is then read below.
        let driven = is_driven(settings, &run).await;
        for record in read(&mut reader, &run)?.iter().filter(|record| wanted.has(record)) {
            print(ui, record, args.output);
        }
        if !driven {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(Exit::Ok)
}

fn read(reader: &mut Reader, run: &RunId) -> CommandResult<Vec<Record>> {
    reader
        .next()
        .map_err(|e| CommandError::new(Code::File, format!("the log of run {run} cannot be read")).why(e))
}

async fn is_driven(settings: &Settings, run: &RunId) -> bool {
    let Ok(access) = Access::open(&settings.store).await else { return false };
    let driven = access.is_driven(run).await.unwrap_or(false);
    drop(access.close().await);
    driven
}

fn print(ui: &Ui, record: &Record, output: EventsFormat) {
    match output {
        EventsFormat::Table => ui.out(&record.text(false)),
        EventsFormat::Json | EventsFormat::Jsonl => ui.json(record, false),
    }
}

/// Which lines are wanted.
pub(crate) struct Wanted {
    step: Option<String>,
    level: Option<Level>,
}

impl Wanted {
    fn of(args: &LogsArgs) -> CommandResult<Self> {
        Self::new(args.step.clone(), args.level.as_deref())
    }

    /// Those of a step, and those of a level and above.
    ///
    /// # Errors
    /// When it is no level.
    pub(crate) fn new(step: Option<String>, level: Option<&str>) -> CommandResult<Self> {
        let level = level.map(|text| {
            logging::level(text).ok_or_else(|| {
                CommandError::new(Code::Usage, format!("{text:?} is no log level"))
                    .hint("levels are error, warn, info, debug, trace")
            })
        });
        Ok(Self { step, level: level.transpose()? })
    }

    /// Whether a line is one of them.
    pub(crate) fn has(&self, record: &Record) -> bool {
        self.step.as_ref().is_none_or(|step| record.ids.step.as_ref() == Some(step))
            // The less important a level is, the greater.
            && self.level.is_none_or(|most| logging::level(&record.level).is_none_or(|level| level <= most))
    }
}
