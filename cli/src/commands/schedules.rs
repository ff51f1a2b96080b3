//! `dssflow schedules`: made, shown, changed. They fire in the process that serves the store; from here they are written
//! down, through that process where there is one.

mod shown;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dssflow_engine::event::Request;
use dssflow_engine::id::ScheduleId;
use dssflow_engine::runtime::schedules::Backfilled;
use dssflow_engine::runtime::{Schedules, Triggered};
use dssflow_engine::schedule::{Backfill, Overlap, ScheduleAction, ScheduleSpec, ScheduleView, Timing};
use dssflow_engine::time::Timestamp;
use dssflow_store::SledStore;
use serde::Deserialize;
use serde_json::{Value, json};

use self::shown::{Fate, count, fate, list, show};
use crate::access::Access;
use crate::args::{AskArgs, BackfillArgs, SchedulesCommand, SpecArgs, ViewFormat};
use crate::catalog::{self, MadeOf};
use crate::commands::run::sandbox_if;
use crate::config::{self, Settings};
use crate::control::client::Client;
use crate::control::schedules::{ChangedSchedule, NewSchedule, Trigger, WantedBackfill};
use crate::describe;
use crate::drive::engine_on;
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::moment;
use crate::owner;
use crate::progress::now;
use crate::suggest;
use crate::ui::{Ui, one_line};

/// How many instants are told when a schedule was made or changed.
const TOLD: usize = 3;
/// A run that was triggered and is free to start is there after so long, also on a machine with much to do.
const BEGINS_WITHIN: Duration = Duration::from_secs(10);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Where schedules are.
enum Place {
    /// In the store, which this process holds meanwhile.
    Here(Arc<SledStore>, Schedules),
    /// At the process that owns it.
    Owner(Box<Client>),
}

/// What flags and file ask for, read before anything is opened.
enum Asked {
    /// A schedule that is to be made.
    New(ScheduleId, Box<ScheduleSpec>),
    /// Changes to one that is there.
    Change(Box<Wanted>),
    /// Neither.
    Nothing,
}

/// What flags and file want; in the sandbox, what the workflow takes there.
async fn wanted(ui: &Ui, settings: &Settings, args: &SpecArgs) -> CommandResult<Wanted> {
    let sandbox = sandbox_if(ui, settings, args.sandbox).await?;
    Wanted::read(args, sandbox.as_ref().map(|sandbox| sandbox.site_yaml.as_path()))
}

/// Runs one of them.
pub(crate) async fn run(ui: &Ui, settings: &Settings, command: SchedulesCommand) -> CommandResult {
    // What is wrong without a store is told without one, and makes none.
    let asked = match &command {
        SchedulesCommand::Create(args) => {
            let (id, spec) = wanted(ui, settings, args).await?.new_spec()?;
            Asked::New(id, Box::new(spec))
        }
        SchedulesCommand::Update(args) => Asked::Change(Box::new(wanted(ui, settings, args).await?)),
        _ => Asked::Nothing,
    };
    let place = Place::open(settings, matches!(command, SchedulesCommand::Create(_))).await;
    let place = match (place, &command) {
        (Err(error), SchedulesCommand::Ls { output }) if error.code == Code::NoStore => {
            list(ui, settings, &[], *output);
            return Ok(Exit::Ok);
        }
        (place, _) => place?,
    };
    let result = done(ui, settings, &place, command, asked).await;
    place.close().await?;
    result
}

