//! What S3 and Athena connections share: create in two steps, prove by reading back, delete only ours.
//!
//! The create call does not take every field, so a connection is created and then written whole. Its ownership mark
//! is the last line of its description. Secrets are read from their references when a call needs them; what DSS
//! gives back of them is never compared and never written. Instead the mark carries a keyed hash of the secrets that
//! were written: when the site's are other ones, the connection is written again. The key of the hash is the API key,
//! so another API key makes it unknown, and the same secrets are written once more.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::time::Duration;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Owner, Probe, Recorded, Undo,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::{DssClient, DssTarget};
use super::document::{Place, SETTLE, dropped_keys};
use super::mark;
use super::tree::{self, Change};
use crate::secret::{Secret, SecretRef, resolve_in};

/// Kind of resource recorded for a connection.
pub(crate) const RESOURCE: &str = "dss:connection";
/// The field of the mark that holds the hash of the secrets.
const SEAL: &str = "dssflow:secret";
/// What is recorded as changed when the secrets of a connection that was there were replaced.
const REPLACED: &str = "params/secretKey";

/// What a connection is made from.
pub(super) trait ConnectionInput: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Which DSS.
    fn target(&self) -> &DssTarget;

    /// The connection as it is to be.
    fn wanted(&self) -> Wanted<'_>;

    /// One line for people.
    fn describe(&self) -> String;
}

/// What making a connection gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionOutput {
    /// Name of the connection.
    pub name: String,
}

/// The activity that makes a connection of one kind.
pub(crate) struct Connection<I>(PhantomData<fn(I)>);

impl<I> Connection<I> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<I: ConnectionInput> Activity for Connection<I> {
    type Input = I;
    type Output = ConnectionOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn execute(&self, ctx: &ActivityContext, input: &I) -> ActivityResult<ConnectionOutput> {
        let client = DssClient::connect(ctx, input.target()).await?;
        let wanted = input.wanted();
        wanted.create(ctx, &client).await?;
        Ok(ConnectionOutput { name: wanted.name.to_owned() })
    }

    async fn probe(&self, ctx: &ActivityContext, input: &I) -> ActivityResult<Probe<ConnectionOutput>> {
        let client = DssClient::connect(ctx, input.target()).await?;
        let wanted = input.wanted();
        wanted.probe(ctx, &client, ConnectionOutput { name: wanted.name.to_owned() }).await
    }

    async fn verify(&self, ctx: &ActivityContext, input: &I, _: &ConnectionOutput) -> ActivityResult<()> {
        let client = DssClient::connect(ctx, input.target()).await?;
        input.wanted().verify(&client).await
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &I,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let client = DssClient::connect(ctx, input.target()).await?;
        input.wanted().remove(ctx, &client, recorded).await
    }

    fn describe(&self, input: &I) -> String {
        input.describe()
    }

    fn settle(&self) -> Duration {
        SETTLE
    }
}

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

    async fn resolve(&self, ctx: &ActivityContext) -> ActivityResult<Option<KeyPair>> {
        match self {
            Self::KeyPair { access_key, secret_key } => Ok(Some(KeyPair {
                access_key: resolve_in(ctx, access_key).await?,
                secret_key: resolve_in(ctx, secret_key).await?,
            })),
            Self::AssumeRole { .. } => Ok(None),
        }
    }

    /// Puts the secret part into a connection about to be sent.
    pub(crate) async fn put_into(&self, ctx: &ActivityContext, connection: &mut Value) -> ActivityResult<()> {
        if let Some(pair) = self.resolve(ctx).await? {
            pair.put_into(connection);
        }
        Ok(())
    }
}

/// The secrets of a connection, read from where they lie.
struct KeyPair {
    access_key: Secret,
    secret_key: Secret,
}

impl KeyPair {
    fn put_into(&self, connection: &mut Value) {
        connection["params"]["accessKey"] = json!(self.access_key.expose());
        connection["params"]["secretKey"] = json!(self.secret_key.expose());
    }

