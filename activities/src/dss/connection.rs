//! What S3 and Athena connections share: create in two steps, prove by reading back, delete only ours.
//!
//! The create call does not take every field, so a connection is created and then written whole. Its ownership mark
//! is the last line of its description. Secrets are read from their references when a call needs them; what DSS
//! gives back of them is never compared and never written.

use dssflow_engine::activity::{ActivityContext, ActivityError, ActivityResult, Owner, Probe, Undo};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::DssClient;
use super::document::{Place, dropped_keys};
use super::mark;
use super::tree;
use crate::secret::{SecretRef, resolve_in};

/// Kind of resource recorded for a connection.
pub(crate) const RESOURCE: &str = "dss:connection";

/// Whose credentials an S3 connection uses. Others cannot serve Athena and Glue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum S3Credentials {
    /// An access key of its own.
    KeyPair {
        /// Where the access key id is.
        access_key: SecretRef,
        /// Where the secret access key is.
        secret_key: SecretRef,
    },
    /// A role DSS assumes.
    AssumeRole {
        /// Its ARN.
        role_arn: String,
    },
}

impl S3Credentials {
    /// The part that is no secret.
    pub(crate) fn plain(&self) -> Value {
        match self {
            Self::KeyPair { .. } => json!({"credentialsMode": "KEYPAIR"}),
            Self::AssumeRole { role_arn } => {
                json!({"credentialsMode": "STS_ASSUME_ROLE", "stsRoleToAssume": role_arn})
            }
        }
    }

    /// Puts the secret part into a connection about to be sent.
    pub(crate) async fn put_into(&self, ctx: &ActivityContext, connection: &mut Value) -> ActivityResult<()> {
        match self {
            Self::KeyPair { access_key, secret_key } => {
                let access_key = resolve_in(ctx, access_key).await?;
                let secret_key = resolve_in(ctx, secret_key).await?;
                connection["params"]["accessKey"] = json!(access_key.expose());
                connection["params"]["secretKey"] = json!(secret_key.expose());
            }
            Self::AssumeRole { .. } => {}
        }
        Ok(())
    }
}

/// Who may use, and who may read the details.
pub(crate) fn audience(usable_by: &[String], readable_by: &[String]) -> Value {
    let list = |groups: &[String], none: &str| {
        if groups.is_empty() { none.to_owned() } else { "ALLOWED".to_owned() }
    };
    json!({
        "usableBy": list(usable_by, "ALL"), "allowedGroups": usable_by,
        "detailsReadability": {"readableBy": list(readable_by, "NONE"), "allowedGroups": readable_by}
    })
}

/// A connection as the spec wants it, without secrets and without its description.
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: &'static str,
    /// Top-level keys and `params`.
    pub(crate) keys: Value,
    pub(crate) credentials: Option<&'a S3Credentials>,
}

