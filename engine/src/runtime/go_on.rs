//! Runs that exist: driven on, turned round, stopped, changed by an operator, brought to another definition.

use futures::{StreamExt as _, stream};

use crate::event::{ActivityShapes, CancelMode, EventKind, Request};
use crate::graph::{Graph, Step, StepIx};
use crate::id::{RunId, StepName};
use crate::run::resolve::resolve;
use crate::run::state::Halt;
use crate::run::versions::{Comparison, Verdict, compare, to_do_again};
use crate::run::view::RunView;
use crate::run::{RunState, RunStatus, Verb};
use crate::runtime::driver::{Ask, Driver, Reach};
use crate::runtime::engine::{Engine, EngineError, RunHandle};
use crate::store::ListQuery;

/// How many runs are recovered at once: as many as a group of the store takes.
const RECOVER_AT_ONCE: usize = 256;

/// What [`Engine::recover`] found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Recovered {
    /// Runs that go on.
    pub runs: Vec<RunHandle>,
    /// Runs that cannot, with why. They stay as they are and hold up nobody.
    pub parked: Vec<(RunId, EngineError)>,
    /// Runs that were paused because they were recovered over and over without getting on.
    pub looping: Vec<RunId>,
}

/// What became of a run that was to be recovered.
#[derive(Debug)]
#[non_exhaustive]
pub enum Recovery {
    /// It goes on.
    Driven(RunHandle),
    /// It is paused: it was recovered over and over without getting on.
    Looping,
    /// There was nothing to do: it stands or has ended, or somebody drives it.
    Nothing,
}

/// What an operator's verb led to.
#[derive(Debug)]
#[non_exhaustive]
pub struct Acted {
    /// The run, when it is driven on; none when it stands still.
    pub handle: Option<RunHandle>,
}

impl Engine {
    /// Drives a run on from where it is: after a crash, a pause, a failure. Failed steps get fresh budgets.
    ///
    /// # Errors
    /// When there is no such run, it is driven already, has ended for good, or cannot be read; an activity is missing;
    /// or an output does not fit its type any more and nothing migrates it.
    pub async fn resume(&self, run: &RunId, request: Request) -> Result<RunHandle, EngineError> {
        let driven = self.drive_on(run, request, true).await?;
        let (handle, _) = driven.expect("what a person wants is not passed over");
        Ok(handle)
    }

    /// `wanted` is set when a person asks: a pause or failure that a crash cut short is over then, and however often it
    /// was recovered does not matter. The flag that comes back says that the run was parked instead; nothing comes back
    /// of a run that nobody wants and that has ended or paused.
    async fn drive_on(
        &self,
        run: &RunId,
        request: Request,
        wanted: bool,
    ) -> Result<Option<(RunHandle, bool)>, EngineError> {
        let state = self.load_idle(run).await?;
        // The run above may have driven it to its end since it was listed.
        if !wanted && (state.finished.is_some() || state.paused.is_some()) {
            return Ok(None);
        }
        let migrated = self.migrate(&state, &state.shapes)?;
        let seq = state.seq;
        let cap = self.inner.options.crash_loop_cap.max(1);
        let looping = !wanted && state.finished.is_none() && state.recoveries >= cap;
        let reach = Reach::Drive;
        let handle = self
            .launch(state, seq, reach, |driver| {
                let state = driver.state();
                let halted = matches!(state.halt, Some(Halt::Pause | Halt::Fail | Halt::TimedOut));
                let (finished, recoveries) = (state.finished, state.recoveries);
                let stopped = state.paused.is_some() || wanted && halted;
                if finished.is_none() || finished == Some(RunStatus::RollbackStuck) {
                    driver.recover()?;
                }
                stage_all(driver, migrated)?;
                match finished {
                    None if looping => driver.park(recoveries),
                    None if stopped => driver.stage(EventKind::RunResumed { request }),
                    None => Ok(()),
                    Some(RunStatus::RollbackStuck) => driver.stage(EventKind::RollbackRetried { request }),
                    Some(_) => driver.stage(EventKind::RunResumed { request }),
                }
            })
            .await?;
        Ok(Some((handle, looping)))
    }

    /// Turns a run round: takes back everything it made. On a run that is stuck, tries again what failed. A run that
    /// is being driven is cancelled with rollback.
    ///
    /// # Errors
    /// As [`Engine::resume`]; a run that is rolled back already is [`EngineError::Illegal`], and so is `keep` for a
    /// run that is being driven or goes backwards already: nothing is silently deleted that should stay.
    pub async fn rollback(
        &self,
        run: &RunId,
        keep: Vec<StepName>,
        request: Request,
    ) -> Result<RunHandle, EngineError> {
        self.rollback_to(run, None, keep, request).await
    }

