//! The list of routes: each with its handler, its limits, and what it takes and gives. The router and the OpenAPI document
//! are both made from it, so that no route is without a description and none is described that is not there.

use std::sync::LazyLock;
use std::time::Duration;

use crate::control::schedules::{Asks, ChangedSchedule, NewSchedule, Trigger, WantedBackfill};
use axum::extract::{DefaultBodyLimit, Request};
use axum::handler::Handler;
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Json, Router};
use dssflow_activities::aws::sweep::Leftover;
use dssflow_engine::activity::MAX_PAYLOAD_BYTES;
use dssflow_engine::event::Event;
use dssflow_engine::run::versions::Comparison;
use dssflow_engine::run::view::{RunView, StepView};
use dssflow_engine::runtime::Inspected;
use dssflow_engine::runtime::schedules::Backfilled;
use dssflow_engine::runtime::{SchedulePage, Triggered};
use dssflow_engine::schedule::ScheduleView;
use dssflow_engine::store::VerifyReport;
use dssflow_engine::time::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use super::{Owner, Rejected, archive, events, logs, orders, runs, schedules, store, verbs, workflows};
use crate::api::metrics;
use crate::catalog::Entry;
use crate::control::{
    Act, Acted, Checked, Demand, Driven, Fork, Health, Obstacles, Order, OwnerInfo, Page, PruneDone,
    PruneOrder, Resume,
};
use crate::logging::Record;

/// The largest body a request may have, in bytes.
const MAX_BODY: usize = 64 * 1024;
/// The same for a verb, which may carry an output.
const MAX_ACT: usize = MAX_PAYLOAD_BYTES + MAX_BODY;
/// The same for an order, which may carry a plan.
const MAX_ORDER: usize = 8 * 1024 * 1024;
/// How long an answer may take to begin.
const SOON: Duration = Duration::from_mins(1);
/// The same where the world is looked at.
const LOOKED: Duration = Duration::from_mins(5);
/// The same where the whole store is read.
const READ: Duration = Duration::from_mins(30);
/// The same where runs are removed from the whole store, each in a write of its own.
const REMOVED: Duration = Duration::from_hours(12);

const NDJSON: &str = "application/x-ndjson";
const EVENT_STREAM: &str = "text/event-stream";

/// Gives the schema of a type.
pub(crate) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// What a route may answer when all is well.
pub(crate) struct Given {
    pub(crate) status: StatusCode,
    pub(crate) what: &'static str,
    /// The kinds of content, each with its schema.
    pub(crate) content: Vec<(&'static str, SchemaOf)>,
}

/// One route.
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    /// Its name in the OpenAPI document.
    pub(crate) id: &'static str,
    pub(crate) tag: &'static str,
    pub(crate) summary: &'static str,
    /// Parameters behind the question mark.
    pub(crate) query: Option<SchemaOf>,
    pub(crate) body: Option<SchemaOf>,
    pub(crate) gives: Vec<Given>,
    limit: usize,
    within: Duration,
    handler: MethodRouter<Owner>,
}

impl Route {
    fn new<H, T>(method: Method, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, Owner>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).expect("a method of HTTP");
        Self {
            method,
            path,
            id: "",
            tag: "",
            summary: "",
            query: None,
            body: None,
            gives: Vec::new(),
            limit: MAX_BODY,
            within: SOON,
            handler: on(filter, handler),
        }
    }

    fn is(mut self, tag: &'static str, id: &'static str, summary: &'static str) -> Self {
        (self.tag, self.id, self.summary) = (tag, id, summary);
        self
    }

    fn query<T: JsonSchema>(mut self) -> Self {
        self.query = Some(schema_of::<T>);
        self
    }

    fn body<T: JsonSchema>(mut self) -> Self {
        self.body = Some(schema_of::<T>);
        self
    }

    /// An answer of JSON.
    fn gives<T: JsonSchema>(self, status: StatusCode, what: &'static str) -> Self {
        self.streams::<T>(status, what, "application/json")
    }

    /// An answer in another form; a second one of the same status is another form of it.
    fn streams<T: JsonSchema>(mut self, status: StatusCode, what: &'static str, kind: &'static str) -> Self {
        match self.gives.iter_mut().find(|given| given.status == status) {
            Some(given) => given.content.push((kind, schema_of::<T>)),
            None => self.gives.push(Given { status, what, content: vec![(kind, schema_of::<T>)] }),
        }
        self
    }

    /// An answer without a body.
    fn answers(mut self, status: StatusCode, what: &'static str) -> Self {
        self.gives.push(Given { status, what, content: Vec::new() });
        self
    }

    fn at_most(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    fn within(mut self, time: Duration) -> Self {
        self.within = time;
        self
    }
}

