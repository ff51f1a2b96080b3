//! Runs that the process drives which serves the store: handed over, followed, left. What a person sees is what they see
//! when this process drives the run.

use std::time::Duration;

use dssflow_engine::event::{Event, PauseKind};
use dssflow_engine::id::RunId;
use dssflow_engine::run::view::RunView;
use tokio::sync::mpsc;

use crate::access::Access;
use crate::args::FollowFormat;
use crate::commands::preflight::warn;
use crate::config::Settings;
use crate::control::client::Client;
use crate::control::{Driven, Order, Principal};
use crate::describe;
use crate::drive::{Aim, Signals, Stream, conclude, exit_of};
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::past;
use crate::progress::Progress;
use crate::renewal;
use crate::serve::{ACTOR, STOPS};
use crate::spec::About;
use crate::ui::Ui;
use crate::world::World;

/// How long a server that does not answer any more is waited for: it may be starting again.
const RETURNS: Duration = Duration::from_secs(15);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(250);
/// Events that wait to be shown.
const WAITING: usize = 256;

/// How an order is handed over.
pub(crate) struct How {
    /// Nobody need be asked.
    pub(crate) yes: bool,
    /// The run is not followed.
    pub(crate) detach: bool,
    /// What stdout gets.
    pub(crate) format: FollowFormat,
    /// What the person wants of the run.
    pub(crate) aim: Aim,
}

/// Who this process is, for an order that must not be carried out as somebody else; nothing when it is nobody.
pub(crate) async fn principal(world: &World, about: About<'_>) -> Option<Principal> {
    match world.identify(about).await {
        Ok(identity) => Some(Principal { account: identity.account, arn: identity.principal_arn }),
        Err(error) => {
            tracing::debug!(%error, "who this process is does not matter: the server acts as itself");
            None
        }
    }
}

/// Has the server check an order, asks, has it carry the order out, and follows the run.
///
/// # Errors
/// Everything that stands against the order; and as [`follow`].
pub(crate) async fn order(
    ui: &Ui,
    settings: &Settings,
    client: &Client,
    mut order: Order,
    how: &How,
    about: About<'_>,
) -> CommandResult {
    let checked = client.check(&order).await?;
    checked.notes.iter().for_each(|note| warn(ui, note));
    if checked.run.is_none() {
        return Ok(Exit::Ok);
    }
    if !checked.free && !how.yes {
        ui.confirm(&checked.question)?;
    }
    order.id = order.id.or(checked.run);
    order.ticket = Some(checked.ticket);
    let Some(driven) = client.order(&order).await? else { return Ok(Exit::Ok) };
    if !checked.goes_on {
        ui.note(&format!("run {}", driven.run));
    }
    if how.detach {
        return detached(ui, settings, client, &driven.run, how.format).await;
    }
    driven_on(ui, settings, client, &driven, how.format, how.aim, about).await
}

/// Follows a run that the server has just begun to drive, or drove already.
///
/// # Errors
/// As [`follow`].
pub(crate) async fn driven_on(
    ui: &Ui,
    settings: &Settings,
    client: &Client,
    driven: &Driven,
    format: FollowFormat,
    aim: Aim,
    about: About<'_>,
) -> CommandResult {
    if driven.already {
        ui.note(&format!("run {} is being driven already; following it", driven.run));
    }
    let stream = Stream::new(ui, format, &driven.run, driven.seq);
    follow(ui, settings, client, &driven.run, stream, aim, about).await
}

/// Leaves a run to somebody else: prints what is known of it by now, and how one comes back to it.
///
/// # Errors
/// When the run is to be printed, and the server does not answer.
pub(crate) async fn detached(
    ui: &Ui,
    settings: &Settings,
    client: &Client,
    run: &RunId,
    format: FollowFormat,
) -> CommandResult {
    match format {
        // The stream of events would begin here and end here.
        FollowFormat::Table | FollowFormat::Jsonl => {}
        FollowFormat::Json => ui.json(&client.view(run).await?, true),
        FollowFormat::Yaml => ui.yaml(&client.view(run).await?),
        FollowFormat::Name => ui.out(run.as_str()),
    }
    Ok(left(ui, settings, run))
}

/// Says how one comes back to a run that is left to somebody else.
fn left(ui: &Ui, settings: &Settings, run: &RunId) -> Exit {
    let command = settings.command();
    ui.note(&format!(
        "run {run} goes on without this command\nfollow it:  {command} runs watch {run}\nstop it:    {command} pause {run}"
    ));
    Exit::Waiting
}

