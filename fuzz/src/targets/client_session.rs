//! Whatever happens to an agent's session, in whatever order: it never panics or loops, asks for one thing at a time, says
//! only what it may, holds no more the longer it lasts, and ends when it is told to.

use std::time::Duration;

use opamp_client::connection::{CertificateSigningRequest, Secret, SettingsPolicy};
use opamp_client::packages::{
    PackageStatus, PackageStatuses, PackageVersion, PackagesOffer, PackagesRejected,
};
use opamp_client::session::{
    ConnectionPart, ConnectionsChange, EndpointInfo, Input, Outbox, Output, Session, Setup, Unusable,
};
use opamp_client::{
    Component, Components, ConfigHash, CustomMessage, Description, EffectiveConfig, Failure, FailureKind,
    Health, Rejected, RemoteConfig, SavedState, Transport,
};
use opamp_proto::{Limits, Mono, Now, Wall, frame};
use prost::Message as _;

use crate::memory::repeated;
use crate::messages;
use crate::tape::Tape;

/// Custom messages that may wait.
const QUEUE_MAX: usize = 6;
/// What one call may ask for.
const OUTPUTS_MAX: usize = 32;

pub(crate) fn run(input: &[u8]) {
    let mut tape = Tape::new(input);
    let mut table = Table::new(&mut tape);
    repeated(tape.rest(), |tape| table.step(tape));
    table.ends();
}

/// A session, and what it has asked for.
struct Table {
    session: Session,
    out: Outbox,
    now: Now,
    transports: Vec<Transport>,
    send_bytes_max: usize,
    headerless: bool,
    /// The transport of the connection that was asked for or stands.
    transport: Option<Transport>,
    pending: Pending,
    last_sequence: Option<u64>,
}

/// What was asked for and has not been answered.
#[derive(Default)]
struct Pending {
    apply: Option<RemoteConfig>,
    certificate: bool,
    close: bool,
    connect: bool,
    connections: Option<Box<ConnectionsChange>>,
    packages: Option<PackagesOffer>,
    probe: bool,
    write: bool,
}

impl Table {
    fn new(tape: &mut Tape<'_>) -> Self {
        let transports: Vec<Transport> =
            (0..=tape.below(2)).map(|_| tape.pick(&[Transport::WebSocket, Transport::Http])).collect();
        let names = ["wss://first.example/v1/opamp", "wss://second.example/v1/opamp"];
        let mut infos = names.into_iter().zip(&transports).map(|(name, on)| EndpointInfo::new(name, *on));
        let Some(first) = infos.next() else { unreachable!("there is an endpoint") };
        let mut setup = Setup::new(first, Description::new("a"), SavedState::new(crate::UID), 1);
        setup.fallbacks = infos.collect();
        let abilities = tape.short();
        let able = |bit: u16| abilities & (1 << bit) == 0;
        setup.abilities.remote_config = able(0);
        setup.abilities.restart = able(1);
        setup.abilities.opamp_settings = able(2);
        setup.abilities.other_connections = able(3);
        setup.abilities.own_metrics = able(4);
        setup.abilities.own_traces = able(5);
        setup.abilities.own_logs = able(6);
        setup.abilities.packages = able(7);
        setup.abilities.certificates = able(8);
        setup.abilities.durable = able(9);
        setup.abilities.certificates_name_identity = !able(10);
        if !able(11) {
            setup.abilities.policy = SettingsPolicy::strict().allow_plaintext().allow_insecure_skip_verify();
        }
        setup.settings.send_bytes_max = tape.pick(&[64 << 20, 2_000, 256]);
        setup.settings.custom_messages_max = QUEUE_MAX;
        setup.settings.custom_bytes_max = 2_000;
        setup.settings.request_uid = tape.flag();
        setup.settings.headerless = tape.below(4) == 3;
        Self {
            send_bytes_max: setup.settings.send_bytes_max,
            headerless: setup.settings.headerless,
            session: Session::new(setup),
            out: Outbox::new(),
            now: Now { mono: Mono(1_000), wall: Wall(1_700_000_000_000) },
            transports,
            transport: None,
            pending: Pending::default(),
            last_sequence: None,
        }
    }

