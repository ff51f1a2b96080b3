//! The JSON Schemas of what commands print with `-o json`, as a file of the docs that is also what it is compared with: a
//! change of any shape is seen.

use std::collections::BTreeMap;

use dssflow_activities::aws::sweep::Leftover;
use dssflow_engine::Graph;
use dssflow_engine::event::Event;
use dssflow_engine::run::view::RunView;
use dssflow_engine::runtime::schedules::Backfilled;
use dssflow_engine::schedule::ScheduleView;
use dssflow_engine::store::RunSummary;
use dssflow_engine::timeline::Timeline;
use dssflow_sandbox::FaultCount;
use dssflow_sandbox::lake::{GlueChange, SampleDataset};
use dssflow_store::StoreInfo;
use dssflow_workflows::glue_resync;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::is_written;
use crate::args::command;
use crate::catalog::Entry;
use crate::commands::compact::Compacted;
use crate::commands::config::{FilePlace, Shown};
use crate::commands::drift::Drift;
use crate::commands::preflight::Checked;
use crate::commands::resources::{Made, Verified};
use crate::commands::rollback_plan::RollbackPlan;
use crate::commands::sandbox::SandboxShown;
use crate::commands::store::StoreVerified;
use crate::commands::teardown_plan::TeardownPlan;
use crate::commands::version::Version;
use crate::config::File;
use crate::control::PruneDone;
use crate::logging::Record;
use crate::plans::SavedPlan;
use crate::why::Diagnosis;

/// An error, as `--error-format json` prints it on stderr.
#[derive(Serialize, JsonSchema)]
struct ErrorLine {
    error: ErrorBody,
}

/// What went wrong.
#[derive(Serialize, JsonSchema)]
struct ErrorBody {
    /// As `DF0004`; `dssflow explain CODE` says more.
    code: String,
    /// Whose business it is: user, config, store, run, internal.
    kind: String,
    /// What the command ends with.
    exit: u8,
    /// What happened.
    message: String,
    /// Why, outermost first.
    why: Vec<String>,
    /// What to do; one of them has a command to type.
    hints: Vec<String>,
}

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| s.meta_schema = None);
    let mut all = settings.for_serialize().into_generator();
    let generator = &mut all;
    let view = of::<RunView>(generator);
    let schedule = of::<ScheduleView>(generator);
    let graph = of::<Graph>(generator);
    let list = [
        ("run", view.clone()),
        ("resume", view.clone()),
        ("retry", view.clone()),
        ("rerun", view.clone()),
        ("fork", view.clone()),
        ("unpause", view.clone()),
        ("resources adopt", view.clone()),
        ("rollback", view.clone()),
        ("rollback --dry-run", of::<RollbackPlan>(generator)),
        ("runs get", view),
        ("plan", of::<SavedPlan>(generator)),
        ("plan glue-resync", of::<glue_resync::Report>(generator)),
        ("plan teardown", of::<TeardownPlan>(generator)),
        ("preflight", of::<Checked<'_>>(generator)),
        ("resources orphans", of::<Vec<Leftover>>(generator)),
        ("store verify", of::<StoreVerified>(generator)),
        ("runs ls", of::<Vec<RunSummary>>(generator)),
        ("runs events", of::<Vec<Event>>(generator)),
        ("runs logs", of::<Vec<Record>>(generator)),
        ("runs timeline", of::<Timeline>(generator)),
        ("why", of::<Diagnosis>(generator)),
        ("drift", of::<Drift>(generator)),
        ("resources ls", of::<Vec<Made>>(generator)),
        ("resources verify", of::<Vec<Verified>>(generator)),
        ("runs graph", graph.clone()),
        ("runs prune", of::<PruneDone>(generator)),
        ("schedules ls", of::<Vec<ScheduleView>>(generator)),
        ("schedules get", schedule.clone()),
        ("schedules create", schedule.clone()),
        ("schedules update", schedule),
        ("schedules backfill", of::<Backfilled>(generator)),
        ("schedules next", of::<Vec<String>>(generator)),
        ("store info", of::<StoreInfo>(generator)),
        ("store compact", of::<Compacted>(generator)),
        ("sandbox status", of::<SandboxShown>(generator)),
        ("sandbox datasets", of::<Vec<SampleDataset>>(generator)),
        ("sandbox spoil", of::<Vec<GlueChange>>(generator)),
        ("sandbox faults show", of::<Vec<FaultCount>>(generator)),
        ("config show", of::<BTreeMap<String, Shown>>(generator)),
        ("config path", of::<Vec<FilePlace>>(generator)),
        ("workflows ls", of::<Vec<Entry>>(generator)),
        ("workflows get", of::<Entry>(generator)),
        ("workflows graph", graph),
        ("version", of::<Version>(generator)),
    ];
    let mut commands: Map<String, Value> =
        list.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
    commands.insert("error".to_owned(), of::<ErrorLine>(generator));
    commands.insert("dssflow.toml".to_owned(), of::<File>(generator));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What dssflow prints as JSON",
        "description": "Below `commands`: what each prints with -o json; `error` is what stderr gets with --error-format \
                        json. With jsonl a list is printed one item a line. Members may be added; none goes away or changes \
                        its meaning within a version.",
        "commands": commands,
        "$defs": all.take_definitions(true),
    })
}

#[test]
fn the_shapes_of_json_are_those_of_the_docs() {
    let now = serde_json::to_string_pretty(&document()).unwrap() + "\n";
    is_written("output.schema.json", &now);
}

/// Adds the commands below `command` that print JSON, each as it is typed.
fn printing_json(command: &clap::Command, path: &str, found: &mut Vec<String>) {
    let is_json = |value: &clap::builder::PossibleValue| value.get_name() == "json";
    let prints = |arg: &&clap::Arg| arg.get_id() == "output" && arg.get_possible_values().iter().any(is_json);
    if command.get_arguments().any(|arg| prints(&arg)) {
        found.push(path.to_owned());
    }
    for below in command.get_subcommands() {
        let path = format!("{path} {}", below.get_name());
        printing_json(below, path.trim_start(), found);
    }
}

#[test]
fn every_command_that_prints_json_has_its_shape_there() {
    let mut commands = Vec::new();
    printing_json(&command(), "", &mut commands);
    assert!(commands.len() > 30, "{commands:?}");
    let document = document();
    let without: Vec<_> =
        commands.iter().filter(|path| document["commands"].get(path.as_str()).is_none()).collect();
    assert!(without.is_empty(), "no shape is said of {without:?}");
}
