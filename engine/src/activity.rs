//! What an activity is: the code a step names, the context it runs in, and the answers it may give.
//!
//! An embedder writes [`Activity::execute`] and is done. An activity that provisions something also says what
//! kind of effect it has and how to find out whether that effect took place ([`Activity::probe`]), so that an
//! attempt whose outcome is unknown is looked at before it is repeated or undone.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::id::{ActivityName, RunId, StepName, StoreId, Token};
use crate::time::{BoxFuture, Clock, Timestamp};

/// The most an input or output may have, in bytes of JSON.
pub const MAX_PAYLOAD_BYTES: usize = 16 * 1024 * 1024;
/// How deep an input or output may be nested. Stored events could not be read beyond some 120.
pub const MAX_PAYLOAD_DEPTH: usize = 64;
/// The most heartbeat details may have, in bytes of JSON.
pub const MAX_HEARTBEAT_BYTES: usize = 4 * 1024;

/// What an activity does to the world outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Changes nothing. Repeated freely, never undone.
    Read,
    /// Changes something, but a repetition leaves the same world. Repeated freely after a crash.
    Idempotent,
    /// Makes something that was not there. Needs a probe.
    Create,
    /// Changes something that was there; the old values of the managed keys are recorded first. Needs a probe.
    Update,
    /// Removes something. "Not there" is success.
    Delete,
}

impl Effect {
    /// Whether an attempt with an unknown outcome must be probed before it is repeated or undone.
    pub fn needs_probe(self) -> bool {
        matches!(self, Self::Create | Self::Update)
    }
}

/// Who a thing in the outside world belongs to, proven by its marks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// This run made it.
    ThisRun,
    /// An earlier run of the same store and site made it; the run is named.
    ThisSite(String),
    /// Somebody else's, or without marks.
    Foreign,
}

/// The marks put on everything that is created, and compared at delete time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// The store whose ledger records the creation.
    pub store: String,
    /// The site, or an empty string for a run without one.
    pub site: String,
    /// The creating run.
    pub run: String,
    /// The creating step.
    pub step: String,
    /// The generation of the step, from 1.
    pub generation: u32,
}

impl Marks {
    /// Tag key of [`Marks::store`].
    pub const STORE: &'static str = "dssflow:store";
    /// Tag key of [`Marks::site`].
    pub const SITE: &'static str = "dssflow:site";
    /// Tag key of [`Marks::run`].
    pub const RUN: &'static str = "dssflow:run";
    /// Tag key of [`Marks::step`].
    pub const STEP: &'static str = "dssflow:step";
    /// Tag key of [`Marks::generation`].
    pub const GENERATION: &'static str = "dssflow:generation";

    /// The marks as tags, in a fixed order.
    pub fn tags(&self) -> Vec<(&'static str, String)> {
        vec![
            (Self::STORE, self.store.clone()),
            (Self::SITE, self.site.clone()),
            (Self::RUN, self.run.clone()),
            (Self::STEP, self.step.clone()),
            (Self::GENERATION, self.generation.to_string()),
        ]
    }

    /// Decides who owns a thing that carries `tags`. The step is not compared: names already tell things apart,
    /// and one step may make several.
    pub fn owner_by<'a>(&self, tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Owner {
        let (mut store, mut site, mut run) = (None, None, None);
        for (key, value) in tags {
            match key {
                Self::STORE => store = Some(value),
                Self::SITE => site = Some(value),
                Self::RUN => run = Some(value),
                _ => {}
            }
        }
        match (store, site, run) {
            (Some(store), _, Some(run)) if store == self.store && run == self.run => Owner::ThisRun,
            (Some(store), Some(site), Some(run))
                if store == self.store && site == self.site && !site.is_empty() =>
            {
                Owner::ThisSite(run.to_owned())
            }
            _ => Owner::Foreign,
        }
    }

    /// Decides who owns a thing that carries `marks`.
    pub fn owner_of(&self, marks: &Marks) -> Owner {
        self.owner_by([
            (Self::STORE, marks.store.as_str()),
            (Self::SITE, marks.site.as_str()),
            (Self::RUN, marks.run.as_str()),
        ])
    }
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "found")]
pub enum Probe<T> {
    /// Nothing is there, or (for an Update) the managed keys do not hold our values yet.
    Absent,
    /// It is there as wanted.
    Present {
        /// What `execute` would have returned.
        output: T,
        /// Whose it is.
        owner: Owner,
    },
    /// It is being made or removed right now; ask again later.
    InProgress {
        /// One line for people: the state the service reports.
        detail: String,
    },
    /// It is there and broken for good; `execute` of the next generation removes it first, if it is ours.
    Failed {
        /// Whose it is.
        owner: Owner,
        /// One line for people: what the service says of it.
        detail: String,
    },
}

