//! Every AWS activity against the sandbox's AWS: absent, made, found again by its tags, left alone by others, taken
//! back, taken back again.
//!
//! The program is its own sandbox daemon (`__sandbox ...`), so it has no test harness: `main` runs the cases in turn
//! and names each. The engine is not here; contexts are made by hand.

#![expect(clippy::print_stdout, reason = "a test program without a harness prints its own lines")]

mod by_hand;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::process::ExitCode;
use std::sync::Arc;

use dssflow_activities::aws::{
    access_entry, addon, athena_query, bucket, cluster, default_sg, eksctl, glue_database, identity, images,
    instance, key_pair, launch, launch_template, machine_image, network, node_group, repositories, role,
    service_linked_role, sweep, versions,
};
use dssflow_activities::clients::AwsClients;
use dssflow_engine::activity::{
    Activity, ActivityContext, ErrorClass, Marks, Owner, Probe, Recorded, Resources, Undo,
};
use dssflow_sandbox::{Action, Fault, Target, World, set_faults};

use by_hand::{Attempt, Cases, Ledger, Sandbox};

fn main() -> ExitCode {
    by_hand::main(all)
}

struct Lab {
    world: World,
    clients: AwsClients,
}

impl Lab {
    /// A context of `run`, with its ledger. Store 1 is ours.
    fn ctx(&self, store: u8, run: &str, step: &str) -> (ActivityContext, Arc<Ledger>) {
        self.ctx_at(1, store, run, step)
    }

    fn ctx_at(&self, generation: u32, store: u8, run: &str, step: &str) -> (ActivityContext, Arc<Ledger>) {
        let mut resources = Resources::default();
        resources.insert(self.clients.clone());
        Attempt { store, run, step, generation, kept: &["kept"], ..Attempt::default() }.context(resources)
    }

    /// Takes a Create from nothing to there; gives its output, context and ledger.
    async fn make<A: Activity>(
        &self,
        activity: &A,
        input: &A::Input,
    ) -> (A::Output, ActivityContext, Arc<Ledger>)
    where
        A::Output: Debug + PartialEq,
    {
        let (ctx, ledger) = self.ctx(1, "run-1", "step");
        assert_eq!(activity.probe(&ctx, input).await, Ok(Probe::Absent));
        let made = activity.execute(&ctx, input).await.expect("it is made");
        match activity.probe(&ctx, input).await.expect("it can be looked at") {
            Probe::Present { output, owner: Owner::ThisRun } => assert_eq!(output, made),
            other => panic!("made by this run, but {other:?}"),
        }
        assert!(!activity.describe(input).is_empty());
        (made, ctx, ledger)
    }

    /// What others see of it, and that they leave it; then takes it back, twice.
    async fn unmake<A: Activity>(
        &self,
        activity: &A,
        input: &A::Input,
        ctx: &ActivityContext,
        ledger: &Ledger,
    ) where
        A::Output: Debug + PartialEq,
    {
        let (later, _) = self.ctx(1, "run-2", "step");
        let (stranger, _) = self.ctx(2, "run-1", "step");
        for (other, owner) in [(&later, Owner::ThisSite("run-1".into())), (&stranger, Owner::Foreign)] {
            match activity.probe(other, input).await {
                Ok(Probe::Present { owner: seen, .. }) => assert_eq!(seen, owner),
                seen => panic!("{seen:?}"),
            }
            let nothing = activity.compensate(other, input, &Recorded::default()).await;
            assert_eq!(nothing, Ok(Undo::NothingToDo), "{owner:?} must not delete it");
        }
        assert_eq!(activity.compensate(ctx, input, &ledger.recorded()).await, Ok(Undo::Undone));
        assert_eq!(activity.probe(ctx, input).await, Ok(Probe::Absent));
        assert_eq!(activity.compensate(ctx, input, &ledger.recorded()).await, Ok(Undo::NothingToDo));
    }

    async fn left(&self) -> Vec<String> {
        let (ctx, _) = self.ctx(1, "run-1", "identity");
        let left = sweep::leftovers(&self.clients, &ctx.marks(), ctx.kept()).await.expect("the sweep works");
        left.iter().map(ToString::to_string).collect()
    }
}

