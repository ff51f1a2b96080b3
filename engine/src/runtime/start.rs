//! New runs: what is asked for, what an id that is taken means, forks.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::activity::check_payload;
use crate::event::{CancelMode, EVENT_FORMAT, Event, EventKind, ForkedFrom, Parent, Request};
use crate::graph::Graph;
use crate::id::{RunId, StepName, WorkflowName};
use crate::run::{RunOptions, RunState, RunStatus, StepStatus, create};
use crate::runtime::driver::{Reach, check_request};
use crate::runtime::engine::{Engine, EngineError, RunHandle};
use crate::runtime::go_on::refuse_imported;
use crate::runtime::load::in_run;
use crate::schedule::Scheduled;
use crate::store::{SchedulePut, StoreError};
use crate::time::Timestamp;

/// What happens when a run of the same id has ended already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Reuse {
    /// The new run is refused.
    #[default]
    Reject,
    /// The new run gets the next free number behind the id, as `nightly/2`.
    AllowDuplicate,
    /// The same, if the earlier one did not succeed.
    FailedOnly,
}

/// What happens when a run of the same id goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Conflict {
    /// The new run is refused.
    #[default]
    Fail,
    /// The running one is taken instead, and driven on if nobody does.
    UseExisting,
    /// The running one is terminated; then it has ended, and [`Reuse::AllowDuplicate`] applies.
    TerminateExisting,
}

/// A run to start.
#[derive(Debug, Clone)]
pub struct StartRun {
    /// Its id; generated when not given.
    pub id: Option<RunId>,
    /// What an id means that a run has had which has ended.
    pub reuse: Reuse,
    /// What an id means whose run goes on.
    pub conflict: Conflict,
    /// The workflow's name.
    pub workflow: WorkflowName,
    /// The workflow's version.
    pub version: u32,
    /// What a set of runs builds and owns together; empty for none.
    pub site: String,
    /// What to do.
    pub graph: Graph,
    /// What it is given, without secrets.
    pub input: Value,
    /// How it behaves.
    pub options: RunOptions,
    /// Free words to find it by. They count against the 512 bytes that lists show of a run.
    pub labels: BTreeMap<String, String>,
    /// Who asks.
    pub request: Request,
}

impl StartRun {
    /// A run of `graph` with defaults for everything else.
    pub fn new(workflow: WorkflowName, graph: Graph) -> Self {
        Self {
            id: None,
            reuse: Reuse::default(),
            conflict: Conflict::default(),
            workflow,
            version: 1,
            site: String::new(),
            graph,
            input: Value::Null,
            options: RunOptions::default(),
            labels: BTreeMap::new(),
            request: Request::default(),
        }
    }

    /// With this id.
    #[must_use]
    pub fn id(mut self, id: RunId) -> Self {
        self.id = Some(id);
        self
    }

    /// With a label more.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }
}

/// The most runs that share one id and are told apart by number.
const MAX_DUPLICATES: u32 = 10_000;

/// What a new run has before its first step.
#[derive(Debug, Default)]
pub(crate) struct First {
    /// Steps that it takes over, with their outputs; without one they are left out.
    pub(crate) done: Vec<(StepName, Option<Value>)>,
    /// Set when it may have been there before: the store was put back to a backup of then.
    pub(crate) restored: Option<Timestamp>,
    /// The schedule that starts it: what the run is told, and the schedule as it is once the run is there.
    pub(crate) schedule: Option<(Scheduled, SchedulePut)>,
}

impl Engine {
    /// Starts a run. It exists durably when this returns.
    ///
    /// # Errors
    /// When an activity is missing, a literal input does not fit, the id is taken and the policies do not say what
    /// then, something is over a limit, or the store fails. Nothing has started then.
    pub async fn start(&self, start: StartRun) -> Result<RunHandle, EngineError> {
        let now = self.inner.clock.now();
        let id = start.id.clone().unwrap_or_else(|| RunId::generate(now, rand::random()));
        self.check_code(&id, &start.graph, true)?;
        let (reuse, conflict, request) = (start.reuse, start.conflict, start.request.clone());
        // Between a look and a start somebody else may take the id: then it is looked at again.
        for _ in 0..16 {
            let (id, existing) = match self.free_id(&id, reuse, conflict, &request).await {
                // Somebody else drove on what was to be taken instead.
                Err(EngineError::Live(_)) => continue,
                found => found?,
            };
            if let Some(existing) = existing {
                return Ok(existing);
            }
            let wanted = id.clone();
            match self.start_as(id, start.clone(), None, None, First::default()).await {
                Err(EngineError::Live(_) | EngineError::Store { error: StoreError::Exists(_), .. })
                    if reuse != Reuse::Reject || conflict != Conflict::Fail =>
                {
                    self.until_stored(&wanted).await?;
                }
                other => return other,
            }
        }
        Err(in_run(&id, StoreError::Exists(id.clone())))
    }

