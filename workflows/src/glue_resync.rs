//! `glue-resync`: brings the Glue Data Catalog to what DSS says of its datasets on S3, or reports what differs.
//!
//! It is made of a site file, of which it takes what it needs, or of a small file with just that ([`ResyncSpec`]). The
//! graph has the same few steps for ten tables and for ten thousand: the work is a map over pages. Everything a run needs
//! is in its input, so that it can be started by a schedule as well as by a person.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use dssflow_activities::aws::{athena_query, identity};
use dssflow_activities::credentials::CredentialSource;
use dssflow_activities::dss::DssTarget;
pub use dssflow_activities::glue::Mode;
pub use dssflow_activities::glue::outcome::Report;
use dssflow_activities::glue::{Include, Rules, inventory, outcome, page, prune};
use dssflow_activities::secret::SecretRef;
use dssflow_engine::graph::{Binding, Graph, Step, StepKind, Timeouts};
use dssflow_engine::id::{ActivityName, StepName, WorkflowName};
use dssflow_engine::retry::RetryPolicy;
use dssflow_engine::run::resolve::FunctionRegistry;
use dssflow_engine::run::{OnTrouble, RunOptions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Workflow;
use crate::site::{
    self, ApiKey, Aws, Credentials, GlueResync, Site, SiteErrors, SiteProblem, Transport, codes, formats,
};

/// The workflow's name.
pub const NAME: &str = "glue-resync";
/// The workflow's version; rises when the same file gives another graph.
pub const VERSION: u32 = 2;
/// The step whose output is the report.
pub const REPORT_STEP: &str = "report";
/// The most tables that are worked on at once, as the schema has it: a flag does not go through that.
const MOST_PARALLEL: u32 = 32;
/// The function that makes queries of the tables to verify.
const QUERIES: &str = "glue-resync.queries";

/// What a resync needs to know: the part of a site that it takes, or a file of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResyncSpec {
    /// Names the site in the marks of the tables it makes and in the run id.
    #[schemars(schema_with = "formats::site_name")]
    pub name: String,
    /// The AWS account everything must happen in; another one is refused.
    #[schemars(schema_with = "formats::account")]
    pub expected_account: String,
    /// The AWS region.
    #[schemars(schema_with = "formats::region")]
    pub region: String,
    /// The DSS.
    pub dss: ResyncDss,
    /// Sets of AWS credentials, by a name of your choice. Values are references, never secrets.
    #[serde(default)]
    pub credentials: BTreeMap<String, Credentials>,
    /// How dssflow itself reaches AWS.
    #[serde(default)]
    pub aws: Aws,
    /// S3 connections of DSS with their Glue databases, where DSS does not say the database itself.
    #[serde(default)]
    pub connections: Vec<ResyncConnection>,
    /// How tables are compared and mended.
    #[serde(default)]
    pub glue_resync: GlueResync,
}

/// The DSS whose datasets are looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResyncDss {
    /// Its URL. With `ssh` that on its own host.
    #[schemars(schema_with = "formats::url")]
    pub url: String,
    /// Where the API key of an administrator is.
    #[schemars(schema_with = "formats::secret_ref")]
    pub api_key: SecretRef,
    /// Reach it through an ssh forward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<ResyncSsh>,
}

/// The way to a DSS behind ssh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResyncSsh {
    /// Name or address of its host.
    #[schemars(schema_with = "formats::plain")]
    pub address: String,
    /// The user there; the ssh client's own configuration decides without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::unix_name")]
    pub user: Option<String>,
    /// The port, 22 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::port")]
    pub port: Option<u16>,
    /// The private key file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::plain")]
    pub identity_file: Option<String>,
    /// An ssh configuration file in place of the user's and the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::plain")]
    pub config: Option<String>,
}

/// A connection and its database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResyncConnection {
    /// Its name in DSS.
    #[schemars(schema_with = "formats::dss_name")]
    pub name: String,
    /// The Glue database of its datasets that name none.
    #[schemars(schema_with = "formats::glue_name")]
    pub glue_database: String,
    /// Its bucket, for the policy that `plan --iam-policy` prints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "formats::bucket")]
    pub bucket: Option<String>,
}

static SCHEMA: LazyLock<Value> = LazyLock::new(schema);

/// The JSON Schema of a file of its own.
///
/// # Panics
/// Never: the schema of a type is plain data.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(ResyncSpec);
    schema.insert("title".to_owned(), "dssflow glue-resync".into());
    serde_json::to_value(schema).expect("a schema is plain data")
}

/// Whether a file is a whole site, by the sections that only a site has.
fn is_site(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("host:") || line.starts_with("cluster:"))
        || serde_json::from_str::<Value>(text)
            .is_ok_and(|file| file.get("host").is_some() || file.get("cluster").is_some())
}

