//! `dssflow runs timeline`: when each attempt of each step ran, and what lay between.

use dssflow_engine::timeline::{self, Outcome, SpanKind, Timeline};

use crate::access::Access;
use crate::args::{TimelineArgs, TimelineFormat};
use crate::config::Settings;
use crate::describe;
use crate::error::{CommandResult, Exit};
use crate::gantt;
use crate::progress::now;
use crate::ui::Ui;

/// Columns where nobody says how many there are.
const COLUMNS: usize = 100;
/// The least and the most columns of a chart.
const NARROW: usize = 40;
const WIDE: usize = 200;

/// Draws it.
///
/// # Errors
/// When there is no such run, or it cannot be read.
pub(crate) async fn run(ui: &Ui, settings: &Settings, args: &TimelineArgs) -> CommandResult {
    let access = Access::open(&settings.store).await?;
    let found = look(&access, &args.run.run).await;
    access.close().await?;
    let (timeline, driven) = found?;
    match args.output {
        TimelineFormat::Text => {
            let width = args.width.map_or_else(|| Ui::columns().unwrap_or(COLUMNS), usize::from);
            let lines = gantt::lines(&timeline, width.clamp(NARROW, WIDE));
            ui.out(&lines.iter().map(|line| line.marked(ui)).collect::<Vec<_>>().join("\n"));
            if !driven && !timeline.status.is_end() {
                ui.note(&settings.address(&format!(
                    "nobody drives it since {}; go on: dssflow resume {}",
                    describe::when(timeline.end),
                    timeline.run
                )));
            }
        }
        TimelineFormat::Svg => ui.out(timeline::svg(&timeline).trim_end()),
        TimelineFormat::Json => ui.json(&timeline, true),
        TimelineFormat::Yaml => ui.yaml(&timeline),
    }
    Ok(Exit::Ok)
}

async fn look(access: &Access, selector: &str) -> CommandResult<(Timeline, bool)> {
    let run = access.resolve(selector).await?;
    let driven = access.is_driven(&run).await?;
    // The history first: a view that is newer than it would know steps to be done that the history does not.
    let mut history = access.events(&run, 0).await?;
    let view = access.view(&run).await?;
    let seen = history.last().map_or(0, |event| event.seq);
    if view.seq > seen {
        history.extend(access.events(&run, seen).await?);
    }
    let mut timeline = Timeline::of(&view, &history, driven.then(now));
    if driven {
        // What holds a step up now is known to who drives the run.
        let obstacles = access.obstacles(&run).await?;
        for row in &mut timeline.rows {
            let waits =
                row.spans.last_mut().filter(|s| s.kind == SpanKind::Queue && s.outcome == Outcome::Open);
            if let (Some(span), Some(held)) =
                (waits, obstacles.get(&row.step).filter(|held| !held.is_empty()))
            {
                span.note =
                    held.iter().map(|one| describe::obstacle(one, now())).collect::<Vec<_>>().join("; ");
            }
        }
    }
    Ok((timeline, driven))
}
