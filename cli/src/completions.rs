//! What a shell may complete: the command asks itself. Runs, steps, schedules and workflows are those that there are.
//!
//! Whoever presses a key waits, so nothing here takes long, holds the store, or says why it found nothing: where the store
//! is owned its owner is asked, and an answer that does not come in time is no answer.

use std::ffi::{OsStr, OsString};
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use clap::Arg;
use clap::builder::StyledStr;
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::Shells;
use dssflow_engine::run::RunStatus;
use dssflow_engine::store::{ListQuery, Store as _};

use crate::access::Access;
use crate::args::{self, CompletionsArgs};
use crate::error::{ALL, Code, CommandError, CommandResult, Exit};
use crate::ui::Ui;
use crate::{catalog, config, describe};

/// The variable by which a shell asks.
const ASKS: &str = "DSSFLOW_COMPLETE";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(400);
/// The most runs that are offered, newest first.
const MAX_RUNS: usize = 200;
/// The most schedules that are offered, by name.
const MAX_SCHEDULES: usize = 1_000;

/// Answers a shell, when one asks.
pub(crate) fn answer() -> bool {
    if std::env::var_os(ASKS).is_none_or(|value| value.is_empty()) {
        return false;
    }
    let here = std::env::current_dir().ok();
    // A shell that is not known gets nothing, as everything else that does not work here.
    drop(env().try_complete(std::env::args_os(), here.as_deref()));
    true
}

fn env() -> CompleteEnv<'static, fn() -> clap::Command> {
    CompleteEnv::with_factory(args::command as fn() -> clap::Command)
        .var(ASKS)
        .bin("dssflow")
        .completer("dssflow")
}

/// `dssflow completions SHELL`: prints what the shell has to be told.
///
/// # Errors
/// Never, for the shells there are.
pub(crate) fn run(ui: &Ui, args: &CompletionsArgs) -> CommandResult {
    let shells = Shells::builtins();
    let name = config::word(&args.shell);
    let shell = shells
        .completer(&name)
        .ok_or_else(|| CommandError::new(Code::Usage, format!("{name} is no shell that is known")))?;
    let mut script = Vec::new();
    shell
        .write_registration(ASKS, "dssflow", "dssflow", "dssflow", &mut script)
        .map_err(|e| CommandError::new(Code::Internal, "the script cannot be made").why(e))?;
    ui.out(String::from_utf8_lossy(&script).trim_end());
    Ok(Exit::Ok)
}

/// Gives an argument what can be told of its values.
pub(crate) fn attach(arg: Arg) -> Arg {
    let value_name =
        arg.get_value_names().and_then(|names| names.first()).map(|name| name.as_str().to_owned());
    let completer: fn(&OsStr) -> Vec<CompletionCandidate> =
        match (arg.get_id().as_str(), value_name.as_deref()) {
            ("run", _) if !arg.is_global_set() => runs,
            ("step", _) | (_, Some("STEP")) => steps,
            ("workflow", _) | (_, Some("WORKFLOW")) => workflows,
            (_, Some("SCHEDULE")) => schedules,
            ("status", _) => statuses,
            ("code", _) => codes,
            ("words", _) => topics,
            _ => return arg,
        };
    arg.add(ArgValueCompleter::new(completer))
}

/// Those that begin as what was typed, each with a word on it.
fn beginning<N: Into<OsString> + AsRef<OsStr>>(
    typed: &OsStr,
    all: impl IntoIterator<Item = (N, String)>,
) -> Vec<CompletionCandidate> {
    let typed = typed.as_encoded_bytes();
    all.into_iter()
        .filter(|(name, _)| name.as_ref().as_encoded_bytes().starts_with(typed))
        .map(|(name, help)| {
            let help = (!help.is_empty()).then(|| StyledStr::from(help));
            CompletionCandidate::new(name.into()).help(help)
        })
        .collect()
}

fn workflows(typed: &OsStr) -> Vec<CompletionCandidate> {
    beginning(typed, catalog::ALL.iter().map(|e| (e.name, e.title.to_owned())))
}

