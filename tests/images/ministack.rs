//! A second emulator of AWS: the part of the bootstrap it can serve, as one run of the engine over our activities.
//!
//! In ministack a `docker push` and a query over a Glue table are real, which they are not in moto. The run is in a
//! process of its own that is told nothing but `AWS_ENDPOINT_URL` and credentials, so that the standard chain of the SDK
//! is what leads there. What ministack cannot serve is in `docs/sandbox.md`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use aws_sdk_glue::types::{Column, SerDeInfo, StorageDescriptor, TableInput};
use dssflow_activities::aws::{
    athena_query, bucket, default_sg, glue_database, identity, images, instance, network, repositories, tags,
};
use dssflow_activities::clients::{AwsClients, ClientsConfig};
use dssflow_activities::docker::registry::Login;
use dssflow_activities::docker::{build, push};
use dssflow_engine::activity::{
    Activity, ActivityContext, ActivityError, ActivityRegistry, ActivityResult, Effect, Recorded, Undo,
};
use dssflow_engine::event::Request;
use dssflow_engine::graph::{Binding, Graph, Step};
use dssflow_engine::id::{ActivityName, RunId, StepName, StoreId, WorkflowName};
use dssflow_engine::run::view::RunView;
use dssflow_engine::store::memory::MemoryStore;
use dssflow_engine::{Engine, StartRun};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::emulator::{ACCOUNT, Emulator, REGION};

/// The word by which this program runs the workflow.
pub(crate) const CHILD: &str = "__ministack";
const ROWS: &str = "1,10\n2,20\n2,22\n";

/// What the child is told, besides the environment.
#[derive(Debug, Serialize, Deserialize)]
struct Task {
    /// Where Docker pushes to: the emulator's own port.
    registry: String,
    /// The daemon and a context, where there is a daemon.
    docker: Option<(String, PathBuf)>,
}

/// Starts the emulator, lets the child run the workflow there, and looks at what is left with other eyes.
pub(crate) async fn bootstrap(docker: Option<(String, PathBuf)>) {
    let dir = tempfile::tempdir().expect("a directory");
    let emulator = Emulator::start(dir.path()).await;
    let address = emulator.address.clone();
    let docker = docker.map(|(socket, context)| {
        std::fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY text /\n").expect("written");
        std::fs::write(context.join("text"), "pushed to ministack").expect("written");
        (socket, context)
    });
    let pushes = docker.is_some();
    let seen = run_child(&Task { registry: address.clone(), docker }, &address, dir.path()).await;

    assert_eq!(seen["status"], "succeeded", "{seen:#}");
    let output = |step: &str| &seen["outputs"][step];
    assert_eq!(output("identity")["account"], ACCOUNT);
    assert_eq!(output("network")["subnets"].as_array().map(Vec::len), Some(2));
    assert!(output("repositories")["registry"].as_str().is_some_and(|r| r.contains(".dkr.ecr.")));
    // Computed by DuckDB from the object in S3 by way of the table in Glue.
    assert_eq!(output("query")["rows"], json!([["1", "10"], ["2", "42"]]));
    assert_eq!(seen["second"], "succeeded", "{seen:#}");
    assert_eq!(seen["rolled_back"], "rolled_back", "{seen:#}");
    assert_eq!(seen["left"], json!([]), "nothing of the run is left");
    if pushes {
        let digest = output("push")["digest"].as_str().expect("a digest");
        assert_eq!(seen["v2_digest"], digest, "as the emulator's data plane says it");
        assert_eq!(output("pushed")["images"][0]["digest"], digest, "as ECR's API says it");
    } else {
        println!("skipped: image push to ministack: there is no Docker daemon here");
    }
    println!("ministack served: {}", seen["steps"].as_str().unwrap_or_default());
}

async fn run_child(task: &Task, address: &str, home: &Path) -> Value {
    let exe = std::env::current_exe().expect("this program has a path");
    let task = serde_json::to_string(task).expect("plain data");
    let output = tokio::process::Command::new(exe)
        .args([CHILD, &task])
        .env_clear()
        .env("AWS_ENDPOINT_URL", format!("http://{address}"))
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("HOME", home)
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("this program starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{text}\n{errors}", output.status);
    serde_json::from_str(text.lines().last().unwrap_or_default())
        .unwrap_or_else(|e| panic!("{e}: {text}\n{errors}"))
}

