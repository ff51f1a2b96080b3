//! `dssflow init`: a commented site file, filled from the instance's metadata and AWS where they answer.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use dssflow_activities::aws::identity::identify;
use dssflow_activities::aws::instance::{InstanceInput, instance_facts};
use dssflow_activities::clients::{AwsClients, ClientsConfig};
use dssflow_workflows::{InstanceFacts, SubnetFacts, init_template};

use crate::args::InitArgs;
use crate::catalog;
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::ui::Ui;

/// How long metadata and AWS may take together.
const PATIENCE: Duration = Duration::from_secs(2);
/// The usual metadata service.
const METADATA: &str = "http://169.254.169.254";

/// Looks, then writes.
pub(crate) async fn run(ui: &Ui, args: &InitArgs) -> CommandResult {
    let workflow = catalog::find(&args.workflow)?.name;
    if workflow == dssflow_workflows::image::NAME {
        return example(ui, args, catalog::EXAMPLE_IMAGES, "put in your own registry and images");
    }
    if workflow == dssflow_workflows::glue_resync::NAME {
        return example(ui, args, catalog::EXAMPLE_RESYNC, "put in your own account, DSS and connections");
    }
    let mut facts = InstanceFacts::default();
    // What was found in time counts; the rest is left open in the file.
    if !args.offline && tokio::time::timeout(PATIENCE, Box::pin(look(args, &mut facts))).await.is_err() {
        ui.note("AWS did not answer in time; the rest is left open");
    }
    let text = init_template(facts.instance_id.is_some().then_some(&facts));
    if args.output == Path::new("-") {
        ui.out(text.trim_end());
        return Ok(Exit::Ok);
    }
    write(&args.output, &text, args.force)?;
    match &facts.instance_id {
        Some(id) => ui.note(&format!("{} is filled from instance {id}; check it", args.output.display())),
        None => {
            ui.note(&format!("{}: no instance metadata here, fill in what is marked", args.output.display()));
        }
    }
    ui.note(&format!("then: dssflow run {} -f {}", args.workflow, args.output.display()));
    Ok(Exit::Ok)
}

/// A file in which nothing can be looked up.
fn example(ui: &Ui, args: &InitArgs, text: &str, what: &str) -> CommandResult {
    if args.output == Path::new("-") {
        ui.out(text.trim_end());
        return Ok(Exit::Ok);
    }
    write(&args.output, text, args.force)?;
    ui.note(&format!("{}: an example; {what}", args.output.display()));
    ui.note(&format!("then: dssflow run {} -f {}", args.workflow, args.output.display()));
    Ok(Exit::Ok)
}

fn write(path: &Path, text: &str, force: bool) -> CommandResult<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let failed = |e: std::io::Error| {
        let error = CommandError::new(Code::File, format!("{} cannot be written", path.display())).why(&e);
        match e.kind() {
            std::io::ErrorKind::AlreadyExists => error.hint("--force replaces it"),
            _ => error,
        }
    };
    let mut file = options.open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

/// Fills in what answers, in the order in which one leads to the next. Silence is no error: there may be no AWS here.
async fn look(args: &InitArgs, facts: &mut InstanceFacts) -> Option<()> {
    let base = args.imds_endpoint.as_deref().unwrap_or(METADATA).trim_end_matches('/');
    let http = reqwest::Client::builder().connect_timeout(Duration::from_secs(1)).no_proxy().build().ok()?;
    let token = http
        .put(format!("{base}/latest/api/token"))
        .header("x-aws-ec2-metadata-token-ttl-seconds", "60")
        .send()
        .await
        .ok()?
        .error_for_status()
        .ok()?
        .text()
        .await
        .ok()?;
    let instance = metadata(&http, base, &token, "instance-id").await?;
    facts.instance_id = Some(instance.clone());
    let region = metadata(&http, base, &token, "placement/region").await?;
    facts.region = Some(region.clone());
    let mut config = ClientsConfig::new(region);
    config.endpoint_url.clone_from(&args.endpoint_url);
    config.imds_endpoint = args.imds_endpoint.clone();
    let clients = AwsClients::connect(&config).await;
    if let Ok(identity) = identify(&clients).await {
        facts.account = Some(identity.account);
    }
    let input = InstanceInput { instance_id: Some(instance), min_memory_mib: 0 };
    let seen = Box::pin(instance_facts(&clients, &input)).await.ok()?;
    facts.vpc_id = Some(seen.vpc_id.clone());
    facts.security_groups = seen.security_groups;
    let answer = Box::pin(clients.ec2().describe_subnets().send()).await.ok()?;
    facts.subnets = answer
        .subnets()
        .iter()
        .filter(|s| s.vpc_id() == Some(seen.vpc_id.as_str()))
        .filter_map(|s| {
            Some(SubnetFacts {
                id: s.subnet_id()?.to_owned(),
                zone: s.availability_zone()?.to_owned(),
                public: s.map_public_ip_on_launch().unwrap_or(false),
            })
        })
        .collect();
    Some(())
}

async fn metadata(http: &reqwest::Client, base: &str, token: &str, path: &str) -> Option<String> {
    let request =
        http.get(format!("{base}/latest/meta-data/{path}")).header("x-aws-ec2-metadata-token", token);
    let text = request.send().await.ok()?.error_for_status().ok()?.text().await.ok()?;
    let text = text.trim();
    // It goes into a file: what is no identifier is not taken.
    let fits =
        !text.is_empty() && text.len() < 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    fits.then(|| text.to_owned())
}