    /// The id that a new run gets, or the run that is taken instead.
    async fn free_id(
        &self,
        wanted: &RunId,
        reuse: Reuse,
        conflict: Conflict,
        request: &Request,
    ) -> Result<(RunId, Option<RunHandle>), EngineError> {
        let mut id = wanted.clone();
        for number in 2..=MAX_DUPLICATES {
            let head = self.inner.store.head(&id).await.map_err(|e| in_run(&id, e))?;
            let Some(head) = head else { return Ok((id, None)) };
            let taken = || Err(in_run(&id, StoreError::Exists(id.clone())));
            let mut status = head.summary.status;
            if !status.is_end() {
                match conflict {
                    Conflict::Fail => return taken(),
                    Conflict::UseExisting => {
                        let handle = match self.handle(&id) {
                            Some(handle) => handle,
                            None => self.resume(&id, request.clone()).await?,
                        };
                        return Ok((id, Some(handle)));
                    }
                    Conflict::TerminateExisting => {
                        match self.terminate(&id, request.clone()).await {
                            Ok(handle) => status = handle.wait().await?.status,
                            // It ended by itself a moment ago.
                            Err(EngineError::Illegal { .. }) => status = self.load(&id).await?.status(),
                            Err(error) => return Err(error),
                        }
                        if !status.is_end() {
                            return taken();
                        }
                    }
                }
            } else if reuse == Reuse::Reject {
                return taken();
            }
            if reuse == Reuse::FailedOnly && status == RunStatus::Succeeded {
                return taken();
            }
            id = RunId::new(format!("{wanted}/{number}")).map_err(|e| EngineError::Illegal {
                run: wanted.clone(),
                why: format!("a number behind its id makes no id: {e}"),
            })?;
        }
        Err(in_run(wanted, StoreError::Exists(wanted.clone())))
    }

    pub(crate) async fn start_as(
        &self,
        id: RunId,
        start: StartRun,
        parent: Option<Parent>,
        forked_from: Option<ForkedFrom>,
        first: First,
    ) -> Result<RunHandle, EngineError> {
        let now = self.inner.clock.now();
        check_payload(&start.input).map_err(|why| EngineError::InputTooLarge { run: id.clone(), why })?;
        check_request(&id, &start.request)?;
        if self.inner.store.head(&id).await.map_err(|e| in_run(&id, e))?.is_some() {
            return Err(in_run(&id, StoreError::Exists(id.clone())));
        }
        let request = start.request.clone();
        let (scheduled, schedule) = first.schedule.unzip();
        let event = Event {
            seq: 1,
            at: now,
            kind: EventKind::RunCreated {
                format: EVENT_FORMAT,
                workflow: start.workflow,
                workflow_version: start.version,
                site: start.site,
                graph: start.graph.hash().clone(),
                input: start.input,
                options: start.options,
                labels: start.labels,
                request: start.request,
                parent,
                forked_from,
                shapes: self.inner.shapes(&start.graph),
                scheduled: scheduled.map(Box::new),
            },
        };
        let state = create(id.clone(), start.graph, &event)
            .map_err(|error| EngineError::Replay { run: id.clone(), error })?;
        self.launch(state, 0, Reach::Drive, |driver| {
            driver.created(event);
            if let Some(schedule) = schedule {
                driver.with_schedule(schedule);
            }
            if let Some(backup) = first.restored {
                let (format, request) = (EVENT_FORMAT, request.clone());
                driver.stage(EventKind::RunRestored {
                    format,
                    backup,
                    gap_ms: 0,
                    request: request.clone(),
                })?;
                driver.stage(EventKind::RunResumed { request })?;
            }
            for (step, output) in first.done {
                let request = request.clone();
                driver.stage(match output {
                    Some(output) => EventKind::StepCompleted { step, output, request },
                    None => EventKind::StepSkipped { step, request: Some(request) },
                })?;
            }
            Ok(())
        })
        .await
    }

