//! Partitions of one table on their way to Glue: collected until a call is worth it, sent, and sent again where that helps.
//!
//! A partition that Glue has is read again right before it is changed, and compared anew: what somebody else put right
//! meanwhile is left alone, and what others added to it stays. One that turns out to be there is not made but changed, one
//! that turns out to be gone is not changed but made.

use aws_sdk_glue::types as sdk;
use dssflow_engine::activity::{ActivityResult, ErrorClass};

use super::calls::{Calls, EXISTS, Found, NOT_FOUND, Refused};
use super::desired::Desired;
use super::mend::{TRIES, pause};
use super::partitions::{BATCH, Seen, judge};
use super::table::{Table, mended_stored};

/// Codes of single partitions that may be taken the next time.
const PASSING: [&str; 7] = [
    "InternalServiceException",
    "OperationTimeoutException",
    "ConcurrentModificationException",
    "VersionMismatchException",
    "ResourceNotReadyException",
    "ThrottlingException",
    "Unknown",
];

/// A partition that is to be made or changed.
struct Due {
    found: Found,
    /// How often it was sent in vain.
    tries: u32,
}

/// What a call was to do with its partitions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Make,
    Change,
}

/// Partitions of one table that are still to be sent.
pub(super) struct Batches<'j> {
    calls: Calls<'j>,
    desired: &'j Desired,
    database: &'j str,
    table: &'j str,
    /// Without it nothing is taken in.
    write: bool,
    new: Vec<Due>,
    other: Vec<Due>,
    mended: u64,
    notes: Vec<String>,
}

impl<'j> Batches<'j> {
    pub(super) fn new(
        calls: Calls<'j>,
        desired: &'j Desired,
        database: &'j str,
        table: &'j str,
        write: bool,
    ) -> Self {
        let (new, other, notes) = (Vec::new(), Vec::new(), Vec::new());
        Self { calls, desired, database, table, write, new, other, mended: 0, notes }
    }

    /// Takes in one that Glue does not have.
    pub(super) async fn make(&mut self, found: Found) -> ActivityResult<()> {
        if !self.write {
            return Ok(());
        }
        self.new.push(Due { found, tries: 0 });
        self.send(BATCH).await
    }

    /// Takes in one that Glue has otherwise.
    pub(super) async fn change(&mut self, found: Found) -> ActivityResult<()> {
        if !self.write {
            return Ok(());
        }
        self.other.push(Due { found, tries: 0 });
        self.send(BATCH).await
    }

