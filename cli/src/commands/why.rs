//! `dssflow why RUN`: the reason it does not move, and the next command.

use dssflow_engine::run::view::RunView;

use crate::access::Access;
use crate::args::{ViewFormat, WhyArgs};
use crate::config::Settings;
use crate::control::Obstacles;
use crate::error::{CommandResult, Exit};
use crate::past;
use crate::progress::now;
use crate::ui::Ui;
use crate::why::{diagnose, lines};

/// Looks and judges.
pub(crate) async fn run(ui: &Ui, settings: &Settings, args: &WhyArgs) -> CommandResult {
    let access = Access::open(&settings.store).await?;
    let found = look(&access, &args.run.run).await;
    access.close().await?;
    let (view, driven, obstacles) = found?;
    let diagnosis = diagnose(&view, driven, &obstacles, now(), &settings.command());
    match args.output {
        ViewFormat::Table => ui.out(&lines(&diagnosis)),
        ViewFormat::Json => ui.json(&diagnosis, true),
        ViewFormat::Yaml => ui.yaml(&diagnosis),
    }
    Ok(Exit::Ok)
}

async fn look(access: &Access, selector: &str) -> CommandResult<(RunView, bool, Obstacles)> {
    let run = access.resolve(selector).await?;
    let (mut view, driven) = (access.view(&run).await?, access.is_driven(&run).await?);
    past::of(access, &view).await.mark(&mut view);
    let obstacles = if driven { access.obstacles(&run).await? } else { Obstacles::new() };
    Ok((view, driven, obstacles))
}
