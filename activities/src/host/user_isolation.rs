//! `host.user-isolation`: DSS's User Isolation Framework, by `dssadmin install-impersonation` as root.
//!
//! With it, code of DSS users runs under accounts of their own, so that it cannot read the service user's AWS keys. DSS
//! must be stopped; it is, and is started again if it ran. Who may be impersonated is named in the security module's
//! file by Unix groups; mapping DSS users to accounts is done in DSS and is not touched here.
//!
//! It has not been run against a real DSS: `docs/unverified.md`.
//!
//! # Idempotency
//! The marker, and the security module's file.
//!
//! # Compensation
//! There is no documented way back. What was put below `/etc` stays and is named.
//!
//! Pages: <https://doc.dataiku.com/dss/latest/user-isolation/initial-setup.html>,
//! <https://doc.dataiku.com/dss/latest/user-isolation/advanced/local-security.html>

use std::time::Duration;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::step::{self, SETTLE, host};
use super::transport::{Host, HostUser, is_account_name};
use super::{check_path, marker};

/// The registered name.
pub const NAME: &str = "host.user-isolation";
/// The setting that names the groups.
const GROUPS: &str = "allowed_user_groups";

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserIsolationInput {
    /// The data directory.
    pub data_dir: String,
    /// DSS's installation id.
    pub install_id: String,
    /// The service user.
    pub user: String,
    /// Unix groups whose members DSS may act as; with none the file is left as DSS wrote it.
    pub groups: Vec<String>,
    /// The systemd service of DSS, as `dataiku`.
    pub service: String,
}

/// What is there now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserIsolationOutput {
    /// The security module's file.
    pub config: String,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct UserIsolation;

const ISOLATION: &str = "dss:user-isolation";

/// Where the security module's file lies; the pages name both.
fn candidates(install_id: &str) -> ActivityResult<[String; 2]> {
    if install_id.is_empty() || !install_id.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)) {
        let message = format!("{install_id:?} is no installation id of DSS");
        return Err(ActivityError::terminal("BadInstallId", message).no_effect());
    }
    let dir = format!("/etc/dataiku-security/{install_id}");
    Ok([format!("{dir}/security/security-config.ini"), format!("{dir}/security-config.ini")])
}