async fn all(sandbox: Sandbox) -> Cases {
    let Sandbox { world, clients } = sandbox;
    let lab = Arc::new(Lab { world, clients });
    let mut cases = Cases::default();
    cases.case("identity", who_we_are(Arc::clone(&lab))).await;
    cases.case("instance", the_instance(Arc::clone(&lab))).await;
    cases.case("default security group", the_default_group(Arc::clone(&lab))).await;
    cases.case("network", the_network(Arc::clone(&lab))).await;
    cases.case("launch", the_launch(Arc::clone(&lab))).await;
    cases.case("versions", the_versions(Arc::clone(&lab))).await;
    cases.case("repositories", the_repositories(Arc::clone(&lab))).await;
    cases.case("glue database", the_database(Arc::clone(&lab))).await;
    cases.case("buckets and queries", buckets_and_queries(Arc::clone(&lab))).await;
    cases.case("roles", the_roles(Arc::clone(&lab))).await;
    cases.case("cluster", Box::pin(the_cluster(Arc::clone(&lab)))).await;
    cases.case("a failed cluster", a_failed_cluster(Arc::clone(&lab))).await;
    cases.case("eksctl", leftover_stacks(Arc::clone(&lab))).await;
    cases.case("faults", lost_and_refused(Arc::clone(&lab))).await;
    cases.case("sweep", nothing_left(Arc::clone(&lab))).await;
    cases
}

async fn who_we_are(lab: Arc<Lab>) {
    let (ctx, _) = lab.ctx(1, "run-1", "identity");
    let mut input = identity::IdentityInput {
        region: lab.world.region.clone(),
        expected_account: Some(lab.world.account.clone()),
        expected_principal: None,
        quiet_seconds: 0,
    };
    let identity = identity::StsIdentity.execute(&ctx, &input).await.expect("it is us");
    assert_eq!(identity.account, lab.world.account);
    input.expected_account = Some("210987654321".into());
    let error = identity::StsIdentity.execute(&ctx, &input).await.expect_err("another account");
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Terminal, "AccountMismatch"));
}

async fn the_instance(lab: Arc<Lab>) {
    let (ctx, _) = lab.ctx(1, "run-1", "instance");
    let mut input = instance::InstanceInput { instance_id: None, min_memory_mib: instance::MIN_MEMORY_MIB };
    let facts = instance::InstanceFactsActivity.execute(&ctx, &input).await.expect("found by its metadata");
    assert_eq!(facts.instance_id, lab.world.instance_id);
    assert_eq!((facts.vpc_id.as_str(), facts.architecture.as_str()), (lab.world.vpc_id.as_str(), "x86_64"));
    assert_eq!(facts.default_security_group, lab.world.default_security_group);
    input.min_memory_mib = 10_000_000;
    let error = instance::InstanceFactsActivity.execute(&ctx, &input).await.expect_err("too small");
    assert_eq!(error.code, "InstanceUnfit");
    input.instance_id = Some("i-0123456789abcdef0".into());
    let error = instance::InstanceFactsActivity.execute(&ctx, &input).await.expect_err("not there");
    assert_eq!(error.code, "InstanceNotFound");
}

async fn the_default_group(lab: Arc<Lab>) {
    let (ctx, ledger) = lab.ctx(1, "run-1", "default-sg");
    let input = default_sg::DefaultSgInput {
        instance_id: lab.world.instance_id.clone(),
        vpc_id: lab.world.vpc_id.clone(),
        security_group: None,
    };
    let activity = default_sg::DefaultSecurityGroup;
    assert_eq!(activity.probe(&ctx, &input).await, Ok(Probe::Absent));
    let made = activity.execute(&ctx, &input).await.expect("attached");
    assert!(made.security_groups.contains(&lab.world.default_security_group));
    let seen = activity.probe(&ctx, &input).await;
    assert!(
        matches!(&seen, Ok(Probe::Present { owner: Owner::ThisSite(run), .. }) if run.is_empty()),
        "{seen:?}"
    );
    assert_eq!(activity.compensate(&ctx, &input, &Recorded::default()).await, Ok(Undo::NothingToDo));
    assert_eq!(activity.compensate(&ctx, &input, &ledger.recorded()).await, Ok(Undo::Undone));
    assert_eq!(activity.probe(&ctx, &input).await, Ok(Probe::Absent));
    assert_eq!(activity.compensate(&ctx, &input, &ledger.recorded()).await, Ok(Undo::NothingToDo));
}

async fn the_network(lab: Arc<Lab>) {
    let world = &lab.world;
    let mut input = network::NetworkInput {
        vpc_id: Some(world.vpc_id.clone()),
        subnets: world.subnets[..2].to_vec(),
        security_groups: vec![world.default_security_group.clone()],
        public: true,
        host_subnet: None,
    };
    let network = network::check_network(&lab.clients, &input).await.expect("it fits");
    assert_eq!(network.subnets.len(), 2);
    input.subnets = vec![world.subnets[0].clone(), world.subnets[2].clone()];
    input.security_groups = vec!["sg-0123456789abcdef0".into()];
    let problems = network::check_network(&lab.clients, &input).await.expect_err("one zone, unknown group");
    let codes: Vec<_> = problems.iter().map(|p| p.code.as_str()).collect();
    assert_eq!(codes, [network::SUBNETS_ONE_ZONE, network::GROUP_UNKNOWN]);
    let (ctx, _) = lab.ctx(1, "run-1", "network");
    let error = network::NetworkCheck.execute(&ctx, &input).await.expect_err("the same as a step");
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Terminal, network::SUBNETS_ONE_ZONE));
}