async fn done(
    ui: &Ui,
    settings: &Settings,
    place: &Place,
    command: SchedulesCommand,
    asked: Asked,
) -> CommandResult {
    match command {
        SchedulesCommand::Ls { output } => list(ui, settings, &place.all().await?, output),
        SchedulesCommand::Get { id, output } => {
            let view = place.get(&name(&id)?).await?;
            show(ui, &view, output);
        }
        SchedulesCommand::Create(args) => {
            let Asked::New(id, spec) = asked else { unreachable!("it was read") };
            let view = place.create(id, *spec, request(&args.reason)).await?;
            tell(ui, settings, place, &view, args.output, "created").await?;
        }
        SchedulesCommand::Update(args) => {
            let Asked::Change(wanted) = asked else { unreachable!("it was read") };
            let id = wanted.id.clone().ok_or_else(|| {
                CommandError::new(Code::Usage, "which schedule is to be changed is not said")
                    .hint("`dssflow schedules ls` lists them")
            })?;
            let spec = wanted.changed(place.get(&id).await?.spec)?;
            let view = place.update(&id, spec, request(&args.reason)).await?;
            tell(ui, settings, place, &view, args.output, "changed").await?;
        }
        SchedulesCommand::Pause(AskArgs { id, reason }) => {
            let view = place.ask(&name(&id)?, "pause", request(&reason)).await?;
            ui.note(&format!(
                "schedule {} is paused; `{} schedules unpause {}` lets it go on",
                view.schedule,
                settings.command(),
                view.schedule
            ));
        }
        SchedulesCommand::Unpause(AskArgs { id, reason }) => {
            let view = place.ask(&name(&id)?, "unpause", request(&reason)).await?;
            let next = view.next.map_or_else(|| "never again".to_owned(), describe::when);
            ui.note(&format!("schedule {} goes on; it fires next {next}", view.schedule));
            place.hint(ui, settings);
        }
        SchedulesCommand::Trigger { ask, overlap } => {
            let overlap = overlap.as_deref().map(policy).transpose()?;
            let id = name(&ask.id)?;
            let triggered = place.trigger(&id, overlap, request(&ask.reason)).await?;
            let run = &triggered.run;
            ui.out(run.as_str());
            let watch = format!("`{} runs watch {run}` follows the run", settings.command());
            ui.note(&match place.fate(&id, &triggered).await? {
                Some(Fate::Begun) => watch,
                Some(Fate::Waits(other)) => format!("it waits for run {other}; {watch} once it has begun"),
                Some(Fate::Not(why)) => format!("run {run} is not started: {why}"),
                Some(Fate::Later) | None => format!("{watch} once it has begun"),
            });
            place.hint(ui, settings);
        }
        SchedulesCommand::Backfill(args) => backfill(ui, settings, place, &args).await?,
        SchedulesCommand::Next { id, count, output } => {
            let id = name(&id)?;
            let view = place.get(&id).await?;
            let next = place.next(&id, count).await?;
            instants(ui, &next, output);
            if view.paused.is_some() {
                ui.note(&format!(
                    "it is paused; `{} schedules unpause {id}` lets it go on",
                    settings.command()
                ));
            }
        }
        SchedulesCommand::Rm { id, yes } => {
            let view = place.get(&name(&id)?).await?;
            if !yes {
                ui.confirm(&format!("Schedule {id} will be removed; its {} runs stay.", view.counts.fired))?;
            }
            place.remove(&view.schedule).await?;
            ui.note(&format!("schedule {id} is removed"));
        }
    }
    Ok(Exit::Ok)
}

impl Place {
    async fn open(settings: &Settings, create: bool) -> CommandResult<Self> {
        if create {
            std::fs::create_dir_all(&settings.store).map_err(|e| {
                CommandError::new(Code::StoreUnusable, "the store's directory cannot be made").why(e)
            })?;
        }
        let access = if create {
            match owner::open(&settings.store, "dssflow schedules", true).await? {
                owner::Opened::Here(store) => Access::Store(store),
                owner::Opened::Elsewhere(_) => Access::open_as(&settings.store, "dssflow schedules").await?,
            }
        } else {
            Access::open_as(&settings.store, "dssflow schedules").await?
        };
        Ok(match access {
            Access::Store(store) => {
                let schedules = engine_on(&store)?.schedules();
                Self::Here(store, schedules)
            }
            Access::Owner(client) => Self::Owner(client),
        })
    }

    async fn close(self) -> CommandResult<()> {
        match self {
            Self::Here(store, schedules) => {
                drop(schedules);
                owner::close(store).await
            }
            Self::Owner(_) => Ok(()),
        }
    }

    /// Says that nothing fires while nobody is there to do it.
    fn hint(&self, ui: &Ui, settings: &Settings) {
        if let Self::Here(..) = self {
            ui.note(&format!(
                "schedules fire while `{} serve` runs; nobody owns the store now",
                settings.command()
            ));
        }
    }

