//! `host.api-key`: an admin API key of DSS, made by `dsscli` on the host and put into a sink.
//!
//! DSS shows the key once. It goes from `dsscli`'s output straight into the sink, durably, before the step is done;
//! the output of the step names the sink only.
//!
//! # Idempotency
//! The key is found by its label, `dssflow-SITE`; its description carries the ownership marks. A key of ours whose
//! secret is not in the sink was lost on the way: it is deleted and a new one is made. A label of somebody else, or a
//! sink that already holds something we never wrote, stops the run.
//!
//! # Compensation
//! The key is deleted by its id, and the sink is emptied if it still holds that key.

use std::time::Duration;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Marks, Owner, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::step::{self, SETTLE, host};
use super::transport::{Host, HostCommand, HostUser};
use super::{check_path, marker};
use crate::secret::{Secret, SecretRef, SecretSink};

/// What is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiKeyInput {
    /// The data directory.
    pub data_dir: String,
    /// The service user.
    pub user: String,
    /// Label of the key, `dssflow-SITE`.
    pub label: String,
    /// Where the key goes.
    pub sink: SecretSink,
}

/// What is there now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKeyOutput {
    /// Id of the key in DSS.
    pub id: String,
    /// Where its secret can be read.
    pub reference: SecretRef,
    /// By which the sink's contents are recognised; tells nothing of the secret.
    pub fingerprint: String,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct ApiKey;

const KEY: &str = "dss:api-key";
const LABEL: &str = "dss:api-key-label";
const FINGERPRINT: &str = "dss:api-key-fingerprint";

/// A key as `dsscli api-keys-list` shows it.
#[derive(Debug, Deserialize)]
struct Listed {
    #[serde(default)]
    id: String,
    #[serde(default)]
    label: String,
    #[serde(default)]
    description: String,
}

/// A key as `dsscli api-key-create` shows it, once.
#[derive(Deserialize)]
struct Created {
    id: String,
    key: String,
}

impl Drop for Created {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.key);
    }
}

fn dsscli(input: &ApiKeyInput, user: &HostUser, words: &[&str]) -> HostCommand {
    let program = format!("{}/bin/dsscli", input.data_dir);
    HostCommand::new(user.clone(), std::iter::once(program.as_str()).chain(words.iter().copied()))
}

/// Keys with our label.
async fn listed(host: &dyn Host, user: &HostUser, input: &ApiKeyInput) -> ActivityResult<Vec<Listed>> {
    let output = host.run(dsscli(input, user, &["api-keys-list", "--output", "json"])).await?;
    let keys: Vec<Listed> = serde_json::from_slice(&output.stdout).map_err(|_| {
        // The parser's message could repeat what it read.
        ActivityError::terminal("DsscliOutput", "dsscli api-keys-list did not print a JSON list of keys")
    })?;
    Ok(keys.into_iter().filter(|key| key.label == input.label).collect())
}

/// The marks as one word for a description: tag keys and values, space separated.
fn description(marks: &Marks) -> String {
    let tags = marks.tags().into_iter().map(|(key, value)| format!("{key}={}", value.replace(' ', "_")));
    format!("made by dssflow {}", tags.collect::<Vec<_>>().join(" "))
}

fn owner(marks: &Marks, description: &str) -> Owner {
    marks.owner_by(description.split(' ').filter_map(|word| word.split_once('=')))
}

async fn delete(host: &dyn Host, user: &HostUser, input: &ApiKeyInput, id: &str) -> ActivityResult<()> {
    let plain = !id.is_empty()
        && !id.starts_with('-')
        && id.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
    if !plain {
        return Err(ActivityError::terminal("DsscliOutput", "dsscli listed a key without a usable id"));
    }
    host.run(dsscli(input, user, &["api-key-delete", id])).await?;
    Ok(())
}

impl Activity for ApiKey {
    type Input = ApiKeyInput;
    type Output = ApiKeyOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(&self, ctx: &ActivityContext, input: &ApiKeyInput) -> ActivityResult<Probe<ApiKeyOutput>> {
        let host = host(ctx)?;
        let user = step::service(&input.user)?;
        let there = async |output: &ApiKeyOutput| {
            let Some(secret) = input.sink.read_in(ctx).await? else { return Ok(false) };
            if secret.fingerprint() != output.fingerprint {
                return Ok(false);
            }
            Ok(listed(&*host, &user, input).await?.iter().any(|key| key.id == output.id))
        };
        step::probe_marked(ctx, &*host, input, there).await
    }

