//! A table of Glue as far as it is compared, what differs from what a dataset wants, and the table as it should be.
//!
//! Three functions on values: [`differences`], [`mended`] and [`Table::of`]. What they have in common is held by tests: a
//! mended table has no differences, and mending it again changes nothing. Nothing of a table that is not compared is ever
//! lost: [`Table::input`] puts the compared parts into what Glue has.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_glue::types::{self as sdk, SerDeInfo, StorageDescriptor, TableInput};
use dssflow_engine::activity::{ActivityError, ActivityResult};

use super::desired::Desired;
use super::format::SKIP_HEADER;
use super::types::normal;

/// What tables of DSS are: their files stay when the table goes.
pub const EXTERNAL: &str = "EXTERNAL_TABLE";
/// Keys of a SerDe that are compared; what else it is told is Hive's or somebody else's.
const COMPARED: [&str; 4] = ["field.delim", "escape.delim", "colelction.delim", "mapkey.delim"];

/// A column.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Column {
    /// Its name, in lower case as Glue keeps it.
    pub name: String,
    /// Its type, as Glue has it.
    pub kind: String,
}

/// The compared part of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Its columns without the partition keys.
    pub columns: Vec<Column>,
    /// Its partition keys.
    pub keys: Vec<Column>,
    /// Where its files are, as [`place`] writes it.
    pub location: String,
    /// Java class that reads the files.
    pub input: String,
    /// Java class that writes them.
    pub output: String,
    /// Java class that makes rows of records.
    pub serde: String,
    /// What that is told.
    pub serde_parameters: BTreeMap<String, String>,
    /// Parameters of the table.
    pub parameters: BTreeMap<String, String>,
    /// As [`EXTERNAL`].
    pub kind: String,
}

/// One thing that is not as a dataset wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// A column is missing.
    Missing(Column),
    /// There is a column that the dataset does not have.
    Extra(Column),
    /// A column has another type.
    Type {
        /// Which.
        name: String,
        /// What it should be.
        want: String,
        /// What it is.
        have: String,
    },
    /// The columns are there in another order.
    Order,
    /// It is partitioned by other keys.
    Keys {
        /// What it should be partitioned by.
        want: String,
        /// What it is partitioned by.
        have: String,
    },
    /// It lies elsewhere.
    Location {
        /// Where it should.
        want: String,
        /// Where it does.
        have: String,
    },
    /// Its files are read otherwise.
    Format {
        /// The SerDe it should have.
        want: String,
        /// The one it has.
        have: String,
    },
    /// A parameter by which its files are read has another value.
    Parameter {
        /// Which.
        key: String,
        /// What it should be; `None` when it should not be there.
        want: Option<String>,
        /// What it is.
        have: Option<String>,
    },
    /// It is no external table.
    Kind(String),
}

impl Difference {
    /// Whether it is about the type of a column.
    pub fn is_type(&self) -> bool {
        matches!(self, Self::Type { .. })
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let or =
            |value: &Option<String>| value.as_ref().map_or_else(|| "none".to_owned(), |v| format!("{v:?}"));
        match self {
            Self::Missing(column) => write!(f, "column {} {} is missing", column.name, column.kind),
            Self::Extra(column) => write!(f, "column {} {} is not the dataset's", column.name, column.kind),
            Self::Type { name, want, have } => write!(f, "column {name} is {have}, the dataset has {want}"),
            Self::Order => f.write_str("the columns are in another order"),
            Self::Keys { want, have } => write!(f, "partitioned by {have}, the dataset by {want}"),
            Self::Location { want, have } => write!(f, "at {have}, the dataset at {want}"),
            Self::Format { want, have } => write!(f, "read by {have}, the dataset by {want}"),
            Self::Parameter { key, want, have } => {
                write!(f, "{key} is {}, the dataset wants {}", or(have), or(want))
            }
            Self::Kind(kind) => write!(f, "it is {kind}, not {EXTERNAL}"),
        }
    }
}

/// A place in S3 as it is compared: one scheme, no slash at the end.
pub fn place(location: &str) -> String {
    let plain = ["s3a://", "s3n://"].iter().find_map(|scheme| location.strip_prefix(scheme));
    let text = plain.map_or_else(|| location.to_owned(), |rest| format!("s3://{rest}"));
    text.trim_end_matches('/').to_owned()
}

fn columns(list: &[sdk::Column]) -> Vec<Column> {
    let column = |c: &sdk::Column| Column {
        name: c.name().to_lowercase(),
        kind: c.r#type().unwrap_or_default().to_owned(),
    };
    list.iter().map(column).collect()
}

fn ordered(map: Option<&HashMap<String, String>>) -> BTreeMap<String, String> {
    map.into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect()
}

