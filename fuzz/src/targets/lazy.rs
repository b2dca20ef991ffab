//! The lazy decoder against prost: both accept or refuse the same bytes, and read the same from them.

use opamp_proto::{AgentMessage, DecodeError, DecodeErrorKind, Held, HeldPart, Limits, Part, material, pb};
use prost::Message;

use crate::messages;
use crate::tape::Tape;

/// No limits but prost's own.
const NO_LIMITS: Limits = Limits {
    message_bytes_max: usize::MAX,
    nesting_max: u32::MAX,
    map_entries_max: u32::MAX,
    list_entries_max: u32::MAX,
    string_bytes_max: usize::MAX,
};

/// Maps of the schema. Of an entry with a wrong wire type prost reads whatever the type says; we refuse it.
const MAPS: [&str; 5] =
    ["config_map.config_map", "component_health_map", "packages", "components", "sub_component_map"];

pub(crate) fn run(input: &[u8]) {
    let bytes = messages::agent_bytes(&mut Tape::new(input));
    repeated(&bytes, input);
    match (AgentMessage::decode(&bytes, &NO_LIMITS), pb::AgentToServer::decode(&*bytes)) {
        (Ok(lazy), Ok(full)) => same(&lazy, &full),
        (Err(_), Err(_)) => {}
        (Ok(_), Err(error)) => panic!("only prost refuses: {error}"),
        (Err(error), Ok(_)) => assert!(is_excepted(&error), "only the lazy decoder refuses: {error}"),
    }
}

/// The two exceptions, both on the strict side: wrong wire types in entries of maps, and the last level before prost's own
/// limit of nesting, which depends on what is there.
fn is_excepted(error: &DecodeError) -> bool {
    match error.kind() {
        DecodeErrorKind::WireType => MAPS.iter().any(|map| error.path().ends_with(map)),
        DecodeErrorKind::Nesting { max } => *max == Limits::NESTING_CEILING,
        _ => false,
    }
}

/// Encodings are compared, because a NaN is not equal to itself.
fn same(lazy: &AgentMessage<'_>, full: &pb::AgentToServer) {
    match lazy.to_full() {
        Ok(decoded) => assert_eq!(decoded.encode_to_vec(), full.encode_to_vec()),
        Err(error) => panic!("accepted, and does not decode: {error}"),
    }
    assert_eq!(lazy.instance_uid_bytes(), full.instance_uid);
    assert_eq!(lazy.sequence_num().0, full.sequence_num);
    assert_eq!(lazy.capabilities().bits(), full.capabilities);
    assert_eq!(lazy.flags().bits(), full.flags);
    for part in Part::ALL {
        assert_eq!(lazy.parts().contains(part), lazy.part(part).is_some(), "{part}");
        let read = lazy.part(part).map(|bytes| match again(part, bytes) {
            Ok(read) => read,
            Err(error) => panic!("{part} was accepted, and does not decode: {error}"),
        });
        assert_eq!(read, encoded(full, part), "{part}");
    }
}

fn encoded(full: &pb::AgentToServer, part: Part) -> Option<Vec<u8>> {
    fn of<M: Message>(message: Option<&M>) -> Option<Vec<u8>> {
        message.map(Message::encode_to_vec)
    }
    match part {
        Part::AgentDescription => of(full.agent_description.as_ref()),
        Part::Health => of(full.health.as_ref()),
        Part::EffectiveConfig => of(full.effective_config.as_ref()),
        Part::RemoteConfigStatus => of(full.remote_config_status.as_ref()),
        Part::PackageStatuses => of(full.package_statuses.as_ref()),
        Part::AgentDisconnect => of(full.agent_disconnect.as_ref()),
        Part::ConnectionSettingsRequest => of(full.connection_settings_request.as_ref()),
        Part::CustomCapabilities => of(full.custom_capabilities.as_ref()),
        Part::CustomMessage => of(full.custom_message.as_ref()),
        Part::AvailableComponents => of(full.available_components.as_ref()),
        Part::ConnectionSettingsStatus => of(full.connection_settings_status.as_ref()),
    }
}

/// A part by itself, decoded by prost and encoded again.
fn again(part: Part, bytes: &[u8]) -> Result<Vec<u8>, prost::DecodeError> {
    fn of<M: Message + Default>(bytes: &[u8]) -> Result<Vec<u8>, prost::DecodeError> {
        M::decode(bytes).map(|message| message.encode_to_vec())
    }
    match part {
        Part::AgentDescription => of::<pb::AgentDescription>(bytes),
        Part::Health => of::<pb::ComponentHealth>(bytes),
        Part::EffectiveConfig => of::<pb::EffectiveConfig>(bytes),
        Part::RemoteConfigStatus => of::<pb::RemoteConfigStatus>(bytes),
        Part::PackageStatuses => of::<pb::PackageStatuses>(bytes),
        Part::AgentDisconnect => of::<pb::AgentDisconnect>(bytes),
        Part::ConnectionSettingsRequest => of::<pb::ConnectionSettingsRequest>(bytes),
        Part::CustomCapabilities => of::<pb::CustomCapabilities>(bytes),
        Part::CustomMessage => of::<pb::CustomMessage>(bytes),
        Part::AvailableComponents => of::<pb::AvailableComponents>(bytes),
        Part::ConnectionSettingsStatus => of::<pb::ConnectionSettingsStatus>(bytes),
    }
}

pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    super::decode::agent_seeds(&[])
}

/// What an agent said before, as a session holds it.
struct Before<'a>(&'a AgentMessage<'a>);

impl Held for Before<'_> {
    fn part(&self, part: Part) -> Option<HeldPart<'_>> {
        let encoded = self.0.part(part)?;
        Some(HeldPart { encoded, digest: material::digest(part, encoded) })
    }
}

/// A message that resembles the one before decodes alike whether that one is known or not.
fn repeated(bytes: &[u8], input: &[u8]) {
    let mut before = bytes.to_vec();
    // instance_uid: nothing is held of nobody
    before.extend([0x0a, 16]);
    before.extend([7; 16]);
    let Ok(held) = AgentMessage::decode(&before, &NO_LIMITS) else { return };
    let mut after = before.clone();
    for change in input.rchunks_exact(3).take(3) {
        let at = usize::from(u16::from_be_bytes([change[0], change[1]]));
        after[at % before.len()] = change[2];
    }
    let knowing = AgentMessage::decode_knowing(&after, &NO_LIMITS, |_| Some(Before(&held)));
    match (AgentMessage::decode(&after, &NO_LIMITS), knowing) {
        (Ok(alone), Ok(knowing)) => {
            for part in Part::ALL {
                assert_eq!(alone.part(part), knowing.part(part), "{}", part.name());
            }
            let digest = alone.part(Part::Health).map_or(0, material::health_digest);
            assert_eq!(knowing.health_digest(), digest);
            assert_eq!(alone.start_time_unix_nano(), knowing.start_time_unix_nano());
        }
        (Err(alone), Err(knowing)) => assert_eq!(alone, knowing),
        (alone, knowing) => panic!("alone {alone:?}, knowing {knowing:?}"),
    }
}
