//! The fake DSS and the cloud are one world: a cluster started in DSS appears in EKS and CloudFormation, and goes.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use dssflow_sandbox::{Action, Fault, Target, World, set_faults, snapshot};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{Lab, client};

/// DSS as an administrator with an API key sees it.
struct Dss {
    url: String,
    key: String,
}

impl Dss {
    /// Starts DSS as the host's `systemctl` does and makes a key as its `dsscli` does.
    async fn start(world: &World) -> Self {
        admin(world, "/dss/start", json!({ "data_dir": "/data/dss", "port": world.dss_port })).await;
        let key = admin(world, "/dss/api-keys", json!({ "label": "test", "description": "" })).await;
        Self { url: world.dss_url.clone(), key: key["key"].as_str().unwrap().to_owned() }
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let request = client()
            .request(method, format!("{}/public/api{path}", self.url))
            .basic_auth(&self.key, Some(""));
        let response = request.json(&body).send().await.unwrap();
        (response.status(), serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default())
    }

    /// Calls and waits for the future.
    async fn wait(&self, path: &str, body: Value) {
        let (status, mut answer) = self.call(Method::POST, path, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        let id = answer["jobId"].clone();
        while answer["hasResult"] == false {
            let path = format!("/futures/{}?peek=False", id.as_str().unwrap());
            answer = self.call(Method::GET, &path, Value::Null).await.1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn define(&self, world: &World, name: &str) -> String {
        let pool = json!({ "machineType": "m7i.4xlarge", "numNodes": 3, "diskSizeGb": 200 });
        let network =
            json!({ "subnets": &world.subnets[..2], "securityGroups": [world.default_security_group] });
        let inline =
            |config: Value| json!({ "mode": "INLINE", "inlinedConfig": config, "inlinedPluginConfig": {} });
        let config = json!({ "connectionInfo": { "mode": "NONE" }, "networkingSettings": inline(network),
                             "nodePool": inline(pool), "k8sVersion": "1.33", "clusterTags": { "dssflow:run": "r1" } });
        let body = json!({ "name": name, "type": "pycluster_eks-clusters_create-eks-cluster",
                           "architecture": "KUBERNETES", "params": { "config": config } });
        let (status, made) = self.call(Method::POST, "/admin/clusters/", body).await;
        assert_eq!(status, 200, "{made}");
        made["id"].as_str().unwrap().to_owned()
    }
}

async fn admin(world: &World, path: &str, body: Value) -> Value {
    let request =
        client().post(format!("{}{path}", world.admin_url)).header("x-sandbox-token", &world.admin_token);
    let response = request.json(&body).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    response.json().await.unwrap()
}

async fn stacks(lab: &Lab) -> String {
    let form = [("Action", "DescribeStacks"), ("Version", "2010-05-15")];
    lab.query("cloudformation", &form).await.unwrap().1
}

#[tokio::test]
async fn a_cluster_of_dss_is_one_of_the_cloud() {
    let lab = Lab::new().await;
    let world = &lab.world;
    let dss = Dss::start(world).await;
    dss.wait("/plugins/actions/installFromStore", json!({ "pluginId": "eks-clusters" })).await;
    let env = json!({ "deploymentMode": "PLUGIN_MANAGED", "conda": false, "pythonInterpreter": "PYTHON311" });
    dss.wait("/plugins/eks-clusters/code-env/actions/create", env).await;
    let (_, mut settings) = dss.call(Method::GET, "/plugins/eks-clusters/settings", Value::Null).await;
    settings["codeEnvName"] = json!("plugin_eks-clusters_managed");
    dss.call(Method::POST, "/plugins/eks-clusters/settings", settings).await;
    let before = snapshot(world).await.unwrap();
    let id = dss.define(world, "eks-main").await;

    // The nodes never join: the start says so, and the stack stays, failed.
    let fails =
        Fault::new(Target::Aws, "eks:CreateNodegroup", Action::State { polls: 1, end: "FAILED".to_owned() });
    set_faults(world, &[fails.times(1)]).await.unwrap();
    let (status, answer) =
        dss.call(Method::POST, &format!("/admin/clusters/{id}/actions/start"), json!({})).await;
    assert_eq!((status.as_u16(), answer["messages"]["error"].as_bool()), (200, Some(true)), "{answer}");
    let text = stacks(&lab).await;
    assert!(text.contains("<StackName>eksctl-eks-main-cluster</StackName>"), "{text}");
    assert_eq!(text.matches("<StackStatus>CREATE_FAILED<").count(), 1, "{text}");
    // Like the real tool it does not mend that by itself.
    let (_, answer) = dss.call(Method::POST, &format!("/admin/clusters/{id}/actions/start"), json!({})).await;
    assert!(answer.to_string().contains("AlreadyExistsException"), "{answer}");
    stop(&lab, &dss, &id).await;

    let (status, answer) =
        dss.call(Method::POST, &format!("/admin/clusters/{id}/actions/start"), json!({})).await;
    assert_eq!((status.as_u16(), answer["messages"]["error"].as_bool()), (200, Some(false)), "{answer}");
    assert_eq!(stacks(&lab).await.matches("<StackStatus>CREATE_COMPLETE<").count(), 2);
    let (_, found) = lab.eks(Method::GET, "/clusters/eks-main", None).await;
    assert_eq!(
        (found["cluster"]["status"].as_str(), found["cluster"]["tags"]["dssflow:run"].as_str()),
        (Some("ACTIVE"), Some("r1"))
    );
    let path = format!("/admin/clusters/{id}/k8s/actions/run-kubectl");
    let (_, answer) = dss.call(Method::POST, &path, json!({ "args": "get nodes -o json" })).await;
    let nodes: Value = serde_json::from_str(answer["output"].as_str().unwrap()).unwrap();
    assert_eq!(nodes["items"].as_array().unwrap().len(), 3);
    stop(&lab, &dss, &id).await;
    dss.call(Method::DELETE, &format!("/admin/clusters/{id}"), Value::Null).await;
    assert_eq!(before, snapshot(world).await.unwrap(), "nothing is left");
    lab.end().await;
}

/// Stops the cluster and waits until AWS has nothing of it.
async fn stop(lab: &Lab, dss: &Dss, id: &str) {
    let path = format!("/admin/clusters/{id}/actions/stop?terminate=False&forceStop=True");
    let (status, answer) = dss.call(Method::POST, &path, json!({})).await;
    assert_eq!((status.as_u16(), answer["messages"]["error"].as_bool()), (200, Some(false)), "{answer}");
    for _ in 0..500 {
        let (status, _) = lab.eks(Method::GET, &format!("/clusters/{id}"), None).await;
        if status == 404 && !stacks(lab).await.contains("eksctl-") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not gone: {}", stacks(lab).await);
}

#[tokio::test]
async fn dss_drops_connections_stops_and_starts() {
    let lab = Lab::new().await;
    let world = &lab.world;
    let dss = Dss::start(world).await;
    let reset = Fault::new(Target::Dss, "GET /auth/info", Action::Reset).times(1);
    set_faults(world, &[reset]).await.unwrap();
    let url = format!("{}/public/api/auth/info", world.dss_url);
    assert!(client().get(&url).basic_auth(&dss.key, Some("")).send().await.is_err());
    assert_eq!(dss.call(Method::GET, "/auth/info", Value::Null).await.0, 200);
    // Stopped, it does not listen; started again, it knows its keys.
    admin(world, "/dss/stop", json!({})).await;
    assert!(client().get(&url).send().await.unwrap_err().is_connect());
    admin(world, "/dss/start", json!({ "data_dir": "/data/dss", "port": world.dss_port })).await;
    assert_eq!(dss.call(Method::GET, "/auth/info", Value::Null).await.0, 200);
    let calls = dssflow_sandbox::calls(world).await.unwrap();
    assert_eq!(calls.by_op["GET /auth/info"], 3);
    // The host wrapper serves the same world.
    let (program, args) = world.host_wrapper.split_first().unwrap();
    let output =
        std::process::Command::new(program).args(args).args(["--user", "root", "--", "id", "-u"]).output();
    let output = output.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "0", "{output:?}");
    lab.end().await;
}
