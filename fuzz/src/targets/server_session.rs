//! Whatever happens to a server's session, in whatever order: it never panics or loops, says only what both sides can,
//! and holds no more the longer it lasts.

use std::sync::Arc;
use std::time::Duration;

use opamp_proto::{
    AgentCapabilities as Agent, AgentMessage, Held as _, InstanceUid, Limits, Mono, Now, Part, PartSet,
    ServerCapabilities, Wall, material, pb,
};
use opamp_server::session::{CapabilityMismatch, Input, Outbox, Session, SessionSettings};
use opamp_server::{
    ConnectionInfo, ConnectionSettingsOffer, CustomCapabilities, CustomMessage, Desired, DisconnectReason,
    Liveness, PackagesOffer, Principal, RefusalReason, RemoteConfigOffer, Target, Transport,
};
use prost::Message as _;

use crate::memory::repeated;
use crate::messages;
use crate::tape::Tape;

/// Custom messages that may wait.
const QUEUE_MAX: usize = 6;
/// What one call may make the server say: an answer or a push, an order to restart, a refusal, and the custom messages.
const MESSAGES_MAX: usize = 4 + QUEUE_MAX;

pub(crate) fn run(input: &[u8]) {
    let mut tape = Tape::new(input);
    let mut table = Table::new(&mut tape);
    repeated(tape.rest(), |tape| table.step(tape));
    table.comes_to_rest();
}

/// A session, and what drives it.
struct Table {
    session: Session,
    out: Outbox,
    now: Now,
    transport: Option<Transport>,
    generation: u64,
    connections: u64,
}

impl Table {
    fn new(tape: &mut Tape<'_>) -> Self {
        let all = ServerCapabilities::from_bits(0x7f);
        let names = ["com.example.ping", "com.example.ping/2"];
        let custom_capabilities = match CustomCapabilities::new(names) {
            Ok(capabilities) => capabilities,
            Err(error) => panic!("{error}"),
        };
        let settings = SessionSettings {
            capabilities: if tape.flag() { ServerCapabilities::from_bits(tape.number()) } else { all },
            capability_mismatch: tape.pick(&[CapabilityMismatch::Ignore, CapabilityMismatch::Reject]),
            send_bytes_max: tape.pick(&[64 << 20, 2_000, 700]),
            custom_capabilities,
            custom_queue_max: QUEUE_MAX,
            custom_queue_bytes_max: 2_000,
            ..SessionSettings::default()
        };
        let now = Now { mono: Mono(1_000), wall: Wall(1_700_000_000_000) };
        Self {
            session: Session::new(crate::UID, &settings, now),
            out: Outbox::new(settings),
            now,
            transport: None,
            generation: 0,
            connections: 0,
        }
    }

    fn step(&mut self, tape: &mut Tape<'_>) {
        match tape.below(20) {
            0..=5 => {
                let message = messages::agent_to_server(tape);
                self.message(message, tape);
            }
            6 => self.message(self.later(), tape),
            7 => self.attach(tape.pick(&[Transport::WebSocket, Transport::Http])),
            8 => {
                let reason = tape.pick(&[
                    DisconnectReason::Closed,
                    DisconnectReason::Graceful,
                    DisconnectReason::Replaced,
                    DisconnectReason::Refused(RefusalReason::Malformed),
                ]);
                self.tell(Input::Detached(reason));
                self.transport = None;
            }
            9 => self.pass(Duration::from_millis(tape.short().into())),
            10 => self.pass(Duration::from_secs(tape.number() % 1_000_000)),
            11 => self.desire(tape),
            12 => {
                if let Some(offer) = settings_offer(tape) {
                    self.tell(Input::CertificateIssued(Target::new(self.generation, Some(offer))));
                }
            }
            13 => self.tell(Input::CertificateRefused("no".repeat(tape.below(200)))),
            14 => {
                let list = pb::AvailableComponents {
                    hash: vec![tape.byte() % 4; 4].into(),
                    components: [("a".to_owned(), pb::ComponentDetails::default())].into(),
                };
                self.tell(Input::Components(list.encode_to_vec().into()));
            }
            15 => self.custom(tape),
            16 => {
                let input = match tape.below(4) {
                    0 => Input::RequestFullState,
                    1 => Input::Restart,
                    2 => Input::UidConflict,
                    _ => Input::Unwritten,
                };
                self.tell(input);
            }
            17 => self.tell(Input::Alive),
            18 => self.look(),
            _ => self.tell(Input::Wake),
        }
    }

