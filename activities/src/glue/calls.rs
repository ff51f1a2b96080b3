//! The calls to Glue and S3 of a resync: paged, patient when they are throttled, and never made by a run that may be
//! somebody else's.

use std::time::Duration;

use aws_sdk_glue::types::{
    self as sdk, BatchUpdatePartitionRequestEntry, ErrorDetail, PartitionInput, PartitionValueList,
    TableInput,
};
use dssflow_engine::activity::{ActivityContext, ActivityError, ActivityResult, ErrorClass};

use super::pattern::{Bound, Pattern, is_hidden};
use crate::aws::error::{classify, none_if};
use crate::clients::AwsClients;

/// What Glue says of a table, database or partition that is not there.
pub(super) const NOT_FOUND: &str = "EntityNotFoundException";
/// What it says of one that is there.
pub(super) const EXISTS: &str = "AlreadyExistsException";
/// Tables in a page of Glue; it gives no more.
const TABLES_PAGE: i32 = 100;
/// Partitions in a page of Glue; it gives no more.
const PARTITIONS_PAGE: i32 = 1000;
/// How often a call that is throttled, or a look that fails, is made within one attempt.
const TRIES: u32 = 7;
/// The first wait between two of them; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The longest.
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// Why a partition was refused, of a call for many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) values: Vec<String>,
    pub(super) code: String,
    pub(super) why: String,
}

/// A partition as it lies in S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) values: Vec<String>,
    pub(super) location: String,
}

/// Makes calls for one attempt.
#[derive(Clone, Copy)]
pub(super) struct Calls<'a> {
    pub(super) ctx: &'a ActivityContext,
    pub(super) aws: &'a AwsClients,
}

/// The wait before try number `tries` + 1.
fn wait(tries: u32, error: &ActivityError) -> Duration {
    let own = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(tries)).min(LONGEST_WAIT);
    own.max(Duration::from_millis(error.retry_after_ms.unwrap_or_default()))
}

