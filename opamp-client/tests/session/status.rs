//! Reporting: first everything, then what changed, and nothing in reaction to nothing.

use opamp_client::session::Input;
use opamp_client::{Description, EffectiveConfig, Failure, FailureKind, Health, Transport, Wall};
use opamp_proto::pb;

use crate::bench::{Bench, health, parts, seconds};

const EVERYTHING: [&str; 4] = ["agent_description", "health", "effective_config", "remote_config_status"];

fn full_state() -> pb::ServerToAgent {
    pb::ServerToAgent { flags: 1, capabilities: crate::bench::ALL, ..Default::default() }
}

on_both_transports! {
    fn the_first_message_is_a_complete_report_and_comes_unprompted(transport) {
        let mut bench = Bench::able(transport);
        let step = bench.connect();
        assert_eq!(parts(step.message()), EVERYTHING);
    }

    fn afterwards_only_what_changed_is_reported_as_a_whole(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        let inner = Health::healthy(Wall(1)).status("new");
        let changed = Health::healthy(Wall(1)).component("a", inner).component("b", Health::healthy(Wall(1)));
        bench.pass(seconds(2));
        let step = bench.tell(Input::Health(changed));
        assert_eq!(parts(step.message()), ["health"]);
        assert_eq!(step.message().health.as_ref().unwrap().component_health_map.len(), 2, "the unchanged b too");
        let step = bench.tell(Input::EffectiveConfig(EffectiveConfig::single("a: 1")));
        assert_eq!(parts(step.message()), ["effective_config"]);
        let step = bench.tell(Input::Describe(Description::new("com.example.agent").version("2")));
        assert_eq!(parts(step.message()), ["agent_description"]);
    }

    fn unchanged_state_is_not_reported_however_it_is_written(transport) {
        let mut bench = Bench::able(transport);
        bench.tell(Input::Describe(Description::new("x").attribute("a", 1).attribute("b", 2)));
        bench.connect();
        bench.pass(seconds(5));
        assert!(bench.tell(Input::Describe(Description::new("x").attribute("b", 2).attribute("a", 1))).is_silent());
        assert!(bench.tell(Input::EffectiveConfig(EffectiveConfig::single("a: 0"))).is_silent());
        let later = Health::healthy(Wall(1)).observed_at(Wall(99));
        assert!(bench.tell(Input::Health(later)).is_silent());
        let other = Description::new("x").attribute("b", vec![1, 2]).attribute("a", 1);
        assert!(!bench.tell(Input::Describe(other)).is_silent(), "another value is a change");
    }

    fn a_settled_session_repeats_nothing(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        let step = bench.pass(seconds(301));
        assert_eq!(step.sent.len(), 10);
        for message in &step.sent {
            assert!(parts(message).is_empty(), "{message:?}");
        }
        assert!(step.events.is_empty() && step.connects().is_empty(), "{step:?}");
    }

    fn a_message_that_changed_nothing_brings_no_report(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        for _ in 0..20 {
            let step = bench.answer(pb::ServerToAgent { capabilities: crate::bench::ALL, ..Default::default() });
            assert!(step.is_silent(), "{step:?}");
        }
    }

    fn full_state_on_request_is_a_complete_report_at_once(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        let step = bench.answer(full_state());
        assert_eq!(parts(step.message()), EVERYTHING);
    }

    fn a_server_that_wants_full_state_with_every_answer_is_not_flooded(transport) {
        let mut bench = Bench::able(transport);
        bench.answers = false;
        let mut step = bench.connect();
        let mut sent = 0;
        for _ in 0..1_000 {
            sent += step.sent.len();
            if !step.sent.is_empty() && transport == Transport::WebSocket {
                bench.tell(Input::Written);
            }
            step = if step.sent.is_empty() { bench.pass(seconds(0)) } else { bench.receive(full_state()) };
        }
        assert_eq!(sent, 4, "the first report and three more; the next one waits");
        let later = bench.pass(seconds(31));
        assert!(!later.sent.is_empty(), "but it comes");
    }

    fn sequence_numbers_rise_by_one_over_reports_heartbeats_reconnects_and_the_goodbye(transport) {
        let mut bench = Bench::able(transport);
        let mut step = bench.connect();
        step.extend(bench.pass(seconds(65)));
        step.extend(bench.tell(health("x")));
        bench.lose();
        step.extend(bench.reconnect());
        step.extend(bench.pass(seconds(65)));
        step.extend(bench.tell(Input::Stop));
        let numbers: Vec<u64> = step.sent.iter().map(|message| message.sequence_num).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
        assert!(numbers.len() >= 7, "{numbers:?}");
        assert_eq!(parts(step.sent.last().unwrap()), ["agent_disconnect"]);
    }

    fn many_changes_while_offline_become_one_report_of_the_last_state(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.lose();
        for round in 0..1_000 {
            bench.tell(health(&round.to_string()));
            bench.tell(Input::EffectiveConfig(EffectiveConfig::single(round.to_string())));
        }
        let step = bench.reconnect();
        let message = step.message();
        assert_eq!(message.health.as_ref().unwrap().status, "999");
        let config = message.effective_config.as_ref().unwrap().config_map.as_ref().unwrap();
        assert_eq!(&config.config_map[""].body[..], b"999");
    }

    fn many_changes_while_a_message_is_under_way_become_one_report(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.answers = false;
        bench.pass(seconds(2));
        assert_eq!(bench.tell(health("0")).sent.len(), 1);
        for round in 1..100 {
            assert!(bench.tell(Input::EffectiveConfig(EffectiveConfig::single(round.to_string()))).is_silent());
        }
        bench.answers = true;
        let step = if transport == Transport::Http { bench.ack() } else { bench.tell(Input::Written) };
        assert_eq!(parts(step.message()), ["effective_config"], "at once, without waiting for a poll");
    }

    fn a_report_whose_write_failed_is_sent_again(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.answers = false;
        bench.pass(seconds(2));
        assert_eq!(parts(bench.tell(health("lost")).message()), ["health"]);
        bench.tell(health("newer"));
        bench.lose();
        bench.answers = true;
        let step = bench.reconnect();
        assert_eq!(step.message().health.as_ref().unwrap().status, "newer");
    }
}

