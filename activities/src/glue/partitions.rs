//! Partitions of one table: what Glue has against what lies in S3, one at a time and in bounded memory.
//!
//! Glue's side is read first, and of each partition only its values and whether it is right are kept; S3's side is then
//! taken in as it is listed, and takes out of memory what it meets. What is left at the end has vanished. Pure.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::desired::Desired;
use super::table::{Table, columns_differ, stored_differ};

/// The most partitions of one table that are compared.
pub const MAX_PARTITIONS: usize = 250_000;
/// How many Glue makes or changes in one call.
pub const BATCH: usize = 100;
/// How many it deletes in one call.
pub const DELETE_BATCH: usize = 25;
/// Stands between the values of a partition in memory. No value holds it: Hive escapes control characters.
const BETWEEN: char = '\u{1}';

/// How many partitions there are of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "PartitionCounts")]
#[serde(default)]
pub struct Counts {
    /// In S3, Glue or both.
    pub looked: u64,
    /// In S3 and not in Glue.
    pub added: u64,
    /// In both, and Glue says something else of it than its table.
    pub changed: u64,
    /// In Glue and no longer in S3.
    pub vanished: u64,
    /// Those of the three that were mended.
    pub mended: u64,
}

impl Counts {
    /// Whether Glue is not as S3 is.
    pub fn differ(&self) -> bool {
        self.added + self.changed + self.vanished > 0
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            looked: self.looked + other.looked,
            added: self.added + other.added,
            changed: self.changed + other.changed,
            vanished: self.vanished + other.vanished,
            mended: self.mended + other.mended,
        }
    }
}

/// What becomes of a partition that lies in S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Glue has it as it should be.
    Right,
    /// Glue does not have it.
    Missing,
    /// Glue has it otherwise.
    Wrong,
    /// It was taken in before.
    Again,
}

/// What Glue says of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It is as its table and lies where its values lead.
    Right,
    /// It lies below its table's place and is not as it should be.
    Wrong,
    /// It lies elsewhere: somebody put it there. It is put right when S3 has it, and never deleted.
    Elsewhere,
}

/// Glue's side, which shrinks as S3's is taken in.
#[derive(Debug, Default)]
pub struct Known {
    /// By its values.
    left: HashMap<Box<str>, Seen>,
    /// Those that S3 has and Glue does not, so that none is made twice.
    made: std::collections::HashSet<Box<str>>,
    counts: Counts,
}

fn key(values: &[String]) -> Box<str> {
    values.join(&BETWEEN.to_string()).into_boxed_str()
}

/// What Glue says of a partition, against what its table should say. `storage` is the partition's own description.
pub fn judge(desired: &Desired, values: &[String], storage: &Table) -> Seen {
    let below = storage.location.strip_prefix(&desired.location).is_some_and(|rest| rest.starts_with('/'));
    let path = desired.pattern.as_ref().and_then(|pattern| pattern.path(values));
    let right = path.is_some_and(|path| {
        let location = format!("{}/{path}", desired.location);
        stored_differ(desired, &location, storage).is_empty()
            && columns_differ(desired, &storage.columns).is_empty()
    });
    match (right, below) {
        (true, _) => Seen::Right,
        (false, true) => Seen::Wrong,
        (false, false) => Seen::Elsewhere,
    }
}

impl Known {
    /// Takes in a partition of Glue. False when there are too many.
    #[must_use]
    pub fn glue_has(&mut self, values: &[String], seen: Seen) -> bool {
        self.left.insert(key(values), seen);
        self.left.len() <= MAX_PARTITIONS
    }

    /// Takes in a partition of S3.
    pub fn s3_has(&mut self, values: &[String]) -> Fate {
        let key = key(values);
        if self.made.contains(&key) {
            return Fate::Again;
        }
        let fate = match self.left.remove(&key) {
            Some(Seen::Right) => Fate::Right,
            Some(Seen::Wrong | Seen::Elsewhere) => Fate::Wrong,
            None => Fate::Missing,
        };
        self.counts.looked += 1;
        match fate {
            Fate::Missing => {
                self.counts.added += 1;
                self.made.insert(key);
            }
            Fate::Wrong => self.counts.changed += 1,
            Fate::Right | Fate::Again => {}
        }
        fate
    }

