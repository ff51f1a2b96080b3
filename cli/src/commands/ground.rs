//! What commands about a site stand on: the site with what the command line changes of it, and the sandbox that it leads
//! into.

use dssflow_engine::id::RunId;
use dssflow_sandbox::World as Sandbox;
use dssflow_workflows::Site;

use super::run::sandbox_behind;
use crate::config::Settings;
use crate::error::{Code, CommandError, CommandResult};
use crate::world;

/// A site and its sandbox.
pub(super) struct Ground {
    pub(super) site: Site,
    /// The sandbox that was asked for, or the one that the site leads into.
    pub(super) sandbox: Option<Sandbox>,
}

impl Ground {
    /// `chosen` is what the command line named; `parallelism` wins over the site's.
    ///
    /// # Errors
    /// When the sandbox cannot be asked, or the site leads out of it.
    pub(super) async fn of(
        settings: &Settings,
        chosen: (Site, Option<Sandbox>),
        parallelism: Option<u32>,
    ) -> CommandResult<Self> {
        let (mut site, sandbox) = chosen;
        if let Some(parallelism) = parallelism {
            site.parallelism = parallelism;
        }
        let sandbox = match sandbox {
            Some(sandbox) => Some(sandbox),
            None => sandbox_behind(settings, &site).await?,
        };
        if let Some(sandbox) = &sandbox {
            world::must_be_inside(&site, sandbox)?;
        }
        Ok(Self { site, sandbox })
    }
}

/// The id that somebody chose for a run.
///
/// # Errors
/// When it is none.
pub(super) fn chosen_id(id: Option<&str>) -> CommandResult<Option<RunId>> {
    id.map(RunId::new).transpose().map_err(|e| CommandError::new(Code::Usage, e.to_string()))
}
