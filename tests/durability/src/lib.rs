//! What the store promises, tried from outside: power cuts, kills, IO faults, damage; and what a durable step costs.
//!
//! `storm` is the program that is cut off, killed and given faults: an engine on the store on disk, or writers on the
//! store alone. It prints what was acknowledged; [`oracle`] compares that with what a store holds later. [`work`] is
//! what the program writes, all of it to be told from names alone.

pub mod bench;
// One source for both crates of tests, of which neither may name the other.
#[path = "../../src/chance.rs"]
mod chance;
pub mod content;
pub mod dice;
pub mod judge;
pub mod mutate;
pub mod oracle;
pub mod replay;
pub mod scheduled;
pub mod shim;
pub mod work;
