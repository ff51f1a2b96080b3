//! Hosts over a real `sshd` on loopback, with keys, configuration and port of its own; and what becomes of children when
//! their owner is killed, here and there. Without an `sshd` on the machine each test says that it is skipped.

/// Says something to whoever watches the tests, from helpers too.
macro_rules! say {
    ($($word:tt)*) => {
        drop(std::io::Write::write_all(&mut std::io::stderr(), format!("{}\n", format_args!($($word)*)).as_bytes()))
    };
}

mod activities;
mod bootstrap;
mod carry;
mod connection;
mod context;
mod forward;
mod owners;
mod reachable;
mod sshd;
#[expect(dead_code, reason = "the bootstrap's tests use more of it")]
#[path = "../bootstrap/support.rs"]
mod support;
mod web;
