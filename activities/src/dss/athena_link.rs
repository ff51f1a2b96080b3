//! The S3 side of a pair: the S3 connection names the Athena connection that reads its data.
//!
//! Writing a connection means writing all of it, and its secret came back unreadable: it is read from its reference
//! and put in again each time. The key is a guess that the read-back verifies and the overlay corrects.
//!
//! # Idempotency
//! The key is compared first; an equal one is not written.
//! # Compensation
//! The old value is put back where the key still holds ours; this comes before the Athena connection is deleted.
//!
//! Page: <https://doc.dataiku.com/dss/latest/connecting/sql/athena.html>

use dssflow_engine::activity::{ActivityContext, ActivityResult};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::DssTarget;
use super::connection::S3Credentials;
use super::document::{DocumentInput, DocumentUpdate, Place};
use super::tree::overlaid;

/// The registered name.
pub const NAME: &str = "dss.s3-athena-link";
/// The activity.
pub(crate) type AthenaLink = DocumentUpdate<AthenaLinkInput>;

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AthenaLinkInput {
    /// Which DSS.
    pub target: DssTarget,
    /// The S3 connection that is changed.
    pub s3_connection: String,
    /// The Athena connection it names from now on.
    pub athena_connection: String,
    /// The credentials of the S3 connection, which must be written again with it.
    pub credentials: S3Credentials,
    /// Merged into the link `{"params": {"athenaConnection": NAME}}`; `null` takes a key out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Value>,
}

/// What the activity gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AthenaLinkOutput {
    /// The S3 connection.
    pub s3_connection: String,
    /// The Athena connection.
    pub athena_connection: String,
}

impl AthenaLinkInput {
    /// What is written, without the overlay.
    pub(crate) fn ours(&self) -> Value {
        json!({"params": {"athenaConnection": self.athena_connection}})
    }
}

impl DocumentInput for AthenaLinkInput {
    type Output = AthenaLinkOutput;

    fn target(&self) -> &DssTarget {
        &self.target
    }

    fn place(&self) -> Place {
        Place::Connection(self.s3_connection.clone())
    }

    fn patch(&self, _document: &Value) -> ActivityResult<Value> {
        Ok(overlaid(self.ours(), self.overlay.as_ref()))
    }

    async fn complete(&self, ctx: &ActivityContext, document: &mut Value) -> ActivityResult<()> {
        self.credentials.put_into(ctx, document).await
    }

    fn output(&self, _document: &Value) -> AthenaLinkOutput {
        AthenaLinkOutput {
            s3_connection: self.s3_connection.clone(),
            athena_connection: self.athena_connection.clone(),
        }
    }

    fn describe(&self) -> String {
        format!("connection {} names {}", self.s3_connection, self.athena_connection)
    }
}
