//! The daemon, whole: the built command that owns a store and serves it, other commands that go through it, the real
//! workflow against the sandbox, clients of the HTTP API. What is checked is what commands print, what is answered, the
//! world, and what stands in histories.

mod daemon;
mod http;
#[expect(dead_code, reason = "the tests of the resync use the rest")]
#[path = "../glue/lake.rs"]
mod lake;
mod recovery;
mod schedules;
mod schema;
mod stops;
mod stream;
#[expect(dead_code, reason = "the tests of the bootstrap use the rest")]
#[path = "../bootstrap/support.rs"]
mod support;
mod through;
mod trouble;
mod web;
