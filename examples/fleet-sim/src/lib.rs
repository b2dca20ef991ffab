//! What would this rollout do? A plan file is run over a simulated fleet: the real planning, gates and engine, agents whose
//! behaviour is drawn from a seed, and a virtual clock.
//!
//! [`Input`] is the file, [`Simulation`] the run, [`report`], [`json`] and [`picture`] show it.

pub mod input;
pub mod json;
mod lines;
pub mod options;
pub mod overwrite;
pub mod picture;
pub mod report;
mod simulation;

pub use input::{Input, InputError};
pub use simulation::{GateCounts, Simulation, SimulationError};
