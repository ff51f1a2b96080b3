//! `glue-resync`, whole: the built command against the sandbox, whose DSS really writes to an emulated Glue, and against a
//! world of ten thousand tables.

mod aws;
mod drift;
mod lake;
mod large;
#[expect(dead_code, reason = "shared with the tests of the bootstrap, which use all of it")]
#[path = "../bootstrap/support.rs"]
mod support;