/// Reads and checks a site file, or a file of its own; `source_name` is what people call it.
///
/// # Errors
/// Everything that is wrong with it, not only the first.
pub fn parse(text: &str, source_name: &str) -> Result<ResyncSpec, SiteErrors> {
    let spec = if is_site(text) {
        ResyncSpec::from(&site::parse(text, source_name)?)
    } else {
        site::read(text, source_name, NAME, &SCHEMA, |_, _, _| ())?
    };
    let problems = spec.problems();
    if problems.is_empty() {
        Ok(spec)
    } else {
        Err(SiteErrors { source_name: source_name.to_owned(), problems })
    }
}

impl From<&Site> for ResyncSpec {
    fn from(site: &Site) -> Self {
        let ssh = (site.host.transport == Transport::Ssh && site.dss.url.is_none()).then(|| ResyncSsh {
            address: site.host.address.clone().unwrap_or_default(),
            user: site.host.user.clone(),
            port: site.host.ssh_port,
            identity_file: site.host.identity_file.clone(),
            config: site.host.ssh_config.clone(),
        });
        let mut settings = site.glue_resync.clone();
        if settings.connections.is_empty() {
            settings.connections = site.connections.iter().map(|c| c.name.clone()).collect();
        }
        let api_key = match &site.dss.api_key {
            ApiKey::Sink { sink } => sink.reference(),
            ApiKey::Ref(reference) => reference.clone(),
        };
        // Only the set that dssflow acts as, and what it is made of, is handed on.
        let mut credentials = BTreeMap::new();
        let mut next = site.aws.credentials.clone();
        while let Some(name) = next.take().filter(|name| !credentials.contains_key(name)) {
            let Some(set) = site.credentials.get(&name) else { break };
            if let Credentials::AssumeRole { source, .. } = set {
                next.clone_from(source);
            }
            credentials.insert(name, set.clone());
        }
        Self {
            name: site.name.clone(),
            expected_account: site.expected_account.clone(),
            region: site.region.clone(),
            dss: ResyncDss { url: site.dss_url(), api_key, ssh },
            credentials,
            aws: site.aws.clone(),
            connections: site
                .connections
                .iter()
                .map(|c| ResyncConnection {
                    name: c.name.clone(),
                    glue_database: c.glue_database.clone(),
                    bucket: Some(c.bucket.clone()),
                })
                .collect(),
            glue_resync: settings,
        }
    }
}

impl ResyncSpec {
    /// Where the named set of credentials gets them from; `None` when it, or a set it builds on, is not there.
    pub fn credential_source(&self, name: &str) -> Option<CredentialSource> {
        site::source_at(&self.credentials, name, self.credentials.len())
    }

    /// Narrows the selection of a command: only these datasets, only these connections, nothing changed. Whatever else a
    /// command changes is changed before, for it is checked here.
    ///
    /// # Errors
    /// Everything that is wrong then, as a dataset that has no project before its name.
    pub fn select(
        &mut self,
        datasets: &[String],
        connections: &[String],
        dry_run: bool,
    ) -> Result<(), SiteErrors> {
        if !datasets.is_empty() {
            self.glue_resync.datasets = datasets.to_vec();
        }
        if !connections.is_empty() {
            self.glue_resync.connections = connections.to_vec();
        }
        self.glue_resync.dry_run |= dry_run;
        let problems = self.problems();
        if problems.is_empty() {
            return Ok(());
        }
        Err(SiteErrors { source_name: "the command line".to_owned(), problems })
    }

    /// What no schema can say.
    fn problems(&self) -> Vec<SiteProblem> {
        let mut problems = Vec::new();
        let mut note = |code, path: &str, message: String, help: &str| {
            let (path, help) = (path.to_owned(), help.to_owned());
            problems.push(SiteProblem { code, path, line: None, message, help });
        };
        let settings = &self.glue_resync;
        if let Some(name) =
            self.aws.credentials.as_ref().filter(|name| self.credential_source(name).is_none())
        {
            let what = format!("there are no credentials named {name:?}");
            note(codes::UNKNOWN_REFERENCE, "aws.credentials", what, "add them under `credentials:`");
        }
        if settings.include == Include::All && settings.mode == Mode::Dss {
            let what = "is all, and DSS synchronises only datasets whose synchronisation is on".to_owned();
            note(
                codes::UNSUPPORTED,
                "glue_resync.include",
                what,
                "set `mode: direct`, or leave `include` out",
            );
        }
        if !(1..=MOST_PARALLEL).contains(&settings.parallel) {
            let what = format!("{} is out of range", settings.parallel);
            let help = format!("write a whole number from 1 to {MOST_PARALLEL}");
            note(codes::WRONG_VALUE, "glue_resync.parallel", what, &help);
        }
        for name in settings.datasets.iter().filter(|name| !name.contains('.') && *name != "*") {
            let what = format!("{name:?} names no dataset");
            note(
                codes::WRONG_VALUE,
                "glue_resync.datasets",
                what,
                "write PROJECT.name, or PROJECT.* for all of a project",
            );
        }
        for name in settings.adopt.iter().filter(|name| !name.contains('.')) {
            let what = format!("{name:?} names no table");
            note(codes::WRONG_VALUE, "glue_resync.adopt", what, "write database.table");
        }
        let mut seen = BTreeSet::new();
        for connection in self.connections.iter().filter(|c| !seen.insert(&c.name)) {
            let what = format!("{:?} stands there twice", connection.name);
            note(codes::DUPLICATE, "connections", what, "rename or remove one");
        }
        problems
    }

