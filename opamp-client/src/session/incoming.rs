//! Messages of the server, read no further than somebody asks for.
//!
//! What belongs to a capability this agent does not have is skipped without being decoded (R-CAP-06): an offer that
//! nobody takes costs nothing, however large it claims to be.

use std::borrow::Cow;

use opamp_proto::encode::server_to_agent::{
    AGENT_IDENTIFICATION, CAPABILITIES, COMMAND, CONNECTION_SETTINGS, CUSTOM_CAPABILITIES, CUSTOM_MESSAGE,
    ERROR_RESPONSE, FLAGS, INSTANCE_UID, PACKAGES_AVAILABLE, REMOTE_CONFIG,
};
use opamp_proto::{encode, pb};
use prost::Message as _;

const WIRE_VARINT: u8 = 0;
const WIRE_FIXED64: u8 = 1;
const WIRE_BYTES: u8 = 2;
const WIRE_FIXED32: u8 = 5;
/// Room for the fields of `ServerToAgent`, which are numbered 1 to 11.
const PARTS: usize = 12;
/// `ConnectionSettingsOffers.opamp`.
const OPAMP_SETTINGS: u32 = 2;
/// `OpAMPConnectionSettings.heartbeat_interval_seconds`.
const HEARTBEAT_SECONDS: u32 = 4;

/// `ConnectionSettingsOffers.other_connections`.
const OTHER_CONNECTIONS: u32 = 6;
/// `PackagesAvailable.all_packages_hash`.
const ALL_PACKAGES_HASH: u32 = 2;
/// Entries of an offered map that are decoded; an entry costs a few bytes on the wire and far more once decoded.
const ENTRIES_MAX: usize = 1_000;

/// A hash, and what it is of.
pub(super) type OfferedPackages<'a> = (&'a [u8], Option<pb::PackagesAvailable>);

/// A hash, and what it is of.
pub(super) type OfferedConnections<'a> = (&'a [u8], Option<pb::ConnectionSettingsOffers>);