impl Calls<'_> {
    /// Makes a call again while it is throttled, and a look also when it fails in passing.
    pub(super) async fn steady<T, F>(
        self,
        is_look: bool,
        mut call: impl FnMut() -> F + Send,
    ) -> ActivityResult<T>
    where
        T: Send,
        F: Future<Output = ActivityResult<T>> + Send,
    {
        let mut tries = 0;
        loop {
            if !is_look {
                self.ctx.fence()?;
            }
            let error = match Box::pin(call()).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let again =
                error.class == ErrorClass::Throttled || (is_look && error.class == ErrorClass::Retryable);
            if !again || tries + 1 >= TRIES {
                return Err(error);
            }
            tracing::debug!(%error, tries, "asked again");
            self.ctx.sleep(wait(tries, &error)).await?;
            tries += 1;
        }
    }

    /// A table; `None` when it or its database is not there.
    pub(super) async fn table(self, database: &str, name: &str) -> ActivityResult<Option<sdk::Table>> {
        let found = self
            .steady(true, || async {
                let call = self.aws.glue().get_table().database_name(database).name(name).send().await;
                none_if(call.map_err(|e| classify("glue:GetTable", e)), &[NOT_FOUND])
            })
            .await?;
        Ok(found.and_then(|answer| answer.table))
    }

    /// Shows every table of a database to `each`, page by page. False when there is no such database.
    pub(super) async fn tables(
        self,
        database: &str,
        mut each: impl FnMut(&sdk::Table) + Send,
    ) -> ActivityResult<bool> {
        let mut next: Option<String> = None;
        loop {
            let page = self
                .steady(true, || {
                    let call = self.aws.glue().get_tables().database_name(database).max_results(TABLES_PAGE);
                    let call = call.set_next_token(next.clone());
                    async move {
                        none_if(call.send().await.map_err(|e| classify("glue:GetTables", e)), &[NOT_FOUND])
                    }
                })
                .await?;
            let Some(page) = page else { return Ok(false) };
            page.table_list().iter().for_each(&mut each);
            let Some(token) = following(page.next_token(), next.as_deref(), "glue:GetTables")? else {
                return Ok(true);
            };
            next = Some(token);
        }
    }

    /// Shows every partition of a table to `each`, page by page, until it says that it has enough.
    pub(super) async fn partitions(
        self,
        database: &str,
        table: &str,
        mut each: impl FnMut(&sdk::Partition) -> bool + Send,
    ) -> ActivityResult<()> {
        let mut next: Option<String> = None;
        loop {
            let page = self
                .steady(true, || {
                    let call = self.aws.glue().get_partitions().database_name(database).table_name(table);
                    let call = call.max_results(PARTITIONS_PAGE).set_next_token(next.clone());
                    async move {
                        none_if(
                            call.send().await.map_err(|e| classify("glue:GetPartitions", e)),
                            &[NOT_FOUND],
                        )
                    }
                })
                .await?;
            let Some(page) = page else { return Ok(()) };
            if !page.partitions().iter().all(&mut each) {
                return Ok(());
            }
            let Some(token) = following(page.next_token(), next.as_deref(), "glue:GetPartitions")? else {
                return Ok(());
            };
            next = Some(token);
        }
    }

    /// Partitions of a table as they are now, by their values; those that are not there are left out.
    pub(super) async fn partitions_of(
        self,
        database: &str,
        table: &str,
        values: &[Vec<String>],
    ) -> ActivityResult<Vec<sdk::Partition>> {
        let mut wanted = value_lists(values)?;
        let mut found = Vec::new();
        for tries in 1..=TRIES {
            let answer = self
                .steady(true, || async {
                    let call = self.aws.glue().batch_get_partition();
                    let call = call.database_name(database).table_name(table);
                    let call = call.set_partitions_to_get(Some(wanted.clone()));
                    call.send().await.map_err(|e| classify("glue:BatchGetPartition", e))
                })
                .await?;
            found.extend(answer.partitions.unwrap_or_default());
            // What Glue had no time for is neither there nor missing.
            wanted = answer.unprocessed_keys.unwrap_or_default();
            if wanted.is_empty() {
                return Ok(found);
            }
            self.ctx.sleep(FIRST_WAIT * tries).await?;
        }
        let message = format!("glue:BatchGetPartition: it never tells of {} partitions", wanted.len());
        Err(ActivityError::retryable("AnswerIncomplete", message).no_effect())
    }

    /// Makes a table.
    pub(super) async fn create_table(self, database: &str, input: &TableInput) -> ActivityResult<()> {
        self.steady(false, || async {
            let call = self.aws.glue().create_table().database_name(database).table_input(input.clone());
            call.send().await.map(drop).map_err(|e| classify("glue:CreateTable", e))
        })
        .await
    }

    /// Changes a table, if it still is the version that was read.
    pub(super) async fn update_table(
        self,
        database: &str,
        input: &TableInput,
        version: Option<&str>,
    ) -> ActivityResult<()> {
        self.steady(false, || async {
            let call = self.aws.glue().update_table().database_name(database).table_input(input.clone());
            let call = call.set_version_id(version.map(str::to_owned));
            call.send().await.map(drop).map_err(|e| classify("glue:UpdateTable", e))
        })
        .await
    }

    /// Deletes a table. False when it was not there.
    pub(super) async fn delete_table(self, database: &str, name: &str) -> ActivityResult<bool> {
        let gone = self
            .steady(false, || async {
                let call = self.aws.glue().delete_table().database_name(database).name(name).send().await;
                none_if(call.map_err(|e| classify("glue:DeleteTable", e)), &[NOT_FOUND])
            })
            .await?;
        Ok(gone.is_some())
    }

    /// Makes partitions; gives those that Glue refused.
    pub(super) async fn create_partitions(
        self,
        database: &str,
        table: &str,
        inputs: &[PartitionInput],
    ) -> ActivityResult<Vec<Refused>> {
        let answer = self
            .steady(false, || async {
                let call = self.aws.glue().batch_create_partition().database_name(database).table_name(table);
                let call = call.set_partition_input_list(Some(inputs.to_vec()));
                call.send().await.map_err(|e| classify("glue:BatchCreatePartition", e))
            })
            .await?;
        Ok(answer.errors().iter().map(|e| refused(e.partition_values(), e.error_detail())).collect())
    }

    /// Changes partitions; gives those that Glue refused.
    pub(super) async fn update_partitions(
        self,
        database: &str,
        table: &str,
        inputs: &[PartitionInput],
    ) -> ActivityResult<Vec<Refused>> {
        let entry = |input: &PartitionInput| {
            BatchUpdatePartitionRequestEntry::builder()
                .set_partition_value_list(input.values.clone())
                .partition_input(input.clone())
                .build()
                .map_err(|e| ActivityError::terminal("RequestInvalid", e.to_string()).no_effect())
        };
        let entries: Vec<_> = inputs.iter().map(entry).collect::<ActivityResult<_>>()?;
        let answer = self
            .steady(false, || async {
                let call = self.aws.glue().batch_update_partition().database_name(database).table_name(table);
                let call = call.set_entries(Some(entries.clone()));
                call.send().await.map_err(|e| classify("glue:BatchUpdatePartition", e))
            })
            .await?;
        Ok(answer.errors().iter().map(|e| refused(e.partition_value_list(), e.error_detail())).collect())
    }

    /// Takes partitions out of a table; their files stay. Gives those that Glue refused.
    pub(super) async fn delete_partitions(
        self,
        database: &str,
        table: &str,
        values: &[Vec<String>],
    ) -> ActivityResult<Vec<Refused>> {
        let lists = value_lists(values)?;
        let answer = self
            .steady(false, || async {
                let call = self.aws.glue().batch_delete_partition().database_name(database).table_name(table);
                let call = call.set_partitions_to_delete(Some(lists.clone()));
                call.send().await.map_err(|e| classify("glue:BatchDeletePartition", e))
            })
            .await?;
        Ok(answer.errors().iter().map(|e| refused(e.partition_values(), e.error_detail())).collect())
    }
}

