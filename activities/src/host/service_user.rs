//! `host.service-user`: the account DSS runs as, in the `docker` group.
//!
//! DSS must not run as root. Group membership counts from the next login; every command of dssflow is one.
//!
//! # Idempotency
//! An account that is there is used as it is; missing group memberships are added.
//!
//! # Compensation
//! The account is removed with its home only if this run made it (its comment field carries the run) and the home
//! holds nothing but dot files; memberships that were added are taken back.

use std::time::Duration;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::step::{self, SETTLE, host, root};
use super::transport::{Host, HostUser};
use super::{HostError, is_account_name, marker};

/// What is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceUserInput {
    /// Name of the account.
    pub name: String,
    /// Groups it must be in, as `docker`.
    pub groups: Vec<String>,
}

/// What is there now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceUserOutput {
    /// Name of the account.
    pub name: String,
    /// Its home directory.
    pub home: String,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct ServiceUser;

const USER: &str = "host:user";
const MEMBERSHIP: &str = "host:membership";

/// A line of the account database.
struct Account {
    comment: String,
    home: String,
}

async fn account(host: &dyn Host, name: &str) -> ActivityResult<Option<Account>> {
    let output = host.exec(root(["getent", "passwd", name])).await?;
    let text = output.text();
    let fields: Vec<&str> = text.split(':').collect();
    let [_, _, _, _, comment, home, _] = fields.as_slice() else { return Ok(None) };
    Ok(Some(Account { comment: (*comment).to_owned(), home: (*home).to_owned() }))
}

async fn groups(host: &dyn Host, name: &str) -> ActivityResult<Vec<String>> {
    let output = host.exec(root(["id", "-nG", name])).await?;
    Ok(output.text().split_whitespace().map(str::to_owned).collect())
}

/// What the comment field of an account says that this run made. `:` and `,` have a meaning there.
fn comment(ctx: &ActivityContext) -> String {
    let marks = ctx.marks();
    let run: String = marks.run.chars().map(|c| if c == ':' || c == ',' { '_' } else { c }).collect();
    format!("dssflow {} {run}", &marks.store[..marks.store.len().min(12)])
}

impl Activity for ServiceUser {
    type Input = ServiceUserInput;
    type Output = ServiceUserOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &ServiceUserInput,
    ) -> ActivityResult<Probe<ServiceUserOutput>> {
        let host = host(ctx)?;
        step::service(&input.name)?;
        let there = async |_: &_| {
            let have = groups(&*host, &input.name).await?;
            Ok(!have.is_empty() && input.groups.iter().all(|g| have.contains(g)))
        };
        step::probe_marked(ctx, &*host, input, there).await
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &ServiceUserInput,
    ) -> ActivityResult<ServiceUserOutput> {
        let host = host(ctx)?;
        step::service(&input.name)?;
        if let Some(bad) = input.groups.iter().find(|g| !is_account_name(g)) {
            return Err(
                ActivityError::terminal("BadGroupName", format!("{bad:?} is not a group name")).no_effect()
            );
        }
        let mut made = Vec::new();
        if account(&*host, &input.name).await?.is_none() {
            ctx.record_resource(USER, &input.name).await?;
            made.push(format!("user:{}", input.name));
            let comment = comment(ctx);
            let argv = ["useradd", "-m", "-s", "/bin/bash", "-c", &comment, &input.name];
            step::run_root(&*host, argv).await?;
        }
        let have = groups(&*host, &input.name).await?;
        for group in input.groups.iter().filter(|g| !have.contains(g)) {
            ctx.record_resource(MEMBERSHIP, format!("{} {group}", input.name)).await?;
            made.push(format!("membership:{group}"));
            step::run_root(&*host, ["usermod", "-aG", group, &input.name]).await?;
        }
        let Some(account) = account(&*host, &input.name).await? else {
            return Err(ActivityError::retryable(
                "UserMissing",
                "the account is not there after it was made",
            ));
        };
        let output = ServiceUserOutput { name: input.name.clone(), home: account.home };
        marker::write(ctx, &*host, input, made, &output).await?;
        Ok(output)
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &ServiceUserInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let host = host(ctx)?;
        if !step::may_undo(ctx, &*host, input).await? {
            return Ok(Undo::NothingToDo);
        }
        let undo = take_back(ctx, &*host, recorded).await?;
        marker::remove(ctx, &*host, input).await?;
        Ok(undo)
    }

    fn describe(&self, input: &ServiceUserInput) -> String {
        format!("make the service user {} in group {}", input.name, input.groups.join(", "))
    }

    fn settle(&self) -> Duration {
        SETTLE
    }
}

async fn take_back(ctx: &ActivityContext, host: &dyn Host, recorded: &Recorded) -> ActivityResult<Undo> {
    let mut undo = Undo::NothingToDo;
    for name in step::recorded_ids(recorded, USER) {
        let Some(account) = account(host, &name).await? else { continue };
        if account.comment != comment(ctx) {
            continue;
        }
        let entries = host.list_dir(&HostUser::Root, &account.home).await?.unwrap_or_default();
        if let Some(entry) = entries.iter().find(|e| !e.starts_with('.')) {
            return Ok(Undo::Kept {
                reason: format!("the home of {name} holds {entry:?}, so the account stays"),
            });
        }
        match host.run(root(["userdel", "-r", &name])).await {
            Ok(_) => {}
            Err(HostError::Failed { status: 8, complaint, .. }) => {
                return Err(ActivityError::retryable(
                    "UserBusy",
                    format!("{name} still has processes: {complaint}"),
                )
                .help("end the processes of the account on the host, then retry the rollback"));
            }
            Err(error) => return Err(error.into()),
        }
        return Ok(Undo::Undone);
    }
    for id in step::recorded_ids(recorded, MEMBERSHIP) {
        let Some((name, group)) = id.split_once(' ') else { continue };
        if groups(host, name).await?.iter().any(|g| g == group) {
            step::run_root(host, ["gpasswd", "-d", name, group]).await?;
            undo = Undo::Undone;
        }
    }
    Ok(undo)
}