/// The child: sets up what a user has, runs the workflow twice, and takes it back.
pub(crate) async fn child(task: &str) {
    let task: Task = serde_json::from_str(task).expect("a task");
    // Nothing but the standard chain.
    let clients = AwsClients::connect(&ClientsConfig::new(REGION)).await;
    let given = Given::make(&clients).await;
    let mut activities = ActivityRegistry::new();
    dssflow_activities::register_all(&mut activities).expect("no name is taken twice");
    activities.add(TABLE, Table).expect("the name is free");
    let store = Arc::new(MemoryStore::new(StoreId::generate([7; 16])));
    let engine = Engine::builder(store).activities(activities).resource(clients.clone()).build();
    let graph = graph(&task, &given);

    let first = go(&engine, "mini-1", &graph).await;
    let digest = v2_digest(&task).await;
    // The same again: everything is found, nothing is made.
    let second = go(&engine, "mini-2", &graph).await;
    let back = engine.rollback(&first.run, Vec::new(), Request::by("test")).await.expect("it goes back");
    let back = back.wait().await.expect("it is driven to an end");
    let outputs: BTreeMap<&str, Value> = first
        .steps
        .iter()
        .map(|s| {
            (
                s.step.as_str(),
                s.output.as_ref().map_or(Value::Null, |o| serde_json::to_value(o).expect("JSON")),
            )
        })
        .collect();
    let troubles: Vec<String> = [&first, &second, &back]
        .iter()
        .flat_map(|view| {
            view.steps.iter().filter_map(|s| s.error.as_ref().map(|e| format!("{}: {e}", s.step)))
        })
        .collect();
    let status = |view: &RunView| serde_json::to_value(view.status).expect("JSON");
    println!(
        "{}",
        json!({
            "status": status(&first),
            "second": status(&second),
            "rolled_back": status(&back),
            "outputs": outputs,
            "errors": troubles,
            "v2_digest": digest,
            "left": left(&clients, &task).await,
            "steps": first.steps.iter().map(|s| s.step.as_str()).collect::<Vec<_>>().join(", "),
        })
    );
}

async fn go(engine: &Engine, id: &str, graph: &Graph) -> RunView {
    let mut start = StartRun::new(WorkflowName::new("ministack").expect("a name"), graph.clone());
    start.site = "mini".into();
    let start = start.id(RunId::new(id).expect("an id"));
    engine.start(start).await.expect("it starts").wait().await.expect("it is driven to an end")
}

/// What the emulator's data plane has under the tag, asked as Docker would.
async fn v2_digest(task: &Task) -> Option<String> {
    let url = format!("http://{}/v2/lab/exec/manifests/1.0", task.registry);
    let answer = reqwest::get(url).await.expect("it answers");
    answer.headers().get("docker-content-digest").and_then(|d| d.to_str().ok()).map(str::to_owned)
}

/// What is left of what the first run made.
async fn left(clients: &AwsClients, task: &Task) -> Vec<String> {
    let mut left = Vec::new();
    let repositories = clients.ecr().describe_repositories().send().await.expect("asked");
    left.extend(repositories.repositories().iter().filter_map(|r| r.repository_name()).map(str::to_owned));
    let databases = clients.glue().get_databases().send().await.expect("asked");
    left.extend(
        databases.database_list().iter().map(|d| d.name().to_owned()).filter(|name| name != "default"),
    );
    left.extend(v2_digest(task).await);
    left
}

/// What a user has before a bootstrap: an instance in a VPC with subnets, and a bucket.
struct Given {
    instance: String,
    vpc: String,
    subnets: Vec<String>,
    bucket: &'static str,
}

