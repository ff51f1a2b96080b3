//! What activities give, as far as other steps take it: written with the activities' own types, so that a field
//! that changes its name breaks the build here and not a run.

use std::collections::BTreeMap;

use dssflow_activities::aws::{
    addon, cluster, instance, key_pair, launch, launch_template, machine_image, network, node_group, role,
};
use dssflow_activities::dss;
use dssflow_activities::host::{aws_credentials, base_image, boot, install_dss, kit, service_user, unpack};
use serde::Serialize;
use serde_json::Value;

use crate::bootstrap::names;

pub(super) fn all() -> BTreeMap<&'static str, Value> {
    let mut samples = BTreeMap::new();
    let mut add = |name: &'static str, output: Value| samples.insert(name, output);
    let text = str::to_owned;
    let arn = || text("arn:aws:sts::123456789012:assumed-role/ops/i-0a1b2c3d4e5f60718");

    add(
        instance::NAME,
        value(instance::InstanceFacts {
            instance_id: text("i-0a1b2c3d4e5f60718"),
            instance_type: text("m7i.2xlarge"),
            memory_mib: 32_768,
            vcpus: 8,
            architecture: text("x86_64"),
            state: text("running"),
            vpc_id: text("vpc-0a1b2c3d"),
            subnet_id: text("subnet-0a1b2c3d"),
            availability_zone: text("eu-west-1a"),
            private_ip: text("10.0.0.10"),
            private_dns: text("ip-10-0-0-10.eu-west-1.compute.internal"),
            security_groups: vec![text("sg-0a1b2c3d")],
            default_security_group: text("sg-0a1b2c3d"),
        }),
    );
    let launched = launch::LaunchOutput {
        instance_id: text("i-0a1b2c3d4e5f60718"),
        image_id: text("ami-0a1b2c3d"),
        vpc_id: text("vpc-0a1b2c3d"),
        subnet_id: text("subnet-0a1b2c3d"),
        private_ip: text("10.0.0.10"),
        public_ip: None,
    };
    add(launch::NAME, value(launched.clone()));
    add(launch::running::NAME, value(launched));
    add(
        machine_image::NAME,
        value(machine_image::MachineImageOutput {
            id: text("ami-0a1b2c3d"),
            name: text("AlmaLinux OS 8.10.20240528 x86_64"),
            owner: text("764336703387"),
            created: text("2024-05-28T00:00:00.000Z"),
            root_device: text("/dev/sda1"),
        }),
    );
    add(
        key_pair::NAME,
        value(key_pair::KeyPairOutput {
            name: text("dssflow-lab-host"),
            id: text("key-0a1b2c3d"),
            fingerprint: text("ab:cd"),
        }),
    );
    add(
        network::NAME,
        value(network::Network { vpc_id: text("vpc-0a1b2c3d"), subnets: vec![], security_groups: vec![] }),
    );
    add(
        names::SERVICE_USER,
        value(service_user::ServiceUserOutput { name: text("dssuser"), home: text("/home/dssuser") }),
    );
    add(
        names::AWS_CREDENTIALS,
        value(aws_credentials::AwsCredentialsOutput { account: text("123456789012"), arn: arn() }),
    );
    add(names::KIT, value(kit::KitOutput { path: text("/opt/dataiku/kits/kit.tar.gz") }));
    add(names::UNPACK, value(unpack::UnpackOutput { install_dir: text("/opt/dataiku/dataiku-dss-14.2.0") }));
    add(
        names::INSTALL_DSS,
        value(install_dss::InstallDssOutput {
            install_id: text("abc123"),
            port: 11200,
            data_dir: text("/data/dss"),
            version: text("14.2.0"),
        }),
    );
    add(
        names::BASE_IMAGE,
        value(base_image::BaseImageOutput {
            install_id: text("abc123"),
            images: vec![text("dku-exec-base-abc123:dss-14.2.0")],
        }),
    );
    add(
        role::NAME,
        value(role::RoleOutput { name: text("r"), arn: text("arn:aws:iam::123456789012:role/r") }),
    );
    add(cluster::NAME, value(cluster::ClusterOutput { name: text("eks-main"), arn: arn() }));
    add(
        cluster::wait::NAME,
        value(cluster::wait::WaitClusterOutput {
            name: text("eks-main"),
            arn: arn(),
            endpoint: text("https://x.eks.amazonaws.com"),
            certificate_authority: text("LS0t"),
            version: text("1.33"),
            cluster_security_group: text("sg-0a1b2c3d"),
            vpc_id: text("vpc-0a1b2c3d"),
        }),
    );
    add(
        launch_template::NAME,
        value(launch_template::LaunchTemplateOutput {
            id: text("lt-0a1b2c3d"),
            name: text("dssflow-eks-main"),
            version: text("1"),
        }),
    );
    add(
        node_group::NAME,
        value(node_group::NodeGroupOutput { cluster: text("eks-main"), name: text("n"), arn: arn() }),
    );
    add(
        node_group::wait::NAME,
        value(node_group::wait::WaitNodeGroupOutput {
            cluster: text("eks-main"),
            name: text("n"),
            status: text("ACTIVE"),
            desired_size: 3,
            auto_scaling_groups: vec![text("asg")],
        }),
    );
    add(
        addon::NAME,
        value(addon::AddonOutput { cluster: text("eks-main"), addon: text("coredns"), arn: arn() }),
    );
    add(names::BOOT, value(boot::BootOutput { service: text("dataiku") }));
    add(dss::cluster::NAME, value(dss::cluster::ClusterOutput { id: text("eks-main") }));
    add(
        dss::cluster_start::NAME,
        value(dss::cluster_start::ClusterStartOutput { id: text("eks-main"), arn: Some(arn()) }),
    );
    add(dss::cluster_attach::NAME, value(dss::cluster_attach::ClusterAttachOutput { id: text("eks-main") }));
    add(
        dss::smoke::project::NAME,
        value(dss::smoke::project::SmokeProjectOutput { key: text("DSSFLOW_SMOKE_0A1B2C3D") }),
    );
    add(
        dss::smoke::dataset::NAME,
        value(dss::smoke::Location {
            name: text("smoke_copy"),
            bucket: text("b"),
            path: text("dataiku/DSSFLOW_SMOKE_0A1B2C3D/smoke_copy"),
            database: text("dss_main"),
            table: text("t"),
        }),
    );
    add(
        dss::smoke::table::NAME,
        value(dss::smoke::table::SmokeTableOutput {
            count_query: text("SELECT 1"),
            location: text("s3://b"),
            columns: 1,
        }),
    );
    samples
}

fn value(output: impl Serialize) -> Value {
    serde_json::to_value(output).expect("outputs are plain data")
}
