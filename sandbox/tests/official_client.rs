//! The official Python client, driven through every route the product uses against the fake DSS.
//!
//! Two versions of it, the last of DSS 14 and that of DSS 15, each fetched once by pip into the target directory and
//! reused. Whether the fake is like a real DSS
//! cannot be shown here; that the client which is used against real ones is content with it, can.

#![expect(clippy::unwrap_used, reason = "helpers of a test may panic as tests do")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};

use dssflow_sandbox::dss::BaseImage;
use dssflow_sandbox::dss::memory::MemoryCloud;
use dssflow_sandbox::faults::FaultEngine;
use tokio::net::TcpListener;

/// The client's version, and the place of its environment in [`PYTHONS`].
const CLIENTS: [&str; 2] = ["14.7.5", "15.2.0"];

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{stdout}\n{stderr}");
    output
}

/// Made once a process; tests of one version wait for each other.
static PYTHONS: [OnceLock<PathBuf>; 2] = [OnceLock::new(), OnceLock::new()];

/// A venv with this version of the client; one without the mark of completeness is made again.
fn python(version: &str) -> PathBuf {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("official-client-{version}"));
    let interpreter = venv.join("bin/python");
    if venv.join("complete").exists() {
        return interpreter;
    }
    let _absent = fs::remove_dir_all(&venv);
    succeed(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    // The client needs `six` and does not declare it.
    succeed(
        Command::new(&interpreter)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args([&format!("dataiku-api-client=={version}"), "six"]),
    );
    fs::write(venv.join("complete"), "").unwrap();
    interpreter
}

async fn drive(client: usize, major: u32) {
    let made = move || PYTHONS[client].get_or_init(|| python(CLIENTS[client])).clone();
    let interpreter = tokio::task::spawn_blocking(made).await.unwrap();
    let cloud = MemoryCloud::default();
    let dss = cloud.dss(major, Arc::new(FaultEngine::new()));
    let key = dss.api_keys().create("official-client", "test").key.unwrap();
    for kind in ["container-exec", "spark"] {
        dss.record_base_image(BaseImage {
            kind: kind.to_owned(),
            repository: format!("dku-{kind}-base-test"),
            tag: "dss-test".to_owned(),
            digest: "sha256:0000".to_owned(),
        });
    }
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = dss.router();
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/official_client.py");
    let output = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(interpreter);
        command.arg(script).arg(major.to_string());
        command.env("FAKE_DSS_URL", url).env("FAKE_DSS_KEY", key).env("NO_PROXY", "127.0.0.1");
        succeed(&mut command)
    })
    .await
    .unwrap();
    server.abort();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("88 calls"), "{stdout}");
    assert!(stdout.contains("smoke: 3 rows"), "{stdout}");
    assert_eq!(cloud.seen().creations, 1);
    assert_eq!(cloud.seen().images["team/dku-container-exec-base-test:dss-test"], "sha256:0000");
    assert_eq!(cloud.seen().queries[0].secret_key, "a real secret");
    assert!(!dss.snapshot().to_string().contains("a real secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn client_14_7_5_is_content_with_major_14() {
    drive(0, 14).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_14_7_5_is_content_with_major_15() {
    drive(0, 15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_15_2_0_is_content_with_major_14() {
    drive(1, 14).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_15_2_0_is_content_with_major_15() {
    drive(1, 15).await;
}
