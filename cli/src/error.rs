//! What goes wrong with a command: its code, its exit status, what to say and what to do next.
//!
//! Every code has a page in `docs/errors`, compiled in and printed by `dssflow explain CODE`. Nothing here prints.

use std::fmt;

use dssflow_engine::EngineError;
use dssflow_engine::activity::{ActivityError, ErrorClass};
use dssflow_engine::archive::CopyError;
use dssflow_engine::runtime::ScheduleError;
use dssflow_engine::schedule::SpecError;
use dssflow_engine::store::StoreError;
use dssflow_sandbox::SandboxError;
use dssflow_store::OpenError;
use dssflow_workflows::SiteErrors;
use serde_json::json;

use crate::config;

/// How a command ends. Public and tested: scripts depend on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Succeeded; a rollback that completed or had nothing to do.
    Ok,
    /// The run failed, was cancelled or timed out.
    Failed,
    /// Something differs: a plan with changes, a world that drifted.
    Changes,
    /// Paused, or waiting for a person.
    Waiting,
    /// Credentials are missing or denied.
    Credentials,
    /// The world does not fit; nothing was created.
    Preflight,
    /// Failed and fully rolled back.
    RolledBack,
    /// Rollback is incomplete; leftovers are listed.
    Stuck,
    /// The store is locked or damaged.
    Store,
    /// A wrong command line, or a spec that is wrong without looking at the world.
    Usage,
    /// Ctrl-C; the run is saved as paused.
    Interrupted,
    /// SIGTERM; the run is saved as paused.
    Terminated,
}

impl Exit {
    /// The number the process ends with.
    pub(crate) const fn status(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Changes => 2,
            Self::Waiting => 3,
            Self::Credentials => 4,
            Self::Preflight => 5,
            Self::RolledBack => 6,
            Self::Stuck => 7,
            Self::Store => 8,
            Self::Usage => 64,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

/// Whose business an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What was typed.
    User,
    /// What a file or the environment says.
    Config,
    /// The store.
    Store,
    /// The run or the world it works on.
    Run,
    /// dssflow itself.
    Internal,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Config => "config",
            Self::Store => "store",
            Self::Run => "run",
            Self::Internal => "internal",
        }
    }
}

/// One entry of the list of codes.
#[derive(Debug)]
pub(crate) struct CodeInfo {
    /// As `DF0004`.
    pub(crate) code: &'static str,
    /// Its page.
    pub(crate) page: &'static str,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $kind:ident, $exit:ident;)* => pages only: $($other:literal)*) => {
        /// What went wrong, as a number that stays the same for ever.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// As `DF0004`.
            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The one written so.
            pub(crate) fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$name),)* _ => None }
            }

            /// Whose business it is.
            pub(crate) const fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind,)* }
            }

            /// How the command ends.
            pub(crate) const fn exit(self) -> Exit {
                match self { $(Self::$name => Exit::$exit,)* }
            }
        }

        /// Every code there is, those of site files included, in order.
        pub(crate) const ALL: &[CodeInfo] = &[
            $(CodeInfo { code: $text, page: include_str!(concat!("../../docs/errors/", $text, ".md")) },)*
            $(CodeInfo { code: $other, page: include_str!(concat!("../../docs/errors/", $other, ".md")) },)*
        ];
    };
}

