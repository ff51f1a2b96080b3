//! Updates of a document that DSS keeps and others edit too: general settings, plugin settings, project settings,
//! a connection.
//!
//! The document has no version and the last writer wins, so the workflow holds a lock on it. It is read, only our
//! keys are changed, what they held is recorded first, it is written, and it is read again: DSS drops what it does
//! not know without a word, and a dropped key is an error that names it; the old document is put back then. Secrets
//! that come back unreadable are never written over real ones (`redaction`). The undo puts back the keys that still
//! hold our value, and fails naming the others.

use std::marker::PhantomData;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Owner, Probe, Recorded, Undo,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::client::{DssClient, DssTarget};
use super::redaction::{Redaction, unreadable};
use super::tree::{self, Change};

/// Which document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// `/admin/general-settings`.
    GeneralSettings,
    /// The settings of a plugin.
    Plugin(String),
    /// The settings of a project.
    Project(String),
    /// A dataset of a project.
    Dataset(String, String),
    /// A recipe of a project, with its code.
    Recipe(String, String),
    /// A connection. Its secrets come back unreadable and must be put in again before it is written.
    Connection(String),
}

impl Place {
    fn named(&self) -> String {
        match self {
            Self::GeneralSettings => "the general settings".to_owned(),
            Self::Plugin(id) => format!("the settings of plugin {id}"),
            Self::Project(key) => format!("the settings of project {key}"),
            Self::Dataset(key, name) => format!("dataset {key}.{name}"),
            Self::Recipe(key, name) => format!("recipe {key}.{name}"),
            Self::Connection(name) => format!("connection {name}"),
        }
    }

    /// The document, or `None` when the object it belongs to does not exist.
    pub(crate) async fn read(&self, client: &DssClient) -> ActivityResult<Option<Value>> {
        if !self.is_listed(client).await? {
            return Ok(None);
        }
        match self.get(client).await {
            // It went between the list and the look.
            Err(_) if !self.is_listed(client).await? => Ok(None),
            document => document.map(Some),
        }
    }

    /// Whether the object is in the list of its kind; a missing one cannot be told by the answer of every DSS.
    async fn is_listed(&self, client: &DssClient) -> ActivityResult<bool> {
        let project = async |key: &str| {
            client.get(&["projects", ""]).await.map(|projects| lists(&projects, "projectKey", key))
        };
        Ok(match self {
            Self::GeneralSettings => true,
            Self::Plugin(id) => lists(&client.get(&["plugins", ""]).await?, "id", id),
            Self::Project(key) => project(key).await?,
            Self::Dataset(key, name) => {
                let datasets = ["projects", key, "datasets", ""];
                project(key).await?
                    && lists(&client.get_with(&datasets, &[("foreign", "False")]).await?, "name", name)
            }
            Self::Recipe(key, name) => {
                lists(&client.get(&["projects", key, "recipes", ""]).await?, "name", name)
            }
            Self::Connection(name) => {
                client.get(&["admin", "connections", ""]).await?.get(name.as_str()).is_some()
            }
        })
    }

    async fn get(&self, client: &DssClient) -> ActivityResult<Value> {
        match self {
            Self::GeneralSettings => client.get(&["admin", "general-settings"]).await,
            Self::Plugin(id) => client.get(&["plugins", id, "settings"]).await,
            Self::Project(key) => client.get(&["projects", key, "settings"]).await,
            Self::Dataset(key, name) => client.get(&["projects", key, "datasets", name]).await,
            Self::Recipe(key, name) => client.get(&["projects", key, "recipes", name]).await,
            Self::Connection(name) => client.get(&["admin", "connections", name]).await,
        }
    }

