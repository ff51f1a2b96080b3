//! How the files of a dataset are described to Hive: input and output format, SerDe, and what the SerDe is told.
//!
//! Which formats of DSS a metastore can read is told in <https://doc.dataiku.com/dss/latest/hadoop/hive.html>: CSV
//! without quotes, Parquet, Avro, ORC, and Hive's own two. The classes are those of Athena's and Hive's documentation
//! (<https://docs.aws.amazon.com/athena/latest/ug/supported-serdes.html>); the keys of `formatParams` are those of
//! definitions read from real instances. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

/// How values stand in the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// As text, in lines.
    Text {
        /// Dates, arrays and maps are written as Hive reads them; else dates are ISO and nested values JSON.
        hive_dates: bool,
    },
    /// The file knows types of its own.
    Typed,
}

impl Layout {
    /// Whether nested values are JSON texts.
    pub(super) fn keeps_json(self) -> bool {
        self == Self::Text { hive_dates: false }
    }
}

/// How a table's files are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// Java class that reads the files.
    pub input: String,
    /// Java class that writes them.
    pub output: String,
    /// Java class that turns records into rows.
    pub serde: String,
    /// What the SerDe is told, as far as it matters.
    pub serde_parameters: BTreeMap<String, String>,
    /// What stands among the table's parameters for the same purpose.
    pub table_parameters: BTreeMap<String, String>,
    /// `classification`, by which AWS's own tools know the format.
    pub classification: &'static str,
}

/// The table parameter by which Athena leaves out lines at the beginning of a file.
pub const SKIP_HEADER: &str = "skip.header.line.count";

fn storage(input: &str, output: &str, serde: &str, classification: &'static str) -> Storage {
    Storage {
        input: input.to_owned(),
        output: output.to_owned(),
        serde: serde.to_owned(),
        serde_parameters: BTreeMap::from([("serialization.format".to_owned(), "1".to_owned())]),
        table_parameters: BTreeMap::new(),
        classification,
    }
}

/// What Hive is told of a dataset with this format.
///
/// # Errors
/// A fragment that says why a metastore cannot read it.
pub fn of(kind: &str, params: &Value) -> Result<(Storage, Layout), String> {
    Ok(match kind {
        "parquet" => (
            storage(
                "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
                "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
                "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
                "parquet",
            ),
            Layout::Typed,
        ),
        "orcfile" => (
            storage(
                "org.apache.hadoop.hive.ql.io.orc.OrcInputFormat",
                "org.apache.hadoop.hive.ql.io.orc.OrcOutputFormat",
                "org.apache.hadoop.hive.ql.io.orc.OrcSerde",
                "orc",
            ),
            Layout::Typed,
        ),
        "avro" => (
            storage(
                "org.apache.hadoop.hive.ql.io.avro.AvroContainerInputFormat",
                "org.apache.hadoop.hive.ql.io.avro.AvroContainerOutputFormat",
                "org.apache.hadoop.hive.serde2.avro.AvroSerDe",
                "avro",
            ),
            Layout::Typed,
        ),
        "csv" => csv(params)?,
        "" => return Err("it has no format".to_owned()),
        other => return Err(format!("a metastore cannot read format {other}")),
    })
}

fn csv(params: &Value) -> Result<(Storage, Layout), String> {
    let style = params["style"].as_str().unwrap_or("excel");
    let escapes = match style {
        "escape_only_no_quote" => true,
        "no_escape_no_quote" => false,
        other => {
            return Err(format!(
                "a metastore cannot read CSV in style {other}, only without quotes (escape_only_no_quote)"
            ));
        }
    };
    let mut made = storage(
        "org.apache.hadoop.mapred.TextInputFormat",
        "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat",
        "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe",
        "csv",
    );
    let separator = params["separator"].as_str().filter(|s| !s.is_empty()).unwrap_or("\t");
    let mut tell = |key: &str, value: &str| {
        made.serde_parameters.insert(key.to_owned(), value.to_owned());
    };
    tell("field.delim", separator);
    tell("serialization.format", separator);
    if escapes {
        tell("escape.delim", params["escapeChar"].as_str().filter(|s| !s.is_empty()).unwrap_or("\\"));
    }
    let nested = params["arrayMapFormat"] == "hive";
    if nested {
        // Spelled so by Hive up to version 2, and by Athena.
        tell("colelction.delim", params["arrayItemSeparator"].as_str().unwrap_or("\u{2}"));
        tell("mapkey.delim", params["mapKeySeparator"].as_str().unwrap_or("\u{3}"));
    }
    let count = |key: &str| params[key].as_u64().unwrap_or_default();
    let header = u64::from(params["parseHeaderRow"] == true || params["parseHeaderRow"] == "true");
    let skipped = count("skipRowsBeforeHeader") + header + count("skipRowsAfterHeader");
    if skipped > 0 {
        made.table_parameters.insert(SKIP_HEADER.to_owned(), skipped.to_string());
    }
    let hive_dates = params["dateSerializationFormat"] == "HIVE" || nested;
    Ok((made, Layout::Text { hive_dates }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn formats_with_types_need_no_more_than_their_classes() {
        for (kind, part) in [("parquet", "ParquetHiveSerDe"), ("orcfile", "OrcSerde"), ("avro", "AvroSerDe")]
        {
            let (made, layout) = of(kind, &json!({})).unwrap();
            assert!(made.serde.ends_with(part), "{kind}");
            assert_eq!((layout, made.table_parameters.len()), (Layout::Typed, 0), "{kind}");
        }
        for other in ["json", "excel", "xml", ""] {
            assert!(of(other, &json!({})).is_err(), "{other}");
        }
    }

    #[test]
    fn csv_is_told_its_separators_and_its_header() {
        // As DSS itself writes it for a metastore.
        let hive = json!({
            "style": "escape_only_no_quote", "separator": "\t", "escapeChar": "\\", "arrayItemSeparator": "\u{2}",
            "mapKeySeparator": "\u{3}", "dateSerializationFormat": "HIVE", "arrayMapFormat": "hive", "parseHeaderRow": false
        });
        let (made, layout) = of("csv", &hive).unwrap();
        assert_eq!(layout, Layout::Text { hive_dates: true });
        assert_eq!(made.serde_parameters["field.delim"], "\t");
        assert_eq!(made.serde_parameters["escape.delim"], "\\");
        assert_eq!(made.serde_parameters["mapkey.delim"], "\u{3}");
        assert!(made.table_parameters.is_empty());
        let header = json!({
            "style": "escape_only_no_quote", "separator": ";", "parseHeaderRow": true, "skipRowsBeforeHeader": 2,
            "dateSerializationFormat": "ISO"
        });
        let (made, layout) = of("csv", &header).unwrap();
        assert_eq!(made.table_parameters[SKIP_HEADER], "3");
        assert_eq!(made.serde_parameters["field.delim"], ";");
        assert!(layout.keeps_json());
    }

    #[test]
    fn quoted_csv_is_nothing_for_a_metastore() {
        for style in ["excel", "unix"] {
            assert!(of("csv", &json!({"style": style})).unwrap_err().contains(style));
        }
        assert!(of("csv", &json!({})).is_err(), "excel is what DSS takes without a word");
    }
}
