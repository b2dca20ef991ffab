//! Connecting, noticing the end, coming back, leaving.

use std::time::Duration;

use opamp_client::session::{CloseCode, Input, Outbox, Output, Stopped};
use opamp_client::{DisconnectCause, Event, Failure, FailureKind, Transport};
use opamp_proto::pb;

use crate::bench::{Bench, Step, health, parts, seconds};

fn refused() -> Input<'static> {
    Input::Failed(Failure::new(FailureKind::Refused, "connection refused"))
}

/// Milliseconds between the attempts of an agent whose server is gone.
fn gaps(bench: &mut Bench, attempts: usize) -> Vec<u64> {
    let mut gaps = Vec::new();
    for _ in 0..attempts {
        let since = bench.now.mono;
        let mut step = bench.tell(refused());
        while step.connects().is_empty() {
            let wait = bench.until_dial();
            step.extend(bench.pass(wait));
        }
        gaps.push(bench.now.mono.0 - since.0);
    }
    gaps
}

fn kinds(step: &Step) -> Vec<FailureKind> {
    step.events.iter().filter_map(|event| event.failure().map(|failure| failure.kind)).collect()
}

on_both_transports! {
    fn connected_and_disconnected_are_told_once_each(transport) {
        let mut bench = Bench::able(transport);
        let mut step = bench.connect();
        step.extend(bench.pass(seconds(300)));
        assert!(matches!(step.events[..], [Event::Connected { .. }]), "not with every poll: {:?}", step.events);
        let step = bench.lose();
        assert!(matches!(step.events[..], [Event::Disconnected { .. }]), "{:?}", step.events);
        assert!(bench.lose().events.is_empty(), "nor twice");
        let step = bench.reconnect();
        assert!(matches!(step.events[..], [Event::Connected { .. }]), "{:?}", step.events);
    }

    fn a_failed_attempt_is_told_once_with_its_class_and_what_to_do(transport) {
        let mut bench = Bench::able(transport);
        bench.tell(Input::Start);
        let step = bench.tell(refused());
        assert_eq!(kinds(&step), [FailureKind::Refused]);
        assert_eq!(step.events.len(), 1);
        assert!(step.events[0].to_string().contains("check that the server runs"), "{}", step.events[0]);
        assert!(bench.tell(refused()).events.is_empty(), "a late echo of it");
    }

    fn the_first_attempt_after_a_loss_falls_within_a_second_and_later_ones_back_off(transport) {
        let mut first = Vec::new();
        let mut sums = [0; 10];
        for seed in 0..200 {
            let mut bench = Bench::with(transport, |setup| setup.seed = seed);
            bench.connect();
            bench.pass(seconds(100));
            bench.lose();
            first.push(bench.until_dial());
            bench.pass(seconds(1));
            for (sum, gap) in sums.iter_mut().zip(gaps(&mut bench, 10)) {
                *sum += gap;
            }
        }
        assert!(first.iter().all(|wait| *wait <= seconds(1)));
        assert!(first.iter().any(|wait| *wait < Duration::from_millis(100)));
        assert!(first.iter().any(|wait| *wait > Duration::from_millis(900)));
        assert!(sums.windows(2).all(|pair| pair[0] < pair[1]), "growing on average: {sums:?}");
    }

    fn after_401_attempts_are_few_and_then_it_works(transport) {
        let mut bench = Bench::able(transport);
        bench.tell(Input::Start);
        let (start, mut attempts) = (bench.now.mono, 0);
        while bench.now.mono - start < seconds(60) {
            attempts += 1;
            assert!(attempts <= 12, "a tight loop");
            let mut step = bench.tell(Input::Failed(Failure::from_status(401, None)));
            assert_eq!(kinds(&step), [FailureKind::Auth]);
            while step.connects().is_empty() {
                let wait = bench.until_dial();
                step.extend(bench.pass(wait));
            }
        }
        assert_eq!(bench.tell(Input::Connected).sent.len(), 1);
    }

    fn an_unanswered_report_is_noticed_and_comes_again(transport) {
        let mut bench = Bench::able(transport);
        bench.answers = false;
        assert_eq!(bench.connect().sent.len(), 1);
        if transport == Transport::WebSocket {
            bench.tell(Input::Written);
        }
        let step = bench.pass(Duration::from_millis(29_999));
        assert!(step.events.is_empty(), "{step:?}");
        let step = bench.pass(Duration::from_millis(1));
        assert_eq!(kinds(&step), [FailureKind::Timeout]);
        assert!(step.has(&Output::Abort));
        bench.answers = true;
        assert_eq!(parts(bench.reconnect().message()).len(), 4);
    }

    fn an_attempt_that_takes_too_long_is_given_up(transport) {
        let mut bench = Bench::able(transport);
        bench.tell(Input::Start);
        let step = bench.pass(seconds(30));
        assert_eq!(kinds(&step), [FailureKind::Timeout]);
        assert!(step.has(&Output::Abort));
        assert!(bench.tell(Input::Connected).sent.is_empty(), "too late");
    }

    fn the_goodbye_is_the_last_message_and_stands_in_no_earlier_one(transport) {
        let mut bench = Bench::able(transport);
        let mut step = bench.connect();
        step.extend(bench.pass(seconds(90)));
        assert!(step.sent.iter().all(|message| message.agent_disconnect.is_none()));
        let step = bench.tell(Input::Stop);
        assert_eq!(parts(step.message()), ["agent_disconnect"]);
        assert!(matches!(step.events[..], [Event::Disconnected { cause: DisconnectCause::Stopped, .. }]));
        if transport == Transport::WebSocket {
            assert_eq!(step.outputs, [Output::Close(CloseCode::Normal)]);
            assert!(!bench.session.is_finished(), "the closing handshake is completed");
            bench.tell(Input::Closed { code: Some(1000), reason: String::new() });
        }
        assert!(bench.session.is_finished());
        assert_eq!(bench.session.deadline(), None);
    }

    fn a_last_change_goes_out_with_the_goodbye(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.tell(health("stopping"));
        let step = bench.tell(Input::Stop);
        assert_eq!(parts(step.message()), ["health", "agent_disconnect"]);
    }

    fn a_stop_works_in_every_state(transport) {
        let states: [fn(&mut Bench); 6] = [
            |_| {},
            |bench| drop(bench.tell(Input::Start)),
            |bench| {
                bench.tell(Input::Start);
                bench.tell(refused());
            },
            |bench| {
                bench.answers = false;
                bench.connect();
            },
            |bench| {
                bench.connect();
                bench.tell(Input::Reconnect);
            },
            |bench| {
                bench.connect();
                bench.tell(Input::Stop);
            },
        ];
        for (number, reach) in states.into_iter().enumerate() {
            let mut bench = Bench::able(transport);
            reach(&mut bench);
            bench.tell(Input::Stop);
            bench.pass(seconds(10));
            assert!(bench.session.is_finished(), "state {number}: {:?}", bench.session);
        }
    }

    fn a_stop_while_leaving_for_another_reason_is_the_end(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.answers = false;
        assert_eq!(parts(bench.tell(Input::Reconnect).message()), ["agent_disconnect"]);
        bench.tell(Input::Stop);
        let mut step = if transport == Transport::Http { bench.ack() } else { bench.tell(Input::Written) };
        if transport == Transport::WebSocket {
            step.extend(bench.tell(Input::Closed { code: Some(1000), reason: String::new() }));
        }
        assert!(step.connects().is_empty() && bench.session.is_finished(), "{step:?}");
    }

    fn back_off_starts_anew_after_a_stable_connection_only(transport) {
        let mut longest = [Duration::ZERO; 2];
        for seed in 0..50 {
            for (case, lasts) in [(0, seconds(90)), (1, seconds(10))] {
                let mut bench = Bench::with(transport, |setup| setup.seed = seed);
                bench.tell(Input::Start);
                gaps(&mut bench, 12);
                bench.tell(Input::Connected);
                bench.pass(lasts);
                bench.lose();
                longest[case] = longest[case].max(bench.until_dial());
            }
        }
        assert!(longest[0] <= seconds(1), "after a stable one: {longest:?}");
        assert!(longest[1] > seconds(30), "after one that fell over at once: {longest:?}");
    }

    fn telling_something_after_a_stop_is_an_error(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.tell(Input::Stop);
        bench.pass(seconds(10));
        let mut out = Outbox::new();
        for input in [health("x"), Input::Reconnect, Input::Start] {
            assert_eq!(bench.session.handle(input, bench.now, &mut out), Err(Stopped));
        }
        assert!(out.take().is_none());
    }

    fn a_deliberate_reconnect_says_goodbye_closes_and_connects_in_this_order(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        let mut step = bench.tell(Input::Reconnect);
        assert_eq!(parts(step.message()), ["agent_disconnect"]);
        if transport == Transport::WebSocket {
            assert_eq!(step.outputs, [Output::Close(CloseCode::Normal)], "one connection at a time");
            step = bench.tell(Input::Closed { code: Some(1000), reason: String::new() });
        }
        assert_eq!(step.connects(), [0]);
        assert_eq!(bench.tell(Input::Connected).sent.len(), 1);
    }

    fn what_is_left_is_saved_at_the_end_and_the_count_goes_on(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.pass(seconds(60));
        bench.tell(Input::Stop);
        bench.pass(seconds(5));
        let saved = bench.session.saved();
        assert_eq!(saved.sequence_num.0, 4);
        let mut bench = Bench::with(transport, |setup| setup.saved = saved);
        assert_eq!(bench.connect().message().sequence_num, 5);
    }

    fn time_connected_and_reconnects_are_counted(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.pass(seconds(100));
        bench.lose();
        bench.pass(bench.until_dial());
        bench.tell(refused());
        bench.reconnect();
        bench.pass(seconds(50));
        let stats = bench.session.stats(bench.now.mono);
        assert_eq!((stats.reconnects, stats.connects_failed, stats.connected), (1, 1, seconds(150)));
        assert!(stats.is_connected);
    }
}

