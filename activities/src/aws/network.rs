//! Whether the subnets and security groups of a site can carry an EKS cluster, asked before anything is made.
//!
//! All problems come at once, each with a code of [`PREFLIGHT_CODES`], so that a person mends them in one go. Rules
//! inside security groups are not simulated here.
//!
//! Page: <https://docs.aws.amazon.com/eks/latest/userguide/network-reqs.html>

use std::collections::BTreeSet;
use std::fmt;

use aws_sdk_ec2::types::{Filter, RouteState, RouteTable, VpcEndpoint, VpcEndpointType};
use dssflow_engine::activity::{Activity, ActivityContext, ActivityError, ActivityResult, Effect};
use serde::{Deserialize, Serialize};

use super::error::classify;
use crate::clients::AwsClients;

/// The registered name.
pub const NAME: &str = "aws.ec2.network-check";

/// Fewer subnets than two.
pub const TOO_FEW_SUBNETS: &str = "Preflight.TooFewSubnets";
/// A subnet that is not there.
pub const SUBNET_UNKNOWN: &str = "Preflight.SubnetUnknown";
/// A subnet of another VPC.
pub const SUBNET_OTHER_VPC: &str = "Preflight.SubnetOtherVpc";
/// All subnets in one zone.
pub const SUBNETS_ONE_ZONE: &str = "Preflight.SubnetsOneZone";
/// A zone that cannot host an EKS control plane.
pub const ZONE_UNSUPPORTED: &str = "Preflight.ZoneUnsupported";
/// A public subnet that gives its instances no public address.
pub const SUBNET_NO_PUBLIC_IP: &str = "Preflight.SubnetNoPublicIp";
/// A public subnet without a way to an internet gateway.
pub const SUBNET_NO_INTERNET: &str = "Preflight.SubnetNoInternetRoute";
/// A private subnet without a way out.
pub const SUBNET_NO_WAY_OUT: &str = "Preflight.SubnetNoWayOut";
/// A subnet with too few free addresses.
pub const SUBNET_FULL: &str = "Preflight.SubnetFewAddresses";
/// A security group that is not there.
pub const GROUP_UNKNOWN: &str = "Preflight.SecurityGroupUnknown";
/// A security group of another VPC.
pub const GROUP_OTHER_VPC: &str = "Preflight.SecurityGroupOtherVpc";
/// A question that could not be asked.
pub const CALL_FAILED: &str = "Preflight.CallFailed";

/// Every code a [`Problem`] of this module may have.
pub const PREFLIGHT_CODES: &[&str] = &[
    TOO_FEW_SUBNETS,
    SUBNET_UNKNOWN,
    SUBNET_OTHER_VPC,
    SUBNETS_ONE_ZONE,
    ZONE_UNSUPPORTED,
    SUBNET_NO_PUBLIC_IP,
    SUBNET_NO_INTERNET,
    SUBNET_NO_WAY_OUT,
    SUBNET_FULL,
    GROUP_UNKNOWN,
    GROUP_OTHER_VPC,
    CALL_FAILED,
];

/// Zones, by id, in which EKS offers no control plane.
const ZONES_WITHOUT_EKS: &[&str] = &["use1-az3", "usw1-az2", "cac1-az3"];
/// EKS wants six free addresses in each subnet.
pub const MIN_FREE_ADDRESSES: i64 = 6;
/// What nodes without a way to the Internet reach by VPC endpoints. Logs are sent to `logs`, and only where they are
/// asked for.
/// Page: <https://docs.aws.amazon.com/eks/latest/userguide/private-clusters.html>
const ENDPOINTS: &[&str] = &["ecr.api", "ecr.dkr", "s3", "sts", "ec2"];

/// What the check looks at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkInput {
    /// The VPC of the DSS instance; the first subnet's when absent.
    #[serde(default)]
    pub vpc_id: Option<String>,
    /// The cluster's subnets.
    pub subnets: Vec<String>,
    /// Security groups of the nodes.
    #[serde(default)]
    pub security_groups: Vec<String>,
    /// Whether nodes stand in public subnets, as the reference architecture has it.
    #[serde(default = "yes")]
    pub public: bool,
    /// The subnet a host is to be launched in: it must be of the same VPC, and may be one of the cluster's.
    #[serde(default)]
    pub host_subnet: Option<String>,
}

