//! Hosts over a real `sshd` on loopback, with keys, configuration and port of its own; and what becomes of children when
//! their owner is killed, here and there. Without an `sshd` on the machine each test says that it is skipped.

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
