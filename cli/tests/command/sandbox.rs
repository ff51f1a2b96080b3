//! The built binary with a sandbox in a home of its own.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::support::{Home, Ran};
use serde_json::Value;

/// How long the run may take to get somewhere on a machine under load.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

/// A home with a sandbox; both end with the test.
pub(crate) struct World(pub(crate) Home);

impl World {
    pub(crate) fn new() -> Self {
        let world = Self(Home::new());
        world.does(&["sandbox", "up", "--latency", "0"], 0);
        world
    }

    /// A command. The sandbox wants Python, wherever this machine and this user have it; the store is the test's own.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.0.command(args);
        for name in ["PATH", "HOME"] {
            command.env(name, std::env::var_os(name).unwrap());
        }
        command
    }

    /// Runs a command that must end so.
    #[track_caller]
    pub(crate) fn does(&self, args: &[&str], exit: i32) -> Ran {
        let ran = Ran::from(self.command(args).output().unwrap());
        assert_eq!(ran.exit, exit, "{args:?} {ran:?}");
        ran
    }

    pub(crate) fn faults(&self, faults: &Value) {
        let file = self.0.write("faults.json", &faults.to_string());
        self.does(&["sandbox", "up", "--faults", file.to_str().unwrap()], 0);
    }

    pub(crate) fn view(&self) -> Value {
        serde_json::from_str(&self.does(&["runs", "get", "-o", "json"], 0).out).unwrap()
    }

    /// Waits until a step of the newest run stands so.
    pub(crate) fn wait_for(&self, owner: &mut Child, step: &str, status: &str) {
        let begin = Instant::now();
        loop {
            let ended = owner.try_wait().unwrap();
            assert!(ended.is_none() && begin.elapsed() < PATIENCE, "{step} never was {status}: {ended:?}");
            let ran = Ran::from(self.command(&["runs", "get", "-o", "json"]).output().unwrap());
            // Before the run exists there is nothing to see.
            if let Ok(view) = serde_json::from_str::<Value>(&ran.out)
                && status_of(&view, step) == status
            {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A test that failed has printed why already.
        drop(self.command(&["sandbox", "down", "--yes"]).output());
    }
}

pub(crate) fn status_of(view: &Value, step: &str) -> Value {
    let steps = view["steps"].as_array().unwrap();
    steps.iter().find(|s| s["step"] == step).unwrap()["status"].clone()
}
