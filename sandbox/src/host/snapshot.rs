//! The host in a normal form, so that before and after can be compared.
//!
//! Files with mode, owner and content hash, packages, users, groups, services and images. Left out: times, locks,
//! `/proc`, and the package database's own file. A hash is all that is shown of any content.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::root::HostRoot;
use super::tools::images;

/// Files that are state of the stubs, locks, or shown in another form.
const LEFT_OUT: [&str; 7] =
    ["/proc/", "/run/", "/tmp/", "/var/lib/rpm/", "/var/lib/dnf/", "/var/lib/docker/", "/etc/.pwd.lock"];

/// Describes the host below `root`; an empty object when there is none.
pub fn snapshot(root: &Path) -> Value {
    let host = HostRoot::new(root);
    if !host.exists("/etc/passwd") {
        return json!({});
    }
    let owners = owners(root);
    let mut files = Map::new();
    walk(root, "", &owners, &mut files);
    let users: BTreeMap<String, Value> = host
        .users()
        .into_iter()
        .map(|u| {
            let groups = host.groups_of(&u.name);
            (u.name, json!({"home": u.home, "shell": u.shell, "groups": groups}))
        })
        .collect();
    let groups: BTreeMap<String, Vec<String>> =
        host.groups().into_iter().map(|g| (g.name, g.members)).collect();
    let names = |dir: &str| {
        let entries = std::fs::read_dir(host.map(dir)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    let images: BTreeMap<String, String> =
        images(&host).into_iter().map(|i| (format!("{}:{}", i.repository, i.tag), i.digest)).collect();
    json!({
        "packages": host.packages().into_keys().collect::<Vec<_>>(),
        "users": users,
        "groups": groups,
        "services": {
            "active": names("/run/systemd/active"),
            "enabled": names("/etc/systemd/system/multi-user.target.wants"),
        },
        "images": images,
        "files": files,
    })
}

/// What the `chown` shim noted, last word first; a temporary name counts for the file it became.
fn owners(root: &Path) -> BTreeMap<String, String> {
    let mut owners = BTreeMap::new();
    let Some(dir) = root.parent() else { return owners };
    let text = std::fs::read_to_string(super::real::shim_dir(dir).join("owners")).unwrap_or_default();
    for line in text.lines() {
        let Some((owner, path)) = line.split_once('\t') else { continue };
        if let Ok(path) = Path::new(path).strip_prefix(root) {
            let path = format!("/{}", path.display());
            // A user's own group goes without saying.
            let owner = match owner.split_once(':') {
                Some((user, group)) if user == group => user,
                _ => owner,
            };
            let path = path.split(".dssflow-new").next().unwrap_or_default();
            owners.insert(path.to_owned(), owner.to_owned());
        }
    }
    owners
}

fn walk(root: &Path, below: &str, owners: &BTreeMap<String, String>, files: &mut Map<String, Value>) {
    use std::os::unix::fs::PermissionsExt;
    let Ok(entries) = std::fs::read_dir(root.join(below.trim_start_matches('/'))) else { return };
    let mut names: Vec<String> =
        entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    for name in names {
        let path = format!("{below}/{name}");
        if LEFT_OUT.iter().any(|left| path.starts_with(left.trim_end_matches('/'))) {
            continue;
        }
        let real = root.join(path.trim_start_matches('/'));
        let Ok(meta) = std::fs::symlink_metadata(&real) else { continue };
        let owner = owners.get(&path).cloned().unwrap_or_else(|| owner_by_place(&path));
        let mode = format!("{:04o}", meta.permissions().mode() & 0o7777);
        if meta.is_dir() {
            files.insert(path.clone(), json!({"kind": "dir", "mode": mode, "owner": owner}));
            walk(root, &path, owners, files);
        } else if meta.is_file() {
            let hash = std::fs::read(&real).map(|b| hex::encode(Sha256::digest(b))[..16].to_owned());
            let hash = hash.unwrap_or_else(|_| "unreadable".to_owned());
            files.insert(path, json!({"kind": "file", "mode": mode, "owner": owner, "sha256": hash}));
        } else {
            let target = std::fs::read_link(&real).map(|t| t.display().to_string()).unwrap_or_default();
            files.insert(path, json!({"kind": "link", "target": target}));
        }
    }
}

/// A home belongs to its user, all else to root.
fn owner_by_place(path: &str) -> String {
    let home = path.strip_prefix("/home/").and_then(|rest| rest.split('/').next());
    home.unwrap_or("root").to_owned()
}
