//! A Glue database, the metastore's schema of a connection.
//!
//! Glue lower-cases names, so they are lower-cased here first. A database's tags cannot be read with the database, so
//! the marks are also its parameters, and those are what a probe reads. Tables are other people's data: nothing here
//! touches one.

use aws_sdk_glue::types::{Database, DatabaseInput};
use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityResult, Effect, Owner, Probe, Recorded, Undo,
};
use serde::{Deserialize, Serialize};

use super::error::{classify, none_if};
use super::tags;
use crate::clients::AwsClients;

/// The registered name.
pub const NAME: &str = "aws.glue.database";
/// The kind under which the database is recorded, by name.
pub const KIND: &str = "glue:database";

const NOT_FOUND: &[&str] = &["EntityNotFoundException"];

/// What [`GlueDatabase`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GlueDatabaseInput {
    /// Its name; lower-cased.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: Option<String>,
    /// Where tables without a place of their own lie, as `s3://bucket/path`.
    #[serde(default)]
    pub location_uri: Option<String>,
}

/// What is there afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GlueDatabaseOutput {
    /// Its name as Glue has it.
    pub name: String,
    /// Its ARN; empty when Glue does not say which catalog it is in.
    pub arn: String,
    /// The catalog, which is the account's number.
    pub catalog_id: String,
}

/// A name as Glue keeps it.
pub fn glue_name(name: &str) -> String {
    name.to_lowercase()
}

pub(crate) fn keep_reason(tables: usize) -> String {
    let more = if tables >= COUNT_LIMIT { " or more" } else { "" };
    format!("holds {tables}{more} tables, which are user data")
}

fn output(region: &str, name: &str, database: Option<&Database>) -> GlueDatabaseOutput {
    let catalog_id = database.and_then(Database::catalog_id).unwrap_or_default().to_owned();
    let partition = tags::partition(region);
    let arn = if catalog_id.is_empty() {
        String::new()
    } else {
        format!("arn:{partition}:glue:{region}:{catalog_id}:database/{name}")
    };
    GlueDatabaseOutput { name: name.to_owned(), arn, catalog_id }
}

async fn find(clients: &AwsClients, name: &str) -> ActivityResult<Option<Database>> {
    let call = clients.glue().get_database().name(name).send().await;
    let found = none_if(call.map_err(|e| classify("glue:GetDatabase", e)), NOT_FOUND)?;
    Ok(found.and_then(|a| a.database))
}

/// Counting stops here: one table is enough to keep a database.
const COUNT_LIMIT: usize = 1000;

/// How many tables a database has, up to a thousand.
pub(crate) async fn table_count(clients: &AwsClients, name: &str) -> ActivityResult<usize> {
    let (mut count, mut next) = (0, None);
    loop {
        let call = clients.glue().get_tables().database_name(name).set_next_token(next).send().await;
        let Some(page) = none_if(call.map_err(|e| classify("glue:GetTables", e)), NOT_FOUND)? else {
            return Ok(count);
        };
        count += page.table_list().len();
        next = page.next_token().filter(|t| !t.is_empty()).map(str::to_owned);
        if next.is_none() || count >= COUNT_LIMIT {
            return Ok(count.min(COUNT_LIMIT));
        }
    }
}

/// Creates a Glue database.
///
/// # Idempotency
/// The name is unique in a catalog; the marks among its parameters tell whose it is. Glue takes no token.
///
/// # Compensation
/// Deletes the database if this run made it and it holds no table: `DeleteDatabase` takes its tables along. One with
/// tables is kept.
///
/// Page: <https://docs.aws.amazon.com/glue/latest/webapi/API_CreateDatabase.html>
#[derive(Debug, Clone, Copy, Default)]
pub struct GlueDatabase;

impl Activity for GlueDatabase {
    type Input = GlueDatabaseInput;
    type Output = GlueDatabaseOutput;
    const HAS_PROBE: bool = true;

    fn effect(&self) -> Effect {
        Effect::Create
    }

    async fn probe(
        &self,
        ctx: &ActivityContext,
        input: &GlueDatabaseInput,
    ) -> ActivityResult<Probe<GlueDatabaseOutput>> {
        let clients = AwsClients::of(ctx)?;
        let name = glue_name(&input.name);
        Ok(match find(&clients, &name).await? {
            None => Probe::Absent,
            Some(database) => Probe::Present {
                output: output(clients.region(), &name, Some(&database)),
                owner: tags::owner_of_map(&ctx.marks(), database.parameters()),
            },
        })
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &GlueDatabaseInput,
    ) -> ActivityResult<GlueDatabaseOutput> {
        const ACTION: &str = "glue:CreateDatabase";
        let clients = AwsClients::of(ctx)?;
        let name = glue_name(&input.name);
        let marks = tags::map(&ctx.marks());
        let database = DatabaseInput::builder()
            .name(&name)
            .description(input.description.as_deref().unwrap_or("made by dssflow"))
            .set_location_uri(input.location_uri.clone())
            .set_parameters(Some(marks.clone()))
            .build()
            .map_err(|e| ActivityError::terminal("RequestInvalid", e.to_string()).no_effect())?;
        let call = clients.glue().create_database().database_input(database).set_tags(Some(marks));
        call.send().await.map_err(|e| classify(ACTION, e))?;
        ctx.record_resource(KIND, &name).await?;
        let made = find(&clients, &name).await?;
        Ok(output(clients.region(), &name, made.as_ref()))
    }

    async fn compensate(
        &self,
        ctx: &ActivityContext,
        input: &GlueDatabaseInput,
        _: &Recorded,
    ) -> ActivityResult<Undo> {
        let clients = AwsClients::of(ctx)?;
        let name = glue_name(&input.name);
        let Some(database) = find(&clients, &name).await? else { return Ok(Undo::NothingToDo) };
        if tags::owner_of_map(&ctx.marks(), database.parameters()) != Owner::ThisRun {
            return Ok(Undo::NothingToDo);
        }
        let tables = table_count(&clients, &name).await?;
        if tables > 0 {
            return Ok(Undo::Kept { reason: format!("Glue database {name} {}", keep_reason(tables)) });
        }
        let call = clients.glue().delete_database().name(&name).send().await;
        none_if(call.map_err(|e| classify("glue:DeleteDatabase", e)), NOT_FOUND)?;
        Ok(Undo::Undone)
    }

    fn describe(&self, input: &GlueDatabaseInput) -> String {
        format!("create Glue database {}", glue_name(&input.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_and_arns_complete() {
        assert_eq!(glue_name("Sales_EU"), "sales_eu");
        let database = Database::builder().name("sales").catalog_id("123456789012").build().unwrap();
        let out = output("eu-west-1", "sales", Some(&database));
        assert_eq!(out.arn, "arn:aws:glue:eu-west-1:123456789012:database/sales");
        assert_eq!(output("eu-west-1", "sales", None).arn, "");
    }

    #[test]
    fn the_count_has_an_end() {
        assert_eq!(keep_reason(2), "holds 2 tables, which are user data");
        assert!(keep_reason(1000).contains("1000 or more"));
    }
}
