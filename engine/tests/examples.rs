//! Every example runs to its end, checks itself, and says what it is there to say.
//!
//! The programs are those that `cargo test` builds along with the tests; nothing is built here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where cargo puts examples: beside the folder of this test.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    let profile = test.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps");
    profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

fn check(name: &str, line: &str) {
    let program = program(name);
    assert!(
        program.exists(),
        "{} is not there; build it with: cargo build -p dssflow-engine --examples",
        program.display()
    );
    let output = Command::new(&program).output().expect("a program can be started");
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} ended with {}\n{said}{complained}", output.status);
    assert!(said.lines().any(|said| said == line), "{name} did not say {line:?}:\n{said}{complained}");
}

macro_rules! examples {
    ($($name:ident: $line:literal,)*) => {
        const EXAMPLES: &[&str] = &[$(stringify!($name),)*];

        $(
            #[test]
            fn $name() {
                check(stringify!($name), $line);
            }
        )*
    };
}

examples! {
    approval: "build of 1.4 published, approved by ada",
    custom_store: "the next owner of the file reads: succeeded",
    embed_in_axum: r#"GET /runs/july: 200 {"status":"succeeded","output":"invoice over 995 cents"}"#,
    hello: r#"the run returned "HELLO, WORLD""#,
    map: "15 words, 1 file could not be read",
    resume_after_crash: "second process: shipped, receipt for 995 cents",
    saga: "nothing is booked",
    sub_workflow: "the run above is rolled_back",
    virtual_clock: "32 days and 1 crash later",
}

#[test]
fn every_example_is_run() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let there: BTreeSet<String> = std::fs::read_dir(sources)
        .expect("the examples are part of the crate")
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let run: BTreeSet<String> = EXAMPLES.iter().map(ToString::to_string).collect();
    assert_eq!(there, run, "an example is not run, or not there");
}