    fn target(&self) -> DssTarget {
        DssTarget { url: self.dss.url.clone(), api_key: self.dss.api_key.clone(), major: None }
    }

    fn rules(&self) -> Rules {
        let settings = &self.glue_resync;
        Rules {
            mode: settings.mode,
            include: settings.include,
            partitions: settings.partitions,
            prune: settings.prune,
            types: settings.types.clone(),
            dss_marks: settings.dss_marks.clone(),
            adopt: settings.adopt.clone(),
        }
    }
}

fn step_name(name: &str) -> StepName {
    StepName::new(name).expect("a good name")
}

fn activity(name: &str) -> ActivityName {
    ActivityName::new(name).expect("activities have good names")
}

fn step(name: &str, kind: StepKind, title: impl Into<String>, minutes: u64, attempts: u32) -> Step {
    let mut step = Step::new(step_name(name), kind);
    step.title = title.into();
    step.timeouts = Timeouts::per_attempt(Duration::from_mins(minutes));
    step.retry = RetryPolicy::attempts(attempts);
    step
}

fn call(name: &str, input: Binding) -> StepKind {
    StepKind::Activity { activity: activity(name), input }
}

fn object(fields: &[(&str, Binding)]) -> Binding {
    Binding::Object {
        fields: fields.iter().map(|(key, binding)| ((*key).to_owned(), binding.clone())).collect(),
    }
}

/// The workflow of a checked spec.
///
/// # Panics
/// Never: a checked spec gives a graph that holds together.
pub fn glue_resync(spec: &ResyncSpec) -> Workflow {
    let settings = &spec.glue_resync;
    let of = |name: &str, pointer: &str| Binding::output(&step_name(name), pointer);
    let mut graph = Graph::builder();
    let who = identity::IdentityInput {
        region: spec.region.clone(),
        expected_account: Some(spec.expected_account.clone()),
        expected_principal: None,
        quiet_seconds: 0,
    };
    let title = format!("AWS account {} in {}", spec.expected_account, spec.region);
    graph.push(step("account", call(identity::ACCOUNT, Binding::literal(&who)), title, 2, 8));

    let list = inventory::InventoryInput {
        target: spec.target(),
        rules: spec.rules(),
        connections: settings.connections.clone(),
        datasets: settings.datasets.clone(),
        databases: settings.databases.clone(),
        connection_databases: spec
            .connections
            .iter()
            .map(|c| (c.name.clone(), c.glue_database.clone()))
            .collect(),
        page_size: settings.page_size as usize,
    };
    let mut inventory = step(
        "inventory",
        call(inventory::NAME, Binding::literal(&list)),
        "datasets of DSS on S3 and tables of Glue",
        60,
        5,
    );
    inventory.after.push(step_name("account"));
    inventory.timeouts = inventory.timeouts.heartbeat(Duration::from_mins(15));
    graph.push(inventory);

    let (worker, title) = match (settings.dry_run, settings.mode) {
        (true, _) => (page::COMPARE, "tables compared with their datasets"),
        (false, Mode::Dss) => (page::SYNC, "tables brought into line by DSS"),
        (false, Mode::Direct) => (page::SYNC_DIRECT, "tables brought into line"),
    };
    let pages = StepKind::Map {
        items: of("inventory", "/pages"),
        activity: activity(worker),
        max_concurrency: settings.parallel,
        // What one page cannot, the others can: the verdict fails in the end.
        tolerated_failures: u32::try_from(inventory::MAX_PAGES).unwrap_or(u32::MAX),
    };
    let mut tables = step("tables", pages, title, 180, 5);
    // DSS may take ten minutes for one dataset, and says nothing meanwhile.
    tables.timeouts = tables.timeouts.heartbeat(Duration::from_mins(20));
    graph.push(tables);

    // With a selection of datasets nothing is known of tables without one.
    let prunes = settings.prune && !settings.dry_run && settings.datasets.is_empty();
    if prunes {
        let input = object(&[
            ("target", Binding::literal(spec.target())),
            ("rules", Binding::literal(spec.rules())),
            ("removed", of("inventory", "/removed")),
            ("at_most", Binding::literal(settings.prune_at_most)),
        ]);
        let mut removed = step("removed", call(prune::NAME, input), "tables whose datasets are gone", 60, 5);
        removed.after.push(step_name("tables"));
        graph.push(removed);
    }
    report(spec, &mut graph, prunes);
    let graph = graph.output(of(REPORT_STEP, "")).build();
    Workflow {
        name: WorkflowName::new(NAME).expect("a good name"),
        version: VERSION,
        site: spec.name.clone(),
        graph: graph.expect("a checked spec gives a graph that holds together"),
        input: serde_json::to_value(spec).expect("a spec is plain data"),
        options: RunOptions {
            parallelism: settings.parallel + 1,
            // A run that a schedule started must not stand in the way of the next one.
            on_exhausted: OnTrouble::Fail,
            on_failure: OnTrouble::Fail,
            on_blocked: OnTrouble::Fail,
            ..RunOptions::default()
        },
    }
}

