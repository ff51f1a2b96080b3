//! New runs, where the owner is `serve`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};

use super::{Answer, Body, Shared, to_the_end};
use crate::control::{Checked, Order};

pub(super) async fn check(State(owner): Shared, Body(order): Body<Order>) -> Answer<Json<Checked>> {
    Ok(Json(Box::pin(owner.service()?.check(&order)).await?))
}

pub(super) async fn start(State(owner): Shared, Body(order): Body<Order>) -> Answer<Response> {
    let service = owner.service()?.clone();
    let driven = to_the_end(async move { Box::pin(service.order(&order)).await }).await?;
    Ok(match driven {
        Some(driven) if driven.seq == 0 => (StatusCode::CREATED, Json(driven)).into_response(),
        Some(driven) => (StatusCode::ACCEPTED, Json(driven)).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}
