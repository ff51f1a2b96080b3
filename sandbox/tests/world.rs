//! What a world does that moto does not: faults, tokens, slow states, access entries, add-ons, snapshots.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use dssflow_sandbox::{Action, Fault, Target, calls, fault_report, set_faults, snapshot};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{Lab, client};

const ROLE: &str = "arn:aws:iam::123456789012:role/dssflow-eks-cluster";

fn cluster(lab: &Lab, name: &str) -> Value {
    json!({
        "name": name, "roleArn": ROLE, "clientRequestToken": format!("token-{name}"), "tags": { "team": "data" },
        "resourcesVpcConfig": { "subnetIds": &lab.world.subnets[..2] },
        "accessConfig": { "authenticationMode": "API" },
    })
}

/// States seen when looking until `end` or not found.
async fn states(lab: &Lab, path: &str, key: &str, end: &str) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    for _ in 0..50 {
        let (status, body) = lab.eks(Method::GET, path, None).await;
        let state =
            if status == StatusCode::NOT_FOUND { "gone" } else { body[key]["status"].as_str().unwrap() }
                .to_owned();
        seen.push(state.clone());
        if state == end || state == "gone" {
            return seen;
        }
    }
    panic!("never {end}: {seen:?}");
}

#[tokio::test]
async fn tokens_faults_and_records() {
    let lab = Lab::new().await;
    let run = |token: &'static str, kind: &'static str| {
        [
            ("Action", "RunInstances"),
            ("Version", "2016-11-15"),
            ("ImageId", "ami-1"),
            ("MinCount", "1"),
            ("MaxCount", "1"),
            ("InstanceType", kind),
            ("ClientToken", token),
        ]
    };
    // The reply is lost after the call was carried out; the token finds what it made.
    let lost = Fault::new(Target::Aws, "ec2:RunInstances", Action::Reset).after().times(1);
    set_faults(&lab.world, std::slice::from_ref(&lost)).await.unwrap();
    assert!(lab.query("ec2", &run("t1", "t3.micro")).await.is_err());
    let (status, first) = lab.query("ec2", &run("t1", "t3.micro")).await.unwrap();
    assert_eq!(status, 200);
    let (_, second) = lab.query("ec2", &run("t1", "t3.micro")).await.unwrap();
    assert_eq!(first, second);
    let (status, other) = lab.query("ec2", &run("t1", "t3.large")).await.unwrap();
    assert_eq!(status, 400);
    assert!(other.contains("<Code>IdempotentParameterMismatch</Code>"), "{other}");
    let (_, all) =
        lab.query("ec2", &[("Action", "DescribeInstances"), ("Version", "2016-11-15")]).await.unwrap();
    assert_eq!(all.matches("<instanceId>").count(), 2, "the host and one more");
    assert_eq!(fault_report(&lab.world).await.unwrap()[0].fired, 1);
    // Each service's own shape of an error, before the call is carried out.
    let denied =
        Action::Error { status: 403, code: "AccessDeniedException".to_owned(), message: "no".to_owned() };
    set_faults(&lab.world, &[Fault::new(Target::Aws, "*", denied)]).await.unwrap();
    let (status, body) = lab.eks(Method::POST, "/clusters", Some(cluster(&lab, "a"))).await;
    assert_eq!((status.as_u16(), body["code"].as_str()), (403, Some("AccessDeniedException")));
    let (_, body) = lab.json("glue", "AWSGlue.GetDatabases", &json!({})).await;
    assert_eq!(body["__type"], "AccessDeniedException");
    let (_, body) = lab.query("iam", &[("Action", "ListRoles")]).await.unwrap();
    assert!(body.contains("<ErrorResponse><Error><Type>Sender</Type><Code>AccessDeniedException"), "{body}");
    set_faults(&lab.world, &[]).await.unwrap();
    // Athena honours tokens as well, in its own words.
    let start = |sql: &str| {
        json!({ "QueryString": sql, "ClientRequestToken": "t".repeat(32),
                "ResultConfiguration": { "OutputLocation": "s3://dssflow-sandbox-athena/x/" } })
    };
    let (_, one) = lab.json("athena", "AmazonAthena.StartQueryExecution", &start("SELECT 1")).await;
    let (_, two) = lab.json("athena", "AmazonAthena.StartQueryExecution", &start("SELECT 1")).await;
    assert_eq!(one, two);
    let (status, body) = lab.json("athena", "AmazonAthena.StartQueryExecution", &start("SELECT 2")).await;
    assert_eq!((status.as_u16(), body["__type"].as_str()), (400, Some("InvalidRequestException")));
    let (_, rows) = lab.json("athena", "AmazonAthena.GetQueryResults", &one).await;
    assert_eq!(rows["ResultSet"]["Rows"][1]["Data"][0]["VarCharValue"], "1", "{rows}");
    let report = calls(&lab.world).await.unwrap();
    let count = |op: &str| report.recent.iter().filter(|call| call.op == op).count();
    assert_eq!((count("ec2:RunInstances"), count("ec2:DescribeInstances")), (4, 1));
    let replayed = report.recent.iter().filter(|call| call.replayed).count();
    assert_eq!((replayed, report.mutating), (3, 8));
    lab.end().await;
}

