//! Engines and typed workflows: registering them, starting them, waiting for what they return.

use super::function::Data;
use super::{Definition, Untyped, Workflow, WorkflowError};
use crate::runtime::{Engine, EngineBuilder, EngineError, RunHandle, StartRun};

impl<I: Data, O> Workflow<I, O> {
    /// What starts a run of it with `input`, with its version and its options: for test kits, which start runs by
    /// [`StartRun`], and for [`Engine::start`]. [`Engine::submit`] is the shorter way where there is an engine.
    ///
    /// # Errors
    /// [`WorkflowError::BadValue`] when the input cannot be written as JSON.
    pub fn start(&self, input: I) -> Result<StartRun, WorkflowError> {
        let Definition { name, version, options, .. } = self.definition();
        let input = serde_json::to_value(input)
            .map_err(|e| WorkflowError::BadValue { workflow: name.clone(), why: e.to_string() })?;
        let mut start = StartRun::new(name.clone(), self.graph().clone());
        (start.version, start.options, start.input) = (*version, options.clone(), input);
        Ok(start)
    }
}

impl EngineBuilder {
    /// Adds a workflow with the code of its steps, and the workflows that it runs as sub-workflows with theirs. One
    /// that is there already, built the same way from the same functions, is left as it is.
    ///
    /// What closures captured, and what is in the fields of an [`Activity`](crate::Activity), is not compared: of two
    /// workflows that differ in nothing else the first one's code runs, for both. Hand such things to the engine with
    /// [`EngineBuilder::resource`], or give the workflows different names.
    ///
    /// [`EngineBuilder::activities`] and [`EngineBuilder::functions`] replace what is there: call them before.
    ///
    /// # Errors
    /// [`WorkflowError::Taken`] when another workflow has its name; [`WorkflowError::Code`] when an activity of another
    /// origin has the name of one of its steps' code.
    pub fn register<I, O>(self, workflow: &Workflow<I, O>) -> Result<Self, WorkflowError> {
        self.register_untyped(&workflow.untyped)
    }

    fn register_untyped(mut self, workflow: &Untyped) -> Result<Self, WorkflowError> {
        let Untyped { definition, code } = workflow;
        let name = &definition.name;
        match self.workflows.get(name) {
            Some(there) if there.is_same(definition) => return Ok(self),
            Some(_) => return Err(WorkflowError::Taken { workflow: name.clone() }),
            None => {}
        }
        for sub in &code.subs {
            self = self.register_untyped(sub)?;
        }
        self.add_code(code.activities.clone(), code.functions.clone())
            .map(|builder| builder.definition(definition.clone()))
            .map_err(|error| WorkflowError::Code { workflow: name.clone(), error })
    }
}

impl Engine {
    /// Runs a workflow to its end and gives what it returned.
    ///
    /// # Errors
    /// As [`Engine::submit`], and as [`RunHandle::result`].
    pub async fn run<I: Data, O: Data>(&self, workflow: &Workflow<I, O>, input: I) -> Result<O, EngineError> {
        self.submit(workflow, input).await?.result().await
    }

    /// Starts a run of a workflow. It exists durably when this returns.
    ///
    /// # Errors
    /// [`EngineError::MissingWorkflow`] when it was not registered; [`EngineError::BadInput`] when the input does not
    /// survive being stored; and as [`Engine::start`].
    pub async fn submit<I: Data, O: Data>(
        &self,
        workflow: &Workflow<I, O>,
        input: I,
    ) -> Result<RunHandle<O>, EngineError> {
        self.submit_with(workflow, input, |_| {}).await
    }

    /// The same, with more said of the run: its id, labels, who asks, what an id that is taken means.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub async fn submit_with<I: Data, O: Data>(
        &self,
        workflow: &Workflow<I, O>,
        input: I,
        more: impl FnOnce(&mut StartRun),
    ) -> Result<RunHandle<O>, EngineError> {
        let definition = workflow.definition();
        let name = &definition.name;
        match self.inner.workflows.get(name) {
            Some(there) if there.is_same(definition) => {}
            Some(_) => {
                let workflow = format!("{name}, as it is here at version {},", definition.version);
                return Err(EngineError::MissingWorkflow { workflow });
            }
            None => return Err(EngineError::MissingWorkflow { workflow: name.to_string() }),
        }
        let input = serde_json::to_value(input)
            .map_err(|e| EngineError::BadInput { workflow: name.to_string(), why: e.to_string() })?;
        let mut start = self.start_of(name.as_str(), input)?;
        more(&mut start);
        Ok(self.start(start).await?.typed())
    }
}