codes! {
    /// A defect of dssflow.
    Internal = "DF0001", Internal, Failed;
    /// The command line is wrong.
    Usage = "DF0002", User, Usage;
    /// A file named on the command line cannot be read or written.
    File = "DF0003", Config, Usage;
    /// There is no such run.
    NoSuchRun = "DF0004", User, Failed;
    /// The beginning of an id fits several runs.
    AmbiguousRun = "DF0005", User, Failed;
    /// There is no such workflow.
    NoSuchWorkflow = "DF0006", User, Usage;
    /// There is no such step.
    NoSuchStep = "DF0007", User, Usage;
    /// Nobody was there to say yes.
    NotConfirmed = "DF0008", User, Usage;
    /// The answer was no.
    Declined = "DF0009", User, Failed;
    /// Another process owns the store.
    StoreLocked = "DF0010", Store, Store;
    /// The store is damaged.
    StoreDamaged = "DF0011", Store, Store;
    /// The store is not safe to use, or the system refuses it.
    StoreUnusable = "DF0012", Store, Store;
    /// There is no store.
    NoStore = "DF0013", Store, Failed;
    /// The store failed while it was in use.
    StoreFailed = "DF0014", Store, Store;
    /// A run cannot do what was asked.
    RunRefused = "DF0015", Run, Failed;
    /// A run was made by another version.
    RunForeign = "DF0016", Run, Failed;
    /// An earlier run of the site is in the way.
    RunInTheWay = "DF0017", Run, Waiting;
    /// What a step is said to give does not fit it.
    OutputMismatch = "DF0018", User, Usage;
    /// A run and the workflow of this version do not fit each other.
    DefinitionChanged = "DF0019", Run, Waiting;
    /// Credentials are missing or denied.
    Credentials = "DF0020", Config, Credentials;
    /// The account or principal is another one.
    WrongAccount = "DF0021", Config, Preflight;
    /// The world does not fit the site.
    Preflight = "DF0022", Run, Preflight;
    /// The host cannot be reached as the site says.
    HostUnusable = "DF0023", Config, Preflight;
    /// The sandbox does not start.
    SandboxFailed = "DF0030", Run, Failed;
    /// The sandbox a run belongs to is gone.
    SandboxGone = "DF0031", Run, Failed;
    /// There is no sandbox.
    NoSandbox = "DF0032", User, Failed;
    /// A file of faults is wrong.
    WrongFaults = "DF0033", Config, Usage;
    /// The sandbox lacks what is to be worked on.
    SandboxBare = "DF0034", User, Failed;
    /// The output could not be written.
    Output = "DF0040", Run, Failed;
    /// There is no such code.
    UnknownPage = "DF0041", User, Usage;
    /// A backup is damaged, cut off, of a later version, or none.
    BadArchive = "DF0050", Config, Usage;
    /// A backup is of another store than it is to go into.
    OtherStore = "DF0051", Config, Usage;
    /// The process that serves the store is stopping.
    Stopping = "DF0060", Store, Store;
    /// An address cannot be listened on, or must not be.
    Listen = "DF0061", Config, Usage;
    /// The file of the API's token cannot be used.
    ApiToken = "DF0062", Config, Usage;
    /// A request to the API was refused before it was looked at.
    RequestRefused = "DF0063", User, Usage;
    /// There is no such schedule.
    NoSuchSchedule = "DF0070", User, Failed;
    /// What is wanted of a schedule is wrong.
    WrongSchedule = "DF0071", Config, Usage;
    /// A schedule cannot do what was asked.
    ScheduleRefused = "DF0072", Run, Failed;
    /// DSS has no such object.
    CaptureMissing = "DF0150", User, Failed;
    /// An object of DSS is of a kind that no step of the site writes.
    CaptureKind = "DF0151", User, Failed;
    /// A file of switches of the fake DSS is wrong.
    WrongBehaviour = "DF0152", Config, Usage;
    /// A file is no plan that can be used.
    BadPlan = "DF0180", Config, Usage;
    /// A plan does not fit what is to be run, or the world moved since it was made.
    StalePlan = "DF0181", Run, Preflight;
    /// A file of settings is wrong.
    WrongConfig = "DF0190", Config, Usage;
    /// The site file is wrong.
    WrongSite = "DF0100", Config, Usage;
    => pages only: "DF0101" "DF0102" "DF0103" "DF0104" "DF0105" "DF0106" "DF0107" "DF0108" "DF0109" "DF0110"
    "DF0160"
}

