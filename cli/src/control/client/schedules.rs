//! Schedules of the store that another process owns.

use bytes::Bytes;
use dssflow_engine::id::ScheduleId;
use dssflow_engine::runtime::schedules::Backfilled;
use dssflow_engine::runtime::{SchedulePage, Triggered};
use dssflow_engine::schedule::ScheduleView;
use dssflow_engine::time::Timestamp;
use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ANSWER, Client, DEMAND, encoded, parse};
use crate::control::schedules::{Asks, ChangedSchedule, NewSchedule, Trigger, WantedBackfill};
use crate::error::CommandResult;

fn uri(id: &ScheduleId, rest: &str) -> String {
    format!("/v1/schedules/{}{rest}", encoded(id.as_str()))
}

impl Client {
    async fn send_schedule<T: DeserializeOwned>(
        &self,
        method: Method,
        uri: &str,
        body: &impl Serialize,
    ) -> CommandResult<T> {
        let body = serde_json::to_vec(body).expect("it is plain data");
        parse(&self.fetch(method, uri, Bytes::from(body), DEMAND).await?)
    }

    pub(crate) async fn schedules(&self, after: Option<&ScheduleId>) -> CommandResult<SchedulePage> {
        let after = after.map_or_else(String::new, |id| format!("&after={}", encoded(id.as_str())));
        self.get(&format!("/v1/schedules?limit=1000{after}"), ANSWER).await
    }

    pub(crate) async fn schedule(&self, id: &ScheduleId) -> CommandResult<ScheduleView> {
        self.get(&uri(id, ""), ANSWER).await
    }

    pub(crate) async fn create_schedule(&self, new: &NewSchedule) -> CommandResult<ScheduleView> {
        self.send_schedule(Method::POST, "/v1/schedules", new).await
    }

    pub(crate) async fn update_schedule(
        &self,
        id: &ScheduleId,
        changed: &ChangedSchedule,
    ) -> CommandResult<ScheduleView> {
        self.send_schedule(Method::PUT, &uri(id, ""), changed).await
    }

    pub(crate) async fn remove_schedule(&self, id: &ScheduleId) -> CommandResult<()> {
        self.fetch(Method::DELETE, &uri(id, ""), Bytes::new(), DEMAND).await.map(drop)
    }

    /// `pause` or `unpause`.
    pub(crate) async fn ask_schedule(
        &self,
        id: &ScheduleId,
        verb: &str,
        asks: &Asks,
    ) -> CommandResult<ScheduleView> {
        self.send_schedule(Method::POST, &uri(id, &format!("/{verb}")), asks).await
    }

    pub(crate) async fn trigger_schedule(
        &self,
        id: &ScheduleId,
        trigger: &Trigger,
    ) -> CommandResult<Triggered> {
        self.send_schedule(Method::POST, &uri(id, "/trigger"), trigger).await
    }

    pub(crate) async fn backfill_schedule(
        &self,
        id: &ScheduleId,
        wanted: &WantedBackfill,
    ) -> CommandResult<Backfilled> {
        self.send_schedule(Method::POST, &uri(id, "/backfill"), wanted).await
    }

    pub(crate) async fn next_of_schedule(
        &self,
        id: &ScheduleId,
        count: u16,
    ) -> CommandResult<Vec<Timestamp>> {
        self.get(&uri(id, &format!("/next?count={count}")), ANSWER).await
    }
}
