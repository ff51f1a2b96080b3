//! `runs prune`: removes runs that have ended and own nothing.

use dssflow_engine::run::RunStatus;
use dssflow_engine::store::{ListQuery, MAX_PAGE, RunSummary};
use dssflow_engine::time::Timestamp;

use crate::access::Access;
use crate::args::{ListFormat, PruneArgs};
use crate::bar::{Bar, size};
use crate::commands::runs;
use crate::config::Settings;
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::moment;
use crate::progress::now;
use crate::ui::Ui;

/// Which runs go.
struct Rule {
    statuses: Vec<RunStatus>,
    workflow: Option<String>,
    before: Option<Timestamp>,
    keep: usize,
}

/// What a rule says of the runs there are.
#[derive(Default)]
struct Chosen {
    go: Vec<RunSummary>,
    /// Runs that would go and made things that are still there.
    live: usize,
}

impl Rule {
    fn of(args: &PruneArgs) -> CommandResult<Self> {
        if args.older_than.is_none() && args.keep.is_none() && args.status.is_empty() {
            return Err(CommandError::new(Code::Usage, "nothing says which runs are to be removed").hint(
                "by age: --older-than 90d; by count: --keep 100; by how they ended: --status succeeded",
            ));
        }
        let mut statuses = Vec::new();
        for text in &args.status {
            let status = runs::status(text)?;
            if !status.is_end() {
                return Err(CommandError::new(
                    Code::Usage,
                    format!("a run that is {text} has not ended and stays"),
                )
                .hint(format!("those that have ended are: {}", ends().join(", "))));
            }
            statuses.push(status);
        }
        if statuses.is_empty() {
            statuses = RunStatus::ALL.iter().copied().filter(|status| status.is_end()).collect();
        }
        let now = now();
        let before =
            args.older_than.as_ref().map(|age| moment::parse("--older-than", age, now)).transpose()?;
        Ok(Self { statuses, workflow: args.workflow.clone(), before, keep: args.keep.unwrap_or(0) })
    }

    /// Takes in one run after the other, newest first; `seen` counts those that fit.
    fn take(&self, run: RunSummary, seen: &mut usize, chosen: &mut Chosen) {
        *seen += 1;
        if *seen <= self.keep || self.before.is_some_and(|before| run.updated >= before) {
            return;
        }
        if run.live {
            chosen.live += 1;
        } else {
            chosen.go.push(run);
        }
    }
}

fn ends() -> Vec<&'static str> {
    RunStatus::ALL.iter().filter(|status| status.is_end()).map(|status| status.as_str()).collect()
}

/// Runs it.
pub(crate) async fn run(ui: &Ui, settings: &Settings, args: &PruneArgs) -> CommandResult {
    let rule = Rule::of(args)?;
    let access = Access::open_as(&settings.store, "dssflow runs prune").await?;
    let result = prune(ui, &access, &rule, args).await;
    access.close().await?;
    result
}

async fn prune(ui: &Ui, access: &Access, rule: &Rule, args: &PruneArgs) -> CommandResult {
    let chosen = choose(access, rule).await?;
    if chosen.live > 0 {
        ui.note(&format!(
            "{} stay: what they made may still be there; `dssflow rollback RUN` takes it back",
            count(chosen.live)
        ));
    }
    if chosen.go.is_empty() {
        ui.note("no run fits; nothing was removed");
        return Ok(Exit::Ok);
    }
    if args.dry_run {
        print(ui, &chosen.go, args.output);
        ui.note(&format!("{} would be removed; nothing was", count(chosen.go.len())));
        return Ok(Exit::Ok);
    }
    if !args.yes {
        ui.confirm(&format!("{} will be removed for good, history and all.", count(chosen.go.len())))?;
    }
    let mut bar = Bar::new(ui);
    let of = chosen.go.len() as u64;
    let (mut gone, mut stayed) = (Vec::new(), 0);
    for (done, run) in (1..).zip(chosen.go) {
        match access.remove(&run.run).await {
            Ok(()) => gone.push(run),
            // It went on since, or somebody else removed it.
            Err(error) if matches!(error.code, Code::RunRefused | Code::NoSuchRun) => stayed += 1,
            Err(error) => return Err(error.hint(format!("{} were removed before that", count(gone.len())))),
        }
        bar.at("removing", done, of, "runs");
    }
    let swept = access.sweep().await?;
    drop(bar);
    print(ui, &gone, args.output);
    ui.note(&format!(
        "{} removed, and {} graphs and large values that only they named; `dssflow store compact` gives the room back",
        count(gone.len()),
        size(swept.bytes)
    ));
    if stayed > 0 {
        ui.note(&format!("{} stay: they went on or were removed meanwhile", count(stayed)));
    }
    Ok(Exit::Ok)
}

fn count(n: usize) -> String {
    if n == 1 { "1 run".to_owned() } else { format!("{n} runs") }
}

async fn choose(access: &Access, rule: &Rule) -> CommandResult<Chosen> {
    let (mut chosen, mut seen, mut cursor) = (Chosen::default(), 0, None);
    loop {
        let query = ListQuery {
            statuses: rule.statuses.clone(),
            workflow: rule.workflow.clone(),
            limit: MAX_PAGE,
            cursor,
            ..ListQuery::default()
        };
        let page = access.list(query).await?;
        for run in page.runs {
            rule.take(run, &mut seen, &mut chosen);
        }
        cursor = page.cursor;
        if cursor.is_none() {
            return Ok(chosen);
        }
    }
}

fn print(ui: &Ui, gone: &[RunSummary], output: ListFormat) {
    match output {
        ListFormat::Table | ListFormat::Wide => ui.out(&runs::summaries(gone, output == ListFormat::Wide)),
        ListFormat::Json => ui.json(&gone, true),
        ListFormat::Jsonl => gone.iter().for_each(|run| ui.json(run, false)),
        ListFormat::Yaml => ui.yaml(&gone),
        ListFormat::Name => gone.iter().for_each(|run| ui.out(run.run.as_str())),
    }
}
