//! Messages of both sides, drawn from a tape: every field of the schema, the well-meant beside the absurd.
//!
//! What a tape draws is well-formed; [`damaged`] makes of its encoding what no encoder writes.

mod agent;
mod server;
mod values;

use std::collections::BTreeMap;

use bytes::Bytes;
use opamp_proto::pb;
use prost::Message as _;

use crate::tape::Tape;

pub use self::agent::{agent_to_server, component_health};
pub use self::server::{connection_settings, packages_available, remote_config, server_to_agent};
pub use self::values::{any_value, attributes};

/// How deep values nest. Deeper ones come from seeds and from damage.
const DEPTH_MAX: u32 = 4;

/// Encoded messages of an agent that may be damaged, or bytes of no meaning.
#[must_use]
pub fn agent_bytes(tape: &mut Tape<'_>) -> Vec<u8> {
    if tape.below(4) == 0 {
        return tape.rest().to_vec();
    }
    let message = agent_to_server(tape).encode_to_vec();
    damaged(tape, message)
}

/// Encoded messages of a server that may be damaged, or bytes of no meaning.
#[must_use]
pub fn server_bytes(tape: &mut Tape<'_>) -> Vec<u8> {
    if tape.below(4) == 0 {
        return tape.rest().to_vec();
    }
    let message = server_to_agent(tape).encode_to_vec();
    damaged(tape, message)
}

/// Changes bytes, takes some out, puts some in, cuts the end off, or repeats a part. Mostly does nothing.
#[must_use]
pub fn damaged(tape: &mut Tape<'_>, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..tape.below(8).saturating_sub(4) {
        let at = usize::from(tape.short()) % (bytes.len() + 1);
        match (tape.below(6), bytes.get(at).copied()) {
            (0, Some(_)) => bytes[at] ^= 1 << tape.below(8),
            (1, Some(_)) => {
                bytes.remove(at);
            }
            (2, Some(_)) => bytes.truncate(at),
            (3, Some(_)) => bytes.extend_from_within(at..),
            (4, _) => bytes.extend_from_slice(&bytes.clone()),
            _ => bytes.insert(at, tape.byte()),
        }
    }
    bytes
}

fn some<T>(tape: &mut Tape<'_>, value: impl FnOnce(&mut Tape<'_>) -> T) -> Option<T> {
    (tape.below(3) != 0).then(|| value(tape))
}

fn list<T>(tape: &mut Tape<'_>, mut value: impl FnMut(&mut Tape<'_>) -> T) -> Vec<T> {
    (0..tape.below(4)).map(|_| value(tape)).collect()
}

fn map<T>(tape: &mut Tape<'_>, mut value: impl FnMut(&mut Tape<'_>) -> T) -> BTreeMap<String, T> {
    (0..tape.below(4)).map(|_| (tape.text(), value(tape))).collect()
}

/// A hash: one of a few, so that both sides come to speak of the same, or any.
fn hash(tape: &mut Tape<'_>) -> Bytes {
    match tape.below(8) {
        0 => Bytes::new(),
        7 => Bytes::copy_from_slice(tape.bytes(40)),
        few => Bytes::copy_from_slice(&[few as u8; 4]),
    }
}

fn enumeration(tape: &mut Tape<'_>) -> i32 {
    match tape.below(16) {
        15 => tape.number() as i32,
        small => small as i32 % 5,
    }
}

fn headers(tape: &mut Tape<'_>) -> pb::Headers {
    pb::Headers {
        headers: list(tape, |tape| {
            let key = tape.pick(&["authorization", "x-a", "Host", "", "a b", "é"]).to_owned();
            pb::Header { key, value: tape.text() }
        }),
    }
}

fn config_map(tape: &mut Tape<'_>) -> pb::AgentConfigMap {
    pb::AgentConfigMap {
        config_map: map(tape, |tape| pb::AgentConfigObject {
            body: Bytes::copy_from_slice(tape.bytes(40)),
            content_type: tape.text(),
            role: tape.text(),
        }),
    }
}

fn custom_capabilities(tape: &mut Tape<'_>) -> pb::CustomCapabilities {
    pb::CustomCapabilities { capabilities: list(tape, custom_capability) }
}

fn custom_capability(tape: &mut Tape<'_>) -> String {
    tape.pick(&["com.example.ping", "com.example.ping/2", "org.other.thing", "", "no dots", "\u{7f}.a"])
        .to_owned()
}

fn custom_message(tape: &mut Tape<'_>) -> pb::CustomMessage {
    pb::CustomMessage {
        capability: custom_capability(tape),
        r#type: tape.text(),
        data: Bytes::copy_from_slice(tape.bytes(300)),
    }
}
