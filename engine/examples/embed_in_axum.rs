//! An engine in a web service: one request starts a run, another asks how it is. The program calls itself and ends.
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use dssflow_engine::prelude::*;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone)]
struct App {
    engine: Engine,
    invoice: Workflow<u32, String>,
}

async fn print(_ctx: ActivityCtx, cents: u32) -> ActivityResult<String> {
    Ok(format!("invoice over {cents} cents"))
}

type Answer = Result<Json<Value>, (StatusCode, String)>;

fn failed(error: &EngineError) -> (StatusCode, String) {
    let status = match error {
        EngineError::NoSuchRun(_) => StatusCode::NOT_FOUND,
        EngineError::Store { error: dssflow_engine::store::StoreError::Exists(_), .. } => {
            StatusCode::CONFLICT
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, error.to_string())
}

/// The caller chooses the id, so a request that is sent twice starts one run.
async fn start(State(app): State<App>, Path((id, cents)): Path<(String, u32)>) -> Answer {
    let id = RunId::new(id).map_err(|e| (StatusCode::BAD_REQUEST, e.to_string()))?;
    let run = app.engine.submit_with(&app.invoice, cents, |start| start.id = Some(id)).await;
    // Durable now; it goes on whether or not somebody waits.
    Ok(Json(json!({ "run": run.map_err(|e| failed(&e))?.id() })))
}

async fn show(State(app): State<App>, Path(id): Path<String>) -> Answer {
    let id = RunId::new(id).map_err(|e| (StatusCode::BAD_REQUEST, e.to_string()))?;
    if let Some(run) = app.engine.handle(&id) {
        run.wait().await.map_err(|e| failed(&e))?;
    }
    let view = app.engine.view(&id).await.map_err(|e| failed(&e))?;
    Ok(Json(json!({ "status": view.status, "output": view.output })))
}

/// A client as small as it can be.
async fn call(to: SocketAddr, method: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(to).await?;
    let request = format!("{method} {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.split_whitespace().nth(1).unwrap_or_default();
    let body = answer.rsplit("\r\n\r\n").next().unwrap_or_default();
    println!("{method} {path}: {status} {body}");
    Ok(format!("{status} {body}"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let invoice = Workflow::<u32, String>::build("invoice", |w| w.step("print", print, w.input()))?;
    let store = MemoryStore::new(StoreId::generate([0; 16]));
    let engine = Engine::builder(Arc::new(store)).register(&invoice)?.build();
    // What was under way when the last process ended.
    engine.recover().await?;

    let routes = Router::new().route("/invoices/{id}/{cents}", post(start)).route("/runs/{id}", get(show));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = axum::serve(listener, routes.with_state(App { engine, invoice }));
    let server = tokio::spawn(server.into_future());

    assert_eq!(call(address, "POST", "/invoices/july/995").await?, r#"200 {"run":"july"}"#);
    assert!(call(address, "POST", "/invoices/july/995").await?.starts_with("409 "));
    let shown = call(address, "GET", "/runs/july").await?;
    assert_eq!(shown, r#"200 {"status":"succeeded","output":"invoice over 995 cents"}"#);
    assert!(call(address, "GET", "/runs/august").await?.starts_with("404 "));
    server.abort();
    Ok(())
}
