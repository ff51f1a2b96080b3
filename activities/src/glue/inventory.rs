//! What there is: the datasets of DSS on S3 that are to have tables, the tables of their Glue databases, and from both
//! the pages of work and the tables that no dataset names.
//!
//! Only names are kept of either, so memory grows with their number and not with what they hold.

use std::collections::{BTreeMap, BTreeSet};

use dssflow_engine::activity::{Activity, ActivityContext, ActivityError, ActivityResult, Effect};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::calls::Calls;
use super::desired::{ConnectionPlace, S3_DATASET, Variables, is_synced, names};
use super::instance::Instance;
use super::page::{Entry, PageInput};
use super::report::{Finding, Findings, Kind};
use super::whose::Proof;
use super::{Include, Rules};
use crate::clients::AwsClients;
use crate::dss::client::DssTarget;
use crate::wildcard;

/// The registered name.
pub const NAME: &str = "glue.inventory";
/// The most datasets of one run.
pub const MAX_DATASETS: usize = 50_000;
/// The most pages of one run: what all of them say together must fit into one output.
pub const MAX_PAGES: usize = 400;
/// The most tables without a dataset that one run looks at again.
const MAX_REMOVED: usize = 5_000;
/// So many of the foreign tables are named.
const EXAMPLES: usize = 20;
/// The most bytes of findings.
const FINDINGS_BYTES: usize = 256 * 1024;

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InventoryInput {
    /// Which DSS.
    pub target: DssTarget,
    /// How tables are compared and mended.
    pub rules: Rules,
    /// Names of connections, with `*`; none means all on S3.
    #[serde(default)]
    pub connections: Vec<String>,
    /// Datasets as `PROJECT.name`, with `*`; none means all. With any, tables without a dataset are not looked for.
    #[serde(default)]
    pub datasets: Vec<String>,
    /// The only Glue databases that are touched, with `*`; none means those that the datasets name.
    #[serde(default)]
    pub databases: Vec<String>,
    /// The Glue databases that the site gives its connections, by connection.
    #[serde(default)]
    pub connection_databases: BTreeMap<String, String>,
    /// How many datasets make a page; more when there would be too many pages.
    pub page_size: usize,
}

/// A table of a dataset that is gone or names another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removed {
    /// Its Glue database.
    pub database: String,
    /// The table.
    pub table: String,
    /// The dataset that its marks name.
    pub dataset: String,
}

/// What the activity gives.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct InventoryOutput {
    /// The work, a page a step.
    pub pages: Vec<PageInput>,
    /// Datasets on the pages.
    pub datasets: u64,
    /// Datasets on S3 that are selected and not synchronised.
    pub not_synced: u64,
    /// Datasets on S3 that the selection leaves out.
    pub left_out: u64,
    /// What can be said without looking at tables: datasets in conflict, datasets that can have no table, and how many are
    /// not looked at.
    pub found: Findings,
    /// Databases that were listed.
    pub databases: Vec<String>,
    /// Databases that datasets name and that are not there.
    pub missing_databases: Vec<String>,
    /// Tables in Glue of those databases.
    pub tables: u64,
    /// Tables that are proven to be left over.
    pub removed: Vec<Removed>,
    /// How many more there are.
    pub removed_left: u64,
    /// Tables that no dataset names and of which nothing is proven.
    pub unclaimed: u64,
    /// The first of them.
    pub unclaimed_examples: Vec<String>,
}

/// The activity.
pub(crate) struct Inventory;

/// Everything that is known of DSS's side.
#[derive(Default)]
struct Listed {
    /// The selected datasets.
    entries: Vec<(Entry, String)>,
    /// Every table that a dataset of DSS names, with the datasets that do.
    claims: BTreeMap<(String, String), Vec<String>>,
    /// Every dataset there is.
    all: BTreeSet<String>,
    not_synced: u64,
    other_connections: u64,
    not_selected: u64,
    not_on_s3: u64,
}

impl InventoryInput {
    fn selects_connection(&self, name: &str) -> bool {
        self.connections.is_empty() || wildcard::any(&self.connections, name)
    }

    fn selects_dataset(&self, name: &str) -> bool {
        self.datasets.is_empty() || wildcard::any(&self.datasets, name)
    }

    fn allows(&self, database: &str) -> bool {
        self.databases.is_empty() || wildcard::any(&self.databases, database)
    }
}

