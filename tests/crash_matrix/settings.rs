//! What the environment says about how much is to be tried.

use std::fmt;
use std::str::FromStr;

/// Who makes the cluster; each has a world of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    Plugin,
    Sdk,
}

impl Mode {
    pub(crate) const ALL: [Self; 2] = [Self::Plugin, Self::Sdk];
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Plugin => "plugin",
            Self::Sdk => "sdk",
        })
    }
}

/// A number from the environment.
pub(crate) fn number<T: FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The seed that chooses cells when not all are tried.
pub(crate) fn seed() -> u64 {
    number("DSSFLOW_SEED", 20_261_128)
}

/// How many worlds of each mode share the steps.
pub(crate) fn shards() -> usize {
    if only().is_some() { 1 } else { number("DSSFLOW_WORLDS", 1).max(1) }
}

/// The only cell that is wanted, as `MODE/STEP/POINT/END`; its beginning stands for all of a mode or a step.
pub(crate) fn only() -> Option<String> {
    std::env::var("DSSFLOW_CELL").ok().filter(|text| !text.is_empty())
}

/// Whether a cell is wanted.
pub(crate) fn wants(id: &str) -> bool {
    only().is_none_or(|only| is_within(id, &only))
}

/// Whether any cell of a step, `MODE/STEP`, is wanted.
pub(crate) fn wants_of(step: &str) -> bool {
    only().is_none_or(|only| is_within(step, &only) || is_within(&only, step))
}

/// Whether an id is `whole` or begins with it and goes on behind a slash.
fn is_within(id: &str, whole: &str) -> bool {
    id.strip_prefix(whole).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A number made of the seed and a name.
pub(crate) fn salt(text: &str) -> u64 {
    text.bytes().fold(seed() ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A place in a list of this length.
pub(crate) fn index(number: u64, length: usize) -> usize {
    usize::try_from(number % length as u64).expect("below a length")
}

#[test]
fn the_beginning_of_an_id_stands_for_all_of_it() {
    assert!(is_within("sdk/eksctl/fresh/row-2", "sdk/eksctl"));
    assert!(is_within("sdk/eksctl", "sdk/eksctl"));
    assert!(!is_within("sdk/eksctl-too/fresh/row-2", "sdk/eksctl"));
}
