//! The session's rules, one test each, without IO.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opamp_proto::{
    AgentCapabilities as Caps, AgentMessage, ConfigHash, InstanceUid, Limits, Mono, Now, Part, PartSet,
    SequenceNum, ServerCapabilities, Wall, material, pb,
};
use prost::Message as _;

use super::*;
use crate::desired::{Desired, RemoteConfigOffer};
use crate::snapshot::{ConnectionInfo, Principal, StickyFacts};

const UID: InstanceUid = InstanceUid::from_bytes([7; 16]);
const ALL: u64 = 0xffff;

/// A session with a scripted agent in front of it.
struct Table {
    session: Session,
    out: Outbox,
    now: Now,
    sequence: u64,
    capabilities: u64,
}

impl Table {
    fn on(transport: Transport) -> Self {
        Self::with(transport, SessionSettings::default())
    }

    fn with(transport: Transport, settings: SessionSettings) -> Self {
        let now = at(0);
        let mut table = Self {
            session: Session::new(UID, &settings, now),
            out: Outbox::new(settings),
            now,
            sequence: 0,
            capabilities: ALL,
        };
        table.attach(transport);
        table
    }

    fn websocket() -> Self {
        Self::on(Transport::WebSocket)
    }

    fn attach(&mut self, transport: Transport) {
        self.input(Input::Attached(connection(transport)));
    }

    fn input(&mut self, input: Input<'_>) -> Vec<pb::ServerToAgent> {
        self.out.clear();
        self.session.handle(input, self.now, &mut self.out).unwrap();
        self.sent()
    }

    fn sent(&self) -> Vec<pb::ServerToAgent> {
        self.out.messages().map(|message| pb::ServerToAgent::decode(&message[1..]).unwrap()).collect()
    }

    /// Sends a message as it is and returns the answers.
    fn raw(&mut self, message: &pb::AgentToServer) -> Result<Vec<pb::ServerToAgent>, SessionError> {
        let bytes = message.encode_to_vec();
        let message = AgentMessage::decode(&bytes, &Limits::default()).unwrap();
        let assign = Some(InstanceUid::v7(1_700_000_000_000, [3; 10]));
        self.out.clear();
        self.session.handle(Input::Message { message: &message, assign }, self.now, &mut self.out)?;
        Ok(self.sent())
    }

    /// Sends the next message of the sequence and returns its one answer.
    fn say(&mut self, message: pb::AgentToServer) -> pb::ServerToAgent {
        self.sequence += 1;
        let uid = if message.instance_uid.is_empty() {
            Bytes::copy_from_slice(UID.as_bytes())
        } else {
            message.instance_uid.clone()
        };
        let message = pb::AgentToServer {
            instance_uid: uid,
            sequence_num: self.sequence,
            capabilities: self.capabilities,
            ..message
        };
        let mut answers = self.raw(&message).unwrap();
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0)
    }

    fn heartbeat(&mut self) -> pb::ServerToAgent {
        self.say(pb::AgentToServer::default())
    }

    fn full(&mut self) -> pb::ServerToAgent {
        self.say(full_state())
    }

    fn reports(&mut self, hash: &[u8], status: pb::RemoteConfigStatuses) -> pb::ServerToAgent {
        self.say(pb::AgentToServer { remote_config_status: Some(report(hash, status)), ..Default::default() })
    }

    fn desire(&mut self, generation: u64, hash: &[u8]) -> Vec<pb::ServerToAgent> {
        self.input(Input::Desired(desired(generation, hash)));
        self.input(Input::Wake)
    }

    fn pass(&mut self, seconds: u64) {
        self.now = Now {
            mono: self.now.mono + Duration::from_secs(seconds),
            wall: Wall(self.now.wall.0 + seconds * 1000),
        };
    }
}

fn at(seconds: u64) -> Now {
    Now { mono: Mono(seconds * 1000), wall: Wall(1_700_000_000_000 + seconds * 1000) }
}

fn connection(transport: Transport) -> Arc<ConnectionInfo> {
    let principal = Principal::anonymous();
    Arc::new(ConnectionInfo { id: 1, transport, remote_addr: None, principal, connected_at: Wall(0) })
}

fn config(text: &str) -> pb::AgentConfigMap {
    let object =
        pb::AgentConfigObject { body: Bytes::copy_from_slice(text.as_bytes()), ..Default::default() };
    pb::AgentConfigMap { config_map: [(String::new(), object)].into() }
}

