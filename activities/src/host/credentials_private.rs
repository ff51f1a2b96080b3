//! `host.aws-credentials-private`: proves that another account of the host cannot read the service user's AWS files.
//!
//! Runs `test -r` as an account without rights (`nobody`), which asks the kernel and reads nothing. The same account
//! must be able to read `/etc/passwd`, and the service user its own files: a probe that can see nothing proves
//! nothing.
//!
//! It does not prove that code of DSS users cannot: without user isolation that code runs as the service user.
//!
//! # Idempotency
//! Reads only.
//!
//! # Compensation
//! None.

use dssflow_engine::activity::{Activity, ActivityContext, ActivityError, ActivityResult, Effect};
use serde::{Deserialize, Serialize};

use super::check_path;
use super::step::{self, host};
use super::transport::{Host, HostCommand, HostUser};

/// The registered name.
pub const NAME: &str = "host.aws-credentials-private";
/// Who stands for everybody else.
pub const STRANGER: &str = "nobody";
/// What everybody can read on every Linux.
const PUBLIC: &str = "/etc/passwd";

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialsPrivateInput {
    /// The service user.
    pub user: String,
    /// Its home directory.
    pub home: String,
    /// The account without rights.
    pub stranger: String,
}

/// What was proven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialsPrivateOutput {
    /// The files that the service user can read and the other account cannot.
    pub private: Vec<String>,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct CredentialsPrivate;

async fn can_read(host: &dyn Host, user: &HostUser, path: &str) -> ActivityResult<bool> {
    let output = host.exec(HostCommand::new(user.clone(), ["test", "-r", path])).await?;
    match output.status {
        0 => Ok(true),
        1 if output.complaint().is_empty() => Ok(false),
        // The switch to the account failed, or there is no `test`.
        status => Err(unusable(&format!("`test -r {path}` ended with {status}: {}", output.complaint()))),
    }
}

fn unusable(why: &str) -> ActivityError {
    ActivityError::needs_human("ProbeUnusable", format!("nothing can be proven: {why}")).no_effect().help(
        "let dssflow run commands as that account (sudo without a password), then resume the run; \
         `dssflow skip RUN aws-credentials-private --reason REASON` goes on without the proof",
    )
}

impl Activity for CredentialsPrivate {
    type Input = CredentialsPrivateInput;
    type Output = CredentialsPrivateOutput;

    fn effect(&self) -> Effect {
        Effect::Read
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &CredentialsPrivateInput,
    ) -> ActivityResult<CredentialsPrivateOutput> {
        let host = host(ctx)?;
        let owner = step::service(&input.user)?;
        let stranger = step::service(&input.stranger)?;
        let dir = format!("{}/.aws", input.home.trim_end_matches('/'));
        check_path(&dir)?;
        if !can_read(&*host, &stranger, PUBLIC).await? {
            return Err(unusable(&format!("{} cannot even read {PUBLIC}", input.stranger)));
        }
        let mut private = Vec::new();
        // The older files may hold keys as well.
        for name in ["credentials", "config", "credentials.dssflow-before", "config.dssflow-before"] {
            let path = format!("{dir}/{name}");
            if !host.exists(&HostUser::Root, &path).await? {
                continue;
            }
            if !can_read(&*host, &owner, &path).await? {
                return Err(unusable(&format!("{} cannot read its own {path}", input.user)));
            }
            if can_read(&*host, &stranger, &path).await? {
                let message = format!("{} can read {path}", input.stranger);
                return Err(ActivityError::needs_human("CredentialsReadable", message).no_effect().help(
                    format!(
                        "`chmod 600 {path}` and look for an ACL with `getfacl {path}`, then resume the run; \
                         change the key if the host has other users"
                    ),
                ));
            }
            private.push(path);
        }
        Ok(CredentialsPrivateOutput { private })
    }

    fn describe(&self, input: &CredentialsPrivateInput) -> String {
        format!("check that {} cannot read {}/.aws", input.stranger, input.home)
    }
}
