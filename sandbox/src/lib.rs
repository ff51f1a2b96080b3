//! A cloud to try dssflow against, on loopback and without an account.
//!
//! One daemon, a process group of its own, holds a whole small world: a moto server for AWS behind a proxy that adds
//! what moto lacks (slow states, tokens, access entries, add-ons, faults), an instance-metadata stub, a fake DSS, a
//! kits server, and a directory that stands for the root of a host. [`up`] starts it or finds the living one,
//! [`down`] ends it, [`snapshot`] prints what is in it.
//!
//! It knows nothing of workflows, runs or stores: it fakes the outside world and leaves judging to its users.
//! It never talks to anything but loopback, except that `pip` fetches moto once.

mod admin;
mod athena;
mod aws;
mod control;
mod daemon;
mod data;
pub mod dss;
mod ecr;
mod eksctl;
mod error;
pub mod faults;
mod files;
mod hands;
pub mod host;
mod imds;
mod kits;
pub mod lake;
mod moto;
mod options;
mod process;
pub mod proxy;
mod seed;
pub mod serve;
mod site;
mod snapshot;
mod up;
mod venv;
mod world;
mod xml;

use std::ffi::OsString;
use std::process::ExitCode;

pub use control::{
    Status, behave, calls, calls_since, down, fault_report, find, forget_tokens, hold, put_datasets, release,
    restart_dss, set_faults, snapshot, spoil_tables, status, wait_for_faults,
};
pub use error::SandboxError;
pub use faults::{Action, Fault, FaultCount, FaultEngine, Only, Phase, Target};
pub use hands::Hands;
pub use options::SandboxOptions;
pub use proxy::record::{CallRecord, CallReport};
pub use up::up;
pub use venv::python_with;
pub use world::World;

/// Serves the hidden `__sandbox` subcommands; `args` is what follows that word.
///
/// The command calls this before it parses anything, because the host stubs run thousands of times and must start at
/// once. `daemon` is the world itself, `host` runs one command in the fake host.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let mut args = args.into_iter();
    match args.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("daemon") => daemon::main(args.collect()),
        Some("host") => host::main(args.collect()),
        _ => ExitCode::from(64),
    }
}