impl Table {
    /// The compared part of what Glue says.
    pub fn of(table: &sdk::Table) -> Self {
        let mut made = table.storage_descriptor().map_or_else(Self::default, Self::stored);
        made.keys = columns(table.partition_keys());
        made.parameters = ordered(table.parameters());
        table.table_type().unwrap_or_default().clone_into(&mut made.kind);
        made
    }

    /// What a storage descriptor says: all of a partition, and most of a table.
    pub fn stored(storage: &StorageDescriptor) -> Self {
        let serde = storage.serde_info();
        Self {
            columns: columns(storage.columns()),
            location: place(storage.location().unwrap_or_default()),
            input: storage.input_format().unwrap_or_default().to_owned(),
            output: storage.output_format().unwrap_or_default().to_owned(),
            serde: serde.and_then(SerDeInfo::serialization_library).unwrap_or_default().to_owned(),
            serde_parameters: ordered(serde.and_then(SerDeInfo::parameters)),
            ..Self::default()
        }
    }

    /// What Glue is told: this, put into what was there.
    ///
    /// # Errors
    /// Never for a table that was made here.
    pub fn input(&self, name: &str, was: Option<&sdk::Table>) -> ActivityResult<TableInput> {
        let storage = self.storage(was.and_then(sdk::Table::storage_descriptor))?;
        let mut input = TableInput::builder()
            .name(name)
            .storage_descriptor(storage)
            .table_type(&self.kind)
            .set_partition_keys(Some(columns_out(&self.keys, was.map_or(&[], sdk::Table::partition_keys))?))
            .set_parameters(Some(self.parameters.clone().into_iter().collect()));
        if let Some(was) = was {
            input = input
                .set_description(was.description.clone())
                .set_owner(was.owner.clone())
                .set_last_access_time(was.last_access_time)
                .set_last_analyzed_time(was.last_analyzed_time)
                .retention(was.retention);
        }
        input.build().map_err(|e| incomplete(&e.to_string()))
    }

    /// The storage descriptor, put into what was there.
    ///
    /// # Errors
    /// Never for a table that was made here.
    pub fn storage(&self, was: Option<&StorageDescriptor>) -> ActivityResult<StorageDescriptor> {
        let mut storage = was.cloned().unwrap_or_else(|| StorageDescriptor::builder().build());
        let known = storage.columns.take().unwrap_or_default();
        storage.columns = Some(columns_out(&self.columns, &known)?);
        // One that is meant already keeps its own spelling.
        if place(storage.location().unwrap_or_default()) != self.location {
            storage.location = Some(self.location.clone());
        }
        storage.input_format = Some(self.input.clone());
        storage.output_format = Some(self.output.clone());
        let mut serde = storage.serde_info.take().unwrap_or_else(|| SerDeInfo::builder().build());
        serde.serialization_library = Some(self.serde.clone());
        serde.parameters = Some(self.serde_parameters.clone().into_iter().collect());
        storage.serde_info = Some(serde);
        Ok(storage)
    }
}

/// Columns for Glue; those that were there keep their comments and parameters.
fn columns_out(columns: &[Column], known: &[sdk::Column]) -> ActivityResult<Vec<sdk::Column>> {
    let column = |column: &Column| {
        let known = known.iter().find(|k| k.name().eq_ignore_ascii_case(&column.name));
        sdk::Column::builder()
            .name(&column.name)
            .r#type(&column.kind)
            .set_comment(known.and_then(|k| k.comment.clone()))
            .set_parameters(known.and_then(|k| k.parameters.clone()))
            .build()
            .map_err(|e| incomplete(&e.to_string()))
    };
    columns.iter().map(column).collect()
}

fn incomplete(why: &str) -> ActivityError {
    ActivityError::terminal("RequestInvalid", why.to_owned()).no_effect()
}

