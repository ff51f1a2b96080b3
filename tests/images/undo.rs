//! Taking a push back: what was there before is there again, and nothing of others is gone.

use std::sync::Arc;

use dssflow_activities::docker::push::PushImage;
use dssflow_engine::activity::{Activity, Recorded, Undo};

use crate::lab::RegistryLab;
use crate::{PASSWORD, USER, World};

pub(crate) async fn new_tag(world: Arc<World>) {
    let built = world.built("run-1", "lab/new", "1", "new").await;
    let input = world.push(&built.image_id, "lab/new", "1");
    let (ctx, ledger) = world.ctx("run-1", "push");
    assert_eq!(PushImage.compensate(&ctx, &input, &Recorded::default()).await, Ok(Undo::NothingToDo));
    let pushed = PushImage.execute(&ctx, &input).await.expect("it is pushed");
    assert!(world.daemon.find(&pushed.references[0]).await.expect("asked").is_some());
    assert_eq!(PushImage.compensate(&ctx, &input, &ledger.recorded()).await, Ok(Undo::Undone));
    for reference in ["1", &pushed.digest] {
        assert_eq!(world.tagged("lab/new", reference).await, None, "{reference}");
    }
    assert_eq!(world.daemon.find(&pushed.references[0]).await, Ok(None), "the name for the push is gone");
    assert!(world.daemon.find("lab/new:1").await.expect("asked").is_some(), "the image is the build's");
    assert_eq!(PushImage.compensate(&ctx, &input, &ledger.recorded()).await, Ok(Undo::NothingToDo));
}

pub(crate) async fn old_tag(world: Arc<World>) {
    let old = world.built("run-0", "lab/old", "1", "old").await;
    let new = world.built("run-1", "lab/old", "2", "new in place of old").await;
    let (ctx, _) = world.ctx("run-0", "push");
    let before =
        PushImage.execute(&ctx, &world.push(&old.image_id, "lab/old", "stable")).await.expect("pushed");

    let input = world.push(&new.image_id, "lab/old", "stable");
    let (ctx, ledger) = world.ctx("run-1", "push");
    let after = PushImage.execute(&ctx, &input).await.expect("it is pushed");
    assert_ne!(before.digest, after.digest);
    let repository = "lab/old";
    assert_eq!(world.tagged(repository, "stable").await.as_ref(), Some(&after.digest));

    assert_eq!(PushImage.compensate(&ctx, &input, &ledger.recorded()).await, Ok(Undo::Undone));
    assert_eq!(world.tagged(repository, "stable").await.as_ref(), Some(&before.digest), "the tag is back");
    assert_eq!(world.tagged(repository, &after.digest).await, None, "what was pushed is gone");
    let local = world.daemon.find(&after.references[0]).await.expect("asked").expect("the name is back");
    assert_eq!(local.id, old.image_id);
    assert_eq!(PushImage.compensate(&ctx, &input, &ledger.recorded()).await, Ok(Undo::NothingToDo));
}

pub(crate) async fn beside_others(world: Arc<World>) {
    let ours = world.built("run-1", "lab/beside", "1", "ours").await;
    let theirs = world.built("run-9", "lab/beside", "9", "theirs").await;
    let repository = "lab/beside";
    let (stranger, _) = world.ctx("run-9", "push");

    // Somebody moved the tag: it stays theirs, and our image goes.
    let input = world.push(&ours.image_id, "lab/beside", "moved");
    let (ctx, ledger) = world.ctx("run-1", "push");
    let pushed = PushImage.execute(&ctx, &input).await.expect("it is pushed");
    let moved = PushImage.execute(&stranger, &world.push(&theirs.image_id, "lab/beside", "moved")).await;
    let moved = moved.expect("they push");
    assert_eq!(PushImage.compensate(&ctx, &input, &ledger.recorded()).await, Ok(Undo::Undone));
    assert_eq!(world.tagged(repository, "moved").await.as_ref(), Some(&moved.digest));
    assert_eq!(world.tagged(repository, &pushed.digest).await, None);
    let local = world.daemon.find(&pushed.references[0]).await.expect("asked").expect("it stays");
    assert_eq!(local.id, theirs.image_id, "the name on this machine is theirs as well");

    // Somebody else gave the same image a tag: this registry cannot take a single tag away, so it stays and is told.
    let input = world.push(&ours.image_id, "lab/beside", "shared");
    let (ctx, ledger) = world.ctx("run-2", "push");
    let pushed = PushImage.execute(&ctx, &input).await.expect("it is pushed");
    PushImage.execute(&stranger, &world.push(&ours.image_id, "lab/beside", "prod")).await.expect("they push");
    let undo = PushImage.compensate(&ctx, &input, &ledger.recorded()).await;
    assert!(matches!(&undo, Ok(Undo::Kept { reason }) if reason.contains("shared")), "{undo:?}");
    assert_eq!(
        world.tagged(repository, "prod").await.as_ref(),
        Some(&pushed.digest),
        "nothing of others is deleted"
    );

    // It was there before under another tag: the same.
    let input = world.push(&ours.image_id, "lab/beside", "again");
    let (ctx, ledger) = world.ctx("run-3", "push");
    PushImage.execute(&ctx, &input).await.expect("it is pushed");
    PushImage.compensate(&ctx, &input, &ledger.recorded()).await.expect("undone as far as it can be");
    assert_eq!(world.tagged(repository, "prod").await.as_ref(), Some(&pushed.digest));
}

pub(crate) async fn nothing_deleted(world: Arc<World>) {
    let registry = RegistryLab::start(&world.docker.scratch("keeper"), USER, PASSWORD, false).await;
    let built = world.built("run-1", "lab/kept", "1", "kept").await;
    let mut input = world.push(&built.image_id, "lab/kept", "1");
    input.registry.clone_from(&registry.host);
    let (ctx, ledger) = world.ctx("run-1", "push");
    let pushed = PushImage.execute(&ctx, &input).await.expect("it is pushed");
    let undo = PushImage.compensate(&ctx, &input, &ledger.recorded()).await;
    assert!(matches!(&undo, Ok(Undo::Kept { reason }) if reason.contains("does not delete")), "{undo:?}");
    assert_eq!(world.registry_digest(&registry, "lab/kept", "1").await, Some(pushed.digest));
    assert_eq!(
        world.daemon.find(&pushed.references[0]).await,
        Ok(None),
        "the name on this machine goes all the same"
    );
}
