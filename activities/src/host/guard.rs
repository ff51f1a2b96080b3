//! The small shell programs that stand around every child, so that nothing outlives its owner and no step works twice
//! at once. Constants; what differs comes in as positional parameters.
//!
//! They are shell, not a mode of our own program, because they must also run where our program is not: behind `sudo`, on
//! the far side of `ssh`, and in programs that embed this crate. They need a POSIX shell, coreutils, grep, `flock` of
//! util-linux and Linux's `/proc`.
//!
//! From the outside in:
//!
//! - [`RELAY`] and [`KEEP`] stand on this machine around an `ssh` client: they end it when the owner is gone.
//! - [`OUTER`] runs as the login user of the host. It holds the lock of the step while the command runs and writes down
//!   who holds it; a second command of the step waits, and ends what a guard that was killed has left.
//! - [`GUARD`] runs as the user of the command, inside `sudo`. It reads the lifeline and ends the process group.
//!
//! The lifeline is the pipe on stdin, whose only writer is the owner. On it come, where there is a lock, a `g` once it is
//! held, then the bytes for the command's stdin, then
//! `d` (data complete), and nothing more. Its end before the command's means that the owner gave up or died, SIGKILL
//! included: TERM to the whole group, and KILL a second later.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};

/// Holds the step's lock around a command. `NONCE KEY WAIT LOST ARGV...`; an empty key is no lock.
///
/// The lock file has one line: boot id, pid, start time in ticks since boot, nonce. It is written before the command
/// starts. It need not survive a power cut, for no process does: a line of another boot says nothing. Every process of
/// the command carries the nonce in its environment, which is how what is left of it is found and ended. A nonce begins
/// with its owner's part. Whoever meets a lock that is held
///
/// - ends the holder at once if the owner has lost the connection to it (`LOST`, nonces with blanks between them);
/// - waits otherwise, and then ends the holder if it is another owner's: the lock is of one step of one run, so it is
///   what an earlier owner has left. A holder of the same owner is a sibling, and is left alone.
///
/// Who waited may have lost its owner meanwhile, and must not start late: it says `go` on stderr and starts when the owner
/// answers with a `g`.
///
/// Who gets the lock and finds a line in the file ends what is left of that command: its guards were killed. On a clean end
/// the file is removed while the lock is held; who waited for it sees that and opens it anew.
const OUTER: &str = r#"nonce=$1 key=$2 wait=$3 lost=$4; shift 4
say() { printf '\ndssflow:%s:%s\n' "$nonce" "$1" >&2; exit 254; }
marked='for file in $(grep -lszxF "DSSFLOW_CHILD=$1" /proc/[0-9]*/environ); do
  one=${file#/proc/}; one=${one%/environ}; kill "-$2" "$one" && echo "$one"; done'
reap() {
  if [ "$uid" = 0 ]; then sh -c "$marked" reap "$1" "$2"
  else sudo -n sh -c "$marked" reap "$1" "$2" || sh -c "$marked" reap "$1" "$2"; fi 2>/dev/null
}
held() { pid= mark=; read -r then pid began mark <"$lock"; }
take() {
  flock -n 9 && return
  held
  case " $lost " in *" ${mark:-none} "*) ;; *)
    flock -w "$wait" 9 && return
    held
    case $mark in "" | "${nonce%%.*}".*) say "busy:$pid" ;; esac ;;
  esac
  reap "$mark" TERM >/dev/null; flock -w 1 9 && return
  reap "$mark" KILL >/dev/null; flock -w 5 9 || say "busy:$pid"
}
if [ -n "$key" ]; then
  uid=$(id -u); dir=/tmp/dssflow-$uid; lock=$dir/$key
  mkdir -m 700 "$dir" 2>/dev/null
  { [ -d "$dir" ] && [ -O "$dir" ] && [ ! -L "$dir" ]; } || say "lock:$dir is not a directory of this user"
  command -v flock >/dev/null || say "lock:flock (of util-linux) is missing on the host"
  while :; do
    exec 9>>"$lock"
    take
    [ "$lock" -ef /proc/self/fd/9 ] && break
  done
  read -r boot </proc/sys/kernel/random/boot_id
  held
  if [ -n "$mark" ] && [ "$then" = "$boot" ]; then
    tries=0
    while left=$(reap "$mark" KILL) && [ -n "$left" ]; do
      tries=$((tries + 1)); [ "$tries" -lt 50 ] || say "busy:${left%%[!0-9]*}"
      sleep 0.1
    done
  fi
  field() { shift 19; began=$1; }
  read -r stat </proc/$$/stat; field ${stat##*) }
  printf '%s %s %s %s\n' "$boot" $$ "$began" "$nonce" >"$lock"
  printf '\ndssflow:%s:go\n' "$nonce" >&2
  [ "$(head -c 1)" = g ] || { rm -f "$lock"; exit 254; }
fi
ended=; trap 'ended=1' TERM; trap : HUP INT
"$@" 9>&-
status=$?
# The group is being ended: what does not heed TERM still runs, and the lock is held until the KILL.
[ -z "$ended" ] || sleep 10
[ -z "$key" ] || rm -f "$lock"
[ "$status" != 255 ] || printf '\ndssflow:%s:ended\n' "$nonce" >&2
exit $status"#;

/// Reads the lifeline and ends the group. `LENGTH ARGV...`, the length of the command's stdin. It is done when the command
/// has ended and nobody holds its output any more, as with a plain pipe, and then ends by itself: over a shared
/// connection the client would not see the end of the output before.
///
/// Descriptors: 3 the command's stdin, 4 the lifeline, 5 and 6 the output of the whole, 7 the command's stdout, 8 the report:
/// the pid of the feeder, and the status. What a function does not need is closed by `exec` before it is called: a
/// redirection on the call would be kept aside by the shell, and keep the pipes open.
const GUARD: &str = r#"n=$1; shift
exec 4<&0 5>&1 6>&2
feed() {
  if [ "$n" = 0 ] || head -c "$n"; then
    [ "$(head -c 1)" = d ] || end
  fi
  exec >/dev/null 2>&1
  cat; end
}
end() { trap "" TERM; kill -TERM 0; sleep 1; kill -KILL 0; }
ended=; trap 'ended=1' TERM
report=$(
  {
    {
      {
        { exec <&4 4<&- 5>&- 6>&- 7>&- 8>&-; feed; } &
        echo "pid=$!" >&8
      } | {
        exec 3<&0 </dev/null 4<&-
        "$@" <&3 3<&- 5>&- 6>&- 8>&- 2>&1 >&7 7>&- &
        exec 3<&- >/dev/null 7>&-
        wait $!; echo "status=$?" >&8
      } | cat >&6 4<&- 7>&- 8>&-
    } 7>&1 | cat >&5 4<&- 8>&-
  } 8>&1
)
eval "$report"
[ -z "$ended" ] || sleep 10
kill "$pid" 2>/dev/null
exit "${status:-137}""#;

/// Hands the lifeline on to `ARGV...` and gives it a second and a half to end after the lifeline has.
const RELAY: &str = r#"exec 3>&1 4<&0
watch() { exec 2>/dev/null; cat; exec >/dev/null; sleep 1.5; kill -KILL 0; }
report=$(
  {
    {
      { exec <&4 3>&- 4<&- 8>&-; watch; } &
      echo "pid=$!" >&8
    } | "$@" >&3 3>&- 4<&- 8>&-
    echo "status=$?" >&8
  } 8>&1
)
eval "$report"
kill "$pid" 2>/dev/null
exit "${status:-137}""#;

/// Runs `DIR ARGV...` until it ends or the lifeline does, then removes `DIR` and whatever is left of the group.
const KEEP: &str = r#"dir=$1; shift
exec 4<&0 </dev/null
"$@" 4<&- >/dev/null &
child=$!
{ cat; kill -TERM $child; sleep 0.5; kill -KILL $child; } <&4 >/dev/null 2>&1 &
exec 4<&-
wait $child
rm -rf "$dir"
exec >/dev/null 2>&1
trap "" TERM
kill -TERM 0; kill -KILL 0"#;

/// How long a command waits for an older one of its step, in seconds.
const LOCK_WAIT_S: u64 = 60;

fn words<'w>(script: &'w str, name: &'w str, more: impl IntoIterator<Item = &'w str>) -> Vec<String> {
    ["sh", "-c", script, name].into_iter().chain(more).map(str::to_owned).collect()
}

