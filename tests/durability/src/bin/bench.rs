//! What a durable step costs. Prints one JSON line a result, each compared with the raw log and the store of the same
//! run on the same disk: `bench [--dir DIR] [--rounds N] [--only NAME,...] [--check]`.
#![expect(clippy::print_stderr, reason = "the command talks to people on stderr")]

use std::process::ExitCode;

fn main() -> ExitCode {
    match dssflow_durability::bench::main(std::env::args().skip(1)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::from(64)
        }
    }
}
