//! CloudFormation stacks in states that moto does not know: in progress, and failed.
//!
//! moto finishes every stack at once. The stub eksctl says how its stacks really stand, and the replies to `DescribeStacks`
//! and `ListStacks` are rewritten to say so. A deletion that was scripted to take its time reaches moto only at its end.

use axum::http::Uri;

use super::overlay::{self, End, Look, Overlay, Pace, Phase, Stack, StackDeletion};
use super::recognise::{Call, parse_form};
use super::reply::Reply;
use super::upstream::{Incoming, Upstream};
use crate::xml::escape;

/// Answers a call to CloudFormation.
pub(super) async fn handle(
    overlay: &mut Overlay,
    upstream: &Upstream,
    call: &Call,
    request: &Incoming,
    state: Option<&(u32, String)>,
) -> Reply {
    match (call.operation.as_str(), state) {
        ("DeleteStack", Some((looks, end))) => {
            let end = if matches!(end.as_str(), "DELETE_FAILED" | "FAILED") {
                End::DeleteFailed
            } else {
                End::Gone
            };
            let phase = Some(Phase::new("DELETE_IN_PROGRESS", Pace { ms: 0, looks: *looks, end }, None));
            if let Some(name) = stack_name(&request.uri, &request.body) {
                overlay.stack_deletions.insert(name, StackDeletion { phase, request: request.clone() });
            }
            deleted()
        }
        // It is under way.
        ("DeleteStack", None)
            if stack_name(&request.uri, &request.body)
                .is_some_and(|name| overlay.stack_deletions.contains_key(&name)) =>
        {
            deleted()
        }
        ("DeleteStack", None) => {
            let reply = upstream.forward(request).await;
            if reply.is_success()
                && let Some(name) = stack_name(&request.uri, &request.body)
            {
                overlay.stacks.remove(&name);
            }
            reply
        }
        ("DescribeStacks" | "ListStacks", _) => {
            advance(overlay, upstream).await;
            rewrite(overlay, upstream.forward(request).await)
        }
        _ => rewrite(overlay, upstream.forward(request).await),
    }
}

/// Looks at the deletions under way, which counts.
async fn advance(overlay: &mut Overlay, upstream: &Upstream) {
    for (name, mut deletion) in std::mem::take(&mut overlay.stack_deletions) {
        let shown =
            |status: &str, reason: &str| Stack { status: status.to_owned(), reason: reason.to_owned() };
        match overlay::look(&mut deletion.phase) {
            Look::Showing(status) => {
                overlay.stacks.insert(name.clone(), shown(&status, ""));
                overlay.stack_deletions.insert(name, deletion);
            }
            Look::Failed | Look::DeleteFailed => {
                let reason = "The following resource(s) failed to delete: [ControlPlaneSecurityGroup].";
                overlay.stacks.insert(name, shown("DELETE_FAILED", reason));
            }
            Look::Settled | Look::Gone => {
                overlay.stacks.remove(&name);
                let reply = upstream.forward(&deletion.request).await;
                if !reply.is_success() {
                    tracing::warn!(stack = name, status = reply.status, "moto did not delete the stack");
                }
            }
        }
    }
}

/// The stack a request is about; an ARN counts as its name.
fn stack_name(uri: &Uri, body: &[u8]) -> Option<String> {
    let body = String::from_utf8_lossy(body);
    let fields = parse_form(&body).into_iter().chain(parse_form(uri.query().unwrap_or_default()));
    let given = fields.into_iter().find(|(key, _)| key == "StackName").map(|(_, value)| value)?;
    Some(match given.strip_prefix("arn:") {
        Some(_) => given.split('/').nth(1).unwrap_or_default().to_owned(),
        None => given,
    })
}

fn deleted() -> Reply {
    let body = "<DeleteStackResponse xmlns=\"http://cloudformation.amazonaws.com/doc/2010-05-15/\"><ResponseMetadata>\
                <RequestId>00000000-0000-4000-8000-000000000000</RequestId></ResponseMetadata></DeleteStackResponse>";
    Reply {
        status: 200,
        headers: vec![("content-type".to_owned(), "text/xml".to_owned())],
        body: body.into(),
    }
}

/// Rewrites the state of known stacks in a reply of CloudFormation.
fn rewrite(overlay: &Overlay, reply: Reply) -> Reply {
    if overlay.stacks.is_empty() || !reply.is_success() {
        return reply;
    }
    let Ok(text) = std::str::from_utf8(&reply.body) else { return reply };
    let text =
        overlay.stacks.iter().fold(text.to_owned(), |text, (name, stack)| with_status(&text, name, stack));
    Reply { body: text.into(), ..reply }
}

/// Sets the status in each `member` that is about this stack and has not been deleted.
fn with_status(text: &str, name: &str, stack: &Stack) -> String {
    let mark = format!("<StackName>{}</StackName>", escape(name));
    let mut out = String::with_capacity(text.len());
    // A stack's own element is the outermost `member`; its parameters and tags are inner ones. Splitting at the name is
    // enough, because a status belongs to the name nearest before or after it within the same stack.
    let mut rest = text;
    while let Some(at) = rest.find(&mark) {
        let until =
            rest[at + mark.len()..].find("<StackName>").map_or(rest.len(), |next| at + mark.len() + next);
        out.push_str(&rest[..at]);
        out.push_str(&replace_status(&rest[at..until], stack));
        rest = &rest[until..];
    }
    out.push_str(rest);
    out
}

fn replace_status(part: &str, stack: &Stack) -> String {
    let (open, close) = ("<StackStatus>", "</StackStatus>");
    let Some(start) = part.find(open) else { return part.to_owned() };
    let Some(end) = part[start..].find(close).map(|end| start + end) else { return part.to_owned() };
    if &part[start + open.len()..end] == "DELETE_COMPLETE" {
        return part.to_owned();
    }
    let reason = if stack.reason.is_empty() {
        String::new()
    } else {
        format!("<StackStatusReason>{}</StackStatusReason>", escape(&stack.reason))
    };
    format!("{}{open}{}{close}{reason}{}", &part[..start], escape(&stack.status), &part[end + close.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_living_stack_changes() {
        let stack = Stack { status: "CREATE_FAILED".to_owned(), reason: "no <quota>".to_owned() };
        let text = "<m><StackName>a</StackName><StackStatus>CREATE_COMPLETE</StackStatus></m>\
                    <m><StackName>b</StackName><StackStatus>CREATE_COMPLETE</StackStatus></m>\
                    <m><StackName>b</StackName><StackStatus>DELETE_COMPLETE</StackStatus></m>";
        let changed = with_status(text, "b", &stack);
        assert!(changed.contains("<StackName>a</StackName><StackStatus>CREATE_COMPLETE<"), "{changed}");
        assert!(
            changed.contains("CREATE_FAILED</StackStatus><StackStatusReason>no &lt;quota&gt;<"),
            "{changed}"
        );
        assert!(changed.contains("DELETE_COMPLETE"), "{changed}");
    }

    #[test]
    fn a_stack_is_named_by_its_name_or_its_arn() {
        let uri: Uri = "/".parse().expect("a path");
        let arn =
            b"Action=DeleteStack&StackName=arn%3Aaws%3Acloudformation%3Aeu-west-1%3A1%3Astack%2Feksctl-a%2Fx";
        assert_eq!(stack_name(&uri, arn).as_deref(), Some("eksctl-a"));
        assert_eq!(stack_name(&uri, b"StackName=b").as_deref(), Some("b"));
        assert_eq!(stack_name(&uri, b""), None);
    }
}
