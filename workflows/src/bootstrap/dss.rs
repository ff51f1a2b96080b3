//! DSS itself: kits, installation, integrations, base images, the boot unit, the API key, the licence and the
//! admin's password. DSS is stopped until the integrations are in and the images are built.

use std::collections::BTreeMap;

use dssflow_activities::dss::{DssTarget, admin_password, ready};
use dssflow_activities::host::{
    api_key, base_image, boot, dss_start, env_site, install_deps, install_dss, integration, kit, license,
    unpack, user_isolation,
};
use dssflow_engine::id::StepName;

use super::Start;
use super::host::HostSteps;
use super::names;
use super::plan::{DOWNLOAD, HOST, IMAGE, INSTALLER, INTEGRATION, PACKAGES, Plan, START, UNPACK, from_step};
use crate::site::{ApiKey, Download, Site};

/// Where kits are downloaded to, below the install directory.
const KIT_DIR: &str = "kits";
/// The systemd service of DSS.
const SERVICE: &str = "dataiku";
/// The variable that names the address under which pods reach DSS.
const EXT_HOST: &str = "DKU_BACKEND_EXT_HOST";
/// The label of the API key in DSS.
const KEY_LABEL: &str = "dssflow";

/// What later steps may rely on.
pub(super) struct Dss {
    /// How to reach it.
    pub(super) target: DssTarget,
    /// The API answers and the key is an admin's; the licence is in and admin/admin is history.
    pub(super) ready: StepName,
    /// The base image for containers.
    pub(super) exec_image: StepName,
    /// The base image for Spark.
    pub(super) spark_image: StepName,
}

pub(super) fn steps(plan: &mut Plan<'_>, start: &Start, host: &HostSteps) -> Dss {
    let site = plan.site;
    let (user, data_dir) = (&site.host.service_user, &site.dss.data_dir);
    plan.heading("Install DSS");
    let kits = &site.dss.kits;
    let kit_dss = kit(plan, host, "dss", "DSS kit", &kits.dss);
    let kit_hadoop = kit(plan, host, "hadoop", "generic-hadoop3 standalone Hadoop libraries", &kits.hadoop);
    let kit_spark = kit(plan, host, "spark", "standalone Spark binaries", &kits.spark);

    let unpack = plan
        .step(
            "unpack",
            names::UNPACK,
            &unpack::UnpackInput {
                archive: from_step(&kit_dss, "/path"),
                sha256: kits.dss.sha256.to_lowercase(),
                parent: site.dss.install_dir.clone(),
                directory: format!("dataiku-dss-{}", site.dss.version),
                version: site.dss.version.clone(),
                user: user.clone(),
            },
        )
        .title(format!("unpack DSS {}", site.dss.version))
        .budget(UNPACK)
        .add();
    let deps = plan
        .step(
            "install-deps",
            names::INSTALL_DEPS,
            &install_deps::InstallDepsInput {
                install_dir: from_step(&unpack, "/install_dir"),
                user: user.clone(),
                with_r: site.dss.with_r,
            },
        )
        .title("packages DSS asks for")
        .after(&host.prepared)
        .lock("host:dnf")
        .budget(PACKAGES)
        .add();
    let install = plan
        .step(
            "install-dss",
            names::INSTALL_DSS,
            &install_dss::InstallDssInput {
                install_dir: from_step(&unpack, "/install_dir"),
                data_dir: data_dir.clone(),
                port: site.dss.port,
                version: site.dss.version.clone(),
                user: user.clone(),
                node_type: "design".to_owned(),
                python: Some(format!("/usr/bin/python{}", site.host.python.version())),
            },
        )
        .title(format!("install DSS {} in {data_dir}", site.dss.version))
        .after([&deps])
        .lock("host:dss-service")
        .budget(INSTALLER)
        .add();
    let env_site = plan
        .step(
            "env-site",
            names::ENV_SITE,
            &env_site::EnvSiteInput {
                data_dir: from_step(&install, "/data_dir"),
                user: user.clone(),
                exports: BTreeMap::from([(EXT_HOST.to_owned(), ext_host(site, start))]),
            },
        )
        .title("the address under which pods reach DSS")
        .lock("host:dss-service")
        .budget(HOST)
        .add();
    let hadoop =
        integrate(plan, &install, "hadoop", integration::IntegrationKind::Hadoop, &kit_hadoop, &env_site);
    let spark = integrate(plan, &install, "spark", integration::IntegrationKind::Spark, &kit_spark, &hadoop);
    let exec_image =
        image(plan, &install, "container-exec", base_image::BaseImageKind::ContainerExec, &spark);
    let spark_image = image(plan, &install, "spark", base_image::BaseImageKind::Spark, &spark);
    let isolation = isolation(plan, &install, &spark);
    let ready = service(plan, &install, [&exec_image, &spark_image].into_iter().chain(&isolation));
    Dss { target: target(site), ready, exec_image, spark_image }
}

/// User isolation, when the site asks for it. Dataiku's page wants the integrations to be in before.
fn isolation(plan: &mut Plan<'_>, install: &StepName, after: &StepName) -> Option<StepName> {
    let site = plan.site;
    site.dss.user_isolation.then(|| {
        plan.step(
            "user-isolation",
            user_isolation::NAME,
            &user_isolation::UserIsolationInput {
                data_dir: from_step(install, "/data_dir"),
                install_id: from_step(install, "/install_id"),
                user: site.host.service_user.clone(),
                groups: site.dss.isolation_groups.clone(),
                service: SERVICE.to_owned(),
            },
        )
        .title(format!("user isolation: code of DSS users does not run as {}", site.host.service_user))
        .after([after])
        .lock("host:dss-service")
        .budget(HOST)
        .add()
    })
}

