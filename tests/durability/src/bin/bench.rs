//! What a durable step costs. Prints one JSON line a result, each compared with the raw log and the store of the same
//! run on the same disk: `bench [--dir DIR] [--rounds N] [--only NAME,...] [--check]`. What `w1` and `w2` are compared with
//! is measured with them; a bar whose base was not measured is named on stderr, and so is a directory in memory, on which
//! `--check` measures nothing.
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
