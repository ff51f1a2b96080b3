//! The world itself: one process that starts the emulator, listens, and ends when it is told to or has been idle.
//!
//! It leads a process group of its own, so that neither Ctrl-C nor the end of the command that started it reaches it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use axum::{Router, middleware};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin, DssHost, IdleClock};
use crate::athena::Athena;
use crate::aws::{ACCOUNT, Aws, REGION};
use crate::data::Data;
use crate::dss::{FakeDss, FakeDssOptions};
use crate::ecr::Ecr;
use crate::eksctl::Eksctl;
use crate::error::SandboxError;
use crate::faults::FaultEngine;
use crate::host::{self, HostConfig};
use crate::process::ProcessId;
use crate::proxy::Proxy;
use crate::proxy::record::Recorder;
use crate::seed::{self, Seeded};
use crate::site::{self, Mode};
use crate::snapshot::Snapshots;
use crate::world::{Layout, World};
use crate::{files, imds, kits, moto, serve};

/// What the daemon is told on its command line.
struct Settings {
    dir: PathBuf,
    python: PathBuf,
    latency: f64,
    idle: Duration,
}

/// Runs the daemon; `args` stand after `daemon`.
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    let Some(settings) = parse(args) else { return ExitCode::from(64) };
    let log = Layout::new(&settings.dir).log();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&log, &error.to_string()),
    };
    match runtime.block_on(run(&settings)) {
        Ok(()) => {
            runtime.shutdown_timeout(Duration::from_secs(1));
            ExitCode::SUCCESS
        }
        Err(error) => {
            let text = std::error::Error::source(&error)
                .map_or_else(|| error.to_string(), |s| format!("{error}: {s}"));
            refuse(&log, &text)
        }
    }
}

/// Leaves the reason where [`crate::up`] looks for it.
fn refuse(log: &Path, text: &str) -> ExitCode {
    // When even this cannot be written, the exit code is all there is.
    drop(files::write_private(&log.join("daemon.error"), text.as_bytes()));
    ExitCode::FAILURE
}

fn parse(args: Vec<OsString>) -> Option<Settings> {
    let mut settings =
        Settings { dir: PathBuf::new(), python: PathBuf::new(), latency: 1.0, idle: Duration::from_hours(2) };
    let mut args = args.into_iter();
    while let Some(name) = args.next() {
        let value = args.next()?;
        match name.to_str()? {
            "--dir" => settings.dir = value.into(),
            "--python" => settings.python = value.into(),
            "--latency" => settings.latency = value.to_str()?.parse().ok()?,
            "--idle-s" => settings.idle = Duration::from_secs(value.to_str()?.parse().ok()?),
            _ => return None,
        }
    }
    (settings.dir.is_absolute() && settings.python.is_absolute()).then_some(settings)
}