    /// As [`Engine::rollback`], of what depends on step `to` only: the step itself and everything else stays.
    ///
    /// # Errors
    /// As [`Engine::rollback`]; `to` is refused where `keep` is.
    pub async fn rollback_to(
        &self,
        run: &RunId,
        to: Option<StepName>,
        keep: Vec<StepName>,
        request: Request,
    ) -> Result<RunHandle, EngineError> {
        let scoped = to.is_some() || !keep.is_empty();
        let refuse_scope = || EngineError::Illegal {
            run: run.clone(),
            why: "what to keep can only be said of a run that stands still and goes forward; pause it first"
                .to_owned(),
        };
        if let Some(handle) = self.handle(run) {
            if scoped {
                return Err(refuse_scope());
            }
            match self.ask(run, Ask::Cancel(CancelMode::Rollback, request.clone())).await {
                // It ended or paused a moment ago.
                Err(EngineError::NotLive(_)) => {}
                asked => return asked.map(|()| handle),
            }
        }
        let state = self.load_idle(run).await?;
        let seq = state.seq;
        self.launch(state, seq, Reach::Drive, |driver| {
            let (finished, rolling_back, paused) = {
                let s = driver.state();
                (s.finished, s.rolling_back, s.paused.is_some())
            };
            if rolling_back && scoped {
                return Err(refuse_scope());
            }
            if finished == Some(RunStatus::RollbackStuck) {
                driver.recover()?;
                return driver.stage(EventKind::RollbackRetried { request });
            }
            if finished.is_none() {
                driver.recover()?;
            }
            if rolling_back && finished.is_none() {
                return if paused { driver.stage(EventKind::RunResumed { request }) } else { Ok(()) };
            }
            driver.stage(EventKind::RollbackStarted { keep, to, request })
        })
        .await
    }

