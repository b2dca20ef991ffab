//! What one message costs between the frame and the answer: codec and session together.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use opamp_proto::{AgentMessage, ConfigHash, Limits, Mono, Now, Part, Wall, encode, pb};
use opamp_server::session::{Input, Outbox, Session, SessionSettings};
use opamp_server::{ConnectionInfo, Desired, Principal, RemoteConfigOffer, Transport};
use prost::Message as _;

use super::{Round, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "session/heartbeat", rounds: 1_000, prepare: heartbeats },
    Scenario { name: "session/status_2kb", rounds: 200, prepare: statuses },
    Scenario { name: "session/status_2kb_shuffled", rounds: 200, prepare: shuffled_statuses },
    Scenario { name: "session/full_state_10kb", rounds: 100, prepare: full_states },
    Scenario { name: "session/full_state_10kb_many", rounds: 100, prepare: full_states_of_many },
    Scenario { name: "session/gap_then_full_state_10kb", rounds: 100, prepare: gaps },
    Scenario { name: "session/offer_4kb_and_applied", rounds: 200, prepare: offers },
];

/// The conversation with one agent on a WebSocket that has reported everything once.
struct Conversation {
    session: Session,
    out: Outbox,
    limits: Limits,
    now_ms: u64,
    sequence_num: u64,
}

impl Conversation {
    fn new() -> Self {
        let settings = SessionSettings::default();
        let connection = ConnectionInfo {
            id: 1,
            transport: Transport::WebSocket,
            remote_addr: None,
            principal: Principal::anonymous(),
            connected_at: Wall(0),
        };
        let mut conversation = Self {
            session: Session::new(crate::UID, &settings, at(0)),
            out: Outbox::new(settings),
            limits: Limits::default(),
            now_ms: 0,
            sequence_num: 0,
        };
        conversation.handle(Input::Attached(Arc::new(connection)));
        let first = conversation.next(full_state(0));
        conversation.receive(&first);
        conversation
    }

    /// A message with the next number.
    fn next(&mut self, state: pb::AgentToServer) -> Vec<u8> {
        self.sequence_num += 1;
        let message = pb::AgentToServer {
            instance_uid: Bytes::copy_from_slice(crate::UID.as_bytes()),
            sequence_num: self.sequence_num,
            capabilities: crate::CAPABILITIES.bits(),
            ..state
        };
        message.encode_to_vec()
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.out.clear();
        self.now_ms += 10;
        let now = at(self.now_ms);
        let decoded = AgentMessage::decode_knowing(black_box(bytes), &self.limits, |_| Some(&self.session));
        let handled = match decoded {
            Ok(message) => {
                self.session.handle(Input::Message { message: &message, assign: None }, now, &mut self.out)
            }
            Err(error) => unreachable!("the messages decode: {error}"),
        };
        if let Err(error) = handled {
            unreachable!("the messages are in order: {error}");
        }
        assert!(self.sent() > 0, "every message is answered");
    }

    fn handle(&mut self, input: Input<'_>) {
        if let Err(error) = self.session.handle(input, at(self.now_ms), &mut self.out) {
            unreachable!("no message is refused: {error}");
        }
    }

    /// Bytes of the answers.
    fn sent(&self) -> usize {
        black_box(self.out.messages().map(<[u8]>::len).sum())
    }
}

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms), wall: Wall(ms) }
}

/// Does a round with each message in turn.
fn over<M: 'static>(messages: Vec<M>, mut round: impl FnMut(&M) + 'static) -> Round {
    let mut next = 0;
    Box::new(move || {
        round(&messages[next]);
        next += 1;
    })
}

fn received(rounds: u32, state: impl Fn(u64) -> pb::AgentToServer) -> Round {
    let mut conversation = Conversation::new();
    let messages = (1..=rounds).map(|tick| conversation.next(state(tick.into()))).collect::<Vec<_>>();
    over(messages, move |message| conversation.receive(message))
}