/// What one command is known by: the part of its owner, a dot, a number. No two have the same.
pub(super) fn nonce() -> String {
    static OWNER: OnceLock<String> = OnceLock::new();
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let owner = OWNER.get_or_init(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let text = format!("{}.{}", std::process::id(), now.map_or(0, |time| time.as_nanos()));
        hex::encode(Sha256::digest(text))[..12].to_owned()
    });
    format!("{owner}.{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// The variable by which the processes of a command are found.
pub(super) fn mark(nonce: &str) -> (String, String) {
    ("DSSFLOW_CHILD".to_owned(), nonce.to_owned())
}

/// What stands before the change of user: holds the lock `key`. `lost` are commands that nobody owns any more.
pub(super) fn outer(nonce: &str, key: Option<&str>, timeout: Duration, lost: &[String]) -> Vec<String> {
    let wait = LOCK_WAIT_S.min(timeout.as_secs() / 2).max(1).to_string();
    words(OUTER, "dssflow-lock", [nonce, key.unwrap_or_default(), &wait, &lost.join(" ")])
}

/// What stands right before the command.
pub(super) fn inner(stdin_len: usize) -> Vec<String> {
    words(GUARD, "dssflow-guard", [stdin_len.to_string().as_str()])
}

/// What stands before an `ssh` that carries a command or a connection.
pub(super) fn relay() -> Vec<String> {
    words(RELAY, "dssflow-relay", [])
}

/// What stands before an `ssh` that holds a connection open; `dir` goes when it ends.
pub(super) fn keep(dir: &str) -> Vec<String> {
    words(KEEP, "dssflow-keep", [dir])
}

/// What a guard adds to the end of stderr.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// The command itself ended with 255, which `ssh` also uses for itself.
    Ended,
    /// An older command of the step still runs; its pid on the host.
    Busy(String),
    /// There is no lock to be had.
    Lock(String),
}

