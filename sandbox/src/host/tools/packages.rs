//! `dnf`, `rpm` and `locale`.

use super::super::{Call, ToolResult, refuse};

/// What the enabled repositories offer, beside what is installed.
const AVAILABLE: [(&str, &str); 37] = [
    ("dnf-plugins-core", "4.0.21"),
    ("glibc-langpack-en", "2.28"),
    ("git", "2.43.0"),
    ("nginx", "1.24.0"),
    ("unzip", "6.0"),
    ("zip", "3.0"),
    ("java-17-openjdk-headless", "17.0.13"),
    ("python39", "3.9.20"),
    ("python3.11", "3.11.10"),
    ("python311", "3.11.10"),
    ("python3.10", "3.10.15"),
    ("freetype", "2.9.1"),
    ("libgfortran", "8.5.0"),
    ("libgomp", "8.5.0"),
    ("policycoreutils-python-utils", "2.9"),
    ("fontconfig", "2.13.1"),
    ("dejavu-sans-fonts", "2.35"),
    ("R-core-devel", "4.3.3"),
    ("libicu-devel", "60.3"),
    ("libcurl-devel", "7.61.1"),
    ("openssl-devel", "1.1.1k"),
    ("libxml2-devel", "2.9.7"),
    ("podman", "4.9.4"),
    ("podman-docker", "4.9.4"),
    ("buildah", "1.33.8"),
    ("runc", "1.1.12"),
    ("ncurses", "6.1"),
    ("jq", "1.6"),
    ("wget", "1.19.5"),
    ("chrony", "4.5"),
    ("bind-utils", "9.11.36"),
    ("util-linux", "2.32.1"),
    ("xfsprogs", "5.0.0"),
    ("glibc-locale-source", "2.28"),
    ("python3", "3.6.8"),
    ("sudo", "1.9.5"),
    ("findutils", "4.6.0"),
];
/// What the Docker repository adds.
const DOCKER: [(&str, &str); 5] = [
    ("docker-ce", "26.1.3"),
    ("docker-ce-cli", "26.1.3"),
    ("containerd.io", "1.6.32"),
    ("docker-buildx-plugin", "0.14.0"),
    ("docker-compose-plugin", "2.27.0"),
];
const DOCKER_REPO: &str = "/etc/yum.repos.d/docker-ce.repo";
const DNF_LOCK: &str = "/var/lib/dnf/rpmdb_lock.pid";

/// `dnf [-y] install|remove|makecache|config-manager ...`
pub(super) fn dnf(call: &mut Call) -> ToolResult {
    let args: Vec<String> = call.args().into_iter().map(str::to_owned).collect();
    let mut words = args.iter().filter(|a| !a.starts_with('-')).map(String::as_str);
    let verb = words.next().unwrap_or_default().to_owned();
    let names: Vec<String> = words.map(str::to_owned).collect();
    if !call.is_root() {
        return refuse(
            1,
            "Error: This command has to be run with superuser privileges (under the root user on most systems).",
        );
    }
    let Some(_lock) = call.root.try_lock(DNF_LOCK)? else {
        return refuse(
            200,
            "Failed to obtain the transaction lock (logged in as: root).\nError: Waiting for another process to finish.",
        );
    };
    if !args.iter().any(|a| a == "-y" || a == "--assumeyes") && matches!(verb.as_str(), "install" | "remove")
    {
        return refuse(1, "Is this ok [y/N]: Operation aborted.");
    }
    match verb.as_str() {
        "makecache" => {
            call.work(0.2);
            call.print("Metadata cache created.");
            Ok(0)
        }
        "config-manager" => config_manager(call, &names),
        "install" => install(call, &names),
        "remove" => remove(call, &names),
        "repolist" => {
            call.print("repo id  repo name\nbaseos   AlmaLinux 8 - BaseOS");
            Ok(0)
        }
        other => refuse(1, format!("No such command: {other}.")),
    }
}

fn config_manager(call: &mut Call, names: &[String]) -> ToolResult {
    if !call.root.packages().contains_key("dnf-plugins-core") {
        return refuse(
            1,
            "No such command: config-manager. It could be a DNF plugin command, try: \"dnf install 'dnf-command(config-manager)'\"",
        );
    }
    let Some(url) = call.option(&["--add-repo"]).map(str::to_owned).or_else(|| names.first().cloned()) else {
        return refuse(1, "error: no repository given");
    };
    let file = url.rsplit('/').next().unwrap_or("added.repo").to_owned();
    let (status, body) = super::download::fetch(&url)?;
    if status != 200 {
        return refuse(1, format!("Errors during downloading metadata: Status code: {status} for {url}"));
    }
    call.root.write(&format!("/etc/yum.repos.d/{file}"), body)?;
    call.print(format!("Adding repo from: {url}"));
    Ok(0)
}

