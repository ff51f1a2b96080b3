//! Building: once for the same files, anew for others, and never half.

use std::path::Path;
use std::sync::Arc;

use bollard::query_parameters::BuildImageOptions;
use bollard::{Docker, body_try_stream};
use dssflow_activities::docker::build::{BuildImage, KIND};
use dssflow_activities::docker::context::Context;
use dssflow_activities::docker::daemon::{INPUT_HASH, MARKS};
use dssflow_engine::activity::{Activity, ErrorClass, Owner, Probe, Recorded, Undo};
use futures::StreamExt;

use crate::World;

pub(crate) async fn once(world: Arc<World>) {
    let dockerfile = "FROM scratch\nARG GREETING\nCOPY busybox /busybox\nRUN [\"/busybox\", \"echo\", \"printed-by-run\"]\n";
    let context = world.docker.context("once", dockerfile);
    let mut input = world.build(&context, "lab/once", "1.0");
    input.build_args.insert("GREETING".into(), "hello".into());
    let (ctx, ledger) = world.ctx("run-1", "build");
    assert_eq!(BuildImage.probe(&ctx, &input).await, Ok(Probe::Absent));
    let made = BuildImage.execute(&ctx, &input).await.expect("it is built");
    assert_eq!(BuildImage.verify(&ctx, &input, &made).await, Ok(()));
    assert_eq!(made.image, "lab/once:1.0");
    assert!(made.size > 1_000_000, "busybox is in it: {made:?}");

    let image = world.daemon.find("lab/once:1.0").await.expect("asked").expect("it is there");
    assert_eq!(image.id, made.image_id);
    assert_eq!(image.labels.get(INPUT_HASH), Some(&made.input_hash));
    assert!(image.labels.get(MARKS).is_some_and(|marks| marks.contains("\"dssflow:step\":\"build\"")));
    assert_eq!(ledger.recorded().ids(KIND).collect::<Vec<_>>(), [&made.image_id]);
    let beats = ledger.beats();
    // Docker adds a step of its own for each label.
    assert!(beats.iter().any(|beat| beat["step"] == "4/6"), "{beats:?}");
    assert!(!ledger.text().contains("printed-by-run"), "what a build prints is not ours to keep");

    // The same again does nothing, whoever asks.
    for (store, run, owner) in [
        (1, "run-1", Owner::ThisRun),
        (1, "run-2", Owner::ThisSite("run-1".into())),
        (2, "run-1", Owner::ThisSite(String::new())),
    ] {
        let (ctx, _) = world.hand.ctx(store, run, "build");
        assert_eq!(BuildImage.probe(&ctx, &input).await, Ok(Probe::Present { output: made.clone(), owner }));
    }
    let (later, _) = world.ctx("run-2", "build");
    let nothing = BuildImage.compensate(&later, &input, &Recorded::default()).await;
    assert_eq!(nothing, Ok(Undo::NothingToDo), "it is another run's");

    assert_eq!(BuildImage.compensate(&ctx, &input, &ledger.recorded()).await, Ok(Undo::Undone));
    assert_eq!(world.daemon.find(&made.image_id).await, Ok(None), "no image is left without a name");
    assert_eq!(BuildImage.probe(&ctx, &input).await, Ok(Probe::Absent));
    assert_eq!(BuildImage.compensate(&ctx, &input, &ledger.recorded()).await, Ok(Undo::NothingToDo));
}

