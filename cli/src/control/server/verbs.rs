//! What people want of a run. A run that is driven here is told; another one is driven on where the owner is `serve`,
//! and only written to where it is a command with a run of its own.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use dssflow_engine::EngineError;
use dssflow_engine::event::{CancelMode, Request};
use dssflow_engine::id::{RunId, StepName};
use dssflow_engine::run::Verb;
use dssflow_engine::run::versions::Comparison;

use super::{Answer, Body, Failure, Owner, Run, Shared, to_the_end};
use crate::control::{Act, Acted, Demand, Driven, Fork, Resume};
use crate::error::{Code, CommandError, CommandResult};

fn request(demand: &Demand) -> Request {
    Request { by: demand.by.clone(), reason: demand.reason.clone() }
}

pub(super) async fn pause(
    State(Owner { engine, .. }): Shared,
    Run(run): Run,
    Body(demand): Body<Demand>,
) -> Answer<StatusCode> {
    engine.pause(&run, request(&demand)).await?;
    Ok(StatusCode::ACCEPTED)
}

pub(super) async fn cancel(
    State(owner): Shared,
    Run(run): Run,
    Body(demand): Body<Demand>,
) -> Answer<StatusCode> {
    owner.must_go_on()?;
    let (mode, request) = (demand.mode(), request(&demand));
    if owner.engine.handle(&run).is_some() {
        owner.engine.cancel(&run, mode, request).await?;
    } else if mode == CancelMode::Rollback {
        owner.engine.view(&run).await?;
        let service = owner.service().map_err(|_| not_driven_here(&run))?.clone();
        to_the_end(async move { service.cancel_back(&run, request).await }).await?;
    } else {
        // Nothing starts by it, so no clients are needed.
        let engine = owner.engine;
        to_the_end(async move { Ok(engine.cancel_idle(&run, mode, request).await?.wait().await?) }).await?;
    }
    Ok(StatusCode::ACCEPTED)
}

fn not_driven_here(run: &RunId) -> Failure {
    let message = format!("run {run} is not driven by the process that owns the store");
    Failure(
        CommandError::new(Code::RunRefused, message)
            .hint("wait until that process has ended, then try again"),
    )
}

/// A run that is not driven is only written to, unless it is to be driven on with it.
pub(super) async fn act(
    State(owner): Shared,
    Run(run): Run,
    Body(Act { verb, request, drive }): Body<Act>,
) -> Answer<(StatusCode, Json<Acted>)> {
    owner.must_go_on()?;
    let driven = to_the_end(carry_out(owner, run, verb, request, drive)).await?;
    Ok((StatusCode::ACCEPTED, Json(Acted { driven })))
}

async fn carry_out(
    owner: Owner,
    run: RunId,
    verb: Verb,
    request: Request,
    drive: bool,
) -> CommandResult<bool> {
    let drive = drive && matches!(verb, Verb::Retry { .. } | Verb::Rerun { .. });
    // Between two looks a drive may begin or end.
    loop {
        if let Some(handle) = owner.engine.handle(&run) {
            match handle.act(verb.clone(), request.clone()).await {
                Err(EngineError::NotLive(_)) => {}
                other => return Ok(other.map(|()| true)?),
            }
        }
        if drive {
            let service = owner.service()?;
            return service.again(&run, verb, request).await.map(|_| true);
        }
        match owner.engine.note(&run, verb.clone(), request.clone()).await {
            Err(EngineError::Live(_)) => {}
            other => return Ok(other.map(|_| false)?),
        }
    }
}

pub(super) async fn rollback(
    State(owner): Shared,
    Run(run): Run,
    Body(demand): Body<Demand>,
) -> Answer<StatusCode> {
    owner.must_go_on()?;
    let step = |name: &String| {
        StepName::new(name.as_str()).map_err(|e| CommandError::new(Code::NoSuchStep, e.to_string()))
    };
    let keep = demand.keep.iter().map(step).collect::<CommandResult<Vec<_>>>()?;
    let to = demand.to.as_ref().map(step).transpose()?;
    let request = request(&demand);
    if owner.engine.handle(&run).is_none() {
        owner.engine.view(&run).await?;
        // A command has no clients for the world that another run is in.
        let service = owner.service().map_err(|_| not_driven_here(&run))?.clone();
        to_the_end(async move { service.rollback(&run, to, keep, request).await }).await?;
        return Ok(StatusCode::ACCEPTED);
    }
    if to.is_some() || !keep.is_empty() {
        let message = "a run that is being driven can only be taken back as a whole";
        let error = CommandError::new(Code::RunRefused, message);
        return Err(Failure(error.hint(format!("pause it first: dssflow pause {run}"))));
    }
    owner.engine.cancel(&run, CancelMode::Rollback, request).await?;
    Ok(StatusCode::ACCEPTED)
}

pub(super) async fn resume(
    State(owner): Shared,
    Run(run): Run,
    Body(wish): Body<Resume>,
) -> Answer<(StatusCode, Json<Driven>)> {
    let service = owner.service()?.clone();
    let driven = to_the_end(async move { service.resume(&run, wish).await }).await?;
    Ok((StatusCode::ACCEPTED, Json(driven)))
}

pub(super) async fn fork(
    State(owner): Shared,
    Run(run): Run,
    Body(fork): Body<Fork>,
) -> Answer<(StatusCode, Json<Driven>)> {
    let service = owner.service()?.clone();
    let driven = to_the_end(async move { service.fork(&run, fork).await }).await?;
    Ok((StatusCode::CREATED, Json(driven)))
}

/// How the run's workflow differs from that of the owner's version.
pub(super) async fn compare(State(Owner { engine, .. }): Shared, Run(run): Run) -> Answer<Json<Comparison>> {
    let found = engine.compare(&run).await?;
    found.map(Json).ok_or_else(|| {
        let error = CommandError::new(Code::RunForeign, format!("this version has no workflow of run {run}"));
        Failure(error.hint("`dssflow workflows ls` lists the workflows there are"))
    })
}