fn list(columns: &[Column]) -> String {
    let names: Vec<String> = columns.iter().map(|c| format!("{} {}", c.name, c.kind)).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// What of a table is not as a dataset wants it.
pub fn differences(desired: &Desired, found: &Table) -> Vec<Difference> {
    let mut all = columns_differ(desired, &found.columns);
    let same_keys = desired.keys.len() == found.keys.len()
        && desired
            .keys
            .iter()
            .zip(&found.keys)
            .all(|(want, have)| want.name == have.name && normal(&want.kind) == normal(&have.kind));
    if !same_keys {
        all.push(Difference::Keys { want: list(&desired.keys), have: list(&found.keys) });
    }
    all.extend(stored_differ(desired, &desired.location, found));
    let (want, have) = (desired.storage.table_parameters.get(SKIP_HEADER), found.parameters.get(SKIP_HEADER));
    let none = |value: Option<&String>| value.is_none_or(|v| v == "0");
    if want != have && !(none(want) && none(have)) {
        let (key, want, have) = (SKIP_HEADER.to_owned(), want.cloned(), have.cloned());
        all.push(Difference::Parameter { key, want, have });
    }
    if found.kind != EXTERNAL {
        all.push(Difference::Kind(found.kind.clone()));
    }
    all
}

/// What of a table's or a partition's storage is not as a dataset wants it.
pub fn stored_differ(desired: &Desired, location: &str, found: &Table) -> Vec<Difference> {
    let mut all = Vec::new();
    if found.location != location {
        all.push(Difference::Location { want: location.to_owned(), have: found.location.clone() });
    }
    let storage = &desired.storage;
    let classes =
        [(&storage.input, &found.input), (&storage.output, &found.output), (&storage.serde, &found.serde)];
    if classes.iter().any(|(want, have)| want != have) {
        let (want, have) = classes.into_iter().rev().find(|(want, have)| want != have).expect("one differs");
        all.push(Difference::Format { want: want.clone(), have: have.clone() });
    }
    for key in COMPARED {
        let (want, have) = (storage.serde_parameters.get(key), found.serde_parameters.get(key));
        if want != have {
            let (key, want, have) = (key.to_owned(), want.cloned(), have.cloned());
            all.push(Difference::Parameter { key, want, have });
        }
    }
    all
}

/// What of the columns is not as a dataset wants it.
pub fn columns_differ(desired: &Desired, found: &[Column]) -> Vec<Difference> {
    let mut all = Vec::new();
    for want in &desired.columns {
        match found.iter().find(|have| have.name == want.name) {
            None => all.push(Difference::Missing(want.preferred())),
            Some(have) if !want.wanted.takes(&have.kind) => all.push(Difference::Type {
                name: want.name.clone(),
                want: want.wanted.kind.clone(),
                have: have.kind.clone(),
            }),
            Some(_) => {}
        }
    }
    let extra = found.iter().enumerate().filter(|(ix, have)| {
        let first = found.iter().position(|other| other.name == have.name) == Some(*ix);
        !first || desired.columns.iter().all(|want| want.name != have.name)
    });
    all.extend(extra.map(|(_, have)| Difference::Extra(have.clone())));
    let same_order = desired.columns.iter().map(|c| &c.name).eq(found.iter().map(|c| &c.name));
    if !same_order && all.iter().all(Difference::is_type) {
        all.push(Difference::Order);
    }
    all
}

/// The columns as they should be: those that will do stay as they are written.
pub fn mended_columns(desired: &Desired, found: &[Column]) -> Vec<Column> {
    let column = |want: &super::desired::WantedColumn| {
        let have = found.iter().find(|have| have.name == want.name && want.wanted.takes(&have.kind));
        have.cloned().unwrap_or_else(|| want.preferred())
    };
    desired.columns.iter().map(column).collect()
}

/// The storage of the table, or of a partition at `location`, as it should be.
pub fn mended_stored(desired: &Desired, location: &str, found: &Table) -> Table {
    let storage = &desired.storage;
    let mut serde_parameters = found.serde_parameters.clone();
    // Another SerDe was told other things.
    if found.serde != storage.serde {
        serde_parameters.clear();
    }
    serde_parameters.retain(|key, _| !COMPARED.contains(&key.as_str()));
    for (key, value) in &storage.serde_parameters {
        if COMPARED.contains(&key.as_str()) {
            serde_parameters.insert(key.clone(), value.clone());
        } else {
            serde_parameters.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    Table {
        columns: mended_columns(desired, &found.columns),
        location: location.to_owned(),
        input: storage.input.clone(),
        output: storage.output.clone(),
        serde: storage.serde.clone(),
        serde_parameters,
        ..found.clone()
    }
}

/// The table as a dataset wants it; all that is not compared stays.
pub fn mended(desired: &Desired, found: &Table) -> Table {
    let mut table = mended_stored(desired, &desired.location, found);
    table.keys.clone_from(&desired.keys);
    EXTERNAL.clone_into(&mut table.kind);
    table.parameters.insert("EXTERNAL".to_owned(), "TRUE".to_owned());
    match desired.storage.table_parameters.get(SKIP_HEADER) {
        Some(lines) => drop(table.parameters.insert(SKIP_HEADER.to_owned(), lines.clone())),
        None => drop(table.parameters.remove(SKIP_HEADER)),
    }
    if found.serde != desired.storage.serde {
        table.parameters.insert("classification".to_owned(), desired.storage.classification.to_owned());
    }
    table
}

#[cfg(test)]
mod tests;
