//! The main job, whole: the built command, the real workflow and the real SDKs against the sandbox. What is checked is
//! the world and what the command printed, never the engine's own state.

mod calls;
mod clusters;
mod credentials;
mod faults;
mod kills;
mod launch;
mod paths;
mod preflight;
mod quickstart;
mod readme;
mod rights;
mod smoke;
mod support;
mod teardown;
mod wrong_input;
