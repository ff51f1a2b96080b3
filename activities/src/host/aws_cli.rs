//! `host.aws-cli`: the `aws` command line, version 2.
//!
//! DSS runs it to log in to ECR. After docs.aws.amazon.com/cli (install on Linux).
//!
//! # Idempotency
//! An `aws` that reports version 2 is left. Needs `unzip` on the host.
//!
//! # Compensation
//! The directories and links of the installer are removed if they were not there before.

use std::time::Duration;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::step::{self, Download, SETTLE, host, root, scratch};
use super::transport::{Host, HostUser};
use super::{SCRATCH, marker};

/// What is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AwsCliInput {
    /// The version the download must report; one that is there and is any version 2 is left.
    pub version: String,
    /// URL of `awscli-exe-linux-x86_64[-VERSION].zip`.
    pub url: String,
    /// SHA-256 of the download, lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// What is there now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwsCliOutput {
    /// The version it reports, as `2.31.0`.
    pub version: String,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct AwsCli;

const INSTALL_DIR: &str = "/usr/local/aws-cli";
const BIN_DIR: &str = "/usr/local/bin";
const LINKS: [&str; 2] = ["/usr/local/bin/aws", "/usr/local/bin/aws_completer"];
const PATH: &str = "host:path";

async fn version(host: &dyn Host) -> ActivityResult<Option<String>> {
    let output = host.exec(root(["aws", "--version"])).await?;
    let text = output.text();
    let version = text.strip_prefix("aws-cli/").and_then(|t| t.split_whitespace().next());
    Ok(version.filter(|v| output.ok() && v.starts_with("2.")).map(str::to_owned))
}

impl Activity for AwsCli {
    type Input = AwsCliInput;
    type Output = AwsCliOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(&self, ctx: &ActivityContext, input: &AwsCliInput) -> ActivityResult<Probe<AwsCliOutput>> {
        let host = host(ctx)?;
        step::probe_marked(ctx, &*host, input, async |_| Ok(version(&*host).await?.is_some())).await
    }

    async fn execute(&self, ctx: &ActivityContext, input: &AwsCliInput) -> ActivityResult<AwsCliOutput> {
        let host = host(ctx)?;
        let user = HostUser::Root;
        let mut made = Vec::new();
        if version(&*host).await?.is_none() {
            for path in [INSTALL_DIR, LINKS[0], LINKS[1]] {
                if !host.exists(&user, path).await? {
                    ctx.record_resource(PATH, path).await?;
                    made.push(path.to_owned());
                }
            }
            let scratch = scratch("awscli");
            // What is not recorded when an attempt is cut off is not taken back.
            ctx.record_resource(SCRATCH, &scratch).await?;
            host.make_dir(&user, &scratch, "0700", None).await?;
            let (file, unpacked) = (format!("{scratch}/awscli.zip"), format!("{scratch}/awscli"));
            let wanted =
                Download { url: &input.url, sha256: input.sha256.as_deref(), path: &file, user: &user };
            step::download(ctx, &*host, wanted).await?;
            host.remove_tree(&user, &unpacked).await?;
            step::run_root(&*host, ["unzip", "-q", "-o", &file, "-d", &unpacked]).await?;
            let installer = format!("{unpacked}/aws/install");
            let argv = [installer.as_str(), "--install-dir", INSTALL_DIR, "--bin-dir", BIN_DIR, "--update"];
            host.run(root(argv).timeout(Duration::from_mins(5))).await?;
            clear(&*host).await?;
        } else if host.exists(&user, &scratch("awscli")).await? {
            // An attempt that was cut off had installed it already.
            clear(&*host).await?;
        }
        let found = version(&*host).await?;
        let Some(version) = found.filter(|v| made.is_empty() || *v == input.version) else {
            let message = format!("after the installation `aws` does not report version {}", input.version);
            return Err(ActivityError::terminal("AwsCliVersion", message).help(
                "check that the URL is of that version; another `aws` may be earlier in the path of root",
            ));
        };
        let output = AwsCliOutput { version };
        marker::write(ctx, &*host, input, made, &output).await?;
        Ok(output)
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &AwsCliInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let host = host(ctx)?;
        if !step::may_undo(ctx, &*host, input).await? {
            return Ok(Undo::NothingToDo);
        }
        let mut undo = Undo::NothingToDo;
        let paths = step::recorded_ids(recorded, PATH);
        for path in &paths {
            let gone = if path == INSTALL_DIR {
                host.remove_tree(&HostUser::Root, path).await?
            } else {
                host.remove_file(&HostUser::Root, path).await?
            };
            if gone {
                undo = Undo::Undone;
            }
        }
        if recorded.ids(SCRATCH).next().is_some() {
            clear(&*host).await?;
        }
        marker::remove(ctx, &*host, input).await?;
        Ok(undo)
    }

    fn describe(&self, input: &AwsCliInput) -> String {
        format!("install the aws command line {}", input.version)
    }

    fn settle(&self) -> Duration {
        SETTLE
    }
}

/// Removes what the installation left in the scratch directory.
async fn clear(host: &dyn Host) -> ActivityResult<()> {
    let user = HostUser::Root;
    let scratch = scratch("awscli");
    host.remove_tree(&user, &format!("{scratch}/awscli")).await?;
    host.remove_file(&user, &format!("{scratch}/awscli.zip")).await?;
    host.remove_file(&user, &format!("{scratch}/awscli.zip.part")).await?;
    Ok(host.remove_empty_dir(&user, &scratch).await?)
}