/// How a compensation ended well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "undo")]
pub enum Undo {
    /// What the step made is gone, or the old values are back.
    Undone,
    /// There was nothing of ours to take back.
    NothingToDo,
    /// Left in place by rule; the reason is shown to people.
    Kept {
        /// Why, as "packages stay on an adopted host".
        reason: String,
    },
}

/// Something in the outside world that an attempt made, recorded durably the moment its id is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// What it is, as `ec2:instance` or `glue:database`.
    pub kind: String,
    /// Its id or ARN.
    pub id: String,
    /// The generation of the step that made it.
    pub generation: u32,
}

/// What the ledger knows of a step when it is compensated: everything every generation recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// The output, if an attempt or a probe gave one.
    pub output: Option<Value>,
    /// Resources of every generation, in the order they were recorded.
    pub resources: Vec<Resource>,
    /// Old values of the managed keys of an Update, as given to [`ActivityContext::record_before`].
    pub before: BTreeMap<String, Value>,
}

impl Recorded {
    /// Reads the output as a type; `None` when there is none or it does not fit.
    pub fn output_as<T: DeserializeOwned>(&self) -> Option<T> {
        self.output.as_ref().and_then(|v| serde_json::from_value(v.clone()).ok())
    }

    /// The ids recorded under `kind`, oldest first.
    pub fn ids<'a>(&'a self, kind: &'a str) -> impl DoubleEndedIterator<Item = &'a str> + 'a {
        self.resources.iter().filter(move |r| r.kind == kind).map(|r| r.id.as_str())
    }
}

/// The class of an error: the engine decides by it and never reads messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// May go away by itself; retried by the step's policy.
    Retryable,
    /// The service asked for less; retried on a budget of its own, no attempt is consumed.
    Throttled,
    /// Will not go away by itself.
    Terminal,
    /// Credentials are missing, expired or denied; the run pauses, no attempt is consumed.
    Credentials,
    /// A person has to decide; the run pauses.
    NeedsHuman,
    /// The attempt saw that it was cancelled and stopped.
    Cancelled,
}

/// An activity's failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ActivityError {
    /// What the engine does about it.
    pub class: ErrorClass,
    /// A short stable code: the service's own where there is one, as `ResourceInUseException`.
    pub code: String,
    /// What happened, for people.
    pub message: String,
    /// What mends it: a command, a policy, a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The service's id of the failed request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The service's own wish for the next try, in milliseconds; wins over the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Whether the call surely did nothing: then a repetition needs no probe.
    #[serde(default)]
    pub no_effect: bool,
}

