//! `host.aws-credentials`: the service user's `~/.aws/credentials` and `config`.
//!
//! What `aws configure` does, but the values travel by stdin and the files are 0600. Without keys (an instance
//! profile) only the region is written. With a role the default profile assumes it, by the keys in a profile of their
//! own or by the instance's role. Other profiles in the files are kept as they are. The file is written as the service
//! user.
//!
//! # Idempotency
//! The profile's section is compared with what it should be; a file is written by rename.
//!
//! # Compensation
//! A file that was there before is saved beside it, on the host and 0600, because it may hold secrets. It comes back
//! only while the current file is the one we wrote (recognised by a keyed fingerprint); otherwise the undo fails and
//! names the file. Without an older file ours is removed.

use std::time::Duration;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::step::{self, SETTLE, host};
use super::transport::{Host, HostCommand, HostUser};
use super::{check_path, marker};
use crate::secret::{Secret, SecretRef, resolve_in};

/// What is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AwsCredentialsInput {
    /// The service user.
    pub user: String,
    /// Its home directory.
    pub home: String,
    /// The keys; none for an instance profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<AwsKeys>,
    /// The role to assume with the keys, or without keys as the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<AwsRole>,
    /// Region of the `default` profile.
    pub region: String,
    /// Account the keys must belong to.
    pub expected_account: String,
}

/// Where the keys lie.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AwsKeys {
    /// The access key id.
    pub access_key_id: SecretRef,
    /// The secret access key.
    pub secret_access_key: SecretRef,
    /// The session token of temporary keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<SecretRef>,
}

/// A role of the service user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwsRole {
    /// Its ARN.
    pub role_arn: String,
    /// What the session is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_name: Option<String>,
    /// What the role's trust policy asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
}

/// Who the service user is for AWS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwsCredentialsOutput {
    /// Account.
    pub account: String,
    /// ARN, session name included.
    pub arn: String,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct AwsCredentials;

const DIR: &str = "host:dir";
const FILE: &str = "host:file";

/// A file, the name of its section, and the lines the section must have.
struct Wanted {
    path: String,
    section: &'static str,
    lines: Zeroizing<String>,
}

const SECTION: &str = "[default]";
/// Where the keys are that assume the default profile's role.
const SOURCE_SECTION: &str = "[dssflow-source]";

/// What the default profile of `config` says. No secret is in it.
fn config_lines(input: &AwsCredentialsInput) -> ActivityResult<String> {
    let mut settings = vec![("region", input.region.as_str())];
    if let Some(role) = &input.role {
        settings.push(("role_arn", &role.role_arn));
        settings.push(match input.keys {
            Some(_) => ("source_profile", "dssflow-source"),
            None => ("credential_source", "Ec2InstanceMetadata"),
        });
        settings.extend(role.session_name.as_deref().map(|name| ("role_session_name", name)));
        settings.extend(role.external_id.as_deref().map(|id| ("external_id", id)));
    }
    if settings.iter().any(|(_, value)| value.is_empty() || value.chars().any(char::is_control)) {
        let message = "region, role or external id have characters that do not belong there";
        return Err(ActivityError::terminal("BadAwsConfig", message).no_effect());
    }
    Ok(settings.into_iter().flat_map(|(key, value)| [key, " = ", value, "\n"]).collect())
}

async fn wanted(ctx: &ActivityContext, input: &AwsCredentialsInput) -> ActivityResult<Vec<Wanted>> {
    let dir = aws_dir(input)?;
    let mut files = vec![Wanted {
        path: format!("{dir}/config"),
        section: SECTION,
        lines: Zeroizing::new(config_lines(input)?),
    }];
    if let Some(keys) = &input.keys {
        let id = resolve_in(ctx, &keys.access_key_id).await?;
        let secret = resolve_in(ctx, &keys.secret_access_key).await?;
        let token = match &keys.session_token {
            Some(token) => Some(resolve_in(ctx, token).await?),
            None => None,
        };
        for (name, value) in [
            ("access key id", Some(&id)),
            ("secret access key", Some(&secret)),
            ("session token", token.as_ref()),
        ] {
            if value.is_some_and(|v: &Secret| v.expose().chars().any(|c| c.is_control() || c.is_whitespace()))
            {
                let message = format!("the {name} has white space in it");
                return Err(ActivityError::credentials("SecretUnusable", message));
            }
        }
        let mut lines = Zeroizing::new(String::with_capacity(4096));
        lines.push_str("aws_access_key_id = ");
        lines.push_str(id.expose());
        lines.push_str("\naws_secret_access_key = ");
        lines.push_str(secret.expose());
        lines.push('\n');
        if let Some(token) = &token {
            lines.push_str("aws_session_token = ");
            lines.push_str(token.expose());
            lines.push('\n');
        }
        let section = if input.role.is_some() { SOURCE_SECTION } else { SECTION };
        files.push(Wanted { path: format!("{dir}/credentials"), section, lines });
    }
    Ok(files)
}

