//! The shape of a site: compares the YAML tree with the JSON Schema of [`Site`](super::Site) and notes everything
//! that differs. The published schema is the one that is checked, so neither can be forgotten.
//!
//! It knows the part of JSON Schema that the site's types use, and turns the tree into plain JSON on the way:
//! keys without a value are left out, a whole number where a text is wanted becomes that text.

mod secret;

use std::collections::BTreeMap;

use dssflow_engine::graph::edit_distance;
use serde_json::{Map, Value, json};

use super::node::{Entry, Kind, Node};
use super::{SiteProblem, codes, formats};
use secret::Place;

/// What marks a value that `init` could not fill in.
pub(crate) const FILL_IN: &str = "<fill in";

/// What the comparison found.
pub(super) struct Shape {
    /// The tree as JSON; where something is wrong it is left out.
    pub(super) value: Value,
    /// The line of every path.
    pub(super) lines: BTreeMap<String, u32>,
    /// What is wrong.
    pub(super) problems: Vec<SiteProblem>,
}

/// Compares `node` with the root schema `schema`.
pub(super) fn check(node: &Node, schema: &Value) -> Shape {
    let mut walk = Walk { root: schema, lines: BTreeMap::new(), problems: Vec::new() };
    let value = walk.value(node, schema, "").unwrap_or(Value::Null);
    Shape { value, lines: walk.lines, problems: walk.problems }
}

struct Walk<'a> {
    root: &'a Value,
    lines: BTreeMap<String, u32>,
    problems: Vec<SiteProblem>,
}

/// The path of `key` below `path`.
pub(super) fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The nearest of `names` to `word`, when near enough to be meant.
pub(crate) fn nearest<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let lower = word.to_lowercase();
    names
        .into_iter()
        .map(|name| (edit_distance(&lower, &name.to_lowercase()), name))
        // Of a name of one or two letters nearly everything is near.
        .filter(|(distance, name)| *distance <= if name.len() < 3 { 0 } else { 1 + name.len() / 4 })
        .min()
        .map(|(_, name)| name)
}

fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(many) => many.iter().filter_map(Value::as_str).filter(|t| *t != "null").collect(),
        _ => Vec::new(),
    }
}

fn wanted(schema: &Value) -> String {
    if let Some(what) = schema["format"].as_str().and_then(formats::describe) {
        return what.to_owned();
    }
    match types(schema).as_slice() {
        ["string"] => "a text",
        ["integer"] => "a whole number",
        ["number"] => "a number",
        ["boolean"] => "true or false",
        ["array"] => "a list",
        ["object"] => "a mapping",
        _ => "something else",
    }
    .to_owned()
}

/// The literal values a schema allows, when it is an enumeration.
fn choices(schema: &Value) -> Option<Vec<&str>> {
    if let Some(values) = schema["enum"].as_array() {
        return Some(values.iter().filter_map(Value::as_str).collect());
    }
    let variants = schema["oneOf"].as_array()?;
    variants.iter().map(|v| v["const"].as_str()).collect()
}

impl<'a> Walk<'a> {
    fn problem(
        &mut self,
        code: &'static str,
        path: &str,
        line: u32,
        message: String,
        help: impl Into<String>,
    ) {
        let line = Some(line).filter(|&l| l > 0);
        self.problems.push(SiteProblem { code, path: path.to_owned(), line, message, help: help.into() });
    }

