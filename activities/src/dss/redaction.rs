//! Secrets that DSS gives back unreadable: recognised wherever they stand, so that none is written over a real one.
//!
//! Two forms are known. An *encrypted* value (`e:AES:…`) is what DSS itself keeps; Dataiku's own client reads the
//! general settings, changes them and writes them back with such values in them, so a document that others edit too
//! carries them through. A *masked* value (`*****`) stands for something that cannot be given back at all: a document
//! with one cannot be written without losing the secret, and is not. A connection is written with neither: its secrets
//! are the site's, and come from there.

use serde_json::Value;

/// What a text says of the secret it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Redaction {
    /// As DSS keeps it.
    Encrypted,
    /// In place of it.
    Masked,
}

/// Where a document holds an unreadable secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreadable {
    /// The keys that lead there, joined by `/`; list items by their name or number.
    pub(crate) path: String,
    pub(crate) form: Redaction,
}

/// Words that stand where a secret was.
const WORDS: &[&str] = &["redacted", "hidden", "masked", "encrypted", "secret"];

/// Whether a text is a secret made unreadable.
pub(crate) fn redaction(text: &str) -> Option<Redaction> {
    let mut parts = text.splitn(3, ':');
    if parts.next() == Some("e")
        && parts.next().is_some_and(|kind| kind.len() >= 3 && kind.chars().all(|c| c.is_ascii_alphanumeric()))
        && parts.next().is_some_and(|rest| !rest.is_empty())
    {
        return Some(Redaction::Encrypted);
    }
    let shape = |c: char| matches!(c, '*' | '\u{2022}' | '\u{25cf}');
    if text.chars().count() >= 3 && text.chars().all(shape) {
        return Some(Redaction::Masked);
    }
    let bare = text.strip_prefix(['<', '[', '(']).and_then(|text| text.strip_suffix(['>', ']', ')']));
    let is_word = |word: &str| WORDS.contains(&word.to_ascii_lowercase().as_str());
    bare.is_some_and(is_word).then_some(Redaction::Masked)
}

/// Every unreadable secret of a document.
pub(crate) fn unreadable(document: &Value) -> Vec<Unreadable> {
    let mut found = Vec::new();
    walk(document, &mut String::new(), &mut found);
    found
}

fn walk(value: &Value, path: &mut String, found: &mut Vec<Unreadable>) {
    let length = path.len();
    let mut below = |key: &str, value: &Value| {
        if length > 0 {
            path.push('/');
        }
        path.push_str(key);
        walk(value, path, found);
        path.truncate(length);
    };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| below(key, value)),
        Value::Array(items) => {
            for (ix, item) in items.iter().enumerate() {
                match item.get("name").or_else(|| item.get("key")).and_then(Value::as_str) {
                    Some(name) => below(&format!("[{name}]"), item),
                    None => below(&ix.to_string(), item),
                }
            }
        }
        Value::String(text) => {
            if let Some(form) = redaction(text) {
                found.push(Unreadable { path: path.clone(), form });
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_forms_are_known_and_plain_texts_are_not() {
        for text in ["e:AES:0a1b", "e:AESGCM256:x:y", "e:KMS:arn:aws"] {
            assert_eq!(redaction(text), Some(Redaction::Encrypted), "{text}");
        }
        for text in ["*****", "***", "\u{2022}\u{2022}\u{2022}\u{2022}", "<redacted>", "[HIDDEN]"] {
            assert_eq!(redaction(text), Some(Redaction::Masked), "{text}");
        }
        for text in
            ["", "*", "**", "e:AES:", "e:A:x", "e::", "https://x", "*.log", "AKIA***", "(x)", "e", "secret"]
        {
            assert_eq!(redaction(text), None, "{text}");
        }
    }

    #[test]
    fn they_are_found_wherever_they_stand() {
        let document = json!({"ldap": {"password": "*****"}, "list": [{"name": "a", "key": "e:AES:00"}, "e:AES:11"], "x": 1});
        let paths: Vec<String> = unreadable(&document).into_iter().map(|found| found.path).collect();
        assert_eq!(paths, ["ldap/password", "list/[a]/key", "list/1"]);
    }
}