pub(crate) async fn anew(world: Arc<World>) {
    let context = world.docker.context("anew", "FROM scratch\nCOPY a /\n");
    std::fs::write(context.join("a"), "one").expect("written");
    std::fs::write(context.join(".dockerignore"), "notes\n").expect("written");
    let input = world.build(&context, "lab/anew", "1");
    let (first, first_ledger) = world.ctx("run-1", "build");
    let one = BuildImage.execute(&first, &input).await.expect("it is built");

    std::fs::write(context.join("notes"), "ignored").expect("written");
    let (ctx, ledger) = world.ctx("run-2", "build");
    assert!(
        matches!(BuildImage.probe(&ctx, &input).await, Ok(Probe::Present { .. })),
        "an ignored file is none"
    );
    std::fs::write(context.join("a"), "two").expect("written");
    assert_eq!(BuildImage.probe(&ctx, &input).await, Ok(Probe::Absent));
    let two = BuildImage.execute(&ctx, &input).await.expect("it is built");
    assert!(one.image_id != two.image_id && one.input_hash != two.input_hash);
    let mut argued = input.clone();
    argued.build_args.insert("V".into(), "2".into());
    assert_eq!(BuildImage.probe(&ctx, &argued).await, Ok(Probe::Absent), "another argument is another image");

    // The name goes back to the image of the run before.
    assert_eq!(BuildImage.compensate(&ctx, &input, &ledger.recorded()).await, Ok(Undo::Undone));
    let now = world.daemon.find("lab/anew:1").await.expect("asked").expect("it is there");
    assert_eq!(now.id, one.image_id);
    assert_eq!(world.daemon.find(&two.image_id).await, Ok(None));
    assert_eq!(BuildImage.compensate(&ctx, &input, &ledger.recorded()).await, Ok(Undo::NothingToDo));
    assert_eq!(BuildImage.compensate(&first, &input, &first_ledger.recorded()).await, Ok(Undo::Undone));
    assert_eq!(world.daemon.find("lab/anew:1").await, Ok(None));
}

pub(crate) async fn fails(world: Arc<World>) {
    let failing = "FROM scratch\nCOPY busybox /busybox\nRUN [\"/busybox\", \"sh\", \"-c\", \"echo it went wrong here; exit 7\"]\n";
    for (name, dockerfile, class, code, text) in [
        ("fails-run", failing, ErrorClass::Terminal, "BuildFailed", "it went wrong here"),
        ("fails-word", "FROM scratch\nCOPPY a /\n", ErrorClass::Terminal, "BuildFailed", "COPPY"),
        ("fails-copy", "FROM scratch\nCOPY nothing /\n", ErrorClass::Terminal, "BuildFailed", "nothing"),
        (
            "fails-from",
            "FROM 127.0.0.1:1/no/image:1\n",
            ErrorClass::Retryable,
            "BaseImageUnreachable",
            "127.0.0.1:1",
        ),
    ] {
        let context = world.docker.context(name, dockerfile);
        let input = world.build(&context, "lab/fails", "1");
        let (ctx, ledger) = world.ctx("run-1", name);
        let error = BuildImage.execute(&ctx, &input).await.expect_err("it fails");
        assert_eq!((error.class, error.code.as_str()), (class, code), "{error}");
        assert!(error.message.contains(text), "{error}");
        assert_eq!(BuildImage.compensate(&ctx, &input, &ledger.recorded()).await, Ok(Undo::NothingToDo));
    }
    assert_eq!(world.daemon.find("lab/fails:1").await, Ok(None), "a failed build gets no name");
    let (ctx, _) = world.ctx("run-1", "no-daemon");
    let mut input = world.build(&world.docker.context("fails-daemon", "FROM scratch\n"), "lab/fails", "1");
    input.docker_host = Some("unix:///nowhere/docker.sock".into());
    let error = BuildImage.execute(&ctx, &input).await.expect_err("nobody answers");
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Retryable, "DockerNotReady"), "{error}");
}

