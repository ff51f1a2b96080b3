//! The chance of the harnesses, the same as that of the simulations: a seed means the same case for ever.

pub use crate::chance::Chance as Dice;

/// The stream of `DSSFLOW_SEED`, or of the given seed, and which seed it is.
pub fn from_env(seed: u64) -> (Dice, u64) {
    let seed = std::env::var("DSSFLOW_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(seed);
    (Dice::new(seed), seed)
}
