//! OpAMP on the wire: the messages, their framing, and the vocabulary of the protocol, for OpAMP v0.20.0.
//!
//! Everything here is pure: bytes and values in, bytes and values out; no IO, no clock, no randomness, no async runtime.
//!
//! | subject | where |
//! |---|---|
//! | messages as generated from the schema | [`pb`] |
//! | the header of WebSocket messages | [`frame`] |
//! | a received `AgentToServer`, checked and decoded lazily | [`AgentMessage`], [`Limits`], [`Part`] |
//! | what need not be checked again, because its agent said it before | [`Held`] |
//! | writing replies without building them first | [`encode`] |
//! | identities | [`InstanceUid`], [`AgentId`], [`SequenceNum`] |
//! | capabilities and flags | [`AgentCapabilities`], [`ServerCapabilities`], [`AgentToServerFlags`], [`ServerToAgentFlags`] |
//! | names of custom capabilities | [`custom`] |
//! | hashes of configurations, settings and packages | [`hash`], [`ConfigHash`], [`Fingerprint`] |
//! | whether a status has changed in a way that matters | [`material`] |
//! | equality of attribute values | [`any_value`] |
//! | time, as numbers that the caller hands in | [`Now`], [`Mono`], [`Wall`] |
//!
//! What a server does with one WebSocket message:
//!
//! ```
//! use opamp_proto::encode::{self, server_to_agent as field};
//! use opamp_proto::{AgentMessage, Limits, Part, ServerCapabilities, frame, material};
//!
//! # fn answer(received: &[u8], out: &mut Vec<u8>) -> Result<(), Box<dyn std::error::Error>> {
//! let message = AgentMessage::decode(frame::decode(received)?, &Limits::default())?;
//! let uid = message.instance_uid()?;
//! if let Some(health) = message.part(Part::Health) {
//!     println!("{uid} is {:?}", material::health_summary(health));
//! }
//! out.push(frame::HEADER);
//! encode::uid_field(field::INSTANCE_UID, &uid, out);
//! encode::varint_field(field::CAPABILITIES, ServerCapabilities::ACCEPTS_STATUS.bits(), out);
//! # Ok(())
//! # }
//! # let mut received = vec![frame::HEADER];
//! # encode::bytes_field(1, &[7; 16], &mut received);
//! # encode::bytes_field(5, &[8, 1], &mut received);
//! # let mut out = Vec::new();
//! # answer(&received, &mut out).unwrap();
//! # assert_eq!(out.len(), 21);
//! ```
//!
//! The feature `serde` adds serialised forms of identities, hashes, times, parts and bit sets.

pub mod any_value;
mod bits;
mod config_hash;
pub mod custom;
mod decode;
pub mod encode;
pub mod frame;
pub mod hash;
mod hex;
mod id;
mod limits;
pub mod material;
mod part;
pub mod pb;
mod schema;
mod sequence;
#[cfg(feature = "serde")]
mod serde_impls;
mod time;
mod wire;

pub use bits::{AgentCapabilities, AgentToServerFlags, ServerCapabilities, ServerToAgentFlags};
pub use config_hash::{ConfigHash, Fingerprint, HexError};
pub use decode::{AgentMessage, DecodeError, DecodeErrorKind, Held, HeldPart};
pub use id::{AgentId, InstanceUid, UidError};
pub use limits::Limits;
pub use part::{Part, PartError, PartSet};
pub use sequence::SequenceNum;
pub use time::{Mono, Now, TimeError, Wall};
