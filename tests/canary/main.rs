//! Secrets that must be seen nowhere: forty are planted wherever dssflow may come upon one, the whole bootstrap goes
//! through success, failure and rollback with logs at TRACE, and everything that it leaves or shows is searched for
//! them, in every form in which they could stand there.

mod bootstrap;
mod panics;
mod scan;
#[expect(dead_code, reason = "the tests of the bootstrap use the rest")]
#[path = "../bootstrap/support.rs"]
mod support;
mod watch;
