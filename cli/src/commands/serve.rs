//! `dssflow serve`: owns the store until it is told to stop.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dssflow_engine::runtime::ScheduleDriver;
use dssflow_engine::store::Store;

use crate::api::http::{HttpServer, Listen};
use crate::api::metrics::Counts;
use crate::args::ServeArgs;
use crate::config::Settings;
use crate::control::server::{self, ControlServer, Owner, table};
use crate::drive::{Signals, engine_builder, leave};
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::serve::Service;
use crate::serve::notify::Notifier;
use crate::ui::Ui;
use crate::{logging, owner, renewal};

/// The file of the API's token in the store's directory.
const TOKEN: &str = "control.token";

/// How long a stop waits for firings that are being written.
const LAST_FIRINGS: Duration = Duration::from_secs(5);

/// Serves until a signal comes, or the store fails.
pub(crate) async fn run(ui: &Ui, settings: &Settings, args: &ServeArgs) -> CommandResult {
    // Before anything is driven: a wrong setting must not end a daemon that drives runs.
    renewal::limit()?;
    must_listen(args)?;
    let mut signals = Signals::new()?;
    let notifier = Notifier::from_env();
    let store = owner::open_to_drive(&settings.store, "dssflow serve", true).await?;
    logging::runs::keep(&settings.store);
    let counts = Counts::default();
    let engine =
        engine_builder(Arc::clone(&store) as Arc<dyn Store>, |_| {})?.metrics(counts.clone()).build();
    let service = Service::new(settings.clone(), Arc::clone(&store), engine, counts);
    let (server, http) = match open(settings, args, &service).await {
        Ok(open) => open,
        Err(error) => {
            drop(service);
            owner::close(store).await?;
            return Err(error);
        }
    };
    ui.note(&format!("serving the store {}", settings.store.display()));
    if let Some(http) = &http {
        ui.note(&format!(
            "listening on http://{}, token in {}",
            http.address(),
            token_file(settings, args).display()
        ));
    }
    notifier.ready("taking up the runs of before");
    let recovering = tokio::spawn({
        let service = Arc::clone(&service);
        async move {
            let recovered = Box::pin(service.recover()).await;
            Box::pin(Arc::clone(&service).unpark()).await;
            recovered
        }
    });
    let schedules = service.fire();
    let ended = until_told(ui, &service, &schedules, &notifier, &mut signals).await;
    notifier.stopping("saving the runs");
    // First of all, so that no new order is taken and what is being started is given up.
    schedules.tell_to_stop();
    service.stopping().cancel();
    recovering.abort();
    let stop = async {
        // A run that is half taken up is as after a crash.
        drop(recovering.await);
        // Nothing more fires; what is being started is there, or is not.
        match tokio::time::timeout(LAST_FIRINGS, schedules.stop()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the schedules were not left in good order"),
            Err(_) => tracing::warn!("a firing under way did not end in time; it is as after a crash"),
        }
        service.stop().await
    };
    let saved = tokio::select! {
        saved = stop => Some(saved),
        exit = signals.next() => {
            ui.note("stopped at once: the runs go on as after a crash when it starts again");
            leave(exit);
        }
    };
    if let Some(http) = http {
        http.stop().await;
    }
    server.close();
    if let Some((saved, left)) = saved {
        ui.note(&match (saved, left) {
            (0, 0) => "stopped; no run was being driven".to_owned(),
            (saved, 0) => format!("stopped; {saved} runs are saved and go on when it starts again"),
            (saved, left) => format!(
                "stopped; {saved} runs are saved, {left} did not come to a stand in time and go on as after a crash"
            ),
        });
    }
    drop(service);
    let closed = owner::close(store).await;
    ended?;
    closed?;
    Ok(Exit::Ok)
}

/// Refuses options of the HTTP API where there is none: the address may be named by flag, variable or file.
///
/// # Errors
/// When one was given.
fn must_listen(args: &ServeArgs) -> CommandResult<()> {
    let given = [(args.token_file.is_some(), "--token-file"), (!args.allow_host.is_empty(), "--allow-host")];
    match given.iter().find(|(given, _)| *given && args.listen.is_none()) {
        None => Ok(()),
        Some((_, flag)) => {
            Err(CommandError::new(Code::Usage, format!("{flag} is for the HTTP API, which is not served"))
                .hint(format!("say where: dssflow serve --listen 127.0.0.1:7477 {flag} ..."))
                .hint("or with `listen` in a file of settings: `dssflow config path` lists them"))
        }
    }
}

/// Opens the socket, and the address when one is wanted.
async fn open(
    settings: &Settings,
    args: &ServeArgs,
    service: &Arc<Service>,
) -> CommandResult<(ControlServer, Option<HttpServer>)> {
    let owner = Owner::of_service(service);
    let http = match args.listen {
        Some(address) => {
            let listen = Listen { address, token: &token_file(settings, args), names: &args.allow_host };
            let http = HttpServer::start(&listen, table::router(owner.clone())).await?;
            service.listens_on(http.address());
            Some(http)
        }
        None => None,
    };
    let server = server::start(owner).ok_or_else(|| {
        CommandError::new(Code::StoreUnusable, "the socket in the store's directory cannot be made")
            .why("without it no other command could reach the runs")
            .hint("the log says why; a store with a shorter path has room for it")
    })?;
    Ok((server, http))
}

fn token_file(settings: &Settings, args: &ServeArgs) -> PathBuf {
    args.token_file.clone().unwrap_or_else(|| settings.store.join(TOKEN))
}

/// Waits for a signal, and says meanwhile that the daemon is alive and how it stands.
///
/// # Errors
/// When the store failed.
async fn until_told(
    ui: &Ui,
    service: &Service,
    schedules: &ScheduleDriver,
    notifier: &Notifier,
    signals: &mut Signals,
) -> CommandResult<()> {
    let mut look = tokio::time::interval(Duration::from_secs(5));
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let alive = notifier.watchdog();
    let mut said = String::new();
    loop {
        let beat = async {
            match alive {
                Some(every) => tokio::time::sleep(every).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            exit = signals.next() => {
                let signal = if exit == Exit::Interrupted { "Ctrl-C" } else { "SIGTERM" };
                ui.note(&format!("{signal}: saving the runs; once more stops at once"));
                return Ok(());
            }
            ended = schedules.ended() => {
                // They are driven until the store fails, whether a run is under way or not.
                let why = ended.err().map_or_else(|| "schedules are not driven any more".to_owned(), |e| e.to_string());
                service.breaks(why);
            }
            why = service.broken() => {
                return Err(CommandError::new(Code::StoreFailed, "the store has failed; nothing can go on")
                    .why(why)
                    .hint("nothing acknowledged is lost; check the disk, then start it again"));
            }
            () = beat => notifier.alive(),
            _ = look.tick() => {
                let health = service.health();
                let status = format!("{} runs driven, {} parked", health.driven, health.parked.len());
                if status != said {
                    notifier.status(&status);
                    said = status;
                }
            }
        }
    }
}