fn yes() -> bool {
    true
}

/// One thing that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// One of [`PREFLIGHT_CODES`].
    pub code: String,
    /// What it is about: a subnet, a group, or `subnets`.
    pub subject: String,
    /// What does not fit.
    pub message: String,
    /// What mends it.
    pub help: String,
    /// The error of a call, of [`CALL_FAILED`] only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ActivityError>,
}

impl Problem {
    fn new(
        code: &str,
        subject: impl Into<String>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            code: code.to_owned(),
            subject: subject.into(),
            message: message.into(),
            help: help.into(),
            error: None,
        }
    }

    fn call(error: ActivityError) -> Vec<Self> {
        let help = error.help.clone().unwrap_or_else(|| "try again".to_owned());
        let mut problem = Self::new(CALL_FAILED, "AWS", error.to_string(), help);
        problem.error = Some(error);
        vec![problem]
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.message)
    }
}

/// A subnet as found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Its id.
    pub id: String,
    /// Its VPC.
    pub vpc_id: String,
    /// Its zone, as `eu-west-1a`.
    pub zone: String,
    /// Its zone's id, the same in all accounts, as `euw1-az2`.
    pub zone_id: String,
    /// Its address range.
    pub cidr: String,
    /// Whether instances get a public address.
    pub public_ip: bool,
    /// Where its default route leads: `igw-`, `nat-`, `tgw-` and the like; empty without one.
    pub default_route: String,
    /// Of a subnet without a default route: the AWS services that nodes need and no VPC endpoint of it leads to, as
    /// `ecr.api`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_endpoints: Vec<String>,
    /// Free addresses.
    pub free_addresses: i64,
}

/// A security group as found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its id.
    pub id: String,
    /// Its VPC.
    pub vpc_id: String,
}

/// The network of a cluster, as found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The VPC of all of it.
    pub vpc_id: String,
    /// The subnets, in the order asked for.
    pub subnets: Vec<Subnet>,
    /// The security groups, in the order asked for.
    pub security_groups: Vec<String>,
}

/// Looks at the network and tells every problem.
///
/// # Errors
/// All problems found, at least one. A call that failed is one of them.
pub async fn check_network(clients: &AwsClients, input: &NetworkInput) -> Result<Network, Vec<Problem>> {
    let mut ids = input.subnets.clone();
    ids.extend(input.host_subnet.iter().filter(|id| !input.subnets.contains(id)).cloned());
    let subnets = find_subnets(clients, &ids).await.map_err(Problem::call)?;
    let groups = groups(clients, &input.security_groups).await.map_err(Problem::call)?;
    judge(input, &subnets, &groups)
}

