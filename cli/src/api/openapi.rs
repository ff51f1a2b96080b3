//! The OpenAPI document, made from the list of routes. What is taken and given is described by the types themselves: their
//! schemas are derived where they are defined.

use std::collections::BTreeMap;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::control::Refusal;
use crate::control::server::table::{Given, Route, routes};

/// Where a document keeps its schemas.
const SCHEMAS: &str = "/components/schemas";
/// Begins the name of a type that is taken in another form than it is given.
const TAKEN: &str = "New";

/// The document.
pub(crate) fn document() -> Value {
    let settings = || {
        SchemaSettings::draft2020_12().with(|s| {
            s.definitions_path = SCHEMAS.into();
            s.meta_schema = None;
        })
    };
    let mut given = settings().for_serialize().into_generator();
    let mut taken = settings().for_deserialize().into_generator();
    let refusal = given.subschema_for::<Refusal>().to_value();
    let mut paths: Map<String, Value> = Map::new();
    for route in routes() {
        let operation = operation(&route, &refusal, &mut given, &mut taken);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_lowercase()] = operation;
    }
    let mut schemas: BTreeMap<String, Value> = given.take_definitions(true).into_iter().collect();
    let mut taken: BTreeMap<String, Value> = taken.take_definitions(true).into_iter().collect();
    let names = in_another_form(&schemas, &taken);
    for schema in taken.values_mut() {
        rename(schema, &names);
    }
    for operations in paths.values_mut().filter_map(Value::as_object_mut) {
        for operation in operations.values_mut() {
            for part in ["requestBody", "parameters"] {
                rename(&mut operation[part], &names);
            }
            // Asking for what is not there makes it.
            if let Some(operation) = operation.as_object_mut() {
                operation.retain(|_, value| !value.is_null());
            }
        }
    }
    schemas
        .extend(taken.into_iter().map(|(name, schema)| (names.get(&name).cloned().unwrap_or(name), schema)));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "dssflow",
            "version": "1.0",
            "description": "Runs of durable workflows: started, followed, steered. Errors have the form of Refusal; \
                            `dssflow explain CODE` says more of each code. Fields are added in later versions, never \
                            taken away or given another meaning.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "http://127.0.0.1:7477", "description": "dssflow serve --listen 127.0.0.1:7477" }],
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "The line in the file that `dssflow serve` names when it starts.",
            } },
        },
    })
}