    /// Follows references, and the one branch of an optional value that is not null.
    fn resolve(&self, schema: &'a Value) -> &'a Value {
        if let Some(target) = schema["$ref"].as_str() {
            let pointer = target.trim_start_matches('#');
            return self.root.pointer(pointer).map_or(schema, |s| self.resolve(s));
        }
        if let Some(branch) =
            schema["anyOf"].as_array().and_then(|all| all.iter().find(|b| b["type"] != "null"))
        {
            return self.resolve(branch);
        }
        schema
    }

    /// The value as JSON; `None` when it is wrong, and then a problem is noted.
    fn value(&mut self, node: &Node, schema: &'a Value, path: &str) -> Option<Value> {
        self.lines.insert(path.to_owned(), node.line);
        let schema = self.resolve(schema);
        if let Kind::Text(text) = &node.kind
            && text.to_lowercase().contains(FILL_IN)
        {
            let what =
                text.trim_matches(['<', '>']).trim_start_matches("fill in").trim_start_matches([':', ' ']);
            let help =
                if what.is_empty() { format!("write {}", wanted(schema)) } else { format!("write {what}") };
            self.problem(codes::UNFILLED, path, node.line, "is not filled in yet".to_owned(), help);
            return None;
        }
        match schema["format"].as_str() {
            Some("secret-ref") => return self.secret(node, path, Place::Reference),
            Some("api-key") => return self.secret(node, path, Place::ReferenceOrSink),
            Some("any-object") => return self.any_object(node, path),
            _ => {}
        }
        if let Some(choices) = choices(schema) {
            return self.choice(node, &choices, path);
        }
        if schema["oneOf"].is_array() {
            return self.tagged(node, schema, path);
        }
        match (&node.kind, types(schema).as_slice()) {
            (Kind::Map(entries), ["object"]) => Some(self.object(entries, schema, path, node.line)),
            (Kind::List(items), ["array"]) => Some(self.list(items, schema, path, node.line)),
            (Kind::Text(text), ["string"]) => self.text(text, schema, path, node.line),
            (Kind::Int(number), ["string"]) => self.text(&number.to_string(), schema, path, node.line),
            (Kind::Float(_), ["string"]) => {
                let help = format!("put it in quotes, or it loses its zeros; wanted is {}", wanted(schema));
                self.problem(
                    codes::WRONG_VALUE,
                    path,
                    node.line,
                    "is a number where a text is wanted".into(),
                    help,
                );
                None
            }
            (Kind::Int(number), ["integer"]) => self.number(*number, schema, path, node.line),
            (Kind::Bool(value), ["boolean"]) => Some(json!(value)),
            (kind, _) => {
                let message = format!("is {}, wanted is {}", kind.name(), wanted(schema));
                self.problem(
                    codes::WRONG_VALUE,
                    path,
                    node.line,
                    message,
                    format!("write {}", wanted(schema)),
                );
                None
            }
        }
    }

    fn object(&mut self, entries: &[Entry], schema: &'a Value, path: &str, line: u32) -> Value {
        let empty = Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&empty);
        let values = Some(&schema["additionalProperties"]).filter(|s| s.is_object());
        let mut out = Map::new();
        let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
        let mut meant = Vec::new();
        for Entry { line, key, value } in entries {
            let at = below(path, key);
            if let Some(first) = seen.insert(key, *line) {
                self.problem(
                    codes::DUPLICATE,
                    &at,
                    *line,
                    format!("stands here a second time, first on line {first}"),
                    "keep one of them",
                );
                continue;
            }
            let Some(schema) = schema["properties"].get(key).or(values) else {
                let near = nearest(
                    key,
                    properties.keys().map(String::as_str).filter(|k| !entries.iter().any(|e| e.key == *k)),
                );
                let help = match near {
                    Some(near) => {
                        meant.push(near.to_owned());
                        // What stands under the misspelt key is checked as well, so that all is told in one go.
                        if !matches!(value.kind, Kind::Null)
                            && let Some(json) = self.value(value, &schema["properties"][near], &at)
                        {
                            out.insert(near.to_owned(), json);
                        }
                        format!("did you mean `{near}`?")
                    }
                    None if properties.is_empty() => "nothing is set here; remove it".to_owned(),
                    None => {
                        format!("known here: {}", properties.keys().cloned().collect::<Vec<_>>().join(", "))
                    }
                };
                self.problem(codes::UNKNOWN_KEY, &at, *line, "is not a known key".to_owned(), help);
                continue;
            };
            if matches!(value.kind, Kind::Null) {
                // A key without a value is the same as no key.
                seen.remove(key.as_str());
                continue;
            }
            if let Some(json) = self.value(value, schema, &at) {
                out.insert(key.clone(), json);
            }
        }
        for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !seen.contains_key(key) && !meant.iter().any(|m| m == key) {
                let wanted = self.resolve(&schema["properties"][key]);
                let about =
                    schema["properties"][key]["description"].as_str().or(wanted["description"].as_str());
                let about = about.unwrap_or_default().lines().next().unwrap_or_default();
                let help = match (about, key) {
                    (_, "sha256") => "add the SHA-256 of the file, as sha256sum prints it; a download without one is not accepted".to_owned(),
                    ("", _) => format!("add `{key}:`"),
                    (about, _) => format!("add `{key}:` ({})", about.trim_end_matches('.')),
                };
                self.problem(codes::MISSING_KEY, &below(path, key), line, "is missing".to_owned(), help);
            }
        }
        Value::Object(out)
    }

    fn list(&mut self, items: &[Node], schema: &'a Value, path: &str, line: u32) -> Value {
        let fewest = schema["minItems"].as_u64().unwrap_or(0);
        let mut out = Vec::new();
        let mut seen = Vec::new();
        for (ix, item) in items.iter().enumerate() {
            let at = format!("{path}[{ix}]");
            // A broken item keeps its place, so that later checks name the right one.
            out.push(self.value(item, &schema["items"], &at).unwrap_or(Value::Null));
            if schema["uniqueItems"] == true && seen.contains(&&item.kind) {
                self.problem(
                    codes::DUPLICATE,
                    &at,
                    item.line,
                    "stands in the list twice".to_owned(),
                    "keep one of them",
                );
            }
            seen.push(&item.kind);
        }
        if schema["format"] == "subnets" && items.len() < 2 {
            let message = format!(
                "has {} where EKS needs at least two",
                if items.is_empty() { "no subnet" } else { "one subnet" }
            );
            self.problem(
                codes::TOO_FEW_SUBNETS,
                path,
                line,
                message,
                "add a subnet of the same VPC in another availability zone",
            );
            return Value::Array(out);
        }
        if (items.len() as u64) < fewest {
            let message = format!("has {} items, at least {fewest} are wanted", items.len());
            self.problem(codes::WRONG_VALUE, path, line, message, format!("give at least {fewest}"));
        }
        Value::Array(out)
    }

    fn text(&mut self, text: &str, schema: &Value, path: &str, line: u32) -> Option<Value> {
        let format = schema["format"].as_str().unwrap_or_default();
        if !formats::holds(format, text) {
            // A URL may carry a password, and a long text may be a misplaced key.
            let shown = text.len() <= 80 && !text.contains('@') && format != "user-data";
            let message = if shown { format!("{text:?} does not fit") } else { "does not fit".to_owned() };
            self.problem(codes::WRONG_VALUE, path, line, message, format!("wanted is {}", wanted(schema)));
            return None;
        }
        Some(json!(text))
    }

    fn number(&mut self, number: i64, schema: &Value, path: &str, line: u32) -> Option<Value> {
        let least = schema["minimum"].as_i64().unwrap_or(i64::MIN);
        let most = schema["maximum"].as_i64().unwrap_or(i64::MAX);
        if number < least || number > most {
            let help = format!("write a whole number from {least} to {most}");
            self.problem(codes::WRONG_VALUE, path, line, format!("{number} is out of range"), help);
            return None;
        }
        Some(json!(number))
    }

    fn choice(&mut self, node: &Node, choices: &[&str], path: &str) -> Option<Value> {
        let known = choices.join(", ");
        // A version such as 3.11 reads as a number; it is the text of a choice or nothing.
        let text = match &node.kind {
            Kind::Text(text) => text.clone(),
            Kind::Float(number) if choices.contains(&number.to_string().as_str()) => number.to_string(),
            kind => {
                let message = format!("is {}, wanted is one of: {known}", kind.name());
                let quoted = if matches!(kind, Kind::Float(_)) { ", in quotes" } else { "" };
                self.problem(
                    codes::WRONG_VALUE,
                    path,
                    node.line,
                    message,
                    format!("write one of: {known}{quoted}"),
                );
                return None;
            }
        };
        if choices.contains(&text.as_str()) {
            return Some(json!(text));
        }
        let help = match nearest(&text, choices.iter().copied()) {
            Some(near) => format!("did you mean `{near}`? known are: {known}"),
            None => format!("known are: {known}"),
        };
        self.problem(codes::WRONG_VALUE, path, node.line, format!("{text:?} is not known here"), help);
        None
    }

    /// A mapping whose `kind` says which further keys it has.
    fn tagged(&mut self, node: &Node, schema: &'a Value, path: &str) -> Option<Value> {
        let variants = schema["oneOf"].as_array()?;
        let kind_of = |variant: &'a Value| variant["properties"]["kind"]["const"].as_str();
        let known: Vec<&str> = variants.iter().filter_map(kind_of).collect();
        let Kind::Map(entries) = &node.kind else {
            let message = format!("is {}, wanted is a mapping with `kind:`", node.kind.name());
            self.problem(
                codes::WRONG_VALUE,
                path,
                node.line,
                message,
                format!("write `kind:` with one of: {}", known.join(", ")),
            );
            return None;
        };
        let Some(entry) = entries.iter().find(|e| e.key == "kind") else {
            let help = format!("add `kind:` with one of: {}", known.join(", "));
            self.problem(codes::MISSING_KEY, &below(path, "kind"), node.line, "is missing".to_owned(), help);
            return None;
        };
        let at = below(path, "kind");
        let kind = self.choice(&entry.value, &known, &at)?;
        let variant = variants.iter().find(|v| kind_of(v) == kind.as_str())?;
        Some(self.object(entries, variant, path, node.line))
    }

    fn any_object(&mut self, node: &Node, path: &str) -> Option<Value> {
        if !matches!(node.kind, Kind::Map(_)) {
            let message = format!("is {}, wanted is a mapping", node.kind.name());
            self.problem(codes::WRONG_VALUE, path, node.line, message, "write the JSON that is merged in");
            return None;
        }
        Some(plain(&node.kind))
    }
}

/// The tree as JSON, as it is.
fn plain(kind: &Kind) -> Value {
    match kind {
        Kind::Null => Value::Null,
        Kind::Bool(value) => json!(value),
        Kind::Int(value) => json!(value),
        Kind::Float(value) => json!(value),
        Kind::Text(value) => json!(value),
        Kind::List(items) => items.iter().map(|n| plain(&n.kind)).collect(),
        Kind::Map(entries) => {
            Value::Object(entries.iter().map(|e| (e.key.clone(), plain(&e.value.kind))).collect())
        }
    }
}
