//! Whatever agents do, whatever is lost: in the end they have what they should have, and nothing more is sent.

use proptest::prelude::*;

use super::*;
use crate::desired::{ConnectionSettingsOffer, PackagesOffer};

const GATES: [Caps; 6] = [
    Caps::ACCEPTS_REMOTE_CONFIG,
    Caps::ACCEPTS_PACKAGES,
    Caps::ACCEPTS_OPAMP_CONNECTION_SETTINGS,
    Caps::REPORTS_OWN_METRICS,
    Caps::REPORTS_OWN_LOGS,
    Caps::ACCEPTS_OTHER_CONNECTION_SETTINGS,
];
const REPORTS: [Caps; 3] =
    [Caps::REPORTS_REMOTE_CONFIG, Caps::REPORTS_PACKAGE_STATUSES, Caps::REPORTS_CONNECTION_SETTINGS_STATUS];

#[derive(Clone, Debug)]
enum Op {
    Beat,
    /// One of the gates opens or closes.
    Capability(usize),
    /// The connection breaks while the answer is written.
    CutWhileWriting,
    /// The connection breaks behind what the server wrote: the agent gets nothing of it.
    CutBehind,
    Desire(u8, u8),
    /// A request does not reach the server.
    LoseRequest,
    /// The answer to a poll is lost, and the agent repeats the poll.
    Repeat,
    /// The agent's process restarts; it keeps what it has, and counts from the start.
    Restart,
    Switch,
    Wait(u16),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Beat),
        2 => (0..GATES.len()).prop_map(Op::Capability),
        1 => Just(Op::CutWhileWriting),
        1 => Just(Op::CutBehind),
        4 => (0u8..3, 0u8..3).prop_map(|(kind, value)| Op::Desire(kind, value)),
        1 => Just(Op::LoseRequest),
        1 => Just(Op::Repeat),
        1 => Just(Op::Restart),
        1 => Just(Op::Switch),
        2 => (1u16..200).prop_map(Op::Wait),
    ]
}

fn settings(value: u8) -> ConnectionSettingsOffer {
    let telemetry = |value: u8| {
        let destination_endpoint = format!("https://h/{value}");
        Some(pb::TelemetryConnectionSettings { destination_endpoint, ..Default::default() })
    };
    let other = pb::OtherConnectionSettings {
        destination_endpoint: format!("db-{}", value / 2),
        ..Default::default()
    };
    ConnectionSettingsOffer::new(pb::ConnectionSettingsOffers {
        opamp: Some(pb::OpAmpConnectionSettings {
            destination_endpoint: "wss://h".into(),
            ..Default::default()
        }),
        own_metrics: telemetry(value),
        own_logs: telemetry(9),
        other_connections: [("db".to_owned(), other)].into(),
        ..Default::default()
    })
    .unwrap()
}

fn packages(value: u8) -> PackagesOffer {
    let file = pb::DownloadableFile {
        download_url: "https://h/f".into(),
        content_hash: vec![value; 32].into(),
        ..Default::default()
    };
    let package = pb::PackageAvailable { file: Some(file), ..Default::default() };
    let packages = [("p".to_owned(), package)].into();
    PackagesOffer::new(pb::PackagesAvailable { packages, ..Default::default() }).unwrap()
}

/// An agent that takes what it is offered, and says so if it announced that it does.
struct World {
    table: Table,
    transport: Transport,
    generation: u64,
    desired: [Option<u8>; 3],
    config: Bytes,
    packages: Bytes,
    settings: pb::ConnectionSettingsOffers,
    /// What it has to report with its next message: config, packages, settings.
    news: [bool; 3],
    offers: usize,
}

impl World {
    fn new(transport: Transport, reports: [bool; 3]) -> Self {
        let mut table = Table::on(transport);
        for (capability, on) in REPORTS.iter().zip(reports) {
            if !on {
                table.capabilities &= !capability.bits();
            }
        }
        let mut world = Self {
            table,
            transport,
            generation: 0,
            desired: [None; 3],
            config: Bytes::new(),
            packages: Bytes::new(),
            settings: pb::ConnectionSettingsOffers::default(),
            news: [false; 3],
            offers: 0,
        };
        world.beat(true);
        world
    }

    fn has(&self, capability: Caps) -> bool {
        Caps::from_bits(self.table.capabilities).contains(capability)
    }