/// A key pair, and an instance that is launched once whatever happens to the answers.
async fn the_launch(lab: Arc<Lab>) {
    let key = key_pair::KeyPairInput { name: "dssflow-lab-host".into(), public_key: PUBLIC_KEY.into() };
    let (_, key_ctx, key_ledger) = lab.make(&key_pair::KeyPair, &key).await;
    let other = key_pair::KeyPairInput { public_key: PUBLIC_KEY.replace("AAAAI", "AAAAJ"), ..key.clone() };
    let error = key_pair::KeyPair.probe(&key_ctx, &other).await.expect_err("another key");
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::NeedsHuman, "KeyPairDiffers"));

    let (ctx, ledger) = lab.ctx(1, "run-1", "host-launch");
    let mut wanted = machine_image::MachineImageInput {
        id: None,
        owner: lab.world.account.clone(),
        name: "AlmaLinux OS 8*x86_64*".into(),
    };
    let image = machine_image::MachineImage.execute(&ctx, &wanted).await.expect("the seeded image");
    assert!(image.name.starts_with("AlmaLinux OS 8"), "{image:?}");
    wanted.name = "No Such OS*".into();
    let error = machine_image::MachineImage.execute(&ctx, &wanted).await.expect_err("no such image");
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Terminal, "ImageNotFound"));
    wanted.id = Some("ami-0123456789abcdef0".into());
    let error = machine_image::MachineImage.execute(&ctx, &wanted).await.expect_err("no such id");
    assert_eq!(error.code, "ImageNotFound");

    let input = launch::LaunchInput {
        name: "dssflow-lab-host".into(),
        image_id: image.id.clone(),
        root_device: image.root_device,
        instance_type: "m7i.2xlarge".into(),
        subnet_id: lab.world.subnets[0].clone(),
        vpc_id: lab.world.vpc_id.clone(),
        security_groups: vec![lab.world.instance_security_group.clone()],
        disk_gb: 200,
        disk_type: "gp3".into(),
        instance_profile: None,
        key_name: Some(key.name.clone()),
        user_data: Some("#!/bin/sh\nmkdir -p /data\n".into()),
    };
    assert_eq!(launch::Launch.probe(&ctx, &input).await, Ok(Probe::Absent));
    // The answer is lost, and the call is made again before anybody looks: the token gives the same instance.
    let fault = Fault::new(Target::Aws, "ec2:RunInstances", Action::Reset).after().times(1);
    set_faults(&lab.world, &[fault]).await.expect("the fault is set");
    let error = launch::Launch.execute(&ctx, &input).await.expect_err("the answer is lost");
    assert_eq!((error.class, error.no_effect), (ErrorClass::Retryable, false), "{error}");
    set_faults(&lab.world, &[]).await.expect("no more faults");
    let made = launch::Launch.execute(&ctx, &input).await.expect("the same again");
    let Ok(Probe::Present { output, owner: Owner::ThisRun }) = launch::Launch.probe(&ctx, &input).await
    else {
        panic!("one instance of this run")
    };
    assert_eq!((&output.instance_id, &output.image_id), (&made.instance_id, &image.id));
    let wait = launch::running::InstanceRunningInput { instance_id: made.instance_id.clone() };
    let running = launch::running::InstanceRunning.execute(&ctx, &wait).await.expect("it runs");
    assert!(!running.private_ip.is_empty(), "{running:?}");
    let facts = instance::InstanceInput { instance_id: Some(made.instance_id.clone()), min_memory_mib: 1 };
    let facts = instance::instance_facts(&lab.clients, &facts).await.expect("its facts");
    assert_eq!(facts.security_groups.len(), 2, "{facts:?}");
    assert!(facts.security_groups.contains(&lab.world.default_security_group), "{facts:?}");
    let left = lab.left().await;
    assert!(left.iter().any(|l| l.starts_with("ec2:instance")), "the sweep sees it: {left:?}");

    // Others leave it alone; a later run of the site takes it over.
    let (later, _) = lab.ctx(1, "run-2", "host-launch");
    let (stranger, _) = lab.ctx(2, "run-1", "host-launch");
    let seen = launch::Launch.probe(&later, &input).await;
    assert!(
        matches!(&seen, Ok(Probe::Present { owner: Owner::ThisSite(run), .. }) if run == "run-1"),
        "{seen:?}"
    );
    assert_eq!(launch::Launch.probe(&stranger, &input).await, Ok(Probe::Absent));
    for other in [&later, &stranger] {
        let undo = launch::Launch.compensate(other, &input, &ledger.recorded()).await;
        assert_eq!(undo, Ok(Undo::NothingToDo));
    }
    assert_eq!(launch::Launch.compensate(&ctx, &input, &Recorded::default()).await, Ok(Undo::Undone));
    assert_eq!(launch::Launch.compensate(&ctx, &input, &ledger.recorded()).await, Ok(Undo::NothingToDo));
    let seen = launch::Launch.probe(&ctx, &input).await;
    assert!(matches!(seen, Ok(Probe::Failed { owner: Owner::ThisRun, .. })), "{seen:?}");
    let (second, _) = lab.ctx_at(2, 1, "run-1", "host-launch");
    assert_eq!(launch::Launch.probe(&second, &input).await, Ok(Probe::Absent));

    lab.unmake(&key_pair::KeyPair, &key, &key_ctx, &key_ledger).await;
    assert_eq!(lab.left().await, Vec::<String>::new());
}

