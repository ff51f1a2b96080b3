//! The workflow `image` as a whole: its file in, images in the registry, and all of it back.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use dssflow_engine::activity::ActivityRegistry;
use dssflow_engine::event::Request;
use dssflow_engine::id::{RunId, StoreId};
use dssflow_engine::run::view::RunView;
use dssflow_engine::run::{RunStatus, StepStatus};
use dssflow_engine::store::memory::MemoryStore;
use dssflow_engine::{Engine, StartRun};
use dssflow_workflows::image;

use crate::{USER, World};

pub(crate) async fn whole(world: Arc<World>) {
    let home = world.docker.scratch("workflow");
    for (name, text) in [("exec", "an image for code"), ("spark", "an image for Spark")] {
        let context = home.join(name);
        std::fs::create_dir_all(&context).expect("made");
        std::fs::write(context.join("Dockerfile"), "FROM scratch\nARG VERSION\nCOPY text /\n")
            .expect("written");
        std::fs::write(context.join("text"), text).expect("written");
    }
    let password = world.docker.scratch("secrets").join("password");
    let text = format!(
        "name: lab\nregistry: {{kind: basic, host: \"{}\", username: {USER}, password: {{file: {}}}}}\ndocker_host: {}\n\
         images:\n- {{name: exec, context: exec, repository: lab/wf-exec, tags: [\"1.0\", latest], network: none, \
         build_args: {{VERSION: \"1\"}}}}\n- {{name: spark, context: spark, repository: lab/wf-spark, tags: [\"1.0\"], \
         network: none}}\n",
        world.registry.host,
        password.display(),
        world.docker.host(),
    );
    let mut spec = image::parse(&text, "image.yaml").unwrap_or_else(|e| panic!("{e}"));
    spec.resolve(&home);

    let mut activities = ActivityRegistry::new();
    dssflow_activities::register_all(&mut activities).expect("no name is taken twice");
    let store = Arc::new(MemoryStore::new(StoreId::generate([3; 16])));
    let engine = Engine::builder(store).activities(activities).build();
    let run = async |id: &str| -> RunView {
        let workflow = image::image(&spec);
        let mut start = StartRun::new(workflow.name, workflow.graph).id(RunId::new(id).expect("an id"));
        (start.site, start.input, start.options) = (workflow.site, workflow.input, workflow.options);
        engine.start(start).await.expect("it starts").wait().await.expect("it is driven to an end")
    };

    let first = run("image-1").await;
    assert_eq!(first.status, RunStatus::Succeeded, "{first:#?}");
    let exec = world.tagged("lab/wf-exec", "1.0").await.expect("it is there");
    assert_eq!(world.tagged("lab/wf-exec", "latest").await.as_ref(), Some(&exec), "one image, two tags");
    assert!(world.tagged("lab/wf-spark", "1.0").await.is_some_and(|spark| spark != exec));

    // A second run finds all of it and makes nothing; taking it back takes nothing away.
    let second = run("image-2").await;
    assert_eq!(second.status, RunStatus::Succeeded, "{second:#?}");
    assert!(second.steps.iter().all(|s| s.status == StepStatus::Adopted), "{second:#?}");
    let back = async |id: &str| -> RunView {
        let id = RunId::new(id).expect("an id");
        let handle = engine.rollback(&id, Vec::new(), Request::by("test")).await.expect("it goes back");
        handle.wait().await.expect("it is driven to an end")
    };
    assert_eq!(back("image-2").await.status, RunStatus::RolledBack);
    assert_eq!(world.tagged("lab/wf-exec", "latest").await.as_ref(), Some(&exec));

    assert_eq!(back("image-1").await.status, RunStatus::RolledBack);
    for (repository, tag) in [("lab/wf-exec", "1.0"), ("lab/wf-exec", "latest"), ("lab/wf-spark", "1.0")] {
        assert_eq!(world.tagged(repository, tag).await, None, "{repository}:{tag}");
        assert_eq!(world.daemon.find(&format!("{repository}:{tag}")).await, Ok(None), "{repository}:{tag}");
    }
    let events = engine.history(&first.run, 0).await.expect("a history");
    let events = serde_json::to_string(&events).expect("events are JSON");
    assert!(!events.contains("canary"), "the password is in an event");
}

/// The same by the command, with a store on disk.
pub(crate) async fn by_command(world: Arc<World>) {
    let home = world.docker.scratch("command");
    std::fs::create_dir_all(home.join("exec")).expect("made");
    std::fs::write(home.join("exec/Dockerfile"), "FROM scratch\nCOPY text /\n").expect("written");
    std::fs::write(home.join("exec/text"), "built by the command").expect("written");
    let password = world.docker.scratch("secrets").join("password");
    let text = format!(
        "name: cmd\nregistry: {{kind: basic, host: \"{}\", username: {USER}, password: {{file: {}}}}}\ndocker_host: {}\n\
         images:\n- {{name: exec, context: exec, repository: lab/cmd, tags: [\"1.0\"], network: none}}\n",
        world.registry.host,
        password.display(),
        world.docker.host(),
    );
    std::fs::write(home.join("image.yaml"), text).expect("written");

    let first = dssflow(&home, &["run", "image", "--yes"]).await;
    assert!(first.contains("image-cmd") && first.contains("succeeded"), "{first}");
    let digest = world.tagged("lab/cmd", "1.0").await.expect("it is there");
    let second = dssflow(&home, &["run", "image", "--yes"]).await;
    assert!(second.contains("2 adopted"), "{second}");
    let back = dssflow(&home, &["rollback", "image-cmd", "--yes"]).await;
    assert!(!back.contains("canary"), "{back}");
    assert_eq!(world.tagged("lab/cmd", "1.0").await, None, "{digest} is still there");
    assert_eq!(world.daemon.find("lab/cmd:1.0").await, Ok(None));
}

/// What the command, built with this test, says; it must succeed.
async fn dssflow(home: &Path, args: &[&str]) -> String {
    let test = std::env::current_exe().expect("a test knows its path");
    let program = test.ancestors().nth(2).expect("target/debug/deps/test").join("dssflow");
    assert!(program.exists(), "{} is missing: build it with `cargo build -p dssflow`", program.display());
    let output = tokio::process::Command::new(program)
        .args(args)
        .current_dir(home)
        .env("DSSFLOW_STORE", home.join("store"))
        .env_remove("DOCKER_HOST")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("the command starts");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{}: {said}", output.status);
    said
}