#[tokio::test]
async fn clusters_take_their_time_and_carry_what_moto_lacks() {
    let lab = Lab::new().await;
    let slow =
        Fault::new(Target::Aws, "eks:CreateCluster", Action::State { polls: 3, end: "ACTIVE".to_owned() });
    let broken = Action::State { polls: 1, end: "FAILED".to_owned() };
    let broken = Fault::new(Target::Aws, "eks:CreateNodegroup", broken).times(1);
    set_faults(&lab.world, &[slow, broken]).await.unwrap();
    let mut one_zone = cluster(&lab, "c1");
    one_zone["resourcesVpcConfig"]["subnetIds"] = json!([lab.world.subnets[0], lab.world.subnets[2]]);
    let (status, body) = lab.eks(Method::POST, "/clusters", Some(one_zone)).await;
    assert_eq!((status.as_u16(), body["code"].as_str()), (400, Some("InvalidParameterException")), "{body}");

    let (status, made) = lab.eks(Method::POST, "/clusters", Some(cluster(&lab, "c1"))).await;
    assert_eq!((status.as_u16(), made["cluster"]["status"].as_str()), (200, Some("CREATING")), "{made}");
    assert_eq!(made["cluster"]["endpoint"], Value::Null);
    let (_, again) = lab.eks(Method::POST, "/clusters", Some(cluster(&lab, "c1"))).await;
    assert_eq!(made, again, "the same token gives the same reply");
    let entry = json!({ "principalArn": lab.world.service_user_arn, "tags": { "a": "b" } });
    let (status, _) = lab.eks(Method::POST, "/clusters/c1/access-entries", Some(entry.clone())).await;
    assert_eq!(status, 400, "not while it is being created");
    let seen = states(&lab, "/clusters/c1", "cluster", "ACTIVE").await;
    assert_eq!(seen, ["CREATING", "CREATING", "CREATING", "ACTIVE"]);

    let (status, made) = lab.eks(Method::POST, "/clusters/c1/access-entries", Some(entry.clone())).await;
    assert_eq!((status.as_u16(), made["accessEntry"]["tags"]["a"].as_str()), (200, Some("b")), "{made}");
    let (status, body) = lab.eks(Method::POST, "/clusters/c1/access-entries", Some(entry)).await;
    assert_eq!((status.as_u16(), body["code"].as_str()), (409, Some("ResourceInUseException")));
    let arn = lab.world.service_user_arn.replace(':', "%3A").replace('/', "%2F");
    let policies = format!("/clusters/c1/access-entries/{arn}/access-policies");
    let admin = json!({ "policyArn": "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy",
                        "accessScope": { "type": "cluster" } });
    assert_eq!(lab.eks(Method::POST, &policies, Some(admin)).await.0, 200);
    let (_, body) = lab.eks(Method::GET, &policies, None).await;
    assert_eq!(body["associatedAccessPolicies"].as_array().unwrap().len(), 1);
    let (_, body) = lab.eks(Method::GET, "/clusters/c1/access-entries", None).await;
    assert_eq!(body["accessEntries"].as_array().unwrap().len(), 2, "the creator and ours: {body}");

    let group = |name: &str| json!({ "nodegroupName": name, "nodeRole": ROLE, "subnets": &lab.world.subnets[..2], "clientRequestToken": name });
    assert_eq!(lab.eks(Method::POST, "/clusters/c1/node-groups", Some(group("bad"))).await.0, 200);
    let seen = states(&lab, "/clusters/c1/node-groups/bad", "nodegroup", "CREATE_FAILED").await;
    assert_eq!(seen, ["CREATING", "CREATE_FAILED"]);
    assert_eq!(lab.eks(Method::DELETE, "/clusters/c1/node-groups/bad", None).await.0, 200);
    let seen = states(&lab, "/clusters/c1/node-groups/bad", "nodegroup", "gone").await;
    assert_eq!(seen, ["DELETING", "gone"]);
    assert_eq!(lab.eks(Method::POST, "/clusters/c1/node-groups", Some(group("good"))).await.0, 200);
    states(&lab, "/clusters/c1/node-groups/good", "nodegroup", "ACTIVE").await;

    let addon = json!({ "addonName": "coredns", "tags": { "x": "y" } });
    let (_, made) = lab.eks(Method::POST, "/clusters/c1/addons", Some(addon)).await;
    let tags = format!(
        "/tags/{}",
        made["addon"]["addonArn"].as_str().unwrap().replace(':', "%3A").replace('/', "%2F")
    );
    assert_eq!(lab.eks(Method::POST, &tags, Some(json!({ "tags": { "z": "1" } }))).await.0, 200);
    assert_eq!(lab.eks(Method::GET, &tags, None).await.1, json!({ "tags": { "x": "y", "z": "1" } }));
    assert_eq!(states(&lab, "/clusters/c1/addons/coredns", "addon", "ACTIVE").await, ["CREATING", "ACTIVE"]);

    let shown = snapshot(&lab.world).await.unwrap();
    let c1 = &shown["aws"]["eks"]["c1"];
    assert_eq!(
        (c1["status"].as_str(), c1["addons"]["coredns"]["tags"]["x"].as_str()),
        (Some("ACTIVE"), Some("y"))
    );
    assert!(c1["nodeGroups"]["good"].is_object() && c1["nodeGroups"]["bad"].is_null(), "{c1}");

    let (status, body) = lab.eks(Method::DELETE, "/clusters/c1", None).await;
    assert_eq!((status.as_u16(), body["code"].as_str()), (409, Some("ResourceInUseException")));
    assert_eq!(lab.eks(Method::DELETE, "/clusters/c1/node-groups/good", None).await.0, 200);
    states(&lab, "/clusters/c1/node-groups/good", "nodegroup", "gone").await;
    assert_eq!(lab.eks(Method::DELETE, "/clusters/c1/addons/coredns", None).await.0, 200);
    assert_eq!(states(&lab, "/clusters/c1/addons/coredns", "addon", "gone").await, ["DELETING", "gone"]);
    let (_, body) = lab.eks(Method::DELETE, "/clusters/c1", None).await;
    assert_eq!(body["cluster"]["status"], "DELETING");
    assert_eq!(states(&lab, "/clusters/c1", "cluster", "gone").await, ["DELETING", "gone"]);
    lab.end().await;
}

