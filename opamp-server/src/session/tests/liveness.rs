//! Coming, going, staying, and being known again.

use super::*;

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
        sequence_num: Some(snapshot.sequence_num),
        capabilities: snapshot.capabilities,
        last_seen: snapshot.last_seen,
        known,
        digests,
        remote_config: OfferSeed { report: snapshot.remote_config.report.clone(), ..OfferSeed::default() },
        connection_settings: OfferSeed {
            report: snapshot.connection_settings.report.clone(),
            ..OfferSeed::default()
        },
        packages: OfferSeed { report: snapshot.packages.report.clone(), ..OfferSeed::default() },
        sticky: StickyFacts { connects: 4, ..snapshot.sticky.clone() },
        desired: desired(3, b"h1"),
        start_time_unix_nano: 5,
        ..Seed::new(UID)
    };
    let mut table = Table::websocket();
    table.session = Session::restore(seed.clone(), &SessionSettings::default(), at(100));
    table.sequence = before.sequence;
    table.attach(Transport::WebSocket);
    table.session.take_change();
    let answer = table.say(full_state_without_config_status());
    assert!(!asks_for_full_state(&answer) && answer.remote_config.is_none());
    assert!(!table.session.has_change(), "an equal report is no change");
    assert_eq!(table.session.snapshot().sticky.connects, 5);

    let mut failed = Table::websocket();
    let remote_config = OfferSeed { failed: true, ..seed.remote_config.clone() };
    failed.session = Session::restore(Seed { remote_config, ..seed }, &SessionSettings::default(), at(100));
    failed.attach(Transport::WebSocket);
    failed.sequence = before.sequence;
    assert!(
        failed.reports(b"old", pb::RemoteConfigStatuses::Applied).remote_config.is_none(),
        "it failed before"
    );

    let mut after_a_crash = table;
    after_a_crash.sequence += 7;
    let asked = (0..4).filter(|_| asks_for_full_state(&after_a_crash.full())).count();
    assert!(asked <= 1, "asked {asked} times");
}

fn full_state_without_config_status() -> pb::AgentToServer {
    pb::AgentToServer { remote_config_status: None, ..full_state() }
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

#[test]
fn a_long_absence_does_not_make_the_next_one_invisible() {
    let mut table = Table::on(Transport::Http);
    table.full();
    table.pass(20 * 3600);
    table.input(Input::Tick);
    assert_eq!(table.session.liveness(), Liveness::Disconnected);
    table.attach(Transport::Http);
    table.heartbeat();
    table.pass(181);
    table.input(Input::Tick);
    assert_eq!(
        table.session.liveness(),
        Liveness::Stale,
        "twice the pace that was thought, not twenty hours"
    );
}