impl Inventory {
    async fn list(
        input: &InventoryInput,
        calls: Calls<'_>,
        instance: &mut Instance,
        connections: &BTreeMap<String, ConnectionPlace>,
        found: &mut Findings,
    ) -> ActivityResult<Listed> {
        let mut listed = Listed::default();
        let projects = instance.projects(calls).await?;
        for (number, project) in projects.iter().enumerate() {
            calls.ctx.heartbeat(format!(
                "project {} of {}, {} datasets to compare",
                number + 1,
                projects.len(),
                listed.entries.len()
            ));
            for item in instance.datasets(calls, project).await? {
                Self::take(input, calls, instance, connections, found, &mut listed, project, item).await?;
                if listed.entries.len() > MAX_DATASETS {
                    let message = format!("there are more than {MAX_DATASETS} datasets to compare");
                    return Err(ActivityError::terminal("TooManyDatasets", message)
                        .help("run it for one connection at a time: --connection NAME")
                        .no_effect());
                }
            }
        }
        Ok(listed)
    }

    /// Takes in one dataset of DSS.
    #[expect(clippy::too_many_arguments, reason = "what the listing knows, handed on once")]
    async fn take(
        input: &InventoryInput,
        calls: Calls<'_>,
        instance: &mut Instance,
        connections: &BTreeMap<String, ConnectionPlace>,
        found: &mut Findings,
        listed: &mut Listed,
        project: &str,
        item: Value,
    ) -> ActivityResult<()> {
        let name = item["name"].as_str().unwrap_or_default().to_owned();
        let dataset = format!("{project}.{name}");
        listed.all.insert(dataset.clone());
        if item["type"] != S3_DATASET {
            listed.not_on_s3 += 1;
            return Ok(());
        }
        // The list is not promised to hold all settings.
        let settings = if item["params"].get("connection").is_some() {
            let mut item = item;
            item["projectKey"] = Value::String(project.to_owned());
            Some(item)
        } else {
            instance.dataset(calls, project, &name).await?
        };
        let Some(settings) = settings else { return Ok(()) };
        let wanted = is_synced(&settings) || input.rules.include == Include::All;
        let connection = settings["params"]["connection"].as_str().unwrap_or_default();
        let reached = connections.contains_key(connection) && input.selects_connection(connection);
        let selected = reached && input.selects_dataset(&dataset);
        // Each that is not looked at counts once, for the first reason of these.
        if !reached {
            listed.other_connections += 1;
        } else if !selected {
            listed.not_selected += 1;
        } else if !wanted {
            listed.not_synced += 1;
        }
        if !wanted {
            return Ok(());
        }
        let none = ConnectionPlace::default();
        let place = connections.get(connection).unwrap_or(&none);
        let variables = match instance.variables(calls, project, &settings).await {
            Ok(variables) => variables,
            // Of what is not asked for, nothing has to be readable.
            Err(_) if !selected => Variables::of(project, &Value::Null, &Value::Null),
            Err(error) => return Err(error),
        };
        let named = names(&settings, place, &variables);
        if let Ok((database, table)) = &named {
            listed.claims.entry((database.clone(), table.clone())).or_default().push(dataset.clone());
        }
        if !selected {
            return Ok(());
        }
        match named {
            Ok((database, _)) if !input.allows(&database) => found.push(
                Finding::new(Kind::Skipped, "", dataset)
                    .because([format!("its Glue database {database} is none of glue_resync.databases")]),
            ),
            Ok((database, table)) => {
                listed.entries.push((Entry { database, table, dataset }, connection.to_owned()));
            }
            Err(why) => found.push(Finding::new(Kind::Skipped, "", dataset).because([why])),
        }
        Ok(())
    }

