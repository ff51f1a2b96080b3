//! The stubs refuse what the real tools refuse.

use std::path::{Path, PathBuf};

use super::*;

struct Sandbox(PathBuf);

impl Sandbox {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("dssflow-host-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&dir));
        std::fs::create_dir(&dir).unwrap();
        prepare(&Self::config(&dir)).unwrap();
        Self(dir)
    }

    fn config(dir: &Path) -> HostConfig {
        HostConfig {
            dir: dir.to_owned(),
            host_root: dir.join("host"),
            admin_url: None,
            admin_token: None,
            aws_endpoint: None,
            account: "123456789012".into(),
            region: "eu-west-1".into(),
            latency: 0.0,
        }
    }

    /// Runs a stub; status and both outputs.
    fn run(&self, user: &str, line: &str) -> (u8, String) {
        let config = Self::config(&self.0);
        let root = HostRoot::new(&config.host_root);
        let argv = line.split(' ').map(str::to_owned).collect();
        let mut call = Call::new(config, root, user.to_owned(), argv);
        let tool = tools::find(&call).unwrap_or_else(|| panic!("{line} is no stub"));
        let status = call.serve(tool);
        (status, String::from_utf8([call.out, call.err].concat()).unwrap())
    }

    fn ok(&self, user: &str, line: &str) -> String {
        let (status, text) = self.run(user, line);
        assert_eq!(status, 0, "{line}: {text}");
        text
    }

    fn refused(&self, user: &str, line: &str, why: &str) {
        let (status, text) = self.run(user, line);
        assert!(status != 0 && text.contains(why), "{line}: {status} {text}");
    }

