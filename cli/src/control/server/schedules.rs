//! Schedules: what the engine's handle offers, route by route.

use axum::Json;
use axum::extract::State;
use dssflow_engine::id::ScheduleId;
use dssflow_engine::runtime::schedules::Backfilled;
use dssflow_engine::runtime::{SchedulePage, Triggered};
use dssflow_engine::schedule::{ScheduleView, Update};
use dssflow_engine::time::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Answer, Body, Failure, Named, Params, Shared};
use crate::control::schedules::{Asks, ChangedSchedule, NewSchedule, Trigger, WantedBackfill};
use crate::error::{Code, CommandError};

fn id(text: String) -> Answer<ScheduleId> {
    ScheduleId::new(text).map_err(|e| Failure(CommandError::new(Code::Usage, e.to_string())))
}

/// Parameters of `GET /v1/schedules`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Which {
    /// Only those after this one by name, as `after` of the last page says.
    after: Option<String>,
    /// At most so many; 1000 when not given.
    limit: Option<u16>,
}

pub(super) async fn list(State(owner): Shared, Params(which): Params<Which>) -> Answer<Json<SchedulePage>> {
    let after = which.after.map(id).transpose()?;
    let limit = usize::from(which.limit.unwrap_or(1_000));
    Ok(Json(owner.engine.schedules().list(after.as_ref(), limit).await?))
}

pub(super) async fn create(State(owner): Shared, Body(new): Body<NewSchedule>) -> Answer<Json<ScheduleView>> {
    let NewSchedule { schedule, spec, asks } = new;
    Ok(Json(owner.engine.schedules().create(schedule, spec, asks.into()).await?))
}

pub(super) async fn one(State(owner): Shared, Named(name): Named) -> Answer<Json<ScheduleView>> {
    Ok(Json(owner.engine.schedules().get(&id(name)?).await?))
}

pub(super) async fn update(
    State(owner): Shared,
    Named(name): Named,
    Body(changed): Body<ChangedSchedule>,
) -> Answer<Json<ScheduleView>> {
    let ChangedSchedule { spec, renew_limit, seen, asks } = changed;
    let update = Update { spec, renew_limit, seen };
    Ok(Json(owner.engine.schedules().update_as(&id(name)?, update, asks.into()).await?))
}

pub(super) async fn remove(State(owner): Shared, Named(name): Named) -> Answer<Json<()>> {
    Ok(Json(owner.engine.schedules().remove(&id(name)?).await?))
}

pub(super) async fn pause(
    State(owner): Shared,
    Named(name): Named,
    Body(asks): Body<Asks>,
) -> Answer<Json<ScheduleView>> {
    Ok(Json(owner.engine.schedules().pause(&id(name)?, asks.into()).await?))
}

pub(super) async fn unpause(
    State(owner): Shared,
    Named(name): Named,
    Body(asks): Body<Asks>,
) -> Answer<Json<ScheduleView>> {
    Ok(Json(owner.engine.schedules().unpause(&id(name)?, asks.into()).await?))
}

pub(super) async fn trigger(
    State(owner): Shared,
    Named(name): Named,
    Body(wanted): Body<Trigger>,
) -> Answer<Json<Triggered>> {
    let Trigger { overlap, asks } = wanted;
    Ok(Json(owner.engine.schedules().trigger(&id(name)?, overlap, asks.into()).await?))
}

pub(super) async fn backfill(
    State(owner): Shared,
    Named(name): Named,
    Body(wanted): Body<WantedBackfill>,
) -> Answer<Json<Backfilled>> {
    let WantedBackfill { backfill, dry_run, asks } = wanted;
    Ok(Json(owner.engine.schedules().backfill(&id(name)?, backfill, dry_run, asks.into()).await?))
}

/// Parameters of `GET /v1/schedules/{schedule}/next`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HowMany {
    /// How many instants; 5 when not given.
    count: Option<u16>,
}

pub(super) async fn next(
    State(owner): Shared,
    Named(name): Named,
    Params(many): Params<HowMany>,
) -> Answer<Json<Vec<Timestamp>>> {
    let count = usize::from(many.count.unwrap_or(5));
    Ok(Json(owner.engine.schedules().next(&id(name)?, count).await?))
}
