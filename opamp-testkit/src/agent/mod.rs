//! Scripted agents: what an OpAMP agent says, and how it says it on either transport.
//!
//! [`Persona`] builds messages and keeps the identity, the sequence number and the state they report; it does no IO, so
//! several of them can share one [`RawWs`](crate::raw::RawWs). [`ScriptedAgent`] is a persona with a connection of its own.

mod offers;
mod persona;
mod reports;
mod scripted;

pub use persona::{Persona, attribute, config, padded, text};
pub use reports::custom_capabilities;
pub use scripted::{Connector, ScriptedAgent};

/// The two transports of OpAMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Plain HTTP: the server speaks only when asked.
    Http,
    /// WebSocket: either side speaks at any time.
    WebSocket,
}