/// The values of partitions as Glue is told them.
fn value_lists(values: &[Vec<String>]) -> ActivityResult<Vec<PartitionValueList>> {
    let list = |values: &Vec<String>| {
        PartitionValueList::builder()
            .set_values(Some(values.clone()))
            .build()
            .map_err(|e| ActivityError::terminal("RequestInvalid", e.to_string()).no_effect())
    };
    values.iter().map(list).collect()
}

fn refused(values: &[String], detail: Option<&ErrorDetail>) -> Refused {
    Refused {
        values: values.to_vec(),
        code: detail.and_then(ErrorDetail::error_code).unwrap_or("Unknown").to_owned(),
        why: detail.and_then(ErrorDetail::error_message).unwrap_or("no reason given").to_owned(),
    }
}

/// The token of the next page; a page that leads to itself is an error and no loop.
fn following(token: Option<&str>, last: Option<&str>, action: &str) -> ActivityResult<Option<String>> {
    match token.filter(|t| !t.is_empty()) {
        Some(token) if Some(token) == last => {
            let message = format!("{action}: a page leads to itself");
            Err(ActivityError::retryable("AnswerIncomplete", message).no_effect())
        }
        token => Ok(token.map(str::to_owned)),
    }
}

/// A look at one directory of S3 that is still to be taken.
struct Look {
    level: usize,
    prefix: String,
    bound: Bound,
    token: Option<String>,
}

/// The walk through the directories of a partitioned dataset, a page of S3 at a time and in its order.
pub(super) struct Walk<'a> {
    calls: Calls<'a>,
    bucket: String,
    pattern: &'a Pattern,
    looks: Vec<Look>,
}

impl<'a> Walk<'a> {
    /// A walk below `location`, as `s3://bucket/path`.
    pub(super) fn new(calls: Calls<'a>, location: &str, pattern: &'a Pattern) -> Self {
        let (bucket, path) = location.trim_start_matches("s3://").split_once('/').unwrap_or((location, ""));
        let look = Look { level: 0, prefix: format!("{path}/"), bound: Bound::default(), token: None };
        Self { calls, bucket: bucket.to_owned(), pattern, looks: vec![look] }
    }

    /// The partitions of the next page; `None` when there is no more.
    pub(super) async fn next(&mut self) -> ActivityResult<Option<Vec<Found>>> {
        let Some(mut look) = self.looks.pop() else { return Ok(None) };
        let levels = self.pattern.levels();
        // Directories that always have one name are not looked for, only looked into.
        while let Some(name) = levels[look.level].fixed()
            && look.level + 1 < levels.len()
        {
            look.prefix = format!("{}{name}/", look.prefix);
            look.level += 1;
        }
        let page = self
            .calls
            .steady(true, || {
                let call = self.calls.aws.s3().list_objects_v2().bucket(&self.bucket).prefix(&look.prefix);
                let call = call.delimiter("/").set_continuation_token(look.token.clone());
                async move { call.send().await.map_err(|e| classify("s3:ListObjectsV2", e)) }
            })
            .await?;
        let token = page.next_continuation_token().filter(|t| !t.is_empty());
        if let Some(token) = following(token, look.token.as_deref(), "s3:ListObjectsV2")? {
            let (prefix, bound) = (look.prefix.clone(), look.bound.clone());
            self.looks.push(Look { level: look.level, prefix, bound, token: Some(token) });
        }
        let level = &levels[look.level];
        let mut found = Vec::new();
        let mut deeper = Vec::new();
        for prefix in page.common_prefixes().iter().filter_map(|p| p.prefix()) {
            let name = prefix.strip_prefix(look.prefix.as_str()).unwrap_or_default().trim_end_matches('/');
            if name.is_empty() || (level.fixed().is_none() && is_hidden(name)) {
                continue;
            }
            let Some(bound) = level.take(name, &look.bound) else { continue };
            if look.level + 1 < levels.len() {
                deeper.push(Look { level: look.level + 1, prefix: prefix.to_owned(), bound, token: None });
            } else if let Some(values) = self.pattern.values(&bound) {
                let location = format!("s3://{}/{}", self.bucket, prefix.trim_end_matches('/'));
                found.push(Found { values, location });
            }
        }
        // The last is taken first: so the walk is in S3's order.
        self.looks.extend(deeper.into_iter().rev());
        Ok(Some(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_keep_to_the_services_wish() {
        let plain = ActivityError::throttled("x", "y");
        assert_eq!((wait(0, &plain), wait(1, &plain)), (FIRST_WAIT, FIRST_WAIT * 2));
        assert_eq!(wait(40, &plain), LONGEST_WAIT);
        assert_eq!(wait(0, &plain.retry_after(Duration::from_secs(30))), Duration::from_secs(30));
    }

    #[test]
    fn pages_end() {
        assert_eq!(following(Some("b"), Some("a"), "x").unwrap().as_deref(), Some("b"));
        assert_eq!(following(Some(""), Some("a"), "x").unwrap(), None);
        assert_eq!(following(None, None, "x").unwrap(), None);
        assert!(following(Some("a"), Some("a"), "x").is_err());
    }
}
