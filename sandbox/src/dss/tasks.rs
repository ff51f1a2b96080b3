//! Futures: long tasks that are polled, and forgotten when DSS restarts.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::FakeDss;
use super::reply::{Answer, Call, Course, Refusal, Reply, messages, ok};

#[derive(Debug)]
struct Task {
    kind: &'static str,
    polls_left: u32,
    /// The result, once the work is over.
    result: Option<Value>,
    aborted: bool,
}

/// The futures of one life of DSS.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    next: AtomicU64,
    tasks: Mutex<BTreeMap<String, Task>>,
}

impl Tasks {
    /// Forgets everything, as a restart does. What the tasks had begun goes on outside.
    pub(super) fn forget(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Task>> {
        self.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl FakeDss {
    /// Starts a long task; the answer is `{jobId, hasResult: false}`.
    ///
    /// `seconds` is how long it takes at demo speed before `work` runs. A scripted failure ends it without
    /// running `work`.
    pub(super) fn future<F>(&self, call: &Call, kind: &'static str, seconds: f64, work: F) -> Answer
    where
        F: Future<Output = Value> + Send + 'static,
    {
        let tasks = self.tasks();
        let job =
            format!("{kind}-{:08x}{:04x}", rand::random::<u32>(), tasks.next.fetch_add(1, Ordering::Relaxed));
        let course = call.course;
        let polls_left = course.map_or_else(|| self.behaviour().future_polls, |course| course.polls);
        tasks.lock().insert(job.clone(), Task { kind, polls_left, result: None, aborted: false });
        let (dss, id) = (self.clone(), job.clone());
        tokio::spawn(async move {
            dss.pause(seconds).await;
            let result = match course {
                Some(Course { fails: true, .. }) => {
                    json!({"success": false, "messages": messages(Some(("ERR_FAULT", "the task failed, as scripted")))})
                }
                _ => work.await,
            };
            // After a restart the job is unknown and the result goes nowhere.
            if let Some(task) = dss.tasks().lock().get_mut(&id) {
                task.result = Some(result);
            }
        });
        ok(json!({"jobId": job, "hasResult": false, "alive": true}))
    }

    pub(super) fn futures(&self) -> Answer {
        let tasks = self.tasks().lock();
        let list: Vec<Value> = tasks
            .iter()
            .filter(|(_, task)| !(task.polls_left == 0 && task.result.is_some()))
            .map(|(id, task)| json!({"jobId": id, "jobDisplayName": task.kind, "alive": true}))
            .collect();
        ok(json!(list))
    }

    pub(super) fn future_state(&self, call: &Call, job: &str) -> Answer {
        let mut tasks = self.tasks().lock();
        let unknown = || Refusal::missing(format!("Future not found: {job}"));
        if call.method == "DELETE" {
            tasks.get_mut(job).ok_or_else(unknown)?.aborted = true;
            return Ok(Reply::Empty);
        }
        let task = tasks.get_mut(job).ok_or_else(unknown)?;
        if task.aborted {
            return ok(json!({"jobId": job, "hasResult": false, "alive": false, "aborted": true}));
        }
        if task.polls_left > 0 {
            task.polls_left -= 1;
            return ok(json!({"jobId": job, "hasResult": false, "alive": true}));
        }
        ok(match &task.result {
            None => json!({"jobId": job, "hasResult": false, "alive": true}),
            Some(_) if call.flag("peek") => json!({"jobId": job, "hasResult": true, "alive": false}),
            Some(result) => json!({"jobId": job, "hasResult": true, "alive": false, "result": result}),
        })
    }
}
