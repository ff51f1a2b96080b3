//! The edge: where the pure core meets time, tasks and the store.
//!
//! [`Engine`] is the handle: [`engine`] reads and lets go, [`start`] makes runs, [`go_on`] drives them on and turns
//! them round, `prune` removes old ones, [`handle`] is one run for whoever waits for it. `driver` owns one run at a time, `worker` runs one
//! attempt, `sub` one sub-workflow; [`schedules`] starts what is due; [`plan`] and [`inspect`] look at the world without changing it, through `look`; `admission` says who may start an attempt now, `lease` who owns a run, [`clock`]
//! reads real time, [`metrics`] is the hook for measurements.

mod admission;
mod builder;
pub mod clock;
mod driver;
pub mod engine;
pub mod error;
pub mod go_on;
pub mod handle;
pub mod inspect;
mod lease;
mod load;
mod look;
pub mod metrics;
pub mod plan;
mod prune;
pub mod schedules;
pub mod start;
mod sub;
mod worker;

pub use admission::{Obstacle, ObstacleKind, Rate};
pub use builder::EngineBuilder;
pub use clock::SystemClock;
pub use driver::summary;
pub use engine::{Engine, EngineOptions};
pub use error::EngineError;
pub use go_on::{Recovered, Recovery};
pub use handle::RunHandle;
pub use inspect::{Finding, Inspected};
pub use lease::LEASE_TTL;
pub use load::{history, load, load_at};
pub use look::LookOptions;
pub use metrics::{AttemptEnd, Measure, Metrics};
pub use plan::{Action, Plan, Planned};
pub use prune::{Pruned, Pruning};
pub use schedules::{
    Launch, LaunchError, Launcher, RegisteredWorkflows, ScheduleDriver, ScheduleError, SchedulePage,
    Schedules, Triggered,
};
pub use start::{Conflict, Reuse, StartRun};
pub use sub::sub_run_id;
