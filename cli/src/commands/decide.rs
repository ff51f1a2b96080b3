//! The verbs that are a decision and no more: `skip`, `complete`, `approve`, `reject`, `signal`, `mark-undone`,
//! `abandon`. The process that drives the run goes by them at once; where nobody drives it they are written down, and the
//! command to type next is told. None of them needs AWS or a sandbox.

use std::io::Read as _;
use std::path::Path;

use dssflow_engine::activity::MAX_PAYLOAD_BYTES;
use dssflow_engine::run::Verb;
use dssflow_engine::run::view::Awaited;
use serde_json::Value;

use super::target::Target;
use crate::args::{CompleteArgs, GateArgs, MarkArgs, SignalArgs, SkipArgs, StepRef};
use crate::config::Settings;
use crate::error::{Code, CommandError, CommandResult};
use crate::ui::{Ui, one_line};

/// Leaves a step out.
pub(crate) async fn skip(ui: &Ui, settings: &Settings, args: SkipArgs) -> CommandResult {
    let target = find(settings, &args.at, "skip").await?;
    let step = target.step(&args.at.step)?;
    let done = format!("step {step} is skipped");
    target.write(ui, settings, Verb::Skip { step }, &args.reason.reason, &done).await
}

/// Takes a step as done.
pub(crate) async fn complete(ui: &Ui, settings: &Settings, args: CompleteArgs) -> CommandResult {
    // Before the store is opened: who waits for stdin holds up nobody.
    let output = json("--output", &args.output)?;
    let target = find(settings, &args.at, "complete").await?;
    let step = target.step(&args.at.step)?;
    let done = format!("step {step} is taken as done");
    target.write(ui, settings, Verb::Complete { step, output }, &args.reason.reason, &done).await
}

/// Lets a gate through.
pub(crate) async fn approve(ui: &Ui, settings: &Settings, args: GateArgs) -> CommandResult {
    let target = find(settings, &args.at, "approve").await?;
    let step = target.step(&args.at.step)?;
    let done = format!("gate {step} is approved");
    target.write(ui, settings, Verb::Approve { step }, &args.note, &done).await
}

/// Decides against a gate.
pub(crate) async fn reject(ui: &Ui, settings: &Settings, args: GateArgs) -> CommandResult {
    let target = find(settings, &args.at, "reject").await?;
    let step = target.step(&args.at.step)?;
    let done = format!("gate {step} is rejected");
    target.write(ui, settings, Verb::Reject { step }, &args.note, &done).await
}

/// Sends a signal.
pub(crate) async fn signal(ui: &Ui, settings: &Settings, args: SignalArgs) -> CommandResult {
    let payload = args.payload.map_or(Ok(Value::Null), |text| json("--payload", &text))?;
    let target = Target::find(settings, &args.run, &format!("signal {}", args.run)).await?;
    let signal = args.name;
    let waits = |s: &Option<Awaited>| matches!(s, Some(Awaited::Signal { signal: name }) if *name == signal);
    let done = if target.view.steps.iter().any(|s| waits(&s.awaits)) {
        format!("signal {} is sent", one_line(&signal))
    } else {
        format!("signal {} is kept: no step waits for it now", one_line(&signal))
    };
    target.write(ui, settings, Verb::Signal { signal, payload }, "", &done).await
}

/// Takes a step whose undo is stuck as taken back by hand.
pub(crate) async fn mark_undone(ui: &Ui, settings: &Settings, args: MarkArgs) -> CommandResult {
    let target = find(settings, &args.at, "mark-undone").await?;
    let step = target.step(&args.at.step)?;
    target.confirm(
        ui,
        args.yes,
        &format!("Is what step {step} made gone? dssflow does not look after it any more."),
        &format!("dssflow then takes what step {step} made as gone and does not look after it any more"),
    )?;
    let done = format!("step {step} counts as taken back");
    target.write(ui, settings, Verb::MarkUndone { step }, &args.reason.reason, &done).await
}

/// Leaves what a step made where it is.
pub(crate) async fn abandon(ui: &Ui, settings: &Settings, args: MarkArgs) -> CommandResult {
    let target = find(settings, &args.at, "abandon").await?;
    let step = target.step(&args.at.step)?;
    target.confirm(
        ui,
        args.yes,
        &format!("Leave what step {step} made where it is? It may cost, and dssflow does not take it back."),
        &format!("what step {step} made then stays where it is and may cost"),
    )?;
    let done = format!("what step {step} made stays where it is");
    target.write(ui, settings, Verb::Abandon { step }, &args.reason.reason, &done).await
}

async fn find(settings: &Settings, at: &StepRef, verb: &str) -> CommandResult<Target> {
    Target::find(settings, &at.run, &format!("{verb} {}", at.run)).await
}

/// JSON as given on the command line: itself, `@FILE`, or `-` for stdin.
fn json(flag: &str, given: &str) -> CommandResult<Value> {
    let (from, text) = match given.strip_prefix('@') {
        _ if given == "-" => ("stdin".to_owned(), read(&mut std::io::stdin().lock(), "stdin")?),
        Some(path) => {
            let mut file = std::fs::File::open(Path::new(path)).map_err(|e| {
                CommandError::new(Code::File, format!("the file {path} of {flag} cannot be read")).why(e)
            })?;
            (path.to_owned(), read(&mut file, path)?)
        }
        None => (format!("what {flag} says"), given.to_owned()),
    };
    serde_json::from_str(&text).map_err(|e| {
        CommandError::new(Code::Usage, format!("{from} is no JSON"))
            .why(e)
            .hint(format!("a text is written with quotes, as {flag} '\"done\"'; a file is named with @"))
    })
}

fn read(from: &mut dyn std::io::Read, name: &str) -> CommandResult<String> {
    let failed = |why: String| CommandError::new(Code::File, format!("{name} cannot be read")).why(why);
    let mut bytes = Vec::new();
    let most = MAX_PAYLOAD_BYTES as u64;
    from.take(most + 1).read_to_end(&mut bytes).map_err(|e| failed(e.to_string()))?;
    if bytes.len() as u64 > most {
        return Err(failed(format!("it has more than {} MiB", most >> 20)));
    }
    String::from_utf8(bytes).map_err(|_| failed("it is no text".to_owned()))
}
