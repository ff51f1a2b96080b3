//! `host.install-dss`: the data directory, made by the kit's `installer.sh`.
//!
//! # Idempotency
//! Before the installer runs, an intent with our marks is written beside the marker; after a crash it tells a half
//! made data directory of ours from somebody else's. A half made one cannot be resumed: it is moved aside, never
//! removed, and the installer starts again. A data directory of unknown origin stops the run.
//!
//! # Compensation
//! The data directory is user data from its first start on: it is moved aside and reported as kept.

use std::time::Duration;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Marks, Owner, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::step::{self, SETTLE, host};
use super::transport::{Host, HostCommand, HostUser};
use super::unpack::version_in;
use super::{check_path, marker, owned_dir};

/// What is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InstallDssInput {
    /// The installation directory (the unpacked kit).
    pub install_dir: String,
    /// The data directory: absent or empty, outside the installation directory.
    pub data_dir: String,
    /// First of the ten ports DSS listens on.
    pub port: u16,
    /// Version the kit has.
    pub version: String,
    /// The service user.
    pub user: String,
    /// `design` as a rule.
    pub node_type: String,
    /// Python for the built-in environment, as `/usr/bin/python3.9`; the installer chooses when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
}

/// What is there now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallDssOutput {
    /// `installid` of `install.ini`; part of the names of the base images.
    pub install_id: String,
    /// The port of `install.ini`.
    pub port: u16,
    /// The data directory.
    pub data_dir: String,
    /// The version of the data directory.
    pub version: String,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct InstallDss;

const DATA_DIR: &str = "host:data-dir";
/// What is put behind the name of a data directory that an undo moves aside.
const UNDONE: &str = "dssflow-undone";

/// The value of `KEY = VALUE` in an ini file.
pub(super) fn ini_value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| value.trim()).filter(|v| !v.is_empty())
    })
}

/// What a complete data directory says of itself; `None` for anything else.
pub(super) async fn inspect(
    host: &dyn Host,
    user: &HostUser,
    data_dir: &str,
) -> ActivityResult<Option<InstallDssOutput>> {
    let Some(version) = version_in(host, user, data_dir).await? else { return Ok(None) };
    if !host.exists(user, &format!("{data_dir}/bin/dss")).await? {
        return Ok(None);
    }
    let ini = host.read_file(user, &format!("{data_dir}/install.ini")).await?.unwrap_or_default();
    let ini = String::from_utf8_lossy(&ini);
    let (Some(install_id), Some(port)) = (ini_value(&ini, "installid"), ini_value(&ini, "port")) else {
        return Ok(None);
    };
    let Ok(port) = port.parse() else { return Ok(None) };
    Ok(Some(InstallDssOutput {
        install_id: install_id.to_owned(),
        port,
        data_dir: data_dir.to_owned(),
        version,
    }))
}

fn intent_path(ctx: &ActivityContext, input: &InstallDssInput) -> ActivityResult<String> {
    Ok(format!("{}.intent", marker::path(ctx, input)?))
}

/// Whose installation this is, by the intent.
async fn intent_owner(
    ctx: &ActivityContext,
    host: &dyn Host,
    input: &InstallDssInput,
) -> ActivityResult<Option<Owner>> {
    let bytes = host.read_file(&HostUser::Root, &intent_path(ctx, input)?).await?;
    let marks = bytes.and_then(|b| serde_json::from_slice::<Marks>(&b).ok());
    Ok(marks.map(|marks| ctx.marks().owner_of(&marks)))
}

/// Moves a directory aside under a free name and returns it; `None` when there is nothing.
async fn move_aside(host: &dyn Host, path: &str, what: &str) -> ActivityResult<Option<String>> {
    for number in 1..100 {
        let target = format!("{path}.{what}-{number}");
        if host.exists(&HostUser::Root, &target).await? {
            continue;
        }
        return Ok(host.move_path(&HostUser::Root, path, &target).await?.then_some(target));
    }
    Err(ActivityError::needs_human("TooManyOldDirectories", format!("{path} has been moved aside 99 times"))
        .help("remove those that are no longer needed"))
}

/// The last name under which a directory was moved aside.
async fn last_aside(host: &dyn Host, path: &str, what: &str) -> ActivityResult<Option<String>> {
    let mut last = None;
    for number in 1..100 {
        let target = format!("{path}.{what}-{number}");
        if !host.exists(&HostUser::Root, &target).await? {
            break;
        }
        last = Some(target);
    }
    Ok(last)
}

