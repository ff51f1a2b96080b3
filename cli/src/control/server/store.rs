//! The store as a whole, and how its owner stands.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use dssflow_engine::store::{Store as _, VerifyReport};

use super::{Answer, Body, Owner, Shared, to_the_end};
use crate::api::metrics;
use crate::commands::prune::carry_out;
use crate::control::{Health, OwnerInfo, PruneDone, PruneOrder, Standing};

pub(super) async fn health(State(owner): Shared) -> Json<Health> {
    Json(standing(&owner))
}

pub(super) async fn metrics(State(owner): Shared) -> Answer<Response> {
    let text = metrics::text(&owner.counts, &owner.store, &standing(&owner)).await?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

fn standing(owner: &Owner) -> Health {
    match &owner.service {
        Some(service) => service.health(),
        None => Health {
            status: Standing::Ok,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            serves: false,
            since: owner.since,
            listens: None,
            driven: owner.engine.live_runs().len(),
            queued: owner.engine.queued(),
            recovered: 0,
            recover_ms: 0,
            parked: Vec::new(),
        },
    }
}

pub(super) async fn info(State(owner): Shared) -> Answer<Json<OwnerInfo>> {
    let info = owner.store.info().await?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Ok(Json(OwnerInfo { info, version, live: owner.engine.live_runs(), serves: owner.service.is_some() }))
}

pub(super) async fn verify(State(owner): Shared) -> Answer<Json<VerifyReport>> {
    Ok(Json(owner.store.verify().await?))
}

pub(super) async fn prune(State(owner): Shared, Body(order): Body<PruneOrder>) -> Answer<Json<PruneDone>> {
    owner.must_go_on()?;
    let Owner { engine, store, .. } = owner;
    let done = to_the_end(async move { carry_out(&engine, store.path(), &order, &mut |_, _| ()).await });
    Ok(Json(done.await?))
}