impl ActivityError {
    /// An error of the given class.
    pub fn new(class: ErrorClass, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            class,
            code: code.into(),
            message: message.into(),
            help: None,
            request_id: None,
            retry_after_ms: None,
            no_effect: false,
        }
    }

    /// Worth another attempt.
    pub fn retryable(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Retryable, code, message)
    }

    /// Not worth another attempt.
    pub fn terminal(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Terminal, code, message)
    }

    /// The service throttles; nothing was done.
    pub fn throttled(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Throttled, code, message).no_effect()
    }

    /// Credentials are missing, expired or denied; nothing was done.
    pub fn credentials(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Credentials, code, message).no_effect()
    }

    /// A person has to decide.
    pub fn needs_human(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorClass::NeedsHuman, code, message)
    }

    /// The attempt stopped because it was told to.
    pub fn cancelled() -> Self {
        Self::new(ErrorClass::Cancelled, "Cancelled", "the attempt was cancelled")
    }

    /// Says what mends it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds the service's request id.
    #[must_use]
    pub fn request_id(mut self, id: impl Into<String>) -> Self {
        self.request_id = Some(id.into());
        self
    }

    /// Adds the service's wish for the next try.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after_ms = Some(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// Promises that the call did nothing, as a refused request did.
    #[must_use]
    pub fn no_effect(mut self) -> Self {
        self.no_effect = true;
        self
    }
}

/// The answer of an activity.
pub type ActivityResult<T> = Result<T, ActivityError>;

/// The code a step names.
///
/// `execute` is all an embedder must write. Implement the rest for an activity that provisions something, and set
/// [`Activity::HAS_PROBE`]. Attempts are at least once: `execute` may run again after a crash, and every future
/// here may be dropped at any await point (a timeout, a cancellation, a crash).
pub trait Activity: Send + Sync + 'static {
    /// What it takes. Never put a secret's value in it: it is stored.
    type Input: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// What it gives. It is stored.
    type Output: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Whether [`Activity::probe`] is implemented. Registering a Create or Update without one is an error.
    const HAS_PROBE: bool = false;

    /// What it does to the world outside.
    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    /// Does the work. With a probe, it is called only after the probe said that there is nothing yet, or
    /// something of ours that failed.
    fn execute(
        &self,
        ctx: &ActivityContext,
        input: &Self::Input,
    ) -> impl Future<Output = ActivityResult<Self::Output>> + Send;

    /// Looks whether the effect is there, without changing anything. Called before the first call of a generation
    /// and after every attempt whose outcome is unknown.
    fn probe(
        &self,
        _ctx: &ActivityContext,
        _input: &Self::Input,
    ) -> impl Future<Output = ActivityResult<Probe<Self::Output>>> + Send {
        async {
            Err(ActivityError::terminal("ProbeMissing", "the activity declares HAS_PROBE but has no probe")
                .no_effect())
        }
    }

    /// Checks the post-condition after `execute`, or after a probe found the thing present.
    fn verify(
        &self,
        _ctx: &ActivityContext,
        _input: &Self::Input,
        _output: &Self::Output,
    ) -> impl Future<Output = ActivityResult<()>> + Send {
        async { Ok(()) }
    }

    /// Takes back what this run made, and nothing else: ownership is proven here, at delete time. "Not there" is
    /// success. `recorded` carries what every generation recorded, also of attempts that never finished.
    fn compensate(
        &self,
        _ctx: &ActivityContext,
        _input: &Self::Input,
        _recorded: &Recorded,
    ) -> impl Future<Output = ActivityResult<Undo>> + Send {
        async { Ok(Undo::NothingToDo) }
    }

    /// One line for plan and progress.
    fn describe(&self, _input: &Self::Input) -> String {
        String::new()
    }

    /// How long "absent" must hold, over two probes, before an attempt with an unknown outcome counts as without
    /// effect: reads are stale and a lost request can land late.
    fn settle(&self) -> Duration {
        Duration::from_secs(30)
    }

    /// How long to wait between two probes that answer [`Probe::InProgress`].
    fn poll_interval(&self) -> Duration {
        Duration::from_secs(10)
    }
}

