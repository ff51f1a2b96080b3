//! The programs of DSS: `installer.sh`, `install-deps.sh`, `install-boot.sh`, `dssadmin`, `dsscli`.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::super::{Call, Refusal, ToolResult, admin, refuse};
use super::containers;

/// What `install-deps.sh` installs (RHEL family).
const DEPENDENCIES: [&str; 16] = [
    "acl",
    "expat",
    "git",
    "nginx",
    "unzip",
    "zip",
    "java-17-openjdk-headless",
    "python39",
    "freetype",
    "libgfortran",
    "libgomp",
    "policycoreutils-python-utils",
    "fontconfig",
    "dejavu-sans-fonts",
    "glibc-langpack-en",
    "procps-ng",
];

/// A value of `KEY = VALUE` lines.
fn ini(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}

/// The port of an installed data directory.
pub(super) fn port_of(call: &Call, data_dir: &str) -> Option<u16> {
    ini(&call.root.read(&format!("{data_dir}/install.ini"))?, "port")?.parse().ok()
}

fn version_in(call: &Call, dir: &str) -> Option<String> {
    let text = call.root.read(&format!("{dir}/dss-version.json"))?;
    let json: Value = serde_json::from_str(&text).ok()?;
    json.get("product_version")?.as_str().map(str::to_owned)
}

fn missing_dependencies(call: &Call) -> Vec<&'static str> {
    let packages = call.root.packages();
    let python = ["python39", "python3.11", "python311"].iter().any(|p| packages.contains_key(*p));
    let there = |name: &str| packages.contains_key(name) || name == "python39" && python;
    DEPENDENCIES.into_iter().filter(|name| !there(name)).collect()
}

/// `INSTALL_DIR/scripts/install/install-deps.sh -check | -yes [-with-r]`
pub(super) fn install_deps(call: &mut Call) -> ToolResult {
    let missing = missing_dependencies(call);
    if call.has("-check") {
        if missing.is_empty() {
            call.print("+ All dependencies are installed");
            return Ok(0);
        }
        return refuse(1, format!("*** Error: missing dependencies: {}", missing.join(" ")));
    }
    if !call.is_root() {
        return refuse(1, "*** Error: this script should be run as root");
    }
    if !call.has("-yes") {
        return refuse(1, "*** Aborted: no answer to the question");
    }
    call.argv = ["dnf", "-y", "install"].iter().chain(&missing).map(|s| (*s).to_owned()).collect();
    super::packages::dnf(call)
}

/// `INSTALL_DIR/installer.sh -d DATADIR -p PORT [-l LICENSE] [-t TYPE] [-P PYTHON] [-n]`
pub(super) fn installer(call: &mut Call) -> ToolResult {
    if call.is_root() {
        return refuse(1, "*** Error: DSS should not be installed as root");
    }
    let install_dir = call.argv[0].trim_end_matches("/installer.sh").to_owned();
    let Some(version) = version_in(call, &install_dir) else {
        return refuse(1, "*** Error: the installation directory is not complete");
    };
    let (Some(data_dir), Some(port)) = (call.option(&["-d"]), call.option(&["-p"])) else {
        return refuse(1, "usage: installer.sh -d DATADIR -p PORT [-l LICENSE]");
    };
    let (data_dir, port) = (data_dir.to_owned(), port.to_owned());
    let license = call.option(&["-l"]).map(str::to_owned);
    let node_type = call.option(&["-t"]).unwrap_or("design").to_owned();
    if !call.has("-n") {
        let missing = missing_dependencies(call);
        if !missing.is_empty() {
            return refuse(
                1,
                format!(
                    "*** Error: some dependencies are missing: {}\nRun as root: {install_dir}/scripts/install/install-deps.sh",
                    missing.join(" ")
                ),
            );
        }
    }
    let entries = std::fs::read_dir(call.root.map(&data_dir)).map_or(0, Iterator::count);
    if entries > 0 {
        return refuse(1, format!("*** Error: {data_dir} already exists and is not empty"));
    }
    if data_dir.starts_with(&install_dir) {
        return refuse(1, "*** Error: the data directory must be outside of the installation directory");
    }
    // Half an installation first, as a kill in the middle leaves it.
    call.root
        .write(&format!("{data_dir}/bin/env-default.sh"), format!("export DKUINSTALLDIR={install_dir}\n"))?;
    call.work(2.0);
    let seed = format!("{}\0{data_dir}", call.root.path().display());
    let install_id: String = hex::encode(Sha256::digest(seed))[..8].to_owned();
    let ini = format!(
        "[general]\nnodetype = {node_type}\ninstallid = {install_id}\n\n[server]\nport = {port}\n\n[git]\nmode = global\n"
    );
    for name in ["dss", "dssadmin", "dsscli"] {
        call.root.write_program(
            &format!("{data_dir}/bin/{name}"),
            format!("#!/bin/sh\n# {name}; stub of the sandbox\n"),
        )?;
    }
    call.root
        .write(&format!("{data_dir}/bin/env-site.sh"), "# Site-specific environment customizations\n")?;
    call.root.write(&format!("{data_dir}/config/general-settings.json"), "{}\n")?;
    if let Some(license) = license {
        let Some(text) = call.root.read(&license) else {
            return refuse(1, format!("*** Error: license file not found: {license}"));
        };
        call.root.write(&format!("{data_dir}/config/license.json"), text)?;
    }
    call.root.write(&format!("{data_dir}/install.ini"), ini)?;
    let version = json!({"product_version": version});
    call.root.write(&format!("{data_dir}/dss-version.json"), version.to_string())?;
    // A new data directory is a new DSS. Without a daemon there is none to reset.
    drop(admin::call(&call.config, "POST", "/dss/reset", &json!({})));
    call.print("Installation complete");
    Ok(0)
}

