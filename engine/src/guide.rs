//! The guide: what the engine promises, and how to write code that keeps its side of it. Pages only, no code.
//!
//! - [`guarantees`]: what "done" means, what happens once and what may happen again, what is not promised.
//! - [`idempotency`]: tokens, generations, probes, records; what a plain function has to be.
//! - [`compensation`]: what a rollback takes back, in which order, and what a person can do when it is stuck.
//! - [`schedules`]: runs that start at given times.
//! - [`versioning`]: definitions and types that change while runs are under way.
//! - [`testing`]: how to test workflows and activities.
//!
//! `engine/examples` has small programs for each of these, all of which run to their end and check themselves.

pub mod compensation;
pub mod guarantees;
pub mod idempotency;
pub mod schedules;
pub mod testing;
pub mod versioning;
