//! Heartbeats and polls.

use std::time::Duration;

use opamp_client::session::Input;
use opamp_client::{Failure, Transport};

use crate::bench::{Bench, UID, health, interval, parts, seconds};

/// Seconds between the messages of an idle session.
fn gap(bench: &mut Bench) -> u64 {
    bench.pass(Duration::from_millis(1));
    let start = bench.now.mono;
    let mut step = bench.pass(seconds(0));
    while step.sent.is_empty() {
        assert!(bench.now.mono - start < seconds(100_000), "no heartbeat at all");
        step.extend(bench.pass(Duration::from_millis(500)));
    }
    (bench.now.mono - start).as_secs()
}

on_both_transports! {
    fn an_idle_agent_speaks_every_30_seconds_by_default(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        let step = bench.pass(seconds(300));
        assert_eq!(step.sent.len(), 10);
    }

    fn the_configured_interval_is_used(transport) {
        let mut bench = Bench::with(transport, |setup| {
            setup.settings.heartbeat = Some(seconds(120));
            setup.settings.poll_interval = seconds(120);
        });
        bench.connect();
        assert_eq!(bench.pass(seconds(1200)).sent.len(), 10);
    }

    fn the_interval_the_server_sets_is_used_over_the_configured_one(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.answer(interval(2));
        // The first one of a connection may come early.
        assert!((10..=11).contains(&bench.pass(seconds(20)).sent.len()));
        assert!((1..=2).contains(&gap(&mut bench)));
        bench.lose();
        bench.reconnect();
        assert!((10..=11).contains(&bench.pass(seconds(20)).sent.len()), "also over the next connection");
    }

    fn a_heartbeat_has_identity_sequence_and_capabilities_and_nothing_else(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        let step = bench.pass(seconds(30));
        let message = step.message();
        assert_eq!(&message.instance_uid[..], UID.as_bytes());
        assert_eq!(message.sequence_num, 2);
        assert_eq!(message.capabilities, bench.session.capabilities().bits());
        assert!(parts(message).is_empty());
        assert_eq!(message.flags, 0);
    }

    fn the_interval_counts_from_the_last_message_of_any_kind(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.pass(seconds(25));
        assert_eq!(bench.tell(health("x")).sent.len(), 1);
        assert!(bench.pass(seconds(29)).sent.is_empty());
        assert_eq!(bench.pass(seconds(1)).sent.len(), 1);
    }

    fn an_absurd_interval_does_not_silence_an_agent_for_good(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.answer(interval(u64::MAX));
        assert!(!bench.pass(seconds(2 * 24 * 3600)).sent.is_empty());
    }

    fn heartbeats_resume_after_a_reconnect(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.lose();
        bench.reconnect();
        assert_eq!(bench.pass(seconds(300)).sent.len(), 10);
    }

    fn nothing_is_sent_while_waiting_to_reconnect(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        let overload = Failure::from_status(503, Some(seconds(60)));
        bench.tell(Input::Failed(overload));
        let step = bench.pass(Duration::from_millis(59_999));
        assert!(step.sent.is_empty() && step.connects().is_empty(), "{step:?}");
    }

    fn sent_and_failed_heartbeats_are_counted(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.pass(seconds(90));
        bench.answers = false;
        bench.pass(seconds(30));
        bench.lose();
        let stats = bench.session.stats(bench.now.mono);
        assert_eq!((stats.heartbeats_sent, stats.heartbeats_failed), (3, 1));
        assert_eq!(stats.messages_sent, 4);
    }
}

#[test]
fn intervals_of_0_in_the_settings_are_no_flood() {
    for transport in [Transport::WebSocket, Transport::Http] {
        let mut bench = Bench::with(transport, |setup| {
            let settings = &mut setup.settings;
            settings.heartbeat = Some(Duration::ZERO);
            for interval in [
                &mut settings.poll_interval,
                &mut settings.ping_interval,
                &mut settings.full_state_spacing,
                &mut settings.failback_after,
            ] {
                *interval = Duration::ZERO;
            }
        });
        bench.connect();
        let sent = bench.pass(seconds(1)).sent.len();
        match transport {
            Transport::WebSocket => assert_eq!(sent, 0, "no heartbeats"),
            Transport::Http => assert!((90..=100).contains(&sent), "{sent}"),
        }
    }
}