    /// Drives on every run that was running when its owner ended. Runs that cannot be driven are told with their
    /// reason and do not stop the others; a run that was recovered over and over without getting on is paused.
    ///
    /// # Errors
    /// When the runs cannot be listed.
    pub async fn recover(&self) -> Result<Recovered, EngineError> {
        let statuses =
            vec![RunStatus::Pending, RunStatus::Running, RunStatus::Waiting, RunStatus::RollingBack];
        let mut found = Recovered::default();
        let mut cursor = None;
        loop {
            let query = ListQuery { statuses: statuses.clone(), cursor, ..ListQuery::default() };
            let page = self.list(query).await?;
            // Each goes on by itself, and their first commits share groups.
            let mut driven = stream::iter(page.runs)
                .map(async |summary| {
                    let driven = self.recover_run(&summary.run).await;
                    (summary.run, driven)
                })
                .buffered(RECOVER_AT_ONCE);
            while let Some((run, driven)) = driven.next().await {
                match driven {
                    Ok(Recovery::Driven(handle)) => found.runs.push(handle),
                    Ok(Recovery::Looping) => found.looping.push(run),
                    Ok(Recovery::Nothing) => {}
                    Err(error) => found.parked.push((run, error)),
                }
            }
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok(found);
            }
        }
    }

    /// Drives one run on that was running when its owner ended, as [`Engine::recover`] does with all of them: for whoever
    /// injects other things for each.
    ///
    /// # Errors
    /// As [`Engine::resume`]; that somebody drives it already is none.
    pub async fn recover_run(&self, run: &RunId) -> Result<Recovery, EngineError> {
        match self.drive_on(run, Request::by("recovery"), false).await {
            Ok(Some((handle, false))) => Ok(Recovery::Driven(handle)),
            Ok(Some((_, true))) => Ok(Recovery::Looping),
            Ok(None) | Err(EngineError::Live(_) | EngineError::Held { .. }) => Ok(Recovery::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Asks a driven run to pause. Returns when the request is durable; [`RunHandle::wait`] tells when it stands.
    ///
    /// # Errors
    /// When the run is not driven from here.
    pub async fn pause(&self, run: &RunId, request: Request) -> Result<(), EngineError> {
        self.ask(run, Ask::Pause(request)).await
    }

    /// Asks a driven run to end.
    ///
    /// # Errors
    /// When the run is not driven from here.
    pub async fn cancel(&self, run: &RunId, mode: CancelMode, request: Request) -> Result<(), EngineError> {
        self.ask(run, Ask::Cancel(mode, request)).await
    }

    /// Ends a run that nobody drives, keeping or taking back what it made.
    ///
    /// # Errors
    /// When there is no such run, it is driven, or has ended.
    pub async fn cancel_idle(
        &self,
        run: &RunId,
        mode: CancelMode,
        request: Request,
    ) -> Result<RunHandle, EngineError> {
        let state = self.load_to_change(run).await?;
        let seq = state.seq;
        self.launch(state, seq, Reach::Drive, |driver| {
            if driver.state().finished.is_none() {
                driver.recover()?;
            }
            driver.stage(EventKind::CancelRequested { mode, request })
        })
        .await
    }

    /// Does what an operator wants of a step, and drives the run on when it stood still only for that: when it had ended
    /// and goes on by it, or nobody drove it. A paused run stays paused.
    ///
    /// # Errors
    /// [`EngineError::Illegal`] when the run's state does not allow it, with why; [`EngineError::OutputMismatch`] when
    /// an output does not fit its type; and as [`Engine::resume`].
    pub async fn act(&self, run: &RunId, verb: Verb, request: Request) -> Result<Acted, EngineError> {
        if let Some(handle) = self.handle(run) {
            match self.ask(run, Ask::Act(verb.clone(), request.clone())).await {
                // It ended or paused a moment ago.
                Err(EngineError::NotLive(_)) => {}
                asked => return asked.map(|()| Acted { handle: Some(handle) }),
            }
        }
        let state = self.load_idle(run).await?;
        let paused = state.paused.is_some();
        let reach = if paused { Reach::WriteOnly } else { Reach::Drive };
        let seq = state.seq;
        let handle = self
            .launch(state, seq, reach, |driver| {
                if driver.state().finished.is_none() && !paused {
                    driver.recover()?;
                }
                driver.act(&verb, request)?;
                // After it: what is to be done again needs no output that fits.
                let migrated = self.migrate(driver.state(), &driver.state().shapes)?;
                stage_all(driver, migrated)
            })
            .await?;
        if paused {
            // Whoever comes next must not be told that it is driven.
            handle.wait().await?;
            return Ok(Acted { handle: None });
        }
        Ok(Acted { handle: Some(handle) })
    }

    /// Writes down what an operator wants of a step of a run that nobody drives, and no more: whoever drives the run
    /// next goes by it.
    ///
    /// # Errors
    /// As [`Engine::act`]; and when the run is driven from here.
    pub async fn note(&self, run: &RunId, verb: Verb, request: Request) -> Result<RunView, EngineError> {
        let state = self.load_to_change(run).await?;
        let seq = state.seq;
        let handle = self
            .launch(state, seq, Reach::WriteOnly, |driver| {
                // The time in which nobody drove it must not count, and its attempts are over.
                if driver.state().finished.is_none() && driver.state().paused.is_none() {
                    driver.recover()?;
                }
                driver.act(&verb, request)
            })
            .await?;
        handle.wait().await
    }

    /// Compares a run with the definition of its workflow that is registered now; `None` when none is.
    ///
    /// # Errors
    /// When the run cannot be read, or the definition does not take its input.
    pub async fn compare(&self, run: &RunId) -> Result<Option<Comparison>, EngineError> {
        let state = self.load(run).await?;
        Ok(self.definition_of(&state)?.map(|graph| compare(&state, &graph, &self.inner.shapes(&graph))))
    }

    fn definition_of(&self, state: &RunState) -> Result<Option<Graph>, EngineError> {
        let Some(definition) = self.inner.workflows.get(&state.workflow) else { return Ok(None) };
        let graph = definition
            .graph(&state.input)
            .map_err(|why| EngineError::BadInput { workflow: state.workflow.to_string(), why })?;
        Ok(Some(graph))
    }

    /// Brings a run that stands still to the definition of its workflow that is registered now, and drives it on. Steps
    /// that are done stay done where neither they nor their input changed; the rest is done again.
    ///
    /// # Errors
    /// When there is no such definition, the run is driven, goes backwards or has succeeded; a step that may have made
    /// something is not in the new definition; and as [`Engine::resume`].
    pub async fn upgrade(&self, run: &RunId, request: Request) -> Result<RunHandle, EngineError> {
        let state = self.load_to_change(run).await?;
        let workflow = state.workflow.to_string();
        let graph = self.definition_of(&state)?.ok_or(EngineError::MissingWorkflow { workflow })?;
        self.check_code(run, &graph, true)?;
        let shapes = self.inner.shapes(&graph);
        // The types that the stored outputs were made with; the upgrade puts those of now in their place.
        let was = state.shapes.clone();
        let verdict = compare(&state, &graph, &shapes).verdict;
        let version = self.inner.workflows[&state.workflow].version;
        let reset = to_do_again(&state, &graph, &mut |was, step| self.input_is(&state, was, step));
        let seq = state.seq;
        self.launch(state, seq, Reach::Drive, |driver| {
            if driver.state().finished.is_none() {
                driver.recover()?;
            }
            let halted = matches!(driver.state().halt, Some(Halt::Pause | Halt::Fail | Halt::TimedOut));
            if driver.state().paused.is_some() || driver.state().finished.is_some() || halted {
                // First: what failed and is the same in the new definition is tried again too.
                driver.stage(EventKind::RunResumed { request: request.clone() })?;
            }
            if verdict != Verdict::Compatible || *driver.state().graph.hash() != *graph.hash() {
                driver.with_graph(&graph);
                driver.stage(EventKind::RunUpgraded {
                    graph: graph.hash().clone(),
                    workflow_version: version,
                    reset,
                    shapes,
                    request,
                })?;
            }
            let migrated = self.migrate(driver.state(), &was)?;
            stage_all(driver, migrated)
        })
        .await
    }

    /// Whether a step of the new definition gets the input that it had.
    fn input_is(&self, state: &RunState, was: StepIx, step: &Step) -> bool {
        let s = &state.steps[was as usize];
        let (Some(input), Some(binding)) = (&s.input, step.kind.bindings()) else { return true };
        resolve(state, &self.inner.functions, binding).is_ok_and(|now| now == **input)
    }

    /// Outputs made with the types `was` that do not fit those of now, brought to them where a migration says how.
    fn migrate(&self, state: &RunState, was: &ActivityShapes) -> Result<Vec<EventKind>, EngineError> {
        let mut events = Vec::new();
        let (mut steps, mut first) = (Vec::new(), None);
        for (ix, s) in (0..).zip(&state.steps) {
            let step = state.graph.step(ix);
            let (Some(output), Some(activity)) = (&s.output, step.kind.activity()) else { continue };
            let Some(code) = self.inner.activities.get(activity) else { continue };
            // Only what was made with other types is looked at: a thousand outputs need not be read for nothing.
            let same = was.get(activity).is_some_and(|was| *was == code.shapes());
            if same || state.maps.contains_key(&ix) || !s.status.is_done() {
                continue;
            }
            let Err(why) = code.check_output(output) else { continue };
            let migrated = self.inner.migrations.get(activity).map(|migrate| migrate(output));
            match migrated {
                Some(Ok(output)) if code.check_output(&output).is_ok() => {
                    events.push(EventKind::OutputMigrated { step: step.name.clone(), output });
                }
                Some(Err(why)) => {
                    first.get_or_insert(format!("its migration says: {why}"));
                    steps.push(step.name.clone());
                }
                Some(Ok(_)) | None => {
                    first.get_or_insert(why);
                    steps.push(step.name.clone());
                }
            }
        }
        match first {
            None => Ok(events),
            Some(why) => Err(EngineError::OutputChanged { run: state.id.clone(), steps, why }),
        }
    }

    async fn load_to_change(&self, run: &RunId) -> Result<RunState, EngineError> {
        if self.handle(run).is_some() {
            return Err(EngineError::Live(run.clone()));
        }
        let state = self.load(run).await?;
        refuse_imported(&state)?;
        Ok(state)
    }

    async fn load_idle(&self, run: &RunId) -> Result<RunState, EngineError> {
        let state = self.load_to_change(run).await?;
        self.check_code(run, &state.graph, false)?;
        Ok(state)
    }
}

/// What another store's run made is not this store's to change.
pub(crate) fn refuse_imported(state: &RunState) -> Result<(), EngineError> {
    match &state.imported {
        None => Ok(()),
        Some(from) => Err(EngineError::Imported { run: state.id.clone(), store: from.store.clone() }),
    }
}

fn stage_all(driver: &mut Driver, events: Vec<EventKind>) -> Result<(), EngineError> {
    events.into_iter().try_for_each(|event| driver.stage(event))
}