fn operation(
    route: &Route,
    refusal: &Value,
    given: &mut SchemaGenerator,
    taken: &mut SchemaGenerator,
) -> Value {
    let mut operation = json!({
        "operationId": route.id,
        "tags": [route.tag],
        "summary": route.summary,
    });
    let mut parameters = in_the_path(route.path);
    if let Some(query) = route.query {
        parameters.extend(behind_the_mark(query(&mut taken_inline())));
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(body) = route.body {
        let schema = body(taken).to_value();
        operation["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    let mut responses: Map<String, Value> = route
        .gives
        .iter()
        .map(|Given { status, what, content }| {
            let mut response = json!({ "description": what });
            if !content.is_empty() {
                let kinds: Map<String, Value> = content
                    .iter()
                    .map(|(kind, schema)| ((*kind).to_owned(), json!({ "schema": schema(given).to_value() })))
                    .collect();
                response["content"] = kinds.into();
            }
            (status.as_u16().to_string(), response)
        })
        .collect();
    let refused =
        |what: &str| json!({ "description": what, "content": { "application/json": { "schema": refusal } } });
    responses.insert("401".to_owned(), refused("There is no valid token."));
    responses.insert("default".to_owned(), refused("It was refused, or failed; the body says why."));
    operation["responses"] = responses.into();
    operation
}

/// Parameters are described where they stand.
fn taken_inline() -> SchemaGenerator {
    SchemaSettings::draft2020_12()
        .with(|s| {
            s.inline_subschemas = true;
            s.meta_schema = None;
        })
        .into_generator()
}

/// The names in braces of a path.
fn in_the_path(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names
        .map(|name| {
            let (pattern, most) = ("^[a-z0-9][a-z0-9._:/\\[\\]-]*$", 80);
            json!({
                "name": name,
                "in": "path",
                "required": true,
                "description": format!("The {name}'s name; a slash in it is written %2F."),
                "schema": { "type": "string", "pattern": pattern, "maxLength": most },
            })
        })
        .collect()
}

/// Each property of an object as a parameter of its own.
fn behind_the_mark(schema: schemars::Schema) -> Vec<Value> {
    let schema = schema.to_value();
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    properties
        .into_iter()
        .map(|(name, mut schema)| {
            let description = schema.as_object_mut().and_then(|s| s.remove("description"));
            json!({
                "name": name,
                "in": "query",
                "required": false,
                "description": description.unwrap_or_default(),
                "schema": schema,
            })
        })
        .collect()
}

/// Types that are taken in another form than they are given, as where a default need not be sent: their names as taken.
fn in_another_form(
    given: &BTreeMap<String, Value>,
    taken: &BTreeMap<String, Value>,
) -> BTreeMap<String, String> {
    let mut other: Vec<&String> = taken
        .iter()
        .filter(|(name, schema)| given.get(*name).is_some_and(|g| g != *schema))
        .map(|(n, _)| n)
        .collect();
    // What refers to one of them is another one too.
    loop {
        let more: Vec<&String> = taken
            .iter()
            .filter(|(name, schema)| {
                !other.contains(name) && given.contains_key(*name) && refers(schema, &other)
            })
            .map(|(name, _)| name)
            .collect();
        if more.is_empty() {
            break;
        }
        other.extend(more);
    }
    other.into_iter().map(|name| (name.clone(), format!("{TAKEN}{name}"))).collect()
}

fn refers(schema: &Value, names: &[&String]) -> bool {
    match schema {
        Value::Object(map) => map.iter().any(|(key, value)| match value {
            Value::String(to) if key == "$ref" => names.iter().any(|name| to.ends_with(&format!("/{name}"))),
            value => refers(value, names),
        }),
        Value::Array(list) => list.iter().any(|value| refers(value, names)),
        _ => false,
    }
}

fn rename(schema: &mut Value, names: &BTreeMap<String, String>) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(to) if key == "$ref" => {
                        let (path, name) = to.rsplit_once('/').unwrap_or_default();
                        if let Some(new) = names.get(name) {
                            *to = format!("{path}/{new}");
                        }
                    }
                    value => rename(value, names),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| rename(value, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every reference in a document.
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    match value {
                        Value::String(to) if key == "$ref" => {
                            found.insert(to.as_str());
                        }
                        value => references(value, found),
                    }
                }
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn the_document_in_the_docs_is_that_of_this_version() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/openapi.json");
        let now = serde_json::to_string_pretty(&document()).unwrap() + "\n";
        if std::env::var_os("DSSFLOW_WRITE_DOCS").is_some() {
            std::fs::write(path, &now).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == now,
            "docs/reference/openapi.json is of another version; write it anew: DSSFLOW_WRITE_DOCS=1 cargo test --workspace \
             --bins openapi"
        );
    }

    #[test]
    fn every_route_is_described_and_every_reference_leads_somewhere() {
        let document = document();
        let mut ids = BTreeSet::new();
        for route in routes() {
            let operation = &document["paths"][route.path][route.method.as_str().to_lowercase()];
            assert!(!route.summary.is_empty() && !route.tag.is_empty(), "{} is not described", route.path);
            assert!(ids.insert(route.id), "two routes are called {}", route.id);
            assert!(!route.gives.is_empty(), "{} gives nothing", route.id);
            assert!(operation["responses"]["401"].is_object(), "{operation}");
        }
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for to in found {
            assert!(document.pointer(&to[1..]).is_some(), "{to} leads nowhere");
        }
    }
}