/// The steps after the work: what there is to say, queries, the verdict.
fn report(spec: &ResyncSpec, graph: &mut dssflow_engine::graph::GraphBuilder, prunes: bool) {
    let settings = &spec.glue_resync;
    let of = |name: &str, pointer: &str| Binding::output(&step_name(name), pointer);
    let queries = settings.verify_athena.as_ref().filter(|_| !settings.dry_run);
    let of_inventory = [
        "datasets",
        "not_synced",
        "left_out",
        "found",
        "databases",
        "missing_databases",
        "tables",
        "removed",
        "removed_left",
        "unclaimed",
        "unclaimed_examples",
    ];
    let mut inventory: Vec<(&str, Binding)> = vec![("pages", Binding::literal(Value::Array(Vec::new())))];
    let pointers = of_inventory.map(|key| (key, of("inventory", &format!("/{key}"))));
    inventory.extend(pointers);
    let input = object(&[
        ("mode", Binding::literal(settings.mode)),
        ("dry_run", Binding::literal(settings.dry_run)),
        ("inventory", object(&inventory)),
        ("pages", of("tables", "")),
        ("pruned", if prunes { of("removed", "") } else { Binding::literal(Value::Null) }),
        ("queries", Binding::literal(queries.map_or(0, |q| q.tables))),
    ]);
    graph.push(step(REPORT_STEP, call(outcome::REPORT, input), "what was found and done", 2, 3));
    if let Some(queries) = queries {
        let argument = object(&[
            ("tables", of(REPORT_STEP, "/verify")),
            ("workgroup", Binding::literal(&queries.workgroup)),
            ("output_location", Binding::literal(&queries.output_location)),
        ]);
        let kind = StepKind::Map {
            items: Binding::Function { name: QUERIES.to_owned(), argument: Box::new(argument) },
            activity: activity(athena_query::NAME),
            max_concurrency: settings.parallel,
            tolerated_failures: queries.tables,
        };
        graph.push(step("queries", kind, "some of the tables read by Athena", 15, 3));
    }
    let input = object(&[
        ("totals", of(REPORT_STEP, "/totals")),
        ("pages_failed", of(REPORT_STEP, "/pages_failed")),
        ("queries", if queries.is_some() { of("queries", "") } else { Binding::literal(Value::Null) }),
        (
            "queried",
            if queries.is_some() { of(REPORT_STEP, "/verify") } else { Binding::literal(Value::Null) },
        ),
    ]);
    graph.push(step(
        "verdict",
        call(outcome::VERDICT, input),
        "every table could be compared and mended",
        2,
        1,
    ));
}

/// Adds the functions that bindings of this graph name.
pub fn register_functions(functions: &mut FunctionRegistry) {
    functions.insert(QUERIES, |argument| Ok(queries_of(argument)));
}

/// A query for each table.
fn queries_of(argument: &Value) -> Value {
    let quoted = |name: &Value| name.as_str().unwrap_or_default().replace('"', "\"\"");
    let query = |table: &Value| {
        let (database, name) = (quoted(&table[0]), quoted(&table[1]));
        json!({
            "sql": format!("SELECT * FROM \"{database}\".\"{name}\" LIMIT 1"), "database": table[0],
            "workgroup": argument["workgroup"], "output_location": argument["output_location"]
        })
    };
    argument["tables"].as_array().into_iter().flatten().map(query).collect()
}

#[cfg(test)]
mod tests;
