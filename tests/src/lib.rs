//! What whole-system tests share: a simulated cloud, a store that crashes, and the trial that puts the engine through
//! both. Everything here is seeded; nothing sleeps in real time or reaches outside the process.

pub mod chance;
pub mod cloud;
pub mod crash_store;
pub mod deeds;
pub mod diagram;
pub mod journal;
pub mod life;
pub mod moves;
pub mod people;
pub mod scenario;
pub mod shapes;
pub mod tally;
pub mod trial;
pub mod verdict;
