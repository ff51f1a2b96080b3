//! Pushing: by content, with a login that is nowhere afterwards, and through every way in which it can go wrong.

use std::sync::Arc;

use dssflow_activities::clients::{AwsClients, ClientsConfig, StaticCredentials};
use dssflow_activities::docker::push::{KIND, PushImage};
use dssflow_activities::docker::registry::Login;
use dssflow_activities::secret::SecretRef;
use dssflow_engine::activity::{Activity, ErrorClass, Owner, Probe, Undo};

use crate::ecr_stub::EcrStub;
use crate::{PASSWORD, USER, World, secret};

pub(crate) async fn once(world: Arc<World>) {
    let built = world.built("run-1", "lab/push", "1", "push").await;
    // By its id, so that the name may move meanwhile.
    let input = world.push(&built.image_id, "lab/push", "1.0");
    let (ctx, ledger) = world.ctx("run-1", "push");
    assert_eq!(PushImage.probe(&ctx, &input).await, Ok(Probe::Absent));
    let pushed = PushImage.execute(&ctx, &input).await.expect("it is pushed");
    assert_eq!(pushed.references[0], format!("{}/lab/push:1.0", world.registry.host), "no scheme in it");
    let there = world.tagged("lab/push", "1.0").await;
    assert_eq!(there.as_ref(), Some(&pushed.digest), "the registry says the same");
    let recorded = ledger.recorded();
    let wanted = format!("{}/lab/push@{}", world.registry.host, pushed.digest);
    assert_eq!(recorded.ids(KIND).collect::<Vec<_>>(), [&wanted]);
    let beats = ledger.beats();
    assert!(beats.iter().any(|beat| beat["layers"] == 1 && beat["there"] == 1), "{beats:?}");

    // Again: nothing to do, for this run and for every other, also when Docker has forgotten that it pushed it.
    for (run, image) in [("run-1", built.image_id.as_str()), ("run-2", "lab/push:1")] {
        let (ctx, _) = world.ctx(run, "push");
        let found = PushImage.probe(&ctx, &world.push(image, "lab/push", "1.0")).await;
        let owner = Owner::ThisSite(String::new());
        assert_eq!(found, Ok(Probe::Present { output: pushed.clone(), owner }));
    }
    let other = world.built("run-1", "lab/push-other", "1", "another").await;
    let (ctx, _) = world.ctx("run-1", "push");
    let found = PushImage.probe(&ctx, &world.push(&other.image_id, "lab/push", "1.0")).await;
    assert_eq!(found, Ok(Probe::Absent), "the tag stands for another image");
    let error =
        PushImage.execute(&ctx, &world.push("lab/none:1", "lab/push", "1.0")).await.expect_err("no image");
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Terminal, "ImageMissing"));

    // The password went to the daemon and to the registry, and is in nothing that is kept.
    let kept =
        format!("{} {}", ledger.text(), serde_json::to_string(&(&input, &pushed)).expect("plain data"));
    assert!(!kept.contains("canary"), "{kept}");
    let home = std::env::var("HOME").unwrap_or_default();
    let config = std::fs::read_to_string(format!("{home}/.docker/config.json")).unwrap_or_default();
    assert!(!config.contains(&world.registry.host), "the login was stored");
}

/// The registry has it all, and the process dies before it can say so.
pub(crate) async fn lost(world: Arc<World>) {
    let built = world.built("run-1", "lab/lost-push", "1", "lost-push").await;
    let input = world.push(&built.image_id, "lab/lost-push", "1");
    let (ctx, ledger) = world.ctx("run-1", "push");
    ledger.hang_at(KIND);
    {
        let attempt = PushImage.execute(&ctx, &input);
        tokio::pin!(attempt);
        loop {
            tokio::select! {
                ended = &mut attempt => panic!("it was to hang: {ended:?}"),
                () = ledger.told() => {}
            }
            if world.tagged("lab/lost-push", "1").await.is_some() {
                break;
            }
        }
    }
    assert_eq!(ledger.recorded().ids(KIND).count(), 0);
    assert!(
        matches!(PushImage.probe(&ctx, &input).await, Ok(Probe::Present { .. })),
        "it is known by content"
    );
    // Also an undo knows it: what was about to be pushed is written down before.
    assert_eq!(PushImage.compensate(&ctx, &input, &ledger.recorded()).await, Ok(Undo::Undone));
    assert_eq!(world.tagged("lab/lost-push", "1").await, None);
    assert_eq!(PushImage.compensate(&ctx, &input, &ledger.recorded()).await, Ok(Undo::NothingToDo));
}

