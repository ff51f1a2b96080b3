//! The type of a column of DSS as Glue writes it.
//!
//! Glue keeps types as texts in Hive's words. Storage types of DSS are Hive's by name as far as numbers, booleans and
//! texts go (<https://doc.dataiku.com/dss/latest/schemas/definitions.html>); what DSS makes of dates and of nested types
//! in a metastore is told nowhere, so for those each column also has types that are taken as right when they are found.
//! They come from what Hive can read of the file format
//! (<https://cwiki.apache.org/confluence/display/Hive/LanguageManual+Types>): a `timestamp` over a CSV file wants
//! `2020-01-31 12:00:00`, which is what DSS writes when the format says `dateSerializationFormat: HIVE`; ISO dates can only
//! be read as texts.
//!
//! Pure. A site may name other types: [`Types`].

use std::collections::BTreeMap;

use serde_json::Value;

use super::format::Layout;

/// How deep nested types are followed.
const MAX_DEPTH: usize = 16;

/// Types that a site names for storage types of DSS, in place of the usual ones.
pub type Types = BTreeMap<String, String>;

/// What a column is to be, and what else is taken as right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What is written where nothing is there.
    pub kind: String,
    /// Beginnings of types that are right as well when they are found.
    pub also: Vec<String>,
}

impl Wanted {
    fn only(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), also: Vec::new() }
    }

    fn or(kind: impl Into<String>, also: &[&str]) -> Self {
        Self { kind: kind.into(), also: also.iter().map(|t| (*t).to_owned()).collect() }
    }

    /// Whether a type that was found will do.
    pub fn takes(&self, found: &str) -> bool {
        let found = normal(found);
        let is =
            |wanted: &str| found == wanted || (wanted.ends_with(['(', '<']) && found.starts_with(wanted));
        normal(&self.kind) == found || self.also.iter().any(|also| is(also))
    }
}

/// A type as it is compared: Hive knows no case and no blanks in it, and has two words for some.
pub fn normal(kind: &str) -> String {
    let plain: String = kind.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase).collect();
    match plain.as_str() {
        "integer" => "int".to_owned(),
        "doubleprecision" => "double".to_owned(),
        _ => plain,
    }
}

/// What a column of DSS is in Glue.
///
/// # Errors
/// A fragment that says why nothing is known for it.
pub fn wanted(column: &Value, layout: Layout, types: &Types) -> Result<Wanted, String> {
    if let Some(named) = column["type"].as_str().and_then(|kind| types.get(kind)) {
        return Ok(Wanted::only(normal(named)));
    }
    Ok(match column["type"].as_str().unwrap_or_default() {
        "string" => {
            let length = column["maxLength"].as_i64().filter(|n| *n > 0);
            // A text with a limit may be a varchar; the limit itself is DSS's business.
            length.map_or_else(|| Wanted::only("string"), |_| Wanted::or("string", &["varchar(", "char("]))
        }
        "date" | "datetimenotz" => match layout {
            Layout::Text { hive_dates: false } => Wanted::or("string", &["timestamp"]),
            Layout::Text { hive_dates: true } | Layout::Typed => {
                Wanted::or("timestamp", &["string", "bigint"])
            }
        },
        "dateonly" => Wanted::or("date", &["string", "timestamp"]),
        _ => Wanted { kind: plain(column, layout, types, 0)?, also: also(column) },
    })
}

/// What nested columns may be besides: DSS keeps their content as JSON where it knows no better.
fn also(column: &Value) -> Vec<String> {
    match column["type"].as_str() {
        Some("array") => vec!["array<".to_owned(), "string".to_owned()],
        Some("map") => vec!["map<".to_owned(), "string".to_owned()],
        Some("object") => vec!["struct<".to_owned(), "map<".to_owned(), "string".to_owned()],
        _ => Vec::new(),
    }
}

