//! Just enough XML for what moto answers: elements and text, no attributes, no mixed content.
//!
//! It reads replies of one known server on loopback. It is not a general parser and checks nothing.

use serde_json::{Map, Value};

/// Turns a reply into JSON: an element without children is a string, `item` and `member` lists are arrays, and
/// repeated elements of one name are an array.
pub(crate) fn to_json(text: &str) -> Value {
    let mut rest = text;
    let mut stack: Vec<(String, Vec<(String, Value)>)> = vec![(String::new(), Vec::new())];
    let mut last_text = String::new();
    while let Some(at) = rest.find('<') {
        last_text.push_str(&rest[..at]);
        let Some(end) = rest[at..].find('>') else { break };
        let tag = &rest[at + 1..at + end];
        rest = &rest[at + end + 1..];
        if tag.starts_with('?') || tag.starts_with('!') {
            continue;
        }
        let name: String =
            tag.trim_start_matches('/').chars().take_while(|c| !c.is_whitespace() && *c != '/').collect();
        if tag.starts_with('/') {
            if stack.len() < 2 {
                break;
            }
            if let Some((_, children)) = stack.pop() {
                let value = close(children, &last_text);
                push(&mut stack, name, value);
            }
        } else if tag.ends_with('/') {
            push(&mut stack, name, Value::String(String::new()));
        } else {
            stack.push((name, Vec::new()));
        }
        last_text.clear();
    }
    stack.into_iter().next().map_or(Value::Null, |(_, children)| close(children, ""))
}

fn push(stack: &mut [(String, Vec<(String, Value)>)], name: String, value: Value) {
    if let Some((_, siblings)) = stack.last_mut() {
        siblings.push((name, value));
    }
}

fn close(children: Vec<(String, Value)>, text: &str) -> Value {
    if children.is_empty() {
        return Value::String(unescape(text.trim()));
    }
    if children.iter().all(|(name, _)| name == "item" || name == "member") {
        return Value::Array(children.into_iter().map(|(_, value)| value).collect());
    }
    let mut object = Map::new();
    for (name, value) in children {
        match object.get_mut(&name) {
            None => {
                object.insert(name, value);
            }
            Some(Value::Array(values)) if repeated(&name) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    Value::Object(object)
}

/// Elements of S3 that repeat without a list around them may be met more than twice.
fn repeated(name: &str) -> bool {
    matches!(name, "Bucket" | "Tag" | "Contents")
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#34;", "\"")
        .replace("&#39;", "'")
        .replace("&amp;", "&")
}

/// Makes text fit for an element.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// What stands at a path of names, as a list: an array's elements, nothing for an empty element, else the one value.
pub(crate) fn list<'a>(value: &'a Value, path: &[&str]) -> Vec<&'a Value> {
    let mut at = value;
    for name in path {
        at = &at[*name];
    }
    match at {
        Value::Array(values) => values.iter().collect(),
        Value::Object(_) => vec![at],
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_moto_writes() {
        let value = to_json(
            "<?xml version=\"1.0\"?><R xmlns=\"u\"><set><item><id>a &amp; b</id><tags/></item></set>\
             <B><Bucket>1</Bucket><Bucket>2</Bucket><Bucket>3</Bucket></B></R>",
        );
        assert_eq!(value["R"]["set"][0]["id"], "a & b");
        assert_eq!(list(&value, &["R", "set"]).len(), 1);
        assert_eq!(list(&value, &["R", "set", "x"]).len(), 0);
        assert_eq!(value["R"]["B"]["Bucket"][2], "3");
    }
}