/// Every route there is.
pub(crate) fn routes() -> Vec<Route> {
    [of_server(), of_runs(), of_verbs(), of_schedules(), of_store()].into_iter().flatten().collect()
}

fn of_server() -> Vec<Route> {
    vec![
        get("/v1/health", store::health)
            .is("server", "health", "How the server stands")
            .gives::<Health>(StatusCode::OK, "How it stands."),
        get("/metrics", store::metrics)
            .is("server", "metrics", "Measurements, as Prometheus reads them")
            .streams::<String>(StatusCode::OK, "Text in the form of OpenMetrics.", metrics::CONTENT_TYPE),
        get("/v1/openapi.json", openapi)
            .is("server", "openapi", "This description")
            .gives::<Value>(StatusCode::OK, "An OpenAPI document."),
        get("/v1/workflows", workflows::list)
            .is("workflows", "list_workflows", "The workflows that can be started")
            .gives::<Vec<Entry>>(StatusCode::OK, "All of them."),
        get("/v1/workflows/{workflow}/schema", workflows::schema)
            .is("workflows", "workflow_schema", "What a workflow's file may say")
            .gives::<Value>(StatusCode::OK, "A JSON Schema."),
    ]
}

async fn openapi() -> Json<&'static Value> {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(crate::api::openapi::document);
    Json(&DOCUMENT)
}

fn of_runs() -> Vec<Route> {
    vec![
        get("/v1/runs", runs::list)
            .is("runs", "list_runs", "Runs, newest first")
            .query::<runs::Filter>()
            .gives::<Page>(StatusCode::OK, "A page of them."),
        post("/v1/runs", orders::start)
            .is("runs", "start_run", "Starts a run, or goes on with the unfinished one of the same site")
            .body::<Order>()
            .gives::<Driven>(StatusCode::CREATED, "It was started.")
            .gives::<Driven>(StatusCode::ACCEPTED, "An earlier run goes on.")
            .answers(StatusCode::NO_CONTENT, "There is nothing to do.")
            .at_most(MAX_ORDER)
            .within(LOOKED),
        post("/v1/runs/check", orders::check)
            .is("runs", "check_order", "Says what an order would do, and changes nothing")
            .body::<Order>()
            .gives::<Checked>(StatusCode::OK, "What it would do.")
            .at_most(MAX_ORDER)
            .within(LOOKED),
        get("/v1/runs/{run}", runs::view)
            .is("runs", "get_run", "One run with its steps")
            .gives::<RunView>(StatusCode::OK, "The run."),
        get("/v1/runs/{run}/steps", runs::steps)
            .is("runs", "list_steps", "The steps of a run, what is needed first")
            .gives::<Vec<StepView>>(StatusCode::OK, "Its steps."),
        get("/v1/runs/{run}/events", events::events)
            .is("runs", "list_events", "The history of a run, as it is or followed")
            .query::<events::Tail>()
            .streams::<Event>(StatusCode::OK, "Its events, one a line or one an event.", NDJSON)
            .streams::<Event>(StatusCode::OK, "", EVENT_STREAM)
            .answers(StatusCode::NO_CONTENT, "The run has ended, and the client has seen all of it."),
        get("/v1/runs/{run}/logs", logs::logs)
            .is("runs", "list_logs", "What was said while a run was driven")
            .query::<logs::Which>()
            .gives::<Vec<Record>>(StatusCode::OK, "Lines of its log, oldest first."),
        get("/v1/runs/{run}/graph", runs::graph)
            .is("runs", "get_graph", "The graph of a run, as it is stored")
            .gives::<Value>(StatusCode::OK, "The graph."),
        get("/v1/runs/{run}/obstacles", runs::obstacles)
            .is("runs", "list_obstacles", "What keeps steps of a driven run from starting")
            .gives::<Obstacles>(StatusCode::OK, "By step; nothing when nothing does."),
        get("/v1/runs/{run}/compare", verbs::compare)
            .is("runs", "compare_run", "How a run differs from its workflow in the server's version")
            .gives::<Comparison>(StatusCode::OK, "What differs."),
        post("/v1/runs/{run}/inspect", runs::inspect)
            .is("runs", "inspect_run", "Compares what a run left with the world, and changes nothing")
            .gives::<Vec<Inspected>>(StatusCode::OK, "What was found, by step.")
            .within(LOOKED),
        post("/v1/runs/{run}/orphans", runs::orphans)
            .is("runs", "list_orphans", "What carries the marks of a run's site and no run knows of")
            .gives::<Vec<Leftover>>(StatusCode::OK, "What was found.")
            .within(LOOKED),
    ]
}

