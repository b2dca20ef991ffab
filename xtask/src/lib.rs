//! The project's commands, and the rules they enforce.
//!
//! `cargo xtask` without arguments lists the commands. What a command decides is a plain function here, over text that
//! cargo printed or a file held, so that a test can hand it a bad workspace and see it refused: see [`graph`],
//! [`licence`] and [`source`]. What a command runs is in [`suite`],
//! [`fuzz`], [`instructions`], [`load`] and [`sim`].

pub mod check;
pub mod fuzz;
pub mod go;
pub mod graph;
pub mod instructions;
pub mod libtest;
pub mod licence;
pub mod load;
pub mod prerequisite;
pub mod process;
pub mod report;
pub mod sim;
pub mod source;
pub mod suite;
pub mod workspace;
