//! What the hot path allocates: nothing.

use std::sync::Arc;

use bytes::Bytes;
use opamp_proto::{AgentMessage, InstanceUid, Limits, Mono, Now, Part, Wall, frame, material, pb};
use opamp_server::session::{Input, Outbox, Session, SessionSettings};
use opamp_server::{
    ConnectionInfo, ConnectionSettingsOffer, CustomCapabilities, Desired, PackagesOffer, Principal, Transport,
};
use prost::Message as _;

fn framed(sequence_num: u64, full: bool) -> Vec<u8> {
    let health = pb::ComponentHealth { healthy: true, ..Default::default() };
    let message = pb::AgentToServer {
        instance_uid: vec![7; 16].into(),
        sequence_num,
        capabilities: 0x0801,
        agent_description: full.then(pb::AgentDescription::default),
        health: full.then_some(health),
        ..Default::default()
    };
    let mut out = Vec::new();
    frame::encode(&message.encode_to_vec(), &mut out);
    out
}

fn connection() -> ConnectionInfo {
    ConnectionInfo {
        id: 1,
        transport: Transport::WebSocket,
        remote_addr: None,
        principal: Principal::anonymous(),
        connected_at: Wall(0),
    }
}

#[test]
fn a_heartbeat_through_codec_and_session_allocates_nothing() {
    let settings = SessionSettings::default();
    let now = |ms| Now { mono: Mono(ms), wall: Wall(ms) };
    let mut session = Session::new(InstanceUid::from_bytes([7; 16]), &settings, now(0));
    let mut out = Outbox::new(settings.clone());
    let limits = Limits::default();
    session.handle(Input::Attached(Arc::new(connection())), now(0), &mut out).unwrap();
    let mut receive = |bytes: &[u8], at| {
        out.clear();
        let message = AgentMessage::decode(frame::decode(bytes).unwrap(), &limits).unwrap();
        session.handle(Input::Message { message: &message, assign: None }, now(at), &mut out).unwrap();
        assert_eq!(out.messages().len(), 1);
    };
    let first = framed(1, true);
    let report = allocation_counter::measure(|| receive(&first, 1));
    assert!(report.count_total > 0, "the counter counts: a first report is kept");
    receive(&framed(2, false), 2);
    for sequence in 3..100 {
        let heartbeat = framed(sequence, false);
        let report = allocation_counter::measure(|| receive(&heartbeat, sequence));
        assert_eq!(report.count_total, 0, "heartbeat {sequence}");
    }
}

#[test]
fn a_heartbeat_of_an_agent_with_everything_there_is_allocates_nothing_either() {
    let custom_capabilities = CustomCapabilities::new(["com.example.snapshots"]).unwrap();
    let settings = SessionSettings { custom_capabilities, ..SessionSettings::default() };
    let now = |ms| Now { mono: Mono(ms), wall: Wall(ms) };
    let mut session = Session::new(InstanceUid::from_bytes([7; 16]), &settings, now(0));
    let mut out = Outbox::new(settings);
    let limits = Limits::default();
    session.handle(Input::Attached(Arc::new(connection())), now(0), &mut out).unwrap();
    let telemetry = pb::TelemetryConnectionSettings {
        destination_endpoint: "https://example.com/v1/logs".into(),
        ..Default::default()
    };
    let offer = ConnectionSettingsOffer::new(pb::ConnectionSettingsOffers {
        own_logs: Some(telemetry),
        ..Default::default()
    })
    .unwrap();
    let packages = PackagesOffer::new(pb::PackagesAvailable::default()).unwrap();
    let message = |sequence_num, first: bool| {
        let status = pb::ConnectionSettingsStatus {
            last_connection_settings_hash: offer.hash().to_bytes(),
            status: pb::ConnectionSettingsStatuses::Applied as i32,
            ..Default::default()
        };
        let statuses = pb::PackageStatuses {
            server_provided_all_packages_hash: packages.hash().to_bytes(),
            ..Default::default()
        };
        let message = pb::AgentToServer {
            instance_uid: vec![7; 16].into(),
            sequence_num,
            capabilities: 0xffff,
            agent_description: first.then(pb::AgentDescription::default),
            health: first.then(pb::ComponentHealth::default),
            effective_config: first.then(pb::EffectiveConfig::default),
            remote_config_status: first.then(pb::RemoteConfigStatus::default),
            connection_settings_status: first.then_some(status),
            package_statuses: first.then_some(statuses),
            custom_capabilities: first.then(pb::CustomCapabilities::default),
            available_components: first.then(|| pb::AvailableComponents {
                hash: vec![1; 8].into(),
                components: [("receiver".to_owned(), pb::ComponentDetails::default())].into(),
            }),
            ..Default::default()
        };
        let mut out = Vec::new();
        frame::encode(&message.encode_to_vec(), &mut out);
        out
    };
    let desired = Desired {
        packages: Desired::packages(1, packages.clone()).packages,
        ..Desired::connection_settings(1, offer.clone())
    };
    session.handle(Input::Desired(desired), now(0), &mut out).unwrap();
    let mut receive = |bytes: &[u8], at| {
        out.clear();
        let message = AgentMessage::decode(frame::decode(bytes).unwrap(), &limits).unwrap();
        session.handle(Input::Message { message: &message, assign: None }, now(at), &mut out).unwrap();
    };
    receive(&message(1, true), 1);
    receive(&message(2, false), 2);
    for sequence in 3..100 {
        let heartbeat = message(sequence, false);
        let report = allocation_counter::measure(|| receive(&heartbeat, sequence));
        assert_eq!(report.count_total, 0, "heartbeat {sequence}");
    }
}