/// Why a message cannot be used as a whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    #[error("{0}")]
    Frame(#[from] opamp_proto::frame::FrameError),
    #[error("not a ServerToAgent")]
    Protobuf,
    #[error("{0}")]
    Decode(#[from] prost::DecodeError),
    #[error("a configuration of more than {max} files")]
    Files { max: usize },
}

/// The bytes of a `ServerToAgent`. A sub-message that occurs twice has to be merged, as the protobuf encoding demands; no
/// known server sends that, and only then anything is copied. Pieces of a sub-message, one after the other, are the merged
/// one, so nothing is decoded here: an offer in pieces costs no more than one in a piece.
pub(super) fn merged(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Malformed> {
    let (mut seen, mut repeated) = (0_u32, 0_u32);
    let mut rest = bytes;
    while !rest.is_empty() {
        let (number, value) = field(&mut rest)?;
        if matches!(value, Value::Bytes(_)) && is_message(number) {
            repeated |= seen & (1 << number);
            seen |= 1 << number;
        }
    }
    if repeated == 0 {
        return Ok(bytes.into());
    }
    let mut whole = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        let before = rest;
        let (number, value) = field(&mut rest)?;
        let in_pieces = is_message(number) && repeated & (1 << number) != 0;
        if !(matches!(value, Value::Bytes(_)) && in_pieces) {
            whole.extend_from_slice(&before[..before.len() - rest.len()]);
        }
    }
    for number in (ERROR_RESPONSE..=CUSTOM_MESSAGE).filter(|number| repeated & (1 << number) != 0) {
        let len: usize = children(bytes, number).map(<[u8]>::len).sum();
        encode::varint(u64::from(number) << 3 | u64::from(WIRE_BYTES), &mut whole);
        encode::varint(len as u64, &mut whole);
        children(bytes, number).for_each(|piece| whole.extend_from_slice(piece));
    }
    Ok(whole.into())
}

/// Whether a field of `ServerToAgent` is a sub-message.
const fn is_message(number: u32) -> bool {
    matches!(number, ERROR_RESPONSE..=PACKAGES_AVAILABLE | AGENT_IDENTIFICATION..=CUSTOM_MESSAGE)
}

/// The top level of a `ServerToAgent`: numbers read, sub-messages as the bytes they came in.
#[derive(Debug, Default)]
pub(super) struct ServerMessage<'a> {
    pub(super) instance_uid: &'a [u8],
    pub(super) flags: u64,
    pub(super) capabilities: u64,
    parts: [Option<&'a [u8]>; PARTS],
}

impl<'a> ServerMessage<'a> {
    /// Reads the top level of [`merged`] bytes.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut message = Self::default();
        let mut rest = bytes;
        while !rest.is_empty() {
            match field(&mut rest)? {
                (INSTANCE_UID, Value::Bytes(uid)) => message.instance_uid = uid,
                (FLAGS, Value::Varint(flags)) => message.flags = flags,
                (CAPABILITIES, Value::Varint(capabilities)) => message.capabilities = capabilities,
                (
                    number @ (ERROR_RESPONSE..FLAGS | AGENT_IDENTIFICATION..=CUSTOM_MESSAGE),
                    Value::Bytes(part),
                ) => message.parts[number as usize] = Some(part),
                (INSTANCE_UID..=CUSTOM_MESSAGE, _) => return Err(Malformed::Protobuf),
                _ => {}
            }
        }
        Ok(message)
    }

    pub(super) fn error(&self) -> Result<Option<pb::ServerErrorResponse>, Malformed> {
        self.part(ERROR_RESPONSE)
    }

    pub(super) fn identification(&self) -> Result<Option<pb::AgentIdentification>, Malformed> {
        self.part(AGENT_IDENTIFICATION)
    }

    pub(super) fn command(&self) -> Result<Option<pb::ServerToAgentCommand>, Malformed> {
        self.part(COMMAND)
    }

    /// The offered configuration, unless it has more than `files_max` files: an entry costs 2 bytes on the wire and
    /// far more once decoded.
    pub(super) fn remote_config(&self, files_max: usize) -> Result<Option<pb::AgentRemoteConfig>, Malformed> {
        let Some(offer) = self.parts[REMOTE_CONFIG as usize] else { return Ok(None) };
        let mut files = 0;
        for map in children(offer, 1) {
            files += children(map, 1).count();
        }
        if files > files_max {
            return Err(Malformed::Files { max: files_max });
        }
        Ok(Some(pb::AgentRemoteConfig::decode(offer)?))
    }

    /// The offered connections: their hash, and the rest unless it is larger than `bytes_max` or has entries without end.
    pub(super) fn connections(&self, bytes_max: usize) -> Result<Option<OfferedConnections<'a>>, Malformed> {
        let Some(offer) = self.parts[CONNECTION_SETTINGS as usize] else { return Ok(None) };
        let hash = children(offer, 1).last().unwrap_or_default();
        if offer.len() > bytes_max || children(offer, OTHER_CONNECTIONS).count() > ENTRIES_MAX {
            return Ok(Some((hash, None)));
        }
        Ok(Some((hash, Some(pb::ConnectionSettingsOffers::decode(offer)?))))
    }

    /// The offered packages: their hash, and the rest unless it is larger than `bytes_max` or has entries without end.
    pub(super) fn packages(&self, bytes_max: usize) -> Result<Option<OfferedPackages<'a>>, Malformed> {
        let Some(offer) = self.parts[PACKAGES_AVAILABLE as usize] else { return Ok(None) };
        let hash = children(offer, ALL_PACKAGES_HASH).last().unwrap_or_default();
        if offer.len() > bytes_max || children(offer, 1).count() > ENTRIES_MAX {
            return Ok(Some((hash, None)));
        }
        Ok(Some((hash, Some(pb::PackagesAvailable::decode(offer)?))))
    }

    /// The custom capabilities of the server, if it tells them; no more of them than `max`.
    pub(super) fn custom_capabilities(&self, max: usize) -> Option<impl Iterator<Item = &'a str>> {
        let names = children(self.parts[CUSTOM_CAPABILITIES as usize]?, 1);
        Some(names.take(max).filter_map(|name| std::str::from_utf8(name).ok()))
    }

    pub(super) fn custom_message(&self) -> Result<Option<pb::CustomMessage>, Malformed> {
        self.part(CUSTOM_MESSAGE)
    }

    /// The heartbeat interval in seconds, if OpAMP connection settings are offered. 0 is the same as unset.
    pub(super) fn heartbeat_seconds(&self) -> Option<u64> {
        let opamp = children(self.parts[CONNECTION_SETTINGS as usize]?, OPAMP_SETTINGS).last()?;
        let mut rest = opamp;
        let mut seconds = 0;
        while !rest.is_empty() {
            match field(&mut rest) {
                Ok((HEARTBEAT_SECONDS, Value::Varint(value))) => seconds = value,
                Ok(_) => {}
                Err(_) => return None,
            }
        }
        Some(seconds)
    }

    fn part<M: prost::Message + Default>(&self, number: u32) -> Result<Option<M>, Malformed> {
        Ok(self.parts[number as usize].map(M::decode).transpose()?)
    }
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Skipped,
}

