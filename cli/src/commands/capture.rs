//! `dssflow dss capture`: the overlay that makes a site fit what a DSS holds. Reads only, prints no secret.

use dssflow_activities::dss::capture::{Captured, Subject, as_site, capture};
use dssflow_activities::dss::client::DssClient;
use dssflow_activities::secret::{self, SecretClients};
use dssflow_engine::activity::ActivityError;
use dssflow_engine::event::EventKind;
use dssflow_workflows::Site;
use dssflow_workflows::bootstrap::overlay::{Names, templates};
use dssflow_workflows::site::ApiKey;

use crate::access::Access;
use crate::args::{CaptureArgs, CaptureKind};
use crate::catalog;
use crate::config::Settings;
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::ui::{Ui, one_line};
use crate::world::{self, sandbox_dir};

/// Looks, compares and prints.
pub(crate) async fn run(ui: &Ui, settings: &Settings, args: &CaptureArgs) -> CommandResult {
    let subject = subject(args)?;
    let site = site(settings, args).await?;
    let key = match &site.dss.api_key {
        ApiKey::Sink { sink } => sink.reference(),
        ApiKey::Ref(reference) => reference.clone(),
    };
    let clients = world::connect(&site, None).await?.clients;
    let around = SecretClients { secrets_manager: Some(clients.secretsmanager()), ssm: Some(clients.ssm()) };
    let key = secret::resolve(&key, around).await.map_err(|e| CommandError::from(ActivityError::from(e)))?;
    let client = DssClient::with_key(&site.dss_url(), key.expose())?;
    let names = Names::of_subject(&site, &subject);
    let captured = capture(&client, &subject, &templates(&site)?, &|text| names.generalised(text)).await;
    let captured = captured.map_err(|error| match error.code.as_str() {
        "CaptureMissing" => wrong(Code::CaptureMissing, error),
        "CaptureKind" => wrong(Code::CaptureKind, error),
        _ => CommandError::from(error),
    })?;
    print(ui, &site, &subject, &captured);
    Ok(Exit::Ok)
}

fn wrong(code: Code, error: ActivityError) -> CommandError {
    let made = CommandError::new(code, error.message);
    match error.help {
        Some(help) => made.hint(help),
        None => made,
    }
}

fn subject(args: &CaptureArgs) -> CommandResult<Subject> {
    let name = args.name.clone().unwrap_or_default();
    Ok(match args.kind {
        CaptureKind::Connection => Subject::Connection(name),
        CaptureKind::Plugin => Subject::Plugin(name),
        CaptureKind::Cluster => Subject::Cluster(name),
        CaptureKind::GeneralSettings if args.name.is_none() => Subject::GeneralSettings,
        CaptureKind::GeneralSettings => {
            let error =
                CommandError::new(Code::Usage, "there is one document of general settings, without a name");
            return Err(error.hint("dssflow dss capture general-settings"));
        }
    })
}

/// The site of the file, of the sandbox or of a run.
async fn site(settings: &Settings, args: &CaptureArgs) -> CommandResult<Site> {
    if let Some(selector) = &args.run {
        let access = Access::open(&settings.store).await?;
        let found = site_of(&access, selector).await;
        access.close().await?;
        return found;
    }
    let sandbox = if args.sandbox {
        let found = dssflow_sandbox::find(&sandbox_dir(&settings.store)).await?;
        Some(found.ok_or_else(|| {
            CommandError::new(Code::NoSandbox, "there is no sandbox").hint("`dssflow sandbox up` starts one")
        })?)
    } else {
        None
    };
    let file = match (&args.file, &sandbox) {
        (Some(file), _) => file.clone(),
        (None, Some(sandbox)) => sandbox.site_yaml.clone(),
        (None, None) => "site.yaml".into(),
    };
    let site = catalog::read_site(&file, &[])?;
    if let Some(sandbox) = &sandbox {
        world::must_be_inside(&site, sandbox)?;
    }
    Ok(site)
}

async fn site_of(access: &Access, selector: &str) -> CommandResult<Site> {
    let run = access.resolve(selector).await?;
    let first = access.events(&run, 0).await?.into_iter().next();
    match first.map(|event| event.kind) {
        Some(EventKind::RunCreated { input, .. }) => serde_json::from_value(input).map_err(|error| {
            CommandError::new(Code::RunForeign, format!("run {run} has no site that this version can read"))
                .why(error)
        }),
        _ => Err(CommandError::new(Code::StoreDamaged, format!("the history of run {run} has no beginning"))),
    }
}

fn print(ui: &Ui, site: &Site, subject: &Subject, captured: &Captured) {
    let comment = |text: &str| ui.out(&format!("# {}", one_line(text)));
    comment(&format!("{subject} of the DSS at {}, compared with site {}", site.dss_url(), site.name));
    for note in &captured.notes {
        comment(&format!("note: {note}"));
    }
    if captured.overlays.is_empty() {
        comment("what dssflow sends fits what DSS holds: no overlay is needed");
        return;
    }
    comment(
        "Put this into the site file, beside what `overlays` holds already; under an equal key it takes its place.",
    );
    ui.yaml(&as_site(captured));
}
