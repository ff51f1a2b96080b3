//! Where a secret is, or where one is to be put. Never repeats what stands there instead: it may be the secret.

use serde_json::{Map, Value, json};

use super::super::node::{Entry, Kind, Node};
use super::super::{codes, formats};
use super::{FILL_IN, Walk, below, nearest};

/// What may stand at a place for secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Where a secret is.
    Reference,
    /// Where one is, or `sink:` with where a new one goes.
    ReferenceOrSink,
    /// Where a new one goes.
    Sink,
}

impl Place {
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Reference => &["env", "file", "secrets_manager", "key", "ssm"],
            Self::ReferenceOrSink => &["env", "file", "secrets_manager", "key", "ssm", "sink"],
            Self::Sink => &["file", "secrets_manager", "ssm"],
        }
    }

    fn help(self) -> &'static str {
        match self {
            Self::Reference => "{env: NAME}, {file: PATH}, {secrets_manager: ID} or {ssm: NAME}",
            Self::ReferenceOrSink => {
                "{sink: {file: PATH}} for a key that dssflow makes; {env: NAME}, {file: PATH}, {secrets_manager: ID} or \
                 {ssm: NAME} for one you bring"
            }
            Self::Sink => "{file: PATH}, {secrets_manager: NAME} or {ssm: NAME}",
        }
    }
}

impl Walk<'_> {
    pub(super) fn secret(&mut self, node: &Node, path: &str, place: Place) -> Option<Value> {
        let Kind::Map(entries) = &node.kind else {
            let message = match node.kind {
                Kind::Null | Kind::List(_) => "is no reference to a secret".to_owned(),
                _ => "has a value where a reference to a secret belongs".to_owned(),
            };
            let help = format!("take the value out of the file and say where it is: {}", place.help());
            self.problem(codes::PLAINTEXT_SECRET, path, node.line, message, help);
            return None;
        };
        if place == Place::ReferenceOrSink
            && let [Entry { key, value, .. }] = entries.as_slice()
            && key == "sink"
        {
            let sink = self.secret(value, &below(path, "sink"), Place::Sink)?;
            return Some(json!({ "sink": sink }));
        }
        let mut out = Map::new();
        for entry in entries {
            let at = below(path, &entry.key);
            if let Some(text) = self.secret_entry(entry, &at, place)
                && out.insert(entry.key.clone(), json!(text)).is_some()
            {
                self.problem(
                    codes::DUPLICATE,
                    &at,
                    entry.line,
                    "stands here a second time".to_owned(),
                    "keep one of them",
                );
            }
        }
        if out.len() < entries.len() {
            // One of them is wrong, which has been said.
            return None;
        }
        let places = out.keys().filter(|key| *key != "key").count();
        if places != 1 || (out.contains_key("key") && !out.contains_key("secrets_manager")) {
            let message = "must name exactly one place (`key` goes with `secrets_manager`)".to_owned();
            self.problem(codes::WRONG_VALUE, path, node.line, message, place.help());
            return None;
        }
        Some(Value::Object(out))
    }

    fn secret_entry<'e>(&mut self, entry: &'e Entry, at: &str, place: Place) -> Option<&'e str> {
        let (code, message, help) = match &entry.value.kind {
            _ if !place.keys().contains(&entry.key.as_str()) => {
                let help = nearest(&entry.key, place.keys().iter().copied()).map_or_else(
                    || format!("write {}", place.help()),
                    |near| format!("did you mean `{near}`?"),
                );
                (codes::UNKNOWN_KEY, "is not a known key".to_owned(), help)
            }
            Kind::Text(text) if text.to_lowercase().contains(FILL_IN) => {
                (codes::UNFILLED, "is not filled in yet".to_owned(), "write where the secret is".to_owned())
            }
            Kind::Text(text) if entry.key == "file" && !formats::holds("absolute-path", text) => (
                codes::WRONG_VALUE,
                "is not an absolute path".to_owned(),
                "write the whole path, from /".to_owned(),
            ),
            Kind::Text(text) if !text.is_empty() => return Some(text),
            Kind::Text(_) => (codes::WRONG_VALUE, "is empty".to_owned(), format!("write {}", place.help())),
            kind => (
                codes::WRONG_VALUE,
                format!("is {}, wanted is a text", kind.name()),
                format!("write {}", place.help()),
            ),
        };
        self.problem(code, at, entry.line, message, help);
        None
    }
}