    /// How many were taken in from S3 so far.
    pub fn looked(&self) -> u64 {
        self.counts.looked
    }

    /// The values of those that have vanished from S3, in order, and what was counted. What lies elsewhere has not.
    pub fn finish(self) -> (Vec<Vec<String>>, Counts) {
        let gone = self.left.into_iter().filter(|(_, seen)| *seen != Seen::Elsewhere);
        let mut vanished: Vec<Vec<String>> =
            gone.map(|(key, _)| key.split(BETWEEN).map(str::to_owned).collect()).collect();
        vanished.sort();
        let mut counts = self.counts;
        counts.vanished = u64::try_from(vanished.len()).unwrap_or(u64::MAX);
        counts.looked += counts.vanished;
        (vanished, counts)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::desired::{ConnectionPlace, Variables, desired};
    use super::super::table::{Table, mended_stored};
    use super::super::types::Types;
    use super::*;

    fn values(text: &str) -> Vec<String> {
        text.split('|').map(str::to_owned).collect()
    }

    #[test]
    fn each_partition_has_one_fate() {
        let mut known = Known::default();
        for (text, seen) in [
            ("2020|a", Seen::Right),
            ("2020|b", Seen::Wrong),
            ("2019|a", Seen::Right),
            ("2018|z", Seen::Wrong),
            ("2017|y", Seen::Elsewhere),
        ] {
            assert!(known.glue_has(&values(text), seen));
        }
        let fates: Vec<Fate> =
            ["2020|a", "2020|b", "2021|a", "2021|a"].iter().map(|t| known.s3_has(&values(t))).collect();
        assert_eq!(fates, [Fate::Right, Fate::Wrong, Fate::Missing, Fate::Again]);
        let (vanished, counts) = known.finish();
        assert_eq!(vanished, [values("2018|z"), values("2019|a")]);
        assert_eq!(counts, Counts { looked: 5, added: 1, changed: 1, vanished: 2, mended: 0 });
        assert!(counts.differ() && !Counts { looked: 9, ..Counts::default() }.differ());
    }

    #[test]
    fn a_partition_is_right_where_its_values_lead_and_with_the_tables_columns() {
        let dataset = json!({
            "projectKey": "P", "name": "d", "formatType": "parquet", "params": {"bucket": "b", "path": "/P/d"},
            "schema": {"columns": [{"name": "id", "type": "bigint"}]},
            "partitioning": {"dimensions": [{"name": "day", "type": "time", "params": {"period": "DAY"}}], "filePathPattern": "/%Y/%M/%D/.*"}
        });
        let desired =
            desired(&dataset, &ConnectionPlace::default(), &Variables::default(), &Types::new()).unwrap();
        let day = values("2020-01-02");
        let right = mended_stored(&desired, "s3://b/P/d/2020/01/02", &Table::default());
        assert_eq!(judge(&desired, &day, &right), Seen::Right);
        let at = |location: &str| Table { location: location.into(), ..right.clone() };
        assert_eq!(judge(&desired, &day, &at("s3://b/P/d/2020/01/03")), Seen::Wrong);
        assert_eq!(judge(&desired, &day, &at("s3://b/P/d2/2020/01/02")), Seen::Elsewhere);
        let mut retyped = right.clone();
        retyped.columns[0].kind = "string".into();
        assert_eq!(judge(&desired, &day, &retyped), Seen::Wrong, "HIVE_PARTITION_SCHEMA_MISMATCH");
        assert_eq!(judge(&desired, &values("2020"), &right), Seen::Wrong);
    }

    #[test]
    fn there_is_a_limit() {
        let mut known = Known::default();
        let fits = (0..=MAX_PARTITIONS).all(|n| known.glue_has(&[n.to_string()], Seen::Right));
        assert!(!fits);
    }
}
