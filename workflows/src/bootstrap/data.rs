//! Data: Glue databases, S3 connections with credentials of their own, Athena connections paired both ways, and
//! the metastore, which takes its credentials from an S3 connection and so comes after it.

use std::collections::BTreeMap;

use dssflow_activities::aws::{bucket, glue_database};
use dssflow_activities::dss::S3Credentials;
use dssflow_activities::dss::{
    athena_connection, athena_link, connection_test, groups, metastore, s3_connection, sql_check,
};
use dssflow_activities::host::athena_driver;
use dssflow_engine::id::StepName;

use super::Start;
use super::dss::Dss;
use super::host::HostSteps;
use super::names;
use super::overlay::Names;
use super::plan::{CHECK, DOWNLOAD, LOOK, Plan, slug};
use super::registry::Registry;
use crate::site::{Athena, Connection, Credentials, Site};

/// What later steps may rely on.
pub(super) struct Data {
    /// Connections, pairs and the metastore are in place.
    pub(super) ready: Vec<StepName>,
}

pub(super) fn steps(
    plan: &mut Plan<'_>,
    start: &Start,
    host: &HostSteps,
    dss: &Dss,
    registry: &Registry,
) -> Data {
    let site = plan.site;
    plan.heading("Setup S3 connections");
    let groups = groups(plan, dss);
    let glue = glue_databases(plan, start);
    let mut connections = BTreeMap::new();
    for connection in &site.connections {
        let step = s3(plan, start, dss, connection, &glue[&connection.glue_database], groups.as_ref());
        connections.insert(connection.name.as_str(), step);
    }

    plan.heading("Setup Athena connections");
    let mut pairs = Vec::new();
    if site.connections.iter().any(|c| c.athena.is_some()) {
        let driver = driver(plan, start, host);
        for connection in &site.connections {
            if let Some(athena) = &connection.athena {
                pairs.push((
                    connection,
                    athena,
                    pair(plan, dss, connection, athena, &connections[connection.name.as_str()], &driver),
                ));
            }
        }
    }

    plan.heading("Setup Spark and Metastore in DSS");
    let mut metastore = None;
    if let Some(connection) = site.glue_connection() {
        metastore = Some(
            plan.step(
                "metastore",
                metastore::NAME,
                &metastore::MetastoreInput {
                    target: dss.target.clone(),
                    connection: connection.name.clone(),
                    overlay: Names::of_connection(site, connection).fill(site.overlays.metastore.as_ref()),
                },
            )
            .title(format!("metastore catalog Glue, with the credentials of {}", connection.name))
            .after(connections.values().chain(pairs.iter().map(|(_, _, link)| link)))
            .after([&registry.spark_config])
            .general_settings()
            .add(),
        );
    }

    plan.heading("Use it");
    for (_, athena, link) in &pairs {
        plan.step(
            format!("athena-query-{}", slug(&athena.name)),
            sql_check::NAME,
            &sql_check::SqlCheckInput {
                target: dss.target.clone(),
                connection: athena.name.clone(),
                query: "SELECT 1".to_owned(),
                expect: None,
            },
        )
        .title(format!("a query through {}", athena.name))
        .after([link])
        .after(&metastore)
        .api()
        .budget(CHECK)
        .add();
    }
    let links = pairs.into_iter().map(|(_, _, link)| link);
    Data { ready: connections.into_values().chain(links).chain(metastore).collect() }
}

fn groups(plan: &mut Plan<'_>, dss: &Dss) -> Option<StepName> {
    let site = plan.site;
    if site.groups.is_empty() {
        return None;
    }
    let groups = site
        .groups
        .iter()
        .map(|g| groups::GroupSpec { name: g.name.clone(), description: g.description.clone() })
        .collect();
    let step = plan
        .step("groups", groups::NAME, &groups::GroupsInput { target: dss.target.clone(), groups })
        .title("groups in DSS")
        .after([&dss.ready])
        .api()
        .add();
    Some(step)
}

/// One step for each database, however many connections share it.
fn glue_databases(plan: &mut Plan<'_>, start: &Start) -> BTreeMap<String, StepName> {
    let site = plan.site;
    let mut steps = BTreeMap::new();
    for connection in &site.connections {
        let database = &connection.glue_database;
        if steps.contains_key(database) {
            continue;
        }
        let step = plan
            .step(
                format!("glue-database-{database}"),
                glue_database::NAME,
                &glue_database::GlueDatabaseInput {
                    name: database.clone(),
                    description: Some(format!("datasets of DSS connection {}", connection.name)),
                    location_uri: None,
                },
            )
            .title(format!("Glue database {database}"))
            .after(&start.checked)
            .add();
        steps.insert(database.clone(), step);
    }
    steps
}

