//! Processes by pid and start time, so that a number used again by the system is never taken for ours.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

/// A process, told apart from a later one with the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    /// Process id.
    pub(crate) pid: u32,
    /// When it started, in the system's own words: only good for comparing.
    pub(crate) started: String,
    /// Id of the process group it belongs to.
    pub(crate) group: u32,
}

impl ProcessId {
    /// The living process with this pid, `None` when it is gone or a zombie.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        if Path::new("/proc/self/stat").exists() { Self::from_proc(pid) } else { Self::from_ps(pid) }
    }

    /// This process.
    pub(crate) fn own() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// Whether it still lives.
    pub(crate) fn alive(&self) -> bool {
        Self::of(self.pid).is_some_and(|now| now.started == self.started)
    }

    fn from_proc(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command's name stands in brackets and may hold anything; the fields after it do not.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        if matches!(*fields.first()?, "Z" | "X") {
            return None;
        }
        Some(Self { pid, started: (*fields.get(19)?).to_owned(), group: fields.get(2)?.parse().ok()? })
    }

    fn from_ps(pid: u32) -> Option<Self> {
        let output =
            Command::new("ps").args(["-o", "pgid=,stat=,lstart=", "-p", &pid.to_string()]).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut words = text.split_whitespace();
        let group = words.next()?.parse().ok()?;
        if words.next()?.starts_with('Z') {
            return None;
        }
        Some(Self { pid, started: words.collect::<Vec<_>>().join(" "), group })
    }
}

/// Ends the process group that `leader` leads: asks, waits up to `grace`, then kills. True if there was one.
///
/// The group is only touched when the process recorded in `member` still lives in it, so that a number used again is
/// never signalled.
pub(crate) async fn end_group(member: &ProcessId, grace: Duration) -> bool {
    let Some(group) = i32::try_from(member.group).ok().and_then(Pid::from_raw) else { return false };
    if !member.alive() {
        return false;
    }
    // The only failure is that the group ended in this instant, which is what was wanted.
    let _gone = rustix::process::kill_process_group(group, Signal::TERM);
    let step = Duration::from_millis(20);
    let mut waited = Duration::ZERO;
    while group_alive(group) && waited < grace {
        tokio::time::sleep(step).await;
        waited += step;
    }
    if group_alive(group) {
        let _gone = rustix::process::kill_process_group(group, Signal::KILL);
        for _ in 0..100 {
            if !group_alive(group) {
                break;
            }
            tokio::time::sleep(step).await;
        }
    }
    true
}

/// Whether any process that is not a zombie is left in the group.
fn group_alive(group: Pid) -> bool {
    if rustix::process::test_kill_process_group(group).is_err() {
        return false;
    }
    let Ok(entries) = std::fs::read_dir("/proc") else { return true };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(ProcessId::from_proc)
        .any(|process| i32::try_from(process.group).is_ok_and(|id| id == group.as_raw_nonzero().get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_itself_and_not_a_stranger() {
        let own = ProcessId::own().expect("this process lives");
        assert!(own.alive());
        let stranger = ProcessId { started: "1".to_owned(), ..own };
        assert!(!stranger.alive());
    }
}