impl Given {
    async fn make(clients: &AwsClients) -> Self {
        let ec2 = clients.ec2();
        let vpc = ec2.create_vpc().cidr_block("10.7.0.0/16").send().await.expect("a VPC");
        let vpc = vpc.vpc().and_then(|v| v.vpc_id()).expect("an id").to_owned();
        let gateway = ec2.create_internet_gateway().send().await.expect("a gateway");
        let gateway =
            gateway.internet_gateway().and_then(|g| g.internet_gateway_id()).expect("an id").to_owned();
        let attach = ec2.attach_internet_gateway().internet_gateway_id(&gateway).vpc_id(&vpc);
        attach.send().await.expect("attached");
        let table = ec2.create_route_table().vpc_id(&vpc).send().await.expect("a table");
        let table = table.route_table().and_then(|t| t.route_table_id()).expect("an id").to_owned();
        let route = ec2.create_route().route_table_id(&table).destination_cidr_block("0.0.0.0/0");
        route.gateway_id(&gateway).send().await.expect("a route");
        let mut subnets = Vec::new();
        for (block, zone) in [("10.7.1.0/24", "us-east-1a"), ("10.7.2.0/24", "us-east-1b")] {
            let made =
                ec2.create_subnet().vpc_id(&vpc).cidr_block(block).availability_zone(zone).send().await;
            let made = made.expect("a subnet");
            let id = made.subnet().and_then(|s| s.subnet_id()).expect("an id").to_owned();
            let public = aws_sdk_ec2::types::AttributeBooleanValue::builder().value(true).build();
            let change = ec2.modify_subnet_attribute().subnet_id(&id).map_public_ip_on_launch(public);
            change.send().await.expect("it gives public addresses");
            ec2.associate_route_table()
                .route_table_id(&table)
                .subnet_id(&id)
                .send()
                .await
                .expect("associated");
            subnets.push(id);
        }
        // In its VPC's default group from the start: ministack cannot change an instance's groups.
        let group = instance::default_security_group(clients, &vpc).await.expect("every VPC has one");
        let run = ec2
            .run_instances()
            .security_group_ids(group)
            .image_id("ami-0123456789abcdef0")
            .instance_type("m5.4xlarge".into());
        let run = run.min_count(1).max_count(1).subnet_id(&subnets[0]).send().await.expect("an instance");
        let instance = run.instances().first().and_then(|i| i.instance_id()).expect("an id").to_owned();
        let bucket = "dssflow-mini";
        clients.s3().create_bucket().bucket(bucket).send().await.expect("a bucket");
        Self { instance, vpc, subnets, bucket }
    }
}

fn name(step: &str) -> StepName {
    StepName::new(step).expect("a step's name")
}