/// Why a command did not do as asked.
#[derive(Debug, Clone)]
pub(crate) struct CommandError {
    /// Which error it is.
    pub(crate) code: Code,
    /// How the command ends; by default as the code says.
    pub(crate) exit: Exit,
    /// What happened: a lower-case fragment.
    pub(crate) message: String,
    /// Why, outermost first.
    pub(crate) why: Vec<String>,
    /// What to do; whole sentences or commands.
    pub(crate) hints: Vec<String>,
}

/// The answer of a command.
pub(crate) type CommandResult<T = Exit> = Result<T, CommandError>;

impl CommandError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, exit: code.exit(), message: message.into(), why: Vec::new(), hints: Vec::new() }
    }

    /// Adds a reason.
    #[must_use]
    pub(crate) fn why(mut self, why: impl fmt::Display) -> Self {
        self.why.push(why.to_string());
        self
    }

    /// Adds a hint.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds the causes of an error, outermost first, without itself.
    #[must_use]
    pub(crate) fn caused_by(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = error.source();
        while let Some(cause) = next {
            self.why.push(cause.to_string());
            next = cause.source();
        }
        self
    }

    /// The same with a command to type, when no hint has one.
    pub(crate) fn complete(&self) -> Self {
        if self.hints.iter().any(|hint| config::names_a_command(hint)) {
            return self.clone();
        }
        self.clone().hint(format!("`dssflow explain {}` says more", self.code.as_str()))
    }

    /// For programs: one object on one line.
    pub(crate) fn to_json(&self) -> String {
        json!({ "error": {
            "code": self.code.as_str(),
            "kind": self.code.kind().as_str(),
            "exit": self.exit.status(),
            "message": self.message,
            "why": self.why,
            "hints": self.hints,
        } })
        .to_string()
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}", self.code.as_str(), self.message)?;
        for why in &self.why {
            write!(f, "\n  {}", why.replace('\n', "\n  "))?;
        }
        for hint in &self.hints {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl From<EngineError> for CommandError {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        let foreign = |message| {
            Self::new(Code::RunForeign, message)
                .hint("go on with the version of dssflow that made the run: `dssflow runs get RUN -o json` shows it")
        };
        match error {
            EngineError::NoSuchRun(run) => Self::new(Code::NoSuchRun, format!("there is no run {run}"))
                .hint("`dssflow runs ls` lists the runs of this store"),
            EngineError::Store { error: StoreError::Exists(run), .. } => {
                Self::new(Code::RunRefused, format!("there is a run {run} already"))
                    .hint("choose another id with --id")
                    .hint(format!("look at that one: dssflow runs get {run}"))
            }
            EngineError::Store { error, .. } => Self::from(error),
            EngineError::MissingActivity { .. }
            | EngineError::MissingFunction { .. }
            | EngineError::MissingWorkflow { .. }
            | EngineError::InputMismatch { .. }
            | EngineError::History { .. }
            | EngineError::Graph { .. } => foreign(message),
            EngineError::BadInput { .. } => {
                foreign(message).hint("what the workflow takes: `dssflow workflows schema bootstrap`")
            }
            EngineError::OutputMismatch { step, activity, why } => Self::new(
                Code::OutputMismatch,
                format!("that is no output of step {step}: {activity} gives something else"),
            )
            .why(why)
            .hint("the output of an earlier run shows what is needed: dssflow runs get RUN -o json"),
            EngineError::OutputChanged { run, steps, .. } => {
                let error = Self::new(Code::DefinitionChanged, message);
                let error = match steps.first() {
                    Some(step) => error.hint(format!("do it again: dssflow rerun {run} --from {step}")),
                    None => error,
                };
                error.hint("or go on with the version of dssflow that made the run")
            }
            EngineError::InputTooLarge { .. } => Self::new(Code::WrongSite, message)
                .hint("nothing was created; large things belong into files or S3 that the site names"),
            EngineError::Replay { .. } => Self::new(Code::StoreDamaged, message)
                .hint("`dssflow store verify` reads everything and names the first bad record"),
            EngineError::Live(run) => {
                Self::new(Code::RunRefused, message).hint(format!("watch it: dssflow runs watch {run}"))
            }
            EngineError::Dropped(run) | EngineError::NotLive(run) => Self::new(Code::RunRefused, message)
                .hint(format!("go on with it: dssflow resume {run}"))
                .hint(format!("`dssflow why {run}` says where it stands")),
            EngineError::Held { run, .. } => Self::new(Code::RunRefused, message)
                .hint("it can be driven from here once that worker lets go of it or its lease has ended")
                .hint(format!("`dssflow why {run}` says where it stands")),
            EngineError::Imported { run, .. } => Self::new(Code::RunRefused, message)
                .hint(format!("here it can be looked at: dssflow runs get {run}, dssflow runs events {run}")),
            EngineError::Illegal { run, .. }
            | EngineError::NotSucceeded { run, .. }
            | EngineError::ResultMismatch { run, .. } => {
                Self::new(Code::RunRefused, message).hint(format!("`dssflow why {run}` says where it stands"))
            }
            // The list of the engine may grow; what is not known here yet is told as it is.
            _ => Self::new(Code::Internal, message),
        }
    }
}