fn of_verbs() -> Vec<Route> {
    const DURABLE: &str = "It is durable, and under way.";
    vec![
        post("/v1/runs/{run}/pause", verbs::pause)
            .is("verbs", "pause_run", "Lets a driven run come to a stand")
            .body::<Demand>()
            .answers(StatusCode::ACCEPTED, DURABLE),
        post("/v1/runs/{run}/resume", verbs::resume)
            .is("verbs", "resume_run", "Goes on with a run: after a crash, a pause or a failure")
            .body::<Resume>()
            .gives::<Driven>(StatusCode::ACCEPTED, DURABLE)
            .within(LOOKED),
        post("/v1/runs/{run}/cancel", verbs::cancel)
            .is("verbs", "cancel_run", "Ends a run, and keeps or takes back what it made")
            .body::<Demand>()
            .answers(StatusCode::ACCEPTED, DURABLE)
            .within(LOOKED),
        post("/v1/runs/{run}/rollback", verbs::rollback)
            .is("verbs", "rollback_run", "Takes back what a run made")
            .body::<Demand>()
            .answers(StatusCode::ACCEPTED, DURABLE)
            .within(LOOKED),
        post("/v1/runs/{run}/act", verbs::act)
            .is("verbs", "act_on_step", "Does what an operator wants of a step, or writes it down")
            .body::<Act>()
            .gives::<Acted>(StatusCode::ACCEPTED, "It is durable.")
            .at_most(MAX_ACT)
            .within(LOOKED),
        post("/v1/runs/{run}/fork", verbs::fork)
            .is("verbs", "fork_run", "Starts a run that takes over what another did before a step")
            .body::<Fork>()
            .gives::<Driven>(StatusCode::CREATED, "The new run.")
            .within(LOOKED),
    ]
}