#[test]
fn interval_0_stops_heartbeats_over_websocket() {
    let mut bench = Bench::able(Transport::WebSocket);
    bench.connect();
    bench.receive(interval(0));
    let mut step = bench.pass(seconds(1));
    step.extend(bench.pass(seconds(2_000)));
    assert!(step.sent.is_empty(), "{:?}", step.sent);
    bench.receive(interval(10));
    assert_eq!(bench.pass(seconds(20)).sent.len(), 2, "and another one starts them again");
}

#[test]
fn interval_0_never_stops_polling() {
    let mut bench = Bench::able(Transport::Http);
    bench.connect();
    bench.answer(interval(0));
    assert_eq!(bench.pass(seconds(300)).sent.len(), 10, "at the configured interval");
    bench.answer(interval(5));
    bench.pass(seconds(1));
    bench.answers = false;
    bench.pass(seconds(5));
    bench.answers = true;
    bench.receive(interval(0));
    assert_eq!(bench.pass(seconds(300)).sent.len(), 10);
}

#[test]
fn an_agent_can_opt_out_of_heartbeats() {
    let mut bench = Bench::with(Transport::WebSocket, |setup| setup.settings.heartbeat = None);
    let step = bench.connect();
    assert_eq!(step.message().capabilities & 0x2000, 0);
    bench.receive(interval(2));
    assert!(bench.pass(seconds(600)).sent.is_empty());
}

#[test]
fn a_poll_waits_for_the_answer_to_the_one_before() {
    let mut bench = Bench::able(Transport::Http);
    bench.connect();
    bench.answer(crate::bench::interval(5));
    bench.answers = false;
    assert_eq!(bench.pass(seconds(5)).sent.len(), 1);
    for round in 0..10 {
        assert!(bench.tell(health(&round.to_string())).sent.is_empty());
        assert!(bench.pass(seconds(2)).sent.is_empty());
    }
    bench.answers = true;
    let step = bench.ack();
    assert_eq!(parts(step.message()), ["health"], "what waits is sent with the answer");
}

#[test]
fn agents_that_connected_in_the_same_second_do_not_go_on_speaking_in_the_same_second() {
    for transport in [Transport::WebSocket, Transport::Http] {
        let mut spoke = [0; 31];
        for seed in 0..1_000 {
            let mut bench = Bench::with(transport, |setup| setup.seed = seed);
            bench.connect();
            // As after a restart of the server, when everybody has something to say at first.
            bench.tell(health("here"));
            bench.pass(seconds(0));
            let mut waited = 0;
            while bench.pass(seconds(1)).sent.is_empty() {
                waited += 1;
            }
            spoke[waited] += 1;
            assert!((29..=30).contains(&gap(&mut bench)), "from then on at the interval");
        }
        assert_eq!(spoke[..14].iter().sum::<usize>(), 0, "not before half of the interval");
        assert!(spoke.iter().all(|agents| *agents <= 120), "no second holds more than an eighth: {spoke:?}");
    }
}

#[test]
fn machines_that_are_switched_on_together_can_be_spread() {
    let mut at = [0; 11];
    for seed in 0..1_000 {
        let mut bench = Bench::with(Transport::WebSocket, |setup| {
            setup.seed = seed;
            setup.settings.start_within = seconds(10);
        });
        let (start, mut step) = (bench.now.mono, bench.tell(Input::Start));
        while step.connects().is_empty() {
            step = bench.pass(Duration::from_millis(100));
        }
        at[usize::try_from((bench.now.mono - start).as_secs()).unwrap()] += 1;
    }
    assert!(at[..10].iter().all(|agents| (60..=150).contains(agents)), "{at:?}");
    let mut bench = Bench::on(Transport::WebSocket);
    assert_eq!(bench.tell(Input::Start).connects(), [0], "at once by default");
}
