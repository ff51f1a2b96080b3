//! Ownership marks in things that carry only text, as a connection's or a group's description.
//!
//! The mark is the last line of the text: `[dssflow:store=...;dssflow:site=...;...]`, values percent-encoded where
//! they would break it. What stands before it is the operator's.

use dssflow_engine::activity::{Marks, Owner};
use serde_json::Value;

const OPEN: &str = "[dssflow:";

/// `text` with the mark behind it.
pub(crate) fn marked(text: &str, marks: &Marks) -> String {
    let fields: Vec<String> =
        marks.tags().iter().map(|(key, value)| format!("{key}={}", encoded(value))).collect();
    let mark = format!("[{}]", fields.join(";"));
    if text.is_empty() { mark } else { format!("{text}\n{mark}") }
}

/// Whose a thing with this text is.
pub(crate) fn owner(text: &str, marks: &Marks) -> Owner {
    let Some(start) = text.rfind(OPEN) else { return Owner::Foreign };
    let inside = &text[start + 1..];
    let Some(end) = inside.find(']') else { return Owner::Foreign };
    let fields: Vec<(&str, String)> = inside[..end]
        .split(';')
        .filter_map(|field| field.split_once('='))
        .map(|(key, value)| (key, decoded(value)))
        .collect();
    marks.owner_by(fields.iter().map(|(key, value)| (*key, value.as_str())))
}

/// Whose a JSON object is by its `description`.
pub(crate) fn owner_of(object: &Value, marks: &Marks) -> Owner {
    owner(object["description"].as_str().unwrap_or_default(), marks)
}

/// Whose a thing is by a JSON object of tags.
pub(crate) fn owner_by_tags(tags: &Value, marks: &Marks) -> Owner {
    let fields = tags.as_object().into_iter().flatten();
    marks.owner_by(fields.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))))
}

fn encoded(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '%' | ';' | '[' | ']' | '=' | '\n' | '\r' | '\t' => {
                text.push('%');
                text.push_str(&hex::encode([u8::try_from(c).expect("these are all ASCII")]));
            }
            c => text.push(c),
        }
    }
    text
}

fn decoded(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find('%') {
        text.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let Some(code) = code {
            text.push(char::from(code));
            rest = &rest[at + 3..];
        } else {
            text.push('%');
            rest = &rest[at + 1..];
        }
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(run: &str, site: &str) -> Marks {
        Marks { store: "s".into(), site: site.into(), run: run.into(), step: "x".into(), generation: 1 }
    }

    #[test]
    fn a_mark_survives_the_text_around_it_and_odd_values() {
        let ours = marks("r;1]", "my site=1%");
        let text = marked("data of the [sales] team", &ours);
        assert!(text.starts_with("data of the [sales] team\n[dssflow:store=s;"));
        assert_eq!(owner(&text, &ours), Owner::ThisRun);
        assert_eq!(owner(&text, &marks("r2", "my site=1%")), Owner::ThisSite("r;1]".into()));
        assert_eq!(owner(&text, &marks("r2", "elsewhere")), Owner::Foreign);
        assert_eq!(owner("managed by hand", &ours), Owner::Foreign);
    }
}
