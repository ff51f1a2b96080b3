//! The host, before anything is changed on it: root without a password, the machine, free ports, podman. H01, H02,
//! H03, H04.

use dssflow_engine::activity::{ActivityError, ErrorClass};

use super::Notes;
use super::look::Look;
use crate::host::facts::{self, FactsInput};
use crate::host::{Host, HostCommand, HostUser};

/// DSS listens on ten ports from its first.
const DSS_PORTS: u16 = 10;
/// The state `LISTEN` in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// The host, when commands can run on it as root; else it says why not.
async fn host<'a>(look: &'a Look, notes: &mut Notes) -> Option<&'a dyn Host> {
    let Some(host) = look.host() else {
        notes.skipped("host", "the run launches the host", "nothing: its own steps look at it");
        return None;
    };
    if look.root().await.is_ok() {
        return Some(host);
    }
    notes.skipped("host", "no command can run as root on the host", "see H01");
    None
}

/// H01: commands run as root without a password.
pub(super) async fn sudo(look: &Look, notes: &mut Notes) {
    let Some(host) = look.host() else {
        return notes.skipped(
            "host",
            "the run launches the host",
            "nothing: it gets a user with the right to it",
        );
    };
    match look.root().await {
        Ok(()) => notes.seen(format!("commands run as root on {}", host.describe())),
        Err(error) => judge_sudo(&host.describe(), error, notes),
    }
}

fn judge_sudo(host: &str, error: &ActivityError, notes: &mut Notes) {
    let help = |otherwise: &str| error.help.clone().unwrap_or_else(|| otherwise.to_owned());
    match error.class {
        // A connection that fails now may be up when the run starts; without one nothing can be done at all.
        ErrorClass::Retryable | ErrorClass::Terminal | ErrorClass::NeedsHuman => notes.error(
            host,
            error.to_string(),
            help("the login user needs passwordless sudo on the host: `USER ALL=(ALL) NOPASSWD: ALL` in /etc/sudoers.d"),
        ),
        ErrorClass::Throttled | ErrorClass::Credentials | ErrorClass::Cancelled => notes.unanswered(host, error),
    }
}

/// H02: system, memory and disk carry DSS.
pub(super) async fn machine(look: &Look, notes: &mut Notes) {
    let Some(host) = host(look, notes).await else { return };
    let input = FactsInput {
        data_dir: look.spec.data_dir.clone(),
        min_memory_gb: look.spec.min_memory_gb,
        min_disk_gb: look.spec.min_disk_gb,
    };
    match facts::gather(host, &input.data_dir).await {
        Ok(facts) => {
            let problems = facts::problems(&facts, &input);
            if problems.is_empty() {
                notes.seen(format!(
                    "{} {}, {} MB of memory, {} MB of {}",
                    facts.os_id, facts.os_version, facts.memory_mb, facts.disk_mb, facts.file_system
                ));
            }
            for problem in problems {
                notes.error("host", problem, "choose a machine that meets Dataiku's requirements");
            }
        }
        Err(error) => notes.unanswered("host", &error),
    }
}

/// H03: the ports of DSS are free, or DSS has them.
pub(super) async fn ports(look: &Look, notes: &mut Notes) {
    let Some(host) = host(look, notes).await else { return };
    let mut listening = Vec::new();
    let mut told = false;
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match host.read_file(&HostUser::Root, file).await {
            Ok(Some(table)) => {
                told = true;
                listening.extend(listening_ports(&String::from_utf8_lossy(&table)));
            }
            Ok(None) => {}
            Err(error) => return notes.unanswered("host", &error.into()),
        }
    }
    if !told {
        return notes.skipped("ports", "the host does not tell which ports are in use", "nothing");
    }
    let installed = format!("{}/bin/dss", look.spec.data_dir.trim_end_matches('/'));
    let installed = host.exists(&HostUser::Root, &installed).await.unwrap_or(false);
    judge_ports(look.spec.dss_port, &listening, installed, notes);
}

/// The ports somebody listens on, from the kernel's table.
fn listening_ports(table: &str) -> Vec<u16> {
    let port = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next()?, fields.nth(1)?);
        if state != LISTEN {
            return None;
        }
        u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()
    };
    table.lines().filter_map(port).collect()
}

