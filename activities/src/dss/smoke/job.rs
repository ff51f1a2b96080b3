//! The job of the smoke test: builds a dataset with everything it is made of, and is waited for.
//!
//! # Idempotency
//! A job of the project that runs is waited for and none is started beside it; its id is durable before it is first
//! asked about. One that failed or was forgotten is started again.
//! # Compensation
//! A job that still runs is aborted; what it wrote goes with the datasets.
//!
//! Page: <https://developer.dataiku.com/latest/api-reference/python/jobs.html>

use std::time::Duration;

use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Recorded, Undo,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::project_exists;
use crate::dss::client::{DssClient, DssTarget};
use crate::dss::reply::clipped;

/// The registered name.
pub const NAME: &str = "dss.smoke-job";
/// Wait between two looks; the first come quicker.
const POLL: Duration = Duration::from_secs(3);
const FIRST_POLL: Duration = Duration::from_millis(100);

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmokeJobInput {
    /// Which DSS.
    pub target: DssTarget,
    /// Key of the smoke test's project.
    pub project: String,
    /// The dataset that is built.
    pub dataset: String,
}

/// What the activity gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmokeJobOutput {
    /// The job in DSS.
    pub job_id: String,
}

/// What the heartbeat says.
#[derive(Serialize, Deserialize)]
struct Beat {
    job_id: String,
    state: String,
}

/// The activity.
pub(crate) struct SmokeJob;

/// How a job stands.
enum State {
    /// Not over.
    Runs(String),
    Done,
    /// Failed or aborted.
    Over(String),
}

fn state_of(status: &Value) -> State {
    match status.pointer("/baseStatus/state").and_then(Value::as_str).unwrap_or_default() {
        "DONE" => State::Done,
        state @ ("FAILED" | "ABORTED") => State::Over(state.to_owned()),
        state => State::Runs(state.to_owned()),
    }
}

impl SmokeJobInput {
    async fn state(&self, client: &DssClient, job: &str) -> ActivityResult<State> {
        // Without the last, empty part the client's path would not end with the slash the real one has.
        Ok(state_of(&client.get(&["projects", &self.project, "jobs", job, ""]).await?))
    }

    /// The jobs DSS lists that are not over.
    async fn running(&self, client: &DssClient) -> ActivityResult<Vec<String>> {
        if !project_exists(client, &self.project).await? {
            return Ok(Vec::new());
        }
        let list = client.get(&["projects", &self.project, "jobs", ""]).await?;
        let mut running = Vec::new();
        for item in list.as_array().into_iter().flatten() {
            let id = item.pointer("/def/id").or_else(|| item.get("jobId")).and_then(Value::as_str);
            if let Some(id) = id
                && let State::Runs(_) = self.state(client, id).await?
            {
                running.push(id.to_owned());
            }
        }
        Ok(running)
    }

    async fn start(&self, client: &DssClient) -> ActivityResult<String> {
        let body = json!({
            "type": "RECURSIVE_FORCED_BUILD", "refreshHiveMetastore": true,
            "autoUpdateSchemaBeforeEachRecipeRun": false,
            "outputs": [{"type": "DATASET", "id": self.dataset, "projectKey": self.project, "partition": null}]
        });
        let reply = client.post(&["projects", &self.project, "jobs", ""], Some(&body)).await?;
        let id = reply["id"].as_str().map(str::to_owned);
        id.ok_or_else(|| ActivityError::retryable("JobId", "DSS gave no id for the job"))
    }

    /// Waits for the end; false when the job came to no good.
    async fn follow(
        &self,
        ctx: &ActivityContext,
        client: &DssClient,
        job: &str,
    ) -> ActivityResult<Option<String>> {
        let mut looks = 0u32;
        loop {
            let state = match self.state(client, job).await? {
                State::Done => return Ok(None),
                State::Over(state) => return Ok(Some(state)),
                State::Runs(state) => state,
            };
            ctx.heartbeat(Beat { job_id: job.to_owned(), state });
            if looks == 0 {
                // The heartbeat is on its way to the store before this record: when one is durable, both are.
                ctx.record_resource("dss:job", job).await?;
            }
            ctx.sleep(if looks < 5 { FIRST_POLL } else { POLL }).await?;
            looks += 1;
        }
    }
}

impl Activity for SmokeJob {
    type Input = SmokeJobInput;
    type Output = SmokeJobOutput;

    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    async fn execute(&self, ctx: &ActivityContext, input: &SmokeJobInput) -> ActivityResult<SmokeJobOutput> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let job = match ctx.last_heartbeat::<Beat>() {
            // One of an earlier attempt that ended well is the one that counts.
            Some(beat)
                if matches!(input.state(&client, &beat.job_id).await, Ok(State::Runs(_) | State::Done)) =>
            {
                beat.job_id
            }
            _ => match input.running(&client).await?.pop() {
                Some(job) => job,
                None => input.start(&client).await?,
            },
        };
        let Some(state) = input.follow(ctx, &client, &job).await? else {
            return Ok(SmokeJobOutput { job_id: job });
        };
        let log = client.get(&["projects", &input.project, "jobs", &job, "log"]).await.unwrap_or_default();
        let last: Vec<&str> = log.as_str().unwrap_or_default().trim().lines().rev().take(3).collect();
        let tail = clipped(&last.into_iter().rev().collect::<Vec<_>>().join("; "));
        let message = format!("job {job} of project {} is {state}: {tail}", input.project);
        Err(ActivityError::retryable("SmokeJobFailed", message).help(
            "look at the job in DSS; pods that cannot reach DSS, images that were not pushed and connections whose \
             details Spark may not read are the usual causes",
        ))
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &SmokeJobInput,
        _recorded: &Recorded,
    ) -> ActivityResult<Undo> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let running = input.running(&client).await?;
        for job in &running {
            client.post(&["projects", &input.project, "jobs", job, "abort"], None).await?;
            input.follow(ctx, &client, job).await?;
        }
        Ok(if running.is_empty() { Undo::NothingToDo } else { Undo::Undone })
    }

    fn describe(&self, input: &SmokeJobInput) -> String {
        format!("job that builds {} with all it is made of", input.dataset)
    }
}