    fn step(&mut self, tape: &mut Tape<'_>) {
        match tape.below(24) {
            0 => self.tell(Input::Start),
            1..=5 => self.obey(tape),
            6..=9 => self.receive(tape),
            10 => self.pass(Duration::from_millis(tape.short().into())),
            11 => self.pass(Duration::from_secs(tape.number() % 200_000)),
            12 => self.application(tape),
            13 => self.custom(tape),
            14 => self.packages(tape),
            15 => {
                let kind = tape.pick(&[
                    FailureKind::Auth,
                    FailureKind::Closed,
                    FailureKind::Refused,
                    FailureKind::Throttled,
                    FailureKind::Status(404),
                    FailureKind::TooLarge,
                ]);
                let mut failure = Failure::new(kind, "reset");
                if tape.flag() {
                    failure = failure.with_retry_after(Some(Duration::from_secs(tape.number())));
                }
                self.ended();
                self.tell(Input::Failed(failure));
            }
            16 => {
                self.ended();
                let code = if tape.flag() { Some(tape.short()) } else { None };
                self.tell(Input::Closed { code, reason: tape.text() });
            }
            17 => {
                let what = match tape.below(3) {
                    0 => Unusable::Text,
                    1 => Unusable::Oversize { limit: 5 },
                    _ => Unusable::Violation("masked".to_owned()),
                };
                self.tell(Input::Unusable(what));
            }
            18 => self.tell(Input::Alive),
            19 => self.tell(Input::Reconnect),
            20 => self.tell(Input::NotSaved),
            21 => self.tell(Input::RequestCertificate),
            // Who ends does not wait for what it was at.
            22 if self.session.is_stopping() => {
                self.pending.apply = None;
                self.tell(Input::Abandoned);
            }
            22 => self.tell(Input::Stop),
            _ => self.look(),
        }
    }

    /// Does one of the things that were asked for.
    fn obey(&mut self, tape: &mut Tape<'_>) {
        let pending = &mut self.pending;
        if std::mem::take(&mut pending.connect) {
            self.tell(Input::Connected);
        } else if std::mem::take(&mut pending.write) {
            self.tell(Input::Written);
        } else if std::mem::take(&mut pending.close) {
            self.transport = None;
            self.tell(Input::Closed { code: Some(1000), reason: String::new() });
        } else if let Some(change) = pending.connections.take() {
            let named = change.others.keys().map(|name| ConnectionPart::Other(name.clone()));
            let parts = named.chain(change.opamp.iter().map(|_| ConnectionPart::Opamp));
            let failed = parts.filter(|_| tape.flag()).map(|part| (part, Rejected::new("no"))).collect();
            self.tell(Input::ConnectionsOutcome { hash: change.hash, failed });
        } else if let Some(config) = pending.apply.take() {
            let result = if tape.flag() { Err(Rejected::new(tape.text())) } else { Ok(()) };
            let effective = tape.flag().then(|| EffectiveConfig::from(&config));
            self.tell(Input::ConfigOutcome { hash: config.hash().clone(), result, effective });
        } else if let Some(offer) = pending.packages.take() {
            let result = if tape.flag() { Err(PackagesRejected::new("no")) } else { Ok(()) };
            self.tell(Input::PackagesOutcome { hash: offer.hash().clone(), result });
        } else if std::mem::take(&mut pending.certificate) {
            let request = CertificateSigningRequest {
                csr: b"-----BEGIN CERTIFICATE REQUEST-----".to_vec(),
                key: Secret::from("k"),
            };
            self.tell(Input::CertificateRequest(if tape.flag() {
                Err(Rejected::new("no"))
            } else {
                Ok(request)
            }));
        } else if std::mem::take(&mut pending.probe) {
            self.tell(Input::Probed(tape.flag()));
        } else {
            self.tell(Input::Start);
        }
    }

    fn receive(&mut self, tape: &mut Tape<'_>) {
        let mut bytes = if self.transport == Some(Transport::Http) { Vec::new() } else { vec![0] };
        bytes.extend(messages::server_to_agent(tape).encode_to_vec());
        if tape.below(8) == 7 {
            bytes = messages::damaged(tape, bytes);
        }
        self.pending.write &= self.transport != Some(Transport::Http);
        self.tell(Input::Received(&bytes));
    }