async fn run(settings: &Settings) -> Result<(), SandboxError> {
    let layout = Layout::new(&settings.dir);
    let own = ProcessId::own().ok_or_else(|| start_error(&layout, "this process has no start time"))?;
    files::write_json(&layout.daemon(), &own)?;
    for old in [layout.dss_state(), layout.host_root(), layout.kits(), layout.secrets()] {
        files::remove(&old)?;
    }
    files::remove(&layout.dss_state().with_extension("key"))?;
    for dir in [layout.host_root(), layout.kits(), layout.secrets()] {
        files::private_dir(&dir)?;
    }
    let mut moto = moto::start(&settings.python, &layout.log().join("moto.log")).await?;
    files::write_json(&layout.moto(), &moto.process)?;
    let direct = Aws::new(&moto.endpoint, "AKIASANDBOXADMIN0");
    let seeded = seed::seed(&direct).await?;

    let listen = async || {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.map_err(|error| start_error(&layout, &error.to_string()))?;
        let port = listener.local_addr().map_err(|error| start_error(&layout, &error.to_string()))?.port();
        Ok::<_, SandboxError>((listener, format!("http://127.0.0.1:{port}")))
    };
    let (aws_listener, aws_endpoint) = listen().await?;
    let (imds_listener, imds_endpoint) = listen().await?;
    let (kits_listener, kits_url) = listen().await?;
    let (admin_listener, admin_url) = listen().await?;

    let stop = CancellationToken::new();
    let clock = Arc::new(IdleClock::new());
    let faults = Arc::new(FaultEngine::new());
    let recorder = Arc::new(Recorder::default());
    let proxy = Proxy::new(&moto.endpoint, Arc::clone(&faults), Arc::clone(&recorder), settings.latency);
    let service_key = seeded.service.id.clone();
    let dss = FakeDss::new(FakeDssOptions {
        state_file: Some(layout.dss_state()),
        major: site::DSS_MAJOR,
        version: site::DSS_VERSION.to_owned(),
        faults: Arc::clone(&faults),
        clusters: Arc::new(Eksctl::new(
            &aws_endpoint,
            &service_key,
            proxy.clone(),
            Arc::clone(&faults),
            settings.latency,
        )),
        images: Arc::new(Ecr::new(&aws_endpoint, &service_key)),
        queries: Arc::new(Athena::new(&aws_endpoint)),
        data: Arc::new(Data::new(&aws_endpoint)),
        latency: settings.latency,
    });
    let (dss_host, dss_port) =
        DssHost::new(dss, layout.host_root(), Arc::clone(&recorder), Arc::clone(&clock))
            .map_err(|error| start_error(&layout, &error.to_string()))?;

    let kits = host::kits::write(&layout.kits(), &kits_url, site::DSS_VERSION)
        .map_err(SandboxError::io("could not write", layout.kits()))?;
    let admin_token = random_text(32);
    let world = World {
        id: random_text(8),
        dir: settings.dir.clone(),
        moto_endpoint: moto.endpoint.clone(),
        imds_endpoint,
        kits_url,
        dss_port,
        dss_url: format!("http://127.0.0.1:{dss_port}"),
        admin_url,
        admin_token: admin_token.clone(),
        host_root: layout.host_root(),
        host_wrapper: wrapper(&settings.dir),
        account: ACCOUNT.to_owned(),
        region: REGION.to_owned(),
        instance_id: seeded.instance_id.clone(),
        vpc_id: seeded.vpc_id.clone(),
        subnets: seeded.subnets.clone(),
        default_security_group: seeded.default_security_group.clone(),
        instance_security_group: seeded.instance_security_group.clone(),
        service_user_arn: seeded.service.user_arn.clone(),
        access_key_id: seeded.operator.id.clone(),
        secret_access_key: seeded.operator.secret.clone(),
        buckets: seed::BUCKETS.iter().map(|bucket| (*bucket).to_owned()).collect(),
        secrets: secrets(&layout, &seeded)?,
        site_yaml: settings.dir.join("site.yaml"),
        site_yaml_sdk: settings.dir.join("site-sdk.yaml"),
        latency: settings.latency,
        daemon_pid: own.pid,
        daemon: own,
        moto: moto.process.clone(),
        aws_endpoint,
    };
    host::prepare(&HostConfig {
        dir: settings.dir.clone(),
        host_root: layout.host_root(),
        admin_url: Some(world.admin_url.clone()),
        admin_token: Some(admin_token.clone()),
        aws_endpoint: Some(world.aws_endpoint.clone()),
        account: ACCOUNT.to_owned(),
        region: REGION.to_owned(),
        latency: settings.latency,
    })
    .map_err(SandboxError::io("could not prepare", layout.host_root()))?;
    files::write_private(&world.site_yaml, site::yaml(&world, &kits, Mode::DssPlugin).as_bytes())?;
    files::write_private(&world.site_yaml_sdk, site::yaml(&world, &kits, Mode::Sdk).as_bytes())?;

    let snapshots = Snapshots {
        moto: direct.clone(),
        proxy: proxy.clone(),
        host_root: layout.host_root(),
        names: names(&world),
        seen: tokio::sync::Mutex::default(),
    };
    let admin = Admin {
        token: admin_token.into(),
        faults,
        recorder,
        proxy: proxy.clone(),
        dss: Arc::new(dss_host),
        snapshots: Arc::new(snapshots),
        moto: direct.clone(),
        clock: Arc::clone(&clock),
        stop: stop.clone(),
    };
    let servers = [
        (aws_listener, touching(proxy.router(), &clock)),
        (imds_listener, touching(imds::router(direct, &world.instance_id), &clock)),
        (kits_listener, touching(kits::router(layout.kits()), &clock)),
        (admin_listener, admin::router(admin)),
    ];
    for (listener, router) in servers {
        drop(tokio::spawn(serve::serve(listener, router, stop.clone())));
    }
    files::write_json(&layout.world(), &world)?;
    wait_for_the_end(&stop, &clock, settings.idle, &mut moto).await;
    // Gone first, so that nobody finds a world that is ending.
    files::remove(&layout.world())?;
    stop.cancel();
    // The emulator has nothing to save; killing it is how it is ended, and waiting leaves no zombie.
    drop(moto.child.kill().await);
    files::remove(&layout.moto())?;
    files::remove(&layout.daemon())
}

