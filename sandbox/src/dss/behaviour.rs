//! How this DSS behaves where real ones differ, or where nobody knows: every switch with its default.
//!
//! Set as a whole by the admin call `POST /dss/behaviour`, by `sandbox up --dss FILE` or by `SandboxOptions::dss`, and
//! in force from the next request on; a restart of DSS keeps it. `{}` is the default.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::FakeDss;
use super::spelling;

/// The switches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "they are switches")]
pub struct Behaviour {
    /// Keys that DSS does not know vanish on a write, which answers 200 all the same.
    pub drop_unknown_keys: bool,
    /// An execution configuration that names a missing build configuration rejects the whole document (from DSS 15).
    pub reject_unknown_build_configs: bool,
    /// What stands where a secret was when it is read.
    pub redaction: Redaction,
    /// Under which paths the API answers.
    pub base_path: BasePath,
    /// Which forms of authentication are taken.
    pub auth: Vec<Auth>,
    /// A body without `Content-Type: application/json` is refused.
    pub require_content_type: bool,
    /// Query booleans other than `True` and `False` are refused.
    pub python_booleans_only: bool,
    /// Looks after which a future has its result, at the earliest.
    pub future_polls: u32,
    /// How the synchronous start of a cluster answers.
    pub cluster_start: StartReply,
    /// The status says `STARTING` while a start runs; otherwise it goes on saying `NONE`.
    pub shows_starting: bool,
    /// Errors of status 500 and more come as a page of HTML.
    pub html_errors: bool,
    /// What becomes of creating what is there already.
    pub duplicates: Duplicates,
    /// The status for an object that is not there; without it 404, and 500 for connections.
    pub missing_status: Option<u16>,
    /// What becomes of a pod that asks for DSS.
    pub pods: Pods,
    /// What the synchronisation of a dataset does with the metastore.
    pub metastore_sync: MetastoreSync,
    /// Parameters that DSS writes to tables; `{project}` and `{dataset}` stand for the dataset's.
    pub metastore_parameters: BTreeMap<String, String>,
    /// Other spellings of what nobody could verify: name to what this DSS writes. See `spelling`.
    pub spellings: BTreeMap<String, String>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            drop_unknown_keys: true,
            reject_unknown_build_configs: true,
            redaction: Redaction::Encrypted,
            base_path: BasePath::Both,
            auth: vec![Auth::BasicUser, Auth::BasicPassword, Auth::Bearer],
            require_content_type: false,
            python_booleans_only: false,
            future_polls: 2,
            cluster_start: StartReply::Answers,
            shows_starting: true,
            html_errors: false,
            duplicates: Duplicates::Refused400,
            missing_status: None,
            pods: Pods::Reach,
            metastore_sync: MetastoreSync::Full,
            metastore_parameters: BTreeMap::new(),
            spellings: BTreeMap::new(),
        }
    }
}

/// What stands where a secret was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Redaction {
    /// `e:AES:…`, as it is kept.
    Encrypted,
    /// `*****`.
    Masked,
    /// The key is not there.
    LeftOut,
}

/// Under which paths the API answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BasePath {
    /// Both of the following.
    Both,
    /// `/dip/publicapi`, which the official client uses.
    Dip,
    /// `/public/api`, which the documentation names.
    Public,
}

/// A form of authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// Basic, the key as user name.
    BasicUser,
    /// Basic, the key as password.
    BasicPassword,
    /// `Bearer KEY`.
    Bearer,
}

/// How the start of a cluster answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartReply {
    /// When the work is done, with what came of it.
    Answers,
    /// Never; the work is done all the same.
    Hangs,
    /// The connection is dropped while the work goes on.
    Drops,
    /// 200 with `messages.error: true`, and nothing was made.
    Fails,
}

/// What becomes of a pod that asks for DSS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pods {
    /// It gets an answer.
    Reach,
    /// The name means nothing to it.
    Unresolved,
    /// Nothing listens there.
    Refused,
    /// No packet comes back.
    TimesOut,
    /// Its image has no `curl`.
    NoCurl,
    /// It does not start.
    Pending,
}

/// What the synchronisation of a dataset does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetastoreSync {
    /// The table and its partitions are as the dataset is.
    Full,
    /// Partitions that are no longer there stay.
    AddsOnly,
    /// It answers, and nothing happens.
    Nothing,
}

/// What becomes of creating what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duplicates {
    /// Status 400.
    Refused400,
    /// Status 500.
    Refused500,
    /// The new one takes the place of the old.
    Overwritten,
}

impl Behaviour {
    /// Looks whether every spelling is one of the list.
    ///
    /// # Errors
    /// With the list, when one is not.
    pub fn check(&self) -> Result<(), String> {
        spelling::check(&self.spellings)
    }
}

impl FakeDss {
    /// Behaves so from now on.
    ///
    /// # Errors
    /// When a spelling has a name that is not in the list; the message gives the list.
    pub fn behave(&self, behaviour: Behaviour) -> Result<(), String> {
        behaviour.check()?;
        *self.inner.behaviour.write().unwrap_or_else(std::sync::PoisonError::into_inner) = behaviour;
        Ok(())
    }

    /// How it behaves now.
    pub fn behaviour(&self) -> Behaviour {
        self.inner.behaviour.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}
