//! Bytes of a peer, on both sides: never a panic, never more memory than the limits allow.

use opamp_client::session::{EndpointInfo, Input, Outbox, Output, Session, Setup};
use opamp_client::{Description, SavedState, Transport};
use opamp_proto::{AgentMessage, Limits, Mono, Now, Part, Wall, encode, material, pb};
use prost::Message as _;

use crate::memory::measured;
use crate::messages;
use crate::tape::Tape;

/// What an entry of a map or list may cost once decoded: the largest message of the schema, its place in the tree, and the
/// room a vector keeps for its next elements.
const ENTRY_BYTES: u64 = 1_200;
/// What decoding may cost beside that: paths of errors, the first node of each map.
const BASE_BYTES: u64 = 32 << 10;
/// Files of a remote configuration that the agent takes.
const FILES_MAX: usize = 16;

pub(crate) fn run(input: &[u8]) {
    let mut tape = Tape::new(input);
    match tape.below(3) {
        0 => from_agent(&mut tape),
        1 => from_server(&mut tape, Transport::WebSocket),
        _ => from_server(&mut tape, Transport::Http),
    }
}

fn from_agent(tape: &mut Tape<'_>) {
    let limits = limits(tape);
    let bytes = messages::agent_bytes(tape);
    let (decoded, allocated) = measured(|| AgentMessage::decode(&bytes, &limits));
    let bound = bound(bytes.len(), limits.map_entries_max.saturating_add(limits.list_entries_max));
    assert!(allocated.bytes_max <= bound, "{} of {bound} bytes", allocated.bytes_max);
    let message = match decoded {
        Ok(message) => message,
        Err(error) => {
            assert!(error.to_string().len() < 2_000, "an error that a person can read");
            assert!(bytes.len() > limits.message_bytes_max || allocated.bytes_max < BASE_BYTES);
            return;
        }
    };
    assert!(bytes.len() <= limits.message_bytes_max);
    let (_, allocated) = measured(|| {
        for part in message.parts().iter() {
            let encoded = message.part(part).unwrap_or_default();
            assert_eq!(material::digest(part, encoded), material::digest(part, encoded));
            if part == Part::Health {
                let summary = material::health_summary(encoded);
                assert!(summary.status.len() <= limits.string_bytes_max);
            }
        }
        message.instance_uid().is_ok()
    });
    assert_eq!(allocated.count_total, 0, "looking at a message allocates nothing");
    match message.to_full() {
        Ok(full) => {
            let summary = message.part(Part::RemoteConfigStatus).and_then(material::remote_config_summary);
            let status = full.remote_config_status.as_ref();
            assert_eq!(
                summary.map(|summary| (summary.hash, summary.status)),
                status.map(|status| (&status.last_remote_config_hash[..], status.status))
            );
            within(&full, &limits);
        }
        Err(error) => panic!("accepted, and does not decode: {error}"),
    }
    assert!(!format!("{message:?}").is_empty());
}

/// What is counted when a message is decoded holds of the decoded message.
fn within(full: &pb::AgentToServer, limits: &Limits) {
    let files = full.effective_config.iter().flat_map(|config| &config.config_map);
    let maps = files.map(|map| map.config_map.len()).sum::<usize>()
        + full.package_statuses.as_ref().map_or(0, |statuses| statuses.packages.len())
        + full.available_components.as_ref().map_or(0, |available| available.components.len())
        + full.health.as_ref().map_or(0, entries);
    assert!(maps <= limits.map_entries_max as usize, "{maps} entries");
    let lists = full.agent_description.as_ref().map_or(0, |description| {
        description.identifying_attributes.len() + description.non_identifying_attributes.len()
    }) + full.custom_capabilities.as_ref().map_or(0, |custom| custom.capabilities.len());
    assert!(lists <= limits.list_entries_max as usize, "{lists} elements");
    let texts = full.remote_config_status.iter().map(|status| &status.error_message);
    for text in texts.chain(full.custom_message.iter().map(|message| &message.capability)) {
        assert!(text.len() <= limits.string_bytes_max);
    }
}

fn entries(health: &pb::ComponentHealth) -> usize {
    health.component_health_map.values().map(|below| 1 + entries(below)).sum()
}

fn from_server(tape: &mut Tape<'_>, transport: Transport) {
    let mut session = connected(transport);
    let mut out = Outbox::new();
    while out.take().is_some() {}
    let mut bytes = if transport == Transport::WebSocket { vec![0] } else { Vec::new() };
    bytes.extend(messages::server_bytes(tape));
    let now = Now { mono: Mono(2_000), wall: Wall(1_700_000_002_000) };
    let (handled, allocated) = measured(|| session.handle(Input::Received(&bytes), now, &mut out));
    assert_eq!(handled, Ok(()), "nothing that the network brings fails");
    let bound = bound(bytes.len(), FILES_MAX as u32);
    assert!(allocated.bytes_max <= bound, "{} of {bound} bytes for {}", allocated.bytes_max, bytes.len());
    let outputs = std::iter::from_fn(|| out.take()).count();
    assert!(outputs <= 16, "{outputs} things to do");
}

