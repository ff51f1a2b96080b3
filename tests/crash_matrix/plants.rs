//! Things of others that look nearly like ours: the same names but for an end, the same site, run and step but another
//! store. Whoever deletes one of them shows in the next snapshot.

use dssflow_engine::activity::Marks;
use dssflow_engine::id::StoreId;
use dssflow_sandbox::Hands;
use serde_json::json;

use crate::learn::RUN;
use crate::world::World;

/// The marks of the same run in another store.
fn marks(world: &World, step: &str) -> Marks {
    Marks {
        store: StoreId::generate([99; 16]).as_str().to_owned(),
        site: world.site.clone(),
        run: RUN.to_owned(),
        step: step.to_owned(),
        generation: 1,
    }
}

/// Plants what lives in AWS.
pub(crate) async fn plant_in_aws(world: &World) {
    let hands = Hands::of(&world.sandbox);
    for (name, step) in [("dss_main_old", "glue-database-dss_main"), ("dss_mai", "glue-database-dss_main")] {
        let tags: serde_json::Map<String, serde_json::Value> =
            marks(world, step).tags().into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect();
        let database = json!({ "DatabaseInput": { "Name": name, "Parameters": tags.clone() }, "Tags": tags });
        hands.json("glue", "AWSGlue.CreateDatabase", &database).await.expect("planted");
    }
    let listed = |step: &str| -> Vec<serde_json::Value> {
        let tags = marks(world, step).tags().into_iter();
        tags.map(|(key, value)| json!({ "Key": key, "Value": value })).collect()
    };
    let repository = json!({ "repositoryName": "dku-exec-base-old", "tags": listed("ecr-repositories") });
    let create = "AmazonEC2ContainerRegistry_V20150921.CreateRepository";
    hands.json("ecr", create, &repository).await.expect("planted");

    let query = |base: &[(&str, &str)], prefix: &str, step: &str| -> Vec<(String, String)> {
        let mut params: Vec<(String, String)> =
            base.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        for (at, (key, value)) in marks(world, step).tags().into_iter().enumerate() {
            params.push((format!("{prefix}.{}.Key", at + 1), key.to_owned()));
            params.push((format!("{prefix}.{}.Value", at + 1), value));
        }
        params
    };
    let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"Service":"eks.amazonaws.com"}}]}"#;
    for step in ["cluster-role", "node-role"] {
        let name = format!("dssflow-eu-west-1-eks-main-{step}-old");
        let base = [("RoleName", name.as_str()), ("AssumeRolePolicyDocument", trust)];
        planted(&hands, "iam", "CreateRole", query(&base, "Tags.member", step)).await;
    }
    let base = [
        ("LaunchTemplateName", "dssflow-eks-main-old"),
        ("LaunchTemplateData.InstanceType", "m7i.4xlarge"),
        ("TagSpecification.1.ResourceType", "launch-template"),
    ];
    planted(&hands, "ec2", "CreateLaunchTemplate", query(&base, "TagSpecification.1.Tag", "launch-template"))
        .await;
    let template =
        r#"{"AWSTemplateFormatVersion":"2010-09-09","Resources":{"Topic":{"Type":"AWS::SNS::Topic"}}}"#;
    // A stack of the cluster `eks-main-old`, whose name begins like one of ours.
    let base = [("StackName", "eksctl-eks-main-old-cluster"), ("TemplateBody", template)];
    planted(&hands, "cloudformation", "CreateStack", query(&base, "Tags.member", "cluster-start")).await;
    let tags: serde_json::Map<String, serde_json::Value> =
        marks(world, "eks-cluster").tags().into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect();
    let cluster = json!({
        "name": "eks-main-old", "roleArn": "arn:aws:iam::123456789012:role/dssflow-eu-west-1-eks-main-cluster-role-old",
        "resourcesVpcConfig": { "subnetIds": &world.sandbox.subnets[..2] }, "tags": tags,
    });
    hands.eks("POST", "/clusters", Some(&cluster)).await.expect("planted");
    // Looked at until it is there.
    while hands.eks("GET", "/clusters/eks-main-old", None).await.expect("it is there")["cluster"]["status"]
        != "ACTIVE"
    {}
}

/// Plants what lives in DSS.
pub(crate) async fn plant_in_dss(world: &World) {
    let hands = Hands::of(&world.sandbox);
    let mark = |step: &str| {
        let marks = marks(world, step);
        let tags: Vec<String> =
            marks.tags().into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        tags.join(" ")
    };
    let connection = json!({
        "name": "s3-main-old", "type": "EC2", "description": mark("connection-s3-main"),
        "params": { "defaultManagedBucket": "dssflow-sandbox-main" }, "usableBy": "ALL",
    });
    hands.dss("POST", "/admin/connections", Some(&connection)).await.expect("planted");
    let group =
        json!({ "name": "data_team_old", "description": mark("group-data_team"), "sourceType": "LOCAL" });
    hands.dss("POST", "/admin/groups", Some(&group)).await.expect("planted");
    let project = json!({ "projectKey": "CHURN_OLD", "name": "Customer churn", "owner": "admin" });
    hands.dss("POST", "/projects", Some(&project)).await.expect("planted");
    hands
        .dss(
            "POST",
            "/admin/clusters",
            Some(&json!({ "name": "eks-main-old", "type": "manual", "params": {} })),
        )
        .await
        .expect("planted");
}

async fn planted(hands: &Hands, service: &str, action: &str, params: Vec<(String, String)>) {
    let params: Vec<(&str, &str)> =
        params.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    hands.query(service, action, &params).await.expect("planted");
}
