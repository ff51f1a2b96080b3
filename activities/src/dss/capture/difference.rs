//! One template against one live object.

use serde_json::{Map, Value};

use crate::dss::redaction::redaction;

/// What to make of differences.
#[derive(Clone, Copy)]
pub(super) struct Rules<'a> {
    /// Keys whose spelling or value is a guess of ours, by path; `*` is one key, and all below counts.
    pub(super) guessed: &'a [&'a str],
    /// Keys that another step writes into the same object.
    pub(super) known: &'a Value,
    /// Whether a value of a key we do not know can stand for one of ours that is missing.
    pub(super) belongs: &'a (dyn Fn(&Value) -> bool + Send + Sync),
    /// The placeholder that stands for a text.
    pub(super) placeholder: &'a (dyn Fn(&str) -> Option<String> + Send + Sync),
}

impl Default for Rules<'_> {
    fn default() -> Self {
        Self { guessed: &[], known: &Value::Null, belongs: &|_| true, placeholder: &|_| None }
    }
}

/// What differs.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Difference {
    /// What makes the template fit; `None` when it does.
    pub(super) overlay: Option<Value>,
    /// What is no matter of spelling.
    pub(super) notes: Vec<String>,
}

/// Words in the names of keys whose values are never shown.
const SECRET_WORDS: &[&str] =
    &["secret", "password", "passwd", "passphrase", "token", "accesskey", "privatekey", "apikey", "ticket"];

/// Whether a key or its value is one that is never shown.
fn is_secret(key: &str, value: &Value) -> bool {
    let key: String =
        key.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| key.contains(word))
        || value.as_str().is_some_and(|text| redaction(text).is_some())
}

/// Compares.
pub(super) fn find(template: &Value, live: &Value, rules: &Rules<'_>) -> Difference {
    let mut notes = Vec::new();
    let overlay = object("", template, live, rules, rules.known, &mut notes);
    Difference { overlay, notes }
}

fn fits(pattern: &str, path: &str) -> bool {
    let mut keys = path.split('/');
    pattern.split('/').all(|wanted| keys.next().is_some_and(|key| wanted == "*" || wanted == key))
}

fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}/{key}") }
}

fn name(item: &Value) -> Option<&str> {
    item.get("name").or_else(|| item.get("key"))?.as_str()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) | Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

fn object(
    path: &str,
    template: &Value,
    live: &Value,
    rules: &Rules<'_>,
    known: &Value,
    notes: &mut Vec<String>,
) -> Option<Value> {
    let (Value::Object(wanted), Value::Object(held)) = (template, live) else { return None };
    let mut overlay = Map::new();
    let mut missing = false;
    for (key, want) in wanted {
        let at = below(path, key);
        let Some(have) = held.get(key) else {
            // An absent key and one that holds nothing are the same to DSS.
            if !is_empty(want) {
                overlay.insert(key.clone(), Value::Null);
                missing = true;
            }
            continue;
        };
        if same(want, have) {
            continue;
        }
        let deeper = match (want, have) {
            (Value::Object(_), Value::Object(_)) => object(&at, want, have, rules, &known[key], notes),
            (Value::Array(want), Value::Array(have)) if named(want) && have.iter().all(Value::is_object) => {
                list(&at, want, have, rules, notes)
            }
            _ if is_secret(key, have) => None,
            _ if rules.guessed.iter().any(|pattern| fits(pattern, &at)) => Some(shown(have, rules)),
            _ => {
                notes.push(format!(
                    "{at} is {have} in DSS, the site makes it {want}: a choice, not a spelling"
                ));
                None
            }
        };
        if let Some(deeper) = deeper {
            overlay.insert(key.clone(), deeper);
        }
    }
    if missing {
        for (key, have) in held {
            let is_ours = wanted.contains_key(key) || known.get(key).is_some();
            if is_ours || is_empty(have) || !(rules.belongs)(have) {
                continue;
            }
            if is_secret(key, have) {
                notes.push(format!("{} looks like a secret and is left out", below(path, key)));
            } else {
                overlay.insert(key.clone(), shown(have, rules));
            }
        }
    }
    (!overlay.is_empty()).then_some(Value::Object(overlay))
}

fn named(items: &[Value]) -> bool {
    !items.is_empty() && items.iter().all(|item| name(item).is_some())
}

fn list(
    path: &str,
    wanted: &[Value],
    held: &[Value],
    rules: &Rules<'_>,
    notes: &mut Vec<String>,
) -> Option<Value> {
    let mut overlay = Vec::new();
    for want in wanted {
        let id = name(want).unwrap_or_default();
        let Some(have) = held.iter().find(|item| name(item) == Some(id)) else {
            notes.push(format!("{path} has no {id}"));
            continue;
        };
        if let Some(Value::Object(mut found)) =
            object(&format!("{path}/[{id}]"), want, have, rules, &Value::Null, notes)
        {
            let key = if want.get("name").is_some() { "name" } else { "key" };
            found.shift_insert(0, key.to_owned(), Value::from(id));
            overlay.push(Value::Object(found));
        }
    }
    (!overlay.is_empty()).then_some(Value::Array(overlay))
}

/// Equality in which 1 and 1.0 are the same, and so are all forms of nothing.
fn same(want: &Value, have: &Value) -> bool {
    match (want, have) {
        (Value::Number(want), Value::Number(have)) => want == have || want.as_f64() == have.as_f64(),
        (want, have) => want == have || is_empty(want) && is_empty(have),
    }
}

/// A live value as it may be shown: names become placeholders, secrets vanish.
fn shown(value: &Value, rules: &Rules<'_>) -> Value {
    match value {
        Value::String(text) => Value::String((rules.placeholder)(text).unwrap_or_else(|| text.clone())),
        Value::Array(items) => Value::Array(items.iter().map(|item| shown(item, rules)).collect()),
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .filter(|(key, value)| !is_secret(key, value))
                .map(|(key, value)| (key.clone(), shown(value, rules)))
                .collect(),
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_that_are_gone_are_taken_out_and_what_stands_there_instead_is_put_in() {
        let template = json!({"to": {"flavor": "GLUE", "glueConnection": "s3", "empty": []}, "list": [{"name": "a", "x": 1, "gone": 2}]});
        let live = json!({"to": {"flavor": "AWS_GLUE", "connectionName": "s3", "unused": "", "password": "p"},
                          "list": [{"name": "a", "x": 1.0, "come": 2}, {"name": "theirs"}], "other": 1});
        let rules = Rules { guessed: &["to/*"], ..Rules::default() };
        let found = find(&template, &live, &rules);
        assert_eq!(
            found.overlay,
            Some(json!({"to": {"flavor": "AWS_GLUE", "glueConnection": null, "connectionName": "s3"},
                        "list": [{"name": "a", "gone": null, "come": 2}]}))
        );
        assert_eq!(found.notes, ["to/password looks like a secret and is left out"]);
    }

    #[test]
    fn secrets_are_known_by_name_and_by_form() {
        for key in ["secretKey", "access-key", "sessionToken", "bindPassword", "api_key"] {
            assert!(is_secret(key, &json!("x")), "{key}");
        }
        assert!(is_secret("anything", &json!("e:AES:00")));
        for key in ["credentialsMode", "glueCredentialsMode", "keyspace", "s3OutputLocation"] {
            assert!(!is_secret(key, &json!("x")), "{key}");
        }
    }
}
