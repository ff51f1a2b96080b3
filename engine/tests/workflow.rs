//! Every feature of the workflow builder, run to its end on the memory store and paused time.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dssflow_engine::prelude::*;
use dssflow_engine::runtime::clock::TokioClock;
use dssflow_engine::time::Timestamp;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u32,
    address: String,
    amount: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Payment {
    order: u32,
    amount: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Parcel {
    to: String,
    paid: u64,
}

/// What happened in the world outside, in order.
#[derive(Clone, Default)]
struct World(Arc<Mutex<Vec<String>>>);

impl World {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn seen(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

fn order() -> Order {
    Order { id: 7, address: "Paris".to_owned(), amount: 30 }
}

fn builder() -> EngineBuilder {
    Engine::builder(Arc::new(MemoryStore::new(StoreId::generate([7; 16]))))
        .clock(Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_000_000))))
}

async fn charge(ctx: ActivityCtx, order: Order) -> ActivityResult<Payment> {
    ctx.resource::<World>()?.note(format!("charge {}", order.amount));
    Ok(Payment { order: order.id, amount: order.amount })
}

async fn refund(ctx: ActivityCtx, was: Undoing<Order, Payment>) -> ActivityResult<()> {
    let paid = was.output.map(|p| p.amount);
    ctx.resource::<World>()?.note(format!("refund {} of order {}", paid.unwrap_or_default(), was.input.id));
    Ok(())
}

async fn ship(ctx: ActivityCtx, (payment, address): (Payment, String)) -> ActivityResult<Parcel> {
    ctx.resource::<World>()?.note(format!("ship to {address}"));
    if address == "nowhere" {
        return Err(ActivityError::terminal("NoSuchPlace", "nobody lives there"));
    }
    Ok(Parcel { to: address, paid: payment.amount })
}

