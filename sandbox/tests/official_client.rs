//! The official Python client, driven through every route the product uses against the fake DSS.
//!
//! The client is fetched once by pip into the target directory and reused. Whether the fake is like a real DSS
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

const PINS: &[&str] = &["dataiku-api-client==15.2.0", "six"];

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{stdout}\n{stderr}");
    output
}

/// Made once a process; both tests wait for it.
static PYTHON: OnceLock<PathBuf> = OnceLock::new();

/// A venv with the pinned client; one without the mark of completeness is made again.
fn python() -> PathBuf {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("official-client-15.2.0");
    let interpreter = venv.join("bin/python");
    if venv.join("complete").exists() {
        return interpreter;
    }
    let _absent = fs::remove_dir_all(&venv);
    succeed(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    succeed(
        Command::new(&interpreter)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(PINS),
    );
    fs::write(venv.join("complete"), "").unwrap();
    interpreter
}

async fn drive(major: u32) {
    let interpreter = tokio::task::spawn_blocking(|| PYTHON.get_or_init(python).clone()).await.unwrap();
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
    assert_eq!(cloud.seen().creations, 1);
    assert_eq!(cloud.seen().images["team/dku-container-exec-base-test:dss-test"], "sha256:0000");
    assert_eq!(cloud.seen().queries[0].secret_key, "a real secret");
    assert!(!dss.snapshot().to_string().contains("a real secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_is_content_with_major_14() {
    drive(14).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_is_content_with_major_15() {
    drive(15).await;
}