/// The type-erased form under which the engine calls an activity. Made by registering an [`Activity`].
pub trait ErasedActivity: Send + Sync {
    /// See [`Activity::effect`].
    fn effect(&self) -> Effect;
    /// See [`Activity::HAS_PROBE`].
    fn has_probe(&self) -> bool;
    /// See [`Activity::execute`].
    fn execute<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<Value>>;
    /// See [`Activity::probe`].
    fn probe<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<Probe<Value>>>;
    /// See [`Activity::verify`].
    fn verify<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
        output: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<()>>;
    /// See [`Activity::compensate`].
    fn compensate<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
        recorded: &'a Recorded,
    ) -> BoxFuture<'a, ActivityResult<Undo>>;
    /// See [`Activity::describe`]; empty when the input does not fit.
    fn describe(&self, input: &Value) -> String;
    /// See [`Activity::settle`].
    fn settle(&self) -> Duration;
    /// See [`Activity::poll_interval`].
    fn poll_interval(&self) -> Duration;
    /// Whether `input` can be read as the activity's input type.
    ///
    /// # Errors
    /// What does not fit.
    fn check_input(&self, input: &Value) -> Result<(), String>;
}

/// About how many bytes of JSON a value has.
///
/// # Errors
/// When it is over a limit.
pub(crate) fn check_payload(value: &Value) -> Result<usize, String> {
    fn weigh(value: &Value, depth: usize) -> Result<usize, String> {
        if depth > MAX_PAYLOAD_DEPTH {
            return Err(format!("is nested more than {MAX_PAYLOAD_DEPTH} deep"));
        }
        Ok(match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => 8,
            Value::String(text) => text.len() + 3,
            Value::Array(list) => {
                list.iter().try_fold(2, |n, v| Ok::<_, String>(n + 1 + weigh(v, depth + 1)?))?
            }
            Value::Object(map) => {
                map.iter().try_fold(2, |n, (k, v)| Ok::<_, String>(n + k.len() + 4 + weigh(v, depth + 1)?))?
            }
        })
    }
    let size = weigh(value, 0)?;
    if size > MAX_PAYLOAD_BYTES {
        return Err(format!("has {size} bytes, at most {MAX_PAYLOAD_BYTES} are allowed"));
    }
    Ok(size)
}

struct Erased<A>(A);

fn read_input<T: DeserializeOwned>(input: &Value) -> ActivityResult<T> {
    serde_json::from_value(input.clone()).map_err(|e| {
        ActivityError::terminal("InputMismatch", format!("the stored input does not fit the activity: {e}"))
            .no_effect()
    })
}

fn write_output<T: Serialize>(output: &T) -> ActivityResult<Value> {
    serde_json::to_value(output).map_err(|e| {
        ActivityError::terminal("OutputMismatch", format!("the output cannot be written as JSON: {e}"))
    })
}

impl<A: Activity> ErasedActivity for Erased<A> {
    fn effect(&self) -> Effect {
        self.0.effect()
    }

    fn has_probe(&self) -> bool {
        A::HAS_PROBE
    }

    fn execute<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<Value>> {
        Box::pin(async move {
            let input: A::Input = read_input(input)?;
            write_output(&self.0.execute(ctx, &input).await?)
        })
    }

    fn probe<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<Probe<Value>>> {
        Box::pin(async move {
            let input: A::Input = read_input(input)?;
            Ok(match self.0.probe(ctx, &input).await? {
                Probe::Absent => Probe::Absent,
                Probe::Present { output, owner } => Probe::Present { output: write_output(&output)?, owner },
                Probe::InProgress { detail } => Probe::InProgress { detail },
                Probe::Failed { owner, detail } => Probe::Failed { owner, detail },
            })
        })
    }

    fn verify<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
        output: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<()>> {
        Box::pin(async move {
            let input: A::Input = read_input(input)?;
            let output: A::Output = read_input(output)?;
            self.0.verify(ctx, &input, &output).await
        })
    }