fn aws_dir(input: &AwsCredentialsInput) -> ActivityResult<String> {
    let dir = format!("{}/.aws", input.home.trim_end_matches('/'));
    check_path(&dir)?;
    Ok(dir)
}

/// Splits a file into the text before our section, the section's lines, and the text after it.
fn split<'t>(text: &'t str, section: &str) -> (&'t str, Option<&'t str>, &'t str) {
    let mut at = 0;
    let mut start = None;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim();
        if let Some((from, body)) = start {
            if trimmed.starts_with('[') {
                return (&text[..from], Some(&text[body..at]), &text[at..]);
            }
        } else if trimmed == section {
            start = Some((at, at + line.len()));
        }
        at += line.len();
    }
    match start {
        Some((from, body)) => (&text[..from], Some(&text[body..]), ""),
        None => (text, None, ""),
    }
}

/// Whether the section has just the wanted lines, white space aside.
fn holds(text: &str, section: &str, lines: &str) -> bool {
    let squeeze = |line: &str| Zeroizing::new(line.split_whitespace().collect::<String>());
    let all = |text: &str| text.lines().map(squeeze).filter(|l| !l.is_empty()).collect::<Vec<_>>();
    split(text, section).1.is_some_and(|found| all(found) == all(lines))
}

/// The file with our section in place of an older one.
fn merged(text: &str, section: &str, lines: &str) -> Zeroizing<String> {
    let (before, _, after) = split(text, section);
    let gap = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
    let mut whole = Zeroizing::new(String::with_capacity(text.len() + lines.len() + 64));
    for part in [before, gap, section, "\n", lines, if after.is_empty() { "" } else { "\n" }, after] {
        whole.push_str(part);
    }
    whole
}

fn aside(path: &str) -> String {
    format!("{path}.dssflow-before")
}

async fn read_text(
    host: &dyn Host,
    user: &HostUser,
    path: &str,
) -> ActivityResult<Option<Zeroizing<String>>> {
    let Some(bytes) = host.read_file(user, path).await? else { return Ok(None) };
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Some(Zeroizing::new(text.to_owned()))),
        Err(_) => Err(ActivityError::needs_human("FileNotText", format!("{path} is not UTF-8 text"))),
    }
}

/// Asks AWS, as the service user, who it is.
async fn caller(
    host: &dyn Host,
    user: &HostUser,
    input: &AwsCredentialsInput,
) -> ActivityResult<AwsCredentialsOutput> {
    let argv = ["aws", "sts", "get-caller-identity", "--output", "json"];
    let output = host.exec(HostCommand::new(user.clone(), argv)).await?;
    if !output.ok() {
        let complaint = output.complaint();
        let known =
            ["InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken", "Unable to locate credentials"];
        let message = format!("`aws sts get-caller-identity` as {}: {complaint}", input.user);
        if known.iter().any(|k| complaint.contains(k)) {
            return Err(ActivityError::credentials("ServiceCredentialsRefused", message));
        }
        return Err(ActivityError::retryable("CallerIdentityFailed", message));
    }
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let text = |key: &str| json.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    let output = AwsCredentialsOutput { account: text("Account"), arn: text("Arn") };
    if output.account != input.expected_account {
        let message = format!(
            "the keys belong to account {:?}, the site expects {}",
            output.account, input.expected_account
        );
        return Err(ActivityError::needs_human("WrongAccount", message)
            .help("check `service_credentials` and `expected_account` in the site file"));
    }
    Ok(output)
}

