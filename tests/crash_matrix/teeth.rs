//! Bugs on purpose: each turns the matrix red, or the matrix sees nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dssflow_activities::clients::AwsClients;
use dssflow_engine::activity::{ActivityError, ActivityResult, Owner, Probe, Recorded, Undo};
use dssflow_engine::time::BoxFuture;
use dssflow_sandbox::Hands;
use serde_json::{Value, json};

use crate::around::{self, Around, Asked};
use crate::cell::{Cell, Ending, Outcome, Place, Point, attempt};
use crate::learn::{RUN, learn};
use crate::life::{Cut, Disk, Does, Moment};
use crate::oracle;
use crate::repeat::{Case, Finds, Trial, Way};
use crate::settings::Mode;
use crate::walk::{At, Share, Visit, walk};
use crate::world::{Tamper, World};

/// The step that is given bugs: it makes one thing, whose name is unique and which carries marks.
const STEP: &str = "glue-database-dss_main";

/// What somebody got wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    /// Nobody looks before a repetition.
    Blind,
    /// The thing of that name is deleted, whosoever it is.
    DeletesByName,
    /// Everything that is found counts as ours.
    AllIsOurs,
    /// The undo says that it is done and does nothing.
    IdleUndo,
    /// Made again for every attempt under a name of its own, as by a token that is drawn anew.
    FreshNameEachTime,
}

struct Buggy {
    bug: Bug,
    clients: AwsClients,
    attempts: AtomicU32,
}

fn with(bug: Bug, world: &World) -> Tamper {
    let buggy = Buggy { bug, clients: world.clients.clone(), attempts: AtomicU32::new(0) };
    Tamper::code(around::wrap(Arc::new(buggy)))
}

fn name_of(input: &Value) -> String {
    input["name"].as_str().expect("the input of a Glue database").to_owned()
}

impl Around for Buggy {
    fn execute<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, ActivityResult<Value>> {
        if self.bug != Bug::FreshNameEachTime {
            return asked.execute();
        }
        Box::pin(async move {
            let mut renamed = asked.input.clone();
            let attempt = self.attempts.fetch_add(1, Ordering::Relaxed) + asked.ctx.attempt();
            renamed["name"] = Value::String(format!("{}_{attempt}", name_of(asked.input)));
            asked.of(&renamed).execute().await
        })
    }

    fn probe<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, ActivityResult<Probe<Value>>> {
        Box::pin(async move {
            match (self.bug, asked.probe().await?) {
                (Bug::Blind, _) => Ok(Probe::Absent),
                (Bug::AllIsOurs, Probe::Present { output, .. }) => {
                    Ok(Probe::Present { output, owner: Owner::ThisRun })
                }
                (_, answer) => Ok(answer),
            }
        })
    }

    fn compensate<'a>(
        &'a self,
        asked: Asked<'a>,
        recorded: &'a Recorded,
    ) -> BoxFuture<'a, ActivityResult<Undo>> {
        Box::pin(async move {
            match self.bug {
                Bug::IdleUndo => Ok(Undo::Undone),
                Bug::DeletesByName | Bug::AllIsOurs => {
                    let name = name_of(asked.input);
                    let call = self.clients.glue().delete_database().name(name).send().await;
                    call.map(|_| Undo::Undone)
                        .map_err(|error| ActivityError::retryable("Glue", error.to_string()))
                }
                Bug::Blind | Bug::FreshNameEachTime => asked.compensate(recorded).await,
            }
        })
    }
}

struct Teeth {
    green: Vec<String>,
    bitten: u32,
}

impl Teeth {
    fn judged(&mut self, what: String, found: &[String]) {
        self.bitten += u32::from(!found.is_empty());
        if found.is_empty() {
            self.green.push(what);
        }
    }
}

