//! The host's state: users, groups, packages and services, as plain files below one directory.
//!
//! The formats are the real ones where a person would look (`/etc/passwd`, unit files); the package database is
//! one JSON file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A line of `/etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) comment: String,
    pub(super) home: String,
    pub(super) shell: String,
}

/// A line of `/etc/group`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) gid: u32,
    pub(super) members: Vec<String>,
}

/// The directory that stands for `/`.
#[derive(Debug, Clone)]
pub(super) struct HostRoot {
    path: PathBuf,
}

const RPM_DB: &str = "/var/lib/rpm/packages.json";
const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

const OS_RELEASE: &str = "NAME=\"AlmaLinux\"\nVERSION=\"8.10 (Cerulean Leopard)\"\nID=\"almalinux\"\n\
    ID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"8.10\"\nPLATFORM_ID=\"platform:el8\"\n\
    PRETTY_NAME=\"AlmaLinux 8.10 (Cerulean Leopard)\"\n";
/// Only ssh listens.
const LISTENERS: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n   \
    0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0\n";
const MEMINFO: &str =
    "MemTotal:       65011712 kB\nMemFree:        61208576 kB\nMemAvailable:   62914560 kB\n";
/// What a minimal image has.
const BASE_PACKAGES: [&str; 10] =
    ["acl", "bash", "coreutils", "curl", "dnf", "expat", "policycoreutils", "procps-ng", "systemd", "tar"];

/// Makes a directory with its parents; those that are new are 0755.
fn make_dirs(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_dirs(parent)?;
    }
    match fs::create_dir(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o755)),
        // Somebody else makes it at the same time.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

