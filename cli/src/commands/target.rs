//! The run that a verb is about, and how a decision on it is written down: by the process that owns the store, or here.
//!
//! Writing down needs no world. Who drives the run next goes by it.

use dssflow_engine::event::Request;
use dssflow_engine::id::StepName;
use dssflow_engine::run::view::{Awaited, RunView};
use dssflow_engine::run::{StepStatus, Verb};
use dssflow_engine::runtime::{Inspected, LookOptions};

use crate::access::Access;
use crate::config::{self, Settings};
use crate::control::Act;
use crate::control::client::Client;
use crate::drive::{Session, engine_on};
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::suggest;
use crate::ui::Ui;
use crate::world::SANDBOX_LABEL;

/// The most steps a hint names.
const MAX_NAMED: usize = 8;

/// A run, and where it can be reached.
pub(crate) struct Target {
    /// The store, or the process that owns it.
    pub(crate) access: Access,
    /// The run as it stands.
    pub(crate) view: RunView,
    /// Whether a process drives it now.
    pub(crate) driven: bool,
}

impl Target {
    /// Finds the run that `selector` names. `command` tells others what this process does.
    ///
    /// # Errors
    /// When there is no store or no such run, or the owner of the store cannot be asked.
    pub(crate) async fn find(settings: &Settings, selector: &str, command: &str) -> CommandResult<Self> {
        let access = Access::open_as(&settings.store, &format!("dssflow {command}")).await?;
        match look(&access, selector).await {
            Ok((view, driven)) => Ok(Self { access, view, driven }),
            Err(error) => {
                access.close().await?;
                Err(error)
            }
        }
    }

    /// The step of that name.
    ///
    /// # Errors
    /// When the run has none; the nearest is suggested.
    pub(crate) fn step(&self, name: &str) -> CommandResult<StepName> {
        step_of(&self.view, name)
    }

    /// Asks for a yes, unless it was given, or nothing real is at stake. `question` is for who can answer; `danger`
    /// says why it is asked to who cannot, and goes on with "and nobody is here to confirm it".
    ///
    /// # Errors
    /// When nobody can answer, or the answer is no.
    pub(crate) fn confirm(&self, ui: &Ui, yes: bool, question: &str, danger: &str) -> CommandResult<()> {
        if yes || self.view.labels.contains_key(SANDBOX_LABEL) {
            return Ok(());
        }
        ui.confirm(&if ui.can_ask() { question.to_owned() } else { format!("{danger}, and") })
    }

    /// Writes the verb down, and says `done`, and what to type next where nobody drives the run.
    ///
    /// # Errors
    /// When the run does not allow it, or the store fails.
    pub(crate) async fn write(
        self,
        ui: &Ui,
        settings: &Settings,
        verb: Verb,
        reason: &str,
        done: &str,
    ) -> CommandResult {
        let written = self.record(verb.clone(), reason).await;
        let after = match &written {
            Ok(_) => self.access.view(&self.view.run).await,
            Err(_) => Ok(self.view.clone()),
        };
        let owned = matches!(self.access, Access::Owner(_));
        let Self { access, view, driven } = self;
        access.close().await?;
        let (run, command) = (&view.run, settings.command());
        let now_driven = written.map_err(|error| explain(error, &view, driven, &verb, &command))?;
        let after = after?;
        if now_driven {
            ui.note(&format!("{done}; the process that drives run {run} goes by it"));
            return Ok(Exit::Ok);
        }
        ui.note(&format!("{done}; nobody drives run {run}"));
        let next = if after.rolling_back { "rollback" } else { "resume" };
        let when = if owned { "   # once the process that owns the store has ended" } else { "" };
        ui.note(&format!("go on: {command} {next} {run}{when}"));
        Ok(Exit::Ok)
    }

    /// The process that serves the store, when one does.
    ///
    /// # Errors
    /// When the store's owner does not answer.
    pub(crate) async fn server(&self) -> CommandResult<Option<Client>> {
        match &self.access {
            Access::Owner(client) if client.serves().await? => Ok(Some(client.as_ref().clone())),
            _ => Ok(None),
        }
    }

