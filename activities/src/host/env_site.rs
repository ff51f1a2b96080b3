//! `host.env-site`: our lines in `DATADIR/bin/env-site.sh`, chiefly the address under which containers reach DSS.
//!
//! `DKU_BACKEND_EXT_HOST` is needed when the host name does not resolve inside the cluster (Dataiku, containers,
//! troubleshooting). DSS reads the file when it starts.
//!
//! # Idempotency
//! A block between two comment lines is ours; the rest of the file is never touched.
//!
//! # Compensation
//! The block is taken out if it still is what we wrote.

use std::collections::BTreeMap;
use std::time::Duration;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::step::{self, SETTLE, host};
use super::transport::{Host, HostUser};
use super::{check_path, marker};

/// What is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnvSiteInput {
    /// The data directory.
    pub data_dir: String,
    /// The service user.
    pub user: String,
    /// Variables to export, as `DKU_BACKEND_EXT_HOST`. Never a secret.
    pub exports: BTreeMap<String, String>,
}

/// What is there now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvSiteOutput {
    /// The file.
    pub path: String,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct EnvSite;

const BEGIN: &str = "# BEGIN dssflow";
const END: &str = "# END dssflow";
const BLOCK: &str = "host:block";

fn path(input: &EnvSiteInput) -> ActivityResult<String> {
    let path = format!("{}/bin/env-site.sh", input.data_dir);
    check_path(&path)?;
    Ok(path)
}

fn block(input: &EnvSiteInput) -> ActivityResult<String> {
    let mut text = format!("{BEGIN}\n");
    for (name, value) in &input.exports {
        let plain_name = name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        let plain_value = value.chars().all(|c| c.is_ascii_alphanumeric() || "._-:/".contains(c));
        if !plain_name || !plain_value {
            let message = format!("{name} or its value cannot be written into a shell file");
            return Err(ActivityError::terminal("BadExport", message).no_effect());
        }
        text.push_str("export ");
        text.push_str(name);
        text.push_str("=\"");
        text.push_str(value);
        text.push_str("\"\n");
    }
    text.push_str(END);
    text.push('\n');
    Ok(text)
}

/// The file without our block.
fn without(text: &str) -> String {
    let mut inside = false;
    let mut rest = String::new();
    for line in text.split_inclusive('\n') {
        match line.trim_end() {
            BEGIN => inside = true,
            END if inside => inside = false,
            _ if !inside => rest.push_str(line),
            _ => {}
        }
    }
    rest
}

async fn read(host: &dyn Host, path: &str) -> ActivityResult<Option<String>> {
    let bytes = host.read_file(&HostUser::Root, path).await?;
    Ok(bytes.map(|b| String::from_utf8_lossy(&b).into_owned()))
}

impl Activity for EnvSite {
    type Input = EnvSiteInput;
    type Output = EnvSiteOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Update
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &EnvSiteInput,
    ) -> ActivityResult<Probe<EnvSiteOutput>> {
        let host = host(ctx)?;
        let block = block(input)?;
        let there = async |output: &EnvSiteOutput| {
            Ok(read(&*host, &output.path).await?.is_some_and(|text| text.contains(&block)))
        };
        step::probe_marked(ctx, &*host, input, there).await
    }

    async fn execute(&self, ctx: &ActivityContext, input: &EnvSiteInput) -> ActivityResult<EnvSiteOutput> {
        let host = host(ctx)?;
        let user = step::service(&input.user)?;
        let path = path(input)?;
        let block = block(input)?;
        let text = read(&*host, &path).await?.unwrap_or_default();
        let mut made = Vec::new();
        if !text.contains(&block) {
            ctx.record_resource(BLOCK, &path).await?;
            made.push(path.clone());
            let mut whole = without(&text);
            if !whole.is_empty() && !whole.ends_with('\n') {
                whole.push('\n');
            }
            whole.push_str(&block);
            host.write_file(&user, &path, whole.as_bytes(), "0644", None).await?;
        }
        let output = EnvSiteOutput { path };
        marker::write(ctx, &*host, input, made, &output).await?;
        Ok(output)
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &EnvSiteInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let host = host(ctx)?;
        let user = step::service(&input.user)?;
        if !step::may_undo(ctx, &*host, input).await? {
            return Ok(Undo::NothingToDo);
        }
        let block = block(input)?;
        let mut undo = Undo::NothingToDo;
        for path in step::recorded_ids(recorded, BLOCK) {
            let Some(text) = read(&*host, &path).await? else { continue };
            if text.contains(&block) {
                host.write_file(&user, &path, without(&text).as_bytes(), "0644", None).await?;
                undo = Undo::Undone;
            }
        }
        marker::remove(ctx, &*host, input).await?;
        Ok(undo)
    }

    fn describe(&self, input: &EnvSiteInput) -> String {
        let names: Vec<&str> = input.exports.keys().map(String::as_str).collect();
        format!("export {} in env-site.sh", names.join(", "))
    }

    fn settle(&self) -> Duration {
        SETTLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(value: &str) -> EnvSiteInput {
        let exports = BTreeMap::from([("DKU_BACKEND_EXT_HOST".to_owned(), value.to_owned())]);
        EnvSiteInput { data_dir: "/data/dss".into(), user: "dssuser".into(), exports }
    }

    #[test]
    fn only_our_block_changes() {
        let block = block(&input("10.0.0.4")).unwrap();
        assert_eq!(without(&format!("a\n{block}b\n")), "a\nb\n");
        assert_eq!(without("a\n"), "a\n");
    }

    #[test]
    fn nothing_a_shell_would_run_gets_in() {
        for bad in ["$(id)", "a b", "\"", "`x`", "a\nb", ";"] {
            assert!(block(&input(bad)).is_err(), "{bad:?}");
        }
    }
}
