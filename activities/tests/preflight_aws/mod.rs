//! A loopback server that answers as AWS does, for a world in which everything fits, until a test says otherwise for
//! one operation. It counts what is asked and how much of it at once.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use serde_json::{Value, json};

/// An answer: status and body, with headers of its own.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: u16,
    body: String,
    headers: Vec<(&'static str, String)>,
}

impl Reply {
    pub(crate) fn ok(body: impl Into<String>) -> Self {
        Self { status: 200, body: body.into(), headers: Vec::new() }
    }

    pub(crate) fn json(body: &Value) -> Self {
        Self::ok(body.to_string())
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

/// What was asked.
#[derive(Debug, Default)]
struct Seen {
    calls: Vec<String>,
    at_once: usize,
    most: usize,
}

#[derive(Default)]
struct Inner {
    replies: Mutex<BTreeMap<String, Reply>>,
    denied: Mutex<Vec<String>>,
    seen: Mutex<Seen>,
    hold: Mutex<Option<Duration>>,
}

/// The server. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct FakeAws {
    inner: Arc<Inner>,
}

impl FakeAws {
    /// Starts it; gives its address as well.
    pub(crate) async fn start() -> (Self, String) {
        let fake = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let router = Router::new().fallback(serve).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (fake, format!("http://{address}"))
    }

    /// Answers one operation otherwise.
    pub(crate) fn answer(&self, op: &str, reply: Reply) {
        self.inner.replies.lock().expect("no poison").insert(op.to_owned(), reply);
    }

    /// Answers one operation with an error in the service's shape.
    pub(crate) fn fail(&self, op: &str, status: u16, code: &str, message: &str) {
        let service = op.split(':').next().unwrap_or_default();
        let body = match service {
            "ec2" => format!(
                "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>\
                 <RequestID>req-1</RequestID></Response>"
            ),
            "iam" | "sts" | "cloudformation" => format!(
                "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>\
                 <RequestId>req-1</RequestId></ErrorResponse>"
            ),
            "s3" => String::new(),
            _ => json!({ "__type": code, "message": message }).to_string(),
        };
        let reply = Reply { status, body, headers: vec![("x-amzn-errortype", code.to_owned())] };
        self.answer(op, reply);
    }

    /// Makes IAM's simulation deny these actions.
    pub(crate) fn deny(&self, actions: &[&str]) {
        *self.inner.denied.lock().expect("no poison") = actions.iter().map(|a| (*a).to_owned()).collect();
    }

    /// Lets every call take that long.
    pub(crate) fn hold(&self, time: Duration) {
        *self.inner.hold.lock().expect("no poison") = Some(time);
    }

    /// Every operation that was called, in order.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.inner.seen.lock().expect("no poison").calls.clone()
    }

    /// The most calls that were under way at once.
    pub(crate) fn most_at_once(&self) -> usize {
        self.inner.seen.lock().expect("no poison").most
    }
}

async fn serve(
    State(fake): State<FakeAws>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (op, form) = operation(&method, &uri, &headers, &body);
    {
        let mut seen = fake.inner.seen.lock().expect("no poison");
        seen.calls.push(op.clone());
        seen.at_once += 1;
        seen.most = seen.most.max(seen.at_once);
    }
    let hold = *fake.inner.hold.lock().expect("no poison");
    if let Some(time) = hold {
        tokio::time::sleep(time).await;
    }
    let told = fake.inner.replies.lock().expect("no poison").get(&op).cloned();
    let reply = told.unwrap_or_else(|| {
        let denied = fake.inner.denied.lock().expect("no poison").clone();
        fitting(&op, &form, &denied)
    });
    fake.inner.seen.lock().expect("no poison").at_once -= 1;
    let mut response = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(*name, value);
    }
    response.body(Body::from(reply.body)).expect("a response")
}

type Form = Vec<(String, String)>;

