//! WebSocket: the upgrade, the frames behind a small private trait, and the task of a connection.

mod agents;
mod closing;
#[cfg(test)]
mod conformance;
mod desk;
mod frames;
mod header;
mod lean;
mod metered;
mod parked;
mod scratch;
mod task;
mod tungstenite;
mod upgrade;

pub(crate) use self::upgrade::upgrade;