/// The steps, in the order of the bootstrap: what of its graph this emulator can serve.
fn graph(task: &Task, given: &Given) -> Graph {
    let out = |step: &str, pointer: &str| Binding::output(&name(step), pointer);
    let step = |step: &str, activity: &str, literal: Value, bound: &[(&str, Binding)], after: &[&str]| {
        let Value::Object(literal) = literal else { panic!("an input is an object") };
        let mut fields: BTreeMap<String, Binding> =
            literal.into_iter().map(|(key, value)| (key, Binding::Literal { value })).collect();
        fields.extend(bound.iter().map(|(key, binding)| ((*key).to_owned(), binding.clone())));
        let activity = ActivityName::new(activity).expect("an activity's name");
        let mut step = Step::activity(name(step), activity, Binding::Object { fields });
        step.after = after.iter().map(|s| name(s)).collect();
        step
    };
    let results = format!("s3://{}/results/", given.bucket);
    let mut graph = Graph::builder();
    let mut steps = vec![
        step("identity", identity::NAME, json!({ "region": REGION, "expected_account": ACCOUNT }), &[], &[]),
        step(
            "instance",
            instance::NAME,
            json!({ "instance_id": given.instance, "min_memory_mib": 1024 }),
            &[],
            &["identity"],
        ),
        step(
            "network",
            network::NAME,
            json!({ "subnets": given.subnets, "security_groups": [], "public": true }),
            &[("vpc_id", out("instance", "/vpc_id"))],
            &[],
        ),
        step(
            "default-sg",
            default_sg::NAME,
            json!({ "instance_id": given.instance, "vpc_id": given.vpc }),
            &[],
            &["network"],
        ),
        step("repositories", repositories::NAME, json!({ "names": ["lab/exec"] }), &[], &["network"]),
        step("bucket", bucket::NAME, json!({ "bucket": given.bucket }), &[], &["identity"]),
        step("database", glue_database::NAME, json!({ "name": "Mini_Main" }), &[], &["bucket"]),
        step(
            "table",
            TABLE,
            json!({ "bucket": given.bucket }),
            &[("database", out("database", "/name"))],
            &[],
        ),
        step(
            "query",
            athena_query::NAME,
            json!({ "sql": "SELECT k, SUM(v) AS s FROM t GROUP BY k ORDER BY k", "output_location": results }),
            &[("database", out("database", "/name"))],
            &["table"],
        ),
    ];
    if let Some((socket, context)) = &task.docker {
        steps.push(step(
            "build",
            build::NAME,
            json!({ "context": context, "image": "lab/exec", "tag": "mini", "network": "none", "docker_host": socket }),
            &[],
            &["identity"],
        ));
        // ECR's own names lead nowhere here; the data plane is on the emulator's port.
        let target = json!({
            "registry": task.registry,
            "repository": "lab/exec",
            "tags": ["1.0"],
            "login": Login::Ecr,
            "docker_host": socket,
        });
        steps.push(step(
            "push",
            push::NAME,
            target,
            &[("image", out("build", "/image_id"))],
            &["repositories"],
        ));
        let wanted = json!([{ "repository": "lab/exec", "tag": "1.0" }]);
        steps.push(step("pushed", images::NAME, json!({ "images": wanted }), &[], &["push"]));
    }
    for step in steps {
        graph.push(step);
    }
    graph.build().expect("the graph holds together")
}

/// What DSS does when a dataset of an S3 connection is built: an object, and a table over it.
const TABLE: &str = "test.table";

struct Table;

#[derive(Debug, Serialize, Deserialize)]
struct TableAt {
    bucket: String,
    database: String,
}

impl Activity for Table {
    type Input = TableAt;
    type Output = ();

    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    async fn execute(&self, ctx: &ActivityContext, at: &TableAt) -> ActivityResult<()> {
        let clients = AwsClients::of(ctx)?;
        let put = clients.s3().put_object().bucket(&at.bucket).key("data/t/part-0.csv");
        settle(Box::pin(put.body(ROWS.as_bytes().to_vec().into()).send())).await?;
        let column = |name: &str| Column::builder().name(name).r#type("int").build().expect("a column");
        let serde = SerDeInfo::builder()
            .serialization_library("org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe")
            .parameters("field.delim", ",")
            .build();
        let storage = StorageDescriptor::builder()
            .columns(column("k"))
            .columns(column("v"))
            .location(format!("s3://{}/data/t/", at.bucket))
            .input_format("org.apache.hadoop.mapred.TextInputFormat")
            .output_format("org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat")
            .serde_info(serde)
            .build();
        let table = TableInput::builder()
            .name("t")
            .table_type("EXTERNAL_TABLE")
            .set_parameters(Some(tags::map(&ctx.marks())))
            .storage_descriptor(storage)
            .build()
            .expect("a table has a name");
        let there = clients.glue().get_table().database_name(&at.database).name("t").send().await.is_ok();
        if !there {
            let create = clients.glue().create_table().database_name(&at.database).table_input(table);
            settle(Box::pin(create.send())).await?;
        }
        Ok(())
    }

    async fn compensate(&self, ctx: &ActivityContext, at: &TableAt, _: &Recorded) -> ActivityResult<Undo> {
        let clients = AwsClients::of(ctx)?;
        settle(clients.glue().delete_table().database_name(&at.database).name("t").send()).await?;
        settle(clients.s3().delete_object().bucket(&at.bucket).key("data/t/part-0.csv").send()).await?;
        Ok(Undo::Undone)
    }
}

async fn settle<T, E: std::fmt::Debug>(call: impl Future<Output = Result<T, E>>) -> ActivityResult<T> {
    call.await.map_err(|e| ActivityError::terminal("TableFailed", format!("{e:?}")))
}