impl Wanted<'_> {
    fn patch(&self) -> Value {
        let mut patch = self.keys.clone();
        patch["name"] = json!(self.name);
        patch["type"] = json!(self.kind);
        patch
    }

    fn place(&self) -> Place {
        Place::Connection(self.name.to_owned())
    }

    fn check_kind(&self, existing: &Value) -> ActivityResult<()> {
        if existing["type"] == self.kind {
            return Ok(());
        }
        Err(ActivityError::terminal(
            "ConnectionType",
            format!(
                "connection {} exists with type {}, wanted is {}",
                self.name, existing["type"], self.kind
            ),
        )
        .help("choose another name in the site, or remove that connection")
        .no_effect())
    }

    async fn complete(&self, ctx: &ActivityContext, connection: &mut Value) -> ActivityResult<()> {
        match self.credentials {
            Some(credentials) => credentials.put_into(ctx, connection).await,
            None => Ok(()),
        }
    }

    /// Creates it if it is not there, then writes what the create call does not take, then reads it back.
    pub(crate) async fn create(&self, ctx: &ActivityContext, client: &DssClient) -> ActivityResult<()> {
        let place = self.place();
        let patch = self.patch();
        let marks = ctx.marks();
        if let Some(existing) = place.read(client).await? {
            self.check_kind(&existing)?;
            if mark::owner_of(&existing, &marks) == Owner::Foreign {
                let message = format!("connection {} exists and is not dssflow's", self.name);
                return Err(ActivityError::needs_human("ForeignConnection", message).no_effect());
            }
        } else {
            ctx.record_resource(RESOURCE, self.name).await?;
            let mut body = json!({
                "name": self.name, "type": self.kind, "description": mark::marked("managed by dssflow", &marks),
                "usableBy": patch["usableBy"], "allowedGroups": patch["allowedGroups"], "params": patch["params"]
            });
            self.complete(ctx, &mut body).await?;
            client.post(&["admin", "connections", ""], Some(&body)).await?;
        }
        let mut document = place.read(client).await?.ok_or_else(|| {
            ActivityError::retryable(
                "ConnectionMissing",
                format!("connection {} is not there after its creation", self.name),
            )
        })?;
        let changes = tree::changes(&document, &patch);
        if changes.is_empty() {
            return Ok(());
        }
        tree::apply(&mut document, &changes);
        self.complete(ctx, &mut document).await?;
        client.put(&["admin", "connections", self.name], &document).await?;
        self.verify(client).await
    }

    /// Looks whether it is there as wanted, and whose it is.
    pub(crate) async fn probe<T>(
        &self,
        ctx: &ActivityContext,
        client: &DssClient,
        output: T,
    ) -> ActivityResult<Probe<T>> {
        let Some(existing) = self.place().read(client).await? else { return Ok(Probe::Absent) };
        self.check_kind(&existing)?;
        let owner = mark::owner_of(&existing, &ctx.marks());
        // Ours but not as wanted: created and not yet written, or the spec changed.
        if owner != Owner::Foreign && !tree::holds(&existing, &self.patch()) {
            return Ok(Probe::Absent);
        }
        Ok(Probe::Present { output, owner })
    }

    /// Compares every managed key.
    pub(crate) async fn verify(&self, client: &DssClient) -> ActivityResult<()> {
        let place = self.place();
        let stored = place.read(client).await?.unwrap_or(Value::Null);
        let dropped = tree::changes(&stored, &self.patch());
        if dropped.is_empty() { Ok(()) } else { Err(dropped_keys(&place, &stored, &dropped)) }
    }
}

/// Deletes a connection of this run that nothing uses.
pub(crate) async fn remove(ctx: &ActivityContext, client: &DssClient, name: &str) -> ActivityResult<Undo> {
    let place = Place::Connection(name.to_owned());
    let Some(existing) = place.read(client).await? else { return Ok(Undo::NothingToDo) };
    if mark::owner_of(&existing, &ctx.marks()) != Owner::ThisRun {
        return Ok(Undo::NothingToDo);
    }
    if let Some(user) = dataset_on(client, name).await? {
        return Ok(Undo::Kept { reason: format!("connection {name} is used by dataset {user}") });
    }
    client.delete(&["admin", "connections", name], &[]).await?;
    if place.read(client).await?.is_some() {
        return Err(ActivityError::retryable(
            "ConnectionStays",
            format!("connection {name} is still there after its deletion"),
        ));
    }
    Ok(Undo::Undone)
}

/// A dataset that uses a connection, as `PROJECT.name`.
async fn dataset_on(client: &DssClient, connection: &str) -> ActivityResult<Option<String>> {
    let projects = client.get(&["projects", ""]).await?;
    for project in projects.as_array().into_iter().flatten() {
        let Some(key) = project["projectKey"].as_str() else { continue };
        let datasets =
            match client.get_with(&["projects", key, "datasets", ""], &[("foreign", "False")]).await {
                Ok(datasets) => datasets,
                // The project may have gone since it was listed: its own undo runs beside this one.
                Err(error) => {
                    let now = client.get(&["projects", ""]).await?;
                    if now.as_array().into_iter().flatten().any(|p| p["projectKey"] == key) {
                        return Err(error);
                    }
                    continue;
                }
            };
        let used = datasets
            .as_array()
            .into_iter()
            .flatten()
            .find(|dataset| dataset["params"]["connection"] == connection);
        if let Some(dataset) = used {
            return Ok(Some(format!("{key}.{}", dataset["name"].as_str().unwrap_or_default())));
        }
    }
    Ok(None)
}