    /// A message that a driver would hand to this session.
    fn message(&mut self, mut message: pb::AgentToServer, tape: &mut Tape<'_>) {
        let known = [Some(self.session.uid()), self.session.assigned_uid()];
        let sender = InstanceUid::try_from(&*message.instance_uid).ok();
        if sender.is_some_and(|sender| !known.contains(&Some(sender))) {
            message.instance_uid = self.session.uid().as_bytes().to_vec().into();
        }
        let mut bytes = message.encode_to_vec();
        if tape.below(8) == 7 {
            bytes = messages::damaged(tape, bytes);
        }
        let decoded = AgentMessage::decode_knowing(&bytes, &Limits::default(), |_| Some(&self.session));
        let Ok(message) = decoded else { return };
        let sender = message.instance_uid().ok();
        if sender.is_some_and(|sender| !known.contains(&Some(sender))) {
            return;
        }
        let assign = Some(InstanceUid::from_bytes([tape.byte() | 0x80; 16]));
        let refused = self.session.vet(&message, self.out.settings()).is_err();
        let taken: PartSet =
            message.parts().iter().filter(|part| self.session.would_take(&message, *part)).collect();
        let handled = self.call(Input::Message { message: &message, assign });
        assert_eq!(handled, !refused, "what is refused is what would be refused");
        if handled && self.transport == Some(Transport::Http) {
            assert_eq!(self.out.messages().len(), 1, "a request has one answer");
        }
        if handled {
            self.holds(&message, taken);
        }
        if handled && message.parts().contains(Part::AgentDisconnect) {
            self.transport = None;
        }
        // Half of the time the application takes what was handed to it.
        if tape.flag() {
            let _ = self.out.take_certificate_request();
            let _ = self.out.take_custom();
        }
    }

    /// A message that says again what is held of health, at another time.
    fn later(&self) -> pb::AgentToServer {
        let held = self.session.part(Part::Health).map(|held| pb::ComponentHealth::decode(held.encoded));
        let mut health = held.and_then(Result::ok).unwrap_or_default();
        health.status_time_unix_nano = health.status_time_unix_nano.wrapping_add(1).max(1);
        pb::AgentToServer {
            instance_uid: self.session.uid().as_bytes().to_vec().into(),
            capabilities: (self.session.negotiated().agent() | Agent::REPORTS_HEALTH).bits(),
            health: Some(health),
            ..Default::default()
        }
    }

    /// Every status that was taken is held as it came, and what is held has the digest of its bytes.
    fn holds(&self, message: &AgentMessage<'_>, taken: PartSet) {
        for part in PartSet::STATUS.iter() {
            if let Some(encoded) = message.part(part).filter(|_| taken.contains(part)) {
                assert!(self.session.holds(part, encoded), "{part}");
            }
            if let Some(held) = self.session.part(part) {
                assert_eq!(held.digest, material::digest(part, held.encoded), "{part}");
            }
        }
    }

    fn attach(&mut self, transport: Transport) {
        self.connections += 1;
        let info = ConnectionInfo {
            id: self.connections,
            transport,
            remote_addr: None,
            principal: Principal::anonymous(),
            connected_at: self.now.wall,
        };
        self.transport = Some(transport);
        self.tell(Input::Attached(Arc::new(info)));
    }

