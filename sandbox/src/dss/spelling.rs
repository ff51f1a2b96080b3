//! Other spellings of what nobody could verify, at the border between the wire and the state.
//!
//! Inside, the fake uses the names of [`unverified`](super::unverified). Where a behaviour gives another spelling, that
//! one is renamed on its way in and out, and the usual one is what this DSS does not know: it is dropped.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::unverified;

/// Whose documents a spelling is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Document {
    /// The general settings.
    General,
    /// A connection of this type.
    Connection(&'static str),
}

/// What is spelled.
#[derive(Debug, Clone, Copy)]
enum What {
    /// The key of this name in the object at the path.
    Key(&'static str),
    /// This text at this key of the object at the path.
    Text(&'static str, &'static str),
}

struct Spelling {
    name: &'static str,
    document: Document,
    /// The keys that lead to the object; `*` is every item of a list.
    path: &'static [&'static str],
    what: What,
}

const METASTORE: &[&str] = &["metastoreCatalogsSettings", "synchronizeTo"];
const PARAMS: &[&str] = &["params"];
const PUSH: &[&str] = &["containerSettings", "buildConfigs", "*", "dockerBuilderConfig", "pushConfigs", "*"];
const RUNTIME: &[&str] = &["containerSettings", "executionConfigs", "*", "kubernetesRuntimeConfig"];
const SPARK: &[&str] = &["sparkSettings", "executionConfigs", "*", "kubernetesSettings"];

const fn spelling(
    name: &'static str,
    document: Document,
    path: &'static [&'static str],
    what: What,
) -> Spelling {
    Spelling { name, document, path, what }
}

const SPELLINGS: &[Spelling] = &[
    spelling("glue_flavor", Document::General, METASTORE, What::Text("flavor", unverified::GLUE_FLAVOR)),
    spelling(
        "glue_credentials_mode",
        Document::General,
        METASTORE,
        What::Text("glueCredentialsMode", unverified::GLUE_CREDENTIALS_MODE),
    ),
    spelling("glue_connection", Document::General, METASTORE, What::Key(unverified::GLUE_CONNECTION)),
    spelling(
        "s3_sync_mode",
        Document::Connection("EC2"),
        PARAMS,
        What::Text("metastoreSynchronizationMode", unverified::S3_SYNC_MODE),
    ),
    spelling(
        "s3_sync_database",
        Document::Connection("EC2"),
        PARAMS,
        What::Key(unverified::S3_SYNC_DATABASE),
    ),
    spelling(
        "s3_athena_connection",
        Document::Connection("EC2"),
        PARAMS,
        What::Key(unverified::S3_ATHENA_CONNECTION),
    ),
    spelling(
        "athena_s3_connection",
        Document::Connection("Athena"),
        PARAMS,
        What::Key(unverified::ATHENA_S3_CONNECTION),
    ),
    spelling(
        "athena_credentials_mode",
        Document::Connection("Athena"),
        PARAMS,
        What::Text("credentialsMode", unverified::ATHENA_CREDENTIALS_MODE),
    ),
    spelling("athena_output_location", Document::Connection("Athena"), PARAMS, What::Key("s3OutputLocation")),
    spelling(
        "athena_driver_directory",
        Document::Connection("Athena"),
        PARAMS,
        What::Key("driverJarsDirectory"),
    ),
    spelling("build_push_mode", Document::General, PUSH, What::Key("prePushMode")),
    spelling("execution_namespace", Document::General, RUNTIME, What::Key("kubernetesNamespace")),
    spelling("spark_registry", Document::General, SPARK, What::Key("repositoryURL")),
    spelling("spark_push_mode", Document::General, SPARK, What::Key("prePushMode")),
];

/// Refuses names that are not in the list.
pub(super) fn check(spellings: &BTreeMap<String, String>) -> Result<(), String> {
    let known: Vec<&str> = SPELLINGS.iter().map(|spelling| spelling.name).collect();
    match spellings.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(format!("there is no spelling {name:?}; known are: {}", known.join(", "))),
        None => Ok(()),
    }
}