const PUBLIC_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsABgH5C9okWi0dh2l9GKJl lab@example";

async fn the_versions(lab: Arc<Lab>) {
    let (ctx, _) = lab.ctx(1, "run-1", "versions");
    let verdict = async |version: &str| {
        versions::check_version(&lab.clients, version, ctx.now()).await.expect("it answers")
    };
    assert_eq!(verdict("1.33").await, versions::Verdict::Good);
    assert!(matches!(verdict("1.30").await, versions::Verdict::Warn { .. }));
    assert!(matches!(verdict("1.28").await, versions::Verdict::Refuse { .. }));
    assert!(matches!(verdict("1.11").await, versions::Verdict::Refuse { .. }));
    // Where nobody knows the question there is no verdict: moto itself, without the proxy before it.
    let mut spec = lab.clients.spec().clone();
    spec.endpoint_url = Some(lab.world.moto_endpoint.clone());
    let moto = AwsClients::connect(&spec).await;
    let verdict = versions::check_version(&moto, "1.33", ctx.now()).await.expect("an answer of a kind");
    assert!(matches!(verdict, versions::Verdict::Unknown { .. }), "{verdict:?}");
}

async fn push(lab: &Lab, repository: &str, tag: &str, digit: char) -> String {
    let digest = format!("sha256:{}", digit.to_string().repeat(64));
    let call = lab.clients.ecr().put_image().repository_name(repository).image_tag(tag).image_digest(&digest);
    let call = call.image_manifest_media_type("application/vnd.docker.distribution.manifest.v2+json");
    call.image_manifest(format!("{{\"schemaVersion\":2,\"n\":\"{digit}\"}}")).send().await.expect("pushed");
    digest
}

async fn the_repositories(lab: Arc<Lab>) {
    let input = repositories::RepositoriesInput {
        names: vec!["lab/exec".into(), "lab/spark".into()],
        own_tags: vec!["dss-14.1.0".into()],
        adopt: false,
    };
    let (made, ctx, ledger) = lab.make(&repositories::Repositories, &input).await;
    assert_eq!(made.repositories.len(), 2);
    assert!(made.registry.contains(&lab.world.account), "{}", made.registry);
    push(&lab, "lab/exec", "dss-14.1.0", 'a').await;
    let wanted = |tag: &str| images::ImagesInput {
        images: vec![images::ImageWanted { repository: "lab/exec".into(), tag: tag.into(), digest: None }],
    };
    images::ImagesPresent.execute(&ctx, &wanted("dss-14.1.0")).await.expect("it is there");
    let error = images::ImagesPresent.execute(&ctx, &wanted("dss-15")).await.expect_err("not pushed");
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Retryable, "ImageMissing"));

    let foreign = push(&lab, "lab/spark", "prod", 'b').await;
    let undo = repositories::Repositories.compensate(&ctx, &input, &ledger.recorded()).await;
    assert!(matches!(&undo, Ok(Undo::Kept { reason }) if reason.contains("lab/spark")), "{undo:?}");
    assert_eq!(lab.left().await, ["ecr:repository lab/spark (holds 1 images that this run did not push)"]);
    let id = aws_sdk_ecr::types::ImageIdentifier::builder().image_digest(foreign).build();
    let call = lab.clients.ecr().batch_delete_image().repository_name("lab/spark").image_ids(id);
    call.send().await.expect("the foreign image goes");
    repositories::Repositories.execute(&ctx, &input).await.expect("the missing one is made again");
    lab.unmake(&repositories::Repositories, &input, &ctx, &ledger).await;
}

