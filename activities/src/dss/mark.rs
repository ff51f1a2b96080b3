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
    let Some((start, end)) = span(text) else { return Owner::Foreign };
    let fields: Vec<(&str, String)> = fields(&text[start..end]).collect();
    marks.owner_by(fields.iter().map(|(key, value)| (*key, value.as_str())))
}

/// A field that stands in the mark beside whose the thing is.
pub(crate) fn field(text: &str, key: &str) -> Option<String> {
    let (start, end) = span(text)?;
    fields(&text[start..end]).find(|(known, _)| *known == key).map(|(_, value)| value)
}

/// `text` with a field put into its mark, or changed there. A text without a mark stays as it is.
pub(crate) fn with_field(text: &str, key: &str, value: &str) -> String {
    let Some((start, end)) = span(text) else { return text.to_owned() };
    let known =
        text[start..end].split(';').filter(|field| field.split_once('=').is_none_or(|(k, _)| k != key));
    let mut fields: Vec<String> = known.map(str::to_owned).collect();
    fields.push(format!("{key}={}", encoded(value)));
    format!("{}{}{}", &text[..start], fields.join(";"), &text[end..])
}

/// Where the mark's fields begin and end.
fn span(text: &str) -> Option<(usize, usize)> {
    let start = text.rfind(OPEN)? + 1;
    let end = start + text[start..].find(']')?;
    Some((start, end))
}

fn fields(inside: &str) -> impl Iterator<Item = (&str, String)> {
    inside.split(';').filter_map(|field| field.split_once('=')).map(|(key, value)| (key, decoded(value)))
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

    #[test]
    fn a_field_is_put_in_and_changed_and_the_owner_stays() {
        let ours = marks("r", "site");
        let text = marked("theirs", &ours);
        assert_eq!(field(&text, "dssflow:secret"), None);
        let sealed = with_field(&with_field(&text, "dssflow:secret", "a=1"), "dssflow:secret", "b;2");
        assert_eq!(field(&sealed, "dssflow:secret").as_deref(), Some("b;2"));
        assert_eq!(sealed.matches("dssflow:secret").count(), 1);
        assert_eq!(owner(&sealed, &ours), Owner::ThisRun);
        assert!(sealed.starts_with("theirs\n["));
        assert_eq!(with_field("by hand", "k", "v"), "by hand");
    }
}