    /// Starts the run of a step that is a sub-workflow.
    pub(crate) async fn start_sub(
        &self,
        workflow: &str,
        id: RunId,
        input: Value,
        parent: Parent,
    ) -> Result<RunHandle, EngineError> {
        let mut start = self.start_of(workflow, input)?;
        start.request = Request::by(format!("run {}", parent.run));
        let above = self.load(&parent.run).await?;
        (start.site, start.options.priority) = (above.site, above.options.priority);
        self.check_code(&id, &start.graph, true)?;
        let first = First { restored: above.restored.map(|restored| restored.backup), ..First::default() };
        self.start_as(id, start, Some(parent), None, first).await
    }

    /// A run of a registered workflow, ready to be started.
    ///
    /// # Errors
    /// When there is no such workflow, or it does not take the input.
    pub fn start_of(&self, workflow: &str, input: Value) -> Result<StartRun, EngineError> {
        let definition = self
            .inner
            .workflows
            .values()
            .find(|d| d.name.as_str() == workflow)
            .ok_or_else(|| EngineError::MissingWorkflow { workflow: workflow.to_owned() })?;
        let graph = definition
            .graph(&input)
            .map_err(|why| EngineError::BadInput { workflow: workflow.to_owned(), why })?;
        let mut start = StartRun::new(definition.name.clone(), graph);
        (start.version, start.options, start.input) = (definition.version, definition.options.clone(), input);
        Ok(start)
    }

    /// Starts a new run that takes over what another has done before a step, and does that step and everything that
    /// depends on it again. What is taken over is not the new run's: it never takes it back.
    ///
    /// # Errors
    /// When the other run or the step does not exist, or the step has not been reached; and as [`Engine::start`].
    pub async fn fork(
        &self,
        run: &RunId,
        from: &StepName,
        id: Option<RunId>,
        request: Request,
    ) -> Result<RunHandle, EngineError> {
        let source = self.load(run).await?;
        // What it would take over is in a world that this store knows nothing of.
        refuse_imported(&source)?;
        let illegal = |why| EngineError::Illegal { run: run.clone(), why };
        let ix =
            source.graph.index_of(from).ok_or_else(|| illegal(format!("step {from} is not in the run")))?;
        if (ix as usize) >= source.graph.own_len() {
            return Err(illegal(format!("{from} is a child of a map; fork from the map")));
        }
        let again = source.graph.downstream(ix);
        let own = 0..u32::try_from(source.graph.own_len()).expect("a checked graph");
        let mut done = Vec::new();
        for &step in source.graph.order().iter().filter(|ix| own.contains(ix) && !again.contains(ix)) {
            let s = &source.steps[step as usize];
            let name = source.graph.step(step).name.clone();
            match s.status {
                StepStatus::Succeeded | StepStatus::Adopted => {
                    done.push((name, Some(s.output.as_deref().cloned().unwrap_or(Value::Null))));
                }
                StepStatus::Skipped => done.push((name, None)),
                _ if source.graph.downstream(step).contains(&ix) => {
                    return Err(illegal(format!("step {name}, which {from} depends on, is {}", s.status)));
                }
                _ => {}
            }
        }
        let graph = Graph::decode(source.graph.encode())
            .map_err(|error| EngineError::Graph { run: run.clone(), error })?;
        let id = id.unwrap_or_else(|| RunId::generate(self.inner.clock.now(), rand::random()));
        self.check_code(&id, &graph, true)?;
        let start = start_like(&source, graph, request);
        let forked_from = ForkedFrom { run: run.clone(), seq: source.seq, from: from.clone() };
        let first = First { done, ..First::default() };
        self.start_as(id, start, None, Some(forked_from), first).await
    }

    /// Ends a run at once, without waiting for its attempts; what it made stays. Also a run that nobody drives, and one
    /// that goes backwards.
    ///
    /// # Errors
    /// When there is no such run, or it has ended.
    pub async fn terminate(&self, run: &RunId, request: Request) -> Result<RunHandle, EngineError> {
        if let Some(handle) = self.handle(run) {
            match self.cancel(run, CancelMode::Terminate, request.clone()).await {
                // It ended or paused a moment ago.
                Err(EngineError::NotLive(_)) => {}
                asked => return asked.map(|()| handle),
            }
        }
        self.cancel_idle(run, CancelMode::Terminate, request).await
    }
}

/// A run with the settings of another.
fn start_like(source: &RunState, graph: Graph, request: Request) -> StartRun {
    let mut start = StartRun::new(source.workflow.clone(), graph);
    start.version = source.workflow_version;
    start.site.clone_from(&source.site);
    start.input = source.input.as_ref().clone();
    start.options = source.options.clone();
    start.labels.clone_from(&source.labels);
    start.request = request;
    start
}