/// A value, or the instance's private address.
pub(super) fn ext_host(site: &Site, start: &Start) -> String {
    site.dss.ext_host.clone().unwrap_or_else(|| from_step(&start.instance, "/private_ip"))
}

fn integrate(
    plan: &mut Plan<'_>,
    install: &StepName,
    name: &str,
    kind: integration::IntegrationKind,
    kit: &StepName,
    after: &StepName,
) -> StepName {
    let site = plan.site;
    let kits = &site.dss.kits;
    let download = match kind {
        integration::IntegrationKind::Hadoop => &kits.hadoop,
        integration::IntegrationKind::Spark => &kits.spark,
    };
    plan.step(
        format!("{name}-integration"),
        names::INTEGRATION,
        &integration::IntegrationInput {
            kind,
            data_dir: from_step(install, "/data_dir"),
            user: site.host.service_user.clone(),
            archive: from_step(kit, "/path"),
            sha256: download.sha256.to_lowercase(),
            service: SERVICE.to_owned(),
        },
    )
    .title(format!("{name} integration"))
    .after([after])
    .lock("host:dss-service")
    .budget(INTEGRATION)
    .add()
}

fn image(
    plan: &mut Plan<'_>,
    install: &StepName,
    name: &str,
    kind: base_image::BaseImageKind,
    after: &StepName,
) -> StepName {
    let site = plan.site;
    plan.step(
        format!("image-{name}"),
        names::BASE_IMAGE,
        &base_image::BaseImageInput {
            kind,
            data_dir: from_step(install, "/data_dir"),
            user: site.host.service_user.clone(),
            version: site.dss.version.clone(),
            options: Vec::new(),
        },
    )
    .title(format!("build the {name} base image"))
    .after([after])
    .lock("host:docker")
    .budget(IMAGE)
    .add()
}

/// Boot unit, start, key, licence and password; gives the step after which DSS may be worked with.
fn service<'s>(
    plan: &mut Plan<'_>,
    install: &StepName,
    before: impl Iterator<Item = &'s StepName>,
) -> StepName {
    let site = plan.site;
    let user = &site.host.service_user;
    let boot = plan
        .step(
            "boot",
            names::BOOT,
            &boot::BootInput {
                install_dir: site.kit_dir(),
                data_dir: from_step(install, "/data_dir"),
                user: user.clone(),
                name: None,
            },
        )
        .title("systemd unit of DSS")
        .after(before)
        .lock("host:dss-service")
        .budget(HOST)
        .add();
    // The licence goes in before the first start: a Free edition may refuse the API it would take otherwise.
    let license = site.dss.license.as_ref().map(|reference| {
        plan.step(
            "license",
            names::LICENSE,
            &license::LicenseInput {
                data_dir: from_step(install, "/data_dir"),
                user: user.clone(),
                license: reference.clone(),
                service: from_step(&boot, "/service"),
            },
        )
        .title("licence")
        .lock("host:dss-service")
        .budget(HOST)
        .add()
    });
    let start = plan
        .step(
            "dss-start",
            names::DSS_START,
            &dss_start::DssStartInput {
                service: from_step(&boot, "/service"),
                data_dir: from_step(install, "/data_dir"),
                user: user.clone(),
            },
        )
        .title("DSS is running")
        .after(&license)
        .lock("host:dss-service")
        .budget(START)
        .add();
    let target = target(site);
    let mut before = vec![start.clone()];
    if let ApiKey::Sink { sink } = &site.dss.api_key {
        let key = plan
            .step(
                "api-key",
                names::API_KEY,
                &api_key::ApiKeyInput {
                    data_dir: from_step(install, "/data_dir"),
                    user: user.clone(),
                    label: KEY_LABEL.to_owned(),
                    sink: sink.clone(),
                },
            )
            .title("admin API key, kept where the site says")
            .after([&start])
            .api()
            .budget(START)
            .add();
        before.push(key);
    }
    let ready = plan
        .step("dss-ready", ready::NAME, &ready::ReadyInput { target: target.clone(), wait_seconds: 600 })
        .title("DSS answers, and the key is an admin's")
        .after(&before)
        .api()
        .budget(START)
        .add();
    plan.step(
        "admin-password",
        admin_password::NAME,
        &admin_password::AdminPasswordInput { target, password: site.dss.admin_password.clone() },
    )
    .title("admin/admin no longer logs in")
    .after([&ready])
    .api()
    .add()
}

fn kit(plan: &mut Plan<'_>, host: &HostSteps, name: &str, title: &str, download: &Download) -> StepName {
    let site = plan.site;
    plan.step(
        format!("kit-{name}"),
        names::KIT,
        &kit::KitInput {
            url: download.url.clone(),
            sha256: download.sha256.to_lowercase(),
            directory: format!("{}/{KIT_DIR}", site.dss.install_dir.trim_end_matches('/')),
            user: from_step(&host.service_user, "/name"),
        },
    )
    .title(format!("download the {title}"))
    .budget(DOWNLOAD)
    .add()
}

fn target(site: &Site) -> DssTarget {
    let api_key = match &site.dss.api_key {
        ApiKey::Sink { sink } => sink.reference(),
        ApiKey::Ref(reference) => reference.clone(),
    };
    DssTarget { url: site.dss_url(), api_key, major: site.dss.major }
}
