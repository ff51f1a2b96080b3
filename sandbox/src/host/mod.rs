//! The sandbox's host: a directory that stands for an EC2 machine, and the program that runs "its" commands.
//!
//! `dssflow __sandbox host --dir DIR --user USER -- ARGV...` runs one command there. Tools that would change a real
//! machine (`dnf`, `systemctl`, `docker`, `dssadmin`, ...) are stubs that keep their state in plain files below the
//! root and refuse what the real ones refuse; `sh`, `tar` and coreutils are this machine's own, with absolute paths
//! mapped below the root. It is no container: nothing stops a real tool from leaving the root, and permissions
//! between users are not enforced. A call is a process start, so this part uses neither tokio nor an HTTP library.

mod admin;
pub mod kits;
mod real;
mod root;
mod snapshot;
mod tools;
mod zip;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use self::root::HostRoot;
pub use self::snapshot::snapshot;

/// What the wrapper must know of the world; written to `DIR/host.json` (0600).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HostConfig {
    /// Directory of the sandbox.
    pub dir: PathBuf,
    /// Root of the host.
    pub host_root: PathBuf,
    /// Admin HTTP of the daemon; without one, tools that need it say so.
    pub admin_url: Option<String>,
    /// Value of its `x-sandbox-token` header.
    pub admin_token: Option<String>,
    /// AWS endpoint, for `aws sts get-caller-identity`.
    pub aws_endpoint: Option<String>,
    /// AWS account of the world.
    pub account: String,
    /// AWS region of the world.
    pub region: String,
    /// Factor for the time the tools take; 0 for tests.
    pub latency: f64,
}

impl HostConfig {
    fn path(dir: &Path) -> PathBuf {
        dir.join("host.json")
    }

    fn load(dir: &Path) -> std::io::Result<Self> {
        let bytes = std::fs::read(Self::path(dir))?;
        serde_json::from_slice(&bytes).map_err(std::io::Error::other)
    }
}

/// Makes the host, or leaves one that is there, and writes the wrapper's configuration.
///
/// # Errors
/// When files cannot be written.
pub fn prepare(config: &HostConfig) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    HostRoot::new(&config.host_root).seed()?;
    real::write_shims(&config.dir)?;
    let path = HostConfig::path(&config.dir);
    let temporary = path.with_extension("json.new");
    drop(std::fs::remove_file(&temporary));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(&serde_json::to_vec_pretty(config)?)?;
    std::fs::rename(temporary, path)
}

/// Serves `dssflow __sandbox host --dir DIR --user USER -- ARGV...`; `args` starts after `host`.
pub fn main(args: Vec<OsString>) -> ExitCode {
    match parse(args).and_then(run) {
        Ok(status) => ExitCode::from(status),
        Err(message) => {
            complain(&message);
            ExitCode::from(125)
        }
    }
}

/// Stderr belongs to the command that runs here.
fn complain(message: &str) {
    drop(writeln!(std::io::stderr(), "sandbox host: {message}"));
}

#[derive(Debug)]
struct Invocation {
    dir: PathBuf,
    user: String,
    argv: Vec<String>,
}

fn parse(args: Vec<OsString>) -> Result<Invocation, String> {
    let mut words =
        args.into_iter().map(|a| a.into_string().map_err(|_| "an argument is not UTF-8".to_owned()));
    let (mut dir, mut user) = (None, None);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or("a value is missing".to_owned())?;
        match word?.as_str() {
            "--dir" => dir = Some(PathBuf::from(value()?)),
            "--user" => user = Some(value()?),
            "--" => break,
            other => return Err(format!("unknown option {other}")),
        }
    }
    let command = words.collect::<Result<Vec<_>, _>>()?;
    if command.is_empty() {
        return Err("no command".to_owned());
    }
    let user = user.ok_or("--user is missing")?;
    Ok(Invocation { dir: dir.ok_or("--dir is missing")?, user, argv: command })
}

fn run(invocation: Invocation) -> Result<u8, String> {
    let config = HostConfig::load(&invocation.dir)
        .map_err(|e| format!("no sandbox host in {}: {e}", invocation.dir.display()))?;
    let root = HostRoot::new(&config.host_root);
    let user = if invocation.user == "login" { "ec2-user".to_owned() } else { invocation.user };
    if root.user(&user).is_none() {
        complain(&format!("user {user} does not exist"));
        return Ok(1);
    }
    let mut call = Call::new(config, root, user, invocation.argv);
    let status = match tools::find(&call) {
        Some(tool) => call.serve(tool),
        None => call.real()?,
    };
    std::io::stdout().write_all(&call.out).map_err(|e| format!("stdout: {e}"))?;
    std::io::stderr().write_all(&call.err).map_err(|e| format!("stderr: {e}"))?;
    Ok(status)
}