/// Compares what was asked for with what was found. Pure.
///
/// # Errors
/// All problems found, at least one.
pub fn judge(input: &NetworkInput, subnets: &[Subnet], groups: &[Group]) -> Result<Network, Vec<Problem>> {
    let mut problems = Vec::new();
    let asked: BTreeSet<&str> = input.subnets.iter().map(String::as_str).collect();
    // The host's subnet says where all of it stands, else the cluster's first.
    let mut ids = input.host_subnet.iter().chain(&input.subnets);
    let first = ids.find_map(|id| subnets.iter().find(|s| s.id == *id));
    let vpc_id = input.vpc_id.clone().or_else(|| first.map(|s| s.vpc_id.clone())).unwrap_or_default();
    if let Some(id) = &input.host_subnet {
        judge_host_subnet(id, &vpc_id, subnets.iter().find(|s| s.id == *id), &mut problems);
    }
    if asked.len() < 2 {
        problems.push(Problem::new(
            TOO_FEW_SUBNETS,
            "subnets",
            format!("EKS needs two subnets, {} given", asked.len()),
            "name two or more subnets of the instance's VPC in different zones",
        ));
    }
    for id in &asked {
        match subnets.iter().find(|s| s.id == *id) {
            None => problems.push(Problem::new(
                SUBNET_UNKNOWN,
                *id,
                "there is no such subnet in this account and region",
                format!(
                    "`aws ec2 describe-subnets --filters Name=vpc-id,Values={vpc_id}` lists those of the VPC"
                ),
            )),
            Some(subnet) => judge_subnet(input, &vpc_id, subnet, &mut problems),
        }
    }
    let of_cluster = || subnets.iter().filter(|s| asked.contains(s.id.as_str()));
    let zones: BTreeSet<&str> = of_cluster().map(|s| s.zone.as_str()).collect();
    if of_cluster().count() > 1 && zones.len() < 2 {
        problems.push(Problem::new(
            SUBNETS_ONE_ZONE,
            "subnets",
            format!("all are in zone {}, EKS needs two zones", zones.first().unwrap_or(&"?")),
            "swap one subnet for one in another zone of the same VPC",
        ));
    }
    for id in &input.security_groups {
        match groups.iter().find(|g| g.id == *id) {
            None => problems.push(Problem::new(
                GROUP_UNKNOWN,
                id,
                "there is no such security group in this account and region",
                format!("`aws ec2 describe-security-groups --filters Name=vpc-id,Values={vpc_id}` lists those of the VPC"),
            )),
            Some(group) if group.vpc_id != vpc_id => problems.push(Problem::new(
                GROUP_OTHER_VPC,
                id,
                format!("it is of VPC {}, the cluster is in {vpc_id}", group.vpc_id),
                "name a security group of the instance's VPC",
            )),
            Some(_) => {}
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let in_order =
        input.subnets.iter().filter_map(|id| subnets.iter().find(|s| s.id == *id)).cloned().collect();
    Ok(Network { vpc_id, subnets: in_order, security_groups: input.security_groups.clone() })
}

/// The subnet of a host that is to be launched; its default route is the business of whoever reaches it.
fn judge_host_subnet(id: &str, vpc_id: &str, subnet: Option<&Subnet>, problems: &mut Vec<Problem>) {
    let Some(subnet) = subnet else {
        problems.push(Problem::new(
            SUBNET_UNKNOWN,
            id,
            "there is no such subnet in this account and region",
            "correct host.launch.subnet",
        ));
        return;
    };
    if subnet.vpc_id != vpc_id {
        let message = format!("it is of VPC {}, the cluster is in {vpc_id}", subnet.vpc_id);
        let help = "launch the host in a subnet of the cluster's VPC: pods must reach DSS";
        problems.push(Problem::new(SUBNET_OTHER_VPC, id, message, help));
    }
    if subnet.free_addresses < 1 {
        problems.push(Problem::new(
            SUBNET_FULL,
            id,
            "it has no free address",
            "free some, or name another subnet",
        ));
    }
}

fn judge_subnet(input: &NetworkInput, vpc_id: &str, subnet: &Subnet, problems: &mut Vec<Problem>) {
    let mut add =
        |code, message: String, help: &str| problems.push(Problem::new(code, &subnet.id, message, help));
    if subnet.vpc_id != vpc_id {
        let message = format!("it is of VPC {}, the DSS instance is in {vpc_id}", subnet.vpc_id);
        add(SUBNET_OTHER_VPC, message, "name subnets of the instance's VPC: pods must reach DSS");
    }
    if ZONES_WITHOUT_EKS.contains(&subnet.zone_id.as_str()) {
        let message = format!("zone {} ({}) has no EKS control plane", subnet.zone, subnet.zone_id);
        add(ZONE_UNSUPPORTED, message, "swap the subnet for one in another zone");
    }
    if subnet.free_addresses < MIN_FREE_ADDRESSES {
        let message =
            format!("it has {} free addresses, EKS needs {MIN_FREE_ADDRESSES}", subnet.free_addresses);
        add(SUBNET_FULL, message, "free some, or name a larger subnet");
    }
    if input.public {
        if !subnet.public_ip {
            let help = "`aws ec2 modify-subnet-attribute --map-public-ip-on-launch --subnet-id ID`, or use private subnets";
            add(
                SUBNET_NO_PUBLIC_IP,
                "its instances get no public address: nodes would never join".to_owned(),
                help,
            );
        }
        if !subnet.default_route.starts_with("igw-") {
            let way = if subnet.default_route.is_empty() { "nowhere" } else { &subnet.default_route };
            let message = format!("its default route leads to {way}, not to an internet gateway");
            add(
                SUBNET_NO_INTERNET,
                message,
                "associate it with a route table that has 0.0.0.0/0 to an internet gateway",
            );
        }
    } else if subnet.default_route.is_empty() && !subnet.missing_endpoints.is_empty() {
        let help = "route 0.0.0.0/0 to a NAT gateway, or add VPC endpoints for ecr.api, ecr.dkr, s3, sts, ec2 and logs";
        let missing = subnet.missing_endpoints.join(", ");
        let message = format!(
            "it has no default route and no VPC endpoint for {missing}: nodes would never join (NodeCreationFailure)"
        );
        add(SUBNET_NO_WAY_OUT, message, help);
    }
}

fn filter(name: &str, values: Vec<String>) -> Filter {
    Filter::builder().name(name).set_values(Some(values)).build()
}

/// The subnets of `ids` that are there. Asked by filter: an unknown id is then no error for the others.
///
/// # Errors
/// The calls' own errors.
pub async fn find_subnets(clients: &AwsClients, ids: &[String]) -> ActivityResult<Vec<Subnet>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let answer = clients
        .ec2()
        .describe_subnets()
        .filters(filter("subnet-id", ids.to_vec()))
        .send()
        .await
        .map_err(|e| classify("ec2:DescribeSubnets", e))?;
    let vpcs: BTreeSet<String> =
        answer.subnets().iter().filter_map(|s| s.vpc_id()).map(str::to_owned).collect();
    let tables = if vpcs.is_empty() { Vec::new() } else { route_tables(clients, vpcs.clone()).await? };
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let subnet = |s: &aws_sdk_ec2::types::Subnet| Subnet {
        id: text(s.subnet_id()),
        vpc_id: text(s.vpc_id()),
        zone: text(s.availability_zone()),
        zone_id: text(s.availability_zone_id()),
        cidr: text(s.cidr_block()),
        public_ip: s.map_public_ip_on_launch().unwrap_or_default(),
        default_route: default_route(
            &tables,
            s.vpc_id().unwrap_or_default(),
            s.subnet_id().unwrap_or_default(),
        ),
        missing_endpoints: Vec::new(),
        free_addresses: i64::from(s.available_ip_address_count().unwrap_or_default()),
    };
    let mut found: Vec<Subnet> = answer.subnets().iter().map(subnet).collect();
    if found.iter().any(|s| s.default_route.is_empty()) {
        let endpoints = endpoints(clients, vpcs).await?;
        for subnet in found.iter_mut().filter(|s| s.default_route.is_empty()) {
            subnet.missing_endpoints = missing_endpoints(&tables, &endpoints, subnet);
        }
    }
    Ok(found)
}

/// The VPC endpoints of `vpcs`. A principal that may not see them sees none.
async fn endpoints(clients: &AwsClients, vpcs: BTreeSet<String>) -> ActivityResult<Vec<VpcEndpoint>> {
    let (mut found, mut next) = (Vec::new(), None);
    loop {
        let page = clients
            .ec2()
            .describe_vpc_endpoints()
            .filters(filter("vpc-id", vpcs.iter().cloned().collect()))
            .set_next_token(next)
            .send()
            .await
            .map_err(|e| classify("ec2:DescribeVpcEndpoints", e));
        let page = match page {
            Ok(page) => page,
            Err(error) if error.code == "UnauthorizedOperation" => return Ok(found),
            Err(error) => return Err(error),
        };
        next = page.next_token().filter(|t| !t.is_empty()).map(str::to_owned);
        found.extend(page.vpc_endpoints.unwrap_or_default());
        if next.is_none() {
            return Ok(found);
        }
    }
}

/// Which of [`ENDPOINTS`] no endpoint serves to the subnet. An interface endpoint serves its whole VPC, a gateway
/// endpoint the subnets of its route tables.
fn missing_endpoints(tables: &[RouteTable], endpoints: &[VpcEndpoint], subnet: &Subnet) -> Vec<String> {
    let table = table_of(tables, &subnet.vpc_id, &subnet.id).and_then(RouteTable::route_table_id);
    let serves = |endpoint: &VpcEndpoint, service: &str| {
        let fits = endpoint.service_name().is_some_and(|name| {
            // As com.amazonaws.eu-west-1.ecr.api: the region is the part before the service.
            name.split_once(".amazonaws.")
                .and_then(|(_, rest)| rest.split_once('.'))
                .is_some_and(|(_, s)| s == service)
        });
        let gateway = endpoint.vpc_endpoint_type() == Some(&VpcEndpointType::Gateway);
        let there = endpoint.state().is_none_or(|s| s.as_str().eq_ignore_ascii_case("available"));
        fits && there
            && endpoint.vpc_id() == Some(&subnet.vpc_id)
            && (!gateway || table.is_some_and(|table| endpoint.route_table_ids().iter().any(|t| t == table)))
    };
    let missing = ENDPOINTS.iter().filter(|service| !endpoints.iter().any(|e| serves(e, service)));
    missing.map(|s| (*s).to_owned()).collect()
}

async fn route_tables(clients: &AwsClients, vpcs: BTreeSet<String>) -> ActivityResult<Vec<RouteTable>> {
    let mut tables = Vec::new();
    let mut next = None;
    loop {
        let page = clients
            .ec2()
            .describe_route_tables()
            .filters(filter("vpc-id", vpcs.iter().cloned().collect()))
            .set_next_token(next)
            .send()
            .await
            .map_err(|e| classify("ec2:DescribeRouteTables", e))?;
        next = page.next_token().filter(|t| !t.is_empty()).map(str::to_owned);
        tables.extend(page.route_tables.unwrap_or_default());
        if next.is_none() {
            return Ok(tables);
        }
    }
}

/// A subnet's route table: its own, else its VPC's main one.
fn table_of<'a>(tables: &'a [RouteTable], vpc: &str, subnet: &str) -> Option<&'a RouteTable> {
    let own = tables.iter().find(|t| t.associations().iter().any(|a| a.subnet_id() == Some(subnet)));
    own.or_else(|| {
        tables
            .iter()
            .find(|t| t.vpc_id() == Some(vpc) && t.associations().iter().any(|a| a.main() == Some(true)))
    })
}