/// `INSTALL_DIR/scripts/install/install-boot.sh [-n NAME] DATADIR USER`
pub(super) fn install_boot(call: &mut Call) -> ToolResult {
    if !call.is_root() {
        return refuse(1, "*** Error: this script should be run as root");
    }
    let name = call.option(&["-n"]).map_or_else(|| "dataiku".to_owned(), |n| format!("dataiku.{n}"));
    let [.., data_dir, user] = call.argv.as_slice() else {
        return refuse(1, "usage: install-boot.sh DATADIR USER");
    };
    let (data_dir, user) = (data_dir.clone(), user.clone());
    if !call.root.exists(&format!("{data_dir}/install.ini")) {
        return refuse(1, format!("*** Error: {data_dir} is not a DSS data directory"));
    }
    if call.root.user(&user).is_none() {
        return refuse(1, format!("*** Error: no such user: {user}"));
    }
    let unit = format!(
        "[Unit]\nDescription=Dataiku DSS\n[Service]\nUser={user}\nEnvironment=DIP_HOME={data_dir}\n\
         ExecStart={data_dir}/bin/dss start\nExecStop={data_dir}/bin/dss stop\n[Install]\nWantedBy=multi-user.target\n"
    );
    call.root.write(&format!("/etc/systemd/system/{name}.service"), unit)?;
    call.root.write(
        &format!("/etc/systemd/system/multi-user.target.wants/{name}.service"),
        format!("{name}.service"),
    )?;
    Ok(0)
}

/// The data directory of `DATADIR/bin/TOOL`.
fn data_dir_of(call: &Call) -> Result<String, Refusal> {
    let at = call.argv[0].rfind("/bin/").unwrap_or(0);
    let dir = call.argv[0][..at].to_owned();
    if !call.root.exists(&format!("{dir}/install.ini")) {
        return refuse(1, "*** Error: not a DSS data directory");
    }
    if call.is_root() {
        return refuse(1, "*** Error: this command should not be run as root");
    }
    Ok(dir)
}

/// Whether a DSS of the host runs.
fn dss_runs(call: &Call) -> bool {
    let running = std::fs::read_dir(call.root.map("/run/systemd/active"));
    running.into_iter().flatten().flatten().any(|e| e.file_name().to_string_lossy().starts_with("dataiku"))
}

/// `DATADIR/bin/dssadmin install-hadoop-integration|install-spark-integration|build-base-image ...`
pub(super) fn dssadmin(call: &mut Call) -> ToolResult {
    if call.argv.get(1).is_some_and(|verb| verb == "install-impersonation") {
        return install_impersonation(call);
    }
    let dir = data_dir_of(call)?;
    match call.argv.get(1).cloned().as_deref() {
        Some("install-hadoop-integration") => integration(call, &dir, "hadoop"),
        Some("install-spark-integration") => integration(call, &dir, "spark"),
        Some("build-base-image") => build_base_image(call, &dir),
        other => refuse(1, format!("dssadmin: unknown command {}", other.unwrap_or_default())),
    }
}