    fn compensate<'a>(
        &'a self,
        ctx: &'a ActivityContext,
        input: &'a Value,
        recorded: &'a Recorded,
    ) -> BoxFuture<'a, ActivityResult<Undo>> {
        Box::pin(async move {
            let input: A::Input = read_input(input)?;
            self.0.compensate(ctx, &input, recorded).await
        })
    }

    fn describe(&self, input: &Value) -> String {
        serde_json::from_value(input.clone()).map(|input| self.0.describe(&input)).unwrap_or_default()
    }

    fn settle(&self) -> Duration {
        self.0.settle()
    }

    fn poll_interval(&self) -> Duration {
        self.0.poll_interval()
    }

    fn check_input(&self, input: &Value) -> Result<(), String> {
        serde_json::from_value::<A::Input>(input.clone()).map(drop).map_err(|e| e.to_string())
    }
}

/// Why an activity cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The name is taken.
    #[error("activity {0} is registered twice")]
    Duplicate(ActivityName),
    /// A Create or Update must be able to find out what happened.
    #[error(
        "activity {0} creates or updates something but has no probe; implement `probe` and set `HAS_PROBE`"
    )]
    ProbeMissing(ActivityName),
    /// The name breaks a rule.
    #[error(transparent)]
    Name(#[from] crate::id::InvalidName),
}

/// Activities by name.
#[derive(Clone, Default)]
pub struct ActivityRegistry {
    by_name: BTreeMap<ActivityName, Arc<dyn ErasedActivity>>,
}

impl fmt::Debug for ActivityRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

impl ActivityRegistry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an activity under `name`.
    ///
    /// # Errors
    /// When the name is taken or not allowed, or a Create or Update has no probe.
    pub fn add<A: Activity>(&mut self, name: &str, activity: A) -> Result<(), RegistryError> {
        let name = ActivityName::new(name)?;
        if activity.effect().needs_probe() && !A::HAS_PROBE {
            return Err(RegistryError::ProbeMissing(name));
        }
        if self.by_name.contains_key(&name) {
            return Err(RegistryError::Duplicate(name));
        }
        self.by_name.insert(name, Arc::new(Erased(activity)));
        Ok(())
    }

    /// Adds a plain async function as an idempotent activity without a probe.
    ///
    /// # Errors
    /// When the name is taken or not allowed.
    pub fn add_fn<I, O, F, Fut>(&mut self, name: &str, function: F) -> Result<(), RegistryError>
    where
        I: Serialize + DeserializeOwned + Send + Sync + 'static,
        O: Serialize + DeserializeOwned + Send + Sync + 'static,
        F: Fn(ActivityContext, I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ActivityResult<O>> + Send + 'static,
    {
        self.add(name, FnActivity { function, marker: std::marker::PhantomData })
    }

    /// Looks an activity up.
    pub fn get(&self, name: &ActivityName) -> Option<&Arc<dyn ErasedActivity>> {
        self.by_name.get(name)
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &ActivityName> {
        self.by_name.keys()
    }
}

struct FnActivity<F, I, O> {
    function: F,
    marker: std::marker::PhantomData<fn(I) -> O>,
}

impl<I, O, F, Fut> Activity for FnActivity<F, I, O>
where
    I: Serialize + DeserializeOwned + Send + Sync + 'static,
    O: Serialize + DeserializeOwned + Send + Sync + 'static,
    F: Fn(ActivityContext, I) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ActivityResult<O>> + Send + 'static,
{
    type Input = I;
    type Output = O;

    async fn execute(&self, ctx: &ActivityContext, input: &I) -> ActivityResult<O> {
        // The function owns its input; a round trip through JSON is how it was stored anyway.
        let owned = read_input(&write_output(input)?)?;
        (self.function)(ctx.clone(), owned).await
    }
}

/// Things injected for activities, by type: clients, configuration.
#[derive(Clone, Default)]
pub struct Resources {
    by_type: BTreeMap<TypeId, Arc<dyn Any + Send + Sync>>,
}

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resources({})", self.by_type.len())
    }
}