async fn the_database(lab: Arc<Lab>) {
    let input =
        glue_database::GlueDatabaseInput { name: "Lab_Main".into(), description: None, location_uri: None };
    let (made, ctx, ledger) = lab.make(&glue_database::GlueDatabase, &input).await;
    assert_eq!(made.name, "lab_main");
    let table = aws_sdk_glue::types::TableInput::builder().name("t").build().expect("a table has a name");
    let call = lab.clients.glue().create_table().database_name("lab_main").table_input(table);
    call.send().await.expect("a table of somebody");
    let undo = glue_database::GlueDatabase.compensate(&ctx, &input, &ledger.recorded()).await;
    assert!(matches!(&undo, Ok(Undo::Kept { reason }) if reason.contains("1 tables")), "{undo:?}");
    assert_eq!(lab.left().await, ["glue:database lab_main (holds 1 tables, which are user data)"]);
    let call = lab.clients.glue().delete_table().database_name("lab_main").name("t");
    call.send().await.expect("the table goes");
    lab.unmake(&glue_database::GlueDatabase, &input, &ctx, &ledger).await;
}

async fn buckets_and_queries(lab: Arc<Lab>) {
    let (ctx, _) = lab.ctx(1, "run-1", "bucket");
    let input = bucket::BucketInput { bucket: lab.world.buckets[0].clone() };
    let found = bucket::BucketCheck.execute(&ctx, &input).await.expect("the bucket is there");
    assert!(found.accessible);
    assert_eq!(found.region.as_deref(), Some(lab.world.region.as_str()));
    let input = bucket::BucketInput { bucket: "dssflow-no-such-bucket".into() };
    let error = bucket::BucketCheck.execute(&ctx, &input).await.expect_err("not there");
    assert_eq!(error.code, "BucketNotFound");

    let results = lab.world.buckets.last().expect("the last is for results");
    let input = athena_query::AthenaQueryInput {
        sql: "SELECT 1".into(),
        database: None,
        catalog: None,
        workgroup: None,
        output_location: Some(format!("s3://{results}/lab/")),
    };
    athena_query::AthenaQuery.execute(&ctx, &input).await.expect("the query ends");
}

async fn the_roles(lab: Arc<Lab>) {
    let (ctx, ledger) = lab.ctx(1, "run-1", "slr");
    let input = service_linked_role::ServiceLinkedRoleInput { service: "eks.amazonaws.com".into() };
    let activity = service_linked_role::ServiceLinkedRole;
    if activity.probe(&ctx, &input).await == Ok(Probe::Absent) {
        activity.execute(&ctx, &input).await.expect("made");
        let undo = activity.compensate(&ctx, &input, &ledger.recorded()).await;
        assert!(matches!(undo, Ok(Undo::Kept { .. })), "{undo:?}");
    }
    let seen = activity.probe(&ctx, &input).await;
    assert!(matches!(seen, Ok(Probe::Present { owner: Owner::ThisSite(_), .. })), "{seen:?}");

    let input = role_input("dssflow-lab-nodes", role::RoleKind::EksNode);
    let (made, ctx, ledger) = lab.make(&role::Role, &input).await;
    assert_eq!(lab.left().await, ["iam:role dssflow-lab-nodes"]);
    let given = role::RoleInput { name: None, given_arn: Some(made.arn.clone()), ..input.clone() };
    let seen = role::Role.probe(&ctx, &given).await;
    assert!(
        matches!(&seen, Ok(Probe::Present { output, owner: Owner::ThisSite(_) }) if output.arn == made.arn),
        "{seen:?}"
    );
    let policy = "arn:aws:iam::aws:policy/AmazonEKS_CNI_Policy";
    let call = lab.clients.iam().detach_role_policy().role_name(&made.name).policy_arn(policy);
    call.send().await.expect("somebody takes a policy away");
    assert_eq!(
        role::Role.probe(&ctx, &input).await,
        Ok(Probe::Absent),
        "a role without its policies is not ready"
    );
    assert_eq!(role::Role.execute(&ctx, &input).await, Ok(made));
    lab.unmake(&role::Role, &input, &ctx, &ledger).await;
}

fn role_input(name: &str, kind: role::RoleKind) -> role::RoleInput {
    role::RoleInput { name: Some(name.into()), given_arn: None, kind, extra_policies: vec![] }
}

