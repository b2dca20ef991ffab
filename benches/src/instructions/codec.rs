//! Decoding what agents send, encoding what they are answered, making digests.

use std::hint::black_box;

use opamp_proto::encode::{self, server_to_agent as field};
use opamp_proto::{AgentMessage, Limits, Part, frame, hash, material, pb};
use prost::Message as _;

use super::{Round, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "codec/decode_heartbeat", rounds: 1_000, prepare: |_| decode(&crate::heartbeat()) },
    Scenario { name: "codec/decode_status_2kb", rounds: 200, prepare: |_| decode(&crate::status()) },
    Scenario {
        name: "codec/decode_full_state_10kb",
        rounds: 100,
        prepare: |_| decode(&crate::full_state(1)),
    },
    Scenario {
        name: "codec/decode_full_state_10kb_many",
        rounds: 100,
        prepare: |_| decode(&crate::full_state_of_many(1)),
    },
    Scenario { name: "codec/encode_offer_4kb", rounds: 200, prepare: |_| encode_offer() },
    Scenario { name: "codec/hash_config_4kb", rounds: 20, prepare: |_| hash_config() },
    Scenario { name: "codec/digest_health_2kb", rounds: 100, prepare: |_| digest_health() },
];

fn decode(message: &[u8]) -> Round {
    let mut framed = Vec::new();
    frame::encode(message, &mut framed);
    let limits = Limits::default();
    Box::new(move || {
        let decoded = frame::decode(black_box(&framed)).map(|bytes| AgentMessage::decode(bytes, &limits));
        match decoded {
            Ok(Ok(message)) => _ = black_box(message.parts()),
            other => unreachable!("the messages decode: {other:?}"),
        }
    })
}

fn encode_offer() -> Round {
    let config = crate::config(4_096);
    let offer =
        pb::AgentRemoteConfig { config_hash: hash::config_hash(&config).to_bytes(), config: Some(config) };
    let offer = offer.encode_to_vec();
    let mut out = Vec::with_capacity(8 * 1024);
    Box::new(move || {
        out.clear();
        out.push(frame::HEADER);
        encode::uid_field(field::INSTANCE_UID, black_box(&crate::UID), &mut out);
        encode::varint_field(field::CAPABILITIES, black_box(7), &mut out);
        encode::bytes_field(field::REMOTE_CONFIG, black_box(&offer), &mut out);
        black_box(out.len());
    })
}

fn hash_config() -> Round {
    let config = crate::config(4_096);
    Box::new(move || _ = black_box(hash::config_hash(black_box(&config))))
}

fn digest_health() -> Round {
    let health = crate::health(30, 1).encode_to_vec();
    Box::new(move || _ = black_box(material::digest(Part::Health, black_box(&health))))
}