impl Visit for Teeth {
    /// Cells in which each bug does harm, and the same without it.
    async fn before(&mut self, at: &At<'_>) -> Result<(), String> {
        if at.step.name.as_str() != STEP {
            return Ok(());
        }
        let learned = Box::pin(learn(at.world, at.step, at.graph, at.now.clone()))
            .await
            .map_err(|why| why.join("\n"))?;
        let lost = Point::Call { undo: false, target: Place::Aws, at: 0, after: true };
        let unwritten = Point::Write { moment: Moment::Done, after: false };
        for (bug, point, ending) in [
            (Bug::Blind, lost, Ending::Resume),
            (Bug::Blind, unwritten, Ending::Resume),
            (Bug::Blind, lost, Ending::Rollback),
            (Bug::IdleUndo, lost, Ending::Rollback),
            (Bug::FreshNameEachTime, lost, Ending::Resume),
        ] {
            let cell = Cell { point, ending };
            for (planted, tamper) in [(true, with(bug, at.world)), (false, Tamper::default())] {
                let outcome = Box::pin(attempt(at.world, at.step, at.graph, &learned, cell, &tamper)).await;
                let Outcome::Judged(found) = outcome else { return Err(format!("{cell:?} was not reached")) };
                if planted {
                    self.judged(format!("{bug:?} at {point}, then {ending}"), &found);
                } else if !found.is_empty() {
                    return Err(format!("without a bug {cell:?} is red: {}", found.join("\n")));
                }
                self.clear(at).await;
            }
        }
        for (planted, tamper) in [(true, with(Bug::DeletesByName, at.world)), (false, Tamper::default())] {
            let found = Box::pin(replaced(at, &tamper)).await;
            if planted {
                self.judged("DeletesByName on what took the place of ours".to_owned(), &found);
            } else if !found.is_empty() {
                return Err(format!(
                    "without a bug what took the place of ours is touched: {}",
                    found.join("\n")
                ));
            }
            self.clear(at).await;
        }
        let held = Way::Held { undo: false, place: Place::Aws, at: 0, after: true };
        for (bug, finds, way) in [
            (Bug::FreshNameEachTime, Finds::Fresh, Way::Again(3)),
            (Bug::FreshNameEachTime, Finds::Fresh, Way::Row(2)),
            (Bug::FreshNameEachTime, Finds::Fresh, Way::Together(2)),
            (Bug::FreshNameEachTime, Finds::Fresh, held),
            (Bug::IdleUndo, Finds::Fresh, Way::Together(2)),
            (Bug::DeletesByName, Finds::Gone, Way::Again(2)),
            (Bug::AllIsOurs, Finds::Adopted, Way::Again(2)),
            (Bug::AllIsOurs, Finds::Foreign, Way::Together(2)),
        ] {
            let case = Case { finds, way };
            for (planted, tamper) in [(true, with(bug, at.world)), (false, Tamper::default())] {
                let found = Box::pin(Trial { at, learned: &learned, case, tamper: &tamper }.run()).await;
                if planted {
                    self.judged(format!("{bug:?} in {case:?}"), &found.wrong);
                } else if !found.wrong.is_empty() || !found.met {
                    return Err(format!("without a bug {case:?} is red: {}", found.wrong.join("\n")));
                }
                self.clear(at).await;
            }
        }
        Ok(())
    }

    /// A database of that name is there, and it is somebody else's.
    async fn after(&mut self, at: &At<'_>) {
        if at.step.name.as_str() != STEP {
            return;
        }
        let tamper = with(Bug::AllIsOurs, at.world);
        let disk = Disk::new(at.world, &at.step.name, RUN, 1);
        disk.live(at.world, Does::Start(at.graph.clone()), Cut::Never, &tamper).await;
        disk.live(at.world, Does::Rollback, Cut::Never, &tamper).await;
        let found = oracle::unlike(at.now, &at.world.snapshot().await);
        self.judged("AllIsOurs on what is foreign".to_owned(), &found);
    }
}

/// What we made was deleted by somebody, who made another thing of that name: what of it a rollback touches.
async fn replaced(at: &At<'_>, tamper: &Tamper) -> Vec<String> {
    let disk = Disk::new(at.world, &at.step.name, RUN, 0);
    disk.live(at.world, Does::Start(at.graph.clone()), Cut::Never, tamper).await;
    let hands = Hands::of(&at.world.sandbox);
    let name = json!({ "Name": "dss_main" });
    hands.json("glue", "AWSGlue.DeleteDatabase", &name).await.expect("it was made");
    let theirs = json!({ "DatabaseInput": { "Name": "dss_main", "Description": "somebody else's" } });
    hands.json("glue", "AWSGlue.CreateDatabase", &theirs).await.expect("made");
    let theirs = at.world.snapshot().await;
    disk.live(at.world, Does::Rollback, Cut::Never, tamper).await;
    oracle::unlike(&theirs, &at.world.snapshot().await)
}

impl Teeth {
    /// Removes what a bug has left.
    async fn clear(&self, at: &At<'_>) {
        let glue = at.world.clients.glue();
        let found = glue.get_databases().send().await.expect("the sandbox answers");
        for name in found.database_list().iter().map(|database| database.name().to_owned()) {
            if at.now["aws"]["glue"].get(&name).is_none() {
                glue.delete_database().name(name).send().await.expect("deleted");
            }
        }
    }
}

#[test]
fn planted_bugs_turn_the_matrix_red() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let teeth = runtime.block_on(async {
        let world = World::up(Mode::Plugin).await;
        let mut teeth = Teeth { green: Vec::new(), bitten: 0 };
        Box::pin(walk(&world, &mut teeth, Some(STEP), Share::WHOLE)).await.expect("the way to the step");
        teeth
    });
    println!("teeth: bugs={} green={}", teeth.bitten, teeth.green.len());
    assert!(teeth.green.is_empty(), "bugs that nobody saw: {:?}", teeth.green);
    assert_eq!(teeth.bitten, 15);
}