async fn the_cluster(lab: Arc<Lab>) {
    let world = &lab.world;
    let cluster_role = role_input("dssflow-lab-cluster", role::RoleKind::EksCluster);
    let node_role = role_input("dssflow-lab-nodes", role::RoleKind::EksNode);
    let (cluster_role_made, role_ctx, role_ledger) = lab.make(&role::Role, &cluster_role).await;
    let (node_role_made, ..) = lab.make(&role::Role, &node_role).await;

    let input = cluster_input(&lab, "lab-eks", &cluster_role_made.arn);
    a_role_nobody_knows(&lab, &input).await;
    let (made, ctx, ledger) = lab.make(&cluster::CreateCluster, &input).await;
    let wait = cluster::wait::WaitClusterInput { name: made.name.clone() };
    let ready = cluster::wait::WaitCluster.execute(&ctx, &wait).await.expect("it becomes active");
    assert_eq!(ready.arn, made.arn);

    let entry = access_entry::AccessEntryInput {
        cluster: made.name.clone(),
        principal_arn: world.service_user_arn.clone(),
        policy_arn: None,
    };
    let (_, entry_ctx, entry_ledger) = lab.make(&access_entry::AccessEntry, &entry).await;

    let group = Some(ready.cluster_security_group).filter(|g| !g.is_empty());
    let template = launch_template::LaunchTemplateInput {
        name: "dssflow-lab-nodes".into(),
        cluster_security_group: group,
        security_groups: vec![world.default_security_group.clone()],
        disk_gb: 100,
    };
    let (template_made, template_ctx, template_ledger) =
        lab.make(&launch_template::LaunchTemplate, &template).await;
    assert_eq!(template_made.version, "1");
    let mut changed = template.clone();
    changed.security_groups.push(world.instance_security_group.clone());
    assert_eq!(launch_template::LaunchTemplate.probe(&template_ctx, &changed).await, Ok(Probe::Absent));
    let second =
        launch_template::LaunchTemplate.execute(&template_ctx, &changed).await.expect("one more version");
    assert_eq!((second.id.as_str(), second.version.as_str()), (template_made.id.as_str(), "2"));

    let nodes = node_group::NodeGroupInput {
        cluster: made.name.clone(),
        name: "nodes".into(),
        node_role_arn: node_role_made.arn,
        subnets: world.subnets[..2].to_vec(),
        instance_types: vec!["m7i.4xlarge".into()],
        min_size: 1,
        max_size: 5,
        desired_size: 3,
        launch_template_id: Some(second.id),
        launch_template_version: Some(second.version),
        ami_type: None,
        labels: BTreeMap::new(),
    };
    let (_, nodes_ctx, nodes_ledger) = lab.make(&node_group::NodeGroup, &nodes).await;
    let wait = node_group::wait::WaitNodeGroupInput { cluster: made.name.clone(), name: "nodes".into() };
    let joined = node_group::wait::WaitNodeGroup.execute(&nodes_ctx, &wait).await.expect("the nodes join");
    assert_eq!(joined.desired_size, 3);

    let cni = addon::AddonInput { cluster: made.name.clone(), addon: "vpc-cni".into(), version: None };
    let (_, cni_ctx, cni_ledger) = lab.make(&addon::Addon, &cni).await;
    let wait = addon::wait::WaitAddonInput { cluster: made.name.clone(), addon: "vpc-cni".into() };
    addon::wait::WaitAddon.execute(&cni_ctx, &wait).await.expect("the add-on works");

    let error =
        cluster::CreateCluster.compensate(&ctx, &input, &ledger.recorded()).await.expect_err("it has nodes");
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Retryable, "ResourceInUseException"));

    // A load balancer of the cluster is looked at before its nodes go.
    let tag = aws_sdk_ec2::types::Tag::builder().key("kubernetes.io/cluster/lab-eks").value("owned").build();
    let tags = aws_sdk_ec2::types::TagSpecification::builder()
        .resource_type(aws_sdk_ec2::types::ResourceType::SecurityGroup)
        .tags(tag)
        .build();
    let call = lab.clients.ec2().create_security_group().group_name("k8s-elb-1").description("of a Service");
    let call = call.vpc_id(&world.vpc_id).tag_specifications(tags).send().await.expect("a group");
    let group = call.group_id().expect("it has an id").to_owned();
    let call = lab.clients.ec2().create_network_interface().subnet_id(&world.subnets[0]).groups(&group);
    let made_of = call.description("ELB app/k8s-web/0123").send().await.expect("an interface");
    let interface =
        made_of.network_interface().and_then(|i| i.network_interface_id()).expect("an id").to_owned();
    let error = node_group::NodeGroup
        .compensate(&nodes_ctx, &nodes, &nodes_ledger.recorded())
        .await
        .expect_err("a load balancer is there");
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Retryable, "StillInUse"), "{error}");
    assert!(
        error.message.contains(&interface) && error.message.contains("load balancer app/k8s-web"),
        "{error}"
    );
    let call = lab.clients.ec2().delete_network_interface().network_interface_id(&interface);
    call.send().await.expect("it goes");
    lab.clients.ec2().delete_security_group().group_id(&group).send().await.expect("it goes");

    lab.unmake(&addon::Addon, &cni, &cni_ctx, &cni_ledger).await;
    lab.unmake(&node_group::NodeGroup, &nodes, &nodes_ctx, &nodes_ledger).await;
    lab.unmake(&launch_template::LaunchTemplate, &changed, &template_ctx, &template_ledger).await;
    let undone = access_entry::AccessEntry.compensate(&entry_ctx, &entry, &entry_ledger.recorded()).await;
    assert_eq!(undone, Ok(Undo::Undone));
    assert_eq!(access_entry::AccessEntry.probe(&entry_ctx, &entry).await, Ok(Probe::Absent));
    lab.unmake(&cluster::CreateCluster, &input, &ctx, &ledger).await;
    lab.unmake(&role::Role, &cluster_role, &role_ctx, &role_ledger).await;
    assert_eq!(role::Role.compensate(&role_ctx, &node_role, &Recorded::default()).await, Ok(Undo::Undone));
}

