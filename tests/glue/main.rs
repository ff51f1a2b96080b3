//! `glue-resync`, whole: the built command against the sandbox, whose DSS really writes to an emulated Glue, and against
//! worlds in memory: one of ten thousand tables, and some in which others work on the same tables.

mod athena;
mod aws;
mod drift;
#[path = "../images/emulator.rs"]
mod emulator;
#[expect(dead_code, reason = "shared with the tests of images, which use all of it")]
#[path = "../images/lab.rs"]
mod lab;
mod lake;
mod large;
mod rivals;
#[expect(dead_code, reason = "shared with the tests of the bootstrap, which use all of it")]
#[path = "../bootstrap/support.rs"]
mod support;
mod unkind;