/// A session whose connection stands, and whose first report was written.
fn connected(transport: Transport) -> Session {
    let endpoint = EndpointInfo::new("endpoint", transport);
    let mut setup = Setup::new(endpoint, Description::new("a"), SavedState::new(crate::UID), 1);
    setup.abilities.remote_config = true;
    setup.abilities.restart = true;
    setup.settings.config_files_max = FILES_MAX;
    let mut session = Session::new(setup);
    let mut out = Outbox::new();
    let now = Now { mono: Mono(1_000), wall: Wall(1_700_000_001_000) };
    for input in [Input::Start, Input::Connected, Input::Written] {
        assert_eq!(session.handle(input, now, &mut out), Ok(()));
    }
    assert!(std::iter::from_fn(|| out.take()).any(|output| output == Output::Send));
    session
}

/// Strings are copied, and a message with a part that occurs twice is decoded and encoded again; every entry costs something.
fn bound(len: usize, entries_max: u32) -> u64 {
    let entries = u64::from(entries_max).min(len as u64 / 2);
    BASE_BYTES + 4 * len as u64 + ENTRY_BYTES * entries
}

fn limits(tape: &mut Tape<'_>) -> Limits {
    if tape.flag() {
        return Limits::default();
    }
    Limits {
        message_bytes_max: usize::from(tape.short()),
        nesting_max: tape.below(110) as u32,
        map_entries_max: tape.below(20) as u32,
        list_entries_max: tape.below(20) as u32,
        string_bytes_max: tape.below(40),
    }
}

pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut seeds = agent_seeds(&[0, 1]);
    let offer = [0x1a, 4, 0x12, 2, 1, 2];
    // More files than are taken, in an offer that comes in two pieces.
    let file = |number: u16| {
        [&[0x0a, 6, 0x0a, 2][..], &[0x40 + (number / 32) as u8, 0x40 + (number % 32) as u8], &[0x12, 0]]
            .concat()
    };
    let files: Vec<u8> = (0..600).flat_map(file).collect();
    let mut pieces = vec![0x1a, 2, 0x0a, 0];
    let (mut map, mut many) = (Vec::new(), Vec::new());
    encode::bytes_field(1, &files, &mut map);
    encode::bytes_field(3, &map, &mut many);
    pieces.extend(&many);
    for (name, message) in [
        ("server-files", many),
        ("server-files-in-pieces", pieces),
        ("server-offer", [&[0x0a, 16][..], crate::UID.as_bytes(), &offer, &[0x38, 0x7f]].concat()),
        ("server-twice", [offer, offer].concat()),
        ("server-error", vec![0x12, 6, 0x08, 2, 0x1a, 2, 0x08, 5]),
    ] {
        seeds.push((name, [&[1, 0][..], &message].concat()));
    }
    seeds
}

/// Messages of agents behind bytes that choose what is done with them. The 0 says that they are taken as they are.
pub(crate) fn agent_seeds(choice: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let attribute = |key: &str| pb::KeyValue {
        key: key.to_owned(),
        value: Some(pb::AnyValue { value: Some(pb::any_value::Value::IntValue(7)) }),
    };
    let deep = (0..40).fold(pb::ComponentHealth::default(), |below, level| pb::ComponentHealth {
        healthy: true,
        component_health_map: [(level.to_string(), below)].into(),
        ..Default::default()
    });
    let full = pb::AgentToServer {
        instance_uid: crate::UID.as_bytes().to_vec().into(),
        sequence_num: 1,
        capabilities: 0xffff,
        agent_description: Some(pb::AgentDescription {
            identifying_attributes: vec![attribute("a"), attribute("b")],
            ..Default::default()
        }),
        effective_config: Some(pb::EffectiveConfig {
            config_map: Some(pb::AgentConfigMap {
                config_map: [("f".to_owned(), pb::AgentConfigObject::default())].into(),
            }),
        }),
        package_statuses: Some(pb::PackageStatuses {
            packages: [("p".to_owned(), pb::PackageStatus::default())].into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut unknown = full.encode_to_vec();
    unknown.extend([0xc3, 0x3e, 0x0b, 0x0c, 0xc4, 0x3e]);
    let mut repeated = full.encode_to_vec();
    encode::bytes_field(Part::Health.field_number(), &deep.encode_to_vec(), &mut repeated);
    let again = repeated.clone();
    repeated.extend(again);
    let raw = |message: Vec<u8>| [choice, &[0], &message].concat();
    // Read as a tape: a message with every part, and none damaged.
    let drawn = [choice, &[1, 0, 3, 1, 0, 0xff, 0x07], &[2; 120][..]].concat();
    vec![
        ("agent-full", raw(full.encode_to_vec())),
        ("agent-deep", raw(pb::AgentToServer { health: Some(deep), ..Default::default() }.encode_to_vec())),
        ("agent-unknown", raw(unknown)),
        ("agent-repeated", raw(repeated)),
        ("agent-drawn", drawn),
    ]
}
