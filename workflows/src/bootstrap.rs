//! The bootstrap: Dataiku DSS on AWS from nothing to the reference architecture "managed compute on EKS with Glue
//! and Athena".
//!
//! The order is that of the document where the document's order works, and otherwise the one that does: the
//! metastore follows the S3 connections whose credentials it uses, images are pushed once both configurations
//! name the registry. Steps stand under the document's headings. Every step that speaks to DSS comes after the API
//! key, so that its undo still has a key and a running DSS.

mod cluster;
mod costs;
mod data;
mod dss;
mod host;
mod launch;
mod names;
pub mod overlay;
mod plan;
mod projects;
mod registry;
mod smoke;

use dssflow_activities::aws::{identity, instance, network};
use dssflow_activities::host::facts;
use dssflow_activities::wildcard::matches;
use dssflow_engine::graph::{Graph, Step};
use dssflow_engine::id::{StepName, WorkflowName};
use dssflow_engine::run::resolve::FunctionRegistry;
use dssflow_engine::run::{OnTrouble, RunOptions};

use crate::Workflow;
use crate::site::{ClusterMode, OnFailure, Site, SiteErrors, SiteProblem, codes, nearest};
pub use costs::costs;
use plan::{LOOK, Plan, from_step};

/// The workflow's name.
pub const NAME: &str = "bootstrap";
/// The workflow's version; rises when the same site gives another graph.
pub const VERSION: u32 = 1;
/// How long the final sweep of a rollback goes on finding nothing, in seconds: a lost request can land late.
const QUIET_S: u64 = 60;
/// The least memory of the host, in GB.
pub(crate) const MIN_MEMORY_GB: u64 = 32;
/// The least size of the file system of the data directory, in GB.
pub(crate) const MIN_DISK_GB: u64 = 100;

/// The bootstrap of a site.
///
/// # Errors
/// When `protect` or `adopt` name no step of this site.
pub fn bootstrap(site: &Site) -> Result<Workflow, SiteErrors> {
    let mut plan = Plan::new(site);
    let start = preflight(&mut plan);
    let host = host::steps(&mut plan, &start);
    let dss = dss::steps(&mut plan, &start, &host);
    let registry = registry::steps(&mut plan, &host, &dss);
    let data = data::steps(&mut plan, &start, &host, &dss, &registry);
    let cluster = cluster::steps(&mut plan, &start, &host, &dss, &registry);
    projects::steps(&mut plan, &dss, &registry, &cluster);
    if site.verify.smoke {
        smoke::steps(&mut plan, &dss, &registry, &data, &cluster);
    }

    let mut steps = plan.into_steps();
    mark(site, &mut steps)?;
    let mut graph = Graph::builder();
    for step in steps {
        graph.push(step);
    }
    let graph = graph.build().expect("a checked site gives a graph that holds together");
    Ok(Workflow {
        name: WorkflowName::new(NAME).expect("a good name"),
        version: VERSION,
        site: site.name.clone(),
        graph,
        input: serde_json::to_value(site).expect("a site is plain data"),
        options: options(site),
    })
}

fn options(site: &Site) -> RunOptions {
    let (on_exhausted, on_failure) = match site.on_failure {
        OnFailure::Pause => (OnTrouble::Pause, OnTrouble::Fail),
        OnFailure::Fail => (OnTrouble::Fail, OnTrouble::Fail),
        OnFailure::Rollback => (OnTrouble::Rollback, OnTrouble::Rollback),
    };
    RunOptions { parallelism: site.parallelism, on_exhausted, on_failure, ..RunOptions::default() }
}

/// What every later step may rely on.
struct Start {
    /// Who acts; its undo is the final sweep.
    identity: StepName,
    /// The EC2 facts of the host: its id, its addresses, its VPC.
    instance: StepName,
    /// Identity, host and network were found to fit: nothing is made before.
    checked: Vec<StepName>,
}

fn preflight(plan: &mut Plan<'_>) -> Start {
    let site = plan.site;
    plan.heading("Prepare the instance");
    let identity = plan
        .step(
            "identity",
            identity::NAME,
            &identity::IdentityInput {
                region: site.region.clone(),
                expected_account: Some(site.expected_account.clone()),
                expected_principal: None,
                quiet_seconds: if site.aws.endpoint_url.is_some() { 0 } else { QUIET_S },
            },
        )
        .title(format!("AWS account {} in {}", site.expected_account, site.region))
        .budget(LOOK)
        .add();
    // A machine that is still to be launched says nothing about the network: then the network is looked at first.
    let launched = site.host.launch.as_ref().map(|launch| {
        let network = network(plan, &identity, None, Some(&launch.subnet));
        let running = launch::steps(plan, launch, &network);
        let reached = launch::reach(plan, &running).unwrap_or_else(|| running.clone());
        (network, running, reached)
    });
    let (id, title) = match (&launched, &site.host.instance) {
        (Some((_, running, _)), _) => {
            (from_step(running, "/instance_id"), "the launched EC2 instance fits DSS".to_owned())
        }
        (None, Some(id)) => (id.clone(), format!("EC2 instance {id} fits DSS")),
        (None, None) => unreachable!("a site has host.instance or host.launch: site::rules"),
    };
    let instance = plan
        .step(
            "instance",
            instance::NAME,
            &instance::InstanceInput { instance_id: Some(id), min_memory_mib: instance::MIN_MEMORY_MIB },
        )
        .title(title)
        .after([&identity])
        .budget(LOOK)
        .add();
    let facts = plan
        .step(
            "host-facts",
            names::FACTS,
            &facts::FactsInput {
                data_dir: site.dss.data_dir.clone(),
                min_memory_gb: MIN_MEMORY_GB,
                min_disk_gb: MIN_DISK_GB,
            },
        )
        .title("system, memory and disk of the host fit DSS")
        .after([&identity])
        .after(launched.iter().map(|(_, _, reached)| reached))
        .budget(LOOK)
        .add();
    let network = match launched {
        Some((network, ..)) => network,
        None => network(plan, &identity, Some(&instance), None),
    };
    Start { checked: vec![instance.clone(), facts, network], identity, instance }
}