/// One run of a stub tool.
struct Call {
    config: HostConfig,
    root: HostRoot,
    user: String,
    argv: Vec<String>,
    out: Vec<u8>,
    err: Vec<u8>,
}

/// A stub: exit status, or a refusal with its status and text.
type ToolResult = Result<u8, Refusal>;
type Tool = fn(&mut Call) -> ToolResult;

fn read_stdin() -> Vec<u8> {
    let mut bytes = Vec::new();
    drop(std::io::stdin().read_to_end(&mut bytes));
    bytes
}

/// What a tool prints on stderr before it exits with `status`.
struct Refusal {
    status: u8,
    text: String,
}

fn refuse<T>(status: u8, text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { status, text: text.into() })
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self { status: 1, text: error.to_string() }
    }
}

impl From<serde_json::Error> for Refusal {
    fn from(error: serde_json::Error) -> Self {
        Self { status: 1, text: error.to_string() }
    }
}

impl Call {
    fn new(config: HostConfig, root: HostRoot, user: String, argv: Vec<String>) -> Self {
        Self { config, root, user, argv, out: Vec::new(), err: Vec::new() }
    }

    /// The tool's name without its directory.
    fn program(&self) -> &str {
        let first = self.argv.first().map_or("", String::as_str);
        first.rsplit('/').next().unwrap_or(first)
    }

    fn args(&self) -> Vec<&str> {
        self.argv.iter().skip(1).map(String::as_str).collect()
    }

    /// The value after an option.
    fn option(&self, names: &[&str]) -> Option<&str> {
        let at = self.argv.iter().position(|a| names.contains(&a.as_str()))?;
        self.argv.get(at + 1).map(String::as_str)
    }

    fn has(&self, name: &str) -> bool {
        self.argv.iter().any(|a| a == name)
    }

    fn is_root(&self) -> bool {
        self.user == "root"
    }

    fn print(&mut self, line: impl AsRef<str>) {
        self.out.extend_from_slice(line.as_ref().as_bytes());
        self.out.push(b'\n');
    }

    fn warn(&mut self, line: impl AsRef<str>) {
        self.err.extend_from_slice(line.as_ref().as_bytes());
        self.err.push(b'\n');
    }

    /// Takes the time the real tool would, scaled.
    fn work(&self, seconds: f64) {
        let seconds = seconds * self.config.latency;
        if seconds > 0.0 {
            std::thread::sleep(std::time::Duration::from_secs_f64(seconds));
        }
    }

    /// What faults are matched against, as `dnf -y install docker-ce`.
    fn op(&self) -> String {
        let rest = self.argv.iter().skip(1).map(String::as_str);
        std::iter::once(self.program()).chain(rest).collect::<Vec<_>>().join(" ")
    }

    /// Runs a program of this machine between the same two moments. Usually it takes the place of this process; only when a
    /// fault may strike behind it this one stays.
    fn real(&mut self) -> Result<u8, String> {
        let op = self.op();
        let (struck, after) = admin::fault(&self.config, &op, "before");
        if let Some(status) = struck.and_then(|fault| self.suffer(fault)) {
            return Ok(status);
        }
        if !after {
            return real::exec(self);
        }
        let status = real::run(self)?;
        Ok(self.fault(&op, "after").unwrap_or(status))
    }

    /// Runs the tool between the two moments at which a scripted fault may strike.
    fn serve(&mut self, tool: Tool) -> u8 {
        let op = self.op();
        if let Some(status) = self.fault(&op, "before") {
            return status;
        }
        let status = match tool(self) {
            Ok(status) => status,
            Err(refusal) => {
                self.warn(&refusal.text);
                refusal.status
            }
        };
        self.fault(&op, "after").unwrap_or(status)
    }

    fn fault(&mut self, op: &str, phase: &str) -> Option<u8> {
        let (fault, _) = admin::fault(&self.config, op, phase);
        self.suffer(fault?)
    }

    fn suffer(&mut self, fault: admin::Fault) -> Option<u8> {
        match fault {
            admin::Fault::Error(message) => {
                self.warn(message);
                Some(1)
            }
            admin::Fault::Hang => {
                std::thread::sleep(std::time::Duration::from_hours(1));
                Some(1)
            }
            admin::Fault::Delay(time) => {
                std::thread::sleep(time);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