async fn config_file(host: &dyn Host, install_id: &str) -> ActivityResult<Option<String>> {
    for path in candidates(install_id)? {
        if host.exists(&HostUser::Root, &path).await? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// The file with the groups in its `[users]` section.
fn with_groups(text: &str, groups: &[String]) -> String {
    let line = format!("{GROUPS} = {}", groups.join(";"));
    let mut out: Vec<String> = Vec::new();
    let (mut in_users, mut done) = (false, false);
    for old in text.lines() {
        let trimmed = old.trim();
        if trimmed.starts_with('[') {
            if in_users && !done {
                out.push(line.clone());
                done = true;
            }
            in_users = trimmed == "[users]";
        } else if in_users && trimmed.split('=').next().is_some_and(|key| key.trim() == GROUPS) {
            if !done {
                out.push(line.clone());
            }
            done = true;
            continue;
        }
        out.push(old.to_owned());
    }
    if !done {
        if !in_users {
            out.push("[users]".to_owned());
        }
        out.push(line);
    }
    out.join("\n") + "\n"
}

/// Names the groups in the file, whose mode stays.
async fn allow_groups(host: &dyn Host, path: &str, groups: &[String]) -> ActivityResult<()> {
    let Some(bytes) = host.read_file(&HostUser::Root, path).await? else { return Ok(()) };
    let text = String::from_utf8_lossy(&bytes);
    let wanted = with_groups(&text, groups);
    if wanted == text {
        return Ok(());
    }
    let mode = step::run_root(host, ["find", path, "-maxdepth", "0", "-printf", "%m"]).await?.text();
    Ok(host.write_file(&HostUser::Root, path, wanted.as_bytes(), mode.trim(), None).await?)
}

impl Activity for UserIsolation {
    type Input = UserIsolationInput;
    type Output = UserIsolationOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &UserIsolationInput,
    ) -> ActivityResult<Probe<UserIsolationOutput>> {
        let host = host(ctx)?;
        let there = async |output: &UserIsolationOutput| {
            let Some(bytes) = host.read_file(&HostUser::Root, &output.config).await? else {
                return Ok(false);
            };
            let text = String::from_utf8_lossy(&bytes);
            Ok(input.groups.is_empty() || with_groups(&text, &input.groups) == text)
        };
        step::probe_marked(ctx, &*host, input, there).await
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &UserIsolationInput,
    ) -> ActivityResult<UserIsolationOutput> {
        let host = host(ctx)?;
        step::service(&input.user)?;
        check_path(&input.data_dir)?;
        if let Some(bad) = input.groups.iter().find(|g| !is_account_name(g)) {
            return Err(
                ActivityError::terminal("BadGroupName", format!("{bad:?} is no Unix group")).no_effect()
            );
        }
        ctx.record_resource(ISOLATION, &input.data_dir).await?;
        if config_file(&*host, &input.install_id).await?.is_none() {
            let dssadmin = format!("{}/bin/dssadmin", input.data_dir);
            let argv = [dssadmin.as_str(), "install-impersonation", &input.user];
            let command = step::root(argv).timeout(Duration::from_mins(10));
            step::with_dss_stopped(&*host, &input.service, async || Ok(host.run(command).await?)).await?;
        }
        let Some(config) = config_file(&*host, &input.install_id).await? else {
            let [first, _] = candidates(&input.install_id)?;
            let message = format!("dssadmin install-impersonation ended well, but there is no {first}");
            return Err(ActivityError::needs_human("IsolationUnconfirmed", message).help(
                "look at what dssadmin printed and at Dataiku's page on user isolation; \
                 `dssflow complete RUN user-isolation --reason REASON --output '{\"config\": \"PATH\"}'` goes on when it is set up",
            ));
        };
        if !input.groups.is_empty() {
            allow_groups(&*host, &config, &input.groups).await?;
        }
        let output = UserIsolationOutput { config };
        marker::write(ctx, &*host, input, vec![output.config.clone()], &output).await?;
        Ok(output)
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &UserIsolationInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let host = host(ctx)?;
        if recorded.resources.is_empty() || !step::may_undo(ctx, &*host, input).await? {
            return Ok(Undo::NothingToDo);
        }
        marker::remove(ctx, &*host, input).await?;
        Ok(Undo::Kept {
            reason: format!(
                "DSS has no documented way back from user isolation: /etc/dataiku-security/{} and its rule in \
                 /etc/sudoers.d stay",
                input.install_id
            ),
        })
    }

    fn describe(&self, input: &UserIsolationInput) -> String {
        format!("user isolation in {}: code of DSS users does not run as {}", input.data_dir, input.user)
    }

    fn settle(&self) -> Duration {
        SETTLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_go_into_their_section_and_the_rest_stays() {
        let groups = ["analysts".to_owned(), "data".to_owned()];
        let line = "allowed_user_groups = analysts;data";
        for (old, new) in [
            ("", format!("[users]\n{line}\n")),
            (
                "[users]\nallowed_user_groups =\n\n[dirs]\ndss = /data\n",
                format!("[users]\n{line}\n\n[dirs]\ndss = /data\n"),
            ),
            ("[users]\nx = 1\n[dirs]\n", format!("[users]\nx = 1\n{line}\n[dirs]\n")),
            (
                "[dirs]\nallowed_user_groups = x\n",
                format!("[dirs]\nallowed_user_groups = x\n[users]\n{line}\n"),
            ),
        ] {
            let got = with_groups(old, &groups);
            assert_eq!(got, new);
            assert_eq!(with_groups(&got, &groups), got, "a second time changes nothing");
        }
        assert!(candidates("../x").is_err() && candidates("").is_err());
    }
}
