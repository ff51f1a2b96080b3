//! The routes of the API, one line each.

use std::fmt::Write as _;

use serde_json::Value;

use super::{MADE, cell, is_written};
use crate::api::openapi::document;
use crate::control::server::table::routes;

/// The name of the type that a schema refers to.
fn named(schema: &Value) -> String {
    let of_list = &schema["items"];
    match (schema["$ref"].as_str(), of_list["$ref"].as_str()) {
        (Some(to), _) => format!("`{}`", to.rsplit('/').next().unwrap()),
        (_, Some(to)) => format!("list of `{}`", to.rsplit('/').next().unwrap()),
        _ => String::new(),
    }
}

#[test]
fn every_route_is_in_the_docs() {
    let document = document();
    let mut out = format!(
        "# Routes\n\n{MADE}\n\n[openapi.json](openapi.json) describes them in full, types included; [the HTTP API](../http-api.md) is \
         about who is answered, and its limits.\n"
    );
    let mut tag = "";
    for route in routes() {
        if route.tag != tag {
            tag = route.tag;
            write!(out, "\n## {tag}\n\n| route | what | may ask | body | answer |\n|---|---|---|---|---|\n")
                .unwrap();
        }
        let operation = &document["paths"][route.path][route.method.as_str().to_lowercase()];
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let asks: Vec<String> = parameters
            .filter(|p| p["in"] == "query")
            .map(|p| format!("`{}`", p["name"].as_str().unwrap()))
            .collect();
        let body = named(&operation["requestBody"]["content"]["application/json"]["schema"]);
        let answers =
            operation["responses"].as_object().unwrap().iter().filter(|(status, _)| status.starts_with('2'));
        let mut answers: Vec<String> = answers
            .map(|(status, answer)| {
                let schema = named(&answer["content"]["application/json"]["schema"]);
                format!("{status} {schema}").trim_end().to_owned()
            })
            .collect();
        answers.dedup();
        writeln!(
            out,
            "| `{} {}` | {} | {} | {body} | {} |",
            route.method,
            route.path,
            cell(route.summary),
            asks.join(" "),
            answers.join(", ")
        )
        .unwrap();
    }
    is_written("routes.md", &out);
}
