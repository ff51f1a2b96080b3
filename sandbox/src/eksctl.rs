//! What `eksctl` does for the EKS plugin, against the emulator: stacks, cluster, node group, in its order.
//!
//! Everything goes through the proxy, so that faults and slow states strike here as they would the real tool. The
//! stacks hold the roles; cluster and node group are made beside them, because moto would finish them at once. Like the
//! real tool it does not clean up after itself: a failure leaves a failed stack.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::aws::{ACCOUNT, Aws, REGION, status_of};
use crate::dss::backend::{BoxFuture, ClusterBackend, ClusterInfo, ClusterSpec, NodeInfo};
use crate::faults::{self, Action, FaultEngine, Phase, Target};
use crate::proxy::Proxy;
use crate::proxy::overlay::Stack;
use crate::xml::list;

const DEFAULT_VERSION: &str = "1.33";

/// The stub eksctl. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Eksctl {
    aws: Aws,
    proxy: Proxy,
    faults: Arc<FaultEngine>,
    pause: Duration,
}

impl Eksctl {
    pub(crate) fn new(
        endpoint: &str,
        access_key: &str,
        proxy: Proxy,
        faults: Arc<FaultEngine>,
        latency: f64,
    ) -> Self {
        let pause = if latency > 0.0 { Duration::from_millis(200) } else { Duration::from_millis(5) };
        Self { aws: Aws::new(endpoint, access_key), proxy, faults, pause }
    }

    async fn run_create(&self, spec: ClusterSpec) -> Result<ClusterInfo, String> {
        let name = spec.name.clone();
        self.strike(&format!("eksctl create cluster --name {name}"), Phase::Before).await?;
        let cluster_stack = format!("eksctl-{name}-cluster");
        if self.stack_exists(&cluster_stack).await {
            return Err(format!(
                "creating CloudFormation stack \"{cluster_stack}\": operation error CloudFormation: CreateStack, \
                 https response error StatusCode: 400, AlreadyExistsException: Stack [{cluster_stack}] already exists"
            ));
        }
        let tags = eksctl_tags(&spec);
        let role = self.make_stack(&cluster_stack, "ServiceRole", "eks.amazonaws.com", &tags).await?;
        if let Err(error) = self.make_cluster(&spec, &tags, &role).await {
            self.failed(&cluster_stack, &error).await;
            return Err(format!("waiter state transitioned to Failure: {cluster_stack}: {error}"));
        }
        self.set_stack(&cluster_stack, "CREATE_COMPLETE", "").await;
        let group = format!("{name}-ng-1");
        let group_stack = format!("eksctl-{name}-nodegroup-{group}");
        let role = self.make_stack(&group_stack, "NodeInstanceRole", "ec2.amazonaws.com", &tags).await?;
        if let Err(error) = self.make_nodes(&spec, &group, &tags, &role).await {
            self.failed(&group_stack, &error).await;
            return Err(format!("waiter state transitioned to Failure: {group_stack}: {error}"));
        }
        self.set_stack(&group_stack, "CREATE_COMPLETE", "").await;
        self.strike(&format!("eksctl create cluster --name {name}"), Phase::After).await?;
        self.find(&name).await?.ok_or_else(|| format!("cluster {name} is gone"))
    }

    async fn make_cluster(
        &self,
        spec: &ClusterSpec,
        tags: &BTreeMap<String, String>,
        role: &str,
    ) -> Result<(), String> {
        let version = if spec.version.is_empty() { DEFAULT_VERSION } else { &spec.version };
        let body = json!({
            "name": spec.name, "version": version, "roleArn": role, "tags": tags,
            "resourcesVpcConfig": { "subnetIds": spec.subnets, "endpointPublicAccess": true },
            "accessConfig": { "authenticationMode": "API_AND_CONFIG_MAP",
                              "bootstrapClusterCreatorAdminPermissions": true },
        });
        self.aws.eks(Method::POST, "/clusters", Some(&body)).await.map_err(|error| error.to_string())?;
        self.settled(&format!("/clusters/{}", spec.name), "cluster").await
    }

