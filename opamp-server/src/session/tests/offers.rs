//! What is offered and ordered, when, and when not.

use super::*;

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
    let failure = table.session.snapshot().remote_config.last_failure.unwrap();
    assert_eq!((failure.hash.as_bytes(), failure.error.as_str()), (&b"bad"[..], "no such exporter"));
    assert_eq!(table.desire(2, b"bad").len(), 1, "the operator wants another try");
}

#[test]
fn a_retry_that_an_agent_has_no_new_word_for_comes_to_an_end() {
    let mut table = Table::on(Transport::Http);
    table.full();
    table.desire(1, b"bad");
    assert!(table.heartbeat().remote_config.is_some());
    table.reports(b"bad", pb::RemoteConfigStatuses::Failed);
    table.desire(2, b"bad");
    let polls = (0..1000).map(|_| {
        table.pass(30);
        table.heartbeat().remote_config.is_some()
    });
    assert_eq!(polls.filter(|offered| *offered).count(), 3, "an agent may refuse to apply one hash twice");
    assert_eq!(table.desire(3, b"bad").len() + usize::from(table.heartbeat().remote_config.is_some()), 1);
    table.pass(3_600);
    assert!(table.reports(b"bad", pb::RemoteConfigStatuses::Applied).remote_config.is_none());
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
    table.input(Input::Desired(desired(1, &[9; 600])));
    assert!(table.input(Input::Wake).is_empty());
    assert_eq!(table.out.effects().discarded_oversize, 1);
    assert!(table.heartbeat().remote_config.is_none());
    assert_eq!(table.out.effects().discarded_oversize, 0, "told once");
    assert!(table.session.snapshot().remote_config.too_large);
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
fn the_same_desired_state_again_is_no_news_and_an_older_one_is_none() {
    let mut table = Table::websocket();
    table.full();
    table.desire(2, b"bad");
    table.reports(b"bad", pb::RemoteConfigStatuses::Failed);
    assert!(table.desire(2, b"bad").is_empty(), "asserted again, not assigned again");
    assert!(table.desire(1, b"older").is_empty());
    assert_eq!(table.session.snapshot().remote_config.generation, 2);
    assert_eq!(table.desire(3, b"newer").len(), 1);
}

#[test]
fn the_same_failure_of_a_later_offer_is_another_failure() {
    let mut table = Table::websocket();
    table.full();
    table.desire(1, b"bad");
    table.reports(b"bad", pb::RemoteConfigStatuses::Failed);
    table.session.take_change();
    table.pass(60);
    table.reports(b"bad", pb::RemoteConfigStatuses::Failed);
    assert!(!table.session.has_change(), "the same report again is no news");
    assert_eq!(table.desire(2, b"bad").len(), 1);
    table.pass(60);
    table.reports(b"bad", pb::RemoteConfigStatuses::Failed);
    let failure = table.session.take_change().unwrap().snapshot.remote_config.last_failure.unwrap();
    assert_eq!(failure.at, at(120).wall);
}

#[test]
fn a_restart_order_does_not_wait_for_an_agent_that_left() {
    let mut table = Table::on(Transport::Http);
    table.full();
    table.input(Input::Restart);
    table.input(Input::Detached(DisconnectReason::Timeout));
    table.attach(Transport::Http);
    assert!(table.heartbeat().command.is_none());
}

#[test]
fn polls_without_a_number_are_no_gaps_and_get_an_offer_once() {
    let mut table = Table::on(Transport::Http);
    table.full();
    table.desire(1, b"h1");
    let bare =
        pb::AgentToServer { instance_uid: Bytes::copy_from_slice(UID.as_bytes()), ..Default::default() };
    let offers = (0..10).filter(|_| table.raw(&bare).unwrap()[0].remote_config.is_some()).count();
    assert_eq!(offers, 1);
    assert_eq!(table.session.snapshot().sticky.gaps, 0);
}

#[test]
fn an_agent_that_does_not_count_is_not_flooded_and_its_gaps_are_no_news() {
    let mut table = Table::on(Transport::Http);
    table.full();
    table.desire(1, b"h1");
    let mut offers = 0;
    for round in 0..20 {
        table.sequence = 6;
        offers += u32::from(table.heartbeat().remote_config.is_some());
        if round > 3 {
            assert!(!table.session.has_change(), "round {round}");
        }
        table.session.take_change();
    }
    assert_eq!(offers, 3);
}

#[test]
fn what_is_shown_of_a_session_holds_no_config() {
    let mut table = Table::websocket();
    let secret = "hunter2";
    let effective = pb::EffectiveConfig { config_map: Some(config(secret)) };
    table.say(pb::AgentToServer { effective_config: Some(effective), ..full_state() });
    let object = pb::AgentConfigMap { config_map: config(secret).config_map };
    let offer = RemoteConfigOffer::new(ConfigHash::new(vec![1]), &object);
    table.input(Input::Desired(Desired::remote_config(1, offer)));
    assert_eq!(table.input(Input::Wake).len(), 1);
    let shown = format!("{:?} {:?} {:?}", table.session, table.out, table.session.snapshot());
    let bytes = format!("{:?}", secret.as_bytes());
    assert!(!shown.contains(secret) && !shown.contains(&bytes[1..bytes.len() - 1]), "{shown}");
    assert!(shown.contains("effective_config"));
}
