//! The stub tools, by name. Each refuses what the real one refuses, in the real one's words where they are known.

#![expect(clippy::unnecessary_wraps, reason = "all tools share one signature")]

mod cloud;
mod containers;
mod download;
mod dss;
mod packages;
mod services;
mod system;
mod users;

pub(super) use self::containers::images;
use super::{Call, Tool};

/// Finds the stub for a call; `None` leaves it to a real program.
pub(super) fn find(call: &Call) -> Option<Tool> {
    let first = call.argv.first().map_or("", String::as_str);
    // A file the host must have before the tool answers.
    let installed = |path: &str, tool: Tool| if call.root.exists(path) { tool } else { not_found as Tool };
    let itself = |tool: Tool| installed(first, tool);
    if first.ends_with("/aws/install") {
        return Some(itself(cloud::aws_installer));
    }
    Some(match call.program() {
        "dnf" | "yum" => packages::dnf,
        "rpm" => packages::rpm,
        "locale" => packages::locale,
        "systemctl" => services::systemctl,
        "useradd" => users::useradd,
        "usermod" => users::usermod,
        "userdel" => users::userdel,
        "groupadd" => users::groupadd,
        "groupdel" => users::groupdel,
        "gpasswd" => users::gpasswd,
        "getent" => users::getent,
        "id" => users::id,
        "test" => users::test,
        "uname" => system::uname,
        "nproc" => system::nproc,
        "df" => system::df,
        "hostname" => system::hostname,
        "restorecon" => system::nothing,
        "curl" => download::curl,
        "unzip" => installed("/usr/bin/unzip", download::unzip),
        "docker" => installed("/usr/bin/docker", containers::docker),
        "kubectl" => installed("/usr/local/bin/kubectl", cloud::kubectl),
        "eksctl" => installed("/usr/local/bin/eksctl", cloud::eksctl),
        "aws-iam-authenticator" => installed("/usr/local/bin/aws-iam-authenticator", cloud::authenticator),
        "aws" => installed("/usr/local/bin/aws", cloud::aws),
        "java" => installed("/usr/bin/java", system::java),
        "installer.sh" => itself(dss::installer),
        "install-deps.sh" => itself(dss::install_deps),
        "install-boot.sh" => itself(dss::install_boot),
        "dssadmin" => itself(dss::dssadmin),
        "dsscli" => itself(dss::dsscli),
        _ => return None,
    })
}

fn not_found(call: &mut Call) -> super::ToolResult {
    super::refuse(127, format!("{}: command not found", call.program()))
}
