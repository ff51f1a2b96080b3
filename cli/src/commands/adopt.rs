//! `dssflow resources adopt`: a run that found something which is not ours in the place of what a step makes may use it.
//!
//! The site file decides: what its `adopt` does not name is refused here as everywhere. A run keeps the site it was
//! created with, so a name that came into the file since is brought to the run as an event of its own, with who and
//! why; then the step is tried again. Its own probe and check decide whether what is there will do. What is taken so is
//! never changed back or deleted.

use dssflow_engine::event::EventKind;
use dssflow_engine::run::verbs::FOREIGN;
use dssflow_engine::run::view::{RunView, StepView};
use dssflow_engine::run::{StepStatus, Verb};
use dssflow_workflows::Site;

use super::again::{drive, goes_on};
use super::target::Target;
use crate::access::Access;
use crate::args::ResourcesAdoptArgs;
use crate::catalog;
use crate::config::Settings;
use crate::describe;
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::ui::{Ui, one_line};
use crate::world::{self, SANDBOX_LABEL};

/// Lets the steps adopt, and goes on with the run.
pub(crate) async fn run(ui: &Ui, settings: &Settings, args: ResourcesAdoptArgs) -> CommandResult {
    let target = Target::find(settings, &args.run, &format!("resources adopt {}", args.run)).await?;
    match judge(settings, &target, &args).await {
        Ok(steps) if steps.is_empty() => {
            target.access.close().await?;
            ui.note(&format!(
                "nothing that is not ours stands in the way of run {}: nothing to adopt",
                target.view.run
            ));
            Ok(Exit::Ok)
        }
        Ok(steps) => Box::pin(adopt(ui, settings, target, &steps, args)).await,
        Err(error) => {
            target.access.close().await?;
            Err(error)
        }
    }
}

/// Steps that stopped because something not ours is there.
fn in_conflict(view: &RunView) -> impl Iterator<Item = &StepView> {
    view.steps.iter().filter(|step| {
        let open = !matches!(step.status, StepStatus::Succeeded | StepStatus::Adopted | StepStatus::Skipped);
        open && step.error.as_ref().is_some_and(|error| error.code == FOREIGN)
    })
}

/// The steps that may adopt: those that were named, or all that something stands in the way of.
async fn judge(
    settings: &Settings,
    target: &Target,
    args: &ResourcesAdoptArgs,
) -> CommandResult<Vec<StepView>> {
    let (view, command) = (&target.view, settings.command());
    let mut steps: Vec<StepView> = in_conflict(view).cloned().collect();
    if !args.step.is_empty() {
        for name in &args.step {
            let step = target.step(name)?;
            if !steps.iter().any(|s| s.step == step) {
                let now = view.steps.iter().find(|s| s.step == step).expect("just found");
                return Err(CommandError::new(
                    Code::RunRefused,
                    format!("nothing that is not ours stands in the way of step {step}"),
                )
                .why(format!("it is {}", describe::words(now.status.as_str())))
                .hint(format!("`{command} why {}` says what the run hangs on", view.run)));
            }
        }
        steps.retain(|s| args.step.iter().any(|name| *name == s.step.as_str()));
    }
    if steps.is_empty() {
        return Ok(steps);
    }
    let (site, file) = site_file(settings, target, args).await?;
    let refused: Vec<&str> = steps.iter().map(|s| s.step.as_str()).filter(|s| !site.adopts(s)).collect();
    if refused.is_empty() {
        return Ok(steps);
    }
    let mut wanted = site.adopt.clone();
    wanted.extend(refused.iter().map(|s| (*s).to_owned()));
    let wanted: Vec<String> = wanted.iter().map(|name| format!("{name:?}")).collect();
    Err(CommandError::new(
        Code::RunRefused,
        format!("the site file does not let these steps take what is not ours: {}", refused.join(", ")),
    )
    .why("what no run of this site made is adopted only where the site allows it")
    .hint(format!("allow it in {file}, then type this again: `adopt: [{}]`", wanted.join(", ")))
    .hint(format!("or take away what is there, and go on: {command} resume {}", view.run)))
}

/// The site file as it is now, and where it lies. It has to be the run's own site.
async fn site_file(
    settings: &Settings,
    target: &Target,
    args: &ResourcesAdoptArgs,
) -> CommandResult<(Site, String)> {
    let view = &target.view;
    let file = match (&args.file, view.labels.contains_key(SANDBOX_LABEL)) {
        (Some(file), _) => file.clone(),
        (None, true) => world::sandbox_dir(&settings.store).join("site.yaml"),
        (None, false) => "site.yaml".into(),
    };
    let first = target.access.events(&view.run, 0).await?.into_iter().next();
    let created = match first.map(|event| event.kind) {
        Some(EventKind::RunCreated { input, .. }) => serde_json::from_value::<Site>(input).ok(),
        _ => None,
    };
    let Some(created) = created else {
        return Err(CommandError::new(
            Code::RunRefused,
            format!("run {} of workflow {} was not made from a site", view.run, view.workflow),
        )
        .hint("a run of images adopts repositories when its file says `registry: { adopt: true }`"));
    };
    let site = catalog::read_site(&file, &args.set)?;
    let same = (&site.name, &site.expected_account, &site.region)
        == (&created.name, &created.expected_account, &created.region);
    if !same {
        return Err(CommandError::new(
            Code::RunRefused,
            format!("{} is not the site of run {}", file.display(), view.run),
        )
        .why(format!(
            "it is {} in {} of account {}; the run's is {} in {} of account {}",
            one_line(&site.name),
            site.region,
            site.expected_account,
            one_line(&created.name),
            created.region,
            created.expected_account
        ))
        .hint("name the run's site file with -f"));
    }
    Ok((site, file.display().to_string()))
}

async fn adopt(
    ui: &Ui,
    settings: &Settings,
    target: Target,
    steps: &[StepView],
    args: ResourcesAdoptArgs,
) -> CommandResult {
    let mut lines = vec!["used as it is, and never changed back or deleted:".to_owned()];
    lines.extend(steps.iter().map(|step| format!("  = {}  {}", step.step, one_line(&step.title))));
    ui.note(&lines.join("\n"));
    let danger = "what is adopted was made by somebody else";
    if let Err(error) = target.confirm(ui, args.yes, "Adopt this?", danger) {
        target.access.close().await?;
        return Err(error);
    }
    let reason = args.reason.reason;
    let mut verbs: Vec<Verb> = steps.iter().map(|step| Verb::Adopt { step: step.step.clone() }).collect();
    let last = verbs.pop().expect("there are steps");
    for verb in verbs {
        target.record(verb, &reason).await?;
    }
    let goes_on = steps.iter().any(|step| goes_on(&target.view, &step.step));
    if !goes_on || matches!(target.access, Access::Owner(_)) {
        let names: Vec<&str> = steps.iter().map(|step| step.step.as_str()).collect();
        let done = format!("adopted from here on: {}", names.join(", "));
        return target.write(ui, settings, last, &reason, &done).await;
    }
    Box::pin(drive(ui, settings, target, last, &reason, args.output.output)).await
}
