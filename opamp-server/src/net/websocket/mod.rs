//! WebSocket: the upgrade, the frames behind a small private trait, and the task of a connection.

mod frames;
mod parked;
mod task;
mod tungstenite;
mod upgrade;

pub(crate) use self::upgrade::upgrade;
