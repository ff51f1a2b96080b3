//! The password of the `admin` user, which every new DSS has as `admin`.
//!
//! A site is not done while admin/admin logs in. Whether it does is tried at the login route of the web interface,
//! because the API never tells a password; that route is not part of the documented API.
//!
//! # Idempotency
//! Our password is tried first; when it logs in and admin/admin does not, nothing is written.
//! # Compensation
//! None: the well-known password is never put back.
//!
//! Page: <https://doc.dataiku.com/dss/latest/installation/custom/initial-install.html>

use std::time::Duration;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Owner, Probe, Recorded, Undo,
};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::{DssClient, DssTarget, base_url, http};
use super::reply::{self, Trouble};
use crate::secret::{SecretRef, resolve_in};

/// The registered name.
pub const NAME: &str = "dss.admin-password";
/// The first user, and its first password.
const ADMIN: &str = "admin";

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminPasswordInput {
    /// Which DSS.
    pub target: DssTarget,
    /// Where the new password is.
    pub password: SecretRef,
}

/// What the activity gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminPasswordOutput {}

/// The activity.
pub(crate) struct AdminPassword;

/// Whether a user may log in. A route that answers neither yes nor no is an error: the question is open then.
async fn logs_in(target: &DssTarget, login: &str, password: &str) -> ActivityResult<bool> {
    let mut url = base_url(&target.url)?;
    url.path_segments_mut()
        .map_err(|()| ActivityError::terminal("DssUrl", "the URL of DSS takes no path").no_effect())?
        .pop_if_empty()
        .extend(["dip", "api", "login"]);
    let form = [("login", login), ("password", password)];
    let request = http()?.post(url).form(&form).timeout(Duration::from_secs(30));
    match reply::send(request, &Method::POST, "POST /dip/api/login").await {
        Ok(_) => Ok(true),
        Err(Trouble::Said(_)) => Ok(false),
        Err(Trouble::Call(error)) if refused(&error) => Ok(false),
        Err(Trouble::Call(error)) => Err(error.no_effect()),
    }
}

/// A refusal that is an answer. A missing route (404) is none.
fn refused(error: &ActivityError) -> bool {
    ["401", "403", "400"].iter().any(|status| error.message.contains(&format!("login: {status} ")))
}

impl Activity for AdminPassword {
    type Input = AdminPasswordInput;
    type Output = AdminPasswordOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &AdminPasswordInput,
    ) -> ActivityResult<AdminPasswordOutput> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let password = resolve_in(ctx, &input.password).await?;
        if password.expose() == ADMIN {
            return Err(ActivityError::terminal(
                "WeakPassword",
                "the new password of admin is the well-known one",
            )
            .help("put another password where dss.admin_password points")
            .no_effect());
        }
        let users = client.get(&["admin", "users", ""]).await?;
        if !users.as_array().is_some_and(|users| users.iter().any(|user| user["login"] == ADMIN)) {
            return Ok(AdminPasswordOutput {});
        }
        let mut user: Value = client.get(&["admin", "users", ADMIN]).await?;
        user["password"] = json!(password.expose());
        client.put(&["admin", "users", ADMIN], &user).await?;
        Ok(AdminPasswordOutput {})
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &AdminPasswordInput,
    ) -> ActivityResult<Probe<AdminPasswordOutput>> {
        if logs_in(&input.target, ADMIN, ADMIN).await? {
            return Ok(Probe::Absent);
        }
        let password = resolve_in(ctx, &input.password).await?;
        Ok(if logs_in(&input.target, ADMIN, password.expose()).await? {
            Probe::Present { output: AdminPasswordOutput {}, owner: Owner::ThisSite(String::new()) }
        } else {
            Probe::Absent
        })
    }

    async fn verify(
        &self,
        _ctx: &ActivityContext,
        input: &AdminPasswordInput,
        _output: &AdminPasswordOutput,
    ) -> ActivityResult<()> {
        if logs_in(&input.target, ADMIN, ADMIN).await? {
            return Err(ActivityError::terminal("AdminAdmin", "admin still logs in with the password admin")
                .help("change the password of admin in DSS, then resume"));
        }
        Ok(())
    }

    async fn compensate(
        &self,
        _: &ActivityContext,
        _: &AdminPasswordInput,
        _: &Recorded,
    ) -> ActivityResult<Undo> {
        Ok(Undo::Kept { reason: "the well-known password of admin is never put back".to_owned() })
    }

    fn describe(&self, input: &AdminPasswordInput) -> String {
        format!("password of admin from {}", input.password)
    }
}