    fn desire(&mut self, tape: &mut Tape<'_>) {
        self.generation += tape.below(3) as u64;
        let generation = self.generation;
        let desired = match tape.below(4) {
            0 => Desired::default(),
            1 => {
                let offer = messages::remote_config(tape);
                let hash = opamp_proto::ConfigHash::new(offer.config_hash.to_vec());
                Desired::remote_config(
                    generation,
                    RemoteConfigOffer::new(hash, &offer.config.unwrap_or_default()),
                )
            }
            2 => Desired::connection_settings(generation, settings_offer(tape)),
            _ => Desired::packages(generation, PackagesOffer::new(messages::packages_available(tape)).ok()),
        };
        self.tell(Input::Desired(desired));
    }

    fn custom(&mut self, tape: &mut Tape<'_>) {
        let message = CustomMessage {
            capability: tape.pick(&["com.example.ping", "com.example.ping/2", "org.other.thing"]).to_owned(),
            kind: tape.text(),
            data: vec![1; tape.short() as usize % 1_500].into(),
        };
        let settings = self.out.settings().clone();
        let _ = self.session.queue_custom(message, &settings);
    }

    /// What anybody may ask at any time.
    fn look(&mut self) {
        let _ = self.session.take_change();
        assert!(!self.session.has_change());
        let _ = self.session.take_checkpoint();
        let _ = self.session.is_forgettable(self.now.wall, Duration::from_secs(60), true);
        let snapshot = self.session.snapshot();
        assert_eq!(snapshot.uid, self.session.uid());
        assert!(!format!("{:?} {snapshot:?} {:?}", self.session, self.out).is_empty());
    }

    fn pass(&mut self, span: Duration) {
        let target = self.now.mono + span;
        for _ in 0..8 {
            let settings = self.out.settings().clone();
            let Some(deadline) = self.session.deadline(&settings).filter(|deadline| *deadline <= target)
            else {
                self.go_to(target);
                return;
            };
            self.go_to(deadline.max(self.now.mono));
            self.tell(Input::Tick);
            let next = self.session.deadline(&settings);
            assert!(next.is_none_or(|next| next > self.now.mono), "a driver would spin");
        }
        panic!("it never comes to rest");
    }

    fn go_to(&mut self, mono: Mono) {
        let passed = mono - self.now.mono;
        self.now = Now { mono, wall: self.now.wall + passed };
    }

    fn tell(&mut self, input: Input<'_>) {
        assert!(self.call(input), "nothing but a message is refused");
    }

    /// Says whether the input was taken, and looks at everything that is to be sent.
    fn call(&mut self, input: Input<'_>) -> bool {
        let answers = matches!(input, Input::Message { .. });
        self.out.clear();
        let handled = self.session.handle(input, self.now, &mut self.out);
        let sent: Vec<Vec<u8>> = self.out.messages().map(<[u8]>::to_vec).collect();
        assert!(sent.len() <= MESSAGES_MAX, "{} messages at once", sent.len());
        if !answers {
            let can_push = self.transport == Some(Transport::WebSocket);
            assert!(sent.is_empty() || can_push, "nothing is sent to who cannot be reached");
        }
        let sent: Vec<pb::ServerToAgent> = sent.iter().map(|framed| self.checked(framed)).collect();
        if let Err(error) = handled {
            assert!(sent.is_empty() && !error.to_string().is_empty());
            return false;
        }
        for message in &sent {
            self.allowed(message);
        }
        true
    }

    fn checked(&self, framed: &[u8]) -> pb::ServerToAgent {
        let Some((0, message)) = framed.split_first().map(|(header, rest)| (*header, rest)) else {
            panic!("a message begins with its header");
        };
        let max = self.out.settings().send_bytes_max;
        assert!(message.len() <= max, "{} bytes, more than {max}", message.len());
        match pb::ServerToAgent::decode(message) {
            Ok(decoded) => decoded,
            Err(error) => panic!("what the server says does not decode: {error}"),
        }
    }