#[tokio::test(start_paused = true)]
async fn a_saga_gives_what_its_last_step_gives() {
    let saga = Workflow::<Order, Parcel>::build("order", |w| {
        let order = w.input();
        let paid = w
            .step("pay", charge, &order)
            .undo(refund)
            .retry(RetryPolicy::attempts(5))
            .timeout(Duration::from_secs(30))
            .lock("till");
        w.step("ship", ship, (&paid, order.map(|o| o.address)))
    })
    .unwrap();
    let world = World::default();
    let engine = builder().register(&saga).unwrap().resource(world.clone()).build();
    let parcel = engine.run(&saga, order()).await.unwrap();
    assert_eq!(parcel, Parcel { to: "Paris".to_owned(), paid: 30 });
    assert_eq!(world.seen(), ["charge 30", "ship to Paris"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_paid_is_given_back_when_the_rest_fails() {
    let saga = Workflow::<Order, Parcel>::build("order", |w| {
        let paid = w.step("pay", charge, w.input()).undo(refund);
        w.step("ship", ship, (&paid, value("nowhere"))).on_failure(OnTrouble::Rollback)
    })
    .unwrap();
    let world = World::default();
    let engine = builder().register(&saga).unwrap().resource(world.clone()).build();
    let error = engine.run(&saga, order()).await.unwrap_err();
    let EngineError::NotSucceeded { status, step, error, .. } = error else { panic!("{error}") };
    assert_eq!((status, step.unwrap().as_str()), (RunStatus::RolledBack, "ship"));
    assert_eq!(error.unwrap().code, "NoSuchPlace");
    assert_eq!(world.seen(), ["charge 30", "ship to nowhere", "refund 30 of order 7"]);
}

async fn double(_: ActivityCtx, n: u64) -> ActivityResult<u64> {
    Ok(n * 2)
}

async fn sum(_: ActivityCtx, numbers: Vec<u64>) -> ActivityResult<u64> {
    Ok(numbers.iter().sum())
}

async fn note(ctx: ActivityCtx, what: String) -> ActivityResult<String> {
    ctx.resource::<World>()?.note(what.clone());
    Ok(what)
}

async fn forget(ctx: ActivityCtx, was: Undoing<String, String>) -> ActivityResult<()> {
    ctx.resource::<World>()?.note(format!("no {}", was.input));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn functions_values_and_tuples_are_inputs() {
    type All = (u64, u64, String, bool, (), Vec<u64>, Option<u64>, u8);
    async fn all(_: ActivityCtx, all: All) -> ActivityResult<All> {
        Ok(all)
    }
    let workflow = Workflow::<u64, (All, u64)>::build("inputs", |w| {
        let input = w.input();
        let twice = w.step("twice", double, &input);
        let third = twice.map(|n| n + 1).map(|n| n * 10);
        let both = w.compute((&twice, &third), |(a, b): (u64, u64)| a + b);
        let left_out = w.step("left-out", double, value(1)).when(input.map(|n| n > 100));
        let text = input.map_as("text", |n| n.to_string());
        let all = w.step(
            "all",
            all,
            (&twice, third, text, value(true), (), value(vec![1, 2]), left_out.optional(), value(8)),
        );
        (all, both)
    })
    .unwrap();
    for name in
        ["inputs/twice#1", "inputs/twice#2", "inputs/compute#1", "inputs/input#1", "inputs/input#text"]
    {
        assert!(workflow.functions().contains(name), "{name}");
    }
    let names: Vec<_> = workflow.activities().names().map(ToString::to_string).collect();
    assert_eq!(names, ["inputs/all", "inputs/left-out", "inputs/twice"]);
    let engine = builder().register(&workflow).unwrap().build();
    let (all, both) = engine.run(&workflow, 3).await.unwrap();
    assert_eq!(all, (6, 70, "3".to_owned(), true, (), vec![1, 2], None, 8));
    assert_eq!(both, 76);
}

#[tokio::test(start_paused = true)]
async fn a_condition_may_be_a_step_and_after_orders_what_shares_nothing() {
    async fn is_even(_: ActivityCtx, n: u64) -> ActivityResult<bool> {
        Ok(n % 2 == 0)
    }
    let workflow = Workflow::<u64, Option<String>>::build("parity", |w| {
        let even = w.step("even", is_even, w.input());
        let last = w.step("last", note, value("last"));
        let first = w.step("first", note, value("first")).when(&even);
        last.after(&first);
        first.optional()
    })
    .unwrap();
    let world = World::default();
    let engine = builder().register(&workflow).unwrap().resource(world.clone()).build();
    assert_eq!(engine.run(&workflow, 2).await.unwrap().as_deref(), Some("first"));
    assert_eq!(world.seen(), ["first", "last"]);
    assert_eq!(engine.run(&workflow, 3).await.unwrap(), None);
    assert_eq!(world.seen(), ["first", "last", "last"]);
}

#[tokio::test(start_paused = true)]
async fn a_map_gives_a_list_and_its_children_are_taken_back() {
    async fn stop(_: ActivityCtx, _: Vec<String>) -> ActivityResult<()> {
        Err(ActivityError::terminal("Stop", "no further"))
    }
    let workflow = Workflow::<Vec<String>, ()>::build("each", |w| {
        let each = w.map("each", w.input(), note).max_concurrency(1).undo(forget);
        w.step("stop", stop, &each).on_failure(OnTrouble::Rollback)
    })
    .unwrap();
    let world = World::default();
    let engine = builder().register(&workflow).unwrap().resource(world.clone()).build();
    let run = engine.submit(&workflow, vec!["a".to_owned(), "b".to_owned()]).await.unwrap();
    let view = run.wait().await.unwrap();
    assert_eq!(view.status, RunStatus::RolledBack);
    let each = view.steps.iter().find(|s| s.step.as_str() == "each").unwrap();
    assert_eq!(each.output, Some(serde_json::json!(["a", "b"])));
    let mut seen = world.seen();
    assert_eq!(seen[..2], ["a", "b"]);
    seen[2..].sort();
    assert_eq!(seen[2..], ["no a", "no b"]);
}

/// Refuses odd numbers.
struct Half;

impl Activity for Half {
    type Input = u64;
    type Output = u64;
    async fn execute(&self, _: &ActivityContext, n: &u64) -> ActivityResult<u64> {
        if n % 2 == 0 { Ok(n / 2) } else { Err(ActivityError::terminal("Odd", "not even")) }
    }
}

#[tokio::test(start_paused = true)]
async fn a_map_goes_on_without_those_it_tolerates() {
    let workflow = Workflow::<Vec<u64>, Vec<Option<u64>>>::build("halves", |w| {
        w.map_activity("half", w.input(), Half).tolerate(1)
    })
    .unwrap();
    let engine = builder().register(&workflow).unwrap().build();
    assert_eq!(engine.run(&workflow, vec![2, 3, 8]).await.unwrap(), [Some(1), None, Some(4)]);
    let error = engine.run(&workflow, vec![2, 3, 5]).await.unwrap_err();
    assert!(error.to_string().contains("Odd"), "{error}");
}

/// Something with an undo of its own.
struct Lamp;

impl Activity for Lamp {
    type Input = String;
    type Output = String;
    async fn execute(&self, ctx: &ActivityContext, name: &String) -> ActivityResult<String> {
        ctx.resource::<World>()?.note(format!("{name} on"));
        Ok(format!("{name} is on"))
    }
    async fn compensate(&self, ctx: &ActivityContext, name: &String, _: &Recorded) -> ActivityResult<Undo> {
        ctx.resource::<World>()?.note(format!("{name} off"));
        Ok(Undo::Undone)
    }
}

#[tokio::test(start_paused = true)]
async fn an_activity_brings_its_own_undo_and_protected_steps_stay() {
    let workflow = Workflow::<(), ()>::build("lamps", |w| {
        let one = w.activity("one", Lamp, value("one"));
        let two = w.activity("two", Lamp, value("two")).after(&one).protect();
        let refused = w.activity("refused", Half, value(3)).after(&two);
        refused.on_failure(OnTrouble::Rollback);
    })
    .unwrap();
    let world = World::default();
    let engine = builder().register(&workflow).unwrap().resource(world.clone()).build();
    let view = engine.submit(&workflow, ()).await.unwrap().wait().await.unwrap();
    assert_eq!(view.status, RunStatus::RolledBack);
    assert_eq!(world.seen(), ["one on", "two on", "one off"]);
}

#[tokio::test(start_paused = true)]
async fn sub_workflows_are_registered_with_what_runs_them() {
    let inner =
        || Workflow::<u64, u64>::build("inner", |w| w.step("double", double, w.input()).undo(undouble));
    async fn undouble(ctx: ActivityCtx, was: Undoing<u64, u64>) -> ActivityResult<()> {
        ctx.resource::<World>()?.note(format!("halve {}", was.output.unwrap_or_default()));
        Ok(())
    }
    let middle = Workflow::<u64, u64>::build("middle", |w| {
        let once = w.sub("once", &inner().unwrap(), w.input());
        w.sub("twice", &inner().unwrap(), &once).on_parent_close(OnParentClose::Terminate)
    })
    .unwrap();
    let outer = Workflow::<u64, u64>::build("outer", |w| {
        let four = w.sub("four", &middle, w.input());
        w.activity("half", Half, &four.map(|n| n + 1).map(|n| if n > 9 { n } else { n - 1 }))
            .after(&four)
            .on_failure(OnTrouble::Rollback)
    })
    .unwrap();
    let world = World::default();
    // The same ones again, and by another way.
    let engine = builder().register(&outer).unwrap().register(&inner().unwrap()).unwrap();
    let engine = engine.register(&outer).unwrap().resource(world.clone()).build();
    assert_eq!(engine.run(&outer, 2).await.unwrap(), 4);
    assert_eq!(engine.run(&inner().unwrap(), 4).await.unwrap(), 8);
    assert_eq!(world.seen(), Vec::<String>::new());
    // 12 and one more cannot be halved: all that was done below is taken back.
    let view = engine.submit(&outer, 3).await.unwrap().wait().await.unwrap();
    assert_eq!(view.status, RunStatus::RolledBack);
    assert_eq!(world.seen(), ["halve 12", "halve 6"]);
}

fn by_ada() -> Request {
    Request { by: "ada".to_owned(), reason: "looks right".to_owned() }
}

/// Lets everything run that can, without moving time.
async fn until_waiting<T>(run: &RunHandle<T>, step: &str) {
    for _ in 0..1000 {
        let view = run.status().await.unwrap();
        if view.steps.iter().any(|s| s.step.as_str() == step && s.status == StepStatus::Waiting) {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{step} does not wait");
}

fn verb(step: &str, make: fn(StepName) -> Verb) -> Verb {
    make(StepName::new(step).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_gate_tells_who_let_it_through() {
    let workflow =
        Workflow::<(), Approval>::build("ask", |w| w.gate("approve", "Really?").continue_on_reject())
            .unwrap();
    let engine = builder().register(&workflow).unwrap().build();
    for (approved, make) in
        [(true, (|step| Verb::Approve { step }) as fn(_) -> _), (false, |step| Verb::Reject { step })]
    {
        let run = engine.submit(&workflow, ()).await.unwrap();
        until_waiting(&run, "approve").await;
        engine.act(run.id(), verb("approve", make), by_ada()).await.unwrap();
        let answer = run.result().await.unwrap();
        assert_eq!(answer, Approval { approved, by: "ada".to_owned(), reason: "looks right".to_owned() });
    }
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_nobody_answers_takes_its_default_or_fails() {
    let build = |default: Option<bool>| {
        Workflow::<(), bool>::build("ask", move |w| {
            let gate = w.gate("approve", "Really?").within(Duration::from_secs(60)).continue_on_reject();
            if let Some(approved) = default {
                gate.clone().default_to(approved);
            }
            gate.map(|a| a.approved)
        })
        .unwrap()
    };
    for default in [Some(true), Some(false), None] {
        let workflow = build(default);
        let engine = builder().register(&workflow).unwrap().build();
        match (engine.run(&workflow, ()).await, default) {
            (Ok(approved), Some(default)) => assert_eq!(approved, default),
            (Err(error), None) => assert!(error.to_string().contains("GateTimeout"), "{error}"),
            (other, _) => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_gate_before_a_step_waits_for_what_the_step_waits_for() {
    let workflow = Workflow::<bool, Option<String>>::build("careful", |w| {
        let before = w.step("before", note, value("before"));
        let input = w.step("input", note, value("input"));
        let step = w.step("act", note, &input).gate("Ship it?").when(w.input()).after(&before);
        step.optional()
    })
    .unwrap();
    let world = World::default();
    let engine = builder().register(&workflow).unwrap().resource(world.clone()).build();
    let run = engine.submit(&workflow, true).await.unwrap();
    until_waiting(&run, "act.gate").await;
    assert_eq!(world.seen().len(), 2, "asked before what comes first was done");
    engine.act(run.id(), verb("act.gate", |step| Verb::Approve { step }), by_ada()).await.unwrap();
    assert_eq!(run.result().await.unwrap().as_deref(), Some("input"));
    assert_eq!(world.seen().len(), 3);
    // A step that is left out asks nobody.
    assert_eq!(engine.run(&workflow, false).await.unwrap(), None);
    let run = engine.submit(&workflow, true).await.unwrap();
    until_waiting(&run, "act.gate").await;
    engine.act(run.id(), verb("act.gate", |step| Verb::Reject { step }), by_ada()).await.unwrap();
    let EngineError::NotSucceeded { step, .. } = run.result().await.unwrap_err() else { panic!() };
    assert_eq!(step.unwrap().as_str(), "act.gate");
}

#[tokio::test(start_paused = true)]
async fn sleeps_and_signals_wait() {
    let workflow = Workflow::<u64, (u32, u32)>::build("wait", |w| {
        let nap = w.sleep("nap", Duration::from_secs(100));
        let rest = w.sleep_ms("rest", w.input()).after(&nap);
        let heard = w.signal::<u32>("heard", "number").after(&rest);
        let silence =
            w.signal::<u32>("silence", "never").after(&rest).within(Duration::from_secs(50)).default_to(9);
        (heard, silence)
    })
    .unwrap();
    let engine = builder().register(&workflow).unwrap().build();
    let begun = tokio::time::Instant::now();
    let run = engine.submit(&workflow, 200_000).await.unwrap();
    run.signal("number", 5, by_ada()).await.unwrap();
    assert_eq!(run.result().await.unwrap(), (5, 9));
    let took = begun.elapsed();
    assert!((350..352).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn locks_limits_and_words_reach_the_graph() {
    let flaky = |w: &WorkflowBuilder<String>| {
        let times = Arc::new(Mutex::new(0));
        let call = move |_: ActivityCtx, name: String| {
            let mut times = times.lock().unwrap();
            *times += 1;
            let answer = if *times < 3 { Err(ActivityError::retryable("Busy", "again")) } else { Ok(name) };
            async move { answer }
        };
        w.step("flaky", call, w.input())
            .retry(RetryPolicy::attempts(3))
            .undo_retry(RetryPolicy::attempts(7))
            .timeouts(Timeouts::default().in_all(Duration::from_mins(5)))
            .timeout(Duration::from_secs(30))
            .lock("till")
            .shared_lock("shop")
            .permit("hands")
            .keyed_lock("account", w.input())
            .rate("calls")
            .title("Calls")
            .group("Calling")
            .expected(Duration::from_secs(2))
            .on_exhausted(OnTrouble::Pause)
            .on_failure(OnTrouble::Fail)
            .adopt()
    };
    let workflow = Workflow::<String, String>::build("limits", flaky).unwrap();
    let step = workflow.graph().step(0).clone();
    let held: Vec<_> = step.locks.iter().map(|l| (l.name.as_str(), l.key.is_some())).collect();
    assert_eq!(held, [("till", false), ("shop", false), ("hands", false), ("account", true)]);
    assert_eq!(step.rates[0].as_str(), "calls");
    assert_eq!(
        (step.timeouts.start_to_close_ms, step.timeouts.schedule_to_close_ms, step.expected_ms),
        (Some(30_000), Some(300_000), Some(2_000))
    );
    assert_eq!((step.title.as_str(), step.group.as_str(), step.adopt), ("Calls", "Calling", true));
    assert_eq!((step.on_exhausted, step.on_failure), (Some(OnTrouble::Pause), Some(OnTrouble::Fail)));
    assert_eq!(step.undo_policy().maximum_attempts, 7);
    let engine = builder().register(&workflow).unwrap().build();
    assert_eq!(engine.run(&workflow, "eu".to_owned()).await.unwrap(), "eu");
}

#[tokio::test(start_paused = true)]
async fn the_workflow_says_how_its_runs_behave_and_a_start_says_more() {
    let options = RunOptions { priority: 5, ..RunOptions::default() };
    let workflow = Workflow::<u64, u64>::build("double", |w| w.step("double", double, w.input()))
        .unwrap()
        .version(4)
        .options(options.clone());
    let engine = builder().register(&workflow).unwrap().build();
    let run = engine
        .submit_with(&workflow, 4, |start| {
            start.id = Some(RunId::new("mine").unwrap());
            start.labels.insert("team".to_owned(), "blue".to_owned());
            start.request = by_ada();
        })
        .await
        .unwrap();
    assert_eq!((run.id().as_str(), run.result().await.unwrap()), ("mine", 8));
    let state = engine.load(run.id()).await.unwrap();
    assert_eq!((state.workflow_version, &state.options, state.request.by.as_str()), (4, &options, "ada"));
    assert_eq!(state.labels["team"], "blue");
}

#[tokio::test(start_paused = true)]
async fn an_engine_starts_only_what_it_knows() {
    let build = || Workflow::<u64, u64>::build("double", |w| w.step("double", double, w.input())).unwrap();
    let engine = builder().build();
    let error = engine.run(&build(), 1).await.unwrap_err();
    assert!(matches!(&error, EngineError::MissingWorkflow { workflow } if workflow == "double"), "{error}");
    let engine = builder().register(&build()).unwrap().build();
    assert!(matches!(engine.run(&build().version(2), 1).await, Err(EngineError::MissingWorkflow { .. })));
    assert_eq!(engine.run(&build(), 1).await.unwrap(), 2);
    let error = engine.start_of("double", serde_json::json!("two")).unwrap_err();
    assert!(matches!(error, EngineError::BadInput { .. }), "{error}");
}

#[test]
fn another_workflow_or_activity_of_the_same_name_is_refused() {
    let first = Workflow::<u64, u64>::build("math", |w| w.step("go", double, w.input())).unwrap();
    let other = Workflow::<u64, u64>::build("math", |w| w.activity("go", Half, w.input())).unwrap();
    let taken = builder().register(&first).unwrap().register(&other).unwrap_err();
    assert!(matches!(taken, WorkflowError::Taken { workflow } if workflow.as_str() == "math"));
    let clash = Workflow::<u64, u64>::build("math/go", |w| w.step("on", double, w.input())).unwrap();
    let deep = Workflow::<u64, u64>::build("math", |w| w.step("go/on", double, w.input())).unwrap();
    let error = builder().register(&clash).unwrap().register(&deep).unwrap_err();
    assert!(matches!(error, WorkflowError::Code { .. }), "{error}");
}

/// The mistake that building `steps` tells.
fn mistake<R: workflow::Returns<u64>>(steps: impl FnOnce(&WorkflowBuilder<u64>) -> R) -> WorkflowError {
    Workflow::<u64, u64>::build("wrong", steps).unwrap_err()
}

#[test]
fn the_first_mistake_is_told_at_the_end() {
    let error = mistake(|w| {
        w.step("Upper", double, w.input());
        w.step("two", double, w.input());
        w.step("two", double, w.input()).lock("Lock")
    });
    let shown = "in workflow wrong: step name \"Upper\" is not allowed: it must start with a lower-case letter or a digit";
    assert_eq!(error.to_string(), shown);

    let error = mistake(|w| {
        w.step("two", double, w.input()).undo(|_: ActivityCtx, _: Undoing<u64, u64>| async { Ok(()) });
        w.step("two", double, w.input()).rate("Rate")
    });
    assert_eq!(error.to_string(), "workflow wrong has two steps named two");

    let error = mistake(|w| w.step("one", double, w.input()).lock("not a lock"));
    assert!(error.to_string().contains("lock name \"not a lock\""), "{error}");

    let error = mistake(|w| {
        let text = w.input().map_as("text", |n| n);
        w.step("one", double, (w.input().map_as("text", |n| n + 1)).clone())
            .after(&w.step("two", double, text))
    });
    assert_eq!(error.to_string(), "workflow wrong has two functions named wrong/input#text");

    let keys = std::collections::BTreeMap::from([((1, 2), 3)]);
    let error = mistake(|w| {
        let read = |_: ActivityCtx, (): ()| async { Ok(1) };
        w.step("one", read, ()).keyed_lock("account", value(keys))
    });
    assert!(matches!(error, WorkflowError::BadValue { .. }), "{error}");

    assert_eq!(mistake(|_| value(1)).to_string(), "workflow wrong: the graph has no steps");
    let error = mistake(|w| w.step("one", double, w.input()).when(value(false)));
    assert!(error.to_string().contains("always false"), "{error}");
    let error = Workflow::<(), ()>::build("Bad Name", |_| ()).unwrap_err();
    assert!(error.to_string().starts_with("in workflow Bad Name: workflow name"), "{error}");
    let error = mistake(|w| {
        let long = "x".repeat(118);
        w.step(long, double, w.input())
    });
    assert!(error.to_string().contains("activity name"), "{error}");
}

#[test]
fn a_handle_of_another_workflow_is_refused() {
    let mut kept = None;
    Workflow::<u64, u64>::build("first", |w| {
        let step = w.step("one", double, w.input());
        kept = Some((step.clone(), w.input(), step.map(|n| n + 1)));
        step
    })
    .unwrap();
    let (step, input, made) = kept.unwrap();
    let handles = "handles go only into the workflow whose builder made them";
    let error = mistake(|w| w.step("two", double, &step));
    assert_eq!(error.to_string(), format!("workflow wrong uses step one of workflow first; {handles}"));
    let error = mistake(|w| w.step("two", double, &input));
    assert_eq!(error.to_string(), format!("workflow wrong uses the input of workflow first; {handles}"));
    let error = mistake(|w| w.step("two", double, w.input()).when(made.map(|n| n > 1)));
    assert_eq!(
        error.to_string(),
        format!("workflow wrong uses what comes from one of workflow first; {handles}")
    );
    let error = mistake(|w| w.step("two", double, w.input()).after(&step));
    assert!(matches!(error, WorkflowError::Foreign { .. }));
    // Nor does it change what was built.
    step.retry(RetryPolicy::attempts(1)).gate("Too late?").after(&step_of_none());
}

/// A step of a workflow that failed to build.
fn step_of_none() -> Step<u64> {
    let mut kept = None;
    let failed = Workflow::<u64, u64>::build("none", |w| {
        let step = w.step("Bad", double, w.input());
        kept = Some(step.any());
        step
    });
    assert!(failed.is_err());
    kept.unwrap()
}

#[test]
fn workflows_go_between_threads() {
    fn check<T: Clone + Send + Sync>() {}
    check::<Workflow<std::cell::Cell<u8>, Order>>();
    check::<Step<u64>>();
}

#[tokio::test(start_paused = true)]
async fn a_list_of_steps_is_built_in_a_loop() {
    let workflow = Workflow::<u64, u64>::build("chain", |w| {
        let mut last = w.step("link-0", double, w.input());
        for n in 1..5 {
            last = w.step(format!("link-{n}"), double, &last);
        }
        let items = w.compute((&last, w.input()), |(a, b): (u64, u64)| vec![a, b]);
        w.step("sum", sum, items)
    })
    .unwrap();
    let engine = builder().register(&workflow).unwrap().build();
    assert_eq!(engine.run(&workflow, 1).await.unwrap(), 33);
}