/// A role IAM has not spread yet is waited for while it is new; one that is not there is a person's business.
async fn a_role_nobody_knows(lab: &Lab, input: &cluster::ClusterInput) {
    let refused = Action::Error {
        status: 400,
        code: "InvalidParameterException".into(),
        message: "Role with arn: r, could not be assumed because it does not exist or the trusted entity is not correct"
            .into(),
    };
    let fault = Fault::new(Target::Aws, "eks:CreateCluster", refused).times(2);
    set_faults(&lab.world, &[fault]).await.expect("the fault is set");
    let (ctx, _) = lab.ctx(1, "run-1", "step");
    let error = cluster::CreateCluster.execute(&ctx, input).await.expect_err("nobody knows the role");
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Retryable, role::SPREADING), "{error}");
    let missing = cluster::ClusterInput {
        role_arn: format!("arn:aws:iam::{}:role/no-such-role", lab.world.account),
        ..input.clone()
    };
    let error = cluster::CreateCluster.execute(&ctx, &missing).await.expect_err("there is no such role");
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::NeedsHuman, "RoleNotFound"), "{error}");
    set_faults(&lab.world, &[]).await.expect("no more faults");
}

/// A cluster that fails is there and broken, says why, and is replaced by the next generation.
async fn a_failed_cluster(lab: Arc<Lab>) {
    let end = Action::State { polls: 2, end: "FAILED".into() };
    set_faults(&lab.world, &[Fault::new(Target::Aws, "eks:CreateCluster", end)])
        .await
        .expect("the fault is set");
    let (ctx, _) = lab.ctx(1, "run-1", "failing");
    let role = format!("arn:aws:iam::{}:role/given", lab.world.account);
    let input = cluster_input(&lab, "lab-failing", &role);
    cluster::CreateCluster.execute(&ctx, &input).await.expect("it is asked for");
    let wait = cluster::wait::WaitClusterInput { name: input.name.clone() };
    let error = cluster::wait::WaitCluster.execute(&ctx, &wait).await.expect_err("it fails");
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Terminal, "ClusterFailed"));
    let seen = cluster::CreateCluster.probe(&ctx, &input).await;
    assert!(matches!(seen, Ok(Probe::Failed { owner: Owner::ThisRun, .. })), "{seen:?}");
    set_faults(&lab.world, &[]).await.expect("no more faults");
    let (second, _) = lab.ctx_at(2, 1, "run-1", "failing");
    cluster::CreateCluster.execute(&second, &input).await.expect("the failed one is replaced");
    cluster::wait::WaitCluster.execute(&second, &wait).await.expect("this one becomes active");
    assert_eq!(
        cluster::CreateCluster.compensate(&second, &input, &Recorded::default()).await,
        Ok(Undo::Undone)
    );
    assert_eq!(cluster::CreateCluster.probe(&second, &input).await, Ok(Probe::Absent));
}

fn cluster_input(lab: &Lab, name: &str, role_arn: &str) -> cluster::ClusterInput {
    cluster::ClusterInput {
        name: name.into(),
        role_arn: role_arn.into(),
        subnets: lab.world.subnets[..2].to_vec(),
        security_groups: vec![],
        version: None,
        endpoint_public: true,
        endpoint_private: true,
        public_access_cidrs: vec![],
    }
}

async fn leftover_stacks(lab: Arc<Lab>) {
    let (ctx, _) = lab.ctx(1, "run-1", "cluster");
    let template = "{\"Resources\":{\"T\":{\"Type\":\"AWS::SNS::Topic\"}}}";
    let tags = |marks: Marks| {
        let tag =
            |(k, v): (&str, String)| aws_sdk_cloudformation::types::Tag::builder().key(k).value(v).build();
        marks.tags().into_iter().map(tag).collect::<Vec<_>>()
    };
    let (stranger, _) = lab.ctx(2, "run-1", "cluster");
    for (name, ctx) in
        [("eksctl-lab-cluster", &ctx), ("eksctl-lab-nodegroup-n", &ctx), ("eksctl-lab-b-cluster", &stranger)]
    {
        let call = lab.clients.cloudformation().create_stack().stack_name(name).template_body(template);
        call.set_tags(Some(tags(ctx.marks()))).send().await.expect("a stack");
    }
    let state = eksctl::eksctl_state(&lab.clients, "lab").await.expect("it can be looked at");
    let names: Vec<_> = state.stacks.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["eksctl-lab-nodegroup-n", "eksctl-lab-cluster"]);
    assert_eq!(state.owner(&ctx.marks()), Some(Owner::ThisRun));
    assert!(state.cluster.is_none() && !state.in_progress() && state.failed().is_empty());
    assert_eq!(lab.left().await.len(), 2);
    let deleted = eksctl::delete_leftovers(&ctx, &lab.clients, "lab").await.expect("ours are deleted");
    assert_eq!(deleted, names);
    eksctl::wait_gone(&ctx, &lab.clients, "lab").await.expect("nothing is left of it");
    assert_eq!(eksctl::delete_leftovers(&ctx, &lab.clients, "lab-b").await, Ok(vec![]), "of others nothing");
    assert_eq!(eksctl::eksctl_state(&lab.clients, "lab-b").await.map(|s| s.stacks.len()), Ok(1));
}