    /// Writes the document, unless that would put an unreadable secret over a real one.
    pub(crate) async fn write(&self, client: &DssClient, document: &Value) -> ActivityResult<()> {
        self.check_secrets(document)?;
        match self {
            Self::GeneralSettings => client.put(&["admin", "general-settings"], document).await,
            Self::Plugin(id) => client.post(&["plugins", id, "settings"], Some(document)).await,
            Self::Project(key) => client.put(&["projects", key, "settings"], document).await,
            Self::Dataset(key, name) => client.put(&["projects", key, "datasets", name], document).await,
            Self::Recipe(key, name) => client.put(&["projects", key, "recipes", name], document).await,
            Self::Connection(name) => client.put(&["admin", "connections", name], document).await,
        }
        .map(drop)
    }

    /// Names the encrypted secrets of others that were there before a write and are not after it.
    fn check_carried(&self, before: &Value, after: &Value) -> ActivityResult<()> {
        let kept = unreadable(after);
        let gone: Vec<String> = unreadable(before)
            .into_iter()
            .filter(|found| !kept.iter().any(|other| other.path == found.path))
            .map(|found| found.path)
            .collect();
        if gone.is_empty() || matches!(self, Self::Connection(_)) {
            return Ok(());
        }
        let message =
            format!("{}: DSS did not take back its own encrypted {}", self.named(), gone.join(", "));
        Err(ActivityError::terminal("SecretsDropped", message)
            .help("set these secrets again by hand in DSS, then resume"))
    }

    /// Refuses a document that would overwrite a secret with what DSS shows in its place.
    fn check_secrets(&self, document: &Value) -> ActivityResult<()> {
        let strict = matches!(self, Self::Connection(_));
        let lost: Vec<String> = unreadable(document)
            .into_iter()
            .filter(|found| strict || found.form == Redaction::Masked)
            .map(|found| found.path)
            .collect();
        if lost.is_empty() {
            return Ok(());
        }
        let message = format!(
            "{} was not written: DSS shows {} unreadable, and writing that back would replace the secret by it",
            self.named(),
            lost.join(", ")
        );
        let help = if strict {
            "dssflow can write only the secrets that the site names; take this one out of the connection in DSS, or \
             set by hand what the step wants"
        } else {
            "set by hand in DSS what the step wants (`dssflow why RUN` shows it), then resume: equal keys are not written"
        };
        Err(ActivityError::needs_human("RedactedSecret", message).help(help).no_effect())
    }

    fn missing(&self) -> ActivityError {
        ActivityError::terminal("NotFound", format!("{} cannot be read: it does not exist", self.named()))
            .no_effect()
    }
}

fn lists(list: &Value, field: &str, wanted: &str) -> bool {
    list.as_array().is_some_and(|items| items.iter().any(|item| item[field] == wanted))
}

/// An input that says which keys of which document hold what.
pub(crate) trait DocumentInput: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What the activity gives.
    type Output: Serialize + DeserializeOwned + Send + Sync + 'static;

    fn target(&self) -> &DssTarget;
    fn place(&self) -> Place;
    /// The keys we manage, with our values, in the shape `document` asks for.
    fn patch(&self, document: &Value) -> ActivityResult<Value>;
    fn output(&self, document: &Value) -> Self::Output;
    fn describe(&self) -> String;

    /// The last change before the document is written, as putting secrets in. What it puts in is not recorded.
    fn complete(
        &self,
        _ctx: &ActivityContext,
        _document: &mut Value,
    ) -> impl Future<Output = ActivityResult<()>> + Send {
        async { Ok(()) }
    }
}

/// The activity for such an input.
pub(crate) struct DocumentUpdate<I>(PhantomData<fn() -> I>);

