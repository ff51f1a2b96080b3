//! A web service of one's own with an engine in it. A route starts a run, one asks for it, one lists the schedules; a
//! schedule starts runs by itself; Ctrl-C stops everything in good order. What was under way goes on at the next start.
//!
//! ```text
//! cargo run -p dssflow-engine --example embed_in_axum -- /tmp/invoices 127.0.0.1:8080
//! curl -X POST http://127.0.0.1:8080/invoices/july/995
//! curl http://127.0.0.1:8080/runs/july
//! curl http://127.0.0.1:8080/schedules
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use dssflow_engine::prelude::*;
use dssflow_engine::runtime::ScheduleError;
use dssflow_engine::schedule::ScheduleView;
use dssflow_engine::store::StoreError;
use dssflow_store::OpenEngine as _;
use serde_json::{Value, json};

/// What the routes need. An engine is cheap to clone.
#[derive(Clone)]
struct App {
    engine: Engine,
    invoice: Workflow<u32, String>,
}

/// The work. A real one talks to a printer, and may be called again when its answer was lost.
async fn print(ctx: ActivityCtx, cents: u32) -> ActivityResult<String> {
    // A run of a schedule knows its instant, which is the same in every attempt; the time of day is not.
    let of = ctx.scheduled().map_or_else(String::new, |scheduled| format!(" of {}", scheduled.nominal));
    Ok(format!("invoice{of} over {cents} cents"))
}

fn invoice() -> Result<Workflow<u32, String>, WorkflowError> {
    Workflow::build("invoice", |w| w.step("print", print, w.input()).retry(RetryPolicy::attempts(5)))
}

type Answer<T> = Result<Json<T>, (StatusCode, String)>;

fn failed(error: &EngineError) -> (StatusCode, String) {
    let status = match error {
        EngineError::NoSuchRun(_) => StatusCode::NOT_FOUND,
        EngineError::Store { error: StoreError::Exists(_), .. } => StatusCode::CONFLICT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, error.to_string())
}

fn run_id(text: String) -> Result<RunId, (StatusCode, String)> {
    RunId::new(text).map_err(|e| (StatusCode::BAD_REQUEST, e.to_string()))
}

/// The caller chooses the id, so a request that is sent twice starts one run.
async fn start(State(app): State<App>, Path((id, cents)): Path<(String, u32)>) -> Answer<Value> {
    let id = run_id(id)?;
    let run = app.engine.submit_with(&app.invoice, cents, |start| start.id = Some(id)).await;
    // Durable now; it goes on whether or not somebody waits.
    Ok(Json(json!({ "run": run.map_err(|e| failed(&e))?.id() })))
}

async fn show(State(app): State<App>, Path(id): Path<String>) -> Answer<Value> {
    let view = app.engine.view(&run_id(id)?).await.map_err(|e| failed(&e))?;
    Ok(Json(json!({ "status": view.status, "output": view.output })))
}

async fn schedules(State(app): State<App>) -> Answer<Vec<ScheduleView>> {
    let page = app.engine.schedules().list(None, 1_000).await;
    let page = page.map_err(|e| (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    Ok(Json(page.schedules))
}

/// The schedule is kept in the store: made at the first start, and brought to what is said here at each other.
async fn keep_schedule(engine: &Engine) -> Result<(), ScheduleError> {
    let id = ScheduleId::new("standing-order").expect("a name of ours");
    // So often that one can watch. `ScheduleSpec::cron("0 6 * * 1-5", action).zone("Europe/Berlin")` is for work.
    let spec = ScheduleSpec::every(Duration::from_secs(2), ScheduleAction::new("invoice").input(2_500));
    match engine.schedules().create(id.clone(), spec.clone(), Request::by("the service")).await {
        Err(ScheduleError::Exists(_)) => {
            engine.schedules().update(&id, spec, Request::by("the service")).await.map(drop)
        }
        made => made.map(drop),
    }
}

async fn ctrl_c() {
    // Without a way to hear of it, it goes on until it is killed, which loses nothing either.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut args = std::env::args().skip(1);
    let dir = args.next().unwrap_or_else(|| "invoices.store".to_owned());
    let address = args.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());

    let invoice = invoice()?;
    let engine = Engine::open(dir).await?.register(&invoice)?.build();
    // What was under way when the last process ended goes on.
    for (run, why) in engine.recover().await?.parked {
        println!("{run} stays as it is: {why}");
    }
    keep_schedule(&engine).await?;
    // Nothing fires unless somebody drives schedules.
    let firing = engine.schedules().drive();

    let routes = Router::new()
        .route("/invoices/{id}/{cents}", post(start))
        .route("/runs/{id}", get(show))
        .route("/schedules", get(schedules))
        .with_state(App { engine: engine.clone(), invoice });
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let server = axum::serve(listener, routes).with_graceful_shutdown(ctrl_c());
    tokio::select! {
        served = server.into_future() => served?,
        // It ends by itself only when the store has failed, and then nothing else can go on.
        ended = firing.ended() => ended?,
    }

    // Every request is answered. Nothing fires any more, and what is under way has a moment to end; what has not by then
    // goes on at the next start, as after a crash.
    firing.stop().await?;
    for run in engine.live_runs().iter().filter_map(|run| engine.handle(run)) {
        if tokio::time::timeout(Duration::from_secs(5), run.wait()).await.is_err() {
            println!("{} goes on at the next start", run.id());
        }
    }
    println!("stopped");
    Ok(())
}
