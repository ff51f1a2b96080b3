//! Root on the host: by being it, or by `sudo` without a password.
//!
//! Looked at before anything is made, because a run that finds out in its tenth step has made nine for nothing. Every
//! command as another user is looked at too: a refusal by `sudo` is told apart from a status of the command, which
//! would otherwise read as "the service does not run".

use std::time::Duration;

use dssflow_engine::activity::{ActivityError, ActivityResult};

use super::transport::{Host, HostCommand, HostOutput, HostUser};

/// How long the answer may take: a directory service can be slow.
const TIMEOUT: Duration = Duration::from_secs(45);

/// What `sudo` prints when it runs nothing, and how it is mended.
const REFUSALS: [(&str, &str); 5] = [
    (
        "a password is required",
        "give the login user sudo without a password for the time of the bootstrap: a file in /etc/sudoers.d with \
         `USER ALL=(ALL) NOPASSWD: ALL`, checked with `visudo -c`",
    ),
    (
        "a terminal is required",
        "give the login user sudo without a password for the time of the bootstrap: a file in /etc/sudoers.d with \
         `USER ALL=(ALL) NOPASSWD: ALL`, checked with `visudo -c`",
    ),
    (
        "is not in the sudoers file",
        "log in as a user that may sudo (`ec2-user` on AWS images), or allow this one in /etc/sudoers.d",
    ),
    (
        "is not allowed to",
        "the login user may run some commands by sudo only; dssflow needs `ALL=(ALL) NOPASSWD: ALL`",
    ),
    ("you must have a tty", "remove `Defaults requiretty` for the login user in /etc/sudoers"),
];

/// What `sudo` said, when it refused and ran nothing.
pub(super) fn refusal(output: &HostOutput) -> Option<String> {
    if output.status != 1 {
        return None;
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let said = text.lines().find(|line| {
        let by_sudo =
            line.starts_with("sudo: ") || line.contains("sudoers") || line.starts_with("Sorry, user ");
        by_sudo && REFUSALS.iter().any(|(part, _)| line.contains(part))
    });
    said.map(|line| super::transport::printable(line.trim(), 300))
}

/// How a refusal is mended.
pub(super) fn help(said: &str) -> &'static str {
    let known = REFUSALS.iter().find(|(part, _)| said.contains(part));
    known.map_or("the login user needs sudo without a password on the host", |(_, help)| help)
}

/// Checks that commands can run as root: as the login user, or by `sudo` without a password. Changes nothing.
///
/// # Errors
/// Of class `NeedsHuman`: `SudoRefused` with what sudo said and how it is mended, `SudoMissing`. What
/// [`Host::exec`] gives when the host cannot be asked.
pub async fn sudo_ok(host: &dyn Host) -> ActivityResult<()> {
    let output = host.exec(HostCommand::new(HostUser::Root, ["id", "-u"]).timeout(TIMEOUT)).await?;
    if output.ok() && output.text() == "0" {
        return Ok(());
    }
    let complaint = output.complaint();
    if output.status == 127
        || complaint.contains("sudo: not found")
        || complaint.contains("sudo: command not found")
    {
        let message =
            format!("the login user of {} is not root, and there is no sudo: {complaint}", host.describe());
        return Err(ActivityError::needs_human("SudoMissing", message)
            .help("install sudo on the host, or log in as root (`host.user`)"));
    }
    let message = format!(
        "a command as root on {} ended with status {} and printed {:?}: {complaint}",
        host.describe(),
        output.status,
        super::transport::printable(&output.text(), 60)
    );
    Err(ActivityError::needs_human("SudoRefused", message).help(help(&complaint)))
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    fn output(status: i32, stderr: &str) -> HostOutput {
        HostOutput { status, stdout: Zeroizing::new(Vec::new()), stderr: stderr.as_bytes().to_vec() }
    }

    #[test]
    fn refusals_are_told_from_statuses() {
        for said in [
            "sudo: a password is required",
            "sudo: a terminal is required to read the password; either use the -S option to read from standard input",
            "ec2-user is not in the sudoers file.  This incident will be reported.",
            "ec2-user is not in the sudoers file.",
            "Sorry, user ec2-user is not allowed to execute '/usr/bin/id -u' as root on ip-10-0-0-4.",
            "sudo: sorry, you must have a tty to run sudo",
        ] {
            let refused = refusal(&output(1, &format!("{said}\n")));
            assert_eq!(refused.as_deref(), Some(said));
            assert_ne!(help(said), help("something else"), "{said}");
        }
        assert_eq!(refusal(&output(1, "grep: sudoers: No such file\n")), None);
        // The command of a service user that is not there yet: a status like any other.
        assert_eq!(refusal(&output(1, "sudo: unknown user: dssuser\n")), None);
        assert_eq!(refusal(&output(3, "sudo: a password is required\n")), None);
    }
}
