//! `dssflow schedules`: made, shown, changed. They fire in the process that serves the store; from here they are written
//! down, through that process where there is one.

mod shown;
mod wanted;

use std::sync::Arc;
use std::time::Duration;

use dssflow_engine::event::Request;
use dssflow_engine::id::ScheduleId;
use dssflow_engine::runtime::schedules::Backfilled;
use dssflow_engine::runtime::{Schedules, Triggered};
use dssflow_engine::schedule::{Backfill, Overlap, ScheduleSpec, ScheduleView, SkipReason, Update};
use dssflow_engine::time::Timestamp;
use dssflow_store::SledStore;
use serde_json::json;

use self::shown::{Fate, count, fate, list, over, show};
use self::wanted::{Wanted, name, policy, so_far};
use crate::access::Access;
use crate::args::{AskArgs, BackfillArgs, SchedulesCommand, ViewFormat};
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
const TOLD: u16 = 3;
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
    Change(ScheduleId, Box<Wanted>),
    /// Neither.
    Nothing,
}

/// Runs one of them.
pub(crate) async fn run(ui: &Ui, settings: &Settings, command: SchedulesCommand) -> CommandResult {
    // What is wrong without a store is told without one, and makes none.
    let asked = match &command {
        SchedulesCommand::Create(args) => {
            let (id, spec) = Box::pin(Wanted::made(ui, settings, args)).await?;
            Asked::New(id, Box::new(spec))
        }
        SchedulesCommand::Update(args) => {
            let (id, wanted) = Box::pin(Wanted::change(ui, settings, args)).await?;
            Asked::Change(id, Box::new(wanted))
        }
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
            tell(ui, settings, place, &view, args.output, "created").await;
        }
        SchedulesCommand::Update(args) => {
            let Asked::Change(id, wanted) = asked else { unreachable!("it was read") };
            let old = place.get(&id).await?;
            // Of two who change it at the same time neither must undo the other's change unseen.
            let (renew_limit, seen) = (wanted.renew_limit, Some(old.updated));
            let update = Update { spec: wanted.changed(old.spec)?, renew_limit, seen };
            let view = place.update(&id, update, request(&args.spec.reason)).await?;
            tell(ui, settings, place, &view, args.spec.output, "changed").await;
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
            let next = match view.next {
                Some(next) => format!("it fires next {}", describe::when(next)),
                None => over(&view, settings),
            };
            ui.note(&format!("schedule {} goes on; {next}", view.schedule));
            place.hint(ui, settings).await;
        }
        SchedulesCommand::Trigger { ask, overlap } => {
            let overlap = overlap.as_deref().map(policy).transpose()?;
            let id = name(&ask.id)?;
            let triggered = place.trigger(&id, overlap, request(&ask.reason)).await?;
            let run = &triggered.run;
            ui.out(run.as_str());
            let watch = format!("`{} runs watch {run}` follows the run", settings.command());
            ui.note(&match place.fate(&id, &triggered).await {
                Some(Fate::Begun) => watch,
                Some(Fate::Waits(other)) => format!("it waits for run {other}; {watch} once it has begun"),
                Some(Fate::Not(why)) => format!("run {run} is not started: {why}"),
                Some(Fate::Later) | None => format!("{watch} once it has begun"),
            });
            place.hint(ui, settings).await;
        }
        SchedulesCommand::Backfill(args) => backfill(ui, settings, place, &args).await?,
        SchedulesCommand::Next { id, count, output } => {
            let id = name(&id)?;
            let view = place.get(&id).await?;
            let next = place.next(&id, count).await?;
            instants(ui, &next, output);
            if next.is_empty() && count > 0 {
                ui.note(&over(&view, settings));
            }
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

    /// Whether somebody is there who fires. One who does not say is busy, and may well be.
    async fn fires(&self) -> bool {
        match self {
            Self::Here(..) => false,
            Self::Owner(client) => client.serves().await.unwrap_or(true),
        }
    }

    /// Says that nothing fires while nobody is there to do it.
    async fn hint(&self, ui: &Ui, settings: &Settings) {
        if self.fires().await {
            return;
        }
        let owner = match self {
            Self::Here(..) => "nobody owns the store now".to_owned(),
            Self::Owner(client) => match client.holder.as_ref().filter(|holder| !holder.command.is_empty()) {
                Some(holder) => {
                    format!("`{}` owns the store now and fires nothing", one_line(&holder.command))
                }
                None => "the process that owns the store now fires nothing".to_owned(),
            },
        };
        ui.note(&format!("schedules fire while `{} serve` runs; {owner}", settings.command()));
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

    async fn update(&self, id: &ScheduleId, update: Update, by: Request) -> CommandResult<ScheduleView> {
        match self {
            Self::Here(_, schedules) => Ok(schedules.update_as(id, update, by).await?),
            Self::Owner(client) => {
                let Update { spec, renew_limit, seen } = update;
                let changed = ChangedSchedule { spec, renew_limit, seen, asks: by.into() };
                client.update_schedule(id, &changed).await
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
    /// it says so, as the answer to the order comes before that. The firing is written down by now, so no look that fails
    /// is an error: whoever heard of one would ask for it again.
    async fn fate(&self, id: &ScheduleId, triggered: &Triggered) -> Option<Fate> {
        let Self::Owner(client) = self else { return None };
        if !self.fires().await {
            return None;
        }
        let deadline = tokio::time::Instant::now() + BEGINS_WITHIN;
        loop {
            let fate = match client.schedule(id).await {
                Ok(view) => fate(&view, triggered),
                Err(error) if error.code == Code::NoSuchSchedule => return None,
                Err(_) => None,
            };
            if fate.is_some() || tokio::time::Instant::now() >= deadline {
                return fate;
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

/// What a schedule is like now that it was made or changed, and when it fires.
async fn tell(
    ui: &Ui,
    settings: &Settings,
    place: &Place,
    view: &ScheduleView,
    output: ViewFormat,
    what: &str,
) {
    let id = &view.schedule;
    match output {
        ViewFormat::Table => ui.out(id.as_str()),
        other => show(ui, view, other),
    }
    // It is written down: that an owner is too busy to say more is no error.
    let when = match place.next(id, TOLD).await {
        Ok(next) if next.is_empty() => format!("; {}", over(view, settings)),
        Ok(next) => {
            let all: Vec<String> = next.iter().map(|at| describe::when(*at)).collect();
            format!("; it fires {}", all.join(", "))
        }
        Err(_) => String::new(),
    };
    ui.note(&format!("schedule {id} is {what}{when}"));
    if view.paused.is_some() {
        ui.note(&format!("it is paused; `{} schedules unpause {id}` lets it go on", settings.command()));
    }
    place.hint(ui, settings).await;
}

async fn backfill(ui: &Ui, settings: &Settings, place: &Place, args: &BackfillArgs) -> CommandResult<()> {
    let now = now();
    let from = moment::parse("--from", &args.from, now)?;
    let to = so_far("--to", &args.to, now)?;
    let wanted = Backfill { from, to, overlap: policy(&args.overlap)? };
    let id = name(&args.ask.id)?;
    let told = place.backfill(&id, wanted, args.dry_run, request(&args.ask.reason)).await?;
    match args.output {
        ViewFormat::Json => ui.json(&told, true),
        ViewFormat::Yaml => ui.yaml(&told),
        ViewFormat::Table => {
            for instant in &told.instants {
                let why = match instant.skipped {
                    None => "",
                    Some(SkipReason::Fired) => "  has fired",
                    Some(SkipReason::Waiting) => "  waits already",
                    Some(_) => "  too long ago to know whether it has fired",
                };
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
        place.hint(ui, settings).await;
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

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    use serde_json::Value;

    use super::*;
    use crate::control::Health;

    /// An owner of a store that answers one request after the other: with this, or not at all.
    fn owner(dir: &Path, answers: Vec<Option<Value>>) -> Place {
        let socket = dir.join("control.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let head = BufReader::new(&stream).lines().map_while(Result::ok);
                head.take_while(|line| !line.is_empty()).for_each(drop);
                if let Some(body) = answer.map(|value| value.to_string()) {
                    let length = body.len();
                    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
                }
            }
        });
        Place::Owner(Box::new(Client { socket, store: dir.to_owned(), holder: None }))
    }

    fn health(serves: bool) -> Value {
        json!(Health::at_rest(serves))
    }

    fn wanted() -> (ScheduleId, Triggered) {
        let run = dssflow_engine::id::RunId::new("s-9").unwrap();
        (ScheduleId::new("s").unwrap(), Triggered { run, nominal: Timestamp::from_millis(9_000) })
    }

    fn view(recent: &Value) -> Value {
        json!({
            "schedule": "s", "status": "active", "created": 0, "updated": 0, "mark": 0, "counts": {},
            "spec": { "timing": [{ "cron": "0 3 * * *" }], "action": { "workflow": "w" } },
            "request": { "by": "ada" }, "running": [], "waiting": [], "recent": recent,
        })
    }

    #[tokio::test]
    async fn a_busy_owner_is_asked_again_what_became_of_a_trigger() {
        let dir = tempfile::tempdir().unwrap();
        let started =
            json!([{ "nominal": 9_000, "by": "trigger", "at": 9_001, "what": "started", "run": "s-9" }]);
        let nothing_yet = view(&json!([]));
        let place =
            owner(dir.path(), vec![Some(health(true)), None, Some(nothing_yet), None, Some(view(&started))]);
        let (id, triggered) = wanted();
        assert_eq!(place.fate(&id, &triggered).await, Some(Fate::Begun));
    }

    #[tokio::test]
    async fn an_owner_that_fires_nothing_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let place = owner(dir.path(), vec![Some(health(false)), Some(health(false))]);
        let (id, triggered) = wanted();
        assert_eq!(place.fate(&id, &triggered).await, None);
        // Were it asked for the schedule, it would have answered that, and nothing here.
        assert!(!place.fires().await);
    }
}
