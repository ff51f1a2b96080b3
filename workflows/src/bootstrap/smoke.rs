//! The smoke test at the end, where the site asks for it: data made in a container, copied by Spark, found in Glue,
//! counted by Athena, and removed again by name.

use dssflow_activities::dss::smoke::{Location, clean, dataset, job, project, recipe, table};
use dssflow_activities::dss::sql_check;
use dssflow_engine::id::StepName;

use super::cluster::Cluster;
use super::data::Data;
use super::dss::Dss;
use super::overlay::Names;
use super::plan::{CHECK, Plan, SMOKE_JOB, from_step};
use super::registry::Registry;
use crate::site::Connection;

/// How many rows the Python recipe makes.
const ROWS: u32 = 3;
/// The dataset the Python recipe makes, and the one Spark copies it to.
const MADE: &str = "smoke_rows";
const COPIED: &str = "smoke_copy";
/// The two recipes.
const PYTHON: &str = "smoke_python";
const SPARK: &str = "smoke_spark";

pub(super) fn steps(plan: &mut Plan<'_>, dss: &Dss, registry: &Registry, data: &Data, cluster: &Cluster) {
    let site = plan.site;
    // A connection with a pair shows most; the site was checked to have one at all.
    let Some(connection) = site.smoke_connection() else { return };
    plan.heading("Use it");
    let key = plan
        .step(
            "smoke-project",
            project::NAME,
            &project::SmokeProjectInput {
                target: dss.target.clone(),
                cluster_id: from_step(&cluster.running, "/id"),
                container_config: site.containers.name.clone(),
            },
        )
        .title("smoke test: a project of its own")
        .after([&cluster.default, &registry.container_config, &registry.spark_config, &registry.images])
        .after(&data.ready)
        .api()
        .add();
    let made = dataset_step(plan, dss, &key, connection, MADE);
    let copied = dataset_step(plan, dss, &key, connection, COPIED);
    let python = recipe_step(
        plan,
        &recipe::SmokeRecipeInput {
            target: dss.target.clone(),
            project: from_step(&key, "/key"),
            name: PYTHON.to_owned(),
            engine: recipe::Engine::Python { container_config: site.containers.name.clone(), rows: ROWS },
            input: None,
            output: MADE.to_owned(),
            overlay: Names::of_site(site).fill(site.overlays.smoke_python.as_ref()),
        },
        &[&made],
    );
    let spark_config = site.spark.configs.first().map(|config| config.name.clone()).unwrap_or_default();
    let spark = recipe_step(
        plan,
        &recipe::SmokeRecipeInput {
            target: dss.target.clone(),
            project: from_step(&key, "/key"),
            name: SPARK.to_owned(),
            engine: recipe::Engine::Spark { spark_config },
            input: Some(MADE.to_owned()),
            output: COPIED.to_owned(),
            overlay: Names::of_site(site).fill(site.overlays.smoke_spark.as_ref()),
        },
        &[&made, &copied],
    );
    let job = plan
        .step(
            "smoke-job",
            job::NAME,
            &job::SmokeJobInput {
                target: dss.target.clone(),
                project: from_step(&key, "/key"),
                dataset: COPIED.to_owned(),
            },
        )
        .title("smoke test: both recipes run on the cluster")
        .after([&python, &spark])
        .api()
        .budget(SMOKE_JOB)
        .add();
    let table = plan
        .step(
            "smoke-table",
            table::NAME,
            &table::SmokeTableInput {
                target: dss.target.clone(),
                project: from_step(&key, "/key"),
                dataset: COPIED.to_owned(),
                database: from_step(&copied, "/database"),
                table: from_step(&copied, "/table"),
            },
        )
        .title("smoke test: Glue has the table")
        .after([&job])
        .api()
        .budget(CHECK)
        .add();
    let counted = connection.athena.as_ref().map(|athena| {
        plan.step(
            "smoke-athena",
            sql_check::NAME,
            &sql_check::SqlCheckInput {
                target: dss.target.clone(),
                connection: athena.name.clone(),
                query: from_step(&table, "/count_query"),
                expect: Some(ROWS.to_string()),
            },
        )
        .title(format!("smoke test: Athena counts {ROWS} rows"))
        .api()
        .budget(CHECK)
        .add()
    });
    plan.step(
        "smoke-clean",
        clean::NAME,
        &clean::SmokeCleanInput {
            target: dss.target.clone(),
            project: from_step(&key, "/key"),
            recipes: vec![SPARK.to_owned(), PYTHON.to_owned()],
            datasets: [&copied, &made].into_iter().map(location).collect(),
        },
    )
    .title("smoke test: everything of it is removed")
    .after([&table])
    .after(&counted)
    .api()
    .budget(CHECK)
    .add();
}

/// Where a dataset lies, as its step will say.
fn location(step: &StepName) -> Location {
    Location {
        name: from_step(step, "/name"),
        bucket: from_step(step, "/bucket"),
        path: from_step(step, "/path"),
        database: from_step(step, "/database"),
        table: from_step(step, "/table"),
    }
}

fn dataset_step(
    plan: &mut Plan<'_>,
    dss: &Dss,
    key: &StepName,
    connection: &Connection,
    name: &str,
) -> StepName {
    plan.step(
        format!("smoke-dataset-{}", name.trim_start_matches("smoke_")),
        dataset::NAME,
        &dataset::SmokeDatasetInput {
            target: dss.target.clone(),
            project: from_step(key, "/key"),
            name: name.to_owned(),
            connection: connection.name.clone(),
            glue_database: connection.glue_database.clone(),
        },
    )
    .title(format!("smoke test: dataset {name} on {}", connection.name))
    .api()
    .add()
}

fn recipe_step(plan: &mut Plan<'_>, input: &recipe::SmokeRecipeInput, datasets: &[&StepName]) -> StepName {
    let what = match &input.engine {
        recipe::Engine::Python { container_config, .. } => format!("Python in container {container_config}"),
        recipe::Engine::Spark { spark_config } => format!("Spark with {spark_config}"),
    };
    plan.step(format!("smoke-recipe-{}", input.name.trim_start_matches("smoke_")), recipe::NAME, input)
        .title(format!("smoke test: {what}"))
        .after(datasets.iter().copied())
        .api()
        .add()
}
