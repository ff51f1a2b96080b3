//! A real Docker daemon and real registries on loopback, for tests of images.
//!
//! They need root and the programs of some Debian packages; `missing` says what is not there. Each server hangs on a
//! pipe from this process: it ends with the lab, and with the process however that ends. Nothing touches the machine's
//! own daemon, its iptables or its bridges.

use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// Programs, and the Debian packages they come with.
pub(crate) const PROGRAMS: [(&str, &str); 6] = [
    ("dockerd", "docker.io"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("docker-registry", "docker-registry"),
    ("htpasswd", "apache2-utils"),
    ("busybox", "busybox-static"),
];

/// Set by `./test` when all that the lab needs is there: from then on a test that is left out is a failed one.
pub(crate) const REQUIRED: &str = "DSSFLOW_DOCKER_REQUIRED";

/// How long a server may take to answer for the first time.
const PATIENCE: Duration = Duration::from_mins(1);

/// Runs the rest of its arguments until its input ends; waits until that is over.
const KEEPER: &str = r#"
log=$1
shift
"$@" </dev/null >"$log" 2>&1 &
child=$!
cat >/dev/null
kill -TERM "$child" 2>/dev/null
wait "$child"
"#;

/// Why the lab cannot be made here; `None` when it can.
pub(crate) fn missing() -> Option<String> {
    let gone: Vec<&str> =
        PROGRAMS.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect();
    let why = if !gone.is_empty() {
        format!("packages are missing: apt-get install {}", gone.join(" "))
    } else if rustix::process::geteuid().is_root() {
        return None;
    } else {
        "a Docker daemon of our own needs root".to_owned()
    };
    assert!(std::env::var_os(REQUIRED).is_none(), "{REQUIRED} is set, but {why}");
    Some(why)
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")]);
    places.map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// A server that ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    keeper: Child,
    lifeline: Option<ChildStdin>,
    log: PathBuf,
}

impl Server {
    /// Starts `argv`; what it prints goes to `log`.
    pub(crate) fn start(argv: &[&str], environment: &[(&str, &str)], log: &Path) -> Self {
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh"])
            .arg(log)
            .args(argv)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        let lifeline = keeper.stdin.take();
        Self { keeper, lifeline, log: log.to_owned() }
    }

    /// Waits until it answers at `place`.
    pub(crate) async fn wait(&self, what: &str, place: &Place) {
        let started = std::time::Instant::now();
        while !place.answers().await {
            assert!(started.elapsed() < PATIENCE, "{what} does not answer:\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The end of its log.
    pub(crate) fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        // The keeper ends when its child has.
        let _ended = self.keeper.wait();
    }
}

/// Where a server answers.
#[derive(Debug)]
pub(crate) enum Place {
    /// At a unix socket.
    Socket(PathBuf),
    /// At an address.
    Address(String),
    /// At a URL, with success.
    Url(String),
}

impl Place {
    async fn answers(&self) -> bool {
        match self {
            Self::Socket(path) => tokio::net::UnixStream::connect(path).await.is_ok(),
            Self::Address(address) => tokio::net::TcpStream::connect(address).await.is_ok(),
            Self::Url(url) => reqwest::get(url).await.is_ok_and(|answer| answer.status().is_success()),
        }
    }
}

/// An address on loopback that was free a moment ago.
pub(crate) fn free_address() -> String {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
    listener.local_addr().expect("it is bound").to_string()
}

/// A Docker daemon of our own.
#[derive(Debug)]
pub(crate) struct DockerLab {
    // In this order: the daemon ends before its files go.
    server: Server,
    dir: TempDir,
}

impl DockerLab {
    /// Starts a daemon without networks of its own.
    pub(crate) async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("dssflow-docker-").tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name).display().to_string();
        let dockerd = find("dockerd").expect("looked for by `missing`").display().to_string();
        let argv = [
            &dockerd,
            "--data-root",
            &path("data"),
            "--exec-root",
            &path("exec"),
            "--pidfile",
            &path("pid"),
            "--host",
            &format!("unix://{}", path("docker.sock")),
            "--iptables=false",
            "--ip6tables=false",
            "--bridge=none",
            "--storage-driver=vfs",
            "--config-file",
            &path("daemon.json"),
        ];
        std::fs::write(path("daemon.json"), "{}").expect("the directory can be written");
        // containerd and runc lie beside it on some systems.
        let search = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let server = Server::start(&argv, &[("PATH", &search)], &dir.path().join("log"));
        let lab = Self { server, dir };
        lab.server.wait("dockerd", &Place::Socket(lab.dir.path().join("docker.sock"))).await;
        lab
    }

    /// How an activity names it.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.dir.path().join("docker.sock").display())
    }

    /// A directory for files of the test.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        let dir = self.dir.path().join("scratch").join(name);
        std::fs::create_dir_all(&dir).expect("the directory can be written");
        dir
    }

    /// A context with a static program in it, `busybox`, and this Dockerfile.
    pub(crate) fn context(&self, name: &str, dockerfile: &str) -> PathBuf {
        let dir = self.scratch(name);
        let busybox = find("busybox").expect("looked for by `missing`");
        std::fs::copy(busybox, dir.join("busybox")).expect("busybox can be copied");
        std::fs::write(dir.join("Dockerfile"), dockerfile).expect("the directory can be written");
        dir
    }
}

/// A registry that stands for the data plane of ECR: one user, a fixed password, repositories made by a push.
#[derive(Debug)]
pub(crate) struct RegistryLab {
    _server: Server,
    /// Its address, as Docker names it.
    pub(crate) host: String,
}

impl RegistryLab {
    /// Starts a registry in `dir`.
    pub(crate) async fn start(dir: &Path, user: &str, password: &str, deletes: bool) -> Self {
        let host = free_address();
        let output = Command::new("htpasswd").args(["-Bbn", user, password]).output().expect("htpasswd runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::write(dir.join("htpasswd"), output.stdout).expect("the directory can be written");
        let place = dir.display();
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage:\n  filesystem: {{rootdirectory: \
             {place}/images}}\n  delete: {{enabled: {deletes}}}\nhttp: {{addr: \"{host}\"}}\nauth:\n  htpasswd: {{realm: \
             lab, path: {place}/htpasswd}}\n"
        );
        let file = dir.join("config.yml");
        std::fs::write(&file, config).expect("the directory can be written");
        let argv = ["docker-registry", "serve", &file.display().to_string()];
        let server = Server::start(&argv, &[], &dir.join("log"));
        server.wait("docker-registry", &Place::Address(host.clone())).await;
        Self { _server: server, host }
    }
}