impl Activity for AwsCredentials {
    type Input = AwsCredentialsInput;
    type Output = AwsCredentialsOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Update
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &AwsCredentialsInput,
    ) -> ActivityResult<Probe<AwsCredentialsOutput>> {
        let host = host(ctx)?;
        let user = step::service(&input.user)?;
        let current = async |_: &_| {
            for file in wanted(ctx, input).await? {
                let text = read_text(&*host, &user, &file.path).await?;
                if !text.is_some_and(|text| holds(&text, file.section, &file.lines)) {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        step::probe_marked(ctx, &*host, input, current).await
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &AwsCredentialsInput,
    ) -> ActivityResult<AwsCredentialsOutput> {
        let host = host(ctx)?;
        let user = step::service(&input.user)?;
        let dir = aws_dir(input)?;
        if !host.exists(&user, &dir).await? {
            ctx.record_resource(DIR, &dir).await?;
            host.make_dir(&user, &dir, "0700", None).await?;
        }
        let mut made = Vec::new();
        for file in wanted(ctx, input).await? {
            // What a killed attempt left may hold the keys.
            host.clear_unfinished(&user, &file.path).await?;
            let text = read_text(&*host, &user, &file.path).await?;
            if text.as_ref().is_some_and(|text| holds(text, file.section, &file.lines)) {
                continue;
            }
            let whole = merged(text.as_deref().map_or("", String::as_str), file.section, &file.lines);
            // A copy from an earlier attempt is the true old file; a second copy would save our own.
            if text.is_some() && !host.exists(&user, &aside(&file.path)).await? {
                host.copy_file(&user, &file.path, &aside(&file.path)).await?;
            }
            let id = format!("{} {}", file.path, step::fingerprint(ctx, whole.as_bytes()));
            ctx.record_resource(FILE, id).await?;
            host.write_file(&user, &file.path, whole.as_bytes(), "0600", None).await?;
            made.push(file.path);
        }
        let output = caller(&*host, &user, input).await?;
        marker::write(ctx, &*host, input, made, &output).await?;
        Ok(output)
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &AwsCredentialsInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let host = host(ctx)?;
        let user = step::service(&input.user)?;
        if !step::may_undo(ctx, &*host, input).await? {
            return Ok(Undo::NothingToDo);
        }
        if !step::succeeds(&*host, step::root(["getent", "passwd", &input.user])).await? {
            // The account went, and its home with it.
            marker::remove(ctx, &*host, input).await?;
            return Ok(Undo::NothingToDo);
        }
        let ids = step::recorded_ids(recorded, FILE);
        let mut paths: Vec<&str> =
            ids.iter().filter_map(|id| id.split_once(' ')).map(|(path, _)| path).collect();
        paths.dedup();
        let mut undo = Undo::NothingToDo;
        for path in paths {
            let saved = host.exists(&user, &aside(path)).await?;
            if let Some(now) = host.read_file(&user, path).await? {
                let current = format!("{path} {}", step::fingerprint(ctx, &now));
                if !ids.contains(&current) {
                    if !saved {
                        // Never written by us, or put back by an undo that was cut short.
                        continue;
                    }
                    let message =
                        format!("{path} was changed after dssflow wrote it; the older file is beside it");
                    return Err(ActivityError::needs_human("ChangedSince", message).help(format!(
                        "compare {path} with {}, keep one of them, then retry the rollback",
                        aside(path)
                    )));
                }
                host.remove_file(&user, path).await?;
            }
            host.move_path(&user, &aside(path), path).await?;
            undo = Undo::Undone;
        }
        for dir in step::recorded_ids(recorded, DIR) {
            host.remove_empty_dir(&user, &dir).await?;
        }
        marker::remove(ctx, &*host, input).await?;
        Ok(undo)
    }

    fn describe(&self, input: &AwsCredentialsInput) -> String {
        let what = match (&input.keys, &input.role) {
            (Some(_), None) => "AWS keys and region",
            (_, Some(_)) => "an AWS role and region",
            (None, None) => "the AWS region",
        };
        format!("write {what} for {} into {}/.aws", input.user, input.home)
    }

    fn settle(&self) -> Duration {
        SETTLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_profiles_are_kept() {
        let lines = "aws_access_key_id = NEW\n";
        for (old, new) in [
            ("", "[default]\naws_access_key_id = NEW\n"),
            ("[other]\nx = 1\n", "[other]\nx = 1\n[default]\naws_access_key_id = NEW\n"),
            ("[default]\nx = 1\n[other]\ny = 2\n", "[default]\naws_access_key_id = NEW\n\n[other]\ny = 2\n"),
            ("[a]\nx = 1", "[a]\nx = 1\n[default]\naws_access_key_id = NEW\n"),
        ] {
            let got = merged(old, SECTION, lines);
            assert_eq!(got.as_str(), new);
            assert!(holds(&got, SECTION, lines) && merged(&got, SECTION, lines).contains("NEW"));
            assert!(!holds(old, SECTION, lines));
        }
    }

    #[test]
    fn a_role_is_assumed_by_keys_beside_it_or_by_the_instance() {
        let mut input: AwsCredentialsInput = serde_json::from_value(serde_json::json!({
            "user": "dssuser", "home": "/home/dssuser", "region": "eu-west-1", "expected_account": "123456789012",
            "role": { "role_arn": "arn:aws:iam::123456789012:role/dss", "external_id": "x-1" }
        }))
        .unwrap();
        let lines = config_lines(&input).unwrap();
        assert!(lines.contains("credential_source = Ec2InstanceMetadata\n"), "{lines}");
        assert!(lines.contains("external_id = x-1\n") && !lines.contains("role_session_name"), "{lines}");
        let reference = SecretRef::Env { env: "X".into() };
        input.keys = Some(AwsKeys {
            access_key_id: reference.clone(),
            secret_access_key: reference,
            session_token: None,
        });
        assert!(config_lines(&input).unwrap().contains("source_profile = dssflow-source\n"));
        input.role.as_mut().unwrap().external_id = Some("x\n[other]".into());
        assert!(config_lines(&input).is_err(), "a value cannot open a section");
    }
}