impl From<SpecError> for CommandError {
    fn from(why: SpecError) -> Self {
        let error = Self::new(Code::WrongSchedule, why.to_string());
        match why {
            SpecError::NoTiming => error.hint("say when: --cron '0 3 * * *', or --every 1h"),
            SpecError::Cron { .. } | SpecError::NeverFires { .. } => error
                .hint("five fields are minute, hour, day of month, month and day of week, as '0 3 * * 1-5'")
                .hint("six have seconds in front of them, seven a year behind them as well"),
            SpecError::Interval { .. } => {
                error.hint("it is written 30s, 15m, 1h or 1d; 6h/30m is half an hour later")
            }
            SpecError::Zone(_) => error.hint(
                "a time zone is a name of the IANA database, as Europe/Berlin; without --zone it is UTC",
            ),
            SpecError::CatchUp => error.hint("give it more: --catch-up 1m; without it, it is 24h"),
            SpecError::NoActions => error.hint("`dssflow schedules pause` lets a schedule start nothing"),
            // The list of the engine may grow; what else there is says itself what to do.
            _ => error.hint("all that a schedule may have: docs/schedules.md"),
        }
    }
}

impl From<ScheduleError> for CommandError {
    fn from(error: ScheduleError) -> Self {
        let message = error.to_string();
        match error {
            ScheduleError::NotFound(id) => {
                Self::new(Code::NoSuchSchedule, format!("there is no schedule {id}"))
                    .hint("`dssflow schedules ls` lists them")
            }
            ScheduleError::Exists(id) => Self::new(Code::ScheduleRefused, message)
                .hint(format!("change it: dssflow schedules update {id}"))
                .hint("or choose another name"),
            ScheduleError::Spec { why, .. } => why.into(),
            ScheduleError::Launch { .. } => Self::new(Code::WrongSchedule, message)
                .hint("`dssflow plan WORKFLOW -f FILE` checks what a workflow takes; `dssflow workflows ls` lists them"),
            ScheduleError::Illegal { id, .. } | ScheduleError::Contended(id) => {
                Self::new(Code::ScheduleRefused, message)
                    .hint(format!("`dssflow schedules get {id}` says where it stands"))
            }
            ScheduleError::RequestTooLong { .. } => Self::new(Code::Usage, message),
            ScheduleError::Unreadable { .. } => {
                Self::new(Code::RunForeign, message).hint("go on with the version of dssflow that wrote it")
            }
            ScheduleError::Store(error) => error.into(),
            // The list of the engine may grow; what is not known here yet is told as it is.
            _ => Self::new(Code::Internal, message),
        }
    }
}