    fn application(&mut self, tape: &mut Tape<'_>) {
        let input = match tape.below(4) {
            0 => Input::Health(Health::healthy(Wall(1)).status(tape.text())),
            1 => Input::Describe(Description::new("a").attribute("number", i64::from(tape.byte()))),
            2 => Input::EffectiveConfig(EffectiveConfig::single(tape.bytes(600).to_vec())),
            _ => {
                let component = Component::new().metadata("a", tape.text());
                Input::AvailableComponents(Components::new().component(tape.text(), component))
            }
        };
        self.tell(input);
    }

    fn custom(&mut self, tape: &mut Tape<'_>) {
        let names = ["com.example.ping", "com.example.ping/2", "org.other.thing"];
        if tape.below(3) == 0 {
            let names = names.iter().filter(|_| tape.flag()).map(|name| (*name).to_owned()).collect();
            return self.tell(Input::CustomCapabilities(names));
        }
        let data = vec![1; usize::from(tape.short()) % 1_500];
        let message = CustomMessage::new(tape.pick(&names), tape.text(), data);
        let _ = self.session.check_custom(&message);
        self.tell(Input::Custom(message));
    }

    /// News of packages, about the offer at hand, another one or none.
    fn packages(&mut self, tape: &mut Tape<'_>) {
        let hash = match &self.pending.packages {
            Some(offer) if tape.flag() => offer.hash().clone(),
            _ => ConfigHash::new(vec![tape.byte() % 8; 4]),
        };
        let version = PackageVersion::new(tape.text(), hash.clone());
        let status = match tape.below(3) {
            0 => PackageStatus::Installed { has: version, offered: None },
            1 => PackageStatus::Pending { offered: version, has: None },
            _ => PackageStatus::Installing { offered: version.clone(), has: Some(version) },
        };
        self.tell(Input::PackageStatuses(PackageStatuses::new(hash).package(tape.text(), status)));
    }

    /// What anybody may ask at any time.
    fn look(&mut self) {
        let (session, now) = (&self.session, self.now.mono);
        let saved = session.saved();
        assert_eq!(saved.uid, session.uid());
        let _ = (session.stats(now), session.is_connected(), session.is_applying(), session.capabilities());
        assert!(!format!("{session:?} {:?} {saved:?}", self.out).contains("secret"));
    }

    fn pass(&mut self, span: Duration) {
        let target = self.now.mono + span;
        for _ in 0..100 {
            let Some(deadline) = self.session.deadline().filter(|deadline| *deadline <= target) else {
                self.go_to(target);
                return;
            };
            self.go_to(deadline.max(self.now.mono));
            let asked = self.call(Input::Tick);
            let next = self.session.deadline();
            let moved = next.is_none_or(|next| next > self.now.mono);
            assert!(moved || asked > 0, "a driver would spin: {:?}", self.session);
            // What it asks for is not always done; a poll every 10 ms is not a loop.
            if span > Duration::from_secs(60) && self.now.mono + Duration::from_secs(60) < target {
                self.go_to(self.now.mono + span / 50);
            }
        }
    }

    fn go_to(&mut self, mono: Mono) {
        let passed = mono - self.now.mono;
        self.now = Now { mono, wall: self.now.wall + passed };
    }

    fn ended(&mut self) {
        self.transport = None;
        self.pending.connect = false;
        self.pending.write = false;
        self.pending.close = false;
    }

    fn tell(&mut self, input: Input<'_>) {
        self.call(input);
    }

    /// Says how many things were asked for, after a look at each.
    fn call(&mut self, input: Input<'_>) -> usize {
        if self.session.handle(input, self.now, &mut self.out).is_err() {
            assert!(self.session.is_stopping(), "only who was stopped refuses");
        }
        let outputs: Vec<Output> = std::iter::from_fn(|| self.out.take()).collect();
        assert!(outputs.len() <= OUTPUTS_MAX, "{} things at once", outputs.len());
        let asked = outputs.len();
        for output in outputs {
            self.asked(output);
        }
        asked
    }

