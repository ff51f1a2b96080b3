//! Long tasks of DSS, its "futures": started once, found again by whoever comes after a crash.
//!
//! The id of a task is durable before it is first asked about. An attempt that finds one goes on waiting for that task
//! and starts none beside it. A task that DSS no longer knows was lost in a restart, and one that failed or was aborted
//! is over: then what the caller gave is done anew, and that looks at the world before it starts anything.

use std::time::Duration;

use dssflow_engine::activity::{ActivityContext, ActivityError, ActivityResult, ErrorClass};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::DssClient;
use super::reply::Trouble;

/// Kind of resource recorded for a task.
pub(crate) const TASK: &str = "dss:task";
/// Wait between two looks at a task.
const POLL: Duration = Duration::from_secs(2);
/// The first waits are shorter: many tasks end at once.
const FIRST_POLL: Duration = Duration::from_millis(100);
/// So many looks in a row may fail: DSS may be restarting.
const PATIENCE: u32 = 90;

/// What the heartbeat of a waiting attempt says.
#[derive(Serialize, Deserialize)]
struct Beat {
    task: String,
    job_id: String,
    looks: u32,
}

impl DssClient {
    /// Waits for the task an earlier attempt started, or starts one, and gives its result.
    ///
    /// `start` runs only when there is no task to wait for. It must look whether its work has been done before it posts,
    /// and may then answer `{"hasResult": true, "result": …}` itself.
    pub(crate) async fn task(
        &self,
        ctx: &ActivityContext,
        what: &str,
        start: impl Future<Output = ActivityResult<Value>> + Send,
    ) -> ActivityResult<Value> {
        if let Some(beat) = ctx.last_heartbeat::<Beat>().filter(|beat| beat.task == what) {
            match self.follow(ctx, what, json!({"jobId": beat.job_id, "hasResult": false})).await {
                Err(Trouble::Said(error)) => {
                    tracing::info!(%error, job = beat.job_id, "the earlier task is over, starting anew");
                }
                ended => return ended.map_err(Trouble::into_error),
            }
        }
        let started = start.await?;
        self.follow(ctx, what, started).await.map_err(Trouble::into_error)
    }

    async fn follow(&self, ctx: &ActivityContext, what: &str, mut state: Value) -> Result<Value, Trouble> {
        let mut looks = 0u32;
        let mut failures = 0u32;
        loop {
            if state["hasResult"] == true {
                return Ok(state["result"].take());
            }
            // Small tasks answer at once, without an id.
            let Some(job) = state["jobId"].as_str().map(str::to_owned) else { return Ok(state) };
            if state["aborted"] == true {
                let text = format!("{what} was aborted in DSS");
                return Err(Trouble::Said(ActivityError::retryable("DssTaskAborted", text)));
            }
            ctx.heartbeat(Beat { task: what.to_owned(), job_id: job.clone(), looks });
            if looks == 0 {
                // The heartbeat is on its way to the store before this record: when one is durable, both are.
                ctx.record_resource(TASK, &job).await.map_err(Trouble::Call)?;
            }
            ctx.sleep(if looks < 5 { FIRST_POLL } else { POLL }).await.map_err(Trouble::Call)?;
            looks += 1;
            state = match self.look(&["futures", &job], &[("peek", "False")]).await {
                Ok(state) => {
                    failures = 0;
                    state
                }
                Err(Trouble::Call(error)) if is_gone(&error) => {
                    let text = format!("DSS no longer knows the task {job} ({what}): was it restarted?");
                    return Err(Trouble::Said(ActivityError::retryable("DssTaskLost", text)));
                }
                Err(Trouble::Call(error)) if error.class == ErrorClass::Retryable && failures < PATIENCE => {
                    failures += 1;
                    continue;
                }
                Err(trouble) => {
                    return Err(trouble.map(|error| ActivityError {
                        message: format!("{what}: {}", error.message),
                        ..error
                    }));
                }
            };
        }
    }
}

/// Whether an answer says that the object is not known. Only for tasks, which have no list to look in.
fn is_gone(error: &ActivityError) -> bool {
    error.code == "HTTP404" || error.message.to_ascii_lowercase().contains("not found")
}