impl Resources {
    /// Adds `value`, in place of an earlier one of the same type.
    pub fn insert<T: Send + Sync + 'static>(&mut self, value: T) {
        self.by_type.insert(TypeId::of::<T>(), Arc::new(value));
    }

    /// The value of this type.
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.by_type.get(&TypeId::of::<T>()).and_then(|v| Arc::clone(v).downcast().ok())
    }
}

/// Where a context writes what must be durable before it returns. Implemented by the runtime, and by test kits.
pub trait Recorder: Send + Sync {
    /// Resolves when the resource is durable.
    fn resource(&self, resource: Resource) -> BoxFuture<'_, ActivityResult<()>>;
    /// Resolves when the old values are durable. Keys that were recorded before keep their first value.
    fn before(&self, values: BTreeMap<String, Value>) -> BoxFuture<'_, ActivityResult<()>>;
    /// Notes progress; the runtime throttles how often it becomes durable.
    fn heartbeat(&self, details: Value);
}

/// What an attempt knows and may do. Cheap to clone.
#[derive(Clone)]
pub struct ActivityContext {
    pub(crate) inner: Arc<ContextInner>,
}

/// The parts of an [`ActivityContext`], for runtimes and test kits.
pub struct ContextInner {
    /// The store of the run.
    pub store: StoreId,
    /// The site of the run, or an empty string.
    pub site: String,
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepName,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The generation of the step, from 1.
    pub generation: u32,
    /// When the attempt is ended by its timeout.
    pub deadline: Option<Timestamp>,
    /// The details of the last heartbeat of any attempt of this generation.
    pub last_heartbeat: Option<Value>,
    /// Fires when the attempt should stop.
    pub cancel: CancellationToken,
    /// Where durable notes go.
    pub recorder: Arc<dyn Recorder>,
    /// Injected things.
    pub resources: Resources,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// In a compensation: steps of this run whose effects stay, by rule or because they could not be undone.
    pub kept: Vec<StepName>,
}

impl fmt::Debug for ActivityContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActivityContext({}/{}#{})", self.inner.run, self.inner.step, self.inner.attempt)
    }
}

impl ActivityContext {
    /// Builds a context from its parts.
    pub fn new(inner: ContextInner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// The run.
    pub fn run(&self) -> &RunId {
        &self.inner.run
    }

    /// The step.
    pub fn step(&self) -> &StepName {
        &self.inner.step
    }

    /// The attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.inner.attempt
    }

    /// The generation, from 1. It rises when what an earlier one made failed for good, was deleted, or its input
    /// changed.
    pub fn generation(&self) -> u32 {
        self.inner.generation
    }

    /// The idempotency token for the call `label` names: the same in every attempt of this generation.
    pub fn token(&self, label: &str) -> Token {
        Token::derive(&self.inner.store, &self.inner.run, &self.inner.step, self.inner.generation, label)
    }

    /// The ownership marks to put on what is created.
    pub fn marks(&self) -> Marks {
        Marks {
            store: self.inner.store.as_str().to_owned(),
            site: self.inner.site.clone(),
            run: self.inner.run.as_str().to_owned(),
            step: self.inner.step.as_str().to_owned(),
            generation: self.inner.generation,
        }
    }

