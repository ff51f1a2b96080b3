//! Projects that are made to use the cluster and the container configuration.

use dssflow_activities::dss::{project, project_settings};

use super::cluster::Cluster;
use super::dss::Dss;
use super::plan::{Plan, from_step, slug};
use super::registry::Registry;

pub(super) fn steps(plan: &mut Plan<'_>, dss: &Dss, registry: &Registry, cluster: &Cluster) {
    let site = plan.site;
    plan.heading("Use it");
    for wanted in &site.projects {
        let project = plan
            .step(
                format!("project-{}", slug(&wanted.key)),
                project::NAME,
                &project::ProjectInput {
                    target: dss.target.clone(),
                    key: wanted.key.clone(),
                    name: wanted.name.clone(),
                },
            )
            .title(format!("project {}", wanted.key))
            .after([&dss.ready])
            .api()
            .add();
        plan.step(
            format!("project-settings-{}", slug(&wanted.key)),
            project_settings::NAME,
            &project_settings::ProjectSettingsInput {
                target: dss.target.clone(),
                key: wanted.key.clone(),
                cluster_id: from_step(&cluster.running, "/id"),
                container_config: site.containers.name.clone(),
            },
        )
        .title(format!("{} uses {} and {}", wanted.key, site.cluster.name, site.containers.name))
        .after([&project, &cluster.default, &registry.container_config, &registry.images])
        .api()
        .add();
    }
}
