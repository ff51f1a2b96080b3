//! Images: the ECR repositories, the container and Spark configurations that name them, and the push. One push
//! serves both configurations.

use std::collections::BTreeMap;

use dssflow_activities::aws::{images, push_needed, repositories};
use dssflow_activities::dss::{container_config, push_images, spark_config};
use dssflow_engine::graph::Binding;
use dssflow_engine::id::StepName;
use dssflow_engine::run::resolve::FunctionRegistry;
use serde_json::{Value, json};

use super::dss::Dss;
use super::host::HostSteps;
use super::overlay::Names;
use super::plan::{LOOK, PUSH, Plan};

/// The function that turns built images into names of repositories, with the prefix.
const REPOSITORIES: &str = "bootstrap.repositories";
/// The function that turns built images into what must be in the registry.
const IMAGES: &str = "bootstrap.images";

/// What later steps may rely on.
pub(super) struct Registry {
    /// The container configuration is there.
    pub(super) container_config: StepName,
    /// The last step that wrote the general settings for images.
    pub(super) spark_config: StepName,
    /// The base images are in the registry.
    pub(super) images: StepName,
}

pub(super) fn steps(plan: &mut Plan<'_>, host: &HostSteps, dss: &Dss) -> Registry {
    let site = plan.site;
    plan.heading("Setup container configuration in DSS");
    let container_config = plan
        .step(
            "container-config",
            container_config::NAME,
            &container_config::ContainerConfigInput {
                target: dss.target.clone(),
                name: site.containers.name.clone(),
                registry_url: site.registry_url(),
                namespace: site.containers.namespace.clone(),
                make_default: site.containers.make_default,
                overlay: Names::of_site(site).fill(site.overlays.container_config.as_ref()),
            },
        )
        .title(format!(
            "container configuration {}: Kubernetes, images from {}, ECR hook",
            site.containers.name,
            site.registry_url()
        ))
        .after([&dss.ready])
        .general_settings()
        .add();

    let built = |function: &str| Binding::Function {
        name: function.to_owned(),
        argument: Box::new(Binding::Object {
            fields: BTreeMap::from([
                ("prefix".to_owned(), Binding::literal(&site.ecr.prefix)),
                ("container_exec".to_owned(), Binding::output(&dss.exec_image, "/images")),
                ("spark".to_owned(), Binding::output(&dss.spark_image, "/images")),
            ]),
        }),
    };
    let repositories = plan
        .step(
            "ecr-repositories",
            repositories::NAME,
            &repositories::RepositoriesInput {
                names: Vec::new(),
                own_tags: vec![site.image_tag()],
                adopt: false,
            },
        )
        .with("names", built(REPOSITORIES))
        .title("ECR repositories for the base images")
        .add();

    plan.heading("Setup Spark and Metastore in DSS");
    let spark_config = plan
        .step(
            "spark-config",
            spark_config::NAME,
            &spark_config::SparkConfigInput {
                target: dss.target.clone(),
                registry_url: site.registry_url(),
                namespace: site.containers.namespace.clone(),
                configs: site
                    .spark
                    .configs
                    .iter()
                    .map(|c| spark_config::SparkConfig {
                        name: c.name.clone(),
                        properties: c.properties.clone(),
                    })
                    .collect(),
                overlay: Names::of_site(site).fill(site.overlays.spark_config.as_ref()),
            },
        )
        .title("managed Spark on Kubernetes, with the same registry and hook")
        .after([&dss.ready, &container_config])
        .general_settings()
        .add();
    let needed = plan
        .step(
            "push-needed",
            push_needed::NAME,
            &push_needed::PushNeededInput { images: Vec::new(), prefix: site.ecr.prefix.clone() },
        )
        .with("images", built(IMAGES))
        .title("which base images are not in ECR as they were built")
        .after([&repositories])
        .budget(LOOK)
        .add();
    let push = plan
        .step(
            "push-base-images",
            push_images::NAME,
            &push_images::PushImagesInput { target: dss.target.clone() },
        )
        .title("push the base images, for containers and for Spark")
        .when(Binding::output(&needed, "/needed"))
        .after([&repositories, &spark_config, &host.aws_ready])
        .api()
        .lock("host:docker")
        .budget(PUSH)
        .add();
    let images = plan
        .step("images-present", images::NAME, &images::ImagesInput { images: Vec::new() })
        .with("images", built(IMAGES))
        .title("both base images are in ECR")
        .after([&push])
        .budget(LOOK)
        .add();
    Registry { container_config, spark_config, images }
}

/// Adds what bindings here name.
pub(super) fn register_functions(functions: &mut FunctionRegistry) {
    functions.insert(REPOSITORIES, |argument| {
        let mut names: Vec<String> =
            built_images(argument)?.into_iter().map(|(repository, _)| repository).collect();
        names.dedup();
        Ok(json!(names))
    });
    functions.insert(IMAGES, |argument| {
        let images = built_images(argument)?;
        Ok(images
            .into_iter()
            .map(|(repository, tag)| json!({ "repository": repository, "tag": tag }))
            .collect())
    });
}

/// Repository and tag of every image that was built, sorted, each once.
pub(super) fn built_images(argument: &Value) -> Result<Vec<(String, String)>, String> {
    let prefix = argument["prefix"].as_str().map_or_else(String::new, |prefix| format!("{prefix}/"));
    let mut images = Vec::new();
    for kind in ["container_exec", "spark"] {
        let built =
            argument[kind].as_array().ok_or_else(|| format!("no images of kind {kind} were given"))?;
        for image in built {
            let (repository, tag) = image
                .as_str()
                .and_then(|image| image.rsplit_once(':'))
                .ok_or_else(|| format!("{image} is no REPOSITORY:TAG"))?;
            images.push((format!("{prefix}{repository}"), tag.to_owned()));
        }
    }
    images.sort();
    images.dedup();
    Ok(images)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_images_are_told_with_the_prefix_each_once() {
        let argument = json!({ "prefix": "dss", "container_exec": ["b:1"], "spark": ["a:1", "b:1"] });
        let pair = |repository: &str| (repository.to_owned(), "1".to_owned());
        assert_eq!(built_images(&argument), Ok(vec![pair("dss/a"), pair("dss/b")]));
        let argument = json!({ "prefix": null, "container_exec": ["b:1"], "spark": [] });
        assert_eq!(built_images(&argument), Ok(vec![pair("b")]));
        assert!(built_images(&json!({ "container_exec": ["b"], "spark": [] })).is_err());
        assert!(built_images(&json!({ "container_exec": ["b:1"] })).is_err());
    }
}