/// Shows a run that the server drives until it stands, prints what became of it, and says how the command ends. Ctrl-C
/// leaves the run alone.
///
/// # Errors
/// When the server does not answer any more, and nobody else can say what became of the run.
pub(crate) async fn follow(
    ui: &Ui,
    settings: &Settings,
    client: &Client,
    run: &RunId,
    mut stream: Stream,
    aim: Aim,
    about: About<'_>,
) -> CommandResult {
    let mut signals = Signals::new()?;
    let mut progress = Progress::new(ui, settings);
    progress.learn(&client.events(run, 0).await?);
    if let Ok(view) = client.view(run).await {
        progress.expect(past::of(&Access::Owner(Box::new(client.clone())), &view).await);
    }
    let mut tick = tokio::time::interval(progress.interval());
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let deadline = tokio::time::Instant::now() + renewal::limit()?;
    let mut waits_told = false;
    let view = loop {
        let (events_to, mut events) = mpsc::channel::<Event>(WAITING);
        let feed = tokio::spawn(feed(client.clone(), run.clone(), stream.seen(), events_to));
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => stream.show(&event, ui, &mut progress),
                    None => break,
                },
                _ = tick.tick() => if let Ok(view) = client.view(run).await {
                    progress.tick(ui, &view);
                },
                _exit = signals.next() => {
                    feed.abort();
                    ui.redraw(&[]);
                    ui.note("detached");
                    return Ok(left(ui, settings, run));
                }
            }
        }
        drop(feed.await);
        let Some(view) = stands(settings, client, run).await? else { continue };
        let waits = view.paused.as_ref().is_some_and(|p| p.kind == PauseKind::Credentials);
        if !waits || tokio::time::Instant::now() >= deadline || !client.serves().await.unwrap_or(false) {
            break view;
        }
        if !std::mem::replace(&mut waits_told, true) {
            ui.note(
                "the AWS credentials of the process that serves the store have ended; it goes on when they are renewed",
            );
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK * 4) => {}
            _exit = signals.next() => {
                ui.redraw(&[]);
                ui.note("detached");
                return Ok(left(ui, settings, run));
            }
        }
    };
    for event in history(settings, client, run, stream.seen()).await? {
        stream.show(&event, ui, &mut progress);
    }
    let exit = exit_of(&view, aim, None);
    let stopped = format!("paused by {ACTOR}: {STOPS}");
    let saved = view.paused.as_ref().is_some_and(|paused| paused.message == stopped);
    conclude(ui, settings, progress, &view, exit, stream.format, about.site());
    if saved {
        ui.note(&format!("follow it then: {} runs watch {run}", settings.command()));
    }
    Ok(exit)
}

/// Hands events on as they come, until the run stands or the server ends.
async fn feed(client: Client, run: RunId, after: u64, to: mpsc::Sender<Event>) {
    let (relay, mut relayed) = mpsc::unbounded_channel::<Event>();
    let pass = async {
        while let Some(event) = relayed.recv().await {
            if to.send(event).await.is_err() {
                return;
            }
        }
    };
    let read = async move {
        let followed = client.follow(&run, after, &mut |event| relay.send(event.clone()).is_ok()).await;
        if let Err(error) = followed {
            tracing::debug!(%error, "the stream of events broke off");
        }
    };
    // The relay ends with the reader.
    tokio::join!(read, pass);
}

/// The run as it stands; nothing when it is still driven, by this server or by one that came back.
async fn stands(settings: &Settings, client: &Client, run: &RunId) -> CommandResult<Option<RunView>> {
    let begin = tokio::time::Instant::now();
    loop {
        let error = match client.owner().await {
            Ok(owner) if owner.live.contains(run) => return Ok(None),
            Ok(_) => return client.view(run).await.map(Some),
            Err(error) => error,
        };
        // Whoever served it has ended: the store is free, another command has it, or it comes back.
        if let Ok(access) = Access::open(&settings.store).await {
            let view = access.view(run).await;
            let free = matches!(access, Access::Store(_));
            access.close().await?;
            let view = view?;
            let rests = view.status.is_end() || view.paused.is_some();
            if rests || free && begin.elapsed() > RETURNS {
                return Ok(Some(view));
            }
        }
        if begin.elapsed() > RETURNS {
            return Err(CommandError::new(
                Code::StoreLocked,
                format!("the process that drove run {run} does not answer any more"),
            )
            .why(error.message)
            .hint(format!("look at it: {} runs get {run}", settings.command())));
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn history(settings: &Settings, client: &Client, run: &RunId, after: u64) -> CommandResult<Vec<Event>> {
    if let Ok(events) = client.events(run, after).await {
        return Ok(events);
    }
    let access = Access::open(&settings.store).await?;
    let events = access.events(run, after).await;
    access.close().await?;
    events
}

/// What is told of a run that stands, to whom wants it to go on.
pub(crate) fn standing(view: &RunView) -> String {
    format!("run {}, which is {}", view.run, describe::words(view.status.as_str()))
}