/// Takes the guard's question whether it may start off `stderr`; whether it was there.
pub(super) fn asks_to_go(stderr: &mut Vec<u8>, nonce: &str) -> bool {
    let mark = format!("\ndssflow:{nonce}:go\n").into_bytes();
    let Some(at) = stderr.windows(mark.len()).position(|window| window == mark) else { return false };
    stderr.drain(at..at + mark.len());
    true
}

/// Takes the guard's last word off `stderr`.
pub(super) fn last_word(stderr: &mut Vec<u8>, nonce: &str) -> Option<Said> {
    let mark = format!("\ndssflow:{nonce}:");
    let at = stderr.windows(mark.len()).rposition(|window| window == mark.as_bytes())?;
    let word = String::from_utf8_lossy(&stderr[at + mark.len()..]).trim().to_owned();
    stderr.truncate(at);
    match word.split_once(':') {
        Some(("busy", pid)) => Some(Said::Busy(pid.to_owned())),
        Some(("lock", why)) => Some(Said::Lock(why.to_owned())),
        _ => Some(Said::Ended),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_is_taken_off() {
        let mut stderr = b"complaint\n\ndssflow:abc:busy:42\n".to_vec();
        assert_eq!(last_word(&mut stderr, "xyz"), None);
        assert_eq!(last_word(&mut stderr, "abc"), Some(Said::Busy("42".into())));
        assert_eq!(stderr, b"complaint\n");
        let mut stderr = b"\ndssflow:abc:ended\n".to_vec();
        assert_eq!(last_word(&mut stderr, "abc"), Some(Said::Ended));
        assert!(stderr.is_empty());
    }

    #[test]
    fn the_question_is_taken_out() {
        let mut stderr = b"banner\n\ndssflow:abc:g".to_vec();
        assert!(!asks_to_go(&mut stderr, "abc"));
        stderr.extend(b"o\nmore");
        assert!(asks_to_go(&mut stderr, "abc"));
        assert_eq!(stderr, b"banner\nmore");
    }

    #[test]
    fn nonces_differ() {
        let many: std::collections::BTreeSet<String> = (0..1000).map(|_| nonce()).collect();
        assert_eq!(many.len(), 1000);
    }
}