fn desired(generation: u64, hash: &[u8]) -> Desired {
    let offer = RemoteConfigOffer::new(ConfigHash::new(hash.to_vec()), &config("a: 1"));
    Desired { generation, remote_config: Some(offer) }
}

fn report(hash: &[u8], status: pb::RemoteConfigStatuses) -> pb::RemoteConfigStatus {
    let error_message =
        if status == pb::RemoteConfigStatuses::Failed { "no such exporter".into() } else { String::new() };
    pb::RemoteConfigStatus {
        last_remote_config_hash: Bytes::copy_from_slice(hash),
        status: status as i32,
        error_message,
    }
}

fn full_state() -> pb::AgentToServer {
    let attribute = pb::KeyValue {
        key: "service.name".into(),
        value: Some(pb::AnyValue { value: Some(pb::any_value::Value::StringValue("demo".into())) }),
    };
    pb::AgentToServer {
        agent_description: Some(pb::AgentDescription {
            identifying_attributes: vec![attribute],
            ..Default::default()
        }),
        health: Some(pb::ComponentHealth { healthy: true, start_time_unix_nano: 5, ..Default::default() }),
        effective_config: Some(pb::EffectiveConfig { config_map: Some(config("a: 0")) }),
        remote_config_status: Some(report(b"", pb::RemoteConfigStatuses::Unset)),
        ..Default::default()
    }
}

fn asks_for_full_state(answer: &pb::ServerToAgent) -> bool {
    answer.flags & 1 == 1
}

#[test]
fn every_message_is_answered_with_its_own_uid_and_the_capabilities() {
    for transport in [Transport::WebSocket, Transport::Http] {
        let mut table = Table::on(transport);
        let first = table.full();
        assert_eq!(&first.instance_uid[..], UID.as_bytes());
        assert_eq!(first.capabilities, 7);
        assert!(!asks_for_full_state(&first));
        for _ in 0..3 {
            let answer = table.heartbeat();
            let expected = pb::ServerToAgent {
                instance_uid: Bytes::copy_from_slice(UID.as_bytes()),
                capabilities: 7,
                ..Default::default()
            };
            assert_eq!(answer, expected);
        }
    }
}

#[test]
fn accepts_status_is_announced_whatever_the_settings_say() {
    let settings = SessionSettings {
        capabilities: ServerCapabilities::from_bits(1 << 40),
        ..SessionSettings::default()
    };
    let mut table = Table::with(Transport::WebSocket, settings);
    assert_eq!(table.heartbeat().capabilities, 1, "and undefined bits are not");
}

#[test]
fn each_kind_of_gap_is_asked_about_at_once_and_a_successor_is_not() {
    for (next, gap) in [(6, false), (7, true), (5, true), (2, true)] {
        let mut table = Table::websocket();
        table.sequence = 4;
        table.full();
        table.sequence = next - 1;
        assert_eq!(asks_for_full_state(&table.heartbeat()), gap, "5 then {next}");
        assert_eq!(table.session.snapshot().sticky.gaps, u32::from(gap));
    }
}

#[test]
fn the_first_message_may_have_any_number_and_is_asked_about_only_if_it_lacks_something() {
    for first in [0, 1, 1000] {
        let mut table = Table::websocket();
        table.sequence = first - 1u64.min(first);
        if first == 0 {
            let message = pb::AgentToServer {
                instance_uid: Bytes::copy_from_slice(UID.as_bytes()),
                capabilities: ALL,
                ..full_state()
            };
            assert!(!asks_for_full_state(&table.raw(&message).unwrap()[0]));
        } else {
            assert!(!asks_for_full_state(&table.full()));
        }
        let mut bare = Table::websocket();
        bare.sequence = first;
        assert!(asks_for_full_state(&bare.heartbeat()));
        assert!(!asks_for_full_state(&bare.full()));
        assert!(!asks_for_full_state(&bare.heartbeat()));
    }
}

#[test]
fn an_agent_that_lacks_a_promised_part_is_not_asked_for_ever() {
    let mut table = Table::websocket();
    assert!(asks_for_full_state(&table.heartbeat()));
    // It answers with all it has, which is only a description: that must do.
    let description = full_state().agent_description;
    for _ in 0..100 {
        let answer =
            table.say(pb::AgentToServer { agent_description: description.clone(), ..Default::default() });
        assert!(!asks_for_full_state(&answer));
    }
}

#[test]
fn a_bare_identity_is_accepted_and_keeps_the_known_capabilities() {
    let mut table = Table::websocket();
    table.full();
    table.capabilities = 0;
    table.heartbeat();
    assert_eq!(table.session.negotiated().agent().bits(), ALL);
}