    async fn make_nodes(
        &self,
        spec: &ClusterSpec,
        group: &str,
        tags: &BTreeMap<String, String>,
        role: &str,
    ) -> Result<(), String> {
        let pool = &spec.node_pool;
        let body = json!({
            "nodegroupName": group, "nodeRole": role, "subnets": spec.subnets, "tags": tags, "diskSize": pool.disk_gb,
            "instanceTypes": [pool.machine_type], "amiType": "AL2023_x86_64_STANDARD",
            "scalingConfig": { "minSize": pool.min, "maxSize": pool.max, "desiredSize": pool.num_nodes },
        });
        let path = format!("/clusters/{}/node-groups", spec.name);
        self.aws.eks(Method::POST, &path, Some(&body)).await.map_err(|error| error.to_string())?;
        self.settled(&format!("{path}/{group}"), "nodegroup").await
    }

    /// Makes a stack that shows as in progress, with one role in it; the role's ARN.
    async fn make_stack(
        &self,
        stack: &str,
        role: &str,
        service: &str,
        tags: &BTreeMap<String, String>,
    ) -> Result<String, String> {
        let trust = json!({ "Version": "2012-10-17", "Statement": [
            { "Effect": "Allow", "Action": ["sts:AssumeRole"], "Principal": { "Service": [service] } }] });
        let template = json!({ "AWSTemplateFormatVersion": "2010-09-09", "Resources": { role: {
            "Type": "AWS::IAM::Role", "Properties": { "AssumeRolePolicyDocument": trust } } } })
        .to_string();
        let mut params =
            vec![("StackName".to_owned(), stack.to_owned()), ("TemplateBody".to_owned(), template)];
        params.push(("Capabilities.member.1".to_owned(), "CAPABILITY_IAM".to_owned()));
        for (at, (key, value)) in tags.iter().enumerate() {
            params.push((format!("Tags.member.{}.Key", at + 1), key.clone()));
            params.push((format!("Tags.member.{}.Value", at + 1), value.clone()));
        }
        let params: Vec<(&str, &str)> = params.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let made = self.aws.query("cloudformation", "CreateStack", &params).await;
        made.map_err(|error| format!("creating CloudFormation stack \"{stack}\": {error}"))?;
        self.set_stack(stack, "CREATE_IN_PROGRESS", "").await;
        let params = [("StackName", stack), ("LogicalResourceId", role)];
        let found = self.aws.query("cloudformation", "DescribeStackResource", &params).await;
        let found = found.map_err(|error| error.to_string())?;
        let physical = found["StackResourceDetail"]["PhysicalResourceId"].as_str().unwrap_or_default();
        Ok(format!("arn:aws:iam::{ACCOUNT}:role/{physical}"))
    }

    async fn run_delete(&self, name: &str) -> Result<(), String> {
        self.strike(&format!("eksctl delete cluster --name {name}"), Phase::Before).await?;
        let stacks = self.stacks_of(name).await?;
        let groups = match self.aws.eks(Method::GET, &format!("/clusters/{name}/node-groups"), None).await {
            Ok(found) => found["nodegroups"].as_array().cloned().unwrap_or_default(),
            Err(error) if status_of(&error) == 404 => Vec::new(),
            Err(error) => return Err(error.to_string()),
        };
        if stacks.is_empty() && self.find(name).await?.is_none() {
            return Err(format!(
                "fetching cluster status to determine if it can be deleted: unable to describe cluster \
                                control plane: ResourceNotFoundException: No cluster found for name: {name}."
            ));
        }
        for group in groups.iter().filter_map(Value::as_str) {
            self.set_stack(&format!("eksctl-{name}-nodegroup-{group}"), "DELETE_IN_PROGRESS", "").await;
            self.remove(&format!("/clusters/{name}/node-groups/{group}")).await?;
        }
        for stack in stacks.iter().filter(|stack| stack.contains("-nodegroup-")) {
            self.remove_stack(stack).await?;
        }
        // Without --wait the real tool leaves the cluster's stack to CloudFormation; so does this.
        let cluster_stack = format!("eksctl-{name}-cluster");
        if stacks.contains(&cluster_stack) {
            self.set_stack(&cluster_stack, "DELETE_IN_PROGRESS", "").await;
        }
        let (this, name) = (self.clone(), name.to_owned());
        drop(tokio::spawn(async move {
            let gone = match this.remove(&format!("/clusters/{name}")).await {
                Ok(()) => this.remove_stack(&cluster_stack).await,
                Err(error) => Err(error),
            };
            if let Err(error) = gone {
                this.set_stack(&cluster_stack, "DELETE_FAILED", &error).await;
            }
        }));
        Ok(())
    }