async fn lost_and_refused(lab: Arc<Lab>) {
    let (ctx, ledger) = lab.ctx(1, "run-1", "lost");
    let input =
        glue_database::GlueDatabaseInput { name: "lost".into(), description: None, location_uri: None };
    let fault = |action| Fault::new(Target::Aws, "glue:CreateDatabase", action).times(1);
    let error =
        |status, code: &str| Action::Error { status, code: code.into(), message: "as asked for".into() };
    let expected = [
        (fault(error(400, "ThrottlingException")), ErrorClass::Throttled, true),
        (fault(error(400, "ExpiredTokenException")), ErrorClass::Credentials, true),
        (fault(error(400, "AccessDeniedException")), ErrorClass::Terminal, true),
        (fault(error(400, "ResourceNumberLimitExceededException")), ErrorClass::NeedsHuman, true),
        (fault(error(500, "InternalServiceException")), ErrorClass::Retryable, false),
        (fault(Action::Reset), ErrorClass::Retryable, false),
    ];
    for (fault, class, no_effect) in expected {
        set_faults(&lab.world, std::slice::from_ref(&fault)).await.expect("the fault is set");
        let error = glue_database::GlueDatabase.execute(&ctx, &input).await.expect_err("it fails");
        assert_eq!((error.class, error.no_effect), (class, no_effect), "{error}");
        assert_eq!(glue_database::GlueDatabase.probe(&ctx, &input).await, Ok(Probe::Absent));
    }
    // The answer is lost after the call was applied: nothing is recorded, the tags tell.
    set_faults(&lab.world, &[fault(Action::Reset).after()]).await.expect("the fault is set");
    let error = glue_database::GlueDatabase.execute(&ctx, &input).await.expect_err("the answer is lost");
    assert_eq!((error.class, error.no_effect), (ErrorClass::Retryable, false), "{error}");
    set_faults(&lab.world, &[]).await.expect("no more faults");
    assert!(ledger.recorded().resources.is_empty());
    let seen = glue_database::GlueDatabase.probe(&ctx, &input).await;
    assert!(matches!(seen, Ok(Probe::Present { owner: Owner::ThisRun, .. })), "{seen:?}");
    let again = glue_database::GlueDatabase.execute(&ctx, &input).await.expect_err("it exists");
    assert_eq!((again.class, again.code.as_str()), (ErrorClass::Retryable, "AlreadyExistsException"));
    assert_eq!(
        glue_database::GlueDatabase.compensate(&ctx, &input, &Recorded::default()).await,
        Ok(Undo::Undone)
    );

    // Nobody listens: the request was surely not sent.
    let mut spec = lab.clients.spec().clone();
    spec.endpoint_url = Some("http://127.0.0.1:1".into());
    let error = identity::identify(&AwsClients::connect(&spec).await).await.expect_err("nobody answers");
    assert_eq!((error.class, error.no_effect), (ErrorClass::Retryable, true), "{error}");
}

async fn nothing_left(lab: Arc<Lab>) {
    assert_eq!(lab.left().await, Vec::<String>::new());
    let (kept, _) = lab.ctx(1, "run-1", "kept");
    let stays =
        glue_database::GlueDatabaseInput { name: "stays".into(), description: None, location_uri: None };
    glue_database::GlueDatabase.execute(&kept, &stays).await.expect("made by a step that stays");
    let (ctx, _) = lab.ctx(1, "run-1", "identity");
    let input = identity::IdentityInput {
        region: lab.world.region.clone(),
        expected_account: None,
        expected_principal: None,
        quiet_seconds: 1,
    };
    let sweep = || async { identity::StsIdentity.compensate(&ctx, &input, &Recorded::default()).await };
    assert_eq!(
        sweep().await,
        Ok(Undo::Kept { reason: "glue:database stays (of step kept, which stays)".into() })
    );
    assert_eq!(
        glue_database::GlueDatabase.compensate(&kept, &stays, &Recorded::default()).await,
        Ok(Undo::Undone)
    );
    assert_eq!(sweep().await, Ok(Undo::NothingToDo));
}
