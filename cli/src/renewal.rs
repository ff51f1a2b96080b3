//! Credentials that end: waited for while a run is paused for them. That they end too early is told before a run by
//! preflight (P03).
//!
//! The command asks who it is, over and over. When the same user or role of the same account answers, the run goes on as
//! if somebody had typed `resume`. Nothing else is called meanwhile, and nobody else is accepted.

use std::time::Duration;

use dssflow_activities::aws::error::is_renewable;
use dssflow_activities::aws::identity::identify;
use dssflow_activities::clients::AwsClients;
use dssflow_engine::event::PauseKind;
use dssflow_engine::run::view::RunView;
use dssflow_engine::run::{RunStatus, StepStatus};

use crate::config;
use crate::describe;
use crate::error::{Code, CommandError, CommandResult};
use crate::spec::About;
use crate::ui::one_line;
use crate::world::World;

/// How often it is asked, when nothing scales time.
const INTERVAL: Duration = Duration::from_secs(30);
/// The shortest time between two questions, also where time is scaled.
const SHORTEST: Duration = Duration::from_millis(50);
/// How long is waited unless the environment says otherwise, in minutes.
const WAIT_MIN: u64 = 720;
/// So often in a row a run may pause for credentials without a step done in between.
const ROUNDS: u32 = 3;
/// The variable that says how many minutes are waited.
pub(crate) const WAIT: &str = "DSSFLOW_CREDENTIALS_WAIT";

/// How the question was answered.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The same user or role as before.
    Same(String),
    /// Somebody else; why that will not do.
    Other(String),
    /// Still nobody.
    Nobody(String),
}

/// The wait for credentials of one command.
#[derive(Debug)]
pub(crate) struct Renewal {
    clients: AwsClients,
    interval: Duration,
    limit: Duration,
    rounds: u32,
    done: usize,
}

/// How long the environment wants the command to wait.
///
/// # Errors
/// When it is no number.
pub(crate) fn limit() -> CommandResult<Duration> {
    let minutes = match std::env::var(WAIT) {
        Err(_) => config::files().find(|file| file.credentials_wait).map_or(WAIT_MIN, |(minutes, _)| minutes),
        Ok(text) => text.trim().parse().map_err(|_| {
            CommandError::new(Code::Usage, format!("{WAIT} is {text:?}, which is no number of minutes")).hint(
                "0 ends the command at once when credentials end; without the variable it waits 720 minutes",
            )
        })?,
    };
    Ok(Duration::from_secs(minutes.saturating_mul(60)))
}

impl Renewal {
    /// `scale` makes waiting shorter where time is simulated.
    ///
    /// # Errors
    /// As [`limit`].
    pub(crate) fn new(clients: &AwsClients, scale: f64) -> CommandResult<Self> {
        Ok(Self {
            clients: clients.clone(),
            interval: INTERVAL.mul_f64(scale.clamp(0.0, 1.0)).max(SHORTEST),
            limit: limit()?,
            rounds: 0,
            done: 0,
        })
    }

    /// Whether the run stands for what may be renewed, and waiting for it makes sense.
    pub(crate) fn may_wait(&mut self, view: &RunView) -> bool {
        let Some(paused) = view.paused.as_ref().filter(|p| p.kind == PauseKind::Credentials) else {
            return false;
        };
        if view.status != RunStatus::Paused || self.limit.is_zero() {
            return false;
        }
        // A secret that is not where it should be is not renewed by a new session.
        let step = paused.step.as_ref().and_then(|name| view.steps.iter().find(|s| s.step == *name));
        if step.and_then(|s| s.error.as_ref()).is_some_and(|e| !is_renewable(&e.code)) {
            return false;
        }
        let done = view.steps.iter().filter(|s| is_over(s.status)).count();
        self.rounds = if done == self.done { self.rounds + 1 } else { 1 };
        self.done = done;
        self.rounds <= ROUNDS
    }

    /// How long it is waited before the next question; the first one comes at once.
    pub(crate) fn pause(&self, asked: u32) -> Duration {
        if asked == 0 && self.rounds == 1 { Duration::ZERO } else { self.interval }
    }

    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// What is told when the wait begins.
    pub(crate) fn begins(&self, view: &RunView) -> String {
        let why = view.paused.as_ref().map_or_else(String::new, |p| one_line(&p.message));
        format!(
            "the AWS credentials have ended: {why}\nrenew them where they come from, and the run goes on by itself; asking \
             every {} for up to {}; Ctrl-C leaves the run paused",
            describe::duration(self.interval.max(Duration::from_secs(1))),
            describe::duration(self.limit)
        )
    }

    /// Asks who we are now.
    pub(crate) async fn ask(&self, view: &RunView, about: About<'_>) -> Answer {
        self.clients.renew_credentials().await;
        let identity = match identify(&self.clients).await {
            Ok(identity) => identity,
            Err(error) => return Answer::Nobody(error.to_string()),
        };
        if let Some(expected) = about.account().filter(|expected| *expected != identity.account) {
            return Answer::Other(format!(
                "the credentials are now of account {}, the run is in {expected}",
                identity.account
            ));
        }
        match World::same_principal(view, &identity) {
            Ok(()) => Answer::Same(identity.principal_arn),
            Err(error) => Answer::Other(format!("{}; now it is {}", error.message, identity.caller_arn)),
        }
    }
}

/// Whether a step has been brought to an end, forward or back.
fn is_over(status: StepStatus) -> bool {
    match status {
        StepStatus::Succeeded
        | StepStatus::Adopted
        | StepStatus::Skipped
        | StepStatus::Compensated
        | StepStatus::Kept => true,
        StepStatus::Pending
        | StepStatus::Ready
        | StepStatus::Running
        | StepStatus::Backoff
        | StepStatus::Waiting
        | StepStatus::Failed
        | StepStatus::Cancelled
        | StepStatus::Compensating
        | StepStatus::CompensationFailed => false,
    }
}
