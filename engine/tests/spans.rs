//! Spans of runs, steps and attempts. A test alone in its process: which spans are wanted is decided once for all threads.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use dssflow_engine::id::{ActivityName, RunId, StepName, StoreId, WorkflowName};
use dssflow_engine::run::RunStatus;
use dssflow_engine::runtime::clock::TokioClock;
use dssflow_engine::store::memory::MemoryStore;
use dssflow_engine::time::Timestamp;
use dssflow_engine::{
    ActivityContext, ActivityError, ActivityRegistry, Binding, Engine, Graph, StartRun, Step,
};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// The path of names to a span, and its fields.
type Opened = (String, BTreeMap<String, String>);

/// Every span that was opened.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Opened>>>);

struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields(BTreeMap::new());
        attributes.record(&mut fields);
        let scope = context.span_scope(id).unwrap().from_root();
        let path: Vec<_> = scope.map(|span| span.name()).collect();
        self.0.lock().unwrap().push((path.join("/"), fields.0));
    }
}

#[tokio::test(start_paused = true)]
async fn spans_tell_run_step_and_attempt() {
    let spans = Spans::default();
    let _current = tracing::subscriber::set_default(tracing_subscriber::registry().with(spans.clone()));
    let mut activities = ActivityRegistry::new();
    let call = |ctx: ActivityContext, (): ()| async move {
        if ctx.attempt() == 1 { Err(ActivityError::retryable("Busy", "once")) } else { Ok(()) }
    };
    activities.add_fn("do", call).unwrap();
    let engine = Engine::builder(Arc::new(MemoryStore::new(StoreId::generate([7; 16]))))
        .clock(Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_000_000))))
        .activities(activities)
        .build();
    let (step, activity) = (StepName::new("a").unwrap(), ActivityName::new("do").unwrap());
    let step = Step::activity(step, activity, Binding::literal(()));
    let graph = Graph::builder().step(step).build().unwrap();
    let start = StartRun::new(WorkflowName::new("test").unwrap(), graph).id(RunId::new("r").unwrap());
    let handle = engine.start(start).await.unwrap();
    assert_eq!(handle.wait().await.unwrap().status, RunStatus::Succeeded);
    let seen = spans.0.lock().unwrap().clone();
    let of = |path: &str| -> Vec<&BTreeMap<String, String>> {
        seen.iter().filter(|(p, _)| p == path).map(|(_, fields)| fields).collect()
    };
    assert_eq!((of("run")[0]["run"].as_str(), of("run")[0]["workflow"].as_str()), ("r", "test"));
    assert_eq!((of("run/step")[0]["run"].as_str(), of("run/step")[0]["step"].as_str()), ("r", "a"));
    let attempts: Vec<_> = of("run/step/attempt").iter().map(|f| (&*f["step"], &*f["attempt"])).collect();
    assert_eq!(attempts, [("a", "1"), ("a", "2")]);
}
