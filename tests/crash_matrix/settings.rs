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

/// The only cell that is wanted, as `MODE/STEP/POINT/END`.
pub(crate) fn only() -> Option<String> {
    std::env::var("DSSFLOW_CELL").ok().filter(|text| !text.is_empty())
}