fn heartbeats(rounds: u32) -> Round {
    received(rounds, |_| pb::AgentToServer::default())
}

/// Nothing but times differs from one report to the next.
fn statuses(rounds: u32) -> Round {
    received(rounds, |tick| pb::AgentToServer {
        health: Some(crate::health(30, tick)),
        ..pb::AgentToServer::default()
    })
}

/// As of an agent in whose language maps have no order: the components come in another one each time.
fn shuffled_statuses(rounds: u32) -> Round {
    const COMPONENTS: usize = 30;
    let mut conversation = Conversation::new();
    let status = |tick: u32| {
        let health = crate::health(COMPONENTS, tick.into());
        let mut bytes = conversation.next(pb::AgentToServer::default());
        let mut encoded =
            pb::ComponentHealth { component_health_map: BTreeMap::new(), ..health.clone() }.encode_to_vec();
        // 7 has no divisor in common with their number.
        for place in 0..COMPONENTS {
            let at = (place * 7 + tick as usize) % COMPONENTS;
            let entry = health
                .component_health_map
                .iter()
                .nth(at)
                .map(|(name, health)| (name.clone(), health.clone()));
            let one = pb::ComponentHealth {
                component_health_map: entry.into_iter().collect(),
                ..Default::default()
            };
            encoded.extend(one.encode_to_vec());
        }
        encode::bytes_field(Part::Health.field_number(), &encoded, &mut bytes);
        bytes
    };
    let messages = (1..=rounds).map(status).collect();
    over(messages, move |message: &Vec<u8>| conversation.receive(message))
}

fn full_states(rounds: u32) -> Round {
    received(rounds, full_state)
}

fn full_states_of_many(rounds: u32) -> Round {
    received(rounds, |tick| decoded(&crate::full_state_of_many(tick)))
}

/// A heartbeat after a lost message, and the report that it is answered to make.
fn gaps(rounds: u32) -> Round {
    let mut conversation = Conversation::new();
    let round = |tick: u32| {
        conversation.sequence_num += 1;
        let late = conversation.next(pb::AgentToServer::default());
        (late, conversation.next(full_state(tick.into())))
    };
    let messages = (1..=rounds).map(round).collect();
    over(messages, move |(late, full): &(Vec<u8>, Vec<u8>)| {
        conversation.receive(late);
        conversation.receive(full);
    })
}

/// A config goes out unasked, and the agent says that it runs it.
fn offers(rounds: u32) -> Round {
    let mut conversation = Conversation::new();
    let round = |generation: u32| {
        let mut hash = vec![0; 32];
        hash[..4].copy_from_slice(&generation.to_be_bytes());
        let offer = RemoteConfigOffer::new(ConfigHash::new(hash.clone()), &crate::config(4_096));
        let status = pb::RemoteConfigStatus {
            last_remote_config_hash: hash.into(),
            status: pb::RemoteConfigStatuses::Applied.into(),
            error_message: String::new(),
        };
        let applied = pb::AgentToServer { remote_config_status: Some(status), ..Default::default() };
        (Desired::remote_config(generation.into(), offer), conversation.next(applied))
    };
    let messages = (1..=rounds).map(round).collect();
    over(messages, move |(desired, applied): &(Desired, Vec<u8>)| {
        conversation.out.clear();
        conversation.handle(Input::Desired(desired.clone()));
        conversation.handle(Input::Wake);
        assert!(conversation.sent() > 4_096, "the config goes out");
        conversation.receive(applied);
    })
}

/// Everything a collector reports, with times of this second.
fn full_state(tick: u64) -> pb::AgentToServer {
    decoded(&crate::full_state(tick))
}

fn decoded(message: &[u8]) -> pb::AgentToServer {
    match pb::AgentToServer::decode(message) {
        Ok(state) => state,
        Err(error) => unreachable!("it was encoded here: {error}"),
    }
}
