//! Tells the command what it was built from: the commit, the compiler, the target and the profile.
//!
//! `DSSFLOW_COMMIT` says the commit where there is no git, as in a build from a tarball; without either there is none, and the
//! build goes on. A release is looked up anew with each commit. A debug build only when another branch is checked out:
//! everything of this crate would be compiled again each time somebody commits.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DSSFLOW_COMMIT");
    let profile = env::var("PROFILE").unwrap_or_default();
    let given = env::var("DSSFLOW_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(|| of_git(profile == "release")).unwrap_or_default();
    println!("cargo::rustc-env=DSSFLOW_BUILD_COMMIT={commit}");
    let rustc = env::var("RUSTC").ok().and_then(|rustc| said(Command::new(rustc).arg("--version")));
    println!("cargo::rustc-env=DSSFLOW_BUILD_RUSTC={}", rustc.unwrap_or_default());
    println!("cargo::rustc-env=DSSFLOW_BUILD_TARGET={}", env::var("TARGET").unwrap_or_default());
    println!("cargo::rustc-env=DSSFLOW_BUILD_PROFILE={profile}");
}

/// The commit that is checked out, when this is a repository of its own and not a folder in somebody else's.
fn of_git(release: bool) -> Option<String> {
    let root = Path::new(&env::var_os("CARGO_MANIFEST_DIR")?).parent()?.canonicalize().ok()?;
    let git = |args: &[&str]| said(Command::new("git").arg("-C").arg(&root).args(args));
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != root {
        return None;
    }
    // The first changes when another branch is checked out, the second with each commit as well.
    for file in if release { &["HEAD", "logs/HEAD"][..] } else { &["HEAD"] } {
        let path = root.join(git(&["rev-parse", "--git-path", file])?);
        // A file that is not there would be taken as changed each time.
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    git(&["rev-parse", "HEAD"])
}

/// The first line that a command prints, when it succeeds.
fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}