/// The client goes away in the middle of a layer.
pub(crate) async fn cut_off(world: Arc<World>) {
    let context = world.docker.scratch("cut-off");
    std::fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY layer /\n").expect("written");
    // No two blocks alike, so that it does not shrink on its way.
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    })
    .take(48 * 1024 * 1024)
    .collect();
    std::fs::write(context.join("layer"), noise).expect("written");
    let (ctx, _) = world.ctx("run-1", "build");
    let build = world.build(&context, "lab/cut-off", "1");
    let built =
        dssflow_activities::docker::build::BuildImage.execute(&ctx, &build).await.expect("it is built");

    let input = world.push(&built.image_id, "lab/cut-off", "1");
    let (ctx, ledger) = world.ctx("run-1", "push");
    {
        let attempt = PushImage.execute(&ctx, &input);
        tokio::pin!(attempt);
        loop {
            tokio::select! {
                ended = &mut attempt => panic!("it was to be cut off: {ended:?}"),
                () = ledger.told() => {}
            }
            let beats = ledger.beats();
            if beats.last().is_some_and(|beat| beat["bytes"].as_u64().is_some_and(|n| n > 0)) {
                assert!(
                    beats.last().expect("just seen")["of_bytes"].as_u64() > Some(40_000_000),
                    "{beats:?}"
                );
                break;
            }
        }
    }
    // The next attempt looks first, then completes it, whatever the daemon still did of the first.
    let again = world.hand.ctx_with(1, "run-1", "push", &ledger);
    assert!(PushImage.probe(&again, &input).await.is_ok());
    let pushed = PushImage.execute(&again, &input).await.expect("it is completed");
    let there = world.tagged("lab/cut-off", "1").await;
    assert_eq!(there, Some(pushed.digest));
    assert_eq!(PushImage.compensate(&again, &input, &ledger.recorded()).await, Ok(Undo::Undone));
    assert_eq!(world.tagged("lab/cut-off", "1").await, None, "there was none before");
}

pub(crate) async fn refused(world: Arc<World>) {
    let built = world.built("run-1", "lab/refused", "1", "refused").await;
    let file = world.docker.scratch("secrets").join("changing");
    secret(&file, "canary-of-yesterday");
    let mut input = world.push(&built.image_id, "lab/refused", "1");
    input.login = Login::Basic { username: USER.into(), password: SecretRef::File { file: file.clone() } };
    let (ctx, ledger) = world.ctx("run-1", "push");
    let looked = PushImage.probe(&ctx, &input).await.expect_err("the login is refused");
    let tried = PushImage.execute(&ctx, &input).await.expect_err("the login is refused");
    for error in [looked, tried] {
        assert_eq!(
            (error.class, error.code.as_str()),
            (ErrorClass::Credentials, "RegistryLoginRefused"),
            "{error}"
        );
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    }
    // Read anew by each attempt: once it is mended the run goes on.
    secret(&file, PASSWORD);
    PushImage.execute(&ctx, &input).await.expect("now it is pushed");
    assert!(!ledger.text().contains("canary"), "{}", ledger.text());

    input.login = Login::Anonymous;
    let (ctx, _) = world.ctx("run-2", "push");
    let error = PushImage.probe(&ctx, &input).await.expect_err("nobody is let in");
    assert_eq!(error.class, ErrorClass::Credentials);

    let mut nowhere = world.push(&built.image_id, "lab/refused", "1");
    nowhere.registry = "127.0.0.1:1".into();
    let error = PushImage.execute(&ctx, &nowhere).await.expect_err("nobody listens");
    let seen = (error.class, error.code.as_str(), error.no_effect);
    assert_eq!(seen, (ErrorClass::Retryable, "RegistryUnreachable", true), "{error}");
}

/// ECR's token is fetched for each push: one that is over costs an attempt and no person's time (P04).
pub(crate) async fn expired(world: Arc<World>) {
    let stub = EcrStub::start(&world.registry.host, USER, PASSWORD).await;
    let mut spec = ClientsConfig::new("eu-west-1");
    spec.endpoint_url = Some(stub.endpoint.clone());
    spec.credentials = Some(StaticCredentials::new("AKIDEXAMPLE", "secret"));
    let mut hand = world.hand.clone();
    hand.resources.insert(AwsClients::connect(&spec).await);

    let built = world.built("run-1", "lab/ecr", "1", "ecr").await;
    let mut input = world.push(&built.image_id, "lab/ecr", "1");
    input.login = Login::Ecr;
    let (ctx, ledger) = hand.ctx(1, "run-1", "push");
    stub.token("canary-of-a-token-that-is-over");
    let error = PushImage.execute(&ctx, &input).await.expect_err("the token is over");
    let seen = (error.class, error.code.as_str());
    assert_eq!(seen, (ErrorClass::Retryable, "RegistryLoginExpired"), "{error}");
    assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    let before = stub.tokens_given();

    stub.token(PASSWORD);
    let again = hand.ctx_with(1, "run-1", "push", &ledger);
    assert_eq!(PushImage.probe(&again, &input).await, Ok(Probe::Absent));
    let pushed = PushImage.execute(&again, &input).await.expect("a new token is asked for");
    assert_eq!(stub.tokens_given(), before + 1, "one for each push, and none for a look");
    let there = world.tagged("lab/ecr", "1").await;
    assert_eq!(there, Some(pushed.digest));
    assert!(!ledger.text().contains("canary"), "{}", ledger.text());

    assert_eq!(PushImage.compensate(&again, &input, &ledger.recorded()).await, Ok(Undo::Undone));
    assert_eq!(world.tagged("lab/ecr", "1").await, None);
}