fn of_schedules() -> Vec<Route> {
    const OK: StatusCode = StatusCode::OK;
    vec![
        get("/v1/schedules", schedules::list)
            .is("schedules", "list_schedules", "Schedules, by name")
            .query::<schedules::Which>()
            .gives::<SchedulePage>(OK, "A page of them."),
        post("/v1/schedules", schedules::create)
            .is("schedules", "create_schedule", "Makes a schedule")
            .body::<NewSchedule>()
            .gives::<ScheduleView>(OK, "The schedule.")
            .at_most(MAX_ORDER),
        get("/v1/schedules/{schedule}", schedules::one)
            .is("schedules", "get_schedule", "One schedule")
            .gives::<ScheduleView>(OK, "The schedule."),
        Route::new(Method::PUT, "/v1/schedules/{schedule}", schedules::update)
            .is("schedules", "update_schedule", "Gives a schedule another spec")
            .body::<ChangedSchedule>()
            .gives::<ScheduleView>(OK, "The schedule.")
            .at_most(MAX_ORDER),
        Route::new(Method::DELETE, "/v1/schedules/{schedule}", schedules::remove)
            .is("schedules", "remove_schedule", "Removes a schedule; its runs stay")
            .gives::<()>(OK, "It is gone."),
        post("/v1/schedules/{schedule}/pause", schedules::pause)
            .is("schedules", "pause_schedule", "Lets the clock start nothing of a schedule")
            .body::<Asks>()
            .gives::<ScheduleView>(OK, "The schedule."),
        post("/v1/schedules/{schedule}/unpause", schedules::unpause)
            .is("schedules", "unpause_schedule", "Lets a schedule go on from now")
            .body::<Asks>()
            .gives::<ScheduleView>(OK, "The schedule."),
        post("/v1/schedules/{schedule}/trigger", schedules::trigger)
            .is("schedules", "trigger_schedule", "Wants one run more, now")
            .body::<Trigger>()
            .gives::<Triggered>(OK, "The run, and its instant."),
        post("/v1/schedules/{schedule}/backfill", schedules::backfill)
            .is("schedules", "backfill_schedule", "Wants the instants of a stretch of time, or says which")
            .body::<WantedBackfill>()
            .gives::<Backfilled>(OK, "Its instants."),
        get("/v1/schedules/{schedule}/next", schedules::next)
            .is("schedules", "next_instants", "The next instants of a schedule by the clock")
            .query::<schedules::HowMany>()
            .gives::<Vec<Timestamp>>(OK, "In milliseconds since 1970."),
    ]
}

fn of_store() -> Vec<Route> {
    vec![
        get("/v1/store", store::info)
            .is("store", "store_info", "What the store is and has, and who owns it")
            .gives::<OwnerInfo>(StatusCode::OK, "The store."),
        get("/v1/store/verify", store::verify)
            .is("store", "verify_store", "Reads and checks everything in the store")
            .gives::<VerifyReport>(StatusCode::OK, "What was read, and what is wrong.")
            .within(READ),
        get("/v1/store/archive", archive::stream)
            .is("store", "archive_store", "A backup of the store as of now, or of one run")
            .query::<archive::Which>()
            .streams::<Value>(StatusCode::OK, "One value a line; the last tells that it is whole.", NDJSON),
        post("/v1/store/prune", store::prune)
            .is("store", "prune_store", "Removes runs that have ended and own nothing")
            .body::<PruneOrder>()
            .gives::<PruneDone>(StatusCode::OK, "What was removed, or would be.")
            .within(REMOVED),
    ]
}

fn get<H, T>(path: &'static str, handler: H) -> Route
where
    H: Handler<T, Owner>,
    T: 'static,
{
    Route::new(Method::GET, path, handler)
}

fn post<H, T>(path: &'static str, handler: H) -> Route
where
    H: Handler<T, Owner>,
    T: 'static,
{
    Route::new(Method::POST, path, handler)
}

/// The router of all of them.
pub(crate) fn router(owner: Owner) -> Router {
    let mut router = Router::new();
    for Route { path, handler, limit, within, .. } in routes() {
        let timed = middleware::from_fn(move |request: Request, next: Next| in_time(within, request, next));
        router = router.route(path, handler.layer(DefaultBodyLimit::max(limit)).layer(timed));
    }
    router
        .fallback(async || Rejected(StatusCode::NOT_FOUND, "there is no such path".to_owned()))
        .method_not_allowed_fallback(async || {
            Rejected(StatusCode::METHOD_NOT_ALLOWED, "the path is not called so".to_owned())
        })
        .with_state(owner)
}

/// What a body that never ends, or an answer that never begins, is cut off by.
async fn in_time(within: Duration, request: Request, next: Next) -> Response {
    tokio::time::timeout(within, next.run(request)).await.unwrap_or_else(|_| {
        let message = format!("it was not done within {} s", within.as_secs());
        Rejected(StatusCode::REQUEST_TIMEOUT, message).into_response()
    })
}
