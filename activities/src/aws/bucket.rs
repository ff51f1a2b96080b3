//! Whether a connection's bucket exists and where it is.
//!
//! Buckets are user data: none is made, changed or deleted. The connection's own credentials decide what DSS may do
//! in it; a denial to dssflow's principal is therefore no failure.

use dssflow_engine::activity::{Activity, ActivityContext, ActivityError, ActivityResult, Effect};
use serde::{Deserialize, Serialize};

use super::error::{Reach, classify_failure, failure_of};
use crate::clients::AwsClients;

/// The registered name.
pub const NAME: &str = "aws.s3.bucket-check";

/// What [`BucketCheck`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketInput {
    /// The bucket's name.
    pub bucket: String,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketOutput {
    /// The bucket's name.
    pub bucket: String,
    /// Its region, when S3 tells.
    pub region: Option<String>,
    /// Whether dssflow's own principal may look into it.
    pub accessible: bool,
}

/// Looks for a bucket.
///
/// # Errors
/// `BucketNotFound`, and the call's own errors.
pub async fn check_bucket(clients: &AwsClients, bucket: &str) -> ActivityResult<BucketOutput> {
    let found = |region: Option<&str>, accessible| BucketOutput {
        bucket: bucket.to_owned(),
        region: region.map(str::to_owned),
        accessible,
    };
    match clients.s3().head_bucket().bucket(bucket).send().await {
        Ok(answer) => Ok(found(answer.bucket_region(), true)),
        Err(error) => {
            let raw = error.raw_response();
            let region = raw.and_then(|r| r.headers().get("x-amz-bucket-region")).map(str::to_owned);
            let failure = failure_of(error);
            // The answer to HEAD has no body: only its status tells.
            match (failure.reach, failure.status) {
                (_, Some(301 | 307)) => Ok(found(region.as_deref(), true)),
                (_, Some(403)) if !failure.code.contains("Token") => Ok(found(region.as_deref(), false)),
                (Reach::Answered | Reach::Unknown, Some(404)) => {
                    Err(ActivityError::terminal("BucketNotFound", format!("there is no bucket {bucket}"))
                        .help("make the bucket, or correct its name in the site file; dssflow makes none")
                        .no_effect())
                }
                _ => Err(classify_failure("s3:HeadBucket", &failure)),
            }
        }
    }
}

/// Checks that a bucket exists and tells its region.
///
/// # Idempotency
/// Reads only.
///
/// # Compensation
/// None.
///
/// Page: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadBucket.html>
#[derive(Debug, Clone, Copy, Default)]
pub struct BucketCheck;

impl Activity for BucketCheck {
    type Input = BucketInput;
    type Output = BucketOutput;

    fn effect(&self) -> Effect {
        Effect::Read
    }

    async fn execute(&self, ctx: &ActivityContext, input: &BucketInput) -> ActivityResult<BucketOutput> {
        check_bucket(&*AwsClients::of(ctx)?, &input.bucket).await
    }

    fn describe(&self, input: &BucketInput) -> String {
        format!("check bucket {}", input.bucket)
    }
}