#[test]
fn a_silent_websocket_is_pinged_and_given_up_at_the_read_deadline() {
    let mut bench = Bench::with(Transport::WebSocket, |setup| setup.settings.heartbeat = None);
    bench.connect();
    for _ in 0..5 {
        let step = bench.pass(seconds(30));
        assert!(step.has(&Output::Ping) && step.events.is_empty(), "{step:?}");
    }
    bench.answers = false;
    let step = bench.pass(Duration::from_millis(89_999));
    assert!(step.events.is_empty() && step.has(&Output::Ping));
    assert_eq!(kinds(&bench.pass(Duration::from_millis(1))), [FailureKind::Timeout]);
}

#[test]
fn a_message_that_cannot_be_written_is_noticed_by_the_write_deadline() {
    let mut bench = Bench::able(Transport::WebSocket);
    bench.connect();
    bench.pass(seconds(2));
    bench.answers = false;
    bench.tell(health("stuck"));
    let step = bench.pass(Duration::from_millis(19_999));
    assert!(step.events.is_empty());
    assert_eq!(kinds(&bench.pass(Duration::from_millis(1))), [FailureKind::Timeout]);
    bench.answers = true;
    let step = bench.reconnect();
    assert_eq!(step.message().health.as_ref().unwrap().status, "stuck");
}

