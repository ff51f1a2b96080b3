//! Pushes the base images to every registry the container and Spark settings name: one call for both.
//!
//! DSS shells out to docker and the aws client; layers that are there already are not sent again. The job's id is
//! noted by heartbeat before it is polled, so that the next attempt waits for the same push.
//!
//! # Idempotency
//! The same images give the same digests: pushing twice changes nothing. An attempt after a crash waits for the push
//! that is under way.
//! # Compensation
//! None here: the images go with the repositories, which are a step of their own.
//!
//! Page: <https://doc.dataiku.com/dss/latest/containers/setup-k8s.html>

use dssflow_engine::activity::{Activity, ActivityContext, ActivityResult, Effect};
use serde::{Deserialize, Serialize};

use super::client::{DssClient, DssTarget};

/// The registered name.
pub const NAME: &str = "dss.push-base-images";
const WHAT: &str = "push of the base images";

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushImagesInput {
    /// Which DSS.
    pub target: DssTarget,
}

/// What the activity gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushImagesOutput {}

/// The activity.
pub(crate) struct PushImages;

impl Activity for PushImages {
    type Input = PushImagesInput;
    type Output = PushImagesOutput;

    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &PushImagesInput,
    ) -> ActivityResult<PushImagesOutput> {
        let client = DssClient::connect(ctx, &input.target).await?;
        let path = ["admin", "container-exec", "actions", "push-base-images"];
        let pushed = client.task(ctx, WHAT, client.post(&path, None)).await;
        pushed.map_err(|error| {
            if error.code == "ERR_CONTAINER_IMAGE_PUSH_FAILED" {
                error.help("check the registry URL, that the service user's aws client may log in to ECR, and that docker works for it")
            } else {
                error
            }
        })?;
        Ok(PushImagesOutput {})
    }

    fn describe(&self, _input: &PushImagesInput) -> String {
        "push of the base images to ECR".to_owned()
    }
}