/// A document from the wire, as the state keeps it.
pub(super) fn inward(spellings: &BTreeMap<String, String>, document: Document, value: &mut Value) {
    each(spellings, document, value, |fields, what, theirs| match what {
        What::Key(ours) => {
            // What is spelled as usual is not known here.
            fields.shift_remove(ours);
            if let Some(value) = fields.shift_remove(theirs) {
                fields.insert(ours.to_owned(), value);
            }
        }
        What::Text(key, ours) => {
            if fields.get(key).is_some_and(|text| text == ours) {
                fields.shift_remove(key);
            } else if fields.get(key).is_some_and(|text| text == theirs) {
                fields.insert(key.to_owned(), Value::from(ours));
            }
        }
    });
}

/// A document of the state, as this DSS shows it.
pub(super) fn outward(spellings: &BTreeMap<String, String>, document: Document, value: &mut Value) {
    each(spellings, document, value, |fields, what, theirs| match what {
        What::Key(ours) => {
            if let Some(value) = fields.shift_remove(ours) {
                fields.insert(theirs.to_owned(), value);
            }
        }
        What::Text(key, ours) => {
            if fields.get(key).is_some_and(|text| text == ours) {
                fields.insert(key.to_owned(), Value::from(theirs));
            }
        }
    });
}

fn each(
    spellings: &BTreeMap<String, String>,
    document: Document,
    value: &mut Value,
    change: impl Fn(&mut Map<String, Value>, What, &str),
) {
    for spelling in SPELLINGS.iter().filter(|spelling| spelling.document == document) {
        if let Some(theirs) = spellings.get(spelling.name) {
            descend(value, spelling.path, &|fields| change(fields, spelling.what, theirs));
        }
    }
}

fn descend(value: &mut Value, path: &[&str], change: &impl Fn(&mut Map<String, Value>)) {
    match (path, value) {
        ([], Value::Object(fields)) => change(fields),
        (["*", rest @ ..], Value::Array(items)) => {
            for item in items {
                descend(item, rest, change);
            }
        }
        ([key, rest @ ..], Value::Object(fields)) => {
            if let Some(next) = fields.get_mut(*key) {
                descend(next, rest, change);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn another_spelling_is_renamed_both_ways_and_the_usual_one_is_unknown() {
        let names =
            [("glue_flavor", "AWS_GLUE"), ("glue_connection", "connectionName"), ("build_push_mode", "hook")];
        let spellings: BTreeMap<String, String> =
            names.iter().map(|(name, theirs)| ((*name).to_owned(), (*theirs).to_owned())).collect();
        check(&spellings).unwrap();
        let push =
            |key: &str| json!({"buildConfigs": [{"dockerBuilderConfig": {"pushConfigs": [{key: "ECR"}]}}]});
        let theirs = json!({"metastoreCatalogsSettings": {"synchronizeTo": {"flavor": "AWS_GLUE", "connectionName": "s3"}},
                            "containerSettings": push("hook")});
        let ours = json!({"metastoreCatalogsSettings": {"synchronizeTo": {"flavor": "GLUE", "glueConnection": "s3"}},
                          "containerSettings": push("prePushMode")});
        let mut value = theirs.clone();
        inward(&spellings, Document::General, &mut value);
        assert_eq!(value, ours);
        outward(&spellings, Document::General, &mut value);
        assert_eq!(value, theirs);
        let mut value = ours;
        inward(&spellings, Document::General, &mut value);
        assert_eq!(value["metastoreCatalogsSettings"]["synchronizeTo"], json!({}));
        assert!(
            check(&BTreeMap::from([("glue".to_owned(), "x".to_owned())]))
                .unwrap_err()
                .contains("glue_flavor")
        );
    }
}