#[test]
fn a_reconnected_websocket_begins_with_everything_unless_told_otherwise() {
    let mut bench = Bench::able(Transport::WebSocket);
    bench.connect();
    bench.lose();
    assert_eq!(parts(bench.reconnect().message()), EVERYTHING);

    let mut bench = Bench::with(Transport::WebSocket, |setup| setup.settings.full_state_on_reconnect = false);
    bench.connect();
    bench.lose();
    assert!(parts(bench.reconnect().message()).is_empty(), "all of it was delivered");
}

#[test]
fn a_written_report_without_an_answer_is_sent_again_over_the_next_connection() {
    let mut bench = Bench::with(Transport::WebSocket, |setup| setup.settings.full_state_on_reconnect = false);
    bench.connect();
    bench.answers = false;
    assert_eq!(parts(bench.tell(health("x")).message()), ["health"]);
    bench.tell(Input::Written);
    bench.lose();
    assert_eq!(parts(bench.reconnect().message()), ["health"]);
}

#[test]
fn an_answer_that_got_lost_over_http_makes_the_report_come_again() {
    let mut bench = Bench::able(Transport::Http);
    bench.connect();
    bench.pass(seconds(2));
    bench.answers = false;
    bench.tell(health("x"));
    let timeout = Failure::new(FailureKind::Timeout, "no answer");
    bench.tell(Input::Failed(timeout));
    bench.answers = true;
    assert_eq!(parts(bench.reconnect().message()), ["health"]);
}

on_both_transports! {
    fn health_that_changes_all_the_time_is_reported_once_per_window_with_what_is_true_then(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.pass(seconds(2));
        let mut step = bench.tell(health("0"));
        for round in 1..100 {
            step.extend(bench.tell(health(&round.to_string())));
            step.extend(bench.pass(std::time::Duration::from_millis(10)));
        }
        step.extend(bench.pass(seconds(1)));
        let told: Vec<_> = step.sent.iter().map(|message| message.health.as_ref().unwrap().status.clone()).collect();
        assert_eq!(told, ["0", "99"], "the first at once, the last of the window after it");
    }

    fn health_that_goes_and_comes_back_within_the_window_is_no_news(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.pass(seconds(2));
        bench.tell(health("well"));
        bench.tell(Input::Health(Health::unhealthy(Wall(1), "blip")));
        bench.tell(health("well"));
        assert!(bench.pass(seconds(5)).is_silent());
    }

    fn a_change_of_health_rides_on_any_other_report(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.pass(seconds(2));
        bench.tell(health("0"));
        bench.tell(health("1"));
        let step = bench.tell(Input::EffectiveConfig(EffectiveConfig::single("a: 1")));
        assert_eq!(parts(step.message()), ["health", "effective_config"]);
    }
}