    /// Takes partitions out of Glue that are in S3 no longer.
    pub(super) async fn delete(&mut self, values: &[Vec<String>]) -> ActivityResult<()> {
        let mut tries = 0;
        let refused = loop {
            match self.calls.delete_partitions(self.database, self.table, values).await {
                Ok(refused) => break refused,
                Err(error) if error.class == ErrorClass::Retryable && tries + 1 < TRIES => {
                    tracing::info!(%error, tries, "the partitions are sent again");
                    self.calls.ctx.sleep(pause(self.table, tries)).await?;
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        };
        let refused: Vec<Refused> = refused.into_iter().filter(|r| r.code != NOT_FOUND).collect();
        self.mended += count(values.len() - refused.len());
        self.note(&refused);
        Ok(())
    }

    /// Sends what is left. How many were mended, and what there is to say of the others.
    pub(super) async fn finish(mut self) -> ActivityResult<(u64, Vec<String>)> {
        self.send(1).await?;
        Ok((self.mended, self.notes))
    }

    /// Sends as long as there are so many of a kind. It ends: each is sent [`TRIES`] times at the most.
    async fn send(&mut self, least: usize) -> ActivityResult<()> {
        while self.new.len() >= least || self.other.len() >= least {
            if self.new.len() >= least {
                self.send_new().await?;
            }
            if self.other.len() >= least {
                self.send_other().await?;
            }
        }
        Ok(())
    }

    async fn send_new(&mut self) -> ActivityResult<()> {
        let sent = first(&mut self.new);
        let inputs: Vec<sdk::PartitionInput> =
            sent.iter().map(|due| told(self.desired, &due.found, None)).collect::<ActivityResult<_>>()?;
        let answer = self.calls.create_partitions(self.database, self.table, &inputs).await;
        self.settle(Call::Make, sent, answer).await
    }

    async fn send_other(&mut self) -> ActivityResult<()> {
        let due = first(&mut self.other);
        let values: Vec<Vec<String>> = due.iter().map(|due| due.found.values.clone()).collect();
        let there = self.calls.partitions_of(self.database, self.table, &values).await?;
        let (mut sent, mut inputs) = (Vec::new(), Vec::new());
        for due in due {
            let was = there.iter().find(|partition| partition.values() == due.found.values.as_slice());
            let Some(was) = was else {
                self.new.push(due);
                continue;
            };
            let storage = was.storage_descriptor().map(Table::stored).unwrap_or_default();
            if judge(self.desired, &due.found.values, &storage) == Seen::Right {
                // By somebody else, or by a call whose answer was lost.
                self.mended += 1;
                continue;
            }
            inputs.push(told(self.desired, &due.found, Some(was))?);
            sent.push(due);
        }
        if sent.is_empty() {
            return Ok(());
        }
        let answer = self.calls.update_partitions(self.database, self.table, &inputs).await;
        self.settle(Call::Change, sent, answer).await
    }

    /// Takes in the answer to a call: counts what was done, puts back what is worth another, and notes the rest.
    async fn settle(
        &mut self,
        call: Call,
        sent: Vec<Due>,
        answer: ActivityResult<Vec<Refused>>,
    ) -> ActivityResult<()> {
        let tries = sent.iter().map(|due| due.tries).max().unwrap_or_default();
        let refused = match answer {
            Ok(refused) => refused,
            Err(error) if error.class == ErrorClass::Retryable && tries + 1 < TRIES => {
                tracing::info!(%error, tries, "the partitions are sent again");
                for due in sent {
                    self.again(call, due);
                }
                return self.calls.ctx.sleep(pause(self.table, tries)).await;
            }
            Err(error) => return Err(error),
        };
        let (mut lost, mut given_up, mut waits) = (Vec::new(), Vec::new(), false);
        for due in sent {
            let Some(why) = refused.iter().find(|refused| refused.values == due.found.values) else {
                self.mended += 1;
                continue;
            };
            // Somebody was faster: the next look at it decides.
            let met = why.code == if call == Call::Make { EXISTS } else { NOT_FOUND };
            if !met && !PASSING.contains(&why.code.as_str()) {
                lost.push(why.clone());
            } else if due.tries + 1 >= TRIES {
                given_up.push(due.found.values);
            } else {
                waits |= !met;
                self.again(if met { Call::Change } else { call }, due);
            }
        }
        self.note(&lost);
        self.give_up(&given_up);
        if waits { self.calls.ctx.sleep(pause(self.table, tries)).await } else { Ok(()) }
    }

    fn again(&mut self, call: Call, due: Due) {
        let due = Due { tries: due.tries + 1, ..due };
        match call {
            Call::Make => self.new.push(due),
            Call::Change => self.other.push(due),
        }
    }

    fn note(&mut self, refused: &[Refused]) {
        let line = |r: &Refused| format!("partition {}: {}: {}", r.values.join("|"), r.code, r.why);
        self.notes.extend(refused.iter().take(3).map(line));
    }

    fn give_up(&mut self, given_up: &[Vec<String>]) {
        if let Some(first) = given_up.first() {
            let more = given_up.len() - 1;
            self.notes
                .push(format!("partition {} and {more} more are refused again and again", first.join("|")));
        }
    }
}

/// Takes out as many as one call may have.
fn first(queue: &mut Vec<Due>) -> Vec<Due> {
    let most = queue.len().min(BATCH);
    queue.drain(..most).collect()
}

/// What Glue is told of a partition: what the dataset wants, put into what Glue has of it.
fn told(
    desired: &Desired,
    found: &Found,
    was: Option<&sdk::Partition>,
) -> ActivityResult<sdk::PartitionInput> {
    let stored = was.and_then(sdk::Partition::storage_descriptor);
    let have = stored.map(Table::stored).unwrap_or_default();
    let storage = mended_stored(desired, &found.location, &have).storage(stored)?;
    Ok(sdk::PartitionInput::builder()
        .set_values(Some(found.values.clone()))
        .storage_descriptor(storage)
        .set_parameters(was.and_then(|partition| partition.parameters.clone()))
        .set_last_access_time(was.and_then(|partition| partition.last_access_time))
        .set_last_analyzed_time(was.and_then(|partition| partition.last_analyzed_time))
        .build())
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use aws_sdk_glue::primitives::DateTime;
    use serde_json::json;

    use super::super::desired::{ConnectionPlace, Variables, desired};
    use super::super::types::Types;
    use super::*;

    fn visits() -> Desired {
        let dataset = json!({
            "projectKey": "P", "name": "visits", "formatType": "parquet", "params": {"bucket": "b", "path": "/P/visits"},
            "schema": {"columns": [{"name": "id", "type": "bigint"}, {"name": "note", "type": "string"}]},
            "partitioning": {"dimensions": [{"name": "country", "type": "value"}], "filePathPattern": "/%{country}/.*"}
        });
        desired(&dataset, &ConnectionPlace::default(), &Variables::default(), &Types::new()).unwrap()
    }

    fn found() -> Found {
        Found { values: vec!["de".to_owned()], location: "s3://b/P/visits/de".to_owned() }
    }

    /// As Glue has what it was told.
    fn kept(input: &sdk::PartitionInput) -> sdk::Partition {
        sdk::Partition::builder()
            .set_values(input.values.clone())
            .set_storage_descriptor(input.storage_descriptor.clone())
            .set_parameters(input.parameters.clone())
            .set_last_access_time(input.last_access_time)
            .build()
    }

    fn seen(desired: &Desired, partition: &sdk::Partition) -> Seen {
        let storage = partition.storage_descriptor().map(Table::stored).unwrap_or_default();
        judge(desired, partition.values(), &storage)
    }

    #[test]
    fn a_partition_that_is_changed_keeps_what_others_put_there() {
        let desired = visits();
        let mut theirs = kept(&told(&desired, &found(), None).unwrap());
        assert_eq!(seen(&desired, &theirs), Seen::Right);
        theirs.parameters = Some([("rows".to_owned(), "7".to_owned())].into());
        theirs.last_access_time = Some(DateTime::from_secs(9));
        let storage = theirs.storage_descriptor.as_mut().unwrap();
        storage.number_of_buckets = 4;
        storage.location = Some("s3://b/P/visits/de/".to_owned());
        storage.parameters = Some([("compressionType".to_owned(), "snappy".to_owned())].into());
        let columns = storage.columns.as_mut().unwrap();
        columns[0].comment = Some("the number".to_owned());
        columns[0].r#type = Some("string".to_owned());
        columns[1].comment = Some("ask Ann".to_owned());
        assert_eq!(seen(&desired, &theirs), Seen::Wrong);

        let input = told(&desired, &found(), Some(&theirs)).unwrap();
        assert_eq!(seen(&desired, &kept(&input)), Seen::Right);
        assert_eq!((&input.values, &input.parameters), (&theirs.values, &theirs.parameters));
        assert_eq!(input.last_access_time, theirs.last_access_time);
        let (was, now) = (theirs.storage_descriptor().unwrap(), input.storage_descriptor().unwrap());
        assert_eq!((now.parameters(), now.number_of_buckets()), (was.parameters(), 4));
        assert_eq!(now.location(), Some("s3://b/P/visits/de/"), "its own spelling of the same place");
        let comments: Vec<_> = now.columns().iter().map(sdk::Column::comment).collect();
        assert_eq!(comments, [Some("the number"), Some("ask Ann")]);
        assert_eq!(now.columns()[0].r#type(), Some("bigint"));
    }
}