fn plain(column: &Value, layout: Layout, types: &Types, deep: usize) -> Result<String, String> {
    if deep > MAX_DEPTH {
        return Err("it is nested too deep".to_owned());
    }
    let kind = column["type"].as_str().unwrap_or_default();
    if let Some(named) = types.get(kind) {
        return Ok(normal(named));
    }
    let inner = |key: &str| match &column[key] {
        Value::Null => Ok("string".to_owned()),
        inner => plain(inner, layout, types, deep + 1),
    };
    Ok(match kind {
        "tinyint" | "smallint" | "int" | "bigint" | "float" | "double" | "boolean" | "string" => {
            kind.to_owned()
        }
        "geopoint" | "geometry" => "string".to_owned(),
        "date" | "datetimenotz" => match layout {
            Layout::Text { hive_dates: false } => "string".to_owned(),
            Layout::Text { hive_dates: true } | Layout::Typed => "timestamp".to_owned(),
        },
        "dateonly" => "date".to_owned(),
        // A CSV file whose arrays are JSON holds a text there.
        "array" | "map" | "object" if layout.keeps_json() => "string".to_owned(),
        "array" => format!("array<{}>", inner("arrayContent")?),
        "map" => format!("map<{},{}>", inner("mapKeys")?, inner("mapValues")?),
        "object" => {
            let fields = column["objectFields"].as_array().map_or(&[][..], Vec::as_slice);
            if fields.is_empty() {
                return Ok("string".to_owned());
            }
            let mut parts = Vec::with_capacity(fields.len());
            for field in fields {
                let name = field["name"].as_str().unwrap_or_default().to_lowercase();
                parts.push(format!("{name}:{}", plain(field, layout, types, deep + 1)?));
            }
            format!("struct<{}>", parts.join(","))
        }
        "" => return Err("it has no type".to_owned()),
        other => return Err(format!("type {other} is not known: name one under glue_resync.types")),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ISO: Layout = Layout::Text { hive_dates: false };
    const HIVE: Layout = Layout::Text { hive_dates: true };

    fn kind(column: &Value, layout: Layout) -> String {
        wanted(column, layout, &Types::new()).map_or_else(|why| format!("!{why}"), |w| w.kind)
    }

    #[test]
    fn every_storage_type_of_dss_has_one() {
        for (dss, typed, iso, hive) in [
            ("tinyint", "tinyint", "tinyint", "tinyint"),
            ("smallint", "smallint", "smallint", "smallint"),
            ("int", "int", "int", "int"),
            ("bigint", "bigint", "bigint", "bigint"),
            ("float", "float", "float", "float"),
            ("double", "double", "double", "double"),
            ("boolean", "boolean", "boolean", "boolean"),
            ("string", "string", "string", "string"),
            ("date", "timestamp", "string", "timestamp"),
            ("datetimenotz", "timestamp", "string", "timestamp"),
            ("dateonly", "date", "date", "date"),
            ("geopoint", "string", "string", "string"),
            ("geometry", "string", "string", "string"),
            ("array", "array<string>", "string", "array<string>"),
            ("map", "map<string,string>", "string", "map<string,string>"),
            ("object", "string", "string", "string"),
        ] {
            let column = json!({"name": "c", "type": dss});
            assert_eq!(
                (
                    kind(&column, Layout::Typed).as_str(),
                    kind(&column, ISO).as_str(),
                    kind(&column, HIVE).as_str()
                ),
                (typed, iso, hive),
                "{dss}"
            );
        }
        assert!(kind(&json!({"name": "c", "type": "hologram"}), ISO).starts_with("!type hologram"));
        assert!(kind(&json!({"name": "c"}), ISO).starts_with('!'));
    }

    #[test]
    fn nested_types_are_followed_and_have_an_end() {
        let column = json!({"type": "object", "objectFields": [
            {"name": "Id", "type": "bigint"},
            {"name": "tags", "type": "array", "arrayContent": {"type": "map", "mapKeys": {"type": "string"}, "mapValues": {"type": "double"}}}
        ]});
        assert_eq!(kind(&column, Layout::Typed), "struct<id:bigint,tags:array<map<string,double>>>");
        let mut deep = json!({"type": "string"});
        for _ in 0..40 {
            deep = json!({"type": "array", "arrayContent": deep});
        }
        assert!(kind(&deep, Layout::Typed).starts_with('!'));
    }

    #[test]
    fn what_is_found_may_be_written_otherwise() {
        let text = |kind: &str| json!({"name": "c", "type": kind});
        let takes =
            |column: &Value, found: &str| wanted(column, Layout::Typed, &Types::new()).unwrap().takes(found);
        assert!(takes(&text("int"), "INTEGER") && takes(&text("bigint"), " BigInt "));
        assert!(!takes(&text("int"), "bigint") && !takes(&text("string"), "varchar(10)"));
        assert!(takes(&json!({"type": "string", "maxLength": 10}), "varchar(10)"));
        assert!(!takes(&json!({"type": "string", "maxLength": 10}), "bigint"));
        assert!(takes(&text("date"), "timestamp") && takes(&text("date"), "string"));
        assert!(!takes(&text("date"), "double"));
        assert!(takes(&json!({"type": "array", "arrayContent": {"type": "int"}}), "array<bigint>"));
        assert!(takes(&text("object"), "struct<a:int, b:string>"));
    }

    #[test]
    fn a_site_may_say_otherwise() {
        let types =
            Types::from([("date".to_owned(), "Timestamp".to_owned()), ("geopoint".into(), "binary".into())]);
        let column = json!({"type": "date"});
        let wanted = wanted(&column, ISO, &types).unwrap();
        assert_eq!((wanted.kind.as_str(), wanted.takes("string")), ("timestamp", false));
        let nested = json!({"type": "array", "arrayContent": {"type": "geopoint"}});
        assert_eq!(super::wanted(&nested, Layout::Typed, &types).unwrap().kind, "array<binary>");
    }
}