/// `service:Operation`, and the fields of a form.
fn operation(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> (String, Form) {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let scope = text("authorization").split("Credential=").nth(1).unwrap_or_default();
    let service = scope.split('/').nth(3).unwrap_or_default().to_owned();
    let form: Form = url::form_urlencoded::parse(body).into_owned().collect();
    let target = text("x-amz-target").rsplit('.').next().unwrap_or_default().to_owned();
    let parts: Vec<&str> = uri.path().split('/').filter(|p| !p.is_empty()).collect();
    let name = match service.as_str() {
        "eks" => match parts.as_slice() {
            ["clusters"] => "ListClusters".to_owned(),
            ["clusters", _] => "DescribeCluster".to_owned(),
            ["clusters", _, "access-entries"] => "ListAccessEntries".to_owned(),
            ["cluster-versions"] => "DescribeClusterVersions".to_owned(),
            other => format!("{method} {other:?}"),
        },
        "lakeformation" => parts.first().copied().unwrap_or_default().to_owned(),
        "s3" => "HeadBucket".to_owned(),
        _ if !target.is_empty() => target,
        _ => form.iter().find(|(k, _)| k == "Action").map(|(_, v)| v.clone()).unwrap_or_default(),
    };
    (format!("{service}:{name}"), form)
}

/// The answers of a world in which everything fits.
fn fitting(op: &str, form: &Form, denied: &[String]) -> Reply {
    match op {
        "sts:GetCallerIdentity" => Reply::ok(
            "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:user/ops</Arn>\
             <UserId>AIDA</UserId><Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>",
        ),
        "iam:ListAccountAliases" => Reply::ok(
            "<ListAccountAliasesResponse><ListAccountAliasesResult><IsTruncated>false</IsTruncated><AccountAliases>\
             <member>acme-lab</member></AccountAliases></ListAccountAliasesResult></ListAccountAliasesResponse>",
        ),
        "iam:ListRoles" => Reply::ok(roles(&["AWSServiceRoleForAmazonEKS"])),
        "iam:SimulatePrincipalPolicy" => simulation(form, denied),
        "iam:GetAccountSummary" => Reply::ok(
            "<GetAccountSummaryResponse><GetAccountSummaryResult><SummaryMap><entry><key>Roles</key><value>12</value>\
             </entry><entry><key>RolesQuota</key><value>1000</value></entry></SummaryMap></GetAccountSummaryResult>\
             </GetAccountSummaryResponse>",
        ),
        "ec2:DescribeInstances" => Reply::ok(INSTANCES),
        "ec2:DescribeInstanceTypes" => Reply::ok(TYPES),
        "ec2:DescribeSubnets" => Reply::ok(subnets("euw1-az1", "euw1-az2", true, 250)),
        "ec2:DescribeRouteTables" => {
            Reply::ok(route_tables("<gatewayId>igw-1</gatewayId><state>active</state>"))
        }
        "ec2:DescribeVpcEndpoints" => {
            Reply::ok("<DescribeVpcEndpointsResponse><vpcEndpointSet/></DescribeVpcEndpointsResponse>")
        }
        "ec2:DescribeSecurityGroups" => Reply::ok(groups(
            "<item><ipProtocol>-1</ipProtocol><groups><item><groupId>sg-default</groupId></item></groups></item>",
        )),
        "eks:DescribeCluster" => Reply {
            status: 404,
            body: json!({ "message": "No cluster found for name: eks-main." }).to_string(),
            headers: vec![("x-amzn-errortype", "ResourceNotFoundException".to_owned())],
        },
        "eks:ListClusters" => Reply::json(&json!({ "clusters": [] })),
        "eks:DescribeClusterVersions" => {
            Reply::json(&json!({ "clusterVersions": [version("1.33", "STANDARD_SUPPORT")] }))
        }
        "cloudformation:DescribeStacks" => Reply::ok(
            "<DescribeStacksResponse><DescribeStacksResult><Stacks/></DescribeStacksResult></DescribeStacksResponse>",
        ),
        "servicequotas:GetServiceQuota" => Reply::json(&json!({ "Quota": { "Value": 500.0 } })),
        "lakeformation:GetDataLakeSettings" => Reply::json(&json!({ "DataLakeSettings": {
            "CreateDatabaseDefaultPermissions": [
                { "Principal": { "DataLakePrincipalIdentifier": "IAM_ALLOWED_PRINCIPALS" }, "Permissions": ["ALL"] }],
        } })),
        "lakeformation:ListPermissions" => Reply::json(&json!({ "PrincipalResourcePermissions": [
            { "Principal": { "DataLakePrincipalIdentifier": "IAM_ALLOWED_PRINCIPALS" },
              "Resource": { "Catalog": {} }, "Permissions": ["CREATE_DATABASE"] }] })),
        "athena:GetWorkGroup" => Reply::json(&json!({ "WorkGroup": { "Name": "primary", "State": "ENABLED",
            "Configuration": { "EnforceWorkGroupConfiguration": false, "ResultConfiguration": {} } } })),
        "ecr:DescribeRepositories" => Reply::json(&json!({ "repositories": [] })),
        "s3:HeadBucket" => Reply::ok("").header("x-amz-bucket-region", "eu-west-1"),
        other => Reply {
            status: 400,
            body:
                json!({ "__type": "UnknownOperation", "message": format!("the fake does not know {other}") })
                    .to_string(),
            headers: Vec::new(),
        },
    }
}

pub(crate) fn version(number: &str, status: &str) -> Value {
    // 2033 and 2034.
    json!({ "clusterVersion": number, "clusterType": "eks", "defaultVersion": true, "status": status,
            "versionStatus": status, "endOfStandardSupportDate": 2_000_000_000, "endOfExtendedSupportDate": 2_030_000_000 })
}

pub(crate) fn roles(names: &[&str]) -> String {
    let mut members = String::new();
    for name in names {
        let _written = write!(
            members,
            "<member><Path>/</Path><RoleName>{name}</RoleName><RoleId>AROA</RoleId><Arn>arn:aws:iam::1:role/{name}</Arn>\
             <CreateDate>2026-01-01T00:00:00Z</CreateDate></member>"
        );
    }
    format!(
        "<ListRolesResponse><ListRolesResult><IsTruncated>false</IsTruncated><Roles>{members}</Roles></ListRolesResult>\
         </ListRolesResponse>"
    )
}

fn simulation(form: &Form, denied: &[String]) -> Reply {
    let mut members = String::new();
    for (_, action) in form.iter().filter(|(k, _)| k.starts_with("ActionNames.member.")) {
        let decision = if denied.contains(action) { "implicitDeny" } else { "allowed" };
        let _written = write!(
            members,
            "<member><EvalActionName>{action}</EvalActionName><EvalDecision>{decision}</EvalDecision></member>"
        );
    }
    Reply::ok(format!(
        "<SimulatePrincipalPolicyResponse><SimulatePrincipalPolicyResult><IsTruncated>false</IsTruncated>\
         <EvaluationResults>{members}</EvaluationResults></SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>"
    ))
}

const INSTANCES: &str = "<DescribeInstancesResponse><reservationSet><item><instancesSet><item>\
    <instanceId>i-0a1b2c3d4e5f60718</instanceId><instanceState><code>16</code><name>running</name></instanceState>\
    <instanceType>m7i.2xlarge</instanceType><architecture>x86_64</architecture><vpcId>vpc-1</vpcId>\
    <subnetId>subnet-a</subnetId><privateIpAddress>10.0.1.9</privateIpAddress><placement>\
    <availabilityZone>eu-west-1a</availabilityZone></placement><cpuOptions><coreCount>4</coreCount>\
    <threadsPerCore>2</threadsPerCore></cpuOptions><groupSet><item><groupId>sg-default</groupId></item></groupSet></item>\
    </instancesSet></item></reservationSet></DescribeInstancesResponse>";

const TYPES: &str = "<DescribeInstanceTypesResponse><instanceTypeSet><item><instanceType>m7i.4xlarge</instanceType>\
    <vCpuInfo><defaultVCpus>16</defaultVCpus></vCpuInfo><memoryInfo><sizeInMiB>65536</sizeInMiB></memoryInfo>\
    <processorInfo><supportedArchitectures><item>x86_64</item></supportedArchitectures></processorInfo>\
    <networkInfo><maximumNetworkInterfaces>8</maximumNetworkInterfaces>\
    <ipv4AddressesPerInterface>30</ipv4AddressesPerInterface></networkInfo></item></instanceTypeSet>\
    </DescribeInstanceTypesResponse>";

pub(crate) fn subnets(zone_a: &str, zone_b: &str, public: bool, free: u32) -> String {
    let mut items = String::new();
    for (name, letter, zone, cidr) in
        [("subnet-a", "a", zone_a, "10.0.1.0/24"), ("subnet-b", "b", zone_b, "10.0.2.0/24")]
    {
        let _written = write!(
            items,
            "<item><subnetId>{name}</subnetId><vpcId>vpc-1</vpcId><availabilityZone>eu-west-1{letter}</availabilityZone>\
             <availabilityZoneId>{zone}</availabilityZoneId><cidrBlock>{cidr}</cidrBlock>\
             <availableIpAddressCount>{free}</availableIpAddressCount>\
             <mapPublicIpOnLaunch>{public}</mapPublicIpOnLaunch></item>"
        );
    }
    format!("<DescribeSubnetsResponse><subnetSet>{items}</subnetSet></DescribeSubnetsResponse>")
}

/// The main table of the VPC with a default route to `target`.
pub(crate) fn route_tables(target: &str) -> String {
    format!(
        "<DescribeRouteTablesResponse><routeTableSet><item><routeTableId>rtb-1</routeTableId><vpcId>vpc-1</vpcId>\
         <routeSet><item><destinationCidrBlock>0.0.0.0/0</destinationCidrBlock>{target}</item></routeSet>\
         <associationSet><item><main>true</main></item></associationSet></item></routeTableSet>\
         </DescribeRouteTablesResponse>"
    )
}

/// The VPC's default group with these rules for what comes in.
pub(crate) fn groups(ingress: &str) -> String {
    format!(
        "<DescribeSecurityGroupsResponse><securityGroupInfo><item><groupId>sg-default</groupId>\
         <groupName>default</groupName><vpcId>vpc-1</vpcId><ipPermissions>{ingress}</ipPermissions>\
         <ipPermissionsEgress><item><ipProtocol>-1</ipProtocol><ipRanges><item><cidrIp>0.0.0.0/0</cidrIp></item>\
         </ipRanges></item></ipPermissionsEgress></item></securityGroupInfo></DescribeSecurityGroupsResponse>"
    )
}