impl HostRoot {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Where an absolute path of the host really lies. Climbing stays below the root.
    pub(super) fn map(&self, path: &str) -> PathBuf {
        let mut mapped = self.path.clone();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    if mapped != self.path {
                        mapped.pop();
                    }
                }
                part => mapped.push(part),
            }
        }
        mapped
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a bare `AlmaLinux` 8; what is there stays.
    pub(super) fn seed(&self) -> io::Result<()> {
        if self.exists(PASSWD) {
            return Ok(());
        }
        for dir in [
            "/etc/security/limits.d",
            "/etc/systemd/system/multi-user.target.wants",
            "/etc/yum.repos.d",
            "/home/ec2-user",
            "/opt",
            "/proc/net",
            "/root",
            "/run",
            "/tmp",
            "/usr/bin",
            "/usr/lib/systemd/system",
            "/usr/local/bin",
            "/var/lib/rpm",
        ] {
            make_dirs(&self.map(dir))?;
        }
        self.write("/etc/os-release", OS_RELEASE)?;
        self.write("/proc/meminfo", MEMINFO)?;
        self.write("/proc/net/tcp", LISTENERS)?;
        self.write("/etc/hostname", "dss.sandbox.internal\n")?;
        self.write("/etc/yum.repos.d/almalinux.repo", "[baseos]\nname=AlmaLinux 8 - BaseOS\nenabled=1\n")?;
        self.set_packages(&BASE_PACKAGES.iter().map(|p| ((*p).to_owned(), "1.0".to_owned())).collect())?;
        self.write(GROUP, "root:x:0:\nwheel:x:10:ec2-user\nec2-user:x:1000:\nnobody:x:65534:\n")?;
        // Last: its presence says that the seed is complete.
        self.write(
            PASSWD,
            "root:x:0:0:root:/root:/bin/bash\nec2-user:x:1000:1000:Cloud User:/home/ec2-user:/bin/bash\n\
             nobody:x:65534:65534:Kernel Overflow User:/:/sbin/nologin\n",
        )
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        fs::symlink_metadata(self.map(path)).is_ok()
    }

    pub(super) fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.map(path)).ok()
    }

    /// Writes atomically and makes parents. A new file is 0644 and a new directory 0755 whatever the umask of this process:
    /// the host is not whoever runs it. What is there keeps its mode.
    pub(super) fn write(&self, path: &str, text: impl AsRef<[u8]>) -> io::Result<()> {
        let target = self.map(path);
        if let Some(parent) = target.parent() {
            make_dirs(parent)?;
        }
        let mode = fs::metadata(&target).map_or(0o644, |meta| meta.permissions().mode() & 0o7777);
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let temporary = target.with_file_name(name);
        fs::write(&temporary, text)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(mode))?;
        fs::rename(temporary, target)
    }

    /// Writes an executable.
    pub(super) fn write_program(&self, path: &str, text: impl AsRef<[u8]>) -> io::Result<()> {
        self.write(path, text)?;
        fs::set_permissions(self.map(path), fs::Permissions::from_mode(0o755))
    }

    pub(super) fn remove(&self, path: &str) {
        drop(fs::remove_file(self.map(path)));
    }

    pub(super) fn remove_tree(&self, path: &str) {
        drop(fs::remove_dir_all(self.map(path)));
    }

    /// Takes a lock for as long as the file lives; `None` when another process holds it.
    pub(super) fn try_lock(&self, path: &str) -> io::Result<Option<File>> {
        let target = self.map(path);
        if let Some(parent) = target.parent() {
            make_dirs(parent)?;
        }
        let file = File::options().create(true).append(true).open(target)?;
        Ok(file.try_lock().is_ok().then_some(file))
    }

    /// Waits for a lock; for the short changes of one state file.
    pub(super) fn lock(&self, path: &str) -> io::Result<File> {
        let target = self.map(path);
        if let Some(parent) = target.parent() {
            make_dirs(parent)?;
        }
        let file = File::options().create(true).append(true).open(target)?;
        file.lock()?;
        Ok(file)
    }

    pub(super) fn packages(&self) -> BTreeMap<String, String> {
        self.read(RPM_DB).and_then(|t| serde_json::from_str(&t).ok()).unwrap_or_default()
    }

    pub(super) fn set_packages(&self, packages: &BTreeMap<String, String>) -> io::Result<()> {
        self.write(RPM_DB, serde_json::to_vec_pretty(packages)?)
    }

    pub(super) fn users(&self) -> Vec<User> {
        let text = self.read(PASSWD).unwrap_or_default();
        text.lines().filter_map(parse_user).collect()
    }

    pub(super) fn user(&self, name: &str) -> Option<User> {
        self.users().into_iter().find(|u| u.name == name)
    }

    pub(super) fn set_users(&self, users: &[User]) -> io::Result<()> {
        let line =
            |u: &User| format!("{}:x:{}:{}:{}:{}:{}\n", u.name, u.uid, u.uid, u.comment, u.home, u.shell);
        self.write(PASSWD, users.iter().map(line).collect::<String>())
    }

    pub(super) fn groups(&self) -> Vec<Group> {
        let text = self.read(GROUP).unwrap_or_default();
        text.lines().filter_map(parse_group).collect()
    }

    pub(super) fn group(&self, name: &str) -> Option<Group> {
        self.groups().into_iter().find(|g| g.name == name)
    }

    pub(super) fn set_groups(&self, groups: &[Group]) -> io::Result<()> {
        let line = |g: &Group| format!("{}:x:{}:{}\n", g.name, g.gid, g.members.join(","));
        self.write(GROUP, groups.iter().map(line).collect::<String>())
    }

    /// The lowest free id from 1000 (people) or 980 (system).
    pub(super) fn free_id(&self, from: u32) -> u32 {
        let taken: Vec<u32> =
            self.users().iter().map(|u| u.uid).chain(self.groups().iter().map(|g| g.gid)).collect();
        (from..60_000).find(|id| !taken.contains(id)).unwrap_or(from)
    }

    /// The groups a user is in, its own first.
    pub(super) fn groups_of(&self, user: &str) -> Vec<String> {
        let more = self.groups().into_iter().filter(|g| g.members.iter().any(|m| m == user)).map(|g| g.name);
        std::iter::once(user.to_owned()).chain(more).collect()
    }

    pub(super) fn in_group(&self, user: &str, group: &str) -> bool {
        self.groups_of(user).iter().any(|g| g == group)
    }

    /// Whether a service runs.
    pub(super) fn is_active(&self, service: &str) -> bool {
        self.exists(&format!("/run/systemd/active/{service}"))
    }
}

fn parse_user(line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, _, comment, home, shell] = fields.as_slice() else { return None };
    Some(User {
        name: (*name).to_owned(),
        uid: uid.parse().ok()?,
        comment: (*comment).to_owned(),
        home: (*home).to_owned(),
        shell: (*shell).to_owned(),
    })
}

fn parse_group(line: &str) -> Option<Group> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, gid, members] = fields.as_slice() else { return None };
    let members = members.split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect();
    Some(Group { name: (*name).to_owned(), gid: gid.parse().ok()?, members })
}
