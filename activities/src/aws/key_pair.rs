//! A key pair of EC2 made from a public key of the user's: imported, never created.
//!
//! `CreateKeyPair` answers with a private key once and never again; a lost answer would lose it, and a kept one would
//! have to be kept secret. A public key is none of that.

use aws_sdk_ec2::types::{Filter, KeyPairInfo, ResourceType};
use aws_smithy_types::Blob;
use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Owner, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::error::{classify, none_if};
use super::tags;
use crate::clients::AwsClients;

/// The registered name.
pub const NAME: &str = "aws.ec2.key-pair";
/// The kind under which the key pair is recorded, by name.
pub const KIND: &str = "ec2:key-pair";

const NOT_FOUND: &[&str] = &["InvalidKeyPair.NotFound"];

/// What [`KeyPair`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPairInput {
    /// Its name, unique in account and region.
    pub name: String,
    /// The public key, as `ssh-ed25519 AAAA... comment`.
    pub public_key: String,
}

/// The key pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPairOutput {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Its fingerprint, as EC2 tells it.
    pub fingerprint: String,
}

impl KeyPairOutput {
    fn of(key: &KeyPairInfo) -> Self {
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        Self {
            name: text(key.key_name()),
            id: text(key.key_pair_id()),
            fingerprint: text(key.key_fingerprint()),
        }
    }
}

/// Kind and body of a public key, without its comment, which EC2 replaces.
fn body(public_key: &str) -> Vec<&str> {
    public_key.split_whitespace().take(2).collect()
}

/// Whether the key that is there is the one that is wanted. An endpoint that does not show public keys is believed.
fn same_key(there: &KeyPairInfo, wanted: &str) -> bool {
    there.public_key().is_none_or(|key| key.trim().is_empty() || body(key) == body(wanted))
}

async fn find(clients: &AwsClients, name: &str) -> ActivityResult<Option<KeyPairInfo>> {
    let call = clients.ec2().describe_key_pairs().key_names(name).include_public_key(true).send().await;
    let answer = none_if(call.map_err(|e| classify("ec2:DescribeKeyPairs", e)), NOT_FOUND)?;
    Ok(answer.and_then(|a| a.key_pairs.unwrap_or_default().into_iter().next()))
}

/// Whether there is a key pair of that id.
pub(crate) async fn exists(clients: &AwsClients, id: &str) -> ActivityResult<bool> {
    let filter = Filter::builder().name("key-pair-id").values(id).build();
    let call = clients.ec2().describe_key_pairs().filters(filter).send().await;
    let answer = none_if(call.map_err(|e| classify("ec2:DescribeKeyPairs", e)), NOT_FOUND)?;
    Ok(answer.is_some_and(|a| !a.key_pairs().is_empty()))
}

/// Imports a public key as a key pair.
///
/// # Idempotency
/// `ImportKeyPair` takes no token: the name is unique in account and region, and the tags given with the call tell
/// whose a key pair of that name is. One of this site with another public key waits for a person.
///
/// # Compensation
/// Deletes the key pair, if this run imported it. Instances that run with it keep the public key they have.
///
/// Page: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImportKeyPair.html>
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyPair;

impl Activity for KeyPair {
    type Input = KeyPairInput;
    type Output = KeyPairOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &KeyPairInput,
    ) -> ActivityResult<Probe<KeyPairOutput>> {
        let Some(key) = find(&*AwsClients::of(ctx)?, &input.name).await? else { return Ok(Probe::Absent) };
        let owner = tags::owner_of_ec2(&ctx.marks(), key.tags());
        if owner != Owner::Foreign && !same_key(&key, &input.public_key) {
            return Err(ActivityError::needs_human(
                "KeyPairDiffers",
                format!("key pair {} of this site has another public key than host.launch.public_key", input.name),
            )
            .help(format!(
                "put the old key back into the site file, or `aws ec2 delete-key-pair --key-name {}` when no machine \
                 needs it any more; then resume the run",
                input.name
            ))
            .no_effect());
        }
        Ok(Probe::Present { output: KeyPairOutput::of(&key), owner })
    }

    async fn execute(&self, ctx: &ActivityContext, input: &KeyPairInput) -> ActivityResult<KeyPairOutput> {
        let clients = AwsClients::of(ctx)?;
        let call = clients
            .ec2()
            .import_key_pair()
            .key_name(&input.name)
            .public_key_material(Blob::new(input.public_key.as_bytes()))
            .tag_specifications(tags::ec2(&ctx.marks(), ResourceType::KeyPair, &input.name));
        let answer = call.send().await.map_err(|e| classify("ec2:ImportKeyPair", e))?;
        ctx.record_resource(KIND, &input.name).await?;
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        Ok(KeyPairOutput {
            name: input.name.clone(),
            id: text(answer.key_pair_id()),
            fingerprint: text(answer.key_fingerprint()),
        })
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &KeyPairInput,
        _: &Recorded,
    ) -> ActivityResult<Undo> {
        let clients = AwsClients::of(ctx)?;
        match find(&clients, &input.name).await? {
            Some(key) if tags::owner_of_ec2(&ctx.marks(), key.tags()) == Owner::ThisRun => {
                let call = clients.ec2().delete_key_pair().key_name(&input.name).send().await;
                none_if(call.map_err(|e| classify("ec2:DeleteKeyPair", e)), NOT_FOUND)?;
                Ok(Undo::Undone)
            }
            _ => Ok(Undo::NothingToDo),
        }
    }

    fn describe(&self, input: &KeyPairInput) -> String {
        format!("import a public key as key pair {}", input.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_compared_without_their_comments() {
        let there = |key: &str| KeyPairInfo::builder().public_key(key).build();
        let wanted = "ssh-ed25519 AAAA me@here";
        assert!(same_key(&there("ssh-ed25519 AAAA dssflow-lab\n"), wanted));
        assert!(!same_key(&there("ssh-ed25519 BBBB me@here"), wanted));
        assert!(same_key(&KeyPairInfo::builder().build(), wanted), "not every endpoint shows it");
    }
}