/// What the connection carries; the credentials were checked with the site.
fn credentials(site: &Site, connection: &Connection) -> S3Credentials {
    match &site.credentials[&connection.credentials] {
        Credentials::Static { access_key_id, secret_access_key, .. } => S3Credentials::KeyPair {
            access_key: access_key_id.clone(),
            secret_key: secret_access_key.clone(),
        },
        Credentials::AssumeRole { role_arn, .. } => S3Credentials::AssumeRole { role_arn: role_arn.clone() },
        Credentials::Profile { .. } | Credentials::Environment {} | Credentials::InstanceRole {} => {
            unreachable!("connections with other credentials are refused with the site")
        }
    }
}

fn s3(
    plan: &mut Plan<'_>,
    start: &Start,
    dss: &Dss,
    connection: &Connection,
    database: &StepName,
    groups: Option<&StepName>,
) -> StepName {
    let site = plan.site;
    let name = &connection.name;
    let bucket = plan
        .step(
            format!("bucket-{}", slug(name)),
            bucket::NAME,
            &bucket::BucketInput { bucket: connection.bucket.clone() },
        )
        .title(format!("bucket {} is there", connection.bucket))
        .after(&start.checked)
        .budget(LOOK)
        .add();
    let step = plan
        .step(
            format!("s3-connection-{}", slug(name)),
            s3_connection::NAME,
            &s3_connection::S3ConnectionInput {
                target: dss.target.clone(),
                name: name.clone(),
                bucket: connection.bucket.clone(),
                path: connection.path.clone(),
                region: site.region.clone(),
                credentials: credentials(site, connection),
                glue_database: connection.glue_database.clone(),
                usable_by: connection.usable_by.clone(),
                readable_by: connection.readable_by.clone(),
                overlay: Names::of_connection(site, connection).fill(site.overlays.s3_connection.as_ref()),
            },
        )
        .title(format!(
            "S3 connection {name}: S3A, own credentials, synchronised to Glue database {}",
            connection.glue_database
        ))
        .after([&dss.ready, &bucket, database])
        .after(groups)
        .api()
        .lock(&format!("dss:connection:{}", slug(name)))
        .add();
    plan.step(
        format!("s3-test-{}", slug(name)),
        connection_test::NAME,
        &connection_test::ConnectionTestInput { target: dss.target.clone(), name: name.clone() },
    )
    .title(format!("DSS reaches the bucket through {name}"))
    .after([&step])
    .api()
    .budget(CHECK)
    .add();
    step
}

fn driver(plan: &mut Plan<'_>, start: &Start, host: &HostSteps) -> StepName {
    let site = plan.site;
    let driver = site.athena_driver.as_ref().expect("a site with Athena pairs has a driver");
    plan.step(
        "athena-driver",
        names::ATHENA_DRIVER,
        &athena_driver::AthenaDriverInput {
            url: driver.url.clone(),
            sha256: driver.sha256.to_lowercase(),
            directory: driver.directory.clone(),
            data_dir: site.dss.data_dir.clone(),
            user: site.host.service_user.clone(),
        },
    )
    .title(format!("Athena JDBC driver {}", driver.version))
    .after(&start.checked)
    .after([&host.service_user])
    .budget(DOWNLOAD)
    .add()
}

/// The Athena connection and the link back; gives the link.
fn pair(
    plan: &mut Plan<'_>,
    dss: &Dss,
    connection: &Connection,
    athena: &Athena,
    s3: &StepName,
    driver: &StepName,
) -> StepName {
    let site = plan.site;
    let spec = site.athena_driver.as_ref().expect("a site with Athena pairs has a driver");
    let step = plan
        .step(
            format!("athena-connection-{}", slug(&athena.name)),
            athena_connection::NAME,
            &athena_connection::AthenaConnectionInput {
                target: dss.target.clone(),
                name: athena.name.clone(),
                s3_connection: connection.name.clone(),
                region: site.region.clone(),
                database: Some(connection.glue_database.clone()),
                workgroup: Some(athena.workgroup.clone()),
                output_location: athena.output_location.clone(),
                driver_version: Some(spec.version.clone()),
                driver_directory: spec.directory.clone(),
                usable_by: connection.usable_by.clone(),
                overlay: Names::of_connection(site, connection)
                    .fill(site.overlays.athena_connection.as_ref()),
            },
        )
        .title(format!("Athena connection {}, with the credentials of {}", athena.name, connection.name))
        .after([s3, driver])
        .api()
        .lock(&format!("dss:connection:{}", slug(&athena.name)))
        .add();
    plan.step(
        format!("athena-link-{}", slug(&connection.name)),
        athena_link::NAME,
        &athena_link::AthenaLinkInput {
            target: dss.target.clone(),
            s3_connection: connection.name.clone(),
            athena_connection: athena.name.clone(),
            credentials: credentials(site, connection),
            overlay: Names::of_connection(site, connection).fill(site.overlays.athena_link.as_ref()),
        },
    )
    .title(format!("{} uses {}", connection.name, athena.name))
    .after([&step])
    .api()
    .lock(&format!("dss:connection:{}", slug(&connection.name)))
    .add()
}
