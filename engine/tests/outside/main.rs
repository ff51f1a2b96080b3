//! Plans, comparisons and takeovers against a small world outside: things by name, with marks, and a count of every call
//! that changes one.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod inspect;
mod plan;
mod support;
mod takeover;
