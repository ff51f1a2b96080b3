//! Marker files: what says on the host that a step was done, by whom, and what it gave.
//!
//! A marker lies at `/var/lib/dssflow/STEP.INPUTHASH` (root, 0600), is written last, and carries the ownership
//! marks that a tag would carry on AWS. It holds the step's output and the list of things the step made, and never
//! a secret. Most host steps probe by it: without a marker the step has not finished, whatever else is there.

use dssflow_engine::activity::{ActivityContext, ActivityError, ActivityResult, Marks, Owner};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::transport::{Host, HostUser};

/// Where markers lie.
pub const MARKER_DIR: &str = "/var/lib/dssflow";

/// The contents of a marker file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker<T> {
    /// Who did it.
    pub marks: Marks,
    /// What the step made that was not there before, by kind: `["package:git", "user:dssuser"]`.
    #[serde(default)]
    pub made: Vec<String>,
    /// What the step gave.
    pub output: T,
}

/// The file of a step and its input.
pub(crate) fn path(ctx: &ActivityContext, input: &impl Serialize) -> ActivityResult<String> {
    let json = serde_json::to_vec(input)
        .map_err(|e| ActivityError::terminal("InputMismatch", format!("the input cannot be hashed: {e}")))?;
    let hash = hex::encode(Sha256::digest(json));
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let step: String = ctx.step().as_str().chars().map(plain).collect();
    Ok(format!("{MARKER_DIR}/{step}.{}", &hash[..16]))
}

/// Reads the marker of this step and input.
pub(crate) async fn read<T: DeserializeOwned>(
    ctx: &ActivityContext,
    host: &dyn Host,
    input: &impl Serialize,
) -> ActivityResult<Option<(Marker<T>, Owner)>> {
    let path = path(ctx, input)?;
    let Some(bytes) = host.read_file(&HostUser::Root, &path).await? else { return Ok(None) };
    let Ok(marker) = serde_json::from_slice::<Marker<T>>(&bytes) else {
        // Written by another version, or by hand: it proves nothing.
        tracing::warn!(%path, "a marker file cannot be read and is taken as absent");
        return Ok(None);
    };
    let owner = ctx.marks().owner_of(&marker.marks);
    Ok(Some((marker, owner)))
}

/// Writes the marker; the last act of a step.
pub(crate) async fn write<T: Serialize>(
    ctx: &ActivityContext,
    host: &dyn Host,
    input: &impl Serialize,
    made: Vec<String>,
    output: &T,
) -> ActivityResult<()> {
    let marker = Marker { marks: ctx.marks(), made, output };
    let bytes = serde_json::to_vec_pretty(&marker).map_err(|e| {
        ActivityError::terminal("OutputMismatch", format!("the marker cannot be written: {e}"))
    })?;
    Ok(host.write_file(&HostUser::Root, &path(ctx, input)?, &bytes, "0600", None).await?)
}

/// Removes the marker, and the directory when it was the last.
pub(crate) async fn remove(
    ctx: &ActivityContext,
    host: &dyn Host,
    input: &impl Serialize,
) -> ActivityResult<()> {
    host.remove_file(&HostUser::Root, &path(ctx, input)?).await?;
    Ok(host.remove_empty_dir(&HostUser::Root, MARKER_DIR).await?)
}

/// Whether the thing a step would take back is this run's: its marker says so, or it has no marker because the
/// attempt that recorded the thing never finished.
pub(crate) fn may_undo<T>(found: Option<&(Marker<T>, Owner)>) -> bool {
    found.is_none_or(|(_, owner)| *owner == Owner::ThisRun)
}