/// Where a subnet's default route leads. A route whose target is gone, as a deleted NAT gateway, leads nowhere.
fn default_route(tables: &[RouteTable], vpc: &str, subnet: &str) -> String {
    let Some(table) = table_of(tables, vpc, subnet) else { return String::new() };
    let route = table.routes().iter().find(|r| {
        r.destination_cidr_block() == Some("0.0.0.0/0") && r.state() != Some(&RouteState::Blackhole)
    });
    route
        .and_then(|r| {
            let ways = [
                r.gateway_id(),
                r.nat_gateway_id(),
                r.transit_gateway_id(),
                r.network_interface_id(),
                r.instance_id(),
                r.vpc_peering_connection_id(),
                r.core_network_arn(),
                r.local_gateway_id(),
            ];
            ways.into_iter().flatten().find(|w| !w.is_empty())
        })
        .unwrap_or_default()
        .to_owned()
}

async fn groups(clients: &AwsClients, ids: &[String]) -> ActivityResult<Vec<Group>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let answer = clients
        .ec2()
        .describe_security_groups()
        .filters(filter("group-id", ids.to_vec()))
        .send()
        .await
        .map_err(|e| classify("ec2:DescribeSecurityGroups", e))?;
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    Ok(answer
        .security_groups()
        .iter()
        .map(|g| Group { id: text(g.group_id()), vpc_id: text(g.vpc_id()) })
        .collect())
}

