//! The served description held against what is served, by a program that knows nothing of this one: schemathesis makes
//! requests of it, right ones and wrong ones, and looks whether the answers are as described.

use std::process::Command;

use crate::support::Home;
use crate::through::until;
use crate::web::serve_http;

/// The program, pinned: each version looks for other things.
const SCHEMATHESIS: &[&str] = &["schemathesis==4.32.5"];
/// What is looked for.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,unsupported_method,ignored_auth";
/// Operations that never end, or that would end what the test looks at.
const LEFT_OUT: [&str; 2] = ["verify_store", "archive_store"];

#[test]
fn what_is_served_is_what_is_described() {
    let home = Home::with_sandbox();
    let (daemon, web) = serve_http(&home);
    home.run(&["run", "bootstrap", "--sandbox", "--detach"]).expect(3);
    until(&home, "bootstrap-sandbox", "succeeded");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let python = runtime
        .block_on(dssflow_sandbox::python_with(SCHEMATHESIS, &|line| eprintln!("{line}")))
        .expect("schemathesis can be installed");
    let examples = std::env::var("DSSFLOW_EXAMPLES").unwrap_or_else(|_| "25".to_owned());
    // What only looks is asked of a run that is there; the rest is asked of runs that are not.
    let config =
        "[[operations]]\ninclude-method = \"GET\"\nparameters = { \"path.run\" = \"bootstrap-sandbox\" }\n";
    std::fs::write(home.path().join("schemathesis.toml"), config).expect("a file of ours");
    // One worker: two threads of CPython 3.11 that parse source at once end in "AST constructor recursion depth mismatch"
    // (python/cpython#106905), and hypothesis parses it to name what it draws from.
    let mut command = Command::new(python);
    command
        .current_dir(home.path())
        .args(["-m", "schemathesis.cli", "run", &format!("http://{}/v1/openapi.json", web.address)])
        .args(["--header", &format!("Authorization: Bearer {}", web.token)])
        .args(["--checks", CHECKS, "--max-examples", &examples, "--seed", "7", "--workers", "1"])
        .args(["--phases", "examples,coverage,fuzzing", "--suppress-health-check", "all", "--no-color"])
        .args(["--request-timeout", "60", "--warnings", "off", "--continue-on-failure"])
        .env("NO_COLOR", "1");
    for operation in LEFT_OUT {
        command.args(["--exclude-operation-id", operation]);
    }
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let tail = |text: &str| {
        text.lines().rev().take(400).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    };
    assert!(
        output.status.success(),
        "{}\n{}\nthe daemon said:\n{}",
        tail(&said),
        tail(&String::from_utf8_lossy(&output.stderr)),
        tail(&daemon.said())
    );
    println!(
        "schemathesis: {}",
        said.lines()
            .filter(|l| l.contains("Test cases") || l.contains("generated"))
            .collect::<Vec<_>>()
            .join("; ")
    );
    // After all of it the run is as it was, and the server answers.
    assert_eq!(web.get("/v1/health").status, 200);
    assert_eq!(daemon.stop().0, Some(0));
}
