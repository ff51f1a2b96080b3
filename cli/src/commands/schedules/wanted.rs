//! What flags and files say of a schedule: read, and checked as far as that goes without a store.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use dssflow_engine::id::ScheduleId;
use dssflow_engine::schedule::{Overlap, ScheduleAction, ScheduleSpec, SpecError, Timing};
use dssflow_engine::time::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::args::{SpecArgs, UpdateArgs};
use crate::catalog::{self, MadeOf};
use crate::commands::run::sandbox_if;
use crate::config::Settings;
use crate::describe;
use crate::error::{Code, CommandError, CommandResult};
use crate::moment;
use crate::progress::now;
use crate::suggest;
use crate::ui::{Ui, one_line};
use crate::world::SANDBOX_LABEL;

/// A day but for its last moment.
const REST_OF_A_DAY: Duration = Duration::from_millis(24 * 3_600 * 1_000 - 1);

pub(super) fn name(text: &str) -> CommandResult<ScheduleId> {
    ScheduleId::new(text).map_err(|e| CommandError::new(Code::Usage, e.to_string()))
}

pub(super) fn policy(text: &str) -> CommandResult<Overlap> {
    Overlap::parse(text).ok_or_else(|| {
        let names: Vec<String> = Overlap::ALL.iter().map(|o| o.as_str().replace('_', "-")).collect();
        let error = CommandError::new(Code::Usage, format!("{text:?} is no overlap policy"));
        match suggest::nearest(text, names.iter().map(String::as_str)) {
            Some(near) => error.hint(format!("did you mean {near}?")),
            None => error.hint(format!("there are: {}", names.join(", "))),
        }
    })
}

/// The last moment that `text`, given with `flag`, means: a date alone is all of that day.
fn last_moment(flag: &str, text: &str, now: Timestamp) -> CommandResult<Timestamp> {
    let at = moment::parse(flag, text, now)?;
    let is_date = text.contains('-') && !text.contains(':');
    Ok(if is_date { at + REST_OF_A_DAY } else { at })
}

/// The last moment of a stretch of the past; of a day that goes on what has been of it.
pub(super) fn so_far(flag: &str, text: &str, now: Timestamp) -> CommandResult<Timestamp> {
    let last = last_moment(flag, text, now)?;
    let has_begun = moment::parse(flag, text, now)? <= now;
    Ok(if has_begun { last.min(now) } else { last })
}

/// The last moment that a flag means, which must not be over.
fn to_come(flag: &str, text: &str, now: Timestamp) -> CommandResult<Timestamp> {
    let last = last_moment(flag, text, now)?;
    if last > now {
        return Ok(last);
    }
    let error = CommandError::new(
        Code::WrongSchedule,
        format!(
            "{flag} {text} is {}, which is over: nothing would ever fire by the clock",
            describe::when(last)
        ),
    );
    Err(error
        .hint(format!(
            "a time to come is written in full, in UTC: {flag} 2099-12-31, or {flag} 2099-12-31T18:00"
        ))
        .hint("a length of time, as 30d, means so long ago"))
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

/// What is taken away of what was there.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
struct Without {
    start: bool,
    end: bool,
    limit: bool,
    labels: bool,
}

/// What flags and file want.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
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
    /// Whether the limit was named by its flag, so that it is counted anew.
    pub(super) renew_limit: bool,
    pause_on_failure: Option<bool>,
    labels: BTreeMap<String, String>,
    without: Without,
}

impl Wanted {
    /// A schedule that is to be made.
    pub(super) async fn made(
        ui: &Ui,
        settings: &Settings,
        args: &SpecArgs,
    ) -> CommandResult<(ScheduleId, ScheduleSpec)> {
        let mut wanted = Self::read(args, now())?;
        // Before a sandbox is started for it.
        if let Some(workflow) = &args.workflow {
            wanted.could_be(workflow, Vec::new())?;
        }
        wanted.find_action(ui, settings, args).await?;
        wanted.new_spec()
    }

    /// A change of a schedule that is there, and which.
    pub(super) async fn change(
        ui: &Ui,
        settings: &Settings,
        args: &UpdateArgs,
    ) -> CommandResult<(ScheduleId, Self)> {
        let UpdateArgs { spec: args, no_start, no_end, no_limit, no_labels } = args;
        let mut wanted = Self::read(args, now())?;
        wanted.without = Without { start: *no_start, end: *no_end, limit: *no_limit, labels: *no_labels };
        let id = wanted.id.clone().ok_or_else(|| {
            CommandError::new(Code::Usage, "which schedule is to be changed is not said")
                .hint("`dssflow schedules ls` lists them")
        })?;
        if let Some(workflow) = &args.workflow {
            let some = Timing::Interval { every_ms: 60_000, offset_ms: 0 };
            wanted.could_be(workflow, vec![some])?;
        }
        wanted.find_action(ui, settings, args).await?;
        Ok((id, wanted))
    }