impl Activity for InstallDss {
    type Input = InstallDssInput;
    type Output = InstallDssOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &InstallDssInput,
    ) -> ActivityResult<Probe<InstallDssOutput>> {
        let host = host(ctx)?;
        let user = step::service(&input.user)?;
        let there = async |output: &InstallDssOutput| {
            Ok(inspect(&*host, &user, &input.data_dir).await?.is_some_and(|found| found == *output))
        };
        step::probe_marked(ctx, &*host, input, there).await
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &InstallDssInput,
    ) -> ActivityResult<InstallDssOutput> {
        let host = host(ctx)?;
        let user = step::service(&input.user)?;
        let data_dir = input.data_dir.as_str();
        check_path(data_dir)?;
        if data_dir.starts_with(&format!("{}/", input.install_dir)) || data_dir == input.install_dir {
            let message = "the data directory lies inside the installation directory";
            return Err(ActivityError::terminal("DataDirInside", message)
                .help("choose another `dss.data_dir`")
                .no_effect());
        }
        let ours = intent_owner(ctx, &*host, input).await?.is_some_and(|owner| owner != Owner::Foreign);
        let found = inspect(&*host, &HostUser::Root, data_dir).await?;
        let entries = host.stat(&HostUser::Root, data_dir).await?.map_or(0, |s| s.entries);
        if entries > 0 && !ours {
            let what = found.map_or("holds something".to_owned(), |f| format!("holds DSS {}", f.version));
            return Err(ActivityError::needs_human(
                "DataDirTaken",
                format!("{data_dir} {what} that no run of this site made"),
            )
            .help("move it away on the host, or choose another `dss.data_dir`, then resume the run"));
        }
        let output = match found {
            Some(found) if found.version == input.version => found,
            _ => {
                if entries > 0 {
                    let aside = move_aside(&*host, data_dir, "partial").await?;
                    tracing::warn!(?aside, "a half made data directory was moved aside");
                }
                ctx.record_resource(DATA_DIR, data_dir).await?;
                let intent = serde_json::to_vec(&ctx.marks()).unwrap_or_default();
                host.write_file(&HostUser::Root, &intent_path(ctx, input)?, &intent, "0600", None).await?;
                // The parent as a rule belongs to root, so the empty directory is made for the user.
                owned_dir::make(ctx, &*host, data_dir, &input.user, "0750").await?;
                self.install(&*host, &user, input).await?
            }
        };
        if output.port != input.port {
            let message =
                format!("the data directory has port {}, the site says {}", output.port, input.port);
            return Err(ActivityError::terminal("PortDiffers", message)
                .help("change `dss.port` to the installed one"));
        }
        marker::write(ctx, &*host, input, vec![data_dir.to_owned()], &output).await?;
        Ok(output)
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &InstallDssInput,
        recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let host = host(ctx)?;
        if !step::may_undo(ctx, &*host, input).await? {
            return Ok(Undo::NothingToDo);
        }
        let mut undo = Undo::NothingToDo;
        let ours = intent_owner(ctx, &*host, input).await? == Some(Owner::ThisRun);
        if ours && recorded.ids(DATA_DIR).next().is_some() {
            let entries = host.stat(&HostUser::Root, &input.data_dir).await?.map(|s| s.entries);
            if entries == Some(0) {
                host.remove_empty_dir(&HostUser::Root, &input.data_dir).await?;
                undo = Undo::Undone;
            } else {
                // An undo that was cut off has moved it already.
                let aside = match move_aside(&*host, &input.data_dir, UNDONE).await? {
                    Some(aside) => Some(aside),
                    None => last_aside(&*host, &input.data_dir, UNDONE).await?,
                };
                if let Some(aside) = aside {
                    undo = Undo::Kept {
                        reason: format!("the data directory was moved to {aside}; it may hold user data"),
                    };
                }
            }
        }
        owned_dir::remove_empty(ctx, &*host, &input.data_dir).await?;
        if matches!(undo, Undo::Kept { .. }) {
            owned_dir::forget_parents(ctx, &*host, &input.data_dir).await?;
        }
        // Last: as long as the intent is there, a repetition knows whose the directory was.
        host.remove_file(&HostUser::Root, &intent_path(ctx, input)?).await?;
        marker::remove(ctx, &*host, input).await?;
        Ok(undo)
    }

    fn describe(&self, input: &InstallDssInput) -> String {
        format!("install DSS {} into {} on port {}", input.version, input.data_dir, input.port)
    }

    fn settle(&self) -> Duration {
        SETTLE
    }
}

impl InstallDss {
    async fn install(
        &self,
        host: &dyn Host,
        user: &HostUser,
        input: &InstallDssInput,
    ) -> ActivityResult<InstallDssOutput> {
        let installer = format!("{}/installer.sh", input.install_dir);
        let port = input.port.to_string();
        let mut argv = vec![installer.as_str(), "-d", &input.data_dir, "-p", &port, "-t", &input.node_type];
        if let Some(python) = &input.python {
            argv.extend(["-P", python]);
        }
        host.run(HostCommand::new(user.clone(), argv).timeout(Duration::from_mins(30))).await?;
        let found = inspect(host, user, &input.data_dir).await?;
        found.filter(|f| f.version == input.version).ok_or_else(|| {
            let message = "the installer ended well, but the data directory is not complete";
            ActivityError::retryable("InstallIncomplete", message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn install_ini_is_read() {
        let text = "[general]\nnodetype = design\ninstallid = aBcD1234\n\n[server]\nport = 11200\n";
        assert_eq!(ini_value(text, "installid"), Some("aBcD1234"));
        assert_eq!(ini_value(text, "port"), Some("11200"));
        assert_eq!(ini_value(text, "absent"), None);
    }
}
