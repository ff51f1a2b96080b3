//! From the parsed command line to the command: one file each.

mod adopt;
pub(crate) mod again;
mod capture;
pub(crate) mod compact;
pub(crate) mod config;
pub(crate) mod copies;
mod decide;
pub(crate) mod drift;
mod explain;
mod graph;
mod ground;
pub(crate) mod help;
pub(crate) mod image;
mod init;
pub(crate) mod logs;
mod man;
mod pause;
pub(crate) mod plan;
pub(crate) mod preflight;
pub(crate) mod prune;
pub(crate) mod resources;
mod restore;
mod resume;
pub(crate) mod resync;
mod rollback;
pub(crate) mod rollback_plan;
pub(crate) mod run;
mod runs;
pub(crate) mod sandbox;
mod schedules;
mod serve;
pub(crate) mod store;
mod target;
pub(crate) mod teardown;
pub(crate) mod teardown_plan;
mod timeline;
pub(crate) mod version;
mod why;
mod workflows;

use std::future::Future;

use crate::args::{Cli, Command, DssCommand, LogFormat};
use crate::completions;
use crate::config::{self as settings, Settings};
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::logging;
use crate::ui::Ui;

/// Runs the command.
///
/// # Errors
/// What kept it from doing as asked.
pub(crate) fn run(ui: &Ui, cli: Cli) -> CommandResult {
    // These need neither store nor runtime and must be quick.
    match &cli.command {
        Command::Version(args) => return Ok(version::run(ui, args)),
        Command::Explain(args) => return explain::run(ui, args),
        Command::Config(command) => return config::run(ui, &cli.global, command),
        Command::Completions(args) => return completions::run(ui, args),
        Command::Man(args) => return man::run(ui, args),
        Command::Help(args) => return help::run(ui, args),
        _ => {}
    }
    let files = settings::read()?;
    let usual = if matches!(cli.command, Command::Serve(_)) { "info" } else { "warn" };
    let level =
        cli.global.log.clone().or_else(|| files.find(|file| file.log.clone()).map(|(level, _)| level));
    let format =
        cli.global.log_format.or_else(|| files.find(|file| file.log_format).map(|(format, _)| format));
    logging::start(level.as_deref().unwrap_or(usual), format.unwrap_or(LogFormat::Text))?;
    let named = cli.global.store.is_some() && std::env::var_os("DSSFLOW_STORE").is_none();
    let settings = Settings { store: settings::store_dir(cli.global.store.clone())?, named };
    tracing::debug!(store = %settings.store.display(), "settings");
    let done = match cli.command {
        Command::Version(_)
        | Command::Explain(_)
        | Command::Config(_)
        | Command::Completions(_)
        | Command::Man(_)
        | Command::Help(_) => Ok(Exit::Ok),
        Command::Run(args) => wait(run::run(ui, &settings, args)),
        Command::Preflight(args) => wait(preflight::run(ui, &settings, &args)),
        Command::Plan(args) => wait(plan::run(ui, &settings, args)),
        Command::Resume(args) => wait(resume::run(ui, &settings, &args)),
        Command::Retry(args) => wait(again::retry(ui, &settings, args)),
        Command::Rerun(args) => wait(again::rerun(ui, &settings, args)),
        Command::Fork(args) => wait(again::fork(ui, &settings, args)),
        Command::Skip(args) => wait(decide::skip(ui, &settings, args)),
        Command::Complete(args) => wait(decide::complete(ui, &settings, args)),
        Command::Approve(args) => wait(decide::approve(ui, &settings, args)),
        Command::Reject(args) => wait(decide::reject(ui, &settings, args)),
        Command::Signal(args) => wait(decide::signal(ui, &settings, args)),
        Command::MarkUndone(args) => wait(decide::mark_undone(ui, &settings, args)),
        Command::Abandon(args) => wait(decide::abandon(ui, &settings, args)),
        Command::Rollback(args) => wait(rollback::run(ui, &settings, args)),
        Command::Pause(args) => wait(pause::pause(ui, &settings, args)),
        Command::Unpause(args) => wait(pause::unpause(ui, &settings, args)),
        Command::Cancel(args) => wait(pause::cancel(ui, &settings, args)),
        Command::Terminate(args) => wait(pause::terminate(ui, &settings, args)),
        Command::Runs(command) => wait(runs::run(ui, &settings, command)),
        Command::Why(args) => wait(why::run(ui, &settings, &args)),
        Command::Drift(args) => wait(drift::run(ui, &settings, &args)),
        Command::Resources(command) => wait(resources::run(ui, &settings, command)),
        Command::Schedules(command) => wait(schedules::run(ui, &settings, command)),
        Command::Workflows(command) => workflows::run(ui, command),
        Command::Store(command) => wait(store::run(ui, &settings, &command)),
        Command::Serve(mut args) => {
            args.listen = args.listen.or_else(|| files.find(|file| file.listen).map(|(listen, _)| listen));
            wait(serve::run(ui, &settings, &args))
        }
        Command::Sandbox(command) => wait(sandbox::run(ui, &settings, command)),
        Command::Dss(DssCommand::Capture(args)) => wait(capture::run(ui, &settings, &args)),
        Command::Init(args) => wait(init::run(ui, &args)),
    };
    done.map_err(|mut error| {
        error.hints.iter_mut().for_each(|hint| *hint = settings.address(hint));
        error
    })
}

fn wait(command: impl Future<Output = CommandResult>) -> CommandResult {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| CommandError::new(Code::Internal, "the runtime does not start").why(e))?;
    runtime.block_on(Box::pin(command))
}