    async fn all(&self) -> CommandResult<Vec<ScheduleView>> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = match self {
                Self::Here(_, schedules) => schedules.list(after.as_ref(), 1_000).await?,
                Self::Owner(client) => client.schedules(after.as_ref()).await?,
            };
            all.extend(page.schedules);
            after = page.after;
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    async fn get(&self, id: &ScheduleId) -> CommandResult<ScheduleView> {
        let found = match self {
            Self::Here(_, schedules) => schedules.get(id).await.map_err(CommandError::from),
            Self::Owner(client) => client.schedule(id).await,
        };
        match found {
            Err(error) if error.code == Code::NoSuchSchedule => Err(self.unknown(id, error).await),
            found => found,
        }
    }

    /// The error with the nearest name.
    async fn unknown(&self, id: &ScheduleId, error: CommandError) -> CommandError {
        let all = self.all().await.unwrap_or_default();
        let names = all.iter().map(|view| view.schedule.as_str());
        match suggest::nearest(id.as_str(), names) {
            Some(near) => CommandError { hints: vec![format!("did you mean {near}?")], ..error },
            None => error,
        }
    }

    async fn create(&self, id: ScheduleId, spec: ScheduleSpec, by: Request) -> CommandResult<ScheduleView> {
        match self {
            Self::Here(_, schedules) => Ok(schedules.create(id, spec, by).await?),
            Self::Owner(client) => {
                client.create_schedule(&NewSchedule { schedule: id, spec, asks: by.into() }).await
            }
        }
    }

    async fn update(&self, id: &ScheduleId, spec: ScheduleSpec, by: Request) -> CommandResult<ScheduleView> {
        match self {
            Self::Here(_, schedules) => Ok(schedules.update(id, spec, by).await?),
            Self::Owner(client) => {
                client.update_schedule(id, &ChangedSchedule { spec, asks: by.into() }).await
            }
        }
    }

    async fn ask(&self, id: &ScheduleId, verb: &str, by: Request) -> CommandResult<ScheduleView> {
        self.get(id).await?;
        match self {
            Self::Here(_, schedules) if verb == "pause" => Ok(schedules.pause(id, by).await?),
            Self::Here(_, schedules) => Ok(schedules.unpause(id, by).await?),
            Self::Owner(client) => client.ask_schedule(id, verb, &by.into()).await,
        }
    }

    async fn trigger(
        &self,
        id: &ScheduleId,
        overlap: Option<Overlap>,
        by: Request,
    ) -> CommandResult<Triggered> {
        self.get(id).await?;
        match self {
            Self::Here(_, schedules) => Ok(schedules.trigger(id, overlap, by).await?),
            Self::Owner(client) => client.trigger_schedule(id, &Trigger { overlap, asks: by.into() }).await,
        }
    }

