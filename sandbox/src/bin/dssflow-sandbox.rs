//! Serves `__sandbox ...` for the sandbox's own tests, as the `dssflow` command does for everybody else.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next() != Some(OsString::from("__sandbox")) {
        return ExitCode::from(64);
    }
    dssflow_sandbox::main(args.collect())
}