/// The process dies when the image is complete and has no name yet: the next attempt takes it.
pub(crate) async fn lost(world: Arc<World>) {
    let context = world.docker.context("lost", "FROM scratch\nCOPY busybox /lost\n");
    let input = world.build(&context, "lab/lost", "1");
    let (ctx, ledger) = world.ctx("run-1", "build-lost");
    ledger.hang_at(KIND);
    {
        let attempt = BuildImage.execute(&ctx, &input);
        tokio::pin!(attempt);
        loop {
            tokio::select! {
                ended = &mut attempt => panic!("it was to hang: {ended:?}"),
                () = ledger.told() => {}
            }
            if !world.daemon.built_by(&ctx.marks()).await.expect("asked").is_empty() {
                break;
            }
        }
    }
    assert_eq!(world.daemon.find("lab/lost:1").await, Ok(None));
    assert_eq!(BuildImage.probe(&ctx, &input).await, Ok(Probe::Absent));
    let (again, ledger) = world.ctx("run-1", "build-lost");
    let made = BuildImage.execute(&again, &input).await.expect("it is taken");
    assert_eq!(ledger.beats(), [] as [serde_json::Value; 0], "nothing was built");
    assert_eq!(BuildImage.compensate(&again, &input, &ledger.recorded()).await, Ok(Undo::Undone));
    assert_eq!(world.daemon.find(&made.image_id).await, Ok(None));
}

/// Builds without labels, as people do; gives the image's id.
async fn by_hand(world: &World, context: &Path) -> String {
    let docker = Docker::connect_with_unix(&world.docker.host(), 60, bollard::API_DEFAULT_VERSION);
    let docker = docker.expect("a socket").negotiate_version().await.expect("the daemon answers");
    let context = Context::find(context, "Dockerfile").await.expect("a context");
    let (archive, _) = context.stream();
    let answers = docker.build_image(BuildImageOptions::default(), None, Some(body_try_stream(archive)));
    let answers: Vec<_> = answers.map(|answer| answer.expect("it is built")).collect().await;
    answers.into_iter().find_map(|answer| answer.aux?.id).expect("an id")
}

/// What others build on an image of ours has our labels, and is not ours.
pub(crate) async fn others(world: Arc<World>) {
    let context = world.docker.context("base", "FROM scratch\nCOPY busybox /busybox\n");
    let input = world.build(&context, "lab/base", "1");
    let (ctx, ledger) = world.ctx("run-1", "build-base");
    let base = BuildImage.execute(&ctx, &input).await.expect("it is built");

    // By hand, without labels of its own: it inherits ours, and then loses its name.
    let child = world.docker.context("child", "FROM lab/base:1\nCOPY child /\n");
    std::fs::write(child.join("child"), "x").expect("written");
    let child = by_hand(&world, &child).await;
    let inherited = world.daemon.find(&child).await.expect("asked").expect("it is there");
    assert_eq!(inherited.owner(&ctx.marks()), Owner::ThisRun, "the labels alone say so");

    // Something uses the base, so it cannot go; nothing of the child is touched.
    let undo = BuildImage.compensate(&ctx, &input, &ledger.recorded()).await;
    assert!(undo == Ok(Undo::Undone) || undo.as_ref().is_err_and(|e| e.code == "ImageInUse"), "{undo:?}");
    assert!(world.daemon.find(&child).await.expect("asked").is_some(), "an image of others went");
    world.daemon.remove(&child).await.expect("they remove it");
    BuildImage.compensate(&ctx, &input, &ledger.recorded()).await.expect("now it can go");
    assert_eq!(world.daemon.find(&base.image_id).await, Ok(None));

    // A name that somebody else took meanwhile stays theirs.
    let (ctx, ledger) = world.ctx("run-3", "build-base");
    BuildImage.execute(&ctx, &input).await.expect("it is built");
    let stranger = world.built("run-9", "lab/stranger", "1", "stranger").await;
    world.daemon.tag(&stranger.image_id, "lab/base", "1").await.expect("taken");
    BuildImage.compensate(&ctx, &input, &ledger.recorded()).await.expect("only what is ours goes");
    let now = world.daemon.find("lab/base:1").await.expect("asked").expect("it stays");
    assert_eq!(now.id, stranger.image_id);
}
