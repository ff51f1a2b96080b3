//! What a step does when nobody disturbs it: the worlds before and after it, and the moments at which a process that
//! does it can die.

use std::collections::{BTreeMap, BTreeSet};

use dssflow_engine::event::EventKind;
use dssflow_engine::graph::{Binding, Graph, Step};
use dssflow_engine::id::{ActivityName, StepName};
use dssflow_engine::run::RunStatus;
use dssflow_sandbox::{Action, Fault, Only, Target, faults};
use serde_json::Value;

use crate::life::{Cut, Disk, Does, End};
use crate::oracle;
use crate::world::{GIVEN, Tamper, World};

/// The run that all of one bootstrap belongs to.
pub(crate) const RUN: &str = "bootstrap-sandbox";

/// How many calls that change something went where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) aws: u32,
    pub(crate) dss: u32,
    pub(crate) host: u32,
}

impl Counts {
    pub(crate) fn each(self) -> [(Target, u32); 3] {
        [(Target::Aws, self.aws), (Target::Dss, self.dss), (Target::Host, self.host)]
    }
}

/// What is known of a step.
#[derive(Debug)]
pub(crate) struct Learned {
    pub(crate) before: Value,
    pub(crate) after: Value,
    /// How often it makes what.
    pub(crate) made: BTreeMap<String, usize>,
    pub(crate) forward: Counts,
    pub(crate) backward: Counts,
    /// Resources and old values it records.
    pub(crate) recorded: u32,
    /// Whether there is an attempt to take it back.
    pub(crate) undone: bool,
}

/// Lets call number `at` of those that change something hang, before or after it is carried out. Only those of our own
/// count, by the access key and by who runs a command: DSS's `eksctl` is another process, which did not die.
pub(crate) fn hang(sandbox: &dssflow_sandbox::World, target: Target, at: u32, after: bool) -> Fault {
    let fault = Fault::new(target, "*", Action::Hang).skip(at).times(1);
    let fault = if after { fault.after() } else { fault };
    match target {
        Target::Aws => fault.only(Only::Changes).by(&sandbox.access_key_id),
        Target::Dss => fault.only(Only::Changes),
        Target::Host => fault.by(faults::BY_DSSFLOW),
    }
}

/// The graph of one step alone: what it takes of other steps is given, and one more step follows it.
pub(crate) fn alone(step: &Step, outputs: &BTreeMap<StepName, Value>) -> Graph {
    let mut graph = Graph::builder();
    let given = |name: &StepName, value: &Value| {
        let activity = ActivityName::new(GIVEN).expect("a good name");
        Step::activity(name.clone(), activity, Binding::literal(value))
    };
    for name in references(step) {
        graph.push(given(&name, outputs.get(&name).expect("steps come after what they take")));
    }
    let mut step = step.clone();
    step.after.clear();
    let mut end = given(&StepName::new("matrix-end").expect("a good name"), &Value::Null);
    end.after.push(step.name.clone());
    graph.push(step);
    graph.push(end);
    graph.build().expect("a step of a graph that holds together")
}

/// Steps whose outputs a step takes.
pub(crate) fn references(step: &Step) -> BTreeSet<StepName> {
    fn walk(value: &Value, found: &mut BTreeSet<StepName>) {
        match value {
            Value::Object(fields) => {
                if fields.get("from").and_then(Value::as_str) == Some("output")
                    && let Some(name) = fields.get("step").and_then(Value::as_str)
                {
                    found.insert(StepName::new(name).expect("a name of the graph"));
                }
                fields.values().for_each(|value| walk(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    walk(&serde_json::to_value(step).expect("steps are plain data"), &mut found);
    found
}

/// Does the step once there and back, undisturbed.
///
/// # Errors
/// When it does not succeed, or taking it back leaves something.
pub(crate) async fn learn(
    world: &World,
    step: &Step,
    graph: &Graph,
    before: Value,
) -> Result<Learned, Vec<String>> {
    let disk = Disk::new(world, &step.name, RUN, 0);
    let counters: Vec<Fault> = [Target::Aws, Target::Dss, Target::Host]
        .into_iter()
        .map(|target| Fault {
            action: Action::Delay { ms: 0 },
            times: None,
            ..hang(&world.sandbox, target, u32::MAX, false)
        })
        .collect();
    let counts = async || {
        let report = world.fault_report().await;
        Counts { aws: report[0].matched, dss: report[1].matched, host: report[2].matched }
    };
    let seq = world.calls_so_far().await;
    world.faults(&counters).await;
    stood(
        disk.live(world, Does::Start(graph.clone()), Cut::Never, &Tamper::default()).await,
        RunStatus::Succeeded,
    )
    .map_err(|why| vec![why])?;
    let forward = counts().await;
    let after = world.snapshot().await;
    let made = oracle::made(&world.sandbox.access_key_id, &world.calls_since(seq).await);
    world.faults(&counters).await;
    stood(disk.live(world, Does::Rollback, Cut::Never, &Tamper::default()).await, RunStatus::RolledBack)
        .map_err(|why| vec![why])?;
    let backward = counts().await;
    world.faults(&[]).await;
    let left = oracle::left_behind(&before, &world.snapshot().await);
    if !left.is_empty() {
        return Err(left);
    }
    let undone = disk.undid().await;
    let records = |kind: &EventKind| match kind {
        EventKind::ResourceRecorded { step: of, .. } | EventKind::BeforeRecorded { step: of, .. } => {
            *of == step.name
        }
        _ => false,
    };
    let recorded = disk.history().await.iter().filter(|kind| records(kind)).count();
    let recorded = u32::try_from(recorded).expect("a step records little");
    Ok(Learned { before, after, made, forward, backward, recorded, undone })
}

/// Whether a life ended as it should.
///
/// # Errors
/// How it ended instead.
pub(crate) fn stood(end: End, expected: RunStatus) -> Result<(), String> {
    match end {
        End::Stood(view) if view.status == expected => Ok(()),
        End::Stood(view) => {
            let error = view
                .steps
                .iter()
                .find_map(|step| step.error.as_ref().map(|error| format!("; step {}: {error}", step.step)));
            Err(format!("it is {}, not {expected}{}", view.status, error.unwrap_or_default()))
        }
        End::Died => Err("the process died where none should".to_owned()),
        End::Refused(why) => Err(format!("the engine refused: {why}")),
        End::Stuck => Err("the run neither ends nor stands still".to_owned()),
    }
}
