//! dssflow's own principal: the calls of the activities in the graph, of the looks before it, and of secrets in AWS.

use std::collections::{BTreeMap, BTreeSet};

use dssflow_activities::aws::permissions::{self as declared, Need, On, Only};
use dssflow_activities::aws::{bucket, identity, instance, network};
use dssflow_activities::secret::{SecretRef, SecretSink};
use dssflow_engine::activity::Marks;
use dssflow_engine::graph::{Step, StepKind};

use super::{Arns, Conditions, Permission, Principal, actions, condition};
use crate::bootstrap;
use crate::site::{ApiKey, Credentials, Site};

/// What the command looks at before a run.
const BEFORE: [&str; 5] =
    [identity::NAME, instance::NAME, network::NAME, bucket::NAME, declared::LOOK_BEFORE];

/// The operations that runs of a site and their rollbacks call as dssflow's own principal: those called when all goes
/// well, and those that belong to some worlds or to trouble, each with when.
pub fn calls(site: &Site) -> (BTreeSet<&'static str>, BTreeMap<&'static str, &'static str>) {
    let (mut always, mut sometimes) = (BTreeSet::new(), BTreeMap::new());
    for calls in steps(site).into_iter().filter_map(|(activity, _)| declared::of(&activity)) {
        always.extend(calls.always.iter().copied());
        sometimes.extend(calls.sometimes.iter().copied());
    }
    sometimes.retain(|operation, _| !always.contains(operation));
    (always, sometimes)
}

/// The IAM actions that an operation asks for; `None` for one that dssflow is not known to call.
pub fn needs_of(operation: &str) -> Option<BTreeSet<&'static str>> {
    Some(declared::needs(operation)?.iter().map(|need| need.action).collect())
}

/// Activities with what they are for: those of the graph by their steps, and the looks before it.
fn steps(site: &Site) -> Vec<(String, String)> {
    // Names in `protect` and `adopt` that no step has are no reason to say nothing.
    let plain = Site { protect: Vec::new(), adopt: Vec::new(), ..site.clone() };
    let workflow = bootstrap(&plain).expect("a checked site without marks has a graph");
    let of_step = |step: &Step| match &step.kind {
        StepKind::Activity { activity, .. } => {
            Some((activity.to_string(), format!("step {}: {}", step.name, step.title)))
        }
        _ => None,
    };
    let before = BEFORE.map(|name| (name.to_owned(), "the look before a run".to_owned()));
    before.into_iter().chain(workflow.graph.steps().iter().filter_map(of_step)).collect()
}

pub(super) fn needed(site: &Site) -> Vec<Permission> {
    let own = Own { site, arns: Arns::of(site) };
    let mut all = Vec::new();
    for (activity, why) in steps(site) {
        let Some(calls) = declared::of(&activity) else { continue };
        for operation in calls.always {
            all.extend(own.permissions(operation, &why));
        }
        for (operation, when) in calls.sometimes {
            all.extend(own.permissions(operation, &format!("{why}; {when}")));
        }
    }
    all.extend(own.secrets());
    all.extend(own.before());
    all
}

struct Own<'a> {
    site: &'a Site,
    arns: Arns<'a>,
}