    /// Deletes what stands at a path of EKS and waits until it is gone.
    async fn remove(&self, path: &str) -> Result<(), String> {
        loop {
            match self.aws.eks(Method::DELETE, path, None).await {
                Ok(_) => break,
                Err(error) if status_of(&error) == 404 => return Ok(()),
                // Still being created: the real tool's stack waits as well.
                Err(error)
                    if status_of(&error) == 409 && error.to_string().contains("update in progress") =>
                {
                    drop(self.aws.eks(Method::GET, path, None).await);
                    tokio::time::sleep(self.pause).await;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        loop {
            match self.aws.eks(Method::GET, path, None).await {
                Err(error) if status_of(&error) == 404 => return Ok(()),
                Err(error) if status_of(&error) < 500 => return Err(error.to_string()),
                _ => tokio::time::sleep(self.pause).await,
            }
        }
    }

    async fn remove_stack(&self, stack: &str) -> Result<(), String> {
        let deleted = self.aws.query("cloudformation", "DeleteStack", &[("StackName", stack)]).await;
        deleted.map_err(|error| error.to_string())?;
        self.proxy.overlay().await.stacks.remove(stack);
        Ok(())
    }

    /// Waits until what stands at a path of EKS is ACTIVE.
    async fn settled(&self, path: &str, key: &str) -> Result<(), String> {
        loop {
            match self.aws.eks(Method::GET, path, None).await {
                Ok(found) => match found[key]["status"].as_str().unwrap_or_default() {
                    "ACTIVE" => return Ok(()),
                    "CREATING" | "UPDATING" => {}
                    status => {
                        let issue = found[key]["health"]["issues"][0]["message"].as_str().unwrap_or_default();
                        return Err(format!("{key} is {status}: {issue}"));
                    }
                },
                // A server's mistake or a dropped connection is asked again, as every SDK does.
                Err(error) if (400..500).contains(&status_of(&error)) => return Err(error.to_string()),
                Err(_) => {}
            }
            tokio::time::sleep(self.pause).await;
        }
    }

    async fn set_stack(&self, stack: &str, status: &str, reason: &str) {
        let state = Stack { status: status.to_owned(), reason: reason.to_owned() };
        self.proxy.overlay().await.stacks.insert(stack.to_owned(), state);
    }

    async fn failed(&self, stack: &str, reason: &str) {
        self.set_stack(
            stack,
            "CREATE_FAILED",
            &format!("The following resource(s) failed to create: {reason}"),
        )
        .await;
    }

    async fn stack_exists(&self, stack: &str) -> bool {
        self.aws.query("cloudformation", "DescribeStacks", &[("StackName", stack)]).await.is_ok()
    }

    /// Names of the living stacks of a cluster.
    async fn stacks_of(&self, name: &str) -> Result<Vec<String>, String> {
        let found = self
            .aws
            .query("cloudformation", "DescribeStacks", &[])
            .await
            .map_err(|error| error.to_string())?;
        let (cluster, group) = (format!("eksctl-{name}-cluster"), format!("eksctl-{name}-nodegroup-"));
        Ok(list(&found, &["Stacks"])
            .into_iter()
            .filter_map(|stack| stack["StackName"].as_str())
            .filter(|stack| *stack == cluster || stack.starts_with(&group))
            .map(str::to_owned)
            .collect())
    }

    async fn find(&self, name: &str) -> Result<Option<ClusterInfo>, String> {
        let found = match self.aws.eks(Method::GET, &format!("/clusters/{name}"), None).await {
            Ok(found) => found["cluster"].clone(),
            Err(error) if status_of(&error) == 404 => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        let tags = found["tags"].as_object().cloned().unwrap_or_default();
        Ok(Some(ClusterInfo {
            name: text("name"),
            arn: text("arn"),
            endpoint: text("endpoint"),
            status: text("status"),
            version: text("version"),
            tags: tags
                .into_iter()
                .map(|(key, value)| (key, value.as_str().unwrap_or_default().to_owned()))
                .collect(),
        }))
    }

    async fn list_nodes(&self, name: &str) -> Result<Vec<NodeInfo>, String> {
        let cluster = self.find(name).await?;
        if cluster.is_none_or(|cluster| cluster.status != "ACTIVE") {
            return Err(format!("error: the API server of cluster {name} does not answer"));
        }
        let path = format!("/clusters/{name}/node-groups");
        let groups = self.aws.eks(Method::GET, &path, None).await.map_err(|error| error.to_string())?;
        let mut nodes = Vec::new();
        for group in groups["nodegroups"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let found = self.aws.eks(Method::GET, &format!("{path}/{group}"), None).await;
            let found = found.map_err(|error| error.to_string())?;
            let group = &found["nodegroup"];
            let count = group["scalingConfig"]["desiredSize"].as_u64().unwrap_or(0);
            let first = nodes.len() as u64;
            nodes.extend((first..first + count).map(|at| NodeInfo {
                name: format!("ip-10-0-{}-{}.{REGION}.compute.internal", 1 + at % 2, 100 + at),
                ready: group["status"] == "ACTIVE",
                instance_type: group["instanceTypes"][0].as_str().unwrap_or_default().to_owned(),
                version: format!("v{}.0-eks-sandbox", group["version"].as_str().unwrap_or(DEFAULT_VERSION)),
            }));
        }
        Ok(nodes)
    }

    /// A scripted fault of the tool itself, `host` commands like any other.
    async fn strike(&self, command: &str, phase: Phase) -> Result<(), String> {
        match self.faults.check_by(Target::Host, command, faults::BY_DSS, phase) {
            Some(Action::Error { message, .. }) => Err(message),
            Some(Action::Reset) => Err("signal: killed".to_owned()),
            Some(Action::Delay { ms }) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                Ok(())
            }
            Some(Action::Hang) => {
                tokio::select! {
                    () = self.faults.replaced() => {}
                    () = tokio::time::sleep(crate::proxy::HANG) => {}
                }
                Err("signal: killed".to_owned())
            }
            // What no command can show was refused with the script.
            Some(
                Action::State { .. }
                | Action::Stale { .. }
                | Action::Late { .. }
                | Action::Throttle { .. }
                | Action::Hold,
            )
            | None => Ok(()),
        }
    }
}

impl ClusterBackend for Eksctl {
    fn create(&self, spec: ClusterSpec) -> BoxFuture<'_, Result<ClusterInfo, String>> {
        Box::pin(self.run_create(spec))
    }

    fn delete(&self, name: String, _region: String) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { self.run_delete(&name).await })
    }

    fn nodes(&self, name: String) -> BoxFuture<'_, Result<Vec<NodeInfo>, String>> {
        Box::pin(async move { self.list_nodes(&name).await })
    }

    fn describe(&self, name: String) -> BoxFuture<'_, Result<Option<ClusterInfo>, String>> {
        Box::pin(async move { self.find(&name).await })
    }
}

/// The tags eksctl puts on what it makes, the given ones among them.
fn eksctl_tags(spec: &ClusterSpec) -> BTreeMap<String, String> {
    let mut tags = spec.tags.clone();
    tags.insert("alpha.eksctl.io/cluster-name".to_owned(), spec.name.clone());
    tags.insert("eksctl.cluster.k8s.io/v1alpha1/cluster-name".to_owned(), spec.name.clone());
    tags.insert("alpha.eksctl.io/eksctl-version".to_owned(), crate::host::kits::EKSCTL_VERSION.to_owned());
    tags
}
