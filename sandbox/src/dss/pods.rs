//! Pods of a cluster, as far as `kubectl run`, `get pod` and `delete pod` show them.
//!
//! A pod here runs nothing: one that asks an address by `curl` ends with the status that the switch `pods` says, or with
//! that of an address which is the pod's own. Pods go with their cluster.

use serde_json::{Value, json};

use super::FakeDss;
use super::behaviour::{Behaviour, Pods};
use super::reply::{Answer, Refusal, ok};
use super::state::Cluster;

/// curl's status for a name that is not known.
const UNRESOLVED: i64 = 6;
/// curl's status for a connection that is refused.
const REFUSED: i64 = 7;
/// curl's status for an answer that does not come.
const TIMED_OUT: i64 = 28;
/// The status of a program that is not there.
const NOT_THERE: i64 = 127;

/// What kubectl prints when all goes well.
fn printed(text: impl Into<String>) -> Answer {
    ok(json!({ "returnValue": 0, "output": text.into(), "error": "" }))
}

/// What kubectl prints when not.
pub(super) fn complained(text: impl Into<String>) -> Answer {
    ok(json!({ "returnValue": 1, "output": "", "error": text.into() }))
}

impl FakeDss {
    /// `kubectl run`, `get pod` and `delete pod`; `None` for anything else.
    pub(super) fn pods(&self, id: &str, words: &[&str]) -> Option<Answer> {
        Some(match words {
            ["run", name, rest @ ..] => self.pod_run(id, name, rest),
            ["get", "pod" | "pods" | "po", name, rest @ ..] => self.pod_get(id, name, rest),
            ["delete", "pod" | "pods" | "po", name, rest @ ..] => self.pod_delete(id, name, rest),
            _ => return None,
        })
    }

    fn with_cluster<T>(&self, id: &str, change: impl FnOnce(&mut Cluster) -> T) -> Result<T, Refusal> {
        self.try_write(|state| {
            let cluster = state.clusters.get_mut(id).ok_or_else(|| super::clusters::missing(id))?;
            Ok(change(cluster))
        })
    }

    fn pod_run(&self, id: &str, name: &str, rest: &[&str]) -> Answer {
        let image = rest.iter().find_map(|word| word.strip_prefix("--image="));
        let command: Vec<&str> = rest.iter().skip_while(|word| **word != "--").skip(1).copied().collect();
        let Some(image) = image.filter(|_| rest.contains(&"--restart=Never")) else {
            return complained("error: required flag(s) \"image\" not set");
        };
        let behaviour = self.behaviour();
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": "default" },
            "spec": { "containers": [{ "name": name, "image": image, "command": command }], "restartPolicy": "Never" },
            "status": status(&behaviour, &command)
        });
        let made = self.with_cluster(id, |cluster| {
            if cluster.pods.contains_key(name) {
                return false;
            }
            cluster.pods.insert(name.to_owned(), pod);
            true
        })?;
        if made {
            printed(format!("pod/{name} created"))
        } else {
            complained(format!("Error from server (AlreadyExists): pods \"{name}\" already exists"))
        }
    }

    fn pod_get(&self, id: &str, name: &str, rest: &[&str]) -> Answer {
        let pod = self.with_cluster(id, |cluster| cluster.pods.get(name).cloned())?;
        match pod {
            Some(pod) => printed(pod.to_string()),
            None if rest.contains(&"--ignore-not-found") => printed(""),
            None => complained(format!("Error from server (NotFound): pods \"{name}\" not found")),
        }
    }

    fn pod_delete(&self, id: &str, name: &str, rest: &[&str]) -> Answer {
        let gone = self.with_cluster(id, |cluster| cluster.pods.remove(name).is_some())?;
        if gone {
            printed(format!("pod \"{name}\" deleted"))
        } else if rest.contains(&"--ignore-not-found") {
            printed("")
        } else {
            complained(format!("Error from server (NotFound): pods \"{name}\" not found"))
        }
    }
}

/// How a pod with this command stands.
fn status(behaviour: &Behaviour, command: &[&str]) -> Value {
    let url = command.last().copied().unwrap_or_default();
    // In a pod these are the pod itself, and nothing listens there.
    let own = ["//localhost:", "//127."].iter().any(|part| url.contains(part));
    let exit = match behaviour.pods {
        Pods::Pending => {
            return json!({ "phase": "Pending", "containerStatuses": [
                { "state": { "waiting": { "reason": "ContainerCreating" } } }] });
        }
        Pods::Unresolved => UNRESOLVED,
        Pods::Refused => REFUSED,
        Pods::TimesOut => TIMED_OUT,
        Pods::NoCurl => NOT_THERE,
        Pods::Reach if own => REFUSED,
        Pods::Reach => 0,
    };
    let (phase, reason) = if exit == 0 { ("Succeeded", "Completed") } else { ("Failed", "Error") };
    json!({ "phase": phase, "containerStatuses": [
        { "state": { "terminated": { "exitCode": exit, "reason": reason } } }] })
}
