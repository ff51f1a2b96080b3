//! `host.reachable`: waits until a launched machine answers over ssh, and pins its host key.
//!
//! The keys that the console shows (`ec2:GetConsoleOutput`, printed by cloud-init) are the ones that are pinned; the
//! machine must offer one of them. Where the console shows none within a minute, or may not be read, the key the machine
//! offers first is pinned, and the output says so (`first-use`). The key is fetched before any login is tried. From then
//! on the host trusts these keys alone, under the instance id, so that another address changes nothing. The step ends
//! when a command has run there as the login user and one as root.
//!
//! The output carries address and keys: a command that goes on with the run sets them again with [`restore`], before any
//! other step. Between two looks the heartbeat tells what is seen.
//!
//! # Idempotency
//! Reads only; done again it pins again what the machine then has.
//!
//! # Compensation
//! None. The keys go with the run.
//!
//! Page: <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/connect-to-linux-instance.html>

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, ErrorClass,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::host_key::{self, ConsoleKeys};
use super::step::beside;
use super::sudo::sudo_ok;
use super::transport::{Host, HostCommand, HostError, HostUser};
use super::{SshHost, SshPlace};
use crate::clients::AwsClients;

/// The registered name.
pub const NAME: &str = "host.reachable";
/// How long the console is waited for once the machine answers.
const CONSOLE_WITHIN: Duration = Duration::from_mins(1);
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Which machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReachableInput {
    /// Its instance id; its keys are kept under it.
    pub instance_id: String,
    /// Address or name it is reached at; with a `ProxyCommand` whatever that takes for `%h`.
    pub address: String,
    /// How long it may take to answer, in seconds.
    #[serde(default = "within_s")]
    pub within_s: u64,
}

/// AWS images are up in one to three minutes.
fn within_s() -> u64 {
    600
}

/// Where the trust in the key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyTrust {
    /// The console of the instance showed it.
    Console,
    /// It is what the machine offered first; nobody has compared it.
    FirstUse,
}

/// Where it is and by what it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachableOutput {
    /// Its instance id.
    pub instance_id: String,
    /// Where it is reached.
    pub address: String,
    /// The pinned keys, as `ssh-ed25519 AAAA...`.
    pub host_keys: Vec<String>,
    /// Their fingerprints.
    pub fingerprints: Vec<String>,
    /// Where the trust in them comes from.
    pub trust: KeyTrust,
}

impl ReachableOutput {
    fn place(&self) -> SshPlace {
        SshPlace {
            address: self.address.clone(),
            alias: self.instance_id.clone(),
            host_keys: self.host_keys.clone(),
        }
    }
}

