//! Closes the instance's metadata service to what must not have the instance's role: version 2 only, one hop.
//!
//! With version 1, or with more than one hop, a container on the host, or a request that a server on it is tricked
//! into, can fetch the role's credentials. Processes of the host itself still can: user isolation in DSS does not
//! change that, so a site whose service user has keys of its own is better off without a role on the instance.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{
    HttpTokensState, InstanceMetadataEndpointState, InstanceMetadataOptionsResponse,
    InstanceMetadataOptionsState,
};
use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Owner, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::classify;
use super::instance;
use super::poll::{Pace, until};
use crate::clients::AwsClients;

/// The registered name.
pub const NAME: &str = "aws.ec2.metadata-options";
/// The key under which the old `HttpTokens` is recorded.
pub const TOKENS: &str = "HttpTokens";
/// The key under which the old `HttpPutResponseHopLimit` is recorded.
pub const HOPS: &str = "HttpPutResponseHopLimit";
/// How far an answer of the metadata service may travel: the host itself, and no container on it.
const HOP_LIMIT: i32 = 1;

/// What [`MetadataOptions`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetadataOptionsInput {
    /// The instance.
    pub instance_id: String,
}

/// What the instance has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataOptionsOutput {
    /// Whether version 2 is required; `optional` allows version 1.
    pub http_tokens: String,
    /// How many hops an answer may travel.
    pub hop_limit: i32,
    /// Whether the service answers at all.
    pub enabled: bool,
}

impl MetadataOptionsOutput {
    fn of(options: &InstanceMetadataOptionsResponse) -> Self {
        Self {
            http_tokens: options.http_tokens().map_or("optional", HttpTokensState::as_str).to_owned(),
            hop_limit: options.http_put_response_hop_limit().unwrap_or(HOP_LIMIT),
            enabled: options.http_endpoint() != Some(&InstanceMetadataEndpointState::Disabled),
        }
    }

    /// Nobody who must not can fetch the role's credentials.
    fn is_closed(&self) -> bool {
        !self.enabled || self.http_tokens == HttpTokensState::Required.as_str() && self.hop_limit == HOP_LIMIT
    }
}

/// The options as they are now, when they are not on their way to something else; `None` of no instance.
async fn look(clients: &AwsClients, id: &str) -> ActivityResult<Option<(MetadataOptionsOutput, bool)>> {
    let Some(found) = instance::describe(clients, id).await? else { return Ok(None) };
    let Some(options) = found.metadata_options() else {
        return Err(ActivityError::terminal(
            "MetadataOptionsUnknown",
            format!("EC2 does not tell the metadata options of {id}"),
        )
        .help("set host.protect_metadata to false to leave them alone")
        .no_effect());
    };
    let pending = options.state() == Some(&InstanceMetadataOptionsState::Pending);
    Ok(Some((MetadataOptionsOutput::of(options), pending)))
}

async fn write(clients: &AwsClients, id: &str, tokens: &str, hops: i32) -> ActivityResult<()> {
    let call = clients
        .ec2()
        .modify_instance_metadata_options()
        .instance_id(id)
        .http_tokens(HttpTokensState::from(tokens))
        .http_put_response_hop_limit(hops)
        .http_endpoint(InstanceMetadataEndpointState::Enabled);
    call.send().await.map(drop).map_err(|e| classify("ec2:ModifyInstanceMetadataOptions", e))
}

/// Waits until the options are what was asked for.
async fn settled(
    ctx: &ActivityContext,
    clients: &AwsClients,
    id: &str,
) -> ActivityResult<MetadataOptionsOutput> {
    until(ctx, Pace::QUICK, || async {
        match look(clients, id).await? {
            Some((now, false)) => Ok(Some(now)),
            Some((_, true)) => Ok(None),
            None => Err(gone(id)),
        }
    })
    .await
}

fn gone(id: &str) -> ActivityError {
    ActivityError::terminal("InstanceNotFound", format!("there is no instance {id}")).no_effect()
}