/// The length-delimited fields of this number; ends where the bytes stop making sense.
fn children<'a>(bytes: &'a [u8], wanted: u32) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            match field(&mut rest) {
                Ok((number, Value::Bytes(child))) if number == wanted => return Some(child),
                Ok(_) => {}
                Err(_) => rest = &[],
            }
        }
        None
    })
}

/// Takes the next field off the start of `rest`.
fn field<'a>(rest: &mut &'a [u8]) -> Result<(u32, Value<'a>), Malformed> {
    let key = varint(rest)?;
    let number = u32::try_from(key >> 3).ok().filter(|number| (1..1 << 29).contains(number));
    let number = number.ok_or(Malformed::Protobuf)?;
    let value = match (key & 7) as u8 {
        WIRE_VARINT => Value::Varint(varint(rest)?),
        WIRE_BYTES => {
            let len = varint(rest)?;
            Value::Bytes(take(rest, len)?)
        }
        WIRE_FIXED64 => take(rest, 8).map(|_| Value::Skipped)?,
        WIRE_FIXED32 => take(rest, 4).map(|_| Value::Skipped)?,
        // Groups are history; nothing that speaks proto3 sends them.
        _ => return Err(Malformed::Protobuf),
    };
    Ok((number, value))
}

fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first().ok_or(Malformed::Protobuf)?;
        *rest = tail;
        if shift == 63 && byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed::Protobuf)
}