fn statuses(typed: &OsStr) -> Vec<CompletionCandidate> {
    beginning(typed, RunStatus::ALL.iter().map(|status| (status.as_str(), String::new())))
}

fn codes(typed: &OsStr) -> Vec<CompletionCandidate> {
    let title = |page: &str| page.lines().next().unwrap_or_default().trim_start_matches("# ").to_owned();
    beginning(typed, ALL.iter().map(|info| (info.code, title(info.page))))
}

fn topics(typed: &OsStr) -> Vec<CompletionCandidate> {
    let command = args::command();
    let commands = command
        .get_subcommands()
        .map(|c| (c.get_name().to_owned(), c.get_about().map(ToString::to_string).unwrap_or_default()));
    let topics = crate::commands::help::TOPICS.iter().map(|t| (t.name.to_owned(), t.title().to_owned()));
    beginning(typed, topics.chain(commands))
}

fn runs(typed: &OsStr) -> Vec<CompletionCandidate> {
    let found = look(|access| async move {
        let page = access.list(ListQuery { limit: MAX_RUNS, ..ListQuery::default() }).await;
        (access, page.map(|page| page.runs))
    })
    .unwrap_or_default();
    let latest = found.first().map(|run| ("@latest".to_owned(), run.run.to_string()));
    let each = found.iter().map(|run| {
        let status = describe::words(run.status.as_str());
        (run.run.to_string(), format!("{status}, {}", describe::when(run.created)))
    });
    beginning(typed, latest.into_iter().chain(each))
}

fn steps(typed: &OsStr) -> Vec<CompletionCandidate> {
    let Some(run) = word("run") else { return Vec::new() };
    let found = look(|access| async move {
        let view = match access.resolve(&run).await {
            Ok(run) => access.view(&run).await,
            Err(error) => Err(error),
        };
        (access, view.map(|view| view.steps))
    });
    let all = found.unwrap_or_default();
    beginning(typed, all.iter().map(|s| (s.step.to_string(), describe::words(s.status.as_str()))))
}

fn schedules(typed: &OsStr) -> Vec<CompletionCandidate> {
    let found = look(|access| async move {
        let names = match &access {
            Access::Store(store) => store
                .schedules(None, MAX_SCHEDULES)
                .await
                .map(|page| page.into_iter().map(|s| s.id.to_string()).collect::<Vec<_>>())
                .map_err(CommandError::from),
            Access::Owner(client) => client
                .schedules(None)
                .await
                .map(|page| page.schedules.into_iter().map(|s| s.schedule.to_string()).collect()),
        };
        (access, names)
    });
    beginning(typed, found.unwrap_or_default().into_iter().map(|name| (name, String::new())))
}

/// Looks into the store, or asks its owner, as long as whoever waits for it will wait.
fn look<T, F>(what: impl FnOnce(Access) -> F) -> Option<T>
where
    F: Future<Output = (Access, CommandResult<T>)>,
{
    let dir = store()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().ok()?;
    let found = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, async {
            let access = Access::open_as(&dir, "dssflow (completing)").await.ok()?;
            let (access, found) = what(access).await;
            access.close().await.ok()?;
            found.ok()
        })
        .await
        .ok()
        .flatten()
    });
    // What is still being opened ends with the process.
    runtime.shutdown_background();
    found
}

/// The store that the words typed so far mean.
fn store() -> Option<PathBuf> {
    let typed = word("store").or_else(|| std::env::var("DSSFLOW_STORE").ok()).map(PathBuf::from);
    config::read().ok()?;
    config::store_dir(typed).ok().filter(|dir| dir.is_dir())
}

/// What was typed for an argument, however incomplete the rest is.
fn word(id: &str) -> Option<String> {
    let words = std::env::args_os().skip_while(|word| word != "--").skip(1);
    let matches = args::command().ignore_errors(true).try_get_matches_from(words).ok()?;
    let raw = args::leaf(&matches).try_get_raw(id).ok()??.next()?;
    Some(raw.to_string_lossy().into_owned()).filter(|text| !text.is_empty())
}