impl<I> DocumentUpdate<I> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<I: DocumentInput> Activity for DocumentUpdate<I> {
    type Input = I;
    type Output = I::Output;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Update
    }

    async fn execute(&self, ctx: &ActivityContext, input: &I) -> ActivityResult<I::Output> {
        let client = DssClient::connect(ctx, input.target()).await?;
        let place = input.place();
        let mut document = place.read(&client).await?.ok_or_else(|| place.missing())?;
        let patch = input.patch(&document)?;
        let changes = tree::changes(&document, &patch);
        if changes.is_empty() {
            return Ok(input.output(&document));
        }
        ctx.record_before(tree::recorded(&changes)).await?;
        let mut original = document.clone();
        tree::apply(&mut document, &changes);
        input.complete(ctx, &mut document).await?;
        place.write(&client, &document).await?;
        let stored = place.read(&client).await?.ok_or_else(|| place.missing())?;
        place.check_carried(&original, &stored)?;
        let dropped = tree::changes(&stored, &patch);
        if !dropped.is_empty() {
            // Half of our settings serve nobody, and an undo could not tell them from somebody else's: they go at once.
            input.complete(ctx, &mut original).await?;
            place.write(&client, &original).await?;
            return Err(dropped_keys(&place, &stored, &dropped));
        }
        Ok(input.output(&stored))
    }

    async fn probe(&self, ctx: &ActivityContext, input: &I) -> ActivityResult<Probe<I::Output>> {
        let client = DssClient::connect(ctx, input.target()).await?;
        let Some(document) = input.place().read(&client).await? else { return Ok(Probe::Absent) };
        if tree::holds(&document, &input.patch(&document)?) {
            // Equal before we touched it, unless the ledger holds before-values: then the engine knows better.
            return Ok(Probe::Present {
                output: input.output(&document),
                owner: Owner::ThisSite(String::new()),
            });
        }
        Ok(Probe::Absent)
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &I,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        if recorded.before.is_empty() {
            return Ok(Undo::NothingToDo);
        }
        let client = DssClient::connect(ctx, input.target()).await?;
        let place = input.place();
        let Some(mut document) = place.read(&client).await? else { return Ok(Undo::NothingToDo) };
        let plan = tree::restoration(&document, &input.patch(&document)?, &recorded.before);
        if !plan.restore.is_empty() {
            for (path, old) in &plan.restore {
                tree::put(&mut document, path, old.as_ref());
            }
            input.complete(ctx, &mut document).await?;
            place.write(&client, &document).await?;
            let stored = place.read(&client).await?.ok_or_else(|| place.missing())?;
            place.check_carried(&document, &stored)?;
            let again = tree::restoration(&stored, &input.patch(&stored)?, &recorded.before);
            if !again.restore.is_empty() {
                let keys: Vec<&str> = again.restore.iter().map(|(path, _)| path.as_str()).collect();
                return Err(ActivityError::terminal(
                    "RestoreDropped",
                    format!("{} did not take the old value of {}", place.named(), keys.join(", ")),
                ));
            }
        }
        if !plan.changed.is_empty() {
            return Err(ActivityError::terminal(
                "ChangedSince",
                format!(
                    "{}: changed by somebody since, left as is: {}",
                    place.named(),
                    plan.changed.join(", ")
                ),
            )
            .help("look at these keys in DSS, set them as they should be, then roll back again"));
        }
        Ok(if plan.restore.is_empty() { Undo::NothingToDo } else { Undo::Undone })
    }

    fn describe(&self, input: &I) -> String {
        input.describe()
    }

    fn settle(&self) -> std::time::Duration {
        SETTLE
    }
}

/// A write that was cut off is done or not after this long: the document is written in one go.
pub(crate) const SETTLE: std::time::Duration = std::time::Duration::from_secs(5);

/// The error for keys that DSS did not keep.
pub(crate) fn dropped_keys(place: &Place, stored: &Value, dropped: &[Change]) -> ActivityError {
    let paths: Vec<String> = dropped.iter().map(|change| change.path.clone()).collect();
    let held = tree::shown(stored, &paths);
    ActivityError::terminal(
        "SettingsDropped",
        format!("{}: DSS did not keep {}; it holds {held}", place.named(), paths.join(", ")),
    )
    .help("set the option once by hand in DSS; `dssflow dss capture` then prints what belongs into `overlays` of the site")
}
