//! `host.tool`: one pinned program in the path: `kubectl`, `eksctl` or `aws-iam-authenticator`.
//!
//! Pinned, because the EKS plugin otherwise downloads the latest `eksctl` by itself. The plugin compares authenticator
//! versions as text, so 0.10 would count as older than 0.5.4.
//!
//! # Idempotency
//! A program that already reports the wanted version is left. Otherwise it is downloaded, checked, and moved in place
//! by one rename; a program of another version is moved aside first.
//!
//! # Compensation
//! Our program is removed if its contents are still ours, and the one moved aside comes back.

use std::time::Duration;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::step::{self, Download, SETTLE, host, root, scratch};
use super::transport::{Host, HostUser};
use super::{SCRATCH, check_path, marker};

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToolKind {
    /// The Kubernetes client.
    Kubectl,
    /// The EKS client the plugin runs.
    Eksctl,
    /// What `kubectl` logs in with.
    AwsIamAuthenticator,
}

impl ToolKind {
    /// The program's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kubectl => "kubectl",
            Self::Eksctl => "eksctl",
            Self::AwsIamAuthenticator => "aws-iam-authenticator",
        }
    }

    fn version_arguments(self) -> &'static [&'static str] {
        match self {
            Self::Kubectl => &["version", "--client", "-o", "json"],
            Self::Eksctl => &["version"],
            Self::AwsIamAuthenticator => &["version", "-o", "json"],
        }
    }

    /// Finds the version in what the program prints.
    fn parse_version(self, text: &str) -> Option<String> {
        let json = || serde_json::from_str::<serde_json::Value>(text).ok();
        let version = match self {
            Self::Kubectl => json()?.pointer("/clientVersion/gitVersion")?.as_str()?.to_owned(),
            Self::Eksctl => text.trim().split(['-', '+', '\n']).next()?.to_owned(),
            Self::AwsIamAuthenticator => json()?.get("Version")?.as_str()?.to_owned(),
        };
        Some(version.trim_start_matches('v').to_owned()).filter(|v| !v.is_empty())
    }
}

/// What is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ToolInput {
    /// The program.
    pub tool: ToolKind,
    /// The version it must report, without a leading `v`.
    pub version: String,
    /// Where to download it.
    pub url: String,
    /// SHA-256 of the download, lower-case hex; without one the reported version is all that is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Directory it goes to, in the path of every user.
    pub directory: String,
}

/// What is there now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolOutput {
    /// Path of the program.
    pub path: String,
    /// The version it reports.
    pub version: String,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Tool;

const FILE: &str = "host:file";

fn path_of(input: &ToolInput) -> ActivityResult<String> {
    let path = format!("{}/{}", input.directory.trim_end_matches('/'), input.tool.name());
    check_path(&path)?;
    Ok(path)
}

fn aside(path: &str) -> String {
    format!("{path}.dssflow-before")
}

async fn reported(host: &dyn Host, tool: ToolKind) -> ActivityResult<Option<String>> {
    let argv = std::iter::once(tool.name()).chain(tool.version_arguments().iter().copied());
    let output = host.exec(root(argv)).await?;
    if !output.ok() {
        return Ok(None);
    }
    Ok(tool.parse_version(&output.text()))
}

/// Removes what an installation left in the scratch directory.
async fn clear(host: &dyn Host, name: &str) -> ActivityResult<()> {
    let scratch = scratch(name);
    for left in
        [name.to_owned(), format!("{name}.part"), format!("{name}.tar.gz"), format!("{name}.tar.gz.part")]
    {
        host.remove_file(&HostUser::Root, &format!("{scratch}/{left}")).await?;
    }
    Ok(host.remove_empty_dir(&HostUser::Root, &scratch).await?)
}

impl Activity for Tool {
    type Input = ToolInput;
    type Output = ToolOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(&self, ctx: &ActivityContext, input: &ToolInput) -> ActivityResult<Probe<ToolOutput>> {
        let host = host(ctx)?;
        let there = async |_: &_| Ok(reported(&*host, input.tool).await?.as_deref() == Some(&input.version));
        step::probe_marked(ctx, &*host, input, there).await
    }