fn judge_ports(first: u16, listening: &[u16], installed: bool, notes: &mut Notes) {
    let last = first.saturating_add(DSS_PORTS - 1);
    let mut taken: Vec<u16> = listening.iter().copied().filter(|p| (first..=last).contains(p)).collect();
    taken.sort_unstable();
    taken.dedup();
    let list = taken.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if taken.is_empty() {
        notes.seen(format!("ports {first}-{last} are free"));
    } else if installed {
        notes.seen(format!("DSS of the data directory is there; ports {list} are in use"));
    } else {
        notes.error(
            "ports",
            format!("somebody listens on {list} of DSS's ports {first}-{last}"),
            format!("`ss -ltnp 'sport >= :{first} and sport <= :{last}'` shows who; stop it, or choose another dss.port"),
        );
    }
}

/// H04: Docker CE will be Docker.
pub(super) async fn podman(look: &Look, notes: &mut Notes) {
    let Some(host) = host(look, notes).await else { return };
    let argv = ["rpm", "-q", "podman", "podman-docker", "buildah"];
    match host.exec(HostCommand::new(HostUser::Root, argv)).await {
        // Of every package it says something; nothing at all is no answer.
        Ok(output) if output.text().is_empty() => {
            notes.skipped(
                "host",
                format!("rpm does not tell: {}", output.complaint()),
                "look at rpm on the host",
            );
        }
        Ok(output) => judge_podman(&output.text(), notes),
        Err(error) => notes.unanswered("host", &error.into()),
    }
}

fn judge_podman(answer: &str, notes: &mut Notes) {
    let there: Vec<&str> = answer
        .lines()
        .map(str::trim)
        .filter(|line| {
            !line.contains("is not installed") && ["podman", "buildah"].iter().any(|p| line.starts_with(p))
        })
        .collect();
    if there.is_empty() {
        return notes.seen("no podman is in the way of Docker CE");
    }
    notes.warning(
        "podman",
        format!("{} are installed; DSS does not work with podman, and Docker CE replaces them: their containers stop", there.join(", ")),
        "nothing, unless somebody needs them on this host; a rollback installs them again",
    );
}

#[cfg(test)]
mod tests {
    use super::super::{CHECKS, Finding, Severity};
    use super::*;
    use crate::host::HostError;

    fn found(judge: impl FnOnce(&mut Notes)) -> Option<Finding> {
        let mut notes = Notes::of(&CHECKS[0]);
        judge(&mut notes);
        notes.findings.pop()
    }

    #[test]
    fn h01_a_password_for_sudo_is_told_before_the_run() {
        let error = ActivityError::needs_human("SudoRefused", "sudo: a password is required")
            .help("give the login user sudo without a password");
        let told = found(|n| judge_sudo("this machine", &error, n)).unwrap();
        assert_eq!(told.severity, Severity::Error);
        assert!(
            told.evidence.contains("a password is required") && told.fix.contains("without a password"),
            "{told:?}"
        );
        let lost = HostError::Connection {
            host: "h".into(),
            command: "sudo".into(),
            detail: "Connection refused".into(),
        };
        assert_eq!(found(|n| judge_sudo("h", &lost.into(), n)).unwrap().severity, Severity::Error);
    }

    #[test]
    fn h03_ports_in_use_by_others_are_told() {
        let table = "  sl  local_address rem_address   st tx_queue\n\
            0: 0100007F:2BC0 00000000:0000 0A 00000000:00000000\n\
            1: 0100007F:2BC1 0100007F:0016 01 00000000:00000000\n";
        assert_eq!(listening_ports(table), [11200]);
        let told = found(|n| judge_ports(11200, &[22, 11203, 11200], false, n)).unwrap();
        assert!(told.evidence.contains("11200, 11203") && told.severity == Severity::Error, "{told:?}");
        assert_eq!(found(|n| judge_ports(11200, &[11203], true, n)), None, "DSS itself");
        assert_eq!(found(|n| judge_ports(11200, &[11210, 22], false, n)), None);
    }

    #[test]
    fn h04_podman_is_a_warning() {
        let none = "package podman is not installed\npackage podman-docker is not installed";
        assert_eq!(found(|n| judge_podman(none, n)), None);
        let told =
            found(|n| judge_podman("podman-4.9.4-1.el8\npackage buildah is not installed", n)).unwrap();
        assert!(told.severity == Severity::Warning && told.evidence.starts_with("podman-4.9.4"), "{told:?}");
    }
}
