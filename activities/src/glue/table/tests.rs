//! What a diff must hold for every table: mended it has no differences, and mending it again changes nothing.

use serde_json::{Value, json};

use super::super::desired::{ConnectionPlace, Variables, desired};
use super::super::types::Types;
use super::*;

/// Numbers from a seed, the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(n).unwrap()).unwrap()
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        let at = self.below(list.len());
        &list[at]
    }
}

const KINDS: [&str; 14] = [
    "string",
    "int",
    "bigint",
    "smallint",
    "double",
    "float",
    "boolean",
    "date",
    "dateonly",
    "datetimenotz",
    "array",
    "map",
    "object",
    "geopoint",
];
const FOUND: [&str; 9] = [
    "string",
    "INT",
    "bigint",
    "timestamp",
    "array<int>",
    "map<string,string>",
    "struct<a:int>",
    "varchar(9)",
    "x",
];
const NAMES: [&str; 7] = ["a", "b", "C", "when", "Total", "x_1", "y"];

fn some_dataset(chance: &mut Chance) -> Value {
    let count = 1 + chance.below(NAMES.len());
    let columns: Vec<Value> = NAMES[..count]
        .iter()
        .map(|name| {
            let mut column = json!({"name": name, "type": chance.of(&KINDS)});
            if chance.below(3) == 0 {
                column["maxLength"] = json!(12);
            }
            column
        })
        .collect();
    let (format, params) = chance
        .of(&[
            ("parquet", json!({})),
            ("orcfile", json!({})),
            ("avro", json!({})),
            ("csv", json!({"style": "escape_only_no_quote", "separator": ";", "parseHeaderRow": true})),
            ("csv", json!({"style": "escape_only_no_quote", "arrayMapFormat": "hive", "dateSerializationFormat": "HIVE"})),
        ])
        .clone();
    let mut dataset = json!({
        "projectKey": "P", "name": "d", "type": "S3", "formatType": format, "formatParams": params,
        "params": {"bucket": "b", "path": "/P/d"}, "schema": {"columns": columns}
    });
    if chance.below(2) == 0 {
        dataset["partitioning"] =
            json!({"dimensions": [{"name": "Part", "type": "value"}], "filePathPattern": "/%{Part}/.*"});
    }
    dataset
}

fn some_map(chance: &mut Chance, keys: &[&str]) -> BTreeMap<String, String> {
    let count = chance.below(keys.len() + 1);
    (0..count)
        .map(|_| ((*chance.of(keys)).to_owned(), (*chance.of(&["1", ";", "TRUE", "me"])).to_owned()))
        .collect()
}

fn some_columns(chance: &mut Chance) -> Vec<Column> {
    let count = chance.below(9);
    let column = |chance: &mut Chance| Column {
        name: chance.of(&NAMES).to_lowercase(),
        kind: (*chance.of(&FOUND)).to_owned(),
    };
    (0..count).map(|_| column(chance)).collect()
}

fn some_table(chance: &mut Chance) -> Table {
    let columns = some_columns(chance);
    let mut keys = some_columns(chance);
    keys.truncate(chance.below(3));
    let text = |chance: &mut Chance, list: &[&str]| (*chance.of(list)).to_owned();
    Table {
        columns,
        keys,
        location: place(&text(chance, &["s3://b/P/d/", "s3a://b/P/d", "s3://b/other", ""])),
        input: text(chance, &["org.apache.hadoop.mapred.TextInputFormat", "x", ""]),
        output: text(chance, &["org.apache.hadoop.hive.ql.io.orc.OrcOutputFormat", "y", ""]),
        serde: text(
            chance,
            &[
                "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe",
                "org.apache.hadoop.hive.ql.io.orc.OrcSerde",
                "z",
            ],
        ),
        serde_parameters: some_map(
            chance,
            &["field.delim", "escape.delim", "mapkey.delim", "serialization.format", "theirs"],
        ),
        parameters: some_map(chance, &["EXTERNAL", SKIP_HEADER, "classification", "theirs", "comment"]),
        kind: text(chance, &[EXTERNAL, "MANAGED_TABLE", ""]),
    }
}