/// Asks for version 2 of the metadata service with a hop limit of 1.
///
/// # Idempotency
/// The options are read first; those that are closed already are left as they are. A service that is switched off is
/// closed.
///
/// # Compensation
/// Puts the recorded values back where the current ones are still those written here. Values that somebody changed since
/// are an error naming them. An instance that is gone needs nothing.
///
/// Page: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyInstanceMetadataOptions.html>
#[derive(Debug, Clone, Copy, Default)]
pub struct MetadataOptions;

impl Activity for MetadataOptions {
    type Input = MetadataOptionsInput;
    type Output = MetadataOptionsOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Update
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &MetadataOptionsInput,
    ) -> ActivityResult<Probe<MetadataOptionsOutput>> {
        let clients = AwsClients::of(ctx)?;
        Ok(match look(&clients, &input.instance_id).await? {
            // Options carry no mark: the ledger's old values tell whether this step wrote them.
            Some((now, false)) if now.is_closed() => {
                Probe::Present { output: now, owner: Owner::ThisSite(String::new()) }
            }
            Some((_, true)) => Probe::InProgress { detail: "metadata options are being applied".to_owned() },
            _ => Probe::Absent,
        })
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &MetadataOptionsInput,
    ) -> ActivityResult<MetadataOptionsOutput> {
        let clients = AwsClients::of(ctx)?;
        let id = &input.instance_id;
        let old = settled(ctx, &clients, id).await?;
        if old.is_closed() {
            return Ok(old);
        }
        let before = BTreeMap::from([
            (TOKENS.to_owned(), Value::from(old.http_tokens)),
            (HOPS.to_owned(), Value::from(old.hop_limit)),
        ]);
        ctx.record_before(before).await?;
        write(&clients, id, HttpTokensState::Required.as_str(), HOP_LIMIT).await?;
        let now = settled(ctx, &clients, id).await?;
        if now.is_closed() {
            return Ok(now);
        }
        // The read lags behind the write.
        Err(ActivityError::retryable("MetadataOptionsLag", format!("{id} still shows {now:?}")))
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &MetadataOptionsInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let tokens = recorded.before.get(TOKENS).and_then(Value::as_str);
        let hops = recorded.before.get(HOPS).and_then(Value::as_i64).and_then(|h| i32::try_from(h).ok());
        let (Some(tokens), Some(hops)) = (tokens, hops) else { return Ok(Undo::NothingToDo) };
        let clients = AwsClients::of(ctx)?;
        let id = &input.instance_id;
        let Some((now, _)) = look(&clients, id).await? else { return Ok(Undo::NothingToDo) };
        if !now.enabled || now.http_tokens == tokens && now.hop_limit == hops {
            return Ok(Undo::NothingToDo);
        }
        if !now.is_closed() {
            return Err(ActivityError::terminal(
                "ChangedSince",
                format!(
                    "metadata options of {id} are {TOKENS} {}, {HOPS} {}; somebody changed them after this run wrote \
                     required and {HOP_LIMIT} over {tokens} and {hops}",
                    now.http_tokens, now.hop_limit
                ),
            )
            .help("set them as you want them, then `dssflow mark-undone RUN metadata-options --reason REASON`")
            .no_effect());
        }
        write(&clients, id, tokens, hops).await?;
        settled(ctx, &clients, id).await?;
        Ok(Undo::Undone)
    }

    fn describe(&self, input: &MetadataOptionsInput) -> String {
        format!("close the instance metadata of {} to containers: version 2 only, one hop", input.instance_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_is_version_two_and_one_hop_or_off() {
        let of = |http_tokens: &str, hop_limit, enabled| MetadataOptionsOutput {
            http_tokens: http_tokens.into(),
            hop_limit,
            enabled,
        };
        assert!(of("required", 1, true).is_closed() && of("optional", 64, false).is_closed());
        assert!(!of("optional", 1, true).is_closed() && !of("required", 2, true).is_closed());
    }
}
