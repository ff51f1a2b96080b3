//! Runs one child with the guards of [`super::guard`] around it, and reads what came of it.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use zeroize::Zeroizing;

use super::guard::{self, Said};
use super::transport::{HostError, HostOutput, MAX_OUTPUT_BYTES, StartFence};

/// How long to wait for the guards to clear up after a timeout.
const GRACE: Duration = Duration::from_secs(3);
/// The most bytes one word of a command line may have; Linux takes 128 KiB.
pub(super) const MAX_WORD_BYTES: usize = 120 * 1024;

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
    /// What the guards know it by.
    pub(super) nonce: String,
    /// Whether a guard asks before it starts.
    pub(super) locked: bool,
    /// What it is told then depends on this.
    pub(super) fence: Option<StartFence>,
}

/// How a child ended.
pub(super) struct Ended {
    /// What it left.
    pub(super) output: HostOutput,
    /// Whether the status is surely the command's own, and not that of an `ssh` that carried it.
    pub(super) own_status: bool,
    /// Whether the command may have started.
    pub(super) started: bool,
}

/// A process group of its own with pipes on all sides and nothing inherited.
pub(super) fn piped(argv: &[String], env: &[(String, String)]) -> Result<tokio::process::Child, HostError> {
    let (program, arguments) = argv.split_first().expect("guards come first");
    Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(env.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|source| HostError::Spawn { program: program.clone(), source })
}

/// Runs it to its end.
pub(super) async fn run(child: Child) -> Result<Ended, HostError> {
    let Child { name, argv, env, stdin, timeout, nonce, locked, fence } = child;
    if argv.iter().any(|word| word.len() > MAX_WORD_BYTES) {
        let why = format!("its command line has a word of more than {MAX_WORD_BYTES} bytes");
        return Err(HostError::BadCommand { command: name, why });
    }
    let mut process = piped(&argv, &env)?;
    let mut lifeline = process.stdin.take();
    let stdout = process.stdout.take().expect("stdout is piped");
    let stderr = process.stderr.take().expect("stderr is piped");
    let (mut started, mut refused) = (!locked, None);
    let pipe = |source| HostError::Pipe { command: name.clone(), source };

    let work = async {
        let (go, gone) = tokio::sync::oneshot::channel();
        let feed = async {
            if locked {
                // Without the question there is no command to feed.
                if gone.await.is_err() {
                    return;
                }
                refused = fence.as_ref().and_then(|fence| fence().err());
                if refused.is_some() {
                    // The guard that waits for its answer gives up, and with it the lock.
                    lifeline = None;
                    return;
                }
            }
            let line = lifeline.as_mut().expect("stdin is piped");
            if locked {
                if line.write_all(b"g").await.is_err() {
                    return;
                }
                started = true;
            }
            // A command may end without reading its stdin; its status tells the story then.
            if let Some(bytes) = &stdin {
                drop(line.write_all(bytes).await);
            }
            drop(line.write_all(b"d").await);
        };
        let ((), out, err) = tokio::join!(feed, read_capped(stdout), read_asked(stderr, &nonce, go));
        let out = Zeroizing::new(out.map_err(pipe)?);
        let err = err.map_err(pipe)?;
        if out.len() > MAX_OUTPUT_BYTES || err.len() > MAX_OUTPUT_BYTES {
            return Err(HostError::TooMuchOutput { command: name.clone() });
        }
        let status = process.wait().await.map_err(pipe)?;
        // Not earlier: its end is the end of the command.
        drop(lifeline);
        Ok(HostOutput { status: exit_code(status), stdout: out, stderr: err })
    };
    let Ok(outcome) = tokio::time::timeout(timeout, work).await else {
        // The lifeline went with `work`; a retry must not meet what is still ending.
        drop(tokio::time::timeout(GRACE, process.wait()).await);
        return Err(HostError::Timeout { command: name.clone(), after: timeout });
    };
    if let Some(error) = refused {
        return Err(HostError::Fenced(error));
    }
    let mut output = outcome?;
    match guard::last_word(&mut output.stderr, &nonce) {
        Some(Said::Busy(pid)) => Err(HostError::Busy { command: name, pid }),
        Some(Said::Lock(why)) => Err(HostError::Lock { command: name, why }),
        Some(Said::Ended) => Ok(Ended { output, own_status: true, started }),
        None => Ok(Ended { own_status: output.status != 255, output, started }),
    }
}

/// Reads to the end, or to one byte over the limit.
async fn read_capped(source: impl AsyncRead + Unpin) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_OUTPUT_BYTES).expect("the limit fits") + 1;
    source.take(limit).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

/// The same, and tells when the guard asks to go.
async fn read_asked(
    mut source: impl AsyncRead + Unpin,
    nonce: &str,
    go: tokio::sync::oneshot::Sender<()>,
) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut go = Some(go);
    let mut chunk = vec![0; 8 * 1024];
    while bytes.len() <= MAX_OUTPUT_BYTES {
        let length = source.read(&mut chunk).await?;
        if length == 0 {
            break;
        }
        bytes.extend_from_slice(&chunk[..length]);
        if go.is_some() && guard::asks_to_go(&mut bytes, nonce) {
            // Who feeds may have given up, and with it the command.
            go.take().map(|go| go.send(()).ok());
        }
    }
    Ok(bytes)
}

fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
