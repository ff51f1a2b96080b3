//! Overlays of the site, filled in for one object each.
//!
//! An overlay goes into every object of its kind. What differs from object to object stands in it as a placeholder,
//! `{{s3_connection}}` for the name of the S3 connection, so that one overlay fits all pairs.

use dssflow_activities::dss::capture::{Subject, Template};
use dssflow_engine::graph::{Binding, StepKind};
use serde_json::Value;

use crate::site::{Connection, Overlays, Site, SiteErrors};

/// The placeholders, and what each stands for.
pub const PLACEHOLDERS: &[(&str, &str)] = &[
    ("s3_connection", "the name of the S3 connection"),
    ("athena_connection", "the name of the Athena connection of the pair"),
    ("glue_database", "the Glue database of the S3 connection"),
    ("bucket", "the bucket of the S3 connection"),
    ("region", "the AWS region"),
    ("registry", "the image registry with its prefix"),
];

/// What placeholders stand for in one object.
#[derive(Debug, Clone, Default)]
pub struct Names(Vec<(&'static str, String)>);

impl Names {
    /// In an object of the whole instance.
    pub fn of_site(site: &Site) -> Self {
        Self(vec![("region", site.region.clone()), ("registry", site.registry_url())])
    }

    /// In an object of a connection: the S3 connection, its pair, the link between them, the metastore that uses it.
    pub fn of_connection(site: &Site, connection: &Connection) -> Self {
        let mut names = Self::of_site(site).0;
        names.push(("s3_connection", connection.name.clone()));
        names.push(("glue_database", connection.glue_database.clone()));
        names.push(("bucket", connection.bucket.clone()));
        if let Some(athena) = &connection.athena {
            names.push(("athena_connection", athena.name.clone()));
        }
        Self(names)
    }

    /// In what `subject` names: a connection of the site from either side of the pair, else the whole instance, whose
    /// metastore uses one connection.
    pub fn of_subject(site: &Site, subject: &Subject) -> Self {
        let connection = match subject {
            Subject::Connection(name) => site.connections.iter().find(|connection| {
                connection.name == *name
                    || connection.athena.as_ref().is_some_and(|athena| athena.name == *name)
            }),
            Subject::GeneralSettings => site.glue_connection(),
            Subject::Plugin(_) | Subject::Cluster(_) => None,
        };
        connection.map_or_else(|| Self::of_site(site), |connection| Self::of_connection(site, connection))
    }

    /// The overlay with its placeholders filled in. A key whose placeholder stands for nothing here is left out: an S3
    /// connection without a pair names none.
    pub fn fill(&self, overlay: Option<&Value>) -> Option<Value> {
        overlay.and_then(|overlay| self.filled(overlay))
    }

    fn filled(&self, value: &Value) -> Option<Value> {
        Some(match value {
            Value::String(text) => Value::String(self.text(text)?),
            Value::Array(items) => Value::Array(items.iter().filter_map(|item| self.filled(item)).collect()),
            Value::Object(fields) => Value::Object(
                fields.iter().filter_map(|(key, value)| Some((key.clone(), self.filled(value)?))).collect(),
            ),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        })
    }

    fn text(&self, text: &str) -> Option<String> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, name, after)) = next(rest) {
            let (_, value) = self.0.iter().find(|(known, _)| *known == name)?;
            filled.push_str(before);
            filled.push_str(value);
            rest = after;
        }
        filled.push_str(rest);
        Some(filled)
    }

    /// The text as an overlay for every object of the kind would write it: a name that is one of these becomes its
    /// placeholder.
    pub fn generalised(&self, text: &str) -> Option<String> {
        // The connections' names come last and say most.
        self.0
            .iter()
            .rev()
            .find(|(_, value)| !value.is_empty() && value == text)
            .map(|(name, _)| format!("{{{{{name}}}}}"))
    }
}

/// What the steps of a site would write into DSS without its overlays, to compare live objects with.
///
/// # Errors
/// As [`bootstrap`](super::bootstrap).
pub fn templates(site: &Site) -> Result<Vec<Template>, SiteErrors> {
    let plain = Site { overlays: Overlays::default(), ..site.clone() };
    let workflow = super::bootstrap(&plain)?;
    let of_step = |kind: &StepKind| match kind {
        StepKind::Activity { activity, input: Binding::Literal { value } } => {
            Template::of_step(activity.as_str(), value)
        }
        _ => None,
    };
    Ok(workflow.graph.steps().iter().filter_map(|step| of_step(&step.kind)).collect())
}

/// The next placeholder: what stands before it, its name, what comes after.
fn next(text: &str) -> Option<(&str, &str, &str)> {
    let start = text.find("{{")?;
    let end = start + text[start..].find("}}")?;
    Some((&text[..start], text[start + 2..end].trim(), &text[end + 2..]))
}

/// Placeholders of an overlay that stand for nothing anywhere, with the keys that lead to them.
pub(crate) fn unknown(overlay: &Value, path: &str, found: &mut Vec<(String, String)>) {
    match overlay {
        Value::String(text) => {
            let mut rest = text.as_str();
            while let Some((_, name, after)) = next(rest) {
                if !PLACEHOLDERS.iter().any(|(known, _)| *known == name) {
                    found.push((path.to_owned(), name.to_owned()));
                }
                rest = after;
            }
        }
        Value::Array(items) => {
            for (ix, item) in items.iter().enumerate() {
                unknown(item, &format!("{path}[{ix}]"), found);
            }
        }
        Value::Object(fields) => {
            for (key, value) in fields {
                unknown(value, &format!("{path}.{key}"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names() -> Names {
        Names(vec![("region", "eu-west-1".into()), ("s3_connection", "s3-main".into())])
    }

    #[test]
    fn placeholders_are_filled_in_wherever_they_stand() {
        let overlay = json!({"a": "{{ s3_connection }}", "b": ["x-{{region}}-{{s3_connection}}", 1], "c": null, "d": "{{"});
        assert_eq!(
            names().fill(Some(&overlay)),
            Some(json!({"a": "s3-main", "b": ["x-eu-west-1-s3-main", 1], "c": null, "d": "{{"}))
        );
        assert_eq!(names().fill(None), None);
        let unpaired = json!({"params": {"athena": "{{athena_connection}}", "kept": true}});
        assert_eq!(names().fill(Some(&unpaired)), Some(json!({"params": {"kept": true}})));
    }

    #[test]
    fn every_kind_of_overlay_has_a_template() {
        let text = include_str!("../../examples/site.yaml");
        let site = crate::site::parse(text, "site.yaml").expect("the example is right");
        let found = templates(&site).expect("a graph");
        let pairs = site.connections.iter().filter(|connection| connection.athena.is_some()).count();
        // Two for each pair beside its S3 connection; metastore, containers, Spark, presets, cluster.
        assert_eq!(found.len(), site.connections.len() + 2 * pairs + 5);
    }

    #[test]
    fn names_become_placeholders_and_unknown_ones_are_found() {
        assert_eq!(names().generalised("s3-main").as_deref(), Some("{{s3_connection}}"));
        assert_eq!(names().generalised("s3-main-2"), None);
        let mut found = Vec::new();
        unknown(&json!({"a": ["{{s3_conection}}", "{{region}}"]}), "overlays.athena_link", &mut found);
        assert_eq!(found, [("overlays.athena_link.a[0]".to_owned(), "s3_conection".to_owned())]);
    }
}
