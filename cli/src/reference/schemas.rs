//! What has a JSON Schema, as tables: the files that workflows take, and the events of a history.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{MADE, cell, is_written};
use crate::catalog;

/// Shows the schemas of one page.
struct Page<'a> {
    definitions: &'a Map<String, Value>,
    /// Types that the page must show, and those that it has shown.
    wanted: BTreeSet<String>,
    shown: BTreeSet<String>,
    out: String,
}

fn text(schema: &Value) -> String {
    cell(schema["description"].as_str().unwrap_or_default())
}

/// The tag of a variant: `type` and its value.
fn tag(variant: &Value) -> Option<(&str, &str)> {
    let properties = variant["properties"].as_object()?;
    properties.iter().find_map(|(name, value)| Some((name.as_str(), value["const"].as_str()?)))
}

impl<'a> Page<'a> {
    fn new(title: &str, about: &str, definitions: &'a Map<String, Value>) -> Self {
        let out = format!("# {title}\n\n{MADE}\n\n{about}\n");
        Self { definitions, wanted: BTreeSet::new(), shown: BTreeSet::new(), out }
    }

    /// What a value may be, in a few words.
    fn kind(&mut self, schema: &Value) -> String {
        if schema["format"] == "secret-ref" {
            return "[secret](../site.md#secrets)".to_owned();
        }
        if let Some(to) = schema["$ref"].as_str() {
            let name = to.rsplit('/').next().unwrap().to_owned();
            let link = format!("[{name}](#{})", name.to_lowercase());
            self.wanted.insert(name);
            return link;
        }
        for choice in ["anyOf", "oneOf"] {
            if let Some(choices) = schema[choice].as_array() {
                let not_null = choices.iter().filter(|choice| choice["type"] != "null");
                let kinds: BTreeSet<String> = not_null.map(|choice| self.kind(choice)).collect();
                return kinds.into_iter().collect::<Vec<_>>().join(" or ");
            }
        }
        if let Some(value) = schema.get("const") {
            return format!("`{value}`");
        }
        let mut types: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(all) => {
                all.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect()
            }
            _ => return "anything".to_owned(),
        };
        let kind = types.pop().unwrap_or("anything");
        let bounds = match (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
            (Some(low), Some(high)) => format!(" {low} to {high}"),
            (Some(low), None) if low > 0 => format!(" from {low}"),
            _ => String::new(),
        };
        match kind {
            "array" => format!("list of {}", self.kind(&schema["items"])),
            "object" if schema["additionalProperties"].is_object() => {
                format!("{} by name", self.kind(&schema["additionalProperties"]))
            }
            "string" => match schema["format"].as_str() {
                Some(format) if format != "text" => format.replace('-', " "),
                _ => "text".to_owned(),
            },
            kind => format!("{kind}{bounds}"),
        }
    }

    fn table(&mut self, schema: &Value) {
        let Some(properties) = schema["properties"].as_object() else { return };
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let rows = properties.iter().filter(|(_, value)| value.get("const").is_none());
        let mut head = "\n| key | is | default | what |\n|---|---|---|---|\n";
        for (name, value) in rows {
            self.out.push_str(std::mem::take(&mut head));
            let kind = self.kind(value);
            let default = match value.get("default") {
                Some(default) if default.is_string() => format!("`{}`", default.as_str().unwrap()),
                Some(default) if !default.is_null() => format!("`{default}`"),
                _ if required.contains(&name.as_str()) => "**required**".to_owned(),
                _ => String::new(),
            };
            writeln!(self.out, "| `{name}` | {kind} | {default} | {} |", text(value)).unwrap();
        }
    }

    fn list(&mut self, values: &[Value]) {
        for value in values {
            write!(self.out, "\n- `{}`", value.as_str().unwrap()).unwrap();
        }
    }

    /// A type, `level` marks below the title.
    fn add(&mut self, schema: &Value, level: &str) {
        self.table(schema);
        for variant in schema["oneOf"].as_array().into_iter().flatten() {
            let about = text(variant);
            if let Some((name, value)) = tag(variant) {
                write!(self.out, "\n{level} {value}\n\n`{name}: {value}`. {about}\n").unwrap();
                self.table(variant);
            } else if let Some(value) = variant["const"].as_str() {
                write!(self.out, "\n- `{value}`: {about}").unwrap();
            } else if let Some(values) = variant["enum"].as_array() {
                self.list(values);
            } else {
                let kind = self.kind(variant);
                write!(self.out, "\n- {kind} {about}").unwrap();
                self.table(variant);
            }
        }
        if let Some(values) = schema["enum"].as_array() {
            self.list(values);
        }
        if !self.out.ends_with('\n') {
            self.out.push('\n');
        }
    }

    /// The types that are spoken of, and those that these speak of.
    fn finish(mut self) -> String {
        while let Some(name) = self.wanted.difference(&self.shown).next().cloned() {
            let schema = &self.definitions[&name];
            let about = text(schema);
            let plain =
                schema["properties"].is_null() && schema["oneOf"].is_null() && schema["enum"].is_null();
            let kind = if plain { format!(" It is {}.", self.kind(schema)) } else { String::new() };
            write!(self.out, "\n## {name}\n\n{}\n", format!("{about}{kind}").trim()).unwrap();
            self.shown.insert(name);
            self.add(schema, "###");
        }
        self.out
    }
}

#[test]
fn every_key_of_a_file_is_in_the_docs() {
    for (workflow, page, title, about) in [
        ("bootstrap", "site.md", "Every key of site.yaml", "[The site file](../site.md) is the guide to it."),
        ("image", "image.md", "Every key of image.yaml", "[Images](../images.md) is the guide to it."),
        (
            "glue-resync",
            "resync.md",
            "Every key of resync.yaml",
            "[glue-resync](../glue-resync.md) is the guide to it.",
        ),
    ] {
        let schema = catalog::schema(workflow).unwrap();
        let about =
            format!("{about} `dssflow workflows schema {workflow}` prints the JSON Schema, for editors.");
        let mut shown = Page::new(title, &about, schema["$defs"].as_object().unwrap());
        shown.add(&schema, "###");
        let shown = shown.finish();
        for name in schema["properties"].as_object().unwrap().keys() {
            assert!(shown.contains(&format!("| `{name}` |")), "{page}: {name}");
        }
        is_written(page, &shown);
    }
}

#[test]
fn every_event_is_in_the_docs() {
    let document = crate::api::openapi::document();
    let definitions = document["components"]["schemas"].as_object().unwrap();
    let about = "[What a run's history holds](../events.md) is the guide to it: which format has what, and what follows what. \
                 `dssflow runs events RUN -o jsonl` prints these objects, one a line.";
    let mut page = Page::new("Every event", about, definitions);
    let event = &definitions["Event"];
    page.add(event, "##");
    let guide = include_str!("../../../docs/events.md");
    let types: Vec<&str> =
        event["oneOf"].as_array().unwrap().iter().filter_map(tag).map(|(_, value)| value).collect();
    assert!(types.len() > 20, "{types:?}");
    for name in types {
        assert!(guide.contains(&format!("`{name}`")), "docs/events.md does not name {name}");
    }
    is_written("events.md", &page.finish());
}