#[test]
fn what_the_server_sends_is_handled_while_a_message_is_stuck() {
    let mut bench = Bench::able(Transport::WebSocket);
    bench.connect();
    bench.pass(seconds(2));
    bench.answers = false;
    bench.tell(health("stuck"));
    assert_eq!(bench.offer(&[1], "x").applies().len(), 1);
}

#[test]
fn two_reports_can_be_under_way_before_the_first_answer_over_websocket() {
    let mut bench = Bench::able(Transport::WebSocket);
    bench.connect();
    bench.pass(seconds(2));
    bench.answers = false;
    bench.tell(health("a"));
    let step = bench.tell(Input::Written);
    assert!(step.is_silent());
    let effective = opamp_client::EffectiveConfig::single("x");
    assert_eq!(bench.tell(Input::EffectiveConfig(effective)).sent.len(), 1);
}

#[test]
fn a_server_that_shuts_down_is_come_back_to() {
    let mut bench = Bench::able(Transport::WebSocket);
    bench.connect();
    let step = bench.tell(Input::Closed { code: Some(1001), reason: String::new() });
    assert_eq!(kinds(&step), [FailureKind::Closed]);
    assert!(step.events[0].to_string().contains("shutting down"), "{}", step.events[0]);
    assert_eq!(bench.reconnect().sent.len(), 1);
}

#[test]
fn a_stop_does_not_wait_for_ever_for_a_server_that_does_not_answer() {
    let mut bench = Bench::able(Transport::Http);
    bench.connect();
    bench.answers = false;
    bench.pass(seconds(30));
    assert!(bench.tell(Input::Stop).sent.is_empty(), "one request at a time");
    let step = bench.pass(seconds(5));
    assert!(bench.session.is_finished());
    assert!(
        matches!(step.events[..], [Event::Disconnected { cause: DisconnectCause::Stopped, .. }]),
        "{step:?}"
    );
}

#[test]
fn messages_that_arrive_while_leaving_have_no_effect() {
    let mut bench = Bench::able(Transport::WebSocket);
    bench.connect();
    bench.answers = false;
    bench.tell(Input::Stop);
    assert!(bench.receive(crate::bench::offer(&[1], "x")).is_silent());
    bench.tell(Input::Written);
    assert!(bench.receive(pb::ServerToAgent { flags: 1, ..Default::default() }).is_silent());
}
