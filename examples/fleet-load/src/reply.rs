//! The check of every reply: read without allocation, so that the load stays lean, and completely, so that a wrong one is seen.

use opamp_proto::encode::server_to_agent as number;

use crate::wire::{self, Value};

pub use crate::wire::Malformed;

/// What an agent looks at in a `ServerToAgent`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reply<'a> {
    /// Whether the server orders a command.
    pub command: bool,
    /// Why the message was refused.
    pub error: Option<Refusal>,
    /// Whether the server asks for the full state.
    pub full_state_asked: bool,
    /// The identity that the server gives the agent.
    pub identification: bool,
    /// An offered configuration.
    pub offer: Option<Offer<'a>>,
    /// Whom it is for; empty if nobody is named.
    pub uid: &'a [u8],
}

/// An offered configuration, encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer<'a> {
    /// The `AgentConfigMap`.
    pub config: &'a [u8],
    /// Its hash, in the server's words.
    pub hash: &'a [u8],
}

/// An `error_response`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// `UNKNOWN` 0, `BAD_REQUEST` 1, `UNAVAILABLE` 2.
    pub kind: u64,
    /// When to come back.
    pub retry_after_ns: Option<u64>,
}

impl Refusal {
    /// How it is counted.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self.kind {
            1 => "bad_request",
            2 => "unavailable",
            _ => "error_response",
        }
    }
}

/// Reads a reply: the bytes of the protobuf message, without the header of a WebSocket message.
///
/// # Errors
///
/// [`Malformed`] if it, or a part of it that is looked at, is no protobuf message.
pub fn read(message: &[u8]) -> Result<Reply<'_>, Malformed> {
    let mut rest = message;
    let mut reply = Reply::default();
    while let Some((field, value)) = wire::field(&mut rest)? {
        match (field, value) {
            (number::INSTANCE_UID, Value::Bytes(uid)) => reply.uid = uid,
            (number::ERROR_RESPONSE, Value::Bytes(bytes)) => reply.error = Some(refusal(bytes)?),
            (number::REMOTE_CONFIG, Value::Bytes(bytes)) => reply.offer = Some(offer(bytes)?),
            (number::FLAGS, Value::Number(flags)) => {
                reply.full_state_asked =
                    flags & opamp_proto::ServerToAgentFlags::REPORT_FULL_STATE.bits() != 0;
            }
            (number::AGENT_IDENTIFICATION, Value::Bytes(_)) => reply.identification = true,
            (number::COMMAND, Value::Bytes(_)) => reply.command = true,
            _ => {}
        }
    }
    Ok(reply)
}

fn offer(bytes: &[u8]) -> Result<Offer<'_>, Malformed> {
    let mut rest = bytes;
    let mut offer = Offer::default();
    while let Some((field, value)) = wire::field(&mut rest)? {
        match (field, value) {
            (1, Value::Bytes(config)) => offer.config = config,
            (2, Value::Bytes(hash)) => offer.hash = hash,
            _ => {}
        }
    }
    Ok(offer)
}

fn refusal(bytes: &[u8]) -> Result<Refusal, Malformed> {
    let mut rest = bytes;
    let mut refusal = Refusal::default();
    while let Some((field, value)) = wire::field(&mut rest)? {
        match (field, value) {
            (1, Value::Number(kind)) => refusal.kind = kind,
            (3, Value::Bytes(mut info)) => {
                while let Some((field, value)) = wire::field(&mut info)? {
                    if let (1, Value::Number(ns)) = (field, value) {
                        refusal.retry_after_ns = Some(ns);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(refusal)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use opamp_proto::pb;
    use prost::Message as _;

    use super::*;

    #[test]
    fn a_reply_is_read_as_prost_reads_it() {
        let message = pb::ServerToAgent {
            instance_uid: Bytes::from_static(&[7; 16]),
            error_response: Some(pb::ServerErrorResponse {
                r#type: pb::ServerErrorResponseType::Unavailable.into(),
                error_message: "busy".to_owned(),
                details: Some(pb::server_error_response::Details::RetryInfo(pb::RetryInfo {
                    retry_after_nanoseconds: 5_000_000_000,
                })),
            }),
            remote_config: Some(pb::AgentRemoteConfig {
                config: Some(pb::AgentConfigMap::default()),
                config_hash: Bytes::from_static(b"hash"),
            }),
            flags: 1,
            capabilities: 0x7f,
            ..Default::default()
        }
        .encode_to_vec();
        let reply = read(&message).unwrap();
        assert_eq!(reply.uid, [7; 16]);
        assert_eq!(reply.error, Some(Refusal { kind: 2, retry_after_ns: Some(5_000_000_000) }));
        assert_eq!(reply.offer, Some(Offer { config: b"", hash: b"hash" }));
        assert!(reply.full_state_asked && !reply.command && !reply.identification);
        for end in 1..message.len() {
            let _ = read(&message[..end]);
        }
        assert_eq!(read(&message[..message.len() - 1]), Err(Malformed));
        assert_eq!(read(&[0x0a, 16, 1]), Err(Malformed));
    }
}