#[test]
fn a_mended_table_has_no_differences_and_is_mended_once() {
    let seed = 0x9e37_79b9_7f4a_7c15;
    let mut chance = Chance(seed);
    let mut differed = 0;
    for case in 0..20_000 {
        let dataset = some_dataset(&mut chance);
        let wanted = desired(&dataset, &ConnectionPlace::default(), &Variables::default(), &Types::new())
            .expect("a table");
        let found = some_table(&mut chance);
        differed += usize::from(!differences(&wanted, &found).is_empty());
        let once = mended(&wanted, &found);
        assert_eq!(differences(&wanted, &once), [], "seed {seed:#x} case {case}\n{dataset:#}\n{found:#?}");
        assert_eq!(mended(&wanted, &once), once, "seed {seed:#x} case {case}");
        // What is not compared stays.
        assert_eq!(once.parameters.get("theirs"), found.parameters.get("theirs"));
        assert_eq!(once.parameters.get("comment"), found.parameters.get("comment"));
        // And what it makes of nothing is right as well.
        let new = mended(&wanted, &Table::default());
        assert_eq!(differences(&wanted, &new), [], "seed {seed:#x} case {case}");
        assert_eq!(new.parameters["EXTERNAL"], "TRUE");
    }
    assert!(differed > 19_000, "the tables are hardly ever right by chance: {differed}");
}

#[test]
fn it_goes_to_glue_and_back() {
    let mut chance = Chance(7);
    for case in 0..2_000 {
        let dataset = some_dataset(&mut chance);
        let wanted = desired(&dataset, &ConnectionPlace::default(), &Variables::default(), &Types::new())
            .expect("a table");
        let made = mended(&wanted, &Table::default());
        let input = made.input("t", None).expect("complete");
        let was = as_glue_keeps_it(&input);
        assert_eq!(Table::of(&was), made, "case {case}");
        // Somebody's additions survive a change.
        let mut theirs = was.clone();
        theirs.description = Some("ask Ann".to_owned());
        theirs.retention = 9;
        let storage = theirs.storage_descriptor.as_mut().expect("it has one");
        storage.number_of_buckets = 4;
        storage.columns.as_mut().expect("it has some")[0].comment = Some("the first".to_owned());
        storage.location = Some(format!("{}/", storage.location.clone().unwrap_or_default()));
        let again = mended(&wanted, &Table::of(&theirs)).input("t", Some(&theirs)).expect("complete");
        assert_eq!((again.description(), again.retention()), (Some("ask Ann"), 9));
        let storage = again.storage_descriptor().expect("it has one");
        assert_eq!(storage.number_of_buckets(), 4);
        assert_eq!(storage.columns()[0].comment(), Some("the first"));
        assert!(storage.location().expect("a place").ends_with('/'), "its own spelling of the same place");
    }
}

fn as_glue_keeps_it(input: &TableInput) -> sdk::Table {
    sdk::Table::builder()
        .name(input.name())
        .set_storage_descriptor(input.storage_descriptor.clone())
        .set_partition_keys(input.partition_keys.clone())
        .set_parameters(input.parameters.clone())
        .set_table_type(input.table_type.clone())
        .build()
        .expect("it has a name")
}

#[test]
fn every_difference_is_told() {
    let dataset = json!({
        "projectKey": "P", "name": "d", "formatType": "csv", "params": {"bucket": "b", "path": "/P/d"},
        "formatParams": {"style": "escape_only_no_quote", "separator": ";", "parseHeaderRow": true},
        "schema": {"columns": [{"name": "a", "type": "int"}, {"name": "b", "type": "string"}, {"name": "c", "type": "double"}]},
        "partitioning": {"dimensions": [{"name": "p", "type": "value"}], "filePathPattern": "/%{p}/.*"}
    });
    let wanted =
        desired(&dataset, &ConnectionPlace::default(), &Variables::default(), &Types::new()).unwrap();
    let right = mended(&wanted, &Table::default());
    let told = |change: &dyn Fn(&mut Table)| {
        let mut table = right.clone();
        change(&mut table);
        differences(&wanted, &table).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(told(&|_| ()), "");
    assert_eq!(told(&|t| t.columns[0].kind = "string".into()), "column a is string, the dataset has int");
    assert_eq!(told(&|t| drop(t.columns.pop())), "column c double is missing");
    assert_eq!(told(&|t| t.columns.swap(0, 1)), "the columns are in another order");
    let extra = Column { name: "z".into(), kind: "int".into() };
    assert_eq!(told(&|t| t.columns.push(extra.clone())), "column z int is not the dataset's");
    assert_eq!(told(&|t| t.keys.clear()), "partitioned by nothing, the dataset by p string");
    assert_eq!(told(&|t| t.location = "s3://b/x".into()), "at s3://b/x, the dataset at s3://b/P/d");
    assert!(told(&|t| t.serde = "x".into()).starts_with("read by x, the dataset by"));
    assert_eq!(
        told(&|t| drop(t.serde_parameters.insert("field.delim".into(), ",".into()))),
        "field.delim is \",\", the dataset wants \";\""
    );
    assert!(told(&|t| drop(t.parameters.remove(SKIP_HEADER))).contains("is none"));
    assert_eq!(told(&|t| t.kind = "MANAGED_TABLE".into()), "it is MANAGED_TABLE, not EXTERNAL_TABLE");
    assert_eq!(place("s3a://b/x//"), "s3://b/x");
}