    /// Both sides can do what the message speaks of, and orders come alone.
    fn allowed(&self, message: &pb::ServerToAgent) {
        assert_eq!(message.instance_uid.len(), 16);
        let (agent, server) = (self.session.negotiated().agent(), self.out.settings().announced());
        let both = |agent_can, server_can| agent.contains(agent_can) && server.contains(server_can);
        if message.remote_config.is_some() {
            assert!(both(Agent::ACCEPTS_REMOTE_CONFIG, ServerCapabilities::OFFERS_REMOTE_CONFIG));
        }
        if message.packages_available.is_some() {
            assert!(both(Agent::ACCEPTS_PACKAGES, ServerCapabilities::OFFERS_PACKAGES));
        }
        if let Some(offer) = &message.connection_settings {
            let offers = ServerCapabilities::OFFERS_CONNECTION_SETTINGS;
            assert!(server.contains(offers) && !offer.hash.is_empty());
            for (is_offered, capability) in [
                (offer.own_metrics.is_some(), Agent::REPORTS_OWN_METRICS),
                (offer.own_traces.is_some(), Agent::REPORTS_OWN_TRACES),
                (offer.own_logs.is_some(), Agent::REPORTS_OWN_LOGS),
                (!offer.other_connections.is_empty(), Agent::ACCEPTS_OTHER_CONNECTION_SETTINGS),
            ] {
                assert!(!is_offered || agent.contains(capability), "{capability:?}");
            }
        }
        if let Some(custom) = &message.custom_message {
            assert!(self.out.settings().custom_capabilities.contains(&custom.capability));
        }
        if message.command.is_some() {
            assert!(agent.contains(Agent::ACCEPTS_RESTART_COMMAND));
            let alone = pb::ServerToAgent {
                instance_uid: message.instance_uid.clone(),
                capabilities: message.capabilities,
                command: message.command,
                ..Default::default()
            };
            assert_eq!(message, &alone, "an order comes alone (R-CMD-01)");
        }
    }

    /// Left alone, every agent is given up some day, and then nothing more is due.
    fn comes_to_rest(&mut self) {
        self.pass(Duration::from_secs(30 * 24 * 3600));
        let deadline = self.session.deadline(self.out.settings());
        let stale =
            self.session.liveness() == Liveness::Stale && self.transport == Some(Transport::WebSocket);
        assert!(deadline.is_none() && (stale || self.session.liveness() == Liveness::Disconnected));
    }
}

fn settings_offer(tape: &mut Tape<'_>) -> Option<ConnectionSettingsOffer> {
    let offer = messages::connection_settings(tape);
    if tape.flag() {
        Some(ConnectionSettingsOffer::restored(offer))
    } else {
        ConnectionSettingsOffer::new(offer).ok()
    }
}

pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    // Settings, then events: attach (7), messages (0), health of later (6), wake (19), time (9, 10), desires (11).
    let settings = [0, 0, 0];
    let full = [&[0, 0, 1, 1, 0, 0xff, 7][..], &[2; 60]].concat();
    let config = [11, 1, 1, 1, 1, 1, 2, 0, 0, 1];
    let custom = [15, 0, 2, 0, 1, 10, 0];
    let with = |events: &[&[u8]]| [&settings[..], &events.concat()].concat();
    vec![
        ("websocket", with(&[&[7, 0], &full, &config, &[19], &[9, 0, 200], &full, &custom, &[19]])),
        ("http", with(&[&[7, 1], &full, &config, &full, &[10, 220, 255], &full])),
        ("settings", with(&[&[7, 0], &full, &[11, 1, 2], &[1; 40], &[19], &full])),
        ("packages", with(&[&[7, 0], &full, &[11, 1, 3], &[1; 40], &[19], &full, &[16, 1, 19, 18]])),
        ("later", with(&[&[7, 0, 6, 0, 0, 0, 6, 0, 0, 0, 6, 0, 0, 0], &full, &[6, 0, 0, 0]])),
        ("comes-and-goes", with(&[&[7, 0, 8, 0, 7, 1, 8, 1, 16, 0, 16, 1, 16, 3, 17, 10, 255], &full])),
    ]
}
