//! ministack, the second emulator of AWS, on loopback.

use std::path::Path;

use crate::lab::{Place, Server, free_address};

/// What it is made of. Athena's SQL is DuckDB's.
const PACKAGES: &[&str] = &["ministack==1.5.33", "duckdb==2.0.1"];
/// Its region.
pub(crate) const REGION: &str = "us-east-1";
/// Its account.
pub(crate) const ACCOUNT: &str = "000000000000";

/// A running one; it ends when this is dropped.
pub(crate) struct Emulator {
    /// Host and port.
    pub(crate) address: String,
    _server: Server,
}

impl Emulator {
    /// Starts one whose files are below `dir`.
    pub(crate) async fn start(dir: &Path) -> Self {
        let python =
            dssflow_sandbox::python_with(PACKAGES, &|_| {}).await.expect("the packages can be installed");
        let address = free_address();
        let (host, port) = address.split_once(':').expect("a port");
        let python = python.display().to_string();
        let home = dir.display().to_string();
        let environment = [
            // Without this it listens on every interface.
            ("BIND_HOST", host),
            ("GATEWAY_PORT", port),
            ("ATHENA_ENGINE", "duckdb"),
            ("MINISTACK_REGION", REGION),
            ("HOME", &home),
            ("TMPDIR", &home),
            ("S3_DATA_DIR", &format!("{home}/s3")),
            ("STATE_DIR", &format!("{home}/state")),
            ("PYTHONDONTWRITEBYTECODE", "1"),
        ];
        let server = Server::start(&[&python, "-m", "ministack"], &environment, &dir.join("log"));
        server.wait("ministack", &Place::Url(format!("http://{address}/_ministack/health"))).await;
        Self { address, _server: server }
    }
}
