//! What a run is made of, from a workflow's name and what is kept of its checked file: the same way for `run`, for the
//! firings of schedules, and for orders that come in through the API. Looks at nothing outside.

use dssflow_engine::event::Request;
use dssflow_engine::id::RunId;
use dssflow_engine::runtime::{Launch, LaunchError, Launcher};
use dssflow_engine::schedule::{Firing, ScheduleAction};
use dssflow_engine::time::BoxFuture;
use dssflow_engine::{Engine, StartRun};
use dssflow_workflows::{ImageSpec, Site, Workflow};
use serde_json::Value;

use crate::catalog::{self, MadeOf};
use crate::error::{Code, CommandError, CommandResult};
use crate::spec::Spec;
use crate::world::SANDBOX_LABEL;

/// A workflow made of a checked spec.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// What to do.
    pub(crate) workflow: Workflow,
    /// What it was made of.
    pub(crate) spec: Spec,
}

/// Makes a workflow of what a run of it is given: a checked site or file of images, as JSON. It is checked again, since it
/// may have been kept by another version.
///
/// # Errors
/// When there is no such workflow, it cannot be made of a value, or the value is wrong.
pub(crate) fn prepare(name: &str, input: &Value) -> CommandResult<Prepared> {
    let what = format!("what workflow {name} is given");
    match catalog::find(name)?.made_of {
        MadeOf::Site => {
            let site = dssflow_workflows::parse(&input.to_string(), &what).map_err(|mut errors| {
                // Lines are those of a file; here there is none.
                errors.problems.iter_mut().for_each(|problem| problem.line = None);
                errors
            })?;
            of_site(name, site)
        }
        MadeOf::Images => {
            let spec: ImageSpec = dssflow_workflows::image::parse(&input.to_string(), &what)?;
            Ok(Prepared { workflow: dssflow_workflows::image(&spec), spec: Spec::Images(Box::new(spec)) })
        }
        MadeOf::Resync => {
            let spec =
                dssflow_workflows::glue_resync::parse(&input.to_string(), &what).map_err(|mut errors| {
                    errors.problems.iter_mut().for_each(|problem| problem.line = None);
                    errors
                })?;
            Ok(Prepared {
                workflow: dssflow_workflows::glue_resync(&spec),
                spec: Spec::Resync(Box::new(spec)),
            })
        }
        MadeOf::SiteAndRuns => Err(CommandError::new(
            Code::Usage,
            format!("workflow {name} is made of the runs that it takes back, so somebody has to be there"),
        )
        .hint(format!("run it by hand: `dssflow run {name}`"))),
    }
}

/// Makes a workflow of a site that was read and checked.
///
/// # Errors
/// When there is no such workflow, or it is not made of a site.
pub(crate) fn of_site(name: &str, site: Site) -> CommandResult<Prepared> {
    Ok(Prepared { workflow: catalog::build(name, &site)?, spec: Spec::Site(Box::new(site)) })
}

/// The run of a workflow, in a sandbox when one is named.
pub(crate) fn start_of(
    workflow: Workflow,
    id: Option<RunId>,
    sandbox: Option<&str>,
    request: Request,
) -> StartRun {
    StartRun {
        id,
        version: workflow.version,
        site: workflow.site,
        input: workflow.input,
        options: workflow.options,
        labels: sandbox.into_iter().map(|id| (SANDBOX_LABEL.to_owned(), id.to_owned())).collect(),
        request,
        ..StartRun::new(workflow.name, workflow.graph)
    }
}

/// The run of a schedule's action, in a sandbox when one is named.
///
/// # Errors
/// As [`prepare`].
pub(crate) fn start_of_action(
    action: &ScheduleAction,
    sandbox: Option<&str>,
) -> CommandResult<(StartRun, Spec)> {
    let Prepared { workflow, spec } = prepare(&action.workflow, &action.input)?;
    let mut start = start_of(workflow, None, sandbox, Request::default());
    start.labels.extend(action.labels.clone());
    if let Some(options) = &action.options {
        start.options = options.clone();
    }
    Ok((start, spec))
}

/// Says whether a schedule could start its runs, and starts none: for commands that only write schedules down.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checker;

impl Launcher for Checker {
    fn check(&self, _: &Engine, action: &ScheduleAction) -> Result<(), LaunchError> {
        start_of_action(action, None).map(drop).map_err(|error| LaunchError::Never(error.to_string()))
    }

    fn launch<'a>(&'a self, _: &'a Engine, _: &'a Firing) -> BoxFuture<'a, Result<Launch, LaunchError>> {
        Box::pin(async { Err(LaunchError::Later("schedules fire while `dssflow serve` runs".to_owned())) })
    }
}
