//! What reports change, and what is asked for.

use super::*;

#[test]
fn every_message_is_answered_with_its_own_uid_and_the_capabilities() {
    for transport in [Transport::WebSocket, Transport::Http] {
        let mut table = Table::on(transport);
        let first = table.full();
        assert_eq!(&first.instance_uid[..], UID.as_bytes());
        assert_eq!(first.capabilities, 0x3f, "all but certificate requests, which nobody decides");
        assert!(!asks_for_full_state(&first));
        for _ in 0..3 {
            let answer = table.heartbeat();
            let expected = pb::ServerToAgent {
                instance_uid: Bytes::copy_from_slice(UID.as_bytes()),
                capabilities: 0x3f,
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
    assert_eq!(table.heartbeat().capabilities, 0x3f);
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
fn a_report_is_compared_with_the_one_before_it_and_with_no_other() {
    let mut table = Table::websocket();
    table.full();
    table.session.take_change().unwrap();
    let health = |time, status: &str| pb::ComponentHealth {
        status: status.into(),
        status_time_unix_nano: time,
        component_health_map: [("a".to_owned(), pb::ComponentHealth::default())].into(),
        ..Default::default()
    };
    let reports = [("up", true), ("up", false), ("no", true), ("up", true), ("no", true), ("no", false)];
    for (time, (status, news)) in (1..).zip(reports) {
        let report = health(time, status);
        table.say(pb::AgentToServer { health: Some(report.clone()), ..Default::default() });
        let change = table.session.take_change();
        assert_eq!(change.is_some_and(|change| change.changed.contains(Part::Health)), news, "{time}");
        let state = table.session.snapshot().state;
        assert_eq!(state.part(Part::Health).unwrap(), &report.encode_to_vec(), "{time}");
        let held = table.session.part(Part::Health).unwrap();
        assert_eq!(held.digest, material::digest(Part::Health, held.encoded));
    }
}

#[test]
fn what_a_driver_calls_a_repeated_config_stays_and_the_next_one_is_looked_at_again() {
    let mut table = Table::websocket();
    table.full();
    table.session.take_change().unwrap();
    let report = |text: &str| pb::AgentToServer {
        instance_uid: Bytes::copy_from_slice(UID.as_bytes()),
        effective_config: Some(pb::EffectiveConfig { config_map: Some(config(text)) }),
        ..Default::default()
    };
    let mut receive = |text: &str, repeated: bool| {
        let bytes = report(text).encode_to_vec();
        let message = AgentMessage::decode(&bytes, &Limits::default()).unwrap();
        table.out.clear();
        if repeated {
            table.out.repeat_effective_config();
        }
        let input = Input::Message { message: &message, assign: None };
        table.session.handle(input, table.now, &mut table.out).unwrap();
        assert!(table.session.holds(Part::EffectiveConfig, message.part(Part::EffectiveConfig).unwrap()));
        table.session.take_change().is_some_and(|change| change.changed.contains(Part::EffectiveConfig))
    };
    assert!(!receive("a: 0", true));
    assert!(receive("a: 1", false));
    assert!(!receive("a: 1", false));
}

/// A seed comes from a store, which nobody has checked the bytes of.
#[test]
fn what_came_with_a_seed_is_not_taken_for_what_was_checked() {
    let garbage = Bytes::from_static(b"\x0a\x02\xff\xff");
    let seed = Seed { custom_capabilities: Some(garbage.clone()), known: PartSet::STATUS, ..Seed::new(UID) };
    let session = Session::restore(seed, &SessionSettings::default(), at(0));
    assert!(session.holds(Part::CustomCapabilities, &garbage));
    assert!(Part::ALL.into_iter().all(|part| session.part(part).is_none()));
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
    for part in [
        Part::Health,
        Part::EffectiveConfig,
        Part::RemoteConfigStatus,
        Part::PackageStatuses,
        Part::AvailableComponents,
        Part::ConnectionSettingsStatus,
    ] {
        assert!(snapshot.state.part(part).is_none(), "{part:?}");
        gated.insert(part);
    }
    assert_eq!(snapshot.ignored, gated);
    assert_eq!(table.out.effects().ignored_parts, 6);
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
    let settings = SessionSettings {
        capabilities: ServerCapabilities::ACCEPTS_STATUS,
        capability_mismatch: CapabilityMismatch::Reject,
        ..SessionSettings::default()
    };
    let mut table = Table::with(Transport::WebSocket, settings);
    let statuses = pb::PackageStatuses { error_message: "x".into(), ..Default::default() };
    table.say(pb::AgentToServer { package_statuses: Some(statuses), ..Default::default() });
    assert!(table.session.snapshot().state.part(Part::PackageStatuses).is_none());
    assert!(table.session.snapshot().ignored.is_empty());
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

/// what the capabilities promise, as far as the server takes it.
#[test]
fn a_first_report_that_lacks_a_promised_part_is_asked_about_unless_the_server_does_not_take_it() {
    let mut deaf = SessionSettings::default();
    deaf.capabilities.remove(ServerCapabilities::ACCEPTS_PACKAGES_STATUS);
    for (settings, asks) in [(SessionSettings::default(), true), (deaf, false)] {
        let mut table = Table::with(Transport::WebSocket, settings);
        let answer = table.say(pb::AgentToServer { package_statuses: None, ..full_state() });
        assert_eq!(asks_for_full_state(&answer), asks);
    }
}
