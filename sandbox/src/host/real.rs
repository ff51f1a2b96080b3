//! Runs a program of this machine as if on the host: absolute paths mapped, a few programs shadowed.
//!
//! `chown` cannot change owners without root, so a shim notes the owner for the snapshot; `sync` has nothing to
//! protect here and is skipped.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Call, complain};

/// Programs of this machine that a command may name; scripts name others of coreutils by themselves.
const ALLOWED: [&str; 32] = [
    "sh",
    "bash",
    "cat",
    "chmod",
    "chown",
    "cp",
    "cut",
    "date",
    "env",
    "false",
    "find",
    "grep",
    "gzip",
    "head",
    "ln",
    "ls",
    "mkdir",
    "mktemp",
    "mv",
    "printf",
    "readlink",
    "rm",
    "rmdir",
    "sed",
    "sha256sum",
    "sleep",
    "sort",
    "tail",
    "tar",
    "touch",
    "true",
    "wc",
];

/// `chown [-R] OWNER PATH...`: notes the owner.
const CHOWN: &str = "#!/bin/sh\nwhile case ${1-} in -*) true;; *) false;; esac; do shift; done\nowner=$1; shift\n\
    for path in \"$@\"; do printf '%s\\t%s\\n' \"$owner\" \"$path\" >> \"${0%/*}/owners\"; done\n";
const SYNC: &str = "#!/bin/sh\nexit 0\n";

pub(super) fn shim_dir(dir: &Path) -> PathBuf {
    dir.join("host-shims")
}

/// Writes the programs that shadow real ones.
pub(super) fn write_shims(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let shims = shim_dir(dir);
    std::fs::create_dir_all(&shims)?;
    for (name, text) in [("chown", CHOWN), ("sync", SYNC)] {
        let path = shims.join(name);
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Replaces this process by the program. Returns only when that fails, or there is no such program.
pub(super) fn exec(call: &Call) -> Result<u8, String> {
    let Some(mut command) = command(call) else { return Ok(127) };
    Err(format!("{}: {}", call.program(), command.exec()))
}

/// Runs the program as a child, in the same process group.
pub(super) fn run(call: &Call) -> Result<u8, String> {
    let Some(mut command) = command(call) else { return Ok(127) };
    let status = command.status().map_err(|error| format!("{}: {error}", call.program()))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(128))
}

/// The program with its paths mapped; `None` when the host has none of that name.
fn command(call: &Call) -> Option<Command> {
    let name = call.program().to_owned();
    if !ALLOWED.contains(&name.as_str()) {
        complain(&format!("{name}: command not found"));
        return None;
    }
    let map =
        |arg: &String| if arg.starts_with('/') { call.root.map(arg).into_os_string() } else { arg.into() };
    let home = call.root.user(&call.user).map_or_else(|| "/".to_owned(), |u| u.home);
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
    let mut command = Command::new(name);
    command
        .args(call.argv.iter().skip(1).map(map))
        .env("HOME", call.root.map(&home))
        .env("PATH", format!("{}:{path}", shim_dir(&call.config.dir).display()))
        .current_dir(call.root.path());
    Some(command)
}