impl Own<'_> {
    fn permissions(&self, operation: &str, why: &str) -> Vec<Permission> {
        let needs = declared::needs(operation).unwrap_or_default();
        needs.iter().filter_map(|need| self.permission(need, why)).collect()
    }

    /// The right on this site's things; `None` when it has none of the kind.
    fn permission(&self, need: &Need, why: &str) -> Option<Permission> {
        let resources = self.resources(need.on);
        (!resources.is_empty()).then(|| Permission {
            principal: Principal::Dssflow,
            actions: vec![need.action.to_owned()],
            resources,
            conditions: need.only.map(|only| self.conditions(only)).unwrap_or_default(),
            why: why.to_owned(),
        })
    }

    fn conditions(&self, only: Only) -> Conditions {
        match only {
            Only::Marked => {
                let key = format!("aws:ResourceTag/{}", Marks::SITE);
                condition("StringEquals", &key, &[&self.site.name])
            }
            Only::PassedTo(service) => condition("StringEquals", "iam:PassedToService", &[service]),
            Only::CreatedBy(operation) => condition("StringEquals", "ec2:CreateAction", &[operation]),
            Only::LinkedTo(services) => condition("StringLike", "iam:AWSServiceName", services),
        }
    }

    fn resources(&self, on: On) -> Vec<String> {
        let (site, arns) = (self.site, self.arns);
        let cluster = &site.cluster.name;
        let eks = |resource: String| vec![arns.regional("eks", &resource)];
        let ec2 = |resource: &str| vec![arns.regional("ec2", resource)];
        match on {
            On::All => vec!["*".to_owned()],
            On::Cluster => eks(format!("cluster/{cluster}")),
            On::Clusters => eks("cluster/*".to_owned()),
            On::NodeGroups => eks(format!("nodegroup/{cluster}/*")),
            On::Addons => eks(format!("addon/{cluster}/*")),
            On::AccessEntries => eks(format!("access-entry/{cluster}/*")),
            On::Repositories => {
                let name = site.ecr.prefix.as_ref().map_or("dku-*".to_owned(), |p| format!("{p}/*"));
                vec![arns.regional("ecr", &format!("repository/{name}"))]
            }
            On::Databases => {
                let databases: BTreeSet<&str> =
                    site.connections.iter().map(|c| c.glue_database.as_str()).collect();
                let all: BTreeSet<String> = databases.into_iter().flat_map(|d| arns.glue(d)).collect();
                all.into_iter().collect()
            }
            On::Roles => {
                let roles = &site.cluster.roles;
                let mut all = self.resources(On::OwnRoles);
                all.extend([&roles.cluster, &roles.node].into_iter().flatten().cloned());
                all
            }
            // The names carry region and cluster, long ones are cut; the region is always whole.
            On::OwnRoles => vec![arns.iam(&format!("role/dssflow-{}-*", site.region))],
            On::EksctlRoles => vec![arns.iam(&format!("role/eksctl-{cluster}-*"))],
            On::LinkedRoles => vec![arns.iam("role/aws-service-role/*")],
            On::LaunchTemplates => ec2("launch-template/*"),
            // One that is launched has no id yet.
            On::Instance => ec2(&format!("instance/{}", site.host.instance.as_deref().unwrap_or("*"))),
            On::Instances => ec2("instance/*"),
            On::KeyPairs => ec2(&format!("key-pair/dssflow-{}-host", site.name)),
            On::ProfileRole => {
                let profile = site.host.launch.as_ref().and_then(|l| l.instance_profile.as_ref());
                profile.map(|_| arns.iam("role/*")).into_iter().collect()
            }
            On::SecurityGroups => ec2("security-group/*"),
            On::NetworkInterfaces => ec2("network-interface/*"),
            On::Stacks => vec![arns.regional("cloudformation", &format!("stack/eksctl-{cluster}-*/*"))],
            On::Buckets => {
                let buckets: BTreeSet<&str> = site.connections.iter().map(|c| c.bucket.as_str()).collect();
                buckets.into_iter().map(|b| arns.s3(b)).collect()
            }
            On::Objects => {
                let below: BTreeSet<String> =
                    site.connections.iter().map(|c| arns.s3(&format!("{}{}/*", c.bucket, c.path))).collect();
                below.into_iter().collect()
            }
            On::Workgroups => {
                let pairs = site.connections.iter().filter_map(|c| c.athena.as_ref());
                let groups: BTreeSet<&str> = pairs.map(|a| a.workgroup.as_str()).collect();
                groups.into_iter().map(|g| arns.regional("athena", &format!("workgroup/{g}"))).collect()
            }
        }
    }

    /// Secrets of the site that lie in AWS, read and written.
    fn secrets(&self) -> Vec<Permission> {
        let site = self.site;
        let mut read: Vec<(String, &SecretRef)> =
            vec![("dss.admin_password".to_owned(), &site.dss.admin_password)];
        read.extend(site.dss.license.as_ref().map(|l| ("dss.license".to_owned(), l)));
        let mut all = Vec::new();
        match &site.dss.api_key {
            ApiKey::Ref(key) => read.push(("dss.api_key".to_owned(), key)),
            ApiKey::Sink { sink } => all.extend(self.sink(sink, "dss.api_key.sink")),
        }
        // Sets that dssflow reads to hand them on; what it acts as itself is read before it is somebody.
        let handed_on: BTreeSet<&String> =
            site.service_credentials.iter().chain(site.connections.iter().map(|c| &c.credentials)).collect();
        for name in handed_on {
            let set = site.credentials.get(name);
            for (key, reference) in set.map(Credentials::secrets).unwrap_or_default() {
                read.push((format!("credentials.{name}.{key}"), reference));
            }
        }
        all.extend(read.into_iter().filter_map(|(path, reference)| self.read(&path, reference)));
        all
    }

    /// The right to read a secret; none is needed for one on this machine.
    fn read(&self, path: &str, reference: &SecretRef) -> Option<Permission> {
        let (action, arn) = match reference {
            SecretRef::Env { .. } | SecretRef::File { .. } => return None,
            SecretRef::SecretsManager { secrets_manager, .. } => {
                (actions("secretsmanager", &["GetSecretValue"]), self.secret_arn(secrets_manager))
            }
            SecretRef::Ssm { ssm } => (actions("ssm", &["GetParameter"]), self.parameter_arn(ssm)),
        };
        Some(own(action, arn, &format!("read {path}")))
    }

    fn sink(&self, sink: &SecretSink, path: &str) -> Vec<Permission> {
        let why = format!("keep what goes to {path}");
        match sink {
            SecretSink::File { .. } => Vec::new(),
            SecretSink::SecretsManager { secrets_manager } => {
                let verbs = ["GetSecretValue", "PutSecretValue", "CreateSecret", "DeleteSecret"];
                vec![own(actions("secretsmanager", &verbs), self.secret_arn(secrets_manager), &why)]
            }
            SecretSink::Ssm { ssm } => {
                let verbs = ["GetParameter", "PutParameter", "DeleteParameter"];
                vec![own(actions("ssm", &verbs), self.parameter_arn(ssm), &why)]
            }
        }
    }

    /// A secret's ARN ends in six characters that Secrets Manager chooses.
    fn secret_arn(&self, name: &str) -> String {
        if name.starts_with("arn:") {
            return name.to_owned();
        }
        self.arns.regional("secretsmanager", &format!("secret:{name}-??????"))
    }

    fn parameter_arn(&self, name: &str) -> String {
        if name.starts_with("arn:") {
            return name.to_owned();
        }
        self.arns.regional("ssm", &format!("parameter/{}", name.trim_start_matches('/')))
    }

    /// What comes before dssflow is somebody: a role it assumes, secrets in AWS that its own credentials are made of.
    fn before(&self) -> Vec<Permission> {
        let Some((name, set)) =
            self.site.aws.credentials.as_ref().and_then(|n| self.site.credentials.get_key_value(n))
        else {
            return Vec::new();
        };
        let mut all = Vec::new();
        if let Credentials::AssumeRole { role_arn, .. } = set {
            all.push(own(actions("sts", &["AssumeRole"]), role_arn.clone(), &format!("credentials.{name}")));
        }
        let secrets = set.secrets().into_iter();
        all.extend(secrets.filter_map(|(key, r)| self.read(&format!("credentials.{name}.{key}"), r)));
        for permission in &mut all {
            permission.principal = Principal::Source;
        }
        all
    }
}

fn own(actions: Vec<String>, resource: String, why: &str) -> Permission {
    Permission {
        principal: Principal::Dssflow,
        actions,
        resources: vec![resource],
        conditions: Conditions::new(),
        why: why.to_owned(),
    }
}
