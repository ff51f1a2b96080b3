//! What can be done with a world that is there: find it, look at it, steer it, end it.

use std::path::Path;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::aws;
use crate::dss::behaviour::Behaviour;
use crate::error::SandboxError;
use crate::faults::{Fault, FaultCount};
use crate::files;
use crate::lake::{GlueChange, SampleDataset};
use crate::proxy::record::CallReport;
use crate::up::sweep;
use crate::venv;
use crate::world::{Layout, World};

/// What `sandbox status` shows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The world, if one lives.
    pub world: Option<World>,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Seconds since it was last used; 0 while a run holds it.
    pub idle_s: u64,
    /// Runs that hold it.
    pub holds: Vec<String>,
    /// The port DSS listens on, while it runs.
    pub dss_port: Option<u16>,
    /// Calls to AWS and DSS so far.
    pub calls: u64,
    /// Those of a kind that changes something.
    pub mutating_calls: u64,
    /// Scripted faults, with how often each matched and struck.
    pub faults: Vec<FaultCount>,
}

/// The living world of a directory: its process has the recorded pid and start time, and it answers. `None` when there
/// is none, or it is gone.
///
/// # Errors
/// When its papers cannot be read.
pub async fn find(dir: &Path) -> Result<Option<World>, SandboxError> {
    let Some(world) = files::read_json::<World>(&Layout::new(dir).world())? else { return Ok(None) };
    if !world.daemon.alive() {
        return Ok(None);
    }
    // A process that lives and does not answer is ending, or stuck: no world either way.
    let pid = match call::<Value>(&world, Method::GET, "/ping", None, Duration::from_secs(5)).await {
        Ok(answer) => answer["pid"].as_u64(),
        Err(_) => None,
    };
    Ok((pid == Some(u64::from(world.daemon_pid))).then_some(world))
}

/// Ends the world of a directory with every process of it. True if there was one.
///
/// # Errors
/// When its papers cannot be read or removed.
pub async fn down(dir: &Path) -> Result<bool, SandboxError> {
    let layout = Layout::new(dir);
    if !layout.dir.exists() {
        return Ok(false);
    }
    let _lock = venv::lock(&layout.lock()).await?;
    sweep(&layout).await
}

/// How the world of a directory is.
///
/// # Errors
/// As [`find`], and when it does not answer.
pub async fn status(dir: &Path) -> Result<Status, SandboxError> {
    let Some(world) = find(dir).await? else {
        return Ok(Status {
            world: None,
            uptime_s: 0,
            idle_s: 0,
            holds: Vec::new(),
            dss_port: None,
            calls: 0,
            mutating_calls: 0,
            faults: Vec::new(),
        });
    };
    let mut answer: Value = get(&world, "/status").await?;
    answer["world"] = Value::Null;
    let mut status: Status = serde_json::from_value(answer).map_err(|error| SandboxError::Admin {
        route: "GET /status".to_owned(),
        detail: error.to_string(),
    })?;
    status.world = Some(world);
    Ok(status)
}

/// The world in its normal form; see the crate's docs on what is left out.
///
/// # Errors
/// When it does not answer.
pub async fn snapshot(world: &World) -> Result<Value, SandboxError> {
    get(world, "/snapshot").await
}

/// Replaces the script of faults; counts start again. An empty one ends all faults.
///
/// # Errors
/// When the world does not answer, or the script cannot do what it says: see [`problems`](crate::faults::problems).
pub async fn set_faults(world: &World, faults: &[Fault]) -> Result<(), SandboxError> {
    let body = serde_json::to_value(faults).unwrap_or_default();
    send(world, Method::POST, "/faults", Some(body)).await
}

/// Puts `count` datasets with files in S3 into the first project of DSS, at most
/// [`MOST_DATASETS`](crate::lake::MOST_DATASETS); no table is made of them. Done again, it puts the same ones.
///
/// # Errors
/// [`SandboxError::TooEarly`] when DSS has no project, or no S3 connection that is synchronised to a metastore.
pub async fn put_datasets(world: &World, count: u16) -> Result<Vec<SampleDataset>, SandboxError> {
    lake(world, "/lake/datasets", count).await
}

/// Changes up to `count` tables of those datasets in Glue as a person would by hand, and makes one that is nobody's.
///
/// # Errors
/// [`SandboxError::TooEarly`] when there is no such table.
pub async fn spoil_tables(world: &World, count: u16) -> Result<Vec<GlueChange>, SandboxError> {
    lake(world, "/lake/spoil", count).await
}