    fn asked(&mut self, output: Output) {
        match output {
            Output::Abort => self.ended(),
            Output::Apply(config) => {
                assert!(self.pending.apply.replace(config).is_none(), "one configuration at a time");
            }
            Output::Close(_) => {
                assert_ne!(self.transport, Some(Transport::Http), "there is nothing to close over HTTP");
                self.pending.close = true;
            }
            Output::Connect { endpoint } => self.connecting(self.transports[endpoint]),
            Output::ConnectOffered(settings) => {
                let http = settings.endpoint.starts_with("http");
                self.connecting(if http { Transport::Http } else { Transport::WebSocket });
            }
            Output::Connections(change) => {
                assert!(
                    self.pending.connections.replace(change).is_none(),
                    "one change of connections at a time"
                );
            }
            Output::Event(event) => {
                let line = event.to_string();
                assert!(line.len() < 6_000 && !line.contains(char::is_control), "fit for a log: {line:?}");
                assert!(!line.contains("secret"), "{line}");
            }
            Output::Probe { .. } | Output::ProbeOffered(_) => self.pending.probe = true,
            Output::RequestCertificate(_) => {
                assert!(!std::mem::replace(&mut self.pending.certificate, true), "one request at a time");
            }
            Output::Send => self.sent(),
            Output::SyncPackages(offer) => {
                assert!(self.pending.packages.replace(offer).is_none(), "one offer of packages at a time");
            }
            _ => {}
        }
    }

    fn connecting(&mut self, transport: Transport) {
        self.ended();
        self.transport = Some(transport);
        self.pending.connect = true;
    }

    fn sent(&mut self) {
        assert!(!self.pending.write, "one message at a time");
        self.pending.write = true;
        let message = self.out.message();
        assert!(message.len() <= self.send_bytes_max.max(256), "{} bytes", message.len());
        let framed = self.transport == Some(Transport::WebSocket) && !self.headerless;
        let payload = if framed { frame::decode(message) } else { Ok(message) };
        let Ok(payload) = payload else { panic!("a message begins with its header") };
        let decoded = match opamp_proto::AgentMessage::decode(payload, &Limits::default()) {
            Ok(decoded) => decoded,
            Err(error) => panic!("what the agent says does not decode: {error}"),
        };
        assert_eq!(decoded.instance_uid(), Ok(self.session.uid()));
        let number = decoded.sequence_num().0;
        assert!(self.last_sequence.is_none_or(|last| number == last.wrapping_add(1)), "every message counts");
        self.last_sequence = Some(number);
        assert_eq!(decoded.capabilities().bits() & !0xffff, 0);
    }

    /// Told to stop, it takes leave as far as that is possible, and ends.
    fn ends(&mut self) {
        self.tell(Input::Stop);
        for _ in 0..50 {
            if self.session.is_finished() {
                break;
            }
            if std::mem::take(&mut self.pending.close) {
                self.tell(Input::Closed { code: Some(1000), reason: String::new() });
            }
            match self.session.deadline() {
                Some(deadline) => {
                    self.go_to(deadline.max(self.now.mono));
                    self.tell(Input::Tick);
                }
                None => break,
            }
        }
        assert!(self.session.is_finished(), "told to stop, it goes on: {:?}", self.session);
    }
}

pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    // Transports, abilities, limits; then events: start (0), what is asked for (1), a message of the server (6), time (10, 11).
    let on = |transport| [0, transport, 0, 0, 0, 0, 0];
    let begin = [0, 1, 1, 12, 0, 0];
    let server = |parts: u8| [&[6, 0, 1, 0, 0, parts, 0][..], &[2; 50]].concat();
    let with = |transport, events: &[&[u8]]| [&on(transport)[..], &begin, &events.concat()].concat();
    vec![
        ("websocket", with(0, &[&server(0xff), &[1, 1, 1, 10, 200, 200, 18, 1, 1, 23]])),
        ("http", with(1, &[&server(0xff), &[1, 1, 11, 60, 1, 1, 1, 23]])),
        ("settings", with(0, &[&server(4), &[1, 1, 1, 1, 1, 1], &server(0), &[1, 1, 11, 90]])),
        ("packages", with(0, &[&server(8), &[1, 1, 14, 1, 0, 1, 14, 0, 1, 2, 1, 1]])),
        ("custom", with(0, &[&server(0xc0), &[13, 0, 1, 1, 1, 13, 1, 9, 0, 0, 1, 1, 21, 1, 1]])),
        ("failures", with(0, &[&[15, 0, 0, 0, 11, 220, 3, 1, 16, 1, 3, 0, 19, 17, 0, 11, 250, 20, 22]])),
    ]
}