    fn root(&self) -> HostRoot {
        HostRoot::new(&self.0.join("host"))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[test]
fn packages_need_root_a_name_and_the_lock() {
    let host = Sandbox::new("dnf");
    host.refused("ec2-user", "dnf -y install git", "superuser");
    host.refused("root", "dnf -y install no-such-thing", "No match");
    host.refused("root", "dnf -y install docker-ce", "No match");
    host.refused("root", "docker version", "command not found");
    host.ok("root", "dnf -y install git unzip");
    assert_eq!(host.run("root", "rpm -q git nginx").0, 1);
    let lock = host.root().try_lock("/var/lib/dnf/rpmdb_lock.pid").unwrap().unwrap();
    host.refused("root", "dnf -y install nginx", "transaction lock");
    drop(lock);
    host.root().write("/etc/yum.repos.d/docker-ce.repo", "[docker]").unwrap();
    host.ok("root", "dnf -y install podman");
    host.refused("root", "dnf -y install containerd.io", "conflicts");
}

#[test]
fn docker_needs_its_service_and_its_group() {
    let host = Sandbox::new("docker");
    host.root().write("/etc/yum.repos.d/docker-ce.repo", "[docker]").unwrap();
    host.ok("root", "dnf -y install docker-ce");
    host.refused("root", "docker images", "Is the docker daemon running");
    host.ok("root", "systemctl enable --now docker");
    host.ok("root", "useradd -m -s /bin/bash dssuser");
    host.refused("root", "useradd -m dssuser", "already exists");
    host.refused("dssuser", "docker images", "permission denied");
    host.ok("root", "usermod -aG docker dssuser");
    host.ok("dssuser", "docker images");
    host.refused("dssuser", "docker push r.example/x:1", "no basic auth");
    assert_eq!(host.ok("root", "id -nG dssuser").trim(), "dssuser docker");
}

#[test]
fn dss_refuses_root_full_directories_and_missing_dependencies() {
    let host = Sandbox::new("dss");
    let version = r#"{"product_version":"14.2.0"}"#;
    host.root().write("/opt/dss/dss-version.json", version).unwrap();
    for name in ["installer.sh", "scripts/install/install-deps.sh", "scripts/install/install-boot.sh"] {
        host.root().write(&format!("/opt/dss/{name}"), "").unwrap();
    }
    host.ok("root", "useradd -m dssuser");
    let install = "/opt/dss/installer.sh -d /data/dss -p 11200";
    host.refused("root", install, "as root");
    host.refused("dssuser", install, "dependencies are missing");
    host.ok("root", "/opt/dss/scripts/install/install-deps.sh -yes");
    host.ok("root", "/opt/dss/scripts/install/install-deps.sh -check");
    host.root().write("/data/dss/left-over", "").unwrap();
    host.refused("dssuser", install, "not empty");
    host.root().remove("/data/dss/left-over");
    host.ok("dssuser", install);
    host.refused("dssuser", install, "not empty");
    host.root().write("/data/spark.tar.gz", "x").unwrap();
    let spark =
        "/data/dss/bin/dssadmin install-spark-integration -standaloneArchive /data/spark.tar.gz -forK8S";
    host.root().write("/run/systemd/active/dataiku.service", "").unwrap();
    host.refused("dssuser", spark, "DSS is running");
    host.root().remove("/run/systemd/active/dataiku.service");
    host.refused("dssuser", "/data/dss/bin/dsscli api-keys-list", "refused");
    host.ok("dssuser", spark);
    host.refused("dssuser", "/data/dss/bin/dssadmin build-base-image --type spark", "daemon running");
}

#[test]
fn a_snapshot_repeats_and_shows_what_changed() {
    let host = Sandbox::new("snapshot");
    let before = snapshot(host.root().path());
    host.ok("root", "useradd -m dssuser");
    host.root().write("/home/dssuser/.aws/credentials", "canary-secret").unwrap();
    let after = snapshot(host.root().path());
    assert!(!after.to_string().contains("canary"));
    assert_eq!(after["files"]["/home/dssuser/.aws/credentials"]["owner"], "dssuser");
    host.ok("root", "userdel -r dssuser");
    assert_eq!(snapshot(host.root().path()), before);
}

#[test]
fn paths_stay_below_the_root() {
    let root = HostRoot::new(Path::new("/w/host"));
    assert_eq!(root.map("/etc/../../../x"), Path::new("/w/host/x"));
}

#[test]
fn kits_are_the_same_every_time() {
    let host = Sandbox::new("kits");
    let dir = host.0.join("kits");
    let first = kits::write(&dir, "http://127.0.0.1:1/kits/", "14.2.0").unwrap();
    assert_eq!(first, kits::write(&dir, "http://127.0.0.1:1/kits", "14.2.0").unwrap());
    assert_eq!(first.dss.url, "http://127.0.0.1:1/kits/dataiku-dss-14.2.0.tar.gz");
}

#[test]
fn others_cannot_read_what_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let host = Sandbox::new("private");
    host.ok("root", "useradd -m dssuser");
    host.root().write("/home/dssuser/.aws/credentials", "x").unwrap();
    let mode = |mode: u32| {
        let path = host.root().map("/home/dssuser/.aws/credentials");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for dir in ["/home/dssuser", "/home/dssuser/.aws"] {
        std::fs::set_permissions(host.root().map(dir), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    host.ok("nobody", "test -r /etc/passwd");
    for (bits, stranger) in [(0o600, 1), (0o640, 1), (0o644, 0)] {
        mode(bits);
        host.ok("dssuser", "test -r /home/dssuser/.aws/credentials");
        assert_eq!(host.run("nobody", "test -r /home/dssuser/.aws/credentials").0, stranger, "{bits:o}");
    }
    std::fs::set_permissions(host.root().map("/home/dssuser/.aws"), std::fs::Permissions::from_mode(0o700))
        .unwrap();
    assert_eq!(host.run("nobody", "test -r /home/dssuser/.aws/credentials").0, 1, "the directory is closed");
}

#[test]
fn files_and_directories_of_the_host_have_modes_of_their_own() {
    use std::os::unix::fs::PermissionsExt;
    let host = Sandbox::new("modes");
    let mode = |path: &str| std::fs::metadata(host.root().map(path)).unwrap().permissions().mode() & 0o7777;
    for (path, wanted) in [("/etc/passwd", 0o644), ("/etc/group", 0o644), ("/etc/yum.repos.d", 0o755)] {
        assert_eq!(mode(path), wanted, "{path}");
    }
    // A change of an account is another file of the same mode; what somebody closed stays closed.
    host.ok("root", "useradd -m dssuser");
    assert_eq!(mode("/etc/passwd"), 0o644);
    host.root().write("/etc/deep/er/secret", "x").unwrap();
    assert_eq!((mode("/etc/deep"), mode("/etc/deep/er/secret")), (0o755, 0o644));
    let path = host.root().map("/etc/deep/er/secret");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    host.root().write("/etc/deep/er/secret", "y").unwrap();
    assert_eq!(mode("/etc/deep/er/secret"), 0o600);
}

#[test]
fn user_isolation_is_installed_by_root_with_dss_stopped() {
    let host = Sandbox::new("isolation");
    host.ok("root", "useradd -m dssuser");
    let root = host.root();
    root.write("/data/dss/install.ini", "[general]\ninstallid = abc\n").unwrap();
    host.refused("dssuser", "/data/dss/bin/dssadmin install-impersonation dssuser", "command not found");
    root.write_program("/data/dss/bin/dssadmin", "#!/bin/sh\n").unwrap();
    host.refused("dssuser", "/data/dss/bin/dssadmin install-impersonation dssuser", "as root");
    host.refused("root", "/data/dss/bin/dssadmin install-impersonation ghost", "no such user");
    root.write("/run/systemd/active/dataiku", "").unwrap();
    host.refused("root", "/data/dss/bin/dssadmin install-impersonation dssuser", "DSS is running");
    root.remove("/run/systemd/active/dataiku");
    host.ok("root", "/data/dss/bin/dssadmin install-impersonation dssuser");
    assert!(root.exists("/etc/dataiku-security/abc/security/security-config.ini"));
}