async fn lake<T: DeserializeOwned>(world: &World, path: &str, count: u16) -> Result<Vec<T>, SandboxError> {
    let body = serde_json::json!({ "count": count });
    let (status, text) = exchange(world, Method::POST, path, Some(body), Duration::from_mins(5)).await?;
    let failed = |detail: String| SandboxError::Admin { route: format!("POST {path}"), detail };
    if status == StatusCode::CONFLICT
        && let Ok(missing) = serde_json::from_str::<Value>(&text)
        && let (Some(what), Some(command)) = (missing["what"].as_str(), missing["command"].as_str())
    {
        return Err(SandboxError::TooEarly { what: what.to_owned(), command: command.to_owned() });
    }
    if !status.is_success() {
        return Err(failed(format!("{status} {text}")));
    }
    serde_json::from_str(&text).map_err(|error| failed(error.to_string()))
}

/// Makes the fake DSS behave so from now on.
///
/// # Errors
/// When a spelling has a name that is not in the list, and when the world does not answer.
pub async fn behave(world: &World, behaviour: &Behaviour) -> Result<(), SandboxError> {
    let body = serde_json::to_value(behaviour).unwrap_or_default();
    send(world, Method::POST, "/dss/behaviour", Some(body)).await
}

/// Restarts the fake DSS: it forgets its futures, and what runs no longer reports to it.
///
/// # Errors
/// When the world does not answer.
pub async fn restart_dss(world: &World) -> Result<(), SandboxError> {
    send(world, Method::POST, "/dss/restart", None).await
}

/// The script of faults with what each did.
///
/// # Errors
/// When the world does not answer.
pub async fn fault_report(world: &World) -> Result<Vec<FaultCount>, SandboxError> {
    get(world, "/faults/report").await
}

/// Waits until the present script has struck `fired` times, at most for `limit`; true when it has.
///
/// # Errors
/// When the world does not answer.
pub async fn wait_for_faults(world: &World, fired: u64, limit: Duration) -> Result<bool, SandboxError> {
    let path = format!("/faults/wait?fired={fired}&ms={}", limit.as_millis());
    let answer: Value = call(world, Method::GET, &path, None, limit + Duration::from_mins(1)).await?;
    Ok(answer["met"] == true)
}

/// Lets AWS forget every client token, as it does after a day or more.
///
/// # Errors
/// When the world does not answer.
pub async fn forget_tokens(world: &World) -> Result<(), SandboxError> {
    send(world, Method::POST, "/tokens/forget", None).await
}

/// The calls to AWS and DSS so far.
///
/// # Errors
/// When the world does not answer.
pub async fn calls(world: &World) -> Result<CallReport, SandboxError> {
    calls_since(world, 0).await
}

/// The same, of the last calls only those from position `after` on.
///
/// # Errors
/// When the world does not answer.
pub async fn calls_since(world: &World, after: u64) -> Result<CallReport, SandboxError> {
    get(world, &format!("/calls?after={after}")).await
}

/// Keeps the world from ending for idleness while `run` may still be resumed.
///
/// # Errors
/// When the world does not answer.
pub async fn hold(world: &World, run: &str) -> Result<(), SandboxError> {
    send(world, Method::POST, &format!("/holds/{run}"), None).await
}

/// Ends what [`hold`] did.
///
/// # Errors
/// When the world does not answer.
pub async fn release(world: &World, run: &str) -> Result<(), SandboxError> {
    send(world, Method::DELETE, &format!("/holds/{run}"), None).await
}

async fn get<T: DeserializeOwned>(world: &World, path: &str) -> Result<T, SandboxError> {
    call(world, Method::GET, path, None, Duration::from_mins(1)).await
}

async fn send(world: &World, method: Method, path: &str, body: Option<Value>) -> Result<(), SandboxError> {
    call::<Value>(world, method, path, body, Duration::from_mins(1)).await.map(drop)
}

async fn call<T: DeserializeOwned>(
    world: &World,
    method: Method,
    path: &str,
    body: Option<Value>,
    timeout: Duration,
) -> Result<T, SandboxError> {
    let route = format!("{method} {path}");
    let (status, text) = exchange(world, method, path, body, timeout).await?;
    let failed = |detail: String| SandboxError::Admin { route, detail };
    if !status.is_success() {
        return Err(failed(format!("{status} {text}")));
    }
    serde_json::from_str(&text).map_err(|error| failed(error.to_string()))
}

/// One request with its answer, whatever that is.
async fn exchange(
    world: &World,
    method: Method,
    path: &str,
    body: Option<Value>,
    timeout: Duration,
) -> Result<(StatusCode, String), SandboxError> {
    let failed = |detail: String| SandboxError::Admin { route: format!("{method} {path}"), detail };
    let mut request = aws::http_client()
        .request(method.clone(), format!("{}{path}", world.admin_url))
        .header("x-sandbox-token", &world.admin_token)
        .timeout(timeout);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await.map_err(|error| failed(error.to_string()))?;
    let status = response.status();
    let text = response.text().await.map_err(|error| failed(error.to_string()))?;
    Ok((status, text))
}