    async fn execute(&self, ctx: &ActivityContext, input: &ApiKeyInput) -> ActivityResult<ApiKeyOutput> {
        let host = host(ctx)?;
        let user = step::service(&input.user)?;
        check_path(&input.data_dir)?;
        let marks = ctx.marks();
        let keys = listed(&*host, &user, input).await?;
        if let Some(foreign) = keys.iter().find(|key| owner(&marks, &key.description) == Owner::Foreign) {
            let message = format!(
                "DSS has a key {} labelled {:?} that this store did not make",
                foreign.id, input.label
            );
            return Err(ActivityError::needs_human("ApiKeyLabelTaken", message)
                .help("delete or relabel that key in DSS, or bring a key of your own as `dss.api_key`"));
        }
        if keys.is_empty()
            && ctx.attempt() == 1
            && ctx.generation() == 1
            && input.sink.read_in(ctx).await?.is_some()
        {
            let message = format!("{} already holds something", input.sink.reference());
            return Err(ActivityError::needs_human("SinkTaken", message)
                .help("empty the sink, or bring the key in it as `dss.api_key`"));
        }
        // Their secrets are lost: nobody can read a key a second time.
        for key in &keys {
            delete(&*host, &user, input, &key.id).await?;
        }
        let words = [
            "api-key-create",
            "--label",
            &input.label,
            "--description",
            &description(&marks),
            "--admin",
            "true",
            "--output",
            "json",
        ];
        // Recorded before the call: a key whose secret was lost is none for the probe, and an undo would look no more.
        ctx.record_resource(LABEL, &input.label).await?;
        let output = host.run(dsscli(input, &user, &words)).await?;
        let made: Vec<Created> = serde_json::from_slice(&output.stdout).map_err(|_| {
            ActivityError::retryable("DsscliOutput", "dsscli api-key-create did not print the new key")
        })?;
        let Some(created) = made.into_iter().next() else {
            return Err(ActivityError::retryable(
                "DsscliOutput",
                "dsscli api-key-create printed an empty list",
            ));
        };
        let secret = Secret::new(created.key.as_str());
        // Who may still record it is the one whose key counts.
        ctx.record_resource(KEY, &created.id).await?;
        // An attempt that was given up may have made one meanwhile, whose secret nobody will read.
        for key in listed(&*host, &user, input).await? {
            if key.id != created.id && owner(&marks, &key.description) == Owner::ThisRun {
                delete(&*host, &user, input, &key.id).await?;
            }
        }
        ctx.record_resource(FINGERPRINT, secret.fingerprint()).await?;
        let reference = input.sink.write_in(ctx, &secret).await?;
        let output = ApiKeyOutput { id: created.id.clone(), reference, fingerprint: secret.fingerprint() };
        marker::write(ctx, &*host, input, vec![format!("api-key:{}", output.id)], &output).await?;
        Ok(output)
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &ApiKeyInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let host = host(ctx)?;
        let user = step::service(&input.user)?;
        if !step::may_undo(ctx, &*host, input).await? {
            return Ok(Undo::NothingToDo);
        }
        let mut undo = Undo::NothingToDo;
        // Without a data directory there is no DSS, and no key in it.
        if host.exists(&HostUser::Root, &format!("{}/bin/dsscli", input.data_dir)).await? {
            let marks = ctx.marks();
            for key in listed(&*host, &user, input).await? {
                if owner(&marks, &key.description) == Owner::ThisRun {
                    delete(&*host, &user, input, &key.id).await?;
                    undo = Undo::Undone;
                }
            }
        }
        for fingerprint in step::recorded_ids(recorded, FINGERPRINT) {
            if input.sink.remove_in(ctx, &fingerprint).await? {
                undo = Undo::Undone;
            }
        }
        marker::remove(ctx, &*host, input).await?;
        Ok(undo)
    }

    fn describe(&self, input: &ApiKeyInput) -> String {
        format!("make the admin API key {} and write it to {}", input.label, input.sink.reference())
    }

    fn settle(&self) -> Duration {
        SETTLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_proves_the_owner() {
        let marks = |store: &str, run: &str| Marks {
            store: store.into(),
            site: "lab".into(),
            run: run.into(),
            step: "dss.api-key".into(),
            generation: 2,
        };
        let ours = marks("s", "r");
        assert_eq!(owner(&ours, &description(&ours)), Owner::ThisRun);
        assert_eq!(owner(&ours, &description(&marks("s", "old"))), Owner::ThisSite("old".into()));
        assert_eq!(owner(&ours, &description(&marks("x", "r"))), Owner::Foreign);
        assert_eq!(owner(&ours, "typed by hand"), Owner::Foreign);
    }
}