/// Sets the address and keys that an earlier process recorded as the output of this activity. Without it every host
/// step of a resumed run fails with `HostAddressUnknown`.
///
/// # Errors
/// Terminal, `HostAddressUnknown`, when the output is not one of this activity or the host is not reached by ssh.
pub fn restore(host: &dyn Host, output: &serde_json::Value) -> ActivityResult<()> {
    let bad = |why: String| ActivityError::terminal("HostAddressUnknown", why).no_effect();
    let output: ReachableOutput = serde_json::from_value(output.clone())
        .map_err(|e| bad(format!("what the step {NAME} recorded cannot be read: {e}")))?;
    let ssh = host.ssh().ok_or_else(|| bad("the host is not reached by ssh".to_owned()))?;
    Ok(ssh.place(output.place())?)
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Reachable;

impl Activity for Reachable {
    type Input = ReachableInput;
    type Output = ReachableOutput;

    fn effect(&self) -> Effect {
        Effect::Read
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &ReachableInput,
    ) -> ActivityResult<ReachableOutput> {
        // Without the step's lock: there is nothing yet that it could protect, and no place to keep it.
        let Some(ssh) = beside(ctx)?.ssh() else {
            return Err(ActivityError::terminal(
                "NotOverSsh",
                "the host of this run is not reached by ssh, so there is nothing to wait for",
            )
            .help("set `host.transport: ssh`")
            .no_effect());
        };
        let started = ctx.now();
        let mut answered = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match look(ctx, &ssh, input, &mut answered).await {
                Ok(output) => return Ok(output),
                Err(error) if error.code == "HostKeyMismatch" => return Err(error),
                Err(error) => error,
            };
            let waited = ctx.now().since(started);
            ctx.heartbeat(json!({"waited_s": waited.as_secs(), "seen": &error.message}));
            if waited >= Duration::from_secs(input.within_s) {
                return Err(too_late(error, input));
            }
            ctx.sleep(pause).await?;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    fn describe(&self, input: &ReachableInput) -> String {
        format!(
            "wait until {} answers over ssh at {}, and pin its host key",
            input.instance_id, input.address
        )
    }
}

/// What is told when the time is over: a refusal as it is, silence with what it may be.
fn too_late(error: ActivityError, input: &ReachableInput) -> ActivityError {
    if error.class == ErrorClass::NeedsHuman {
        return error;
    }
    let message = format!(
        "{} did not answer over ssh within {} s: {}",
        input.instance_id, input.within_s, error.message
    );
    ActivityError::retryable("HostNotReachable", message).help(
        "check that a security group of the instance lets this machine in on port 22, that a route leads to the address, \
         and what the console shows (`aws ec2 get-console-output --latest --instance-id ...`); or run dssflow on the host",
    )
}

/// One look: key, comparison, pin, a command as the login user and one as root.
async fn look(
    ctx: &ActivityContext,
    ssh: &SshHost,
    input: &ReachableInput,
    answered: &mut Option<dssflow_engine::time::Timestamp>,
) -> ActivityResult<ReachableOutput> {
    let offered = ssh.offered_keys(&input.address, &input.instance_id).await?;
    let since = *answered.get_or_insert_with(|| ctx.now());
    let prints: Vec<String> = offered.iter().filter_map(|key| host_key::fingerprint(key)).collect();
    let shown = console(ctx, &input.instance_id).await;
    let (host_keys, trust) = match shown {
        Ok(shown) if !shown.fingerprints.is_empty() => {
            if !prints.iter().any(|print| shown.fingerprints.contains(print)) {
                return Err(mismatch(input, &prints, &shown));
            }
            (if shown.keys.is_empty() { offered } else { shown.keys }, KeyTrust::Console)
        }
        Ok(_) if ctx.now().since(since) < CONSOLE_WITHIN => {
            return Err(ActivityError::retryable(
                "ConsoleSilent",
                "ssh answers; the console does not show the host keys yet",
            ));
        }
        Ok(_) | Err(_) => (offered, KeyTrust::FirstUse),
    };
    if trust == KeyTrust::FirstUse {
        tracing::warn!(instance = %input.instance_id, ?prints, "the console shows no host key: the first one offered is pinned");
    }
    let fingerprints = host_keys.iter().filter_map(|key| host_key::fingerprint(key)).collect();
    let output = ReachableOutput {
        instance_id: input.instance_id.clone(),
        address: input.address.clone(),
        host_keys,
        fingerprints,
        trust,
    };
    ssh.place(output.place())?;
    let host: &dyn Host = ssh;
    host.run(HostCommand::new(HostUser::Login, ["true"])).await?;
    sudo_ok(host).await?;
    Ok(output)
}

fn mismatch(input: &ReachableInput, offered: &[String], shown: &ConsoleKeys) -> ActivityError {
    let message = format!(
        "{} offers the host key {}, its console shows {}: something else answers at {}",
        input.instance_id,
        offered.join(", "),
        shown.fingerprints.join(", "),
        input.address
    );
    ActivityError::needs_human("HostKeyMismatch", message).help(
        "nothing was sent there but the greeting. Find out who answers at the address (a proxy, an old instance, an \
         attacker) before the run goes on",
    )
}

/// What the console shows now. An error is the end of asking: it may not be read.
async fn console(ctx: &ActivityContext, instance: &str) -> ActivityResult<ConsoleKeys> {
    let clients = ctx.resource::<AwsClients>()?;
    let ask = |latest: bool| {
        clients.ec2().get_console_output().instance_id(instance).set_latest(latest.then_some(true)).send()
    };
    // The latest output is for Nitro instances only; the other is posted some minutes after the start.
    let answer = match Box::pin(ask(true)).await {
        Ok(answer) => answer,
        Err(_) => Box::pin(ask(false))
            .await
            .map_err(|error| crate::aws::error::classify("ec2:GetConsoleOutput", error))?,
    };
    let packed: String = answer.output().unwrap_or_default().split_whitespace().collect();
    let bytes = STANDARD.decode(packed).unwrap_or_default();
    Ok(host_key::console(&String::from_utf8_lossy(&bytes)))
}

impl SshHost {
    /// The host keys that answer at an address, without logging in.
    ///
    /// # Errors
    /// When nothing answers, or not as an ssh server.
    pub async fn offered_keys(&self, address: &str, alias: &str) -> Result<Vec<String>, HostError> {
        let asked = self.ask_keys(address, alias).await?;
        if asked.keys.is_empty() {
            let detail = if asked.complaint.is_empty() {
                "no host key was offered".to_owned()
            } else {
                asked.complaint
            };
            return Err(HostError::Unreachable { host: address.to_owned(), detail });
        }
        Ok(asked.keys)
    }
}