    fn message(&self) -> pb::AgentToServer {
        let report = |kind: usize| self.news[kind] && self.has(REPORTS[kind]);
        pb::AgentToServer {
            instance_uid: Bytes::copy_from_slice(UID.as_bytes()),
            sequence_num: self.table.sequence,
            capabilities: self.table.capabilities,
            remote_config_status: report(0).then(|| pb::RemoteConfigStatus {
                last_remote_config_hash: self.config.clone(),
                status: pb::RemoteConfigStatuses::Applied as i32,
                ..Default::default()
            }),
            package_statuses: report(1).then(|| pb::PackageStatuses {
                server_provided_all_packages_hash: self.packages.clone(),
                ..Default::default()
            }),
            connection_settings_status: report(2).then(|| pb::ConnectionSettingsStatus {
                last_connection_settings_hash: self.settings.hash.clone(),
                status: pb::ConnectionSettingsStatuses::Applied as i32,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// Sends the next message; takes what is answered, if it arrives.
    fn beat(&mut self, arrives: bool) {
        self.table.sequence += 1;
        let message = self.message();
        let sent = self.table.raw(&message).unwrap();
        if arrives {
            self.news = [false; 3];
            self.take(sent);
            // Reports follow at once, until there is nothing new.
            for _ in 0..8 {
                if self.news == [false; 3] {
                    break;
                }
                self.table.sequence += 1;
                let message = self.message();
                self.news = [false; 3];
                let sent = self.table.raw(&message).unwrap();
                self.take(sent);
            }
        }
    }

    fn take(&mut self, messages: Vec<pb::ServerToAgent>) {
        for message in messages {
            if message.flags & 1 == 1 {
                self.news =
                    [!self.config.is_empty(), !self.packages.is_empty(), !self.settings.hash.is_empty()];
            }
            if let Some(offer) = message.remote_config {
                assert!(self.has(GATES[0]), "gated");
                self.offers += 1;
                self.config = offer.config_hash;
                self.news[0] = true;
            }
            if let Some(offer) = message.packages_available {
                assert!(self.has(GATES[1]), "gated");
                self.offers += 1;
                self.packages = offer.all_packages_hash;
                self.news[1] = true;
            }
            if let Some(offer) = message.connection_settings {
                self.offers += 1;
                assert!(self.has(GATES[2]) || offer.opamp.is_none());
                assert!(self.has(GATES[3]) || offer.own_metrics.is_none());
                assert!(self.has(GATES[4]) || offer.own_logs.is_none());
                assert!(self.has(GATES[5]) || offer.other_connections.is_empty());
                let has = &mut self.settings;
                has.hash = offer.hash;
                has.opamp = offer.opamp.or(has.opamp.take());
                has.own_metrics = offer.own_metrics.or(has.own_metrics.take());
                has.own_logs = offer.own_logs.or(has.own_logs.take());
                has.other_connections.extend(offer.other_connections);
                self.news[2] = true;
            }
        }
    }

    fn reconnect(&mut self) {
        self.table.input(Input::Detached(DisconnectReason::Closed));
        self.table.attach(self.transport);
    }

    fn run(&mut self, op: &Op) {
        let http = self.transport == Transport::Http;
        match op {
            Op::Beat => self.beat(true),
            Op::Capability(index) => {
                self.beat(true);
                self.table.capabilities ^= GATES[*index].bits();
                self.beat(true);
            }
            Op::CutWhileWriting if !http => {
                self.beat(false);
                self.table.input(Input::Unwritten);
                self.reconnect();
            }
            // Over a socket this loses settings for an agent that says nothing about them: they are offered once.
            Op::CutBehind if !http && self.has(REPORTS[2]) => {
                self.beat(false);
                self.reconnect();
            }
            Op::LoseRequest => self.table.sequence += 1,
            Op::Repeat if http => {
                self.beat(false);
                self.table.sequence -= 1;
                self.beat(true);
            }
            Op::CutWhileWriting | Op::CutBehind | Op::Repeat => {}
            Op::Restart => {
                self.reconnect();
                self.table.sequence = 1_000_000 * self.generation;
                self.beat(true);
            }
            Op::Switch => {
                self.transport = if http { Transport::WebSocket } else { Transport::Http };
                self.reconnect();
            }
            Op::Wait(seconds) => self.table.pass((*seconds).into()),
            Op::Desire(kind, value) => {
                self.generation += 1;
                let generation = self.generation;
                let value = *value;
                self.desired[usize::from(*kind)] = Some(value);
                let desired = match kind {
                    0 => super::desired(generation, &[value + 1]),
                    1 => Desired::packages(generation, packages(value)),
                    _ => Desired::connection_settings(generation, settings(value)),
                };
                self.table.input(Input::Desired(desired));
                let pushed = self.table.input(Input::Wake);
                self.take(pushed);
            }
        }
    }

    /// Nothing is lost any more, and every capability is there.
    fn settle(&mut self) {
        self.beat(true);
        for capability in GATES {
            self.table.capabilities |= capability.bits();
        }
        for _ in 0..8 {
            self.table.pass(7_200);
            self.beat(true);
        }
    }

    fn check(&mut self) {
        if let Some(value) = self.desired[0] {
            assert_eq!(self.config, [value + 1][..]);
        }
        if let Some(value) = self.desired[1] {
            assert_eq!(self.packages, packages(value).hash().to_bytes());
        }
        if let Some(value) = self.desired[2] {
            let wanted = settings(value);
            let interval = self.settings.opamp.as_ref().map(|opamp| opamp.heartbeat_interval_seconds);
            assert_eq!(interval, Some(30));
            assert_eq!(&self.settings, wanted.settings());
        }
        let before = self.offers;
        for _ in 0..50 {
            self.table.pass(7_200);
            self.beat(true);
            assert!(self.table.input(Input::Wake).is_empty());
        }
        assert_eq!(self.offers, before, "settled, and nothing more is offered");
    }
}

proptest! {
    #[test]
    fn agents_end_up_with_what_is_desired_whatever_happens_on_the_way(
        http: bool,
        reports: [bool; 3],
        ops in proptest::collection::vec(op(), 0..40),
    ) {
        let mut world = World::new(if http { Transport::Http } else { Transport::WebSocket }, reports);
        for op in ops {
            world.run(&op);
        }
        world.settle();
        world.check();
    }
}