#[test]
fn a_full_state_of_which_only_the_times_move_allocates_nothing_and_is_kept() {
    let settings = SessionSettings::default();
    let now = |ms| Now { mono: Mono(ms), wall: Wall(ms) };
    let mut session = Session::new(InstanceUid::from_bytes([7; 16]), &settings, now(0));
    let mut out = Outbox::new(settings);
    let limits = Limits::default();
    session.handle(Input::Attached(Arc::new(connection())), now(0), &mut out).unwrap();
    let health =
        |time| pb::ComponentHealth { healthy: true, status_time_unix_nano: time, ..Default::default() };
    for sequence in 1..100 {
        let components = ["a", "b"].map(|name| (name.to_owned(), health(sequence)));
        let health = pb::ComponentHealth { component_health_map: components.into(), ..health(sequence) };
        let message = pb::AgentToServer {
            instance_uid: vec![7; 16].into(),
            sequence_num: sequence,
            capabilities: 0x1805,
            agent_description: Some(pb::AgentDescription::default()),
            health: Some(health.clone()),
            effective_config: Some(pb::EffectiveConfig::default()),
            remote_config_status: Some(pb::RemoteConfigStatus::default()),
            ..Default::default()
        }
        .encode_to_vec();
        out.clear();
        let report = allocation_counter::measure(|| {
            let message = AgentMessage::decode_knowing(&message, &limits, |_| Some(&session)).unwrap();
            session
                .handle(Input::Message { message: &message, assign: None }, now(sequence), &mut out)
                .unwrap();
        });
        assert_eq!(report.count_total == 0, sequence > 1, "{} in report {sequence}", report.count_total);
        assert!(session.holds(Part::Health, &health.encode_to_vec()));
    }
}

/// An agent of which no state is kept: its session, and what hangs on it.
#[test]
fn an_agent_that_says_only_that_it_lives_takes_at_most_600_bytes_of_session() {
    let settings = SessionSettings::default();
    let now = Now { mono: Mono(0), wall: Wall(0) };
    let limits = Limits::default();
    let connection = Arc::new(connection());
    let mut out = Outbox::new(settings.clone());
    let heartbeat = framed(1, false);
    let mut sessions = Vec::with_capacity(101);
    let mut run = || {
        let mut session = Session::new(InstanceUid::from_bytes([7; 16]), &settings, now);
        session.handle(Input::Attached(Arc::clone(&connection)), now, &mut out).unwrap();
        out.clear();
        let message = AgentMessage::decode(frame::decode(&heartbeat).unwrap(), &limits).unwrap();
        session.handle(Input::Message { message: &message, assign: None }, now, &mut out).unwrap();
        sessions.push(session);
    };
    run(); // the outbox has its room now
    let grown = allocation_counter::measure(|| (0..100).for_each(|_| run()));
    let each = usize::try_from(grown.bytes_current).unwrap() / 100 + size_of::<Session>();
    println!("{each} bytes each");
    assert!((300..=600).contains(&each), "{each} bytes");
}

#[test]
fn agents_with_equal_effective_configs_share_the_copy_they_are_handed() {
    let settings = SessionSettings::default();
    let now = Now { mono: Mono(0), wall: Wall(0) };
    let limits = Limits::default();
    let file = pb::AgentConfigObject { body: vec![b'x'; 8_000].into(), ..Default::default() };
    let map = pb::AgentConfigMap { config_map: [(String::new(), file)].into() };
    let config = pb::EffectiveConfig { config_map: Some(map) };
    let report = pb::AgentToServer {
        instance_uid: vec![7; 16].into(),
        sequence_num: 1,
        capabilities: 0x0805,
        effective_config: Some(config.clone()),
        ..Default::default()
    };
    let mut bytes = Vec::new();
    frame::encode(&report.encode_to_vec(), &mut bytes);
    let shared = Bytes::from(config.encode_to_vec());
    let digest = material::digest(Part::EffectiveConfig, &shared);
    let mut out = Outbox::new(settings.clone());
    let mut states = Vec::new();
    for hand_out in [true, true, false] {
        let mut session = Session::new(InstanceUid::from_bytes([7; 16]), &settings, now);
        session.handle(Input::Attached(Arc::new(connection())), now, &mut out).unwrap();
        out.clear();
        if hand_out {
            out.share_effective_config(shared.clone(), digest);
        }
        let message = AgentMessage::decode(frame::decode(&bytes).unwrap(), &limits).unwrap();
        session.handle(Input::Message { message: &message, assign: None }, now, &mut out).unwrap();
        let change = session.take_change().unwrap();
        assert!(change.changed.contains(Part::EffectiveConfig));
        assert!(session.holds(Part::EffectiveConfig, &shared));
        states.push(change.snapshot.state.part(Part::EffectiveConfig).unwrap().clone());
    }
    assert_eq!((states[0].as_ptr(), states[1].as_ptr()), (shared.as_ptr(), shared.as_ptr()));
    assert_ne!(states[2].as_ptr(), shared.as_ptr());
    assert_eq!(states[2], shared, "an agent alone keeps a copy of its own");
    drop(states);
    assert!(shared.is_unique(), "nobody has it any more");
}