/// How a store begins to say why it removes nothing now; see [`Holds::check`](dssflow_engine::store::Holds::check).
const COPIED: &str = "it is being copied";

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::Corrupt(_) => Self::new(Code::StoreDamaged, message)
                .hint("`dssflow store verify` reads everything and names the first bad record")
                .hint("put the last backup back: dssflow store restore BACKUP; what is here is kept"),
            StoreError::NotFound(_)
            | StoreError::Exists(_)
            | StoreError::Held { .. }
            | StoreError::Invalid(_) => Self::new(Code::RunRefused, message),
            StoreError::Unavailable(why) if why.starts_with(COPIED) => {
                Self::new(Code::StoreLocked, "the store is being copied, and nothing is removed meanwhile")
                    .why("a backup, an export or another copy is under way")
                    .hint("nothing is wrong: give the same command again when it is done")
            }
            StoreError::Conflict { .. }
            | StoreError::ScheduleConflict { .. }
            | StoreError::Fenced { .. }
            | StoreError::TooLarge { .. }
            | StoreError::Unavailable(_)
            | StoreError::Unknown(_)
            | StoreError::Poisoned(_) => Self::new(Code::StoreFailed, message)
                .hint("nothing acknowledged is lost; check the disk, then `dssflow resume @latest`"),
        }
    }
}

impl From<OpenError> for CommandError {
    fn from(error: OpenError) -> Self {
        let code = match &error {
            OpenError::Locked { .. } => Code::StoreLocked,
            OpenError::NotFound { .. } => Code::NoStore,
            OpenError::Damaged { .. } => Code::StoreDamaged,
            OpenError::Used { .. }
            | OpenError::NotAStore { .. }
            | OpenError::Unsafe { .. }
            | OpenError::NetworkFileSystem { .. }
            | OpenError::Newer { .. }
            | OpenError::Io { .. } => Code::StoreUnusable,
        };
        Self::new(code, error.to_string()).caused_by(&error).hint(error.hint())
    }
}

impl From<CopyError> for CommandError {
    fn from(error: CopyError) -> Self {
        let message = error.to_string();
        match error {
            CopyError::Store { error, run } => {
                let made = Self::from(error);
                match run {
                    Some(run) => Self { message: format!("run {run}: {}", made.message), ..made },
                    None => made,
                }
            }
            CopyError::Run(error) => error.into(),
            CopyError::Io(_) => Self::new(Code::File, message).hint("check the disk and its room"),
            CopyError::NoSuchRun(run) => EngineError::NoSuchRun(run).into(),
            CopyError::OtherStore { .. } => Self::new(Code::OtherStore, message)
                .hint("bring its runs in as history: dssflow store import FILE"),
            CopyError::SameStore(_) => {
                Self::new(Code::OtherStore, message).hint("put it back: dssflow store restore FILE")
            }
            CopyError::Archive(_)
            | CopyError::BadRun { .. }
            | CopyError::BadGraph { .. }
            | CopyError::BadSchedule { .. } => Self::new(Code::BadArchive, message),
            // The list of the engine may grow; what is not known here yet is told as it is.
            _ => Self::new(Code::Internal, message),
        }
    }
}

impl From<SandboxError> for CommandError {
    fn from(error: SandboxError) -> Self {
        let code = match error {
            SandboxError::TooEarly { .. } => Code::SandboxBare,
            _ => Code::SandboxFailed,
        };
        Self::new(code, error.to_string()).caused_by(&error).hint(error.help())
    }
}

impl From<SiteErrors> for CommandError {
    fn from(errors: SiteErrors) -> Self {
        let count = errors.problems.len();
        let plural = if count == 1 { "" } else { "s" };
        let mut error =
            Self::new(Code::WrongSite, format!("{} has {count} problem{plural}", errors.source_name));
        for problem in &errors.problems {
            error.why.push(format!("{problem}\n  help: {}", problem.help));
        }
        let code = errors.problems.first().map_or(Code::WrongSite.as_str(), |p| p.code);
        error.hint(format!("nothing was created; `dssflow explain {code}` says more"))
    }
}

