//! `dssflow run image`: builds images by this machine's Docker and pushes them. Reads a file of its own; from there on
//! its runs are runs like others.

use std::path::Path;

use dssflow_activities::docker::context::Context;
use dssflow_activities::docker::daemon::{CALL_TIMEOUT, Daemon};
use dssflow_workflows::ImageSpec;

use crate::args::RunArgs;
use crate::catalog;
use crate::commands::ground::chosen_id;
use crate::commands::run::{attach, start, unfinished};
use crate::config::Settings;
use crate::control::Order;
use crate::drive::{Aim, Session};
use crate::error::{Code, CommandError, CommandResult};
use crate::spec::About;
use crate::ui::{Ui, one_line};
use crate::world::{self, Pool};
use crate::{owner, remote};

/// The file that is read when none is named.
const FILE: &str = "image.yaml";

/// Starts or goes on, then follows.
pub(crate) async fn run(ui: &Ui, settings: &Settings, args: RunArgs) -> CommandResult {
    args.must_select_nothing()?;
    if args.sandbox {
        return Err(CommandError::new(Code::Usage, "images are built by the Docker of this machine")
            .why("the sandbox has none")
            .hint("run it without --sandbox; `kind: anonymous` or `basic` push to a registry of your own"));
    }
    let id = chosen_id(args.id.as_deref())?;
    let file = args.file.as_deref().unwrap_or(Path::new(FILE));
    let mut spec = catalog::read_images(file, &args.set)?;
    if let Some(parallelism) = args.parallelism {
        spec.parallelism = parallelism;
    }
    let workflow = dssflow_workflows::image(&spec);
    if !args.yes && !ui.can_ask() {
        ui.confirm("This pushes images, and")?;
    }
    if let Some(client) = owner::served(&settings.store).await {
        let mut order = Order::new(&args.workflow, workflow.input, id);
        if spec.account().is_some() && !args.as_served {
            let world = world::connect_images(&Pool::default(), &spec).await?;
            order.principal = remote::principal(&world, About::from(&spec)).await;
        }
        let how = args.how(Aim::Forward);
        return Box::pin(remote::order(ui, settings, &client, order, &how, About::from(&spec))).await;
    }
    args.must_be_followed(settings)?;
    let session = Session::open(ui, settings, &format!("dssflow run {}", args.workflow), true).await?;
    let world = world::connect_images(&Pool::default(), &spec).await?;
    if let Some(earlier) = unfinished(session.engine(), &workflow, None, id.as_ref()).await? {
        let exit =
            attach(ui, settings, &session, &world, &spec, &workflow, &earlier, args.output.output).await;
        session.close().await?;
        return exit;
    }
    let principal = match spec.account() {
        Some(_) => Some(world.identify(&spec).await?.principal_arn),
        None => None,
    };
    look(&spec).await?;
    ui.note(&banner(&spec, principal.as_deref(), settings).join("\n"));
    if !args.yes {
        ui.confirm("Build and push this?")?;
    }
    Box::pin(start(ui, session, &world, workflow, id, (Aim::Forward, args.output.output), About::from(&spec)))
        .await
}

/// Looks at what would stop the run at once: Docker, and what is to be built.
pub(crate) async fn look(spec: &ImageSpec) -> CommandResult<()> {
    let mut why = Vec::new();
    let mut note = |what: String, help: Option<String>| {
        why.push(help.map_or_else(|| what.clone(), |help| format!("{what}\n  help: {help}")));
    };
    if let Err(error) = Daemon::connect(spec.docker_host.as_deref(), CALL_TIMEOUT).await {
        note(error.message, error.help);
    }
    for image in &spec.images {
        if let Err(error) = Context::find(Path::new(&image.context), &image.dockerfile).await {
            note(format!("image {}: {}", image.name, error.message), error.help);
        }
    }
    if why.is_empty() {
        return Ok(());
    }
    let plural = if why.len() == 1 { "" } else { "s" };
    let message = format!("the images cannot be built: {} problem{plural}", why.len());
    let mut error = CommandError::new(Code::Preflight, message);
    error.why = why;
    Err(error.hint("nothing was made; mend this and run the command again"))
}

/// What is about to happen, where, and as whom.
pub(crate) fn banner(spec: &ImageSpec, principal: Option<&str>, settings: &Settings) -> Vec<String> {
    let mut lines = vec![format!("images     {}", spec.name), format!("registry   {}", spec.host())];
    if let Some((account, region)) = spec.account() {
        lines.push(format!("account    {account} in {region}"));
    }
    lines.extend(principal.map(|principal| format!("principal  {}", one_line(principal))));
    lines.push(format!("store      {}", settings.store.display()));
    for image in &spec.images {
        let target = format!("{}:{}", image.repository, image.tags.join(", :"));
        lines.push(format!("image      {target} from {}", one_line(&image.context)));
    }
    lines
}

/// Refuses contexts that mean another place to another process.
///
/// # Errors
/// When one is not absolute.
pub(crate) fn must_be_absolute(spec: &ImageSpec) -> CommandResult<()> {
    match spec.images.iter().find(|image| !Path::new(&image.context).is_absolute()) {
        None => Ok(()),
        Some(image) => Err(CommandError::new(
            Code::WrongSite,
            format!("the context of image {} is no absolute path: {}", image.name, image.context),
        )
        .hint("what is sent to a server names its paths in full")),
    }
}