    /// Looks for tables that no dataset names.
    async fn unclaimed(
        input: &InventoryInput,
        calls: Calls<'_>,
        listed: &Listed,
        connections: &BTreeMap<String, ConnectionPlace>,
        output: &mut InventoryOutput,
    ) -> ActivityResult<()> {
        let marks = calls.ctx.marks();
        let proof = Proof { marks: &marks, dss: &input.rules.dss_marks };
        let mut databases: BTreeSet<String> =
            listed.entries.iter().map(|(entry, _)| entry.database.clone()).collect();
        let of_connections = connections.iter().filter(|(name, _)| input.selects_connection(name));
        databases.extend(of_connections.map(|(_, c)| c.database.clone()).filter(|d| !d.is_empty()));
        databases.retain(|database| input.allows(database));
        for database in databases {
            let there = calls
                .tables(&database, |table| {
                    output.tables += 1;
                    if output.tables.is_multiple_of(1000) {
                        calls.ctx.heartbeat(format!("{} tables of Glue listed", output.tables));
                    }
                    let key = (database.clone(), table.name().to_lowercase());
                    if listed.claims.contains_key(&key) {
                        return;
                    }
                    let parameters =
                        table.parameters().map(|p| p.clone().into_iter().collect()).unwrap_or_default();
                    let kind = table.table_type().unwrap_or_default();
                    let of = proof.orphan_of(kind, &parameters, table.target_table().is_some());
                    // A dataset that is there and names no table now keeps the one it had.
                    let named = |of: &String| listed.claims.values().any(|by| by.contains(of));
                    let (database, table) = key;
                    match of.filter(|of| !listed.all.contains(of) || named(of)) {
                        Some(_) if output.removed.len() >= MAX_REMOVED => output.removed_left += 1,
                        Some(dataset) => output.removed.push(Removed { database, table, dataset }),
                        None => {
                            output.unclaimed += 1;
                            if output.unclaimed_examples.len() < EXAMPLES {
                                output.unclaimed_examples.push(format!("{database}.{table}"));
                            }
                        }
                    }
                })
                .await?;
            if there { output.databases.push(database) } else { output.missing_databases.push(database) }
        }
        output.removed.sort();
        Ok(())
    }
}

/// Cuts the work into pages: of at least `page_size` datasets, and never more than [`MAX_PAGES`].
fn pages(
    input: &InventoryInput,
    mut entries: Vec<(Entry, String)>,
    connections: &BTreeMap<String, ConnectionPlace>,
) -> Vec<PageInput> {
    entries.sort();
    let size = input.page_size.max(1).max(entries.len().div_ceil(MAX_PAGES));
    let page = |chunk: &[(Entry, String)]| {
        let of_page: BTreeSet<&String> = chunk.iter().map(|(_, connection)| connection).collect();
        PageInput {
            target: input.target.clone(),
            rules: input.rules.clone(),
            connections: connections
                .iter()
                .filter(|(name, _)| of_page.contains(name))
                .map(|(name, place)| (name.clone(), place.clone()))
                .collect(),
            datasets: chunk.iter().map(|(entry, _)| entry.clone()).collect(),
        }
    };
    entries.chunks(size).map(page).collect()
}

/// Takes datasets out that want one table together, and says so.
fn without_conflicts(listed: &mut Listed, found: &mut Findings) {
    let claims = &listed.claims;
    let rivals = |entry: &Entry| {
        let by = claims.get(&(entry.database.clone(), entry.table.clone()));
        by.filter(|by| by.len() > 1).map(|by| by.join(", "))
    };
    listed.entries.retain(|(entry, _)| match rivals(entry) {
        None => true,
        Some(all) => {
            let table = format!("{}.{}", entry.database, entry.table);
            found.push(
                Finding::new(Kind::Conflict, table, &entry.dataset)
                    .because([format!("{all} all name this table: give each dataset its own in DSS")]),
            );
            false
        }
    });
}

/// Lists datasets and tables.
///
/// # Idempotency
/// Reads only.
///
/// # Compensation
/// None.
///
/// Page: <https://docs.aws.amazon.com/glue/latest/webapi/API_GetTables.html>
impl Activity for Inventory {
    type Input = InventoryInput;
    type Output = InventoryOutput;

