//! Several attempts of one step at once: the late one of a process that lost its run, and those of the processes that
//! took the run over. They share the disk, as they do in life: only the last one's store still takes writes, and what an
//! earlier one wants to record is refused. The calls of all of them arrive.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dssflow_activities::host::{Host, HostCommand, HostError, HostHandle, HostOutput};
use dssflow_engine::activity::{ActivityContext, ActivityResult, ErasedActivity, Probe, Recorded, Undo};
use dssflow_engine::time::BoxFuture;
use dssflow_sandbox::{Action, Fault};
use futures::future::{join, join_all};
use serde_json::Value;
use tokio::sync::watch;

use crate::around::{self, Around};
use crate::cell::Place;
use crate::learn::hang;
use crate::life::{Cut, Disk, Does, End, PATIENCE};
use crate::world::{Tamper, World};

/// Where attempts wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spot {
    /// Before they look.
    Look,
    /// After they looked, before they act.
    Act,
    /// Before they take back.
    Undo,
}

/// How the attempts go on from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// All at once.
    Together,
    /// The oldest first, each to its end.
    Row,
}

/// A place where one attempt waits until it is let through.
struct Gate {
    stage: watch::Sender<Stage>,
    open: watch::Sender<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Away,
    Here,
    /// The life that was to come here is over; it came here before, or it did not.
    Over {
        came: bool,
    },
}

impl Gate {
    fn new() -> Arc<Self> {
        Arc::new(Self { stage: watch::Sender::new(Stage::Away), open: watch::Sender::new(false) })
    }

    async fn pass(&self) {
        self.stage.send_if_modified(|stage| {
            let first = *stage == Stage::Away;
            if first {
                *stage = Stage::Here;
            }
            first
        });
        drop(self.open.subscribe().wait_for(|open| *open).await);
    }

    fn open(&self) {
        self.open.send_replace(true);
    }

    /// Nobody will come here any more.
    fn end(&self) {
        self.stage.send_modify(|stage| *stage = Stage::Over { came: *stage == Stage::Here });
    }

    /// Resolves when somebody stands here or nobody will: whether somebody does.
    async fn arrived(&self) -> bool {
        let mut stage = self.stage.subscribe();
        let seen = stage.wait_for(|stage| *stage != Stage::Away).await.expect("the gate is there");
        matches!(*seen, Stage::Here | Stage::Over { came: true })
    }

    async fn ended(&self) {
        let mut stage = self.stage.subscribe();
        drop(stage.wait_for(|stage| matches!(stage, Stage::Over { .. })).await);
    }
}

/// Attempts pass a gate.
struct AtGate {
    gate: Arc<Gate>,
    spot: Spot,
}

impl Around for AtGate {
    fn execute<'a>(
        &'a self,
        inner: &'a dyn ErasedActivity,
        ctx: &'a ActivityContext,
        input: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<Value>> {
        Box::pin(async move {
            // Who cannot look waits before it acts.
            if self.spot != Spot::Undo {
                self.gate.pass().await;
            }
            inner.execute(ctx, input).await
        })
    }

    fn probe<'a>(
        &'a self,
        inner: &'a dyn ErasedActivity,
        ctx: &'a ActivityContext,
        input: &'a Value,
    ) -> BoxFuture<'a, ActivityResult<Probe<Value>>> {
        Box::pin(async move {
            if self.spot == Spot::Look {
                self.gate.pass().await;
            }
            inner.probe(ctx, input).await
        })
    }

    fn compensate<'a>(
        &'a self,
        inner: &'a dyn ErasedActivity,
        ctx: &'a ActivityContext,
        input: &'a Value,
        recorded: &'a Recorded,
    ) -> BoxFuture<'a, ActivityResult<Undo>> {
        Box::pin(async move {
            if self.spot == Spot::Undo {
                self.gate.pass().await;
            }
            inner.compensate(ctx, input, recorded).await
        })
    }
}

/// A host whose commands stop before one of them.
#[derive(Debug)]
struct HeldHost {
    host: HostHandle,
    /// So many commands are to pass yet.
    left: AtomicU32,
    gate: Arc<Gate>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("stage", &self.stage).finish_non_exhaustive()
    }
}

impl Host for HeldHost {
    fn exec(&self, command: HostCommand) -> BoxFuture<'_, Result<HostOutput, HostError>> {
        Box::pin(async move {
            let before =
                self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if before.is_err() {
                self.gate.pass().await;
            }
            self.host.0.exec(command).await
        })
    }

    fn describe(&self) -> String {
        self.host.0.describe()
    }
}

/// What came of a race.
#[derive(Debug)]
pub(crate) struct Raced {
    /// Whether the attempts met.
    pub(crate) met: bool,
    /// How the last process ended, whose word counts.
    pub(crate) end: End,
}

/// So many processes, each of which takes the run over when the attempt of the one before it stands at its gate.
pub(crate) async fn at_gates(
    world: &World,
    disk: &Disk,
    first: Does,
    attempts: usize,
    spot: Spot,
    order: Order,
    tamper: &Tamper,
) -> Raced {
    let gates: Vec<Arc<Gate>> = (0..attempts).map(|_| Gate::new()).collect();
    let lives = gates.iter().enumerate().map(|(at, gate)| {
        let (gates, first) = (&gates, first.clone());
        async move {
            let does = match at.checked_sub(1) {
                None => first,
                Some(before) if gates[before].arrived().await => Does::Resume,
                // The one before came through without stopping: there is nothing to take over.
                Some(_) => {
                    gate.end();
                    return None;
                }
            };
            let tamper = tamper.and_code(around::wrap(Arc::new(AtGate { gate: Arc::clone(gate), spot })));
            let end = disk.live(world, does, Cut::Never, &tamper).await;
            gate.end();
            Some(end)
        }
    });
    let referee = async {
        let mut met = true;
        for gate in &gates {
            met &= gate.arrived().await;
        }
        for gate in &gates {
            gate.open();
            if order == Order::Row {
                gate.ended().await;
            }
        }
        met
    };
    let (ends, met) = join(join_all(lives), referee).await;
    Raced { met, end: ends.into_iter().flatten().last().expect("the first one lived") }
}

/// Two processes: the first stops at one of its calls, the second does all the work, and then the first goes on.
pub(crate) async fn held(
    world: &World,
    disk: &Disk,
    first: Does,
    place: Place,
    at: u32,
    after: bool,
    tamper: &Tamper,
) -> Raced {
    let gate = Gate::new();
    let stopping = if place == Place::Host {
        let (host, gate) = (world.host.clone(), Arc::clone(&gate));
        tamper.and_host(Arc::new(HeldHost { host, left: AtomicU32::new(at), gate }))
    } else {
        let fault = Fault { action: Action::Hold, ..hang(&world.sandbox, place.target(), at, after) };
        world.faults(&[fault]).await;
        tamper.clone()
    };
    let late = async {
        let end = disk.live(world, first, Cut::Never, &stopping).await;
        gate.end();
        end
    };
    let next = async {
        let stopped = async {
            if place == Place::Host {
                gate.arrived().await
            } else {
                world.struck(PATIENCE).await;
                true
            }
        };
        let met = tokio::select! {
            biased;
            met = stopped => met,
            () = gate.ended() => false,
        };
        let end = if met { Some(disk.live(world, Does::Resume, Cut::Never, tamper).await) } else { None };
        gate.open();
        if place != Place::Host {
            world.faults(&[]).await;
        }
        end
    };
    let (late, next) = join(late, next).await;
    Raced { met: next.is_some(), end: next.unwrap_or(late) }
}
