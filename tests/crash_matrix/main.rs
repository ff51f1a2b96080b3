//! The crash matrix: every step of the bootstrap against every moment at which a process can die, resumed or taken
//! back, in the sandbox and with the real activities. What is judged is the outside world alone: its snapshot and the
//! calls it was asked for.
//!
//! `DSSFLOW_CELLS=N` tries about N cells (0: all), `DSSFLOW_SEED=N` chooses others, `DSSFLOW_CELL=MODE/STEP/POINT/END`
//! tries one.

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