impl From<ActivityError> for CommandError {
    fn from(error: ActivityError) -> Self {
        let code = match error.class {
            ErrorClass::Credentials => Code::Credentials,
            ErrorClass::Retryable
            | ErrorClass::Throttled
            | ErrorClass::Terminal
            | ErrorClass::NeedsHuman
            | ErrorClass::Cancelled => Code::Preflight,
        };
        let mut made = Self::new(code, error.to_string());
        if let Some(id) = &error.request_id {
            made = made.why(format!("request id {id}"));
        }
        match error.help {
            Some(help) => made.hint(help),
            None => made,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dssflow_engine::store::Holds;

    use super::*;

    #[test]
    fn a_store_that_is_being_copied_has_not_failed() {
        let holds = Holds::default();
        let _copy = holds.hold();
        let error = CommandError::from(holds.check().expect_err("something copies it"));
        assert_eq!(error.code, Code::StoreLocked);
        assert!(!error.to_string().contains("resume"), "{error}");
    }

    #[test]
    fn codes_and_pages_are_one_to_one() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors");
        let pages: BTreeSet<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap().trim_end_matches(".md").to_owned())
            .collect();
        let codes: BTreeSet<String> = ALL.iter().map(|c| c.code.to_owned()).collect();
        assert_eq!(pages, codes);
        assert_eq!(codes.len(), ALL.len(), "no code stands there twice");
        for (code, _) in dssflow_workflows::site::codes::ALL {
            assert!(codes.contains(code), "{code}");
        }
    }

    #[test]
    fn every_page_has_its_parts() {
        for info in ALL {
            assert!(info.page.starts_with(&format!("# {}: ", info.code)), "{}", info.code);
            for part in ["## Cause", "## What to try"] {
                assert!(info.page.contains(part), "{} has no {part}", info.code);
            }
        }
    }

    #[test]
    fn errors_of_the_engine_say_what_comes_next() {
        use dssflow_engine::id::{RunId, StepName};

        let (run, step) = (RunId::new("lab").unwrap(), StepName::new("copy").unwrap());
        for (error, code, next) in [
            (EngineError::Live(run.clone()), Code::RunRefused, "dssflow runs watch lab"),
            (EngineError::NotLive(run.clone()), Code::RunRefused, "dssflow resume lab"),
            (
                EngineError::OutputMismatch {
                    step: step.clone(),
                    activity: "s3.copy".to_owned(),
                    why: "missing field bucket".to_owned(),
                },
                Code::OutputMismatch,
                "dssflow runs get RUN -o json",
            ),
            (
                EngineError::OutputChanged { run: run.clone(), steps: vec![step], why: "no".to_owned() },
                Code::DefinitionChanged,
                "dssflow rerun lab --from copy",
            ),
            (
                EngineError::Store { run: None, error: StoreError::Exists(run.clone()) },
                Code::RunRefused,
                "--id",
            ),
            (EngineError::Illegal { run, why: "no".to_owned() }, Code::RunRefused, "dssflow why lab"),
            (
                EngineError::Store { run: None, error: StoreError::Poisoned("no space".to_owned()) },
                Code::StoreFailed,
                "dssflow resume @latest",
            ),
        ] {
            let made = CommandError::from(error);
            assert_eq!(made.code, code, "{made}");
            assert!(made.hints.iter().any(|h| h.contains(next)), "{next} in {made}");
        }
    }

    #[test]
    fn every_error_ends_with_a_command_to_type() {
        let bare = CommandError::new(Code::Declined, "not confirmed");
        assert_eq!(bare.complete().hints, ["`dssflow explain DF0009` says more"]);
        let vague = bare.clone().hint("go on with the version of dssflow that made it");
        assert_eq!(vague.complete().hints.len(), 2, "that is no command");
        for enough in ["`dssflow runs ls` lists them", "go on: dssflow --store /x resume lab"] {
            assert_eq!(bare.clone().hint(enough).complete().hints, [enough]);
        }
    }

    #[test]
    fn an_error_prints_code_reasons_and_hints() {
        let error =
            CommandError::new(Code::NoSuchRun, "there is no run x").why("the store is empty").hint("look");
        assert_eq!(error.to_string(), "error[DF0004]: there is no run x\n  the store is empty\nhint: look");
        assert_eq!(error.exit.status(), 1);
    }
}
