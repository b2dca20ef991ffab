//! Load for OpAMP servers: many agents from few processes, and the figures that they see.
//!
//! | subject | where |
//! |---|---|
//! | what a run does, phase by phase | [`phase`], [`plan`], [`cli`] |
//! | where the load goes, and that it stays on loopback | [`target`] |
//! | messages that agents send, ready to be copied and patched | [`message`] |
//! | the check of every reply | [`reply`] |
//! | WebSocket frames, both sides | [`frame`] |
//! | one process with up to 19,000 agents on one epoll loop | [`worker`] |
//! | the process that starts workers, pushes configs and measures the server | [`coordinator`], [`control`], [`process`] |
//! | figures: merging, JSON lines, the table | [`report`], [`latency`] |
//! | the bare echo server that is the floor | [`floor`] |

pub mod cli;
pub mod control;
pub mod coordinator;
pub mod floor;
pub mod frame;
pub mod latency;
pub mod message;
pub mod phase;
pub mod plan;
pub mod process;
pub mod reply;
pub mod report;
pub mod target;
mod wire;
pub mod worker;