#[tokio::test]
async fn identical_worlds_look_the_same_and_before_equals_after() {
    let (one, two) = (Lab::new().await, Lab::new().await);
    let before = snapshot(&one.world).await.unwrap();
    assert_eq!(before, snapshot(&two.world).await.unwrap());
    assert_eq!(before["aws"]["ec2"]["instances"].as_array().unwrap().len(), 1);
    let database = json!({ "DatabaseInput": { "Name": "sales" } });
    one.json("glue", "AWSGlue.CreateDatabase", &database).await;
    let changed = snapshot(&one.world).await.unwrap();
    assert!(changed["aws"]["glue"]["sales"].is_object());
    one.json("glue", "AWSGlue.DeleteDatabase", &json!({ "Name": "sales" })).await;
    assert_eq!(before, snapshot(&one.world).await.unwrap());
    assert_eq!(calls(&one.world).await.unwrap().mutating, 2, "looking counts as no call");
    two.end().await;
    one.end().await;
}

#[tokio::test]
async fn metadata_kits_and_site() {
    let lab = Lab::new().await;
    let http = client();
    let imds = &lab.world.imds_endpoint;
    let url = format!("{imds}/latest/meta-data/instance-id");
    assert_eq!(http.get(&url).send().await.unwrap().status(), 401, "version 2 only");
    let token =
        http.put(format!("{imds}/latest/api/token")).header("x-aws-ec2-metadata-token-ttl-seconds", "60");
    let token = token.send().await.unwrap().text().await.unwrap();
    let ask = async |path: &str| {
        let request = http.get(format!("{imds}/latest/{path}")).header("x-aws-ec2-metadata-token", &token);
        request.send().await.unwrap().text().await.unwrap()
    };
    assert_eq!(ask("meta-data/instance-id").await, lab.world.instance_id);
    assert_eq!(ask("meta-data/placement/region").await, "eu-west-1");
    let mac = ask("meta-data/mac").await;
    assert_eq!(ask(&format!("meta-data/network/interfaces/macs/{mac}/vpc-id")).await, lab.world.vpc_id);
    let groups = ask(&format!("meta-data/network/interfaces/macs/{mac}/security-group-ids")).await;
    assert_eq!(groups, lab.world.instance_security_group);
    let document: Value = serde_json::from_str(&ask("dynamic/instance-identity/document").await).unwrap();
    assert_eq!(
        (document["accountId"].as_str(), document["region"].as_str()),
        (Some("123456789012"), Some("eu-west-1"))
    );

    for site in [&lab.world.site_yaml, &lab.world.site_yaml_sdk] {
        let text = std::fs::read_to_string(site).unwrap();
        assert!(text.contains(&lab.world.instance_id) && !text.contains(&lab.world.secret_access_key));
        let kit = text.lines().find(|line| line.trim().starts_with("dss: {url")).unwrap();
        let (url, sha) = kit.split_once("url: ").unwrap().1.split_once(", sha256: ").unwrap();
        let body = http.get(url).send().await.unwrap().bytes().await.unwrap();
        assert_eq!(hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&body)), sha.trim_end_matches('}'));
        let part = http.get(url).header("range", "bytes=10-").send().await.unwrap();
        assert_eq!(part.status(), 206);
        assert_eq!(part.bytes().await.unwrap(), body.slice(10..));
    }
    lab.end().await;
}
