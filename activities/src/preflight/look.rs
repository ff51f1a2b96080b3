//! What the checks see of the world. Each thing is asked for once, by the first check that wants it; the others wait
//! for its answer. Reads only.

use std::collections::BTreeMap;

use dssflow_engine::activity::{ActivityError, ActivityResult};
use tokio::sync::OnceCell;

use super::identity::Caller;
use super::leftovers::ClusterFacts;
use super::network::{GroupRules, NodeType};
use super::spec::Spec;
use crate::aws::identity::identify;
use crate::aws::instance::{InstanceFacts, InstanceInput, instance_facts};
use crate::aws::network::{Subnet, find_subnets};
use crate::aws::versions::{OfferedVersion, offered};
use crate::clients::{AwsClients, ClientsConfig, CredentialSource};
use crate::host::{Host, HostHandle, sudo_ok};

/// An answer that checks share.
pub(super) type Asked<'a, T> = Result<&'a T, &'a ActivityError>;

type Cell<T> = OnceCell<ActivityResult<T>>;

/// Whose credentials a set is.
#[derive(Debug, Clone)]
pub(super) struct Principal {
    /// The user or role, or the caller when the set is what the environment gives.
    pub(super) arn: String,
    /// Clients that call as it, where that is possible from here.
    pub(super) clients: Option<AwsClients>,
}

/// The world as the checks see it.
#[derive(Debug)]
pub struct Look {
    pub(super) spec: Spec,
    pub(super) clients: AwsClients,
    host: HostHandle,
    caller: OnceCell<Caller>,
    /// The alias of the account, where it has one and says so.
    pub(super) alias: OnceCell<String>,
    principals: BTreeMap<String, Cell<Principal>>,
    instance: Cell<InstanceFacts>,
    subnets: Cell<Vec<Subnet>>,
    host_subnet: Cell<Vec<Subnet>>,
    groups: Cell<Vec<GroupRules>>,
    node_type: Cell<NodeType>,
    cluster: Cell<ClusterFacts>,
    versions: Cell<Option<Vec<OfferedVersion>>>,
    root: Cell<()>,
}

impl Look {
    /// A look at the world that these clients and this host lead to. Asks nothing yet.
    pub fn new(spec: Spec, clients: AwsClients, host: HostHandle) -> Self {
        let principals = spec.credentials.keys().map(|name| (name.clone(), Cell::new())).collect();
        Self {
            spec,
            clients,
            host,
            caller: OnceCell::new(),
            alias: OnceCell::new(),
            principals,
            instance: Cell::new(),
            subnets: Cell::new(),
            host_subnet: Cell::new(),
            groups: Cell::new(),
            node_type: Cell::new(),
            cluster: Cell::new(),
            versions: Cell::new(),
            root: Cell::new(),
        }
    }

    /// Who calls, and what the service's clock says.
    pub(super) async fn caller(&self) -> &Caller {
        self.caller.get_or_init(|| Box::pin(Caller::ask(&self.clients))).await
    }