async fn wait_for_the_end(
    stop: &CancellationToken,
    clock: &IdleClock,
    idle: Duration,
    moto: &mut moto::Moto,
) {
    let idle_ms = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
    let step = idle.min(Duration::from_secs(10)).max(Duration::from_millis(100));
    let mut signals = [SignalKind::terminate(), SignalKind::interrupt()].map(|kind| signal(kind).ok());
    // A terminal that closes is no reason to end.
    let _hangup = signal(SignalKind::hangup());
    let [terminate, interrupt] = &mut signals;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = next(terminate) => return,
            () = next(interrupt) => return,
            // Without the emulator there is no world any more.
            _ = moto.child.wait() => return,
            () = tokio::time::sleep(step) => {
                if clock.idle_ms() >= idle_ms {
                    return;
                }
            }
        }
    }
}

async fn next(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Lets every request count as use of the world.
fn touching(router: Router, clock: &Arc<IdleClock>) -> Router {
    let clock = Arc::clone(clock);
    router.layer(middleware::from_fn(move |request: Request, next: Next| {
        clock.touch();
        next.run(request)
    }))
}

/// The command put before each host command.
fn wrapper(dir: &Path) -> Vec<String> {
    let exe = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("dssflow"));
    let words = [exe.into_os_string(), "__sandbox".into(), "host".into(), "--dir".into(), dir.into()];
    words.iter().map(|word| word.to_string_lossy().into_owned()).collect()
}

/// Writes the secrets the shipped site refers to; where each lies, by name.
fn secrets(layout: &Layout, seeded: &Seeded) -> Result<Vec<(String, PathBuf)>, SandboxError> {
    let password = random_text(12);
    let mut files = Vec::new();
    let mut put = |name: String, value: Option<&str>| {
        let path = layout.secrets().join(&name);
        if let Some(value) = value {
            files::write_private(&path, value.as_bytes())?;
        }
        files.push((name, path));
        Ok::<_, SandboxError>(())
    };
    let keys = [
        ("operator", &seeded.operator),
        ("service", &seeded.service),
        ("s3-main", &seeded.main),
        ("s3-finance", &seeded.finance),
    ];
    for (name, key) in keys {
        put(format!("{name}-access-key-id"), Some(&key.id))?;
        put(format!("{name}-secret-access-key"), Some(&key.secret))?;
    }
    put("dss-admin-password".to_owned(), Some(&password))?;
    // The sink of the API key: the bootstrap makes it.
    put("dss-api-key".to_owned(), None)?;
    Ok(files)
}

/// What differs between two worlds and says nothing.
fn names(world: &World) -> Vec<(String, String)> {
    let mut names = vec![
        (world.dir.to_string_lossy().into_owned(), "<dir>".to_owned()),
        (world.dss_url.clone(), "<dss>".to_owned()),
        (world.dss_port.to_string(), "<dss-port>".to_owned()),
    ];
    for (url, name) in [
        (&world.aws_endpoint, "<aws>"),
        (&world.kits_url, "<kits>"),
        (&world.admin_url, "<admin>"),
        (&world.imds_endpoint, "<imds>"),
    ] {
        names.push((url.clone(), name.to_owned()));
    }
    names
}

fn random_text(bytes: usize) -> String {
    hex::encode((0..bytes).map(|_| rand::random::<u8>()).collect::<Vec<_>>())
}

fn start_error(layout: &Layout, detail: &str) -> SandboxError {
    SandboxError::Start { detail: detail.to_owned(), log: layout.log().join("daemon.log") }
}