    /// When the attempt is ended by its timeout.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.inner.deadline
    }

    /// The time now, by the engine's clock.
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// Waits, by the engine's clock. Ends early with [`ActivityError::cancelled`] when the attempt should stop.
    ///
    /// # Errors
    /// [`ActivityError::cancelled`].
    pub async fn sleep(&self, duration: Duration) -> ActivityResult<()> {
        let until = self.now() + duration;
        while self.now() < until {
            tokio::select! {
                biased;
                () = self.inner.cancel.cancelled() => return Err(ActivityError::cancelled()),
                () = self.inner.clock.sleep_until(until) => {}
            }
        }
        Ok(())
    }

    /// Resolves when the attempt should stop.
    pub async fn cancelled(&self) {
        self.inner.cancel.cancelled().await;
    }

    /// Whether the attempt should stop.
    pub fn is_cancelled(&self) -> bool {
        self.inner.cancel.is_cancelled()
    }

    /// Says that the attempt is alive, with details for people and for the next attempt (at most 4 KiB of JSON;
    /// larger details are replaced by a note).
    pub fn heartbeat(&self, details: impl Serialize) {
        let details = serde_json::to_value(details).unwrap_or(Value::Null);
        let details = if details.to_string().len() > MAX_HEARTBEAT_BYTES {
            Value::String("(details over 4 KiB left out)".to_owned())
        } else {
            details
        };
        self.inner.recorder.heartbeat(details);
    }

    /// The details of the last durable heartbeat of an earlier attempt of this generation.
    pub fn last_heartbeat<T: DeserializeOwned>(&self) -> Option<T> {
        self.inner.last_heartbeat.as_ref().and_then(|v| serde_json::from_value(v.clone()).ok())
    }

    /// Records something made in the outside world; durable when it returns. Call it the moment the id is known.
    ///
    /// # Errors
    /// When the record could not be made durable; stop then, the run is reloaded.
    pub async fn record_resource(
        &self,
        kind: impl Into<String>,
        id: impl Into<String>,
    ) -> ActivityResult<()> {
        let resource = Resource { kind: kind.into(), id: id.into(), generation: self.inner.generation };
        self.inner.recorder.resource(resource).await
    }

    /// Records the old values of keys about to be changed; durable when it returns. Never put a secret in it.
    ///
    /// # Errors
    /// When the record could not be made durable; stop then, the run is reloaded.
    pub async fn record_before(&self, values: BTreeMap<String, Value>) -> ActivityResult<()> {
        self.inner.recorder.before(values).await
    }

    /// In a compensation: steps of this run whose effects stay, by rule or because they could not be undone. A
    /// final sweep must expect to find them.
    pub fn kept(&self) -> &[StepName] {
        &self.inner.kept
    }

    /// An injected thing.
    ///
    /// # Errors
    /// A terminal error naming the type when it was not injected.
    pub fn resource<T: Send + Sync + 'static>(&self) -> ActivityResult<Arc<T>> {
        self.inner.resources.get::<T>().ok_or_else(|| {
            let name = std::any::type_name::<T>();
            ActivityError::terminal("ResourceMissing", format!("{name} was not given to the engine"))
                .no_effect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(store: &str, site: &str, run: &str) -> Marks {
        Marks { store: store.into(), site: site.into(), run: run.into(), step: "s".into(), generation: 1 }
    }

    #[test]
    fn ownership_needs_the_store_and_the_run() {
        let ours = marks("s1", "lab", "r1");
        assert_eq!(ours.owner_of(&marks("s1", "lab", "r1")), Owner::ThisRun);
        assert_eq!(ours.owner_of(&marks("s1", "lab", "r0")), Owner::ThisSite("r0".into()));
        assert_eq!(ours.owner_of(&marks("s1", "other", "r0")), Owner::Foreign);
        assert_eq!(ours.owner_of(&marks("s2", "lab", "r1")), Owner::Foreign);
        assert_eq!(ours.owner_by([("Name", "x")]), Owner::Foreign);
    }

    #[test]
    fn runs_without_a_site_share_nothing() {
        assert_eq!(marks("s1", "", "r1").owner_of(&marks("s1", "", "r0")), Owner::Foreign);
    }

    struct NoProbe;
    impl Activity for NoProbe {
        type Input = ();
        type Output = ();
        fn effect(&self) -> Effect {
            Effect::Create
        }
        async fn execute(&self, _: &ActivityContext, (): &()) -> ActivityResult<()> {
            Ok(())
        }
    }

    #[test]
    fn a_create_without_a_probe_is_refused() {
        let mut registry = ActivityRegistry::new();
        assert!(matches!(registry.add("x", NoProbe), Err(RegistryError::ProbeMissing(_))));
    }
}
