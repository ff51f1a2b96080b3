//! The last look of a teardown: that nothing carries the marks of the store and site any more.
//!
//! A rollback sweeps for its own run, see [`identity`](super::identity). Here it is any run of the site: also one that
//! the store has lost.

use std::time::Duration;

use dssflow_engine::activity::{Activity, ActivityContext, ActivityResult, Effect, Recorded, Undo};
use serde::{Deserialize, Serialize};

use super::sweep::{self, Scope};

/// The registered name.
pub const NAME: &str = "aws.site.sweep";

/// What [`SiteSweep`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteSweepInput {
    /// Seconds for which the sweep must go on finding nothing: a lost create can land late.
    #[serde(default)]
    pub quiet_seconds: u64,
}

/// Does nothing but have an undo: being the first step of a run makes that the last.
///
/// # Idempotency
/// Reads only.
///
/// # Compensation
/// Searches EC2, EKS, ECR, Glue, IAM and CloudFormation for what carries the marks of any run of this store and site,
/// waits up to [`sweep::SWEEP_LIMIT`] for what is on its way out, and fails with the list if something stays that no rule
/// keeps.
///
/// Page: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeTags.html>
#[derive(Debug, Clone, Copy, Default)]
pub struct SiteSweep;

impl Activity for SiteSweep {
    type Input = SiteSweepInput;
    type Output = ();

    /// Not a read: a read is never undone.
    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    async fn execute(&self, _: &ActivityContext, _: &SiteSweepInput) -> ActivityResult<()> {
        Ok(())
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &SiteSweepInput,
        _: &Recorded,
    ) -> ActivityResult<Undo> {
        sweep::until_clean(ctx, Duration::from_secs(input.quiet_seconds), Scope::Site).await
    }

    fn describe(&self, _: &SiteSweepInput) -> String {
        "search for what still carries the marks of the site".to_owned()
    }
}