    /// The instance of DSS. Only for a site that has one.
    pub(super) async fn instance(&self) -> Asked<'_, InstanceFacts> {
        let input = InstanceInput {
            instance_id: self.spec.instance.clone(),
            min_memory_mib: self.spec.min_memory_mib,
        };
        once(&self.instance, || Box::pin(instance_facts(&self.clients, &input))).await
    }

    /// The VPC everything must be in: the instance's, else the first subnet's.
    pub(super) async fn vpc(&self) -> Option<String> {
        if self.spec.instance.is_some()
            && let Ok(facts) = self.instance().await
        {
            return Some(facts.vpc_id.clone());
        }
        if let Ok(found) = self.host_subnet().await
            && let Some(subnet) = found.first()
        {
            return Some(subnet.vpc_id.clone());
        }
        self.subnets().await.ok()?.first().map(|s| s.vpc_id.clone())
    }

    /// The subnets of the cluster that are there.
    pub(super) async fn subnets(&self) -> Asked<'_, Vec<Subnet>> {
        once(&self.subnets, || Box::pin(find_subnets(&self.clients, &self.spec.cluster.subnets))).await
    }

    /// The subnet in which the run launches the instance, if it does and the subnet is there.
    pub(super) async fn host_subnet(&self) -> Asked<'_, Vec<Subnet>> {
        let ids: Vec<String> = self.spec.host_subnet.iter().cloned().collect();
        once(&self.host_subnet, || Box::pin(find_subnets(&self.clients, &ids))).await
    }

    /// The security groups of cluster and instance that are there, with their rules.
    pub(super) async fn groups(&self) -> Asked<'_, Vec<GroupRules>> {
        let mut ids = self.spec.cluster.security_groups.clone();
        if self.spec.instance.is_some()
            && let Ok(facts) = self.instance().await
        {
            ids.extend(facts.security_groups.iter().cloned());
            ids.push(facts.default_security_group.clone());
        }
        ids.sort();
        ids.dedup();
        once(&self.groups, || Box::pin(super::network::read_groups(&self.clients, ids.clone()))).await
    }

    /// What the type of the nodes offers.
    pub(super) async fn node_type(&self) -> Asked<'_, NodeType> {
        let name = &self.spec.cluster.machine_type;
        once(&self.node_type, || Box::pin(super::network::read_node_type(&self.clients, name))).await
    }

    /// What there is of the cluster already.
    pub(super) async fn cluster(&self) -> Asked<'_, ClusterFacts> {
        let name = &self.spec.cluster.name;
        once(&self.cluster, || Box::pin(super::leftovers::read_cluster(&self.clients, name))).await
    }

    /// The Kubernetes versions EKS offers; `None` when it does not answer that.
    pub(super) async fn versions(&self) -> Asked<'_, Option<Vec<OfferedVersion>>> {
        once(&self.versions, || Box::pin(offered(&self.clients))).await
    }

    /// The host, where the site has one that commands can reach before the run.
    pub(super) fn host(&self) -> Option<&dyn Host> {
        self.spec.host_reachable.then_some(&*self.host.0)
    }

    /// Whether commands can be run as root on the host; the checks of the host need that.
    pub(super) async fn root(&self) -> Asked<'_, ()> {
        once(&self.root, || async { sudo_ok(&*self.host.0).await }).await
    }

    /// Whose credentials the set of that name is; `None` when the site has no such set.
    pub(super) async fn principal(&self, set: &str) -> Option<Asked<'_, Principal>> {
        let (spec, cell) = (self.spec.credentials.get(set)?, self.principals.get(set)?);
        Some(once(cell, || Box::pin(self.read_principal(spec))).await)
    }

    async fn read_principal(&self, source: &CredentialSource) -> ActivityResult<Principal> {
        // dssflow may not be allowed to assume a role that DSS assumes: its ARN is enough.
        if let CredentialSource::Role { arn, .. } = source {
            return Ok(Principal { arn: arn.clone(), clients: None });
        }
        let spec = self.clients.spec();
        let config = ClientsConfig { credentials: None, source: Some(source.clone()), ..spec.clone() };
        let clients = AwsClients::connect(&config).await;
        let identity = Box::pin(identify(&clients)).await?;
        Ok(Principal { arn: identity.principal_arn, clients: Some(clients) })
    }

    /// The ARN by which policies of a principal can be looked up: STS does not tell the path of a role.
    pub(super) async fn policy_source(&self, principal: &str) -> String {
        let Some((_, name)) = principal.split_once(":role/").filter(|(_, name)| !name.contains('/')) else {
            return principal.to_owned();
        };
        let found = self.clients.iam().get_role().role_name(name).send().await;
        let arn = found.ok().and_then(|answer| answer.role).map(|role| role.arn);
        arn.unwrap_or_else(|| principal.to_owned())
    }
}

async fn once<T, F>(cell: &Cell<T>, ask: impl FnOnce() -> F) -> Asked<'_, T>
where
    F: Future<Output = ActivityResult<T>>,
{
    cell.get_or_init(ask).await.as_ref()
}
