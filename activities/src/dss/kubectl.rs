//! kubectl on a cluster of DSS, run by DSS with the credentials that it uses itself.
//!
//! DSS takes the arguments as one text. How it cuts that into words is not documented; nothing of ours has a space, a quote
//! or a shell's sign in a word.
//!
//! Page: <https://developer.dataiku.com/latest/api-reference/python/clusters.html>

use dssflow_engine::activity::{ActivityError, ActivityResult};
use serde_json::{Value, json};

use super::client::DssClient;
use super::reply::clipped;

/// A cluster as kubectl sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kubectl<'a> {
    client: &'a DssClient,
    /// The cluster's id in DSS.
    cluster: &'a str,
}

impl<'a> Kubectl<'a> {
    pub(super) fn on(client: &'a DssClient, cluster: &'a str) -> Self {
        Self { client, cluster }
    }

    /// What kubectl prints, or what it complains of.
    ///
    /// # Errors
    /// When DSS does not answer, or refuses to run it.
    pub(super) async fn run(&self, words: &[&str]) -> ActivityResult<Result<String, String>> {
        debug_assert!(words.iter().all(|word| is_plain(word)), "{words:?}");
        let path = ["admin", "clusters", self.cluster, "k8s", "actions", "run-kubectl"];
        let body = json!({ "args": words.join(" ") });
        let reply = self.client.post(&path, Some(&body)).await.map_err(ActivityError::no_effect)?;
        if reply["returnValue"] == 0 {
            return Ok(Ok(reply["output"].as_str().unwrap_or_default().to_owned()));
        }
        let complaint = reply["error"].as_str().filter(|text| !text.trim().is_empty());
        Ok(Err(clipped(complaint.unwrap_or("no reason given"))))
    }

    /// The same, of a command that prints JSON; `None` where it prints nothing.
    ///
    /// # Errors
    /// As [`Kubectl::run`].
    pub(super) async fn json(&self, words: &[&str]) -> ActivityResult<Result<Option<Value>, String>> {
        Ok(self.run(words).await?.and_then(|text| match text.trim() {
            "" => Ok(None),
            text => serde_json::from_str(text).map(Some).map_err(|e| format!("it printed no JSON: {e}")),
        }))
    }
}

/// Whether a word stays one however it is cut.
pub(super) fn is_plain(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_=./:@,".contains(c))
}