    fn seal(&self, client: &DssClient, name: &str) -> String {
        client.keyed_hash("connection", &[name, self.access_key.expose(), self.secret_key.expose()])
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
    /// Every key that is managed.
    pub(crate) fn patch(&self) -> Value {
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

    async fn secrets(&self, ctx: &ActivityContext) -> ActivityResult<Option<KeyPair>> {
        match self.credentials {
            Some(credentials) => credentials.resolve(ctx).await,
            None => Ok(None),
        }
    }

    /// The change of the mark when the secrets that were written last are not the site's, and whether that is known
    /// to replace other ones.
    fn unsealed(
        &self,
        client: &DssClient,
        existing: &Value,
        secrets: Option<&KeyPair>,
    ) -> Option<(Change, bool)> {
        let pair = secrets?;
        let seal = pair.seal(client, self.name);
        let text = existing["description"].as_str().unwrap_or_default();
        let known = mark::field(text, SEAL);
        if known.as_deref() == Some(&seal) {
            return None;
        }
        let same_key = known.is_some_and(|known| known.split('.').next() == seal.split('.').next());
        let replaced = same_key || existing["params"]["accessKey"] != pair.access_key.expose();
        let new = json!(mark::with_field(text, SEAL, &seal));
        Some((
            Change { path: "description".to_owned(), old: existing.get("description").cloned(), new },
            replaced,
        ))
    }

    /// Creates it if it is not there, then writes what the create call does not take, then reads it back.
    pub(crate) async fn create(&self, ctx: &ActivityContext, client: &DssClient) -> ActivityResult<()> {
        let place = self.place();
        let patch = self.patch();
        let marks = ctx.marks();
        let secrets = self.secrets(ctx).await?;
        let existing = place.read(client).await?;
        let was_there = existing.is_some();
        let mut document = if let Some(existing) = existing {
            self.check_kind(&existing)?;
            if mark::owner_of(&existing, &marks) == Owner::Foreign {
                let message = format!("connection {} exists and is not dssflow's", self.name);
                return Err(ActivityError::needs_human("ForeignConnection", message).no_effect());
            }
            existing
        } else {
            ctx.record_resource(RESOURCE, self.name).await?;
            let mut description = mark::marked("managed by dssflow", &marks);
            if let Some(pair) = &secrets {
                description = mark::with_field(&description, SEAL, &pair.seal(client, self.name));
            }
            let mut body = json!({
                "name": self.name, "type": self.kind, "description": description, "usableBy": patch["usableBy"],
                "allowedGroups": patch["allowedGroups"], "params": patch["params"]
            });
            if let Some(pair) = &secrets {
                pair.put_into(&mut body);
            }
            client.post(&["admin", "connections", ""], Some(&body)).await?;
            place.read(client).await?.ok_or_else(|| {
                ActivityError::retryable(
                    "ConnectionMissing",
                    format!("connection {} is not there after its creation", self.name),
                )
            })?
        };
        let mut changes = tree::changes(&document, &patch);
        let unsealed = self.unsealed(client, &document, secrets.as_ref());
        if changes.is_empty() && unsealed.is_none() {
            return Ok(());
        }
        if was_there {
            let mut before = tree::recorded(&changes);
            if unsealed.as_ref().is_some_and(|(_, replaced)| *replaced) {
                before.insert(REPLACED.to_owned(), json!({"secret": true}));
            }
            ctx.record_before(before).await?;
        }
        changes.extend(unsealed.map(|(change, _)| change));
        tree::apply(&mut document, &changes);
        if let Some(pair) = &secrets {
            pair.put_into(&mut document);
        }
        place.write(client, &document).await?;
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
        // Ours but not as wanted: created and not yet written, or the spec or its secrets changed.
        if owner != Owner::Foreign {
            let secrets = self.secrets(ctx).await?;
            let is_sealed = self.unsealed(client, &existing, secrets.as_ref()).is_none();
            if !is_sealed || !tree::holds(&existing, &self.patch()) {
                return Ok(Probe::Absent);
            }
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

    /// Deletes a connection of this run that nothing uses; puts back what this run changed in an earlier run's.
    pub(crate) async fn remove(
        &self,
        ctx: &ActivityContext,
        client: &DssClient,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let (place, name) = (self.place(), self.name);
        let Some(existing) = place.read(client).await? else { return Ok(Undo::NothingToDo) };
        match mark::owner_of(&existing, &ctx.marks()) {
            Owner::ThisRun => {}
            Owner::ThisSite(_) if !recorded.before.is_empty() => {
                return self.restore(ctx, client, existing, &recorded.before).await;
            }
            Owner::ThisSite(_) | Owner::Foreign => return Ok(Undo::NothingToDo),
        }
        if let Some(user) = dataset_on(client, name).await? {
            return Ok(Undo::Kept { reason: format!("connection {name} is used by dataset {user}") });
        }
        let is_there = async { place.read(client).await.map(|it| it.is_some()) };
        client.delete_known(&["admin", "connections", name], &[], is_there).await?;
        if place.read(client).await?.is_some() {
            return Err(ActivityError::retryable(
                "ConnectionStays",
                format!("connection {name} is still there after its deletion"),
            ));
        }
        Ok(Undo::Undone)
    }

    async fn restore(
        &self,
        ctx: &ActivityContext,
        client: &DssClient,
        mut document: Value,
        before: &BTreeMap<String, Value>,
    ) -> ActivityResult<Undo> {
        let mut before = before.clone();
        let replaced = before.remove(REPLACED).is_some_and(|entry| entry["secret"] == true);
        let plan = tree::restoration(&document, &self.patch(), &before);
        if !plan.restore.is_empty() {
            for (path, old) in &plan.restore {
                tree::put(&mut document, path, old.as_ref());
            }
            if let Some(pair) = self.secrets(ctx).await? {
                pair.put_into(&mut document);
            }
            self.place().write(client, &document).await?;
        }
        let mut left = plan.changed;
        if replaced {
            left.push("params/accessKey, params/secretKey".to_owned());
        }
        if !left.is_empty() {
            let message = format!("connection {}: not put back: {}", self.name, left.join(", "));
            return Err(ActivityError::terminal("ChangedSince", message).help(
                "secrets of before are not known here, and what others changed since is theirs: set these keys in DSS, \
                 then `dssflow mark-undone RUN STEP`",
            ));
        }
        Ok(if plan.restore.is_empty() { Undo::NothingToDo } else { Undo::Undone })
    }
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