#[test]
fn unknown_capability_bits_are_kept_and_have_no_effect() {
    let mut table = Table::websocket();
    table.capabilities = u64::MAX;
    table.full();
    assert_eq!(table.session.snapshot().capabilities.bits(), u64::MAX);
    assert_eq!(table.heartbeat().capabilities, 7);
}

#[test]
fn an_omitted_part_stays_and_a_sent_one_replaces_the_whole() {
    let mut table = Table::websocket();
    table.full();
    table.heartbeat();
    let health = |name: &str| pb::ComponentHealth {
        component_health_map: [(name.to_owned(), pb::ComponentHealth::default())].into(),
        ..Default::default()
    };
    table.say(pb::AgentToServer { health: Some(health("a")), ..Default::default() });
    table.say(pb::AgentToServer { health: Some(health("b")), ..Default::default() });
    let state = table.session.snapshot().state;
    assert_eq!(state.part(Part::Health).unwrap(), &health("b").encode_to_vec());
    assert!(state.part(Part::AgentDescription).is_some());
}

#[test]
fn a_ticking_timestamp_is_no_change_and_a_status_is() {
    let mut table = Table::websocket();
    table.full();
    table.session.take_change().unwrap();
    let health = |time, status: &str| pb::AgentToServer {
        health: Some(pb::ComponentHealth {
            healthy: true,
            start_time_unix_nano: 5,
            status_time_unix_nano: time,
            status: status.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    for time in 1..50 {
        table.say(health(time, ""));
        assert!(!table.session.has_change(), "at {time}");
    }
    table.say(health(51, "degraded"));
    assert!(table.session.take_change().unwrap().changed.contains(Part::Health));
}

#[test]
fn restarts_of_the_agent_are_counted_even_if_nobody_looks() {
    let mut table = Table::websocket();
    for start in [5, 5, 6, 7] {
        let health = pb::ComponentHealth { start_time_unix_nano: start, ..Default::default() };
        table.say(pb::AgentToServer { health: Some(health), ..Default::default() });
    }
    assert_eq!(table.session.snapshot().sticky.start_time_changes, 2);
}

#[test]
fn a_part_without_its_capability_is_ignored_named_and_counted() {
    let mut table = Table::websocket();
    table.capabilities = Caps::REPORTS_STATUS.bits();
    table.full();
    let snapshot = table.session.snapshot();
    assert!(snapshot.state.part(Part::AgentDescription).is_some());
    let mut gated = PartSet::NONE;
    for part in [Part::Health, Part::EffectiveConfig, Part::RemoteConfigStatus] {
        assert!(snapshot.state.part(part).is_none(), "{part:?}");
        gated.insert(part);
    }
    assert_eq!(snapshot.ignored, gated);
    assert_eq!(table.out.effects().ignored_parts, 3);
}

#[test]
fn a_strict_server_refuses_the_whole_message_and_nothing_of_it_remains() {
    let settings =
        SessionSettings { capability_mismatch: CapabilityMismatch::Reject, ..SessionSettings::default() };
    let mut table = Table::with(Transport::WebSocket, settings);
    let message = pb::AgentToServer {
        instance_uid: Bytes::copy_from_slice(UID.as_bytes()),
        sequence_num: 9,
        capabilities: 1,
        ..full_state()
    };
    let error = table.raw(&message).unwrap_err();
    assert_eq!(error, SessionError::Capability { part: Part::Health, capability: "ReportsHealth" });
    assert!(table.session.snapshot().state.part(Part::AgentDescription).is_none());
    assert_eq!(table.session.snapshot().sequence_num, SequenceNum(0));
}

#[test]
fn a_part_the_server_does_not_accept_is_left_out_without_a_complaint() {
    let settings =
        SessionSettings { capability_mismatch: CapabilityMismatch::Reject, ..SessionSettings::default() };
    let mut table = Table::with(Transport::WebSocket, settings);
    let statuses = pb::PackageStatuses { error_message: "x".into(), ..Default::default() };
    table.say(pb::AgentToServer { package_statuses: Some(statuses), ..Default::default() });
    assert!(table.session.snapshot().state.part(Part::PackageStatuses).is_none());
    assert!(table.session.snapshot().ignored.is_empty());
}

#[test]
fn a_desired_config_is_pushed_to_a_socket_and_waits_for_the_next_poll() {
    let mut socket = Table::websocket();
    socket.full();
    let pushed = socket.desire(1, b"h1");
    assert_eq!(&pushed[0].remote_config.as_ref().unwrap().config_hash[..], b"h1");
    let mut polling = Table::on(Transport::Http);
    polling.full();
    assert!(polling.desire(1, b"h1").is_empty());
    let answer = polling.heartbeat();
    assert_eq!(&answer.remote_config.unwrap().config_hash[..], b"h1");
}

#[test]
fn ten_changes_while_an_agent_is_away_become_one_offer() {
    let mut table = Table::websocket();
    table.full();
    table.input(Input::Detached(DisconnectReason::Closed));
    for generation in 1..=10u8 {
        table.input(Input::Desired(desired(generation.into(), &[generation])));
    }
    table.attach(Transport::WebSocket);
    assert_eq!(&table.heartbeat().remote_config.unwrap().config_hash[..], [10]);
    assert!(table.heartbeat().remote_config.is_none());
}

#[test]
fn an_outdated_hash_is_answered_with_the_offer_and_the_right_one_is_not() {
    for transport in [Transport::WebSocket, Transport::Http] {
        let mut table = Table::on(transport);
        table.full();
        table.desire(1, b"new");
        assert!(table.reports(b"old", pb::RemoteConfigStatuses::Applied).remote_config.is_some());
        assert!(table.reports(b"new", pb::RemoteConfigStatuses::Applying).remote_config.is_none());
        assert!(table.reports(b"new", pb::RemoteConfigStatuses::Applied).remote_config.is_none());
        assert!(table.heartbeat().remote_config.is_none());
        assert!(table.reports(b"old", pb::RemoteConfigStatuses::Applied).remote_config.is_some(), "drifted");
    }
}

#[test]
fn a_failed_config_is_not_offered_again_until_it_is_assigned_again() {
    let mut table = Table::websocket();
    table.full();
    table.desire(1, b"bad");
    assert!(table.reports(b"bad", pb::RemoteConfigStatuses::Failed).remote_config.is_none());
    // The agent goes back to what it had and says so: offering again would chase it for ever.
    for _ in 0..5 {
        assert!(table.reports(b"good", pb::RemoteConfigStatuses::Applied).remote_config.is_none());
    }
    let failure = table.session.snapshot().sticky.last_failure.unwrap();
    assert_eq!((failure.hash.as_bytes(), failure.error.as_str()), (&b"bad"[..], "no such exporter"));
    assert_eq!(table.desire(2, b"bad").len(), 1, "the operator wants another try");
}

#[test]
fn a_stubborn_agent_is_not_flooded_with_the_same_offer() {
    let mut table = Table::websocket();
    table.full();
    table.desire(1, b"new");
    let offers = (0..1000)
        .filter(|_| table.reports(b"old", pb::RemoteConfigStatuses::Applied).remote_config.is_some());
    assert_eq!(offers.count(), 2, "three in all with the push");
    table.pass(31);
    assert!(table.reports(b"old", pb::RemoteConfigStatuses::Applied).remote_config.is_some());
}

#[test]
fn an_offer_lost_with_an_http_answer_is_repeated_and_over_websocket_it_is_not() {
    let mut polling = Table::on(Transport::Http);
    polling.full();
    polling.desire(1, b"h1");
    assert!(polling.heartbeat().remote_config.is_some());
    polling.pass(30);
    assert!(polling.heartbeat().remote_config.is_none());
    polling.pass(30);
    assert!(polling.heartbeat().remote_config.is_some(), "no word for a minute");
    polling.sequence -= 1;
    assert!(polling.heartbeat().remote_config.is_some(), "the same number again: the answer was lost");

    let mut socket = Table::websocket();
    socket.full();
    socket.desire(1, b"h1");
    for _ in 0..20 {
        socket.pass(30);
        assert!(socket.heartbeat().remote_config.is_none());
    }
    socket.attach(Transport::WebSocket);
    assert!(socket.heartbeat().remote_config.is_some(), "a new connection");
}

#[test]
fn without_the_capability_nothing_is_offered_and_with_it_again_it_is() {
    let mut table = Table::websocket();
    table.full();
    table.capabilities = ALL & !Caps::ACCEPTS_REMOTE_CONFIG.bits();
    table.heartbeat();
    assert!(table.desire(1, b"h1").is_empty());
    assert!(table.reports(b"other", pb::RemoteConfigStatuses::Applied).remote_config.is_none());
    table.capabilities = ALL;
    assert!(table.heartbeat().remote_config.is_some());
}

#[test]
fn an_offer_beyond_the_send_limit_is_never_sent_and_shows() {
    let settings = SessionSettings { send_bytes_max: 100, ..SessionSettings::default() };
    let mut table = Table::with(Transport::WebSocket, settings);
    table.full();
    table.input(Input::Desired(desired(1, &[9; 200])));
    assert!(table.input(Input::Wake).is_empty());
    assert_eq!(table.out.effects().discarded_oversize, 1);
    assert!(table.heartbeat().remote_config.is_none());
    assert_eq!(table.out.effects().discarded_oversize, 0, "told once");
    assert!(table.session.snapshot().offer_too_large);
}

#[test]
fn a_restart_command_travels_alone() {
    let mut table = Table::websocket();
    table.full();
    table.input(Input::Desired(desired(1, b"h1")));
    table.input(Input::Restart);
    let sent = table.input(Input::Wake);
    assert_eq!(sent.len(), 2);
    assert!(sent[0].remote_config.is_some() && sent[0].command.is_none());
    assert!(sent[1].command.is_some() && sent[1].remote_config.is_none() && sent[1].flags == 0);

    let mut polling = Table::on(Transport::Http);
    polling.full();
    polling.input(Input::Desired(desired(1, b"h1")));
    polling.input(Input::Restart);
    let first = polling.heartbeat();
    assert!(first.remote_config.is_some() && first.command.is_none());
    assert!(polling.heartbeat().command.is_some());
    assert!(polling.heartbeat().command.is_none());
}

#[test]
fn a_restart_is_void_once_the_agent_withdraws_the_capability() {
    for transport in [Transport::WebSocket, Transport::Http] {
        let mut table = Table::on(transport);
        table.full();
        table.capabilities = ALL & !Caps::ACCEPTS_RESTART_COMMAND.bits();
        table.input(Input::Restart);
        assert!(table.heartbeat().command.is_none());
        table.capabilities = ALL;
        assert!(table.heartbeat().command.is_none());
    }
}

#[test]
fn a_requested_uid_is_assigned_under_the_old_one_and_adopted_on_first_use() {
    let mut table = Table::on(Transport::Http);
    let asking = pb::AgentToServer { flags: 1, ..full_state() };
    let answer = table.say(asking.clone());
    assert_eq!(&answer.instance_uid[..], UID.as_bytes());
    let assigned = answer.agent_identification.unwrap().new_instance_uid;
    assert_eq!((assigned.len(), assigned[6] >> 4, assigned[8] >> 6), (16, 7, 2), "a version 7 UUID");
    // The answer was lost: the agent asks again and is told the same.
    assert_eq!(table.say(asking).agent_identification.unwrap().new_instance_uid, assigned);
    table.session.take_change();
    let answer = table.say(pb::AgentToServer { instance_uid: assigned.clone(), ..Default::default() });
    assert_eq!(answer.instance_uid, assigned);
    assert!(answer.agent_identification.is_none() && !asks_for_full_state(&answer));
    let change = table.session.take_change().unwrap();
    assert_eq!(change.previous_uid, Some(UID));
    assert!(change.facts.contains(ChangedFacts::UID));
    assert_eq!(change.snapshot.uid.as_bytes(), &assigned[..]);
    assert!(change.snapshot.state.part(Part::AgentDescription).is_some(), "the state moved along");
}

#[test]
fn a_goodbye_disconnects_gracefully_and_is_answered() {
    let mut table = Table::websocket();
    table.full();
    table.say(pb::AgentToServer { agent_disconnect: Some(pb::AgentDisconnect {}), ..Default::default() });
    let snapshot = table.session.snapshot();
    assert_eq!(snapshot.liveness, Liveness::Disconnected);
    assert!(snapshot.disconnect.unwrap().0.is_graceful());
    table.input(Input::Detached(DisconnectReason::Closed));
    assert!(
        table.session.snapshot().disconnect.unwrap().0.is_graceful(),
        "the close that follows changes nothing"
    );
    assert_eq!(table.session.snapshot().sticky.disconnects, 1);
}

#[test]
fn a_silent_socket_becomes_stale_and_any_frame_revives_it() {
    let mut table = Table::websocket();
    table.full();
    assert_eq!(table.session.deadline(&SessionSettings::default()), Some(Mono(60_000)));
    table.pass(59);
    table.input(Input::Tick);
    assert_eq!(table.session.liveness(), Liveness::Connected);
    table.pass(1);
    table.input(Input::Tick);
    assert_eq!(table.session.liveness(), Liveness::Stale);
    assert_eq!(
        table.session.deadline(&SessionSettings::default()),
        None,
        "ending sockets is the connection's affair"
    );
    table.input(Input::Alive);
    assert_eq!(table.session.liveness(), Liveness::Connected);
}

#[test]
fn a_polling_agent_is_judged_by_its_own_pace() {
    for (interval, stale_after) in [(30, 90), (300, 900), (1, 15)] {
        let mut table = Table::on(Transport::Http);
        table.full();
        for _ in 0..300 {
            table.pass(interval);
            table.input(Input::Tick);
            if table.session.liveness() == Liveness::Disconnected {
                table.attach(Transport::Http); // slower than assumed: given up on once, then known
            }
            table.heartbeat();
        }
        assert!(table.session.snapshot().sticky.disconnects <= 1);
        table.pass(stale_after - 1);
        table.input(Input::Tick);
        assert_eq!(table.session.liveness(), Liveness::Connected, "{interval} s");
        table.pass(1);
        table.input(Input::Tick);
        assert_eq!(table.session.liveness(), Liveness::Stale, "{interval} s");
        table.pass(stale_after);
        table.input(Input::Tick);
        assert_eq!(table.session.snapshot().disconnect.unwrap().0, DisconnectReason::Timeout, "{interval} s");
    }
}

#[test]
fn a_burst_of_reports_is_not_taken_for_a_pace() {
    let mut table = Table::on(Transport::Http);
    for _ in 0..50 {
        table.full();
    }
    table.pass(89);
    table.input(Input::Tick);
    assert_eq!(table.session.liveness(), Liveness::Connected);
    table.pass(1);
    table.input(Input::Tick);
    assert_eq!(table.session.liveness(), Liveness::Stale);
}

#[test]
fn a_restored_session_asks_nothing_of_an_agent_that_goes_on() {
    let mut before = Table::websocket();
    before.full();
    before.desire(3, b"h1");
    before.reports(b"h1", pb::RemoteConfigStatuses::Applied);
    let snapshot = before.session.snapshot();
    let digests = Part::ALL
        .into_iter()
        .filter_map(|part| Some((part, material::digest(part, snapshot.state.part(part)?))))
        .collect::<Vec<_>>();
    let mut known = PartSet::NONE;
    for (part, _) in &digests {
        known.insert(*part);
    }
    let seed = Seed {
        uid: UID,
        sequence_num: Some(snapshot.sequence_num),
        capabilities: snapshot.capabilities,
        last_seen: snapshot.last_seen,
        known,
        digests,
        remote_config: snapshot.remote_config.clone(),
        sticky: StickyFacts { connects: 4, ..snapshot.sticky.clone() },
        desired: desired(3, b"h1"),
        start_time_unix_nano: 5,
        principal: None,
        disconnect: None,
    };
    let mut table = Table::websocket();
    table.session = Session::restore(seed, &SessionSettings::default(), at(100));
    table.sequence = before.sequence;
    table.attach(Transport::WebSocket);
    table.session.take_change();
    let answer = table.say(full_state_without_config_status());
    assert!(!asks_for_full_state(&answer) && answer.remote_config.is_none());
    assert!(!table.session.has_change(), "an equal report is no change");
    assert_eq!(table.session.snapshot().sticky.connects, 5);

    let mut after_a_crash = table;
    after_a_crash.sequence += 7;
    let asked = (0..4).filter(|_| asks_for_full_state(&after_a_crash.full())).count();
    assert!(asked <= 1, "asked {asked} times");
}

fn full_state_without_config_status() -> pb::AgentToServer {
    pb::AgentToServer { remote_config_status: None, ..full_state() }
}

#[test]
fn full_state_on_demand_is_pushed_once() {
    let mut table = Table::websocket();
    table.full();
    table.input(Input::RequestFullState);
    let sent = table.input(Input::Wake);
    assert!(asks_for_full_state(&sent[0]));
    assert!(table.input(Input::Wake).is_empty());
    assert!(!asks_for_full_state(&table.full()));
}

#[test]
fn a_checkpoint_is_due_only_after_a_message() {
    let mut table = Table::websocket();
    assert_eq!(table.session.take_checkpoint(), None);
    table.heartbeat();
    assert_eq!(table.session.take_checkpoint().unwrap().sequence_num, SequenceNum(1));
    assert_eq!(table.session.take_checkpoint(), None);
}

#[test]
fn a_session_fits_its_budget() {
    assert!(size_of::<Session>() <= 256, "{} bytes", size_of::<Session>());
}
