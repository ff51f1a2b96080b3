//! The store on disk: it conforms, keeps what it acknowledged, and lets nobody else in. Damage is tried in `tests/durability`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![expect(clippy::cast_possible_truncation, reason = "indexes are small")]
#![expect(clippy::print_stdout, reason = "harnesses say seed, cases and faults fired")]

mod compact;
mod conforms;
mod export;
mod golden;
mod killed;
mod no_room;
mod open;
mod poison;
mod removed;
mod stale;
mod support;
mod whole;