    /// What becomes of a firing that was just asked for, where somebody is there to start it. The schedule is looked at until
    /// it says so, as the answer to the order comes before that.
    async fn fate(&self, id: &ScheduleId, triggered: &Triggered) -> CommandResult<Option<Fate>> {
        let Self::Owner(client) = self else { return Ok(None) };
        let deadline = tokio::time::Instant::now() + BEGINS_WITHIN;
        loop {
            let fate = fate(&client.schedule(id).await?, triggered);
            if fate.is_some() || tokio::time::Instant::now() >= deadline {
                return Ok(fate);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn backfill(
        &self,
        id: &ScheduleId,
        backfill: Backfill,
        dry_run: bool,
        by: Request,
    ) -> CommandResult<Backfilled> {
        self.get(id).await?;
        match self {
            Self::Here(_, schedules) => Ok(schedules.backfill(id, backfill, dry_run, by).await?),
            Self::Owner(client) => {
                client.backfill_schedule(id, &WantedBackfill { backfill, dry_run, asks: by.into() }).await
            }
        }
    }

    async fn next(&self, id: &ScheduleId, count: u16) -> CommandResult<Vec<Timestamp>> {
        match self {
            Self::Here(_, schedules) => Ok(schedules.next(id, usize::from(count)).await?),
            Self::Owner(client) => client.next_of_schedule(id, count).await,
        }
    }

    async fn remove(&self, id: &ScheduleId) -> CommandResult<()> {
        match self {
            Self::Here(_, schedules) => Ok(schedules.remove(id).await?),
            Self::Owner(client) => client.remove_schedule(id).await,
        }
    }
}

fn request(reason: &str) -> Request {
    Request { by: config::user(), reason: reason.to_owned() }
}

fn name(text: &str) -> CommandResult<ScheduleId> {
    ScheduleId::new(text).map_err(|e| CommandError::new(Code::Usage, e.to_string()))
}

fn policy(text: &str) -> CommandResult<Overlap> {
    Overlap::parse(text).ok_or_else(|| {
        let names: Vec<String> = Overlap::ALL.iter().map(|o| o.as_str().replace('_', "-")).collect();
        let error = CommandError::new(Code::Usage, format!("{text:?} is no overlap policy"));
        match suggest::nearest(text, names.iter().map(String::as_str)) {
            Some(near) => error.hint(format!("did you mean {near}?")),
            None => error.hint(format!("there are: {}", names.join(", "))),
        }
    })
}

fn millis(flag: &str, text: &str) -> CommandResult<u64> {
    let time = moment::duration(flag, text)?;
    Ok(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// A file that says everything of a schedule.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SpecFile {
    schedule: Option<String>,
    workflow: Option<String>,
    /// What the workflow takes: a file, as this one sees it.
    file: Option<String>,
    /// Or the thing itself.
    input: Option<Value>,
    cron: OneOrMany,
    every: OneOrMany,
    zone: Option<String>,
    overlap: Option<String>,
    catch_up: Option<String>,
    jitter: Option<String>,
    start: Option<String>,
    end: Option<String>,
    limit: Option<u64>,
    pause_on_failure: Option<bool>,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl OneOrMany {
    fn list(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// What flags and file want, checked as far as it can be without a store.
#[derive(Debug)]
struct Wanted {
    id: Option<ScheduleId>,
    /// Whether a file says everything, so that what it leaves out is as by default.
    whole: bool,
    action: Option<ScheduleAction>,
    timing: Vec<Timing>,
    zone: Option<String>,
    overlap: Option<Overlap>,
    catch_up_ms: Option<u64>,
    jitter_ms: Option<u64>,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
    limit: Option<u64>,
    pause_on_failure: Option<bool>,
    labels: BTreeMap<String, String>,
}

impl Wanted {
    /// `site` is what a workflow takes when no file is named.
    fn read(args: &SpecArgs, site: Option<&Path>) -> CommandResult<Self> {
        let mut file = SpecFile::default();
        let mut action = None;
        let mut whole = false;
        match (&args.workflow, &args.file) {
            (Some(workflow), path) => {
                action = Some(action_of(workflow, path.as_deref().or(site), &args.set)?);
            }
            (None, Some(path)) => {
                file = read_file(path)?;
                whole = true;
                let workflow = file.workflow.as_deref().ok_or_else(|| {
                    CommandError::new(Code::WrongSchedule, format!("{} names no workflow", path.display()))
                        .hint("a file of a workflow, as a site, goes with --workflow")
                })?;
                action = Some(match (file.input.take(), &file.file) {
                    (Some(_), Some(_)) => {
                        return Err(CommandError::new(
                            Code::WrongSchedule,
                            "both `file` and `input` are there",
                        )
                        .hint("either of them says what the workflow takes"));
                    }
                    (Some(input), None) => of_input(workflow, &input)?,
                    (None, given) => {
                        let beside = path.parent().unwrap_or(Path::new("."));
                        let given = given.as_ref().map(|given| beside.join(given));
                        action_of(workflow, given.as_deref(), &[])?
                    }
                });
            }
            (None, None) => {}
        }
        let now = now();
        let id = args.id.clone().or(file.schedule).map(|text| name(&text)).transpose()?;
        let texts =
            |flags: &[String], file: OneOrMany| if flags.is_empty() { file.list() } else { flags.to_vec() };
        let mut timing: Vec<Timing> =
            texts(&args.cron, file.cron).into_iter().map(|cron| Timing::Cron { cron }).collect();
        for text in texts(&args.every, file.every) {
            let (every, offset) = text.split_once('/').unwrap_or((&text, "0s"));
            let (every_ms, offset_ms) = (millis("--every", every)?, millis("--every", offset)?);
            timing.push(Timing::Interval { every_ms, offset_ms });
        }
        let text = |flag: &Option<String>, file: Option<String>| flag.clone().or(file);
        let when =
            |flag: &str, text: Option<String>| text.map(|text| moment::parse(flag, &text, now)).transpose();
        let mut labels = file.labels;
        for text in &args.label {
            let (key, value) = super::runs::label(text)?;
            labels.insert(key, value);
        }
        let time = |flag: &str, text: Option<String>| text.map(|text| millis(flag, &text)).transpose();
        Ok(Self {
            id,
            whole,
            action,
            timing,
            zone: text(&args.zone, file.zone),
            overlap: text(&args.overlap, file.overlap).as_deref().map(policy).transpose()?,
            catch_up_ms: time("--catch-up", text(&args.catch_up, file.catch_up))?,
            jitter_ms: time("--jitter", text(&args.jitter, file.jitter))?,
            start: when("--start", text(&args.start, file.start))?,
            end: when("--end", text(&args.end, file.end))?,
            limit: args.limit.or(file.limit),
            pause_on_failure: args.pause_on_failure.or(file.pause_on_failure),
            labels,
        })
    }

    /// A new schedule.
    fn new_spec(self) -> CommandResult<(ScheduleId, ScheduleSpec)> {
        let action = self.action.clone().ok_or_else(|| {
            CommandError::new(Code::Usage, "what the schedule is to start is not said")
                .hint("name it: --workflow bootstrap -f site.yaml")
                .hint("or write a file of the schedule: -f schedule.yaml")
        })?;
        let id = match &self.id {
            Some(id) => id.clone(),
            None => name(&default_name(&action))?,
        };
        let spec = ScheduleSpec { timing: Vec::new(), ..ScheduleSpec::cron("", action) };
        Ok((id, self.changed(spec)?))
    }

    /// A schedule with what is wanted of it.
    fn changed(self, old: ScheduleSpec) -> CommandResult<ScheduleSpec> {
        let mut spec = if self.whole {
            let action = self.action.clone().expect("a whole file has one");
            ScheduleSpec { timing: Vec::new(), ..ScheduleSpec::cron("", action) }
        } else {
            old
        };
        if let Some(action) = self.action {
            let labels = std::mem::take(&mut spec.action.labels);
            spec.action = ScheduleAction { labels, ..action };
        }
        if !self.timing.is_empty() {
            spec.timing = self.timing;
        }
        spec.zone = self.zone.unwrap_or(spec.zone);
        spec.overlap = self.overlap.unwrap_or(spec.overlap);
        spec.catch_up_ms = self.catch_up_ms.unwrap_or(spec.catch_up_ms);
        spec.jitter_ms = self.jitter_ms.unwrap_or(spec.jitter_ms);
        spec.start = self.start.or(spec.start);
        spec.end = self.end.or(spec.end);
        spec.limit = self.limit.or(spec.limit);
        spec.pause_on_failure = self.pause_on_failure.unwrap_or(spec.pause_on_failure);
        spec.action.labels.extend(self.labels);
        spec.check()?;
        Ok(spec)
    }
}

/// The workflow and the site, as a run of theirs is named.
fn default_name(action: &ScheduleAction) -> String {
    match action.input["name"].as_str() {
        Some(site) => format!("{}-{site}", action.workflow),
        None => action.workflow.clone(),
    }
}

fn read_file(path: &Path) -> CommandResult<SpecFile> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        CommandError::new(Code::File, format!("the file {} cannot be read", path.display())).why(e).hint(
            "docs/schedules.md has one to start from; a file of a workflow, as a site, goes with --workflow",
        )
    })?;
    serde_saphyr::from_str(&text).map_err(|e| {
        CommandError::new(Code::WrongSchedule, format!("{} is no file of a schedule", path.display()))
            .why(one_line(&e.without_snippet().to_string()))
            .hint("a file of a workflow, as a site, goes with --workflow")
    })
}

/// What a workflow takes, read and checked.
fn action_of(workflow: &str, file: Option<&Path>, set: &[String]) -> CommandResult<ScheduleAction> {
    let input = match catalog::find(workflow)?.made_of {
        MadeOf::Images => {
            let images = catalog::read_images(file.unwrap_or(Path::new("image.yaml")), set)?;
            serde_json::to_value(images)
        }
        MadeOf::Resync => {
            serde_json::to_value(catalog::read_resync(file.unwrap_or(Path::new("site.yaml")), set)?)
        }
        MadeOf::Site | MadeOf::SiteAndRuns => {
            serde_json::to_value(catalog::read_site(file.unwrap_or(Path::new("site.yaml")), set)?)
        }
    };
    of_input(workflow, &input.expect("a spec is plain data"))
}

fn of_input(workflow: &str, input: &Value) -> CommandResult<ScheduleAction> {
    // Whether it fits is told here, with all that is wrong with it, and not only when it is due.
    let prepared = crate::launch::prepare(workflow, input)?;
    Ok(ScheduleAction::new(workflow).input(prepared.workflow.input))
}

/// What a schedule is like now that it was made or changed, and when it fires.
async fn tell(
    ui: &Ui,
    settings: &Settings,
    place: &Place,
    view: &ScheduleView,
    output: ViewFormat,
    what: &str,
) -> CommandResult<()> {
    let id = &view.schedule;
    match output {
        ViewFormat::Table => ui.out(id.as_str()),
        other => show(ui, view, other),
    }
    let next = place.next(id, u16::try_from(TOLD).expect("few")).await?;
    let all: Vec<String> = next.iter().map(|at| describe::when(*at)).collect();
    let when = if all.is_empty() {
        "it never fires by the clock".to_owned()
    } else {
        format!("it fires {}", all.join(", "))
    };
    ui.note(&format!("schedule {id} is {what}; {when}"));
    if view.paused.is_some() {
        ui.note(&format!("it is paused; `{} schedules unpause {id}` lets it go on", settings.command()));
    }
    place.hint(ui, settings);
    Ok(())
}

async fn backfill(ui: &Ui, settings: &Settings, place: &Place, args: &BackfillArgs) -> CommandResult<()> {
    let now = now();
    let from = moment::parse("--from", &args.from, now)?;
    let to = moment::parse("--to", &args.to, now)?;
    let wanted = Backfill { from, to, overlap: policy(&args.overlap)? };
    let id = name(&args.ask.id)?;
    let told = place.backfill(&id, wanted, args.dry_run, request(&args.ask.reason)).await?;
    match args.output {
        ViewFormat::Json => ui.json(&told, true),
        ViewFormat::Yaml => ui.yaml(&told),
        ViewFormat::Table => {
            for instant in &told.instants {
                let why = instant.skipped.map_or_else(String::new, |why| match why.as_str() {
                    "fired" => "  has fired".to_owned(),
                    _ => "  too long ago to know whether it has fired".to_owned(),
                });
                ui.out(&format!("{}{why}", instant.nominal));
            }
        }
    }
    let fires = told.instants.iter().filter(|instant| instant.skipped.is_none()).count();
    let more = if told.more { " and more" } else { "" };
    let runs = count(fires as u64, "run");
    if args.dry_run {
        ui.note(&format!("{runs}{more} would be started; nothing was"));
    } else {
        ui.note(&format!(
            "{runs}{more} to be started; `{} runs ls --label schedule={id}` shows them",
            settings.command()
        ));
        place.hint(ui, settings);
    }
    Ok(())
}

fn instants(ui: &Ui, next: &[Timestamp], output: ViewFormat) {
    let texts: Vec<String> = next.iter().map(ToString::to_string).collect();
    match output {
        ViewFormat::Table => texts.iter().for_each(|text| ui.out(text)),
        ViewFormat::Json => ui.json(&json!(texts), true),
        ViewFormat::Yaml => ui.yaml(&json!(texts)),
    }
}