fn take<'a>(rest: &mut &'a [u8], len: u64) -> Result<&'a [u8], Malformed> {
    let len = usize::try_from(len).map_err(|_| Malformed::Protobuf)?;
    let (head, tail) = rest.split_at_checked(len).ok_or(Malformed::Protobuf)?;
    *rest = tail;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings(seconds: u64) -> pb::ServerToAgent {
        let opamp = pb::OpAmpConnectionSettings {
            destination_endpoint: "wss://x/v1/opamp".into(),
            heartbeat_interval_seconds: seconds,
            ..Default::default()
        };
        let offers = pb::ConnectionSettingsOffers { opamp: Some(opamp), ..Default::default() };
        pb::ServerToAgent { connection_settings: Some(offers), ..Default::default() }
    }

    fn with_files(count: usize) -> Vec<u8> {
        let config_map = (0..count).map(|number| (number.to_string(), Default::default())).collect();
        let config = Some(pb::AgentConfigMap { config_map });
        let offer = pb::AgentRemoteConfig { config, config_hash: vec![1].into() };
        pb::ServerToAgent { remote_config: Some(offer), ..Default::default() }.encode_to_vec()
    }

    #[test]
    fn the_heartbeat_interval_is_found_where_the_schema_has_it() {
        let bytes = settings(7).encode_to_vec();
        assert_eq!(ServerMessage::decode(&bytes).unwrap().heartbeat_seconds(), Some(7));
        let bytes = settings(0).encode_to_vec();
        assert_eq!(
            ServerMessage::decode(&bytes).unwrap().heartbeat_seconds(),
            Some(0),
            "offered, and 0 or unset"
        );
        assert_eq!(ServerMessage::decode(&[]).unwrap().heartbeat_seconds(), None);
    }

    #[test]
    fn a_configuration_of_too_many_files_is_malformed() {
        let bytes = with_files(11);
        let message = ServerMessage::decode(&bytes).unwrap();
        assert!(matches!(message.remote_config(10), Err(Malformed::Files { max: 10 })));
        assert_eq!(message.remote_config(11).unwrap().unwrap().config.unwrap().config_map.len(), 11);
    }

    #[test]
    fn a_part_that_occurs_twice_is_merged() {
        let command = pb::ServerToAgent {
            error_response: Some(pb::ServerErrorResponse { error_message: "a".into(), ..Default::default() }),
            ..Default::default()
        };
        let mut bytes = command.encode_to_vec();
        let kind = pb::ServerErrorResponse { r#type: 1, ..Default::default() };
        pb::ServerToAgent { error_response: Some(kind), ..Default::default() }.encode(&mut bytes).unwrap();
        let merged = merged(&bytes).unwrap();
        let error = ServerMessage::decode(&merged).unwrap().error().unwrap().unwrap();
        assert_eq!((error.r#type, error.error_message.as_str()), (1, "a"));
    }

    #[test]
    fn pieces_are_merged_as_the_encoding_demands() {
        let piece = |name: &str, hash: &[u8]| {
            let config_map = [(name.to_owned(), Default::default())].into();
            let config = Some(pb::AgentConfigMap { config_map });
            let offer = pb::AgentRemoteConfig { config, config_hash: hash.to_vec().into() };
            pb::ServerToAgent {
                remote_config: Some(offer),
                command: Some(pb::ServerToAgentCommand::default()),
                flags: 1,
                ..Default::default()
            }
            .encode_to_vec()
        };
        let bytes = [piece("a", b"1"), piece("b", b""), piece("c", b"2")].concat();
        let merged = merged(&bytes).unwrap();
        assert_eq!(
            pb::ServerToAgent::decode(&*merged).unwrap(),
            pb::ServerToAgent::decode(&bytes[..]).unwrap()
        );
        let files = ServerMessage::decode(&merged).unwrap().remote_config(2);
        assert!(matches!(files, Err(Malformed::Files { max: 2 })), "counted over all pieces");
    }

    #[test]
    fn unknown_fields_are_skipped_and_wrong_types_refused() {
        let unknown = [0xa0, 0x06, 0x01, 0x3a + 0x38, 0x01, b'x'];
        assert!(ServerMessage::decode(&unknown).is_ok(), "fields 100 and 14");
        for bad in [&[0x08, 0x01][..], &[0x30], &[0x12, 0x05, 0x01], &[0x0b], &[0x00], &[0xff; 12]] {
            assert!(ServerMessage::decode(bad).is_err(), "{bad:x?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(merged) = merged(&bytes)
                && let Ok(message) = ServerMessage::decode(&merged)
            {
                let _ = (message.error(), message.identification(), message.command());
                let _ = (message.remote_config(5), message.heartbeat_seconds());
                let _ = (message.connections(50), message.packages(50), message.custom_message());
                let _ = message.custom_capabilities(5).map(Iterator::count);
            }
        }

        #[test]
        fn what_prost_writes_is_read(uid in proptest::collection::vec(any::<u8>(), 0..20), flags: u64, capabilities: u64) {
            let message = pb::ServerToAgent { instance_uid: uid.clone().into(), flags, capabilities, ..Default::default() };
            let bytes = message.encode_to_vec();
            let read = ServerMessage::decode(&bytes).unwrap();
            prop_assert_eq!((read.instance_uid, read.flags, read.capabilities), (&uid[..], flags, capabilities));
        }
    }
}
