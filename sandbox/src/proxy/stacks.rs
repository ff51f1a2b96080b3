//! CloudFormation stacks in states that moto does not know: in progress, and failed.
//!
//! moto finishes every stack at once. The stub eksctl says how its stacks really stand, and the replies to `DescribeStacks`
//! and `ListStacks` are rewritten to say so.

use super::overlay::{Overlay, Stack};
use super::reply::Reply;
use crate::xml::escape;

/// Rewrites the state of known stacks in a reply of CloudFormation.
pub(crate) fn rewrite(overlay: &Overlay, reply: Reply) -> Reply {
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
}
