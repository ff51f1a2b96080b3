//! The crash matrix: every step of the bootstrap against every moment at which a process can die, resumed or taken
//! back, in the sandbox and with the real activities. What is judged is the outside world alone: its snapshot and the
//! calls it was asked for.
//!
//! - `matrix`: each step alone dies at each moment and is resumed or taken back.
//! - `repeat`: each step and undo again and again, and by attempts that meet, in worlds of several kinds.
//! - `kills`: the built command dies by SIGKILL in chosen calls of a whole bootstrap.
//! - `teeth`: bugs on purpose.
//!
//! `DSSFLOW_CELLS=N` tries about N cells (0: all), `DSSFLOW_REPEATS=N` N cases of each step (0: all),
//! `DSSFLOW_MATRIX_KILLS=N` N kills; `DSSFLOW_SEED=N` chooses others; `DSSFLOW_CELL` tries the one that a failure
//! names, or those that begin like that: `sdk`, `sdk/launch-template`. `DSSFLOW_WORLDS=N` has N worlds of each mode share
//! the steps.

mod around;
mod cell;
mod drift;
mod kills;
mod learn;
mod life;
mod matrix;
mod oracle;
mod plants;
mod race;
mod repeat;
mod report;
mod settings;
#[expect(dead_code, reason = "the tests of the bootstrap use the rest")]
#[path = "../bootstrap/support.rs"]
mod support;
mod teeth;
mod walk;
mod world;
