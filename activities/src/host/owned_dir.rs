//! Directories that several steps share, made by whichever came first and removed by whichever leaves last.
//!
//! Who made a directory is noted at `/var/lib/dssflow/dir.PATHHASH`, because the step that makes one need not be the
//! last whose files are taken out of it. A directory that was there before has no note and is never removed.

use dssflow_engine::activity::{ActivityContext, ActivityResult, Marks, Owner};
use sha2::{Digest, Sha256};

use super::marker::MARKER_DIR;
use super::transport::{Host, HostUser};

/// What a directory is recorded as.
const DIR: &str = "host:dir";

fn note(path: &str) -> String {
    format!("{MARKER_DIR}/dir.{}", &hex::encode(Sha256::digest(path))[..16])
}

/// The path and the directories above it, shortest first.
fn lineage(path: &str) -> Vec<&str> {
    let path = path.trim_end_matches('/');
    let ends = path.char_indices().filter(|(at, c)| *c == '/' && *at > 0).map(|(at, _)| at);
    ends.chain([path.len()]).map(|end| &path[..end]).filter(|part| !part.is_empty()).collect()
}

/// Makes a directory for `owner`, and those above it for root, noting each that is new before it is made.
pub(super) async fn make(
    ctx: &ActivityContext,
    host: &dyn Host,
    path: &str,
    owner: &str,
    mode: &str,
) -> ActivityResult<()> {
    if host.exists(&HostUser::Root, path).await? {
        return Ok(());
    }
    let marks = serde_json::to_vec(&ctx.marks()).unwrap_or_default();
    for part in lineage(path) {
        if host.exists(&HostUser::Root, part).await? {
            continue;
        }
        // A step that recorded nothing and did not finish is taken to have done nothing, and is not undone.
        ctx.record_resource(DIR, part).await?;
        host.write_file(&HostUser::Root, &note(part), &marks, "0600", None).await?;
        let last = part == path.trim_end_matches('/');
        let owner = format!("{owner}:{owner}");
        let (mode, owner) = if last { (mode, Some(owner.as_str())) } else { ("0755", None) };
        host.make_dir(&HostUser::Root, part, mode, owner).await?;
    }
    Ok(())
}

/// Removes the directory and those above it that this run made, as far as they are empty.
pub(super) async fn remove_empty(ctx: &ActivityContext, host: &dyn Host, path: &str) -> ActivityResult<()> {
    for part in lineage(path).into_iter().rev() {
        let Some(bytes) = host.read_file(&HostUser::Root, &note(part)).await? else { continue };
        let ours = serde_json::from_slice::<Marks>(&bytes)
            .is_ok_and(|marks| ctx.marks().owner_of(&marks) == Owner::ThisRun);
        if !ours {
            continue;
        }
        host.remove_empty_dir(&HostUser::Root, part).await?;
        // While another step's files keep it, the note stays for that step's undo. A data directory moved aside
        // keeps its parent for good, and the note says who made that.
        if !host.exists(&HostUser::Root, part).await? {
            host.remove_file(&HostUser::Root, &note(part)).await?;
        }
    }
    Ok(())
}

/// Drops this run's notes on the directories above `path`, because something that is kept holds them for good.
pub(super) async fn forget_parents(ctx: &ActivityContext, host: &dyn Host, path: &str) -> ActivityResult<()> {
    let parents = lineage(path);
    for part in &parents[..parents.len().saturating_sub(1)] {
        let Some(bytes) = host.read_file(&HostUser::Root, &note(part)).await? else { continue };
        let marks = serde_json::from_slice::<Marks>(&bytes);
        if marks.is_ok_and(|marks| ctx.marks().owner_of(&marks) == Owner::ThisRun) {
            host.remove_file(&HostUser::Root, &note(part)).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lineages_go_from_the_top() {
        assert_eq!(lineage("/opt/dataiku/kits/"), ["/opt", "/opt/dataiku", "/opt/dataiku/kits"]);
        assert_eq!(lineage("/data"), ["/data"]);
    }
}