    /// All but what a workflow that is named by a flag is given.
    fn read(args: &SpecArgs, now: Timestamp) -> CommandResult<Self> {
        let mut file = SpecFile::default();
        let mut action = None;
        let whole = args.workflow.is_none() && args.file.is_some();
        if let Some(path) = args.file.as_deref().filter(|_| whole) {
            file = read_file(path)?;
            let workflow = file.workflow.as_deref().ok_or_else(|| {
                CommandError::new(Code::WrongSchedule, format!("{} names no workflow", path.display()))
                    .hint("a file of a workflow, as a site, goes with --workflow")
            })?;
            action = Some(match (file.input.take(), &file.file) {
                (Some(_), Some(_)) => {
                    return Err(CommandError::new(Code::WrongSchedule, "both `file` and `input` are there")
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
        let start = text(&args.start, file.start);
        // A file may be used again when its end has come.
        let end = match (&args.end, file.end) {
            (Some(text), _) => Some(to_come("--end", text, now)?),
            (None, Some(text)) => Some(last_moment("--end", &text, now)?),
            (None, None) => None,
        };
        let mut labels = file.labels;
        for text in &args.label {
            let (key, value) = crate::commands::runs::label(text)?;
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
            start: start.map(|text| moment::parse("--start", &text, now)).transpose()?,
            end,
            limit: args.limit.or(file.limit),
            renew_limit: args.limit.is_some(),
            pause_on_failure: args.pause_on_failure.or(file.pause_on_failure),
            labels,
            without: Without::default(),
        })
    }

    /// Checks everything but what the workflow is given; `timing` is that of the schedule that is changed.
    fn could_be(&self, workflow: &str, timing: Vec<Timing>) -> CommandResult<()> {
        if catalog::find(workflow)?.made_of == MadeOf::SiteAndRuns {
            crate::launch::prepare(workflow, &Value::Null)?;
        }
        let action = ScheduleAction::new(workflow);
        let old = ScheduleSpec { timing, ..ScheduleSpec::cron("", action.clone()) };
        Self { action: Some(action), ..self.clone() }.changed(old).map(drop)
    }

    /// What the workflow that a flag names is given; in the sandbox, what it takes there.
    async fn find_action(&mut self, ui: &Ui, settings: &Settings, args: &SpecArgs) -> CommandResult<()> {
        let Some(workflow) = &args.workflow else { return Ok(()) };
        // A file that is named can be read, and be wrong, before a sandbox is there.
        let given =
            args.file.as_deref().map(|file| action_of(workflow, Some(file), &args.set)).transpose()?;
        let sandbox = sandbox_if(ui, settings, args.sandbox).await?;
        let site = sandbox.as_ref().map(|sandbox| sandbox.site_yaml.as_path());
        self.action = Some(match given {
            Some(action) => action,
            None => action_of(workflow, site, &args.set)?,
        });
        if let Some(sandbox) = sandbox {
            self.labels.insert(SANDBOX_LABEL.to_owned(), sandbox.id);
        }
        Ok(())
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
    pub(super) fn changed(self, old: ScheduleSpec) -> CommandResult<ScheduleSpec> {
        let mut spec = if self.whole {
            let action = self.action.clone().expect("a whole file has one");
            ScheduleSpec { timing: Vec::new(), ..ScheduleSpec::cron("", action) }
        } else {
            old
        };
        if self.without.labels {
            // Where it belongs is for what it is given to say.
            spec.action.labels.retain(|key, _| key == SANDBOX_LABEL);
        }
        if let Some(action) = self.action {
            let mut labels = std::mem::take(&mut spec.action.labels);
            labels.remove(SANDBOX_LABEL);
            spec.action = ScheduleAction { labels, ..action };
        }
        if !self.timing.is_empty() {
            spec.timing = self.timing;
        }
        spec.zone = self.zone.unwrap_or(spec.zone);
        spec.overlap = self.overlap.unwrap_or(spec.overlap);
        spec.catch_up_ms = self.catch_up_ms.unwrap_or(spec.catch_up_ms);
        spec.jitter_ms = self.jitter_ms.unwrap_or(spec.jitter_ms);
        spec.start = self.start.or(spec.start).filter(|_| !self.without.start);
        spec.end = self.end.or(spec.end).filter(|_| !self.without.end);
        spec.limit = self.limit.or(spec.limit).filter(|_| !self.without.limit);
        spec.pause_on_failure = self.pause_on_failure.unwrap_or(spec.pause_on_failure);
        spec.action.labels.extend(self.labels);
        spec.check().map_err(wrong)?;
        Ok(spec)
    }
}

/// Why a spec is none, and what mends it; also where an expression is written as only others take it.
fn wrong(why: SpecError) -> CommandError {
    let elsewhere = match &why {
        SpecError::Cron { cron, .. } => as_elsewhere(cron),
        _ => None,
    };
    let error = CommandError::from(why);
    match elsewhere {
        Some(hint) => CommandError { hints: vec![hint], ..error },
        None => error,
    }
}

/// How that is said here what other schedulers take as part of an expression.
fn as_elsewhere(cron: &str) -> Option<String> {
    if cron.contains(char::is_control) {
        return None;
    }
    if let Some(every) = cron.strip_prefix("@every") {
        let every = every.trim();
        let every = if moment::duration("--every", every).is_ok() { every } else { "15m" };
        return Some(format!("an interval is said by itself: --every {every}, in a file `every: {every}`"));
    }
    let zoned = cron.strip_prefix("CRON_TZ=").or_else(|| cron.strip_prefix("TZ="))?;
    let (zone, cron) = zoned.split_once(' ')?;
    let cron = cron.trim();
    Some(format!("the time zone is said by itself: --cron '{cron}' --zone {zone}, in a file `zone: {zone}`"))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-07T12:00:00Z.
    const NOW: Timestamp = Timestamp::from_millis(1_794_052_800_000);

    #[test]
    fn a_date_alone_is_the_whole_day() {
        let told = |at: CommandResult<Timestamp>| at.map(|at| at.to_string()).unwrap();
        for (text, last) in [
            ("2026-11-06", "2026-11-06T23:59:59.999Z"),
            ("2026-11-06Z", "2026-11-06T23:59:59.999Z"),
            ("2026-11-06T03:00", "2026-11-06T03:00:00.000Z"),
            ("2026-11-06 03:00:01Z", "2026-11-06T03:00:01.000Z"),
            // Of today what has been so far.
            ("2026-11-07", "2026-11-07T12:00:00.000Z"),
            ("1d", "2026-11-06T12:00:00.000Z"),
            ("0s", "2026-11-07T12:00:00.000Z"),
            // It is told that it is still to come.
            ("2026-11-08", "2026-11-08T23:59:59.999Z"),
            ("2026-11-07T12:01", "2026-11-07T12:01:00.000Z"),
        ] {
            assert_eq!(told(so_far("--to", text, NOW)), last, "{text}");
        }
        assert_eq!(told(to_come("--end", "2026-11-07", NOW)), "2026-11-07T23:59:59.999Z", "it goes on");
    }

    #[test]
    fn an_end_that_is_over_is_refused() {
        for text in ["30d", "0s", "2026-11-06", "2026-11-07T12:00"] {
            let error = to_come("--end", text, NOW).unwrap_err();
            assert_eq!(error.code, Code::WrongSchedule);
            assert!(error.message.contains("is over"), "{}", error.message);
            assert!(error.hints.iter().any(|hint| hint.contains("--end 2099-12-31")), "{:?}", error.hints);
        }
        assert_eq!(to_come("--end", "soon", NOW).unwrap_err().code, Code::Usage);
    }

    #[test]
    fn the_label_of_a_sandbox_goes_with_what_the_workflow_is_given() {
        let nothing = Wanted {
            id: None,
            whole: false,
            action: None,
            timing: Vec::new(),
            zone: None,
            overlap: None,
            catch_up_ms: None,
            jitter_ms: None,
            start: None,
            end: None,
            limit: None,
            renew_limit: false,
            pause_on_failure: None,
            labels: BTreeMap::new(),
            without: Without::default(),
        };
        let labels = |of: &[(&str, &str)]| -> BTreeMap<String, String> {
            of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let mut old = ScheduleSpec::cron("0 3 * * *", ScheduleAction::new("glue-resync"));
        old.action.labels = labels(&[("sandbox", "a"), ("team", "data")]);
        let changed = |wanted: Wanted| wanted.changed(old.clone()).unwrap().action.labels;
        let action = Some(ScheduleAction::new("glue-resync"));
        assert_eq!(changed(nothing.clone()), old.action.labels);
        let bare = Wanted { without: Without { labels: true, ..Without::default() }, ..nothing.clone() };
        assert_eq!(changed(bare), labels(&[("sandbox", "a")]));
        let anew = Wanted { action: action.clone(), labels: labels(&[("sandbox", "b")]), ..nothing.clone() };
        assert_eq!(changed(anew), labels(&[("sandbox", "b"), ("team", "data")]));
        assert_eq!(changed(Wanted { action, ..nothing }), labels(&[("team", "data")]), "somewhere else");
    }

    #[test]
    fn what_other_schedulers_take_is_said_as_it_is_here() {
        for (cron, says) in [
            ("@every 5m", Some("--every 5m,")),
            ("@every 1h30m", Some("--every 15m,")),
            ("@every", Some("--every 15m,")),
            ("CRON_TZ=Europe/Berlin 0 3 * * *", Some("--cron '0 3 * * *' --zone Europe/Berlin")),
            ("TZ=Asia/Tokyo  0 3 * * *", Some("--cron '0 3 * * *' --zone Asia/Tokyo")),
            ("0 25 * * *", None),
            ("CRON_TZ=Europe/Berlin\n0 3 * * *", None),
        ] {
            let hint = as_elsewhere(cron);
            let said = hint.as_deref().zip(says).is_some_and(|(hint, says)| hint.contains(says));
            assert_eq!((said, hint.is_some()), (says.is_some(), says.is_some()), "{cron}: {hint:?}");
            let action = ScheduleAction::new("bootstrap");
            assert!(ScheduleSpec::cron(cron, action).check().is_err(), "{cron}");
        }
    }
}
