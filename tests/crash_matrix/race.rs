//! Several attempts of one step at once: the late one of a process that lost its run, and those of the processes that
//! took the run over. They share the disk, as they do in life: only the last one's store still takes writes, and what an
//! earlier one wants to record is refused. The calls of all of them arrive.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use dssflow_activities::host::{Host, HostCommand, HostError, HostHandle, HostOutput};
use dssflow_engine::activity::{ActivityResult, Probe, Recorded, Undo};
use dssflow_engine::runtime::SystemClock;
use dssflow_engine::time::{BoxFuture, Clock, Timestamp};
use dssflow_sandbox::{Action, Fault};
use futures::future::{join, join_all};
use serde_json::Value;
use tokio::sync::watch;

use crate::around::{self, Around, Asked};
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
    fn execute<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, ActivityResult<Value>> {
        Box::pin(async move {
            // Who cannot look waits before it acts.
            if self.spot != Spot::Undo {
                self.gate.pass().await;
            }
            asked.execute().await
        })
    }

    fn probe<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, ActivityResult<Probe<Value>>> {
        Box::pin(async move {
            if self.spot == Spot::Look {
                self.gate.pass().await;
            }
            asked.probe().await
        })
    }

    fn compensate<'a>(
        &'a self,
        asked: Asked<'a>,
        recorded: &'a Recorded,
    ) -> BoxFuture<'a, ActivityResult<Undo>> {
        Box::pin(async move {
            if self.spot == Spot::Undo {
                self.gate.pass().await;
            }
            asked.compensate(recorded).await
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

/// A process that was stopped for so long finds its lease over.
const STOPPED_FOR: Duration = Duration::from_hours(1);

/// The clock of a process that is stopped and goes on: time went by without it.
#[derive(Default)]
struct StoppedClock {
    behind_ms: AtomicU64,
}

impl StoppedClock {
    fn behind(&self) -> Duration {
        Duration::from_millis(self.behind_ms.load(Ordering::SeqCst))
    }

    fn go_on(&self) {
        self.behind_ms.store(u64::try_from(STOPPED_FOR.as_millis()).expect("an hour"), Ordering::SeqCst);
    }
}

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        SystemClock.now() + self.behind()
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        SystemClock.sleep_until(SystemClock.now() + at.since(self.now()))
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
            let end = Box::pin(disk.live(world, does, Cut::Never, &tamper)).await;
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
///
/// A call to AWS or DSS stops on its way: it arrives late, whatever became of who sent it. A command of the host has no
/// such way. It starts when its owner says so while it holds the lock of the step, and a dead process says nothing; so
/// what stops before a command is a process that lives. Where one process owns the store nobody takes its run over while
/// it lives, and where several share it the disk is one that is [`Disk::shared`]: the process was stopped behind its look
/// at the fence, its lease ended, another took the run over, and now it goes on.
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
    let clock = Arc::new(StoppedClock::default());
    let stopping = if place == Place::Host {
        let (host, gate) = (world.host.clone(), Arc::clone(&gate));
        tamper
            .and_host(Arc::new(HeldHost { host, left: AtomicU32::new(at), gate }))
            .and_clock(Arc::clone(&clock) as Arc<dyn Clock>)
    } else {
        let fault = Fault { action: Action::Hold, ..hang(&world.sandbox, place.target(), at, after) };
        world.faults(&[fault]).await;
        tamper.clone()
    };
    let late = async {
        let end = Box::pin(disk.live(world, first, Cut::Never, &stopping)).await;
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
        let end =
            if met { Some(Box::pin(disk.live(world, Does::Resume, Cut::Never, tamper)).await) } else { None };
        if place == Place::Host {
            clock.go_on();
        } else {
            world.faults(&[]).await;
        }
        gate.open();
        end
    };
    let (late, next) = join(late, next).await;
    Raced { met: next.is_some(), end: next.unwrap_or(late) }
}