    fn effect(&self) -> Effect {
        Effect::Read
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &InventoryInput,
    ) -> ActivityResult<InventoryOutput> {
        let aws = AwsClients::of(ctx)?;
        let calls = Calls { ctx, aws: &aws };
        let mut instance = Instance::connect(ctx, &input.target).await?;
        let defined = instance.connections(calls).await?;
        let place = |(name, connection): (&String, &Value)| {
            let database = input.connection_databases.get(name).map(String::as_str);
            (name.clone(), ConnectionPlace::of(connection, database))
        };
        let connections: BTreeMap<String, ConnectionPlace> = defined.iter().map(place).collect();
        for wanted in input.connections.iter().filter(|name| !name.contains('*')) {
            if !connections.contains_key(wanted) {
                let message = format!("DSS has no S3 connection {wanted}");
                return Err(ActivityError::terminal("ConnectionMissing", message)
                    .help("correct the name in the site, or make the connection (`dssflow run bootstrap`)")
                    .no_effect());
            }
        }
        let mut output = InventoryOutput::default();
        let mut found = Findings::default();
        let mut listed = Self::list(input, calls, &mut instance, &connections, &mut found).await?;
        for wanted in input.datasets.iter().filter(|name| !name.contains('*')) {
            if !listed.all.contains(wanted) {
                let message = format!("DSS has no dataset {wanted}");
                return Err(ActivityError::terminal("DatasetMissing", message)
                    .help("name it as PROJECT.name, as DSS spells it")
                    .no_effect());
            }
        }
        // With a selection of datasets nothing is known of the tables of the others.
        if input.datasets.is_empty() {
            Self::unclaimed(input, calls, &listed, &connections, &mut output).await?;
        }
        without_conflicts(&mut listed, &mut found);
        found.totals.other_connections = listed.other_connections;
        found.totals.not_selected = listed.not_selected;
        found.totals.not_on_s3 = listed.not_on_s3;
        output.found = found.within(FINDINGS_BYTES, usize::MAX);
        output.datasets = u64::try_from(listed.entries.len()).unwrap_or(u64::MAX);
        output.not_synced = listed.not_synced;
        output.left_out = listed.other_connections + listed.not_selected;
        output.pages = pages(input, listed.entries, &connections);
        Ok(output)
    }

    fn describe(&self, _: &InventoryInput) -> String {
        "datasets of DSS on S3 and tables of Glue".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use crate::secret::SecretRef;

    use super::*;

    fn input(page_size: usize) -> InventoryInput {
        InventoryInput {
            target: DssTarget {
                url: "http://127.0.0.1:1".into(),
                api_key: SecretRef::Env { env: "X".into() },
                major: None,
            },
            rules: Rules::default(),
            connections: vec!["s3-*".into()],
            datasets: Vec::new(),
            databases: vec!["sales".into()],
            connection_databases: BTreeMap::new(),
            page_size,
        }
    }

    fn entries(count: usize) -> Vec<(Entry, String)> {
        let entry =
            |n: usize| Entry { database: "d".into(), table: format!("t{n:06}"), dataset: format!("P.t{n}") };
        (0..count).rev().map(|n| (entry(n), format!("c{}", n % 2))).collect()
    }

    #[test]
    fn pages_are_in_order_and_never_too_many() {
        let connections =
            BTreeMap::from(["c0", "c1", "c2"].map(|name| (name.to_owned(), ConnectionPlace::default())));
        let made = pages(&input(50), entries(10_000), &connections);
        assert_eq!((made.len(), made[0].datasets.len()), (200, 50));
        assert_eq!(made[0].datasets[0].table, "t000000");
        assert_eq!(made[0].connections.keys().collect::<Vec<_>>(), ["c0", "c1"], "only what the page uses");
        let many = pages(&input(50), entries(MAX_DATASETS), &connections);
        assert_eq!((many.len(), many[0].datasets.len()), (MAX_PAGES, 125));
        assert!(pages(&input(0), Vec::new(), &connections).is_empty());
        assert_eq!(pages(&input(0), entries(3), &connections).len(), 3);
    }

    #[test]
    fn datasets_that_want_one_table_are_told_and_left_alone() {
        let mut listed = Listed { entries: entries(3), ..Listed::default() };
        listed.claims.insert(("d".into(), "t000001".into()), vec!["P.t1".into(), "Q.t1".into()]);
        let mut found = Findings::default();
        without_conflicts(&mut listed, &mut found);
        assert_eq!(listed.entries.len(), 2);
        assert_eq!((found.totals.conflict, found.findings[0].dataset.as_str()), (1, "P.t1"));
        assert!(found.findings[0].what[0].starts_with("P.t1, Q.t1 all name"));
    }

    #[test]
    fn a_selection_takes_names_with_stars() {
        let input = InventoryInput { datasets: vec!["SALES.*".into()], ..input(1) };
        assert!(input.selects_connection("s3-main") && !input.selects_connection("main"));
        assert!(input.selects_dataset("SALES.x") && !input.selects_dataset("OPS.x"));
        assert!(input.allows("sales") && !input.allows("ops"));
    }
}
