//! Runs a local child under a guard, so that nothing outlives its owner.
//!
//! Every child starts as `sh -c GUARD ...` in a process group of its own. The guard holds the read end of a pipe,
//! the lifeline, whose only writer is this process. On the lifeline come the bytes for the command's stdin, then
//! `d` (data complete), then `x` once the command has closed its output. End of file without the `x` means that
//! the owner gave up or died, SIGKILL included: the guard sends TERM to the whole group, and KILL a second later.
//! The guard stands inside `sudo` and `ssh`, where the owner's own signals would not reach.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use zeroize::Zeroizing;

use super::transport::{HostError, HostOutput, MAX_OUTPUT_BYTES};

/// POSIX sh; works in dash, bash and busybox. `$1` is the length of stdin, the rest is the command. The shell gives
/// up its own output so that end of file there means "the command is done".
const GUARD: &str = r#"n=$1; shift
exec 4<&0
end() { trap "" TERM; kill -TERM 0; sleep 1; kill -KILL 0; }
{
  if [ "$n" = 0 ] || head -c "$n" <&4; then
    [ "$(head -c 1 <&4)" = d ] || end
  fi
  exec >/dev/null 2>&1
  [ "$(tail -c 1 <&4)" = x ] || end
} | { exec 4<&-; "$@"; } &
exec </dev/null >/dev/null 2>&1 4<&-
wait $!"#;

/// How long to wait for the guard to clear up after a timeout.
const GRACE: Duration = Duration::from_secs(3);

/// Puts the guard before `argv`.
pub(super) fn guarded(argv: Vec<String>, stdin_len: usize) -> Vec<String> {
    let guard = ["sh", "-c", GUARD, "dssflow-guard"].map(str::to_owned);
    guard.into_iter().chain([stdin_len.to_string()]).chain(argv).collect()
}

/// What to run: a guarded argv, possibly behind `sudo` or `ssh`.
pub(super) struct Child {
    /// Name for messages.
    pub(super) name: String,
    /// The full argv.
    pub(super) argv: Vec<String>,
    /// The whole environment.
    pub(super) env: Vec<(String, String)>,
    /// Bytes for the command's stdin.
    pub(super) stdin: Option<Zeroizing<Vec<u8>>>,
    /// Limit of time.
    pub(super) timeout: Duration,
}

/// Runs it to its end.
pub(super) async fn run(child: Child) -> Result<HostOutput, HostError> {
    let Child { name, argv, env, stdin, timeout } = child;
    let (program, arguments) = argv.split_first().expect("checked by HostCommand::check");
    let mut process = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(env)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|source| HostError::Spawn { program: program.clone(), source })?;
    let mut lifeline = process.stdin.take().expect("stdin is piped");
    let stdout = process.stdout.take().expect("stdout is piped");
    let stderr = process.stderr.take().expect("stderr is piped");
    let pipe = |source| HostError::Pipe { command: name.clone(), source };

    let work = async {
        let feed = async {
            // A command may end without reading its stdin; its status tells the story then.
            if let Some(bytes) = &stdin {
                drop(lifeline.write_all(bytes).await);
            }
            drop(lifeline.write_all(b"d").await);
        };
        let ((), out, err) = tokio::join!(feed, read_capped(stdout), read_capped(stderr));
        let out = Zeroizing::new(out.map_err(pipe)?);
        let err = err.map_err(pipe)?;
        if out.len() > MAX_OUTPUT_BYTES || err.len() > MAX_OUTPUT_BYTES {
            return Err(HostError::TooMuchOutput { command: name.clone() });
        }
        drop(lifeline.write_all(b"x").await);
        lifeline.shutdown().await.ok();
        drop(lifeline);
        let status = process.wait().await.map_err(pipe)?;
        Ok(HostOutput { status: exit_code(status), stdout: out, stderr: err })
    };
    if let Ok(outcome) = tokio::time::timeout(timeout, work).await {
        return outcome;
    }
    // The lifeline went with `work`; a retry must not meet what is still ending.
    drop(tokio::time::timeout(GRACE, process.wait()).await);
    Err(HostError::Timeout { command: name.clone(), after: timeout })
}

/// Reads to the end, or to one byte over the limit.
async fn read_capped(source: impl AsyncRead + Unpin) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_OUTPUT_BYTES).expect("the limit fits") + 1;
    source.take(limit).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