    async fn execute(&self, ctx: &ActivityContext, input: &ToolInput) -> ActivityResult<ToolOutput> {
        let host = host(ctx)?;
        let path = path_of(input)?;
        let output = ToolOutput { path: path.clone(), version: input.version.clone() };
        let user = HostUser::Root;
        let mut made = Vec::new();
        if reported(&*host, input.tool).await?.as_deref() != Some(&input.version) {
            let name = input.tool.name();
            let scratch = scratch(name);
            // What is not recorded when an attempt is cut off is not taken back.
            ctx.record_resource(SCRATCH, &scratch).await?;
            host.make_dir(&user, &scratch, "0700", None).await?;
            let archive = step::has_extension(&input.url, "gz") || step::has_extension(&input.url, "tgz");
            let file = format!("{scratch}/{name}{}", if archive { ".tar.gz" } else { "" });
            let wanted =
                Download { url: &input.url, sha256: input.sha256.as_deref(), path: &file, user: &user };
            step::download(ctx, &*host, wanted).await?;
            let program = format!("{scratch}/{name}");
            if archive {
                step::run_root(&*host, ["tar", "xzf", &file, "--no-same-owner", "-C", &scratch, name])
                    .await?;
            }
            step::run_root(&*host, ["chmod", "0755", &program]).await?;
            let hash = host.sha256(&user, &program).await?.unwrap_or_default();
            // The id carries the hash by which the undo recognises the file.
            ctx.record_resource(FILE, format!("{path} {hash}")).await?;
            if host.sha256(&user, &path).await?.is_some_and(|old| old != hash)
                && !host.exists(&user, &aside(&path)).await?
            {
                host.move_path(&user, &path, &aside(&path)).await?;
            }
            host.remove_file(&user, &path).await?;
            host.move_path(&user, &program, &path).await?;
            host.remove_file(&user, &file).await?;
            host.remove_empty_dir(&user, &scratch).await?;
            made.push(path);
            let now = reported(&*host, input.tool).await?;
            if now.as_deref() != Some(&input.version) {
                let message =
                    format!("{name} reports {}, {} was wanted", now.unwrap_or_default(), input.version);
                return Err(ActivityError::terminal("ToolVersion", message)
                    .help("check that the URL in `host.tools` is of that version, and that no other copy is earlier in the path"));
            }
        } else if host.exists(&user, &scratch(input.tool.name())).await? {
            // An attempt that was cut off had put the program in its place already.
            clear(&*host, input.tool.name()).await?;
        }
        marker::write(ctx, &*host, input, made, &output).await?;
        Ok(output)
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &ToolInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let host = host(ctx)?;
        let ids = step::recorded_ids(recorded, FILE);
        if !step::may_undo(ctx, &*host, input).await? {
            return Ok(Undo::NothingToDo);
        }
        let mut undo = Undo::NothingToDo;
        for id in &ids {
            let Some((path, hash)) = id.split_once(' ') else { continue };
            if host.sha256(&HostUser::Root, path).await?.as_deref() == Some(hash) {
                host.remove_file(&HostUser::Root, path).await?;
                undo = Undo::Undone;
            }
            if !host.exists(&HostUser::Root, path).await?
                && host.move_path(&HostUser::Root, &aside(path), path).await?
            {
                undo = Undo::Undone;
            }
        }
        if recorded.ids(SCRATCH).next().is_some() {
            clear(&*host, input.tool.name()).await?;
        }
        marker::remove(ctx, &*host, input).await?;
        Ok(undo)
    }

    fn describe(&self, input: &ToolInput) -> String {
        format!("install {} {} into {}", input.tool.name(), input.version, input.directory)
    }

    fn settle(&self) -> Duration {
        SETTLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_tools_print() {
        let kubectl = r#"{"clientVersion": {"gitVersion": "v1.33.1"}}"#;
        assert_eq!(ToolKind::Kubectl.parse_version(kubectl).as_deref(), Some("1.33.1"));
        assert_eq!(ToolKind::Eksctl.parse_version("0.215.0-dev+abc\n").as_deref(), Some("0.215.0"));
        let authenticator = r#"{"Version":"0.7.2","Commit":"x"}"#;
        assert_eq!(ToolKind::AwsIamAuthenticator.parse_version(authenticator).as_deref(), Some("0.7.2"));
        assert_eq!(ToolKind::Kubectl.parse_version("error"), None);
    }
}
