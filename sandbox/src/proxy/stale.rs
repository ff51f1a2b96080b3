//! Reads that answer as the world was: what AWS calls eventual consistency.
//!
//! The replies to reads are kept per service until something of that service changes. A change that was scripted to be
//! seen late leaves them, and for so many reads they are given once more. A read that was never made before cannot be
//! answered from memory: one that names what the change has just made is told that there is no such thing, any other
//! goes through and does not count.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::recognise::Call;
use super::reply::Reply;
use super::upstream::Incoming;

/// So many replies are kept of one service at most.
const KEPT: usize = 500;

/// What was seen, by service.
#[derive(Debug, Default)]
pub(super) struct Seen {
    by_service: BTreeMap<String, Service>,
}

#[derive(Debug, Default)]
struct Service {
    replies: BTreeMap<String, Reply>,
    /// Reads that are still stale.
    stale: u32,
    /// What the change made, as far as its reply tells.
    made: Vec<String>,
}

impl Seen {
    /// The stale reply to a read, if one is due.
    pub(super) fn answer(&mut self, call: &Call, request: &Incoming) -> Option<Reply> {
        let service = self.by_service.get_mut(&call.service).filter(|service| service.stale > 0)?;
        let reply = match service.replies.get(&fingerprint(request)) {
            Some(reply) => reply.clone(),
            None => missing(call, request, &service.made)?,
        };
        service.stale -= 1;
        Some(reply)
    }

    /// Takes in a call that was carried out; `stale` reads after it shall be so.
    pub(super) fn saw(&mut self, call: &Call, request: &Incoming, reply: &Reply, stale: Option<u32>) {
        let service = self.by_service.entry(call.service.clone()).or_default();
        if !call.mutating {
            if service.stale == 0 && reply.status < 500 {
                if service.replies.len() >= KEPT {
                    service.replies.clear();
                }
                service.replies.insert(fingerprint(request), reply.clone());
            }
            return;
        }
        if !reply.is_success() {
            return;
        }
        match stale {
            Some(reads) => {
                service.stale = reads;
                service.made = ids(&String::from_utf8_lossy(&reply.body));
            }
            // The world has moved on: what was seen before this change was seen too long ago.
            None if service.stale == 0 => service.replies.clear(),
            None => {}
        }
    }
}

fn fingerprint(request: &Incoming) -> String {
    let path = request.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut hash = Sha256::new();
    for part in [request.method.as_str().as_bytes(), b" ", path.as_bytes(), b"\n", &request.body] {
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

/// Ids that AWS draws, as `i-0123`, in a reply.
fn ids(text: &str) -> Vec<String> {
    const KINDS: [&str; 7] = ["i-", "sg-", "lt-", "vol-", "eipalloc-", "key-", "subnet-"];
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .filter(|word| {
            KINDS.iter().any(|kind| {
                word.strip_prefix(kind)
                    .is_some_and(|id| id.len() >= 8 && id.bytes().all(|b| b.is_ascii_hexdigit()))
            })
        })
        .map(str::to_owned)
        .collect()
}

/// The refusal of a read that names what was just made.
fn missing(call: &Call, request: &Incoming, made: &[String]) -> Option<Reply> {
    let asked = String::from_utf8_lossy(&request.body);
    let id = made.iter().find(|id| asked.contains(id.as_str()))?;
    let code = match id.split('-').next().unwrap_or_default() {
        "i" => "InvalidInstanceID.NotFound",
        "sg" => "InvalidGroup.NotFound",
        "lt" => "InvalidLaunchTemplateId.NotFound",
        "vol" => "InvalidVolume.NotFound",
        "eipalloc" => "InvalidAllocationID.NotFound",
        "key" => "InvalidKeyPair.NotFound",
        _ => "InvalidSubnetID.NotFound",
    };
    Some(Reply::error(&call.service, 400, code, &format!("The ID '{id}' does not exist")))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, Method};

    use super::*;

    fn call(operation: &str, mutating: bool) -> Call {
        Call {
            service: "ec2".to_owned(),
            operation: operation.to_owned(),
            access_key: String::new(),
            path: Vec::new(),
            mutating,
            token: None,
        }
    }

    fn request(body: &str) -> Incoming {
        let uri = "/".parse().expect("a path");
        Incoming { method: Method::POST, uri, headers: HeaderMap::new(), body: body.to_owned().into() }
    }

    fn reply(body: &str) -> Reply {
        Reply { status: 200, headers: Vec::new(), body: body.to_owned().into() }
    }

    #[test]
    fn the_reads_after_a_change_answer_as_before_it() {
        let mut seen = Seen::default();
        let (read, make) = (call("DescribeInstances", false), call("RunInstances", true));
        seen.saw(&read, &request("all"), &reply("none"), None);
        seen.saw(&make, &request("one"), &reply("<instanceId>i-0123456789</instanceId>"), Some(2));
        assert_eq!(seen.answer(&read, &request("all")), Some(reply("none")));
        let named = seen.answer(&read, &request("InstanceId.1=i-0123456789")).expect("stale");
        assert!(String::from_utf8_lossy(&named.body).contains("InvalidInstanceID.NotFound"));
        assert_eq!(seen.answer(&read, &request("all")), None, "two reads were stale");
    }

    #[test]
    fn what_was_seen_before_another_change_is_not_shown_again() {
        let mut seen = Seen::default();
        let (read, make) = (call("DescribeInstances", false), call("RunInstances", true));
        seen.saw(&read, &request("all"), &reply("none"), None);
        seen.saw(&make, &request("one"), &reply(""), None);
        seen.saw(&make, &request("two"), &reply(""), Some(1));
        assert_eq!(seen.answer(&read, &request("all")), None, "nobody looked between the two");
    }
}