    /// Compares what the run left with the world: as whoever serves the store, or as this process, which takes the store
    /// for it.
    ///
    /// # Errors
    /// When another process owns the store, or the world is not there or somebody else's.
    pub(crate) async fn inspect(
        self,
        ui: &Ui,
        settings: &Settings,
        verb: &str,
    ) -> CommandResult<(RunView, Vec<Inspected>)> {
        let Self { access, view, .. } = self;
        if let Access::Owner(client) = &access
            && client.serves().await?
        {
            let found = client.inspect(&view.run).await?;
            return Ok((view, found));
        }
        access.close().await?;
        let (session, _, world) = Session::of_run(ui, settings, verb, &view).await?;
        let engine = session.engine_in(&world);
        let found = Box::pin(engine.inspect(&view.run, &LookOptions::default())).await;
        drop(engine);
        session.close().await?;
        Ok((view, found?))
    }

    /// Whether somebody drives the run by it now.
    pub(super) async fn record(&self, verb: Verb, reason: &str) -> CommandResult<bool> {
        let request = request(reason);
        match &self.access {
            Access::Owner(client) => {
                Ok(client.act(&self.view.run, &Act { verb, request, drive: false }).await?.driven)
            }
            Access::Store(store) => {
                engine_on(store)?.note(&self.view.run, verb, request).await?;
                Ok(false)
            }
        }
    }
}

/// This user, with a reason.
pub(crate) fn request(reason: &str) -> Request {
    Request { by: config::user(), reason: reason.to_owned() }
}

async fn look(access: &Access, selector: &str) -> CommandResult<(RunView, bool)> {
    let run = access.resolve(selector).await?;
    Ok((access.view(&run).await?, access.is_driven(&run).await?))
}

/// The step of that name.
///
/// # Errors
/// When the run has none; the nearest is suggested.
pub(crate) fn step_of(view: &RunView, name: &str) -> CommandResult<StepName> {
    view.steps.iter().find(|s| s.step.as_str() == name).map(|s| s.step.clone()).ok_or_else(|| {
        let error = CommandError::new(Code::NoSuchStep, format!("run {} has no step {name:?}", view.run));
        match suggest::nearest(name, view.steps.iter().map(|s| s.step.as_str())) {
            Some(near) => error.hint(format!("did you mean {near}?")),
            None => error.hint(format!("`dssflow runs get {}` shows its steps", view.run)),
        }
    })
}

/// Adds what would have been allowed to a refusal.
pub(crate) fn explain(
    error: CommandError,
    view: &RunView,
    driven: bool,
    verb: &Verb,
    command: &str,
) -> CommandError {
    if error.code != Code::RunRefused {
        return error;
    }
    let named = |fits: &dyn Fn(&dssflow_engine::run::view::StepView) -> bool| {
        let names: Vec<&str> =
            view.steps.iter().filter(|s| fits(s)).map(|s| s.step.as_str()).take(MAX_NAMED).collect();
        names.join(", ")
    };
    let (what, names) = match verb {
        Verb::Approve { .. } | Verb::Reject { .. } => {
            ("gates that wait", named(&|s| matches!(s.awaits, Some(Awaited::Decision { .. }))))
        }
        Verb::MarkUndone { .. } | Verb::Abandon { .. } => {
            ("steps that could not be taken back", named(&|s| s.status == StepStatus::CompensationFailed))
        }
        Verb::Retry { .. } => (
            "steps that can be retried",
            named(&|s| {
                s.awaits.is_none()
                    && matches!(
                        s.status,
                        StepStatus::Failed
                            | StepStatus::Backoff
                            | StepStatus::Waiting
                            | StepStatus::Cancelled
                    )
            }),
        ),
        _ => ("", String::new()),
    };
    let error = if names.is_empty() { error } else { error.hint(format!("{what}: {names}")) };
    let busy = verb.step().is_some_and(|step| {
        view.steps
            .iter()
            .any(|s| s.step == *step && matches!(s.status, StepStatus::Running | StepStatus::Compensating))
    });
    match (busy, driven) {
        (true, true) => error.hint(format!("let the run stand still first: {command} pause {}", view.run)),
        (true, false) => {
            error.hint(format!("find out first what the step did: {command} resume {}", view.run))
        }
        (false, _) => error,
    }
}