fn install(call: &mut Call, names: &[String]) -> ToolResult {
    let mut packages = call.root.packages();
    let docker_repo = call.root.exists(DOCKER_REPO);
    let offered = |name: &str| {
        let docker = DOCKER.iter().filter(|_| docker_repo);
        AVAILABLE.iter().chain(docker).find(|(n, _)| *n == name).map(|(_, version)| *version)
    };
    let mut added = Vec::new();
    for name in names {
        if packages.contains_key(name) {
            call.print(format!("Package {name} is already installed."));
            continue;
        }
        let Some(version) = offered(name) else {
            return refuse(
                1,
                format!("No match for argument: {name}\nError: Unable to find a match: {name}"),
            );
        };
        packages.insert(name.clone(), version.to_owned());
        added.push(name.clone());
    }
    for other in ["runc", "podman"] {
        if packages.contains_key("containerd.io") && packages.contains_key(other) {
            return refuse(
                1,
                format!("Error:\n Problem: package containerd.io conflicts with {other} provided by {other}"),
            );
        }
    }
    if added.iter().any(|n| n == "docker-ce") {
        for needed in ["docker-ce-cli", "containerd.io"] {
            if !packages.contains_key(needed) {
                packages.insert(needed.to_owned(), "26.1.3".to_owned());
                added.push(needed.to_owned());
            }
        }
    }
    call.work(0.3 + 0.1 * f64::from(u8::try_from(added.len()).unwrap_or(u8::MAX)));
    for name in &added {
        files_of(call, name)?;
    }
    call.root.set_packages(&packages)?;
    call.print(if added.is_empty() { "Nothing to do." } else { "Complete!" });
    Ok(0)
}

/// The files of a package that the other stubs look for.
fn files_of(call: &Call, package: &str) -> std::io::Result<()> {
    let program =
        |path: &str| call.root.write_program(path, format!("#!/bin/sh\n# {package}; stub of the sandbox\n"));
    match package {
        "docker-ce-cli" => program("/usr/bin/docker"),
        "unzip" => program("/usr/bin/unzip"),
        "git" => program("/usr/bin/git"),
        "java-17-openjdk-headless" => program("/usr/bin/java"),
        "python39" => program("/usr/bin/python3.9"),
        "python3.11" | "python311" => program("/usr/bin/python3.11"),
        "docker-ce" => {
            call.root.write(
                "/usr/lib/systemd/system/docker.service",
                "[Unit]\nDescription=Docker Application Container Engine\n[Install]\nWantedBy=multi-user.target\n",
            )?;
            if call.root.group("docker").is_none() {
                let mut groups = call.root.groups();
                let gid = call.root.free_id(980);
                groups.push(super::super::root::Group {
                    name: "docker".to_owned(),
                    gid,
                    members: Vec::new(),
                });
                call.root.set_groups(&groups)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn remove(call: &mut Call, names: &[String]) -> ToolResult {
    let mut packages = call.root.packages();
    let matches = |pattern: &str, name: &str| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    };
    let gone: Vec<String> =
        packages.keys().filter(|name| names.iter().any(|p| matches(p, name))).cloned().collect();
    call.work(0.2);
    for name in &gone {
        packages.remove(name);
        match name.as_str() {
            "docker-ce-cli" => call.root.remove("/usr/bin/docker"),
            "unzip" => call.root.remove("/usr/bin/unzip"),
            "git" => call.root.remove("/usr/bin/git"),
            "java-17-openjdk-headless" => call.root.remove("/usr/bin/java"),
            "python39" => call.root.remove("/usr/bin/python3.9"),
            "python3.11" | "python311" => call.root.remove("/usr/bin/python3.11"),
            "docker-ce" => {
                for path in [
                    "/usr/lib/systemd/system/docker.service",
                    "/etc/systemd/system/multi-user.target.wants/docker.service",
                    "/run/systemd/active/docker.service",
                ] {
                    call.root.remove(path);
                }
            }
            _ => {}
        }
    }
    call.root.set_packages(&packages)?;
    call.print(if gone.is_empty() { "No packages marked for removal." } else { "Complete!" });
    Ok(0)
}

/// `rpm -q NAME...`: one line each; the status is the number of missing ones.
pub(super) fn rpm(call: &mut Call) -> ToolResult {
    let packages = call.root.packages();
    let names: Vec<String> =
        call.args().iter().filter(|a| !a.starts_with('-')).map(|a| (*a).to_owned()).collect();
    let mut missing = 0_u8;
    for name in names {
        if let Some(version) = packages.get(&name) {
            call.print(format!("{name}-{version}-1.el8.x86_64"));
        } else {
            missing = missing.saturating_add(1);
            call.print(format!("package {name} is not installed"));
        }
    }
    Ok(missing)
}

/// `locale -a`
pub(super) fn locale(call: &mut Call) -> ToolResult {
    call.print("C\nC.utf8\nPOSIX");
    if call.root.packages().contains_key("glibc-langpack-en") {
        call.print("en_GB.utf8\nen_US\nen_US.utf8");
    }
    Ok(0)
}
