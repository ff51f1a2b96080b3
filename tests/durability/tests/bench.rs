//! The bench program does what it says: here only that it runs, and that what it says of itself is so. Its figures count
//! when it is built for release; see `./campaign bench`.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::process::{Command, Output};

use serde_json::Value;

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench")).args(args).output().unwrap()
}

/// What it printed, line by line.
fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn one_run_of_a_chain_and_a_kill_are_measured_and_nothing_is_lost() {
    // It checks by itself that every run counted right, and after the kill that nothing was lost or done twice.
    let output = bench(&["--rounds", "1", "--only", "w1,w4"]);
    assert!(output.status.success(), "{output:?}");
    let lines = lines(&output);
    for name in ["w1_p50", "w4_first", "w4_all"] {
        let line =
            lines.iter().find(|line| line["name"] == name).unwrap_or_else(|| panic!("{name}: {lines:?}"));
        assert!(line["value"].as_f64().unwrap() > 0.0, "{line}");
    }
    assert_eq!(lines.last().unwrap()["name"], "end");
}

#[test]
fn what_it_does_not_know_is_refused() {
    for args in [&["--only", "w9"][..], &["--rounds", "many"], &["--only", "cli"], &["--fast"]] {
        let output = bench(args);
        assert_eq!(output.status.code(), Some(64), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("bench: "), "{output:?}");
        assert!(output.stdout.is_empty());
    }
}