/// Refuses a network that cannot carry the cluster, with every problem in one error.
///
/// # Idempotency
/// Reads only.
///
/// # Compensation
/// None.
///
/// Page: <https://docs.aws.amazon.com/eks/latest/userguide/network-reqs.html>
#[derive(Debug, Clone, Copy, Default)]
pub struct NetworkCheck;

impl Activity for NetworkCheck {
    type Input = NetworkInput;
    type Output = Network;

    fn effect(&self) -> Effect {
        Effect::Read
    }

    async fn execute(&self, ctx: &ActivityContext, input: &NetworkInput) -> ActivityResult<Network> {
        let clients = AwsClients::of(ctx)?;
        check_network(&clients, input).await.map_err(one_error)
    }

    fn describe(&self, input: &NetworkInput) -> String {
        format!("check subnets {} for EKS", input.subnets.join(", "))
    }
}

/// All problems as one error: the call's own if a call failed, else terminal under the first problem's code.
fn one_error(problems: Vec<Problem>) -> ActivityError {
    let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let help = problems.iter().map(|p| format!("{}: {}", p.subject, p.help)).collect::<Vec<_>>().join("\n");
    let code = problems.first().map_or(CALL_FAILED, |p| p.code.as_str()).to_owned();
    match problems.into_iter().find_map(|p| p.error) {
        Some(error) => error,
        None => ActivityError::terminal(code, text).help(help).no_effect(),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::{Route, RouteTableAssociation};

    use super::*;

    fn subnet(id: &str, zone: &str) -> Subnet {
        Subnet {
            id: id.into(),
            vpc_id: "vpc-1".into(),
            zone: format!("eu-west-1{zone}"),
            zone_id: format!("euw1-az{zone}"),
            cidr: "10.0.0.0/24".into(),
            public_ip: true,
            default_route: "igw-1".into(),
            missing_endpoints: Vec::new(),
            free_addresses: 200,
        }
    }

    fn input(subnets: &[&str]) -> NetworkInput {
        NetworkInput {
            vpc_id: Some("vpc-1".into()),
            subnets: subnets.iter().map(|s| (*s).to_owned()).collect(),
            security_groups: vec!["sg-1".into()],
            public: true,
            host_subnet: None,
        }
    }

    fn codes(input: &NetworkInput, subnets: &[Subnet], groups: &[Group]) -> Vec<String> {
        judge(input, subnets, groups).err().unwrap_or_default().into_iter().map(|p| p.code).collect()
    }

    fn group(vpc: &str) -> Group {
        Group { id: "sg-1".into(), vpc_id: vpc.into() }
    }

    #[test]
    fn a_fit_network_passes_in_the_order_asked_for() {
        let found = [subnet("s-a", "a"), subnet("s-b", "b")];
        let network = judge(&input(&["s-b", "s-a"]), &found, &[group("vpc-1")]).unwrap();
        assert_eq!(network.subnets.iter().map(|s| s.id.as_str()).collect::<Vec<_>>(), ["s-b", "s-a"]);
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let one_zone = [subnet("s-a", "a"), subnet("s-b", "a")];
        assert_eq!(codes(&input(&["s-a", "s-b"]), &one_zone, &[]), [SUBNETS_ONE_ZONE, GROUP_UNKNOWN]);
        assert_eq!(
            codes(&input(&["s-a"]), &[subnet("s-a", "a")], &[group("vpc-2")]),
            [TOO_FEW_SUBNETS, GROUP_OTHER_VPC]
        );
        let bad = Subnet {
            vpc_id: "vpc-2".into(),
            zone_id: "use1-az3".into(),
            public_ip: false,
            default_route: "nat-1".into(),
            free_addresses: 3,
            ..subnet("s-b", "b")
        };
        assert_eq!(
            codes(&input(&["s-a", "s-b", "s-c"]), &[subnet("s-a", "a"), bad], &[group("vpc-1")]),
            [
                SUBNET_OTHER_VPC,
                ZONE_UNSUPPORTED,
                SUBNET_FULL,
                SUBNET_NO_PUBLIC_IP,
                SUBNET_NO_INTERNET,
                SUBNET_UNKNOWN
            ]
        );
    }

    #[test]
    fn a_host_to_be_launched_must_stand_beside_its_cluster() {
        let found = [subnet("s-a", "a"), subnet("s-b", "b"), subnet("s-h", "a")];
        let with = |host: &str| NetworkInput {
            vpc_id: None,
            host_subnet: Some(host.into()),
            ..input(&["s-a", "s-b"])
        };
        let network = judge(&with("s-h"), &found, &[group("vpc-1")]).unwrap();
        assert_eq!((network.vpc_id.as_str(), network.subnets.len()), ("vpc-1", 2));
        assert!(judge(&with("s-a"), &found, &[group("vpc-1")]).is_ok(), "it may be one of the cluster's");
        assert_eq!(codes(&with("s-x"), &found, &[group("vpc-1")]), [SUBNET_UNKNOWN]);
        let elsewhere = Subnet { vpc_id: "vpc-2".into(), ..subnet("s-h", "a") };
        let found = [subnet("s-a", "a"), subnet("s-b", "b"), elsewhere];
        assert_eq!(
            codes(&with("s-h"), &found, &[group("vpc-1")]),
            [SUBNET_OTHER_VPC, SUBNET_OTHER_VPC, GROUP_OTHER_VPC],
            "the host's subnet says where all of it stands"
        );
    }

    #[test]
    fn private_subnets_need_a_way_out_only() {
        let private = |way: &str| {
            ["a", "b"].map(|z| Subnet {
                public_ip: false,
                default_route: way.into(),
                ..subnet(&format!("s-{z}"), z)
            })
        };
        let input = NetworkInput { public: false, ..input(&["s-a", "s-b"]) };
        assert_eq!(codes(&input, &private("nat-1"), &[group("vpc-1")]), Vec::<String>::new());
        let lost = private("").map(|s| Subnet { missing_endpoints: vec!["sts".into()], ..s });
        assert_eq!(codes(&input, &lost, &[group("vpc-1")]), [SUBNET_NO_WAY_OUT, SUBNET_NO_WAY_OUT]);
        // Endpoints for all that nodes call are a way, too.
        assert_eq!(codes(&input, &private(""), &[group("vpc-1")]), Vec::<String>::new());
    }

    #[test]
    fn endpoints_serve_their_vpc_or_their_route_tables() {
        let table = |id: &str, subnet: &str| {
            let of = RouteTableAssociation::builder().subnet_id(subnet).build();
            RouteTable::builder().route_table_id(id).vpc_id("vpc-1").associations(of).build()
        };
        let tables = [table("rtb-a", "s-a"), table("rtb-b", "s-b")];
        let endpoint = |service: &str| {
            VpcEndpoint::builder()
                .vpc_id("vpc-1")
                .service_name(format!("com.amazonaws.eu-west-1.{service}"))
                .vpc_endpoint_type(VpcEndpointType::Interface)
                .build()
        };
        let s3 = VpcEndpoint::builder()
            .vpc_id("vpc-1")
            .service_name("com.amazonaws.eu-west-1.s3")
            .vpc_endpoint_type(VpcEndpointType::Gateway)
            .route_table_ids("rtb-a")
            .build();
        let mut all: Vec<_> = ["ecr.api", "ecr.dkr", "sts", "ec2"].map(endpoint).to_vec();
        all.push(s3);
        let missing = |subnet: &str| missing_endpoints(&tables, &all, &self::subnet(subnet, "a"));
        assert_eq!(missing("s-a"), Vec::<String>::new());
        assert_eq!(missing("s-b"), ["s3"]);
        assert_eq!(missing_endpoints(&tables, &[], &self::subnet("s-a", "a")).len(), ENDPOINTS.len());
    }

    #[test]
    fn a_route_to_what_is_gone_leads_nowhere() {
        let route = Route::builder()
            .destination_cidr_block("0.0.0.0/0")
            .nat_gateway_id("nat-gone")
            .state(RouteState::Blackhole)
            .build();
        let of = RouteTableAssociation::builder().subnet_id("s-a").build();
        let table = RouteTable::builder().vpc_id("vpc-1").routes(route).associations(of).build();
        assert_eq!(default_route(&[table], "vpc-1", "s-a"), "");
    }

    #[test]
    fn a_subnets_own_table_wins_over_the_main_one() {
        let table = |route: &str, association: RouteTableAssociation| {
            let route = Route::builder().destination_cidr_block("0.0.0.0/0").gateway_id(route).build();
            RouteTable::builder().vpc_id("vpc-1").routes(route).associations(association).build()
        };
        let tables = [
            table("igw-main", RouteTableAssociation::builder().main(true).build()),
            table("igw-own", RouteTableAssociation::builder().subnet_id("s-a").build()),
        ];
        assert_eq!(default_route(&tables, "vpc-1", "s-a"), "igw-own");
        assert_eq!(default_route(&tables, "vpc-1", "s-b"), "igw-main");
        assert_eq!(default_route(&tables, "vpc-2", "s-b"), "");
    }

    #[test]
    fn one_error_carries_all_and_every_code_is_listed() {
        let found = [subnet("s-a", "a"), subnet("s-b", "a")];
        let error = one_error(judge(&input(&["s-a", "s-b"]), &found, &[]).unwrap_err());
        assert_eq!(error.code, SUBNETS_ONE_ZONE);
        assert!(error.message.contains("sg-1") && error.message.contains("zone"));
        assert!(PREFLIGHT_CODES.contains(&error.code.as_str()));
        let failed = one_error(Problem::call(ActivityError::throttled("Throttling", "x")));
        assert_eq!(failed.code, "Throttling");
    }
}