fn network(
    plan: &mut Plan<'_>,
    identity: &StepName,
    instance: Option<&StepName>,
    host_subnet: Option<&String>,
) -> StepName {
    let site = plan.site;
    plan.step(
        "network",
        network::NAME,
        &network::NetworkInput {
            vpc_id: instance.map(|step| from_step(step, "/vpc_id")),
            subnets: site.cluster.subnets.clone(),
            security_groups: site.cluster.security_groups.clone(),
            public: !site.cluster.private,
            host_subnet: host_subnet.cloned(),
        },
    )
    .title("subnets and security groups of the cluster fit the host's VPC")
    .after([identity])
    .budget(LOOK)
    .add()
}

/// Marks steps by `protect` and `adopt`.
fn mark(site: &Site, steps: &mut [Step]) -> Result<(), SiteErrors> {
    let mut problems = Vec::new();
    for (list, patterns) in [("protect", &site.protect), ("adopt", &site.adopt)] {
        for (ix, pattern) in patterns.iter().enumerate() {
            let mut found = false;
            for step in steps.iter_mut().filter(|s| matches(pattern, s.name.as_str())) {
                found = true;
                if list == "protect" {
                    step.protect = true;
                } else {
                    step.adopt = true;
                }
            }
            if !found {
                let help = nearest(pattern, steps.iter().map(|s| s.name.as_str())).map_or_else(
                    || "`dssflow workflows graph bootstrap` shows the steps".to_owned(),
                    |near| format!("did you mean `{near}`?"),
                );
                let message = format!("no step is named {pattern:?}");
                let path = format!("{list}[{ix}]");
                problems.push(SiteProblem {
                    code: codes::UNKNOWN_REFERENCE,
                    path,
                    line: None,
                    message,
                    help,
                });
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(SiteErrors { source_name: site.name.clone(), problems }) }
}

/// Adds the functions that bindings of this crate's graphs name.
pub fn register_functions(functions: &mut FunctionRegistry) {
    cluster::register_functions(functions);
    registry::register_functions(functions);
}

/// The account everything must happen in.
pub fn required_account(site: &Site) -> &str {
    &site.expected_account
}

/// What a run starts that costs money, one line each.
pub fn summary(site: &Site) -> Vec<String> {
    let pool = &site.cluster.node_pool;
    let mut lines: Vec<String> = site
        .host
        .launch
        .iter()
        .map(|l| format!("1 x {} with {} GB of disk, launched for DSS", l.instance_type, l.disk_gb))
        .collect();
    lines.push(format!(
        "{} x {} with {} GB disk each, as nodes of EKS cluster {}",
        pool.num_nodes, pool.machine_type, pool.disk_gb, site.cluster.name
    ));
    if pool.maximum() > pool.num_nodes {
        lines.push(format!("up to {} x {} when the node pool grows", pool.maximum(), pool.machine_type));
    }
    lines.push(format!("1 EKS control plane, Kubernetes {}", site.cluster.k8s_version));
    if site.cluster.private {
        lines.push("traffic of private nodes through the NAT gateways or endpoints you have".to_owned());
    }
    lines.push(format!("ECR storage for two base images in {}", site.registry()));
    let pairs = site.connections.iter().filter(|c| c.athena.is_some()).count();
    if pairs > 0 {
        lines.push(format!(
            "{pairs} small Athena quer{} to verify the pairs",
            if pairs == 1 { "y" } else { "ies" }
        ));
    }
    lines
}

/// What a finished run has set up but not tried out, one line each, for the closing summary.
pub fn wired_not_exercised(site: &Site) -> Vec<String> {
    let spark: Vec<&str> = site.spark.configs.iter().map(|c| c.name.as_str()).collect();
    // What the smoke test went through has been exercised; of several it tried the first.
    let tried = usize::from(site.verify.smoke);
    let mut lines = Vec::new();
    if !site.verify.smoke {
        lines.push(format!(
            "container configuration {}: no recipe has run in a container",
            site.containers.name
        ));
    }
    if let spark @ [_, ..] = &spark[tried.min(spark.len())..] {
        lines.push(format!("Spark configurations {}: no Spark job has run on Kubernetes", spark.join(", ")));
    }
    let smoke = site.smoke_connection().filter(|_| site.verify.smoke).map(|c| c.name.as_str());
    let databases: Vec<&str> = site
        .connections
        .iter()
        .filter(|c| Some(c.name.as_str()) != smoke)
        .map(|c| c.glue_database.as_str())
        .collect();
    if !databases.is_empty() {
        lines.push(format!("Glue synchronisation to {}: no dataset has been built", databases.join(", ")));
    }
    let unpaired: Vec<&str> =
        site.connections.iter().filter(|c| c.athena.is_none()).map(|c| c.name.as_str()).collect();
    if !unpaired.is_empty() {
        lines.push(format!("connections without an Athena pair: {}", unpaired.join(", ")));
    }
    if site.cluster.mode == ClusterMode::DssPlugin {
        lines.push("metrics server: eksctl's plugin only warns when it cannot be installed".to_owned());
    }
    if site.cluster.node_pool.maximum() > site.cluster.node_pool.num_nodes {
        lines.push("growth of the node pool: nothing has asked for more nodes".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests;