/// `dssadmin install-impersonation DSSUSER`, the one command of it that root runs.
fn install_impersonation(call: &mut Call) -> ToolResult {
    if !call.is_root() {
        return refuse(1, "*** Error: this command should be run as root");
    }
    let dir = call.argv[0].trim_end_matches("/bin/dssadmin").to_owned();
    let Some(user) = call.argv.get(2).cloned() else {
        return refuse(1, "usage: dssadmin install-impersonation DSSUSER");
    };
    let ini_text = call.root.read(&format!("{dir}/install.ini")).unwrap_or_default();
    let Some(id) = ini(&ini_text, "installid") else {
        return refuse(1, "*** Error: not a DSS data directory");
    };
    if call.root.user(&user).is_none() {
        return refuse(1, format!("*** Error: no such user: {user}"));
    }
    if dss_runs(call) {
        return refuse(1, "*** Error: DSS is running. Stop it first with: bin/dss stop");
    }
    let security = format!("/etc/dataiku-security/{id}/security");
    call.root.write(
        &format!("{security}/security-config.ini"),
        format!("[users]\n# Fill in\nallowed_user_groups =\n\n[dirs]\ndss_data_dir = {dir}\n"),
    )?;
    call.root.write(
        &format!("/etc/sudoers.d/dataiku-dss-{user}-{id}"),
        format!("{user} ALL=(root) NOPASSWD: {security}/execwrapper.py\n"),
    )?;
    call.print("Impersonation installed");
    Ok(0)
}

fn integration(call: &mut Call, dir: &str, kind: &str) -> ToolResult {
    if dss_runs(call) {
        return refuse(1, "*** Error: DSS is running. Stop it first with: bin/dss stop");
    }
    let Some(archive) = call.option(&["-standaloneArchive"]).map(str::to_owned) else {
        return refuse(1, "*** Error: -standaloneArchive is needed");
    };
    if !call.root.exists(&archive) {
        return refuse(1, format!("*** Error: no such file: {archive}"));
    }
    call.work(0.8);
    let k8s = if call.has("-forK8S") { "export DKU_SPARK_FOR_K8S=true\n" } else { "" };
    let text = format!("# {kind} integration\nexport DKU_{}_ENABLED=true\n{k8s}", kind.to_uppercase());
    call.root.write(&format!("{dir}/bin/env-{kind}.sh"), text)?;
    call.print("Done");
    Ok(0)
}

fn build_base_image(call: &mut Call, dir: &str) -> ToolResult {
    containers::reachable(call)?;
    let kind = call.option(&["--type"]).unwrap_or("container-exec").to_owned();
    let name = match kind.as_str() {
        "container-exec" => "dku-exec-base",
        "spark" => "dku-spark-base",
        other => return refuse(1, format!("*** Error: unknown image type {other}")),
    };
    if kind == "spark" && !call.root.exists(&format!("{dir}/bin/env-spark.sh")) {
        return refuse(1, "*** Error: Spark integration is not installed");
    }
    let ini_text = call.root.read(&format!("{dir}/install.ini")).unwrap_or_default();
    let install_id = ini(&ini_text, "installid").unwrap_or_default();
    let version = version_in(call, dir).unwrap_or_default();
    let (repository, tag) = (format!("{name}-{install_id}"), format!("dss-{version}"));
    call.work(3.0);
    let image = containers::build(&call.root, &repository, &tag)?;
    let body = json!({"kind": kind, "repository": repository, "tag": tag, "digest": image.digest});
    admin::call(&call.config, "POST", "/dss/base-images", &body)?;
    call.print(format!("Successfully tagged {repository}:{tag}"));
    Ok(0)
}

/// `DATADIR/bin/dsscli api-keys-list|api-key-create|api-key-delete ...`
pub(super) fn dsscli(call: &mut Call) -> ToolResult {
    data_dir_of(call)?;
    if !dss_runs(call) {
        return refuse(1, "Failed to contact DSS: Connection refused");
    }
    match call.argv.get(1).cloned().as_deref() {
        Some("api-keys-list") => {
            let keys = admin::call(&call.config, "GET", "/dss/api-keys", &Value::Null)?;
            let keys = keys.get("keys").cloned().unwrap_or(keys);
            call.print(keys.to_string());
            Ok(0)
        }
        Some("api-key-create") => {
            let text = |name: &str| call.option(&[name]).unwrap_or_default().to_owned();
            let body = json!({"label": text("--label"), "description": text("--description"), "admin": text("--admin") == "true"});
            let key = admin::call(&call.config, "POST", "/dss/api-keys", &body)?;
            call.print(json!([key]).to_string());
            Ok(0)
        }
        Some("api-key-delete") => {
            let id = call.argv.get(2).cloned().unwrap_or_default();
            admin::call(&call.config, "DELETE", &format!("/dss/api-keys/{id}"), &Value::Null)?;
            Ok(0)
        }
        other => refuse(2, format!("dsscli: unknown command {}", other.unwrap_or_default())),
    }
}
