//! An overloaded server is left alone for as long as it asks.

use std::time::Duration;

use opamp_client::session::{CloseCode, Input, Output};
use opamp_client::{Failure, FailureKind, Transport};
use opamp_proto::pb::ServerErrorResponseType::Unavailable;

use crate::bench::{Bench, error, health, interval, parts, seconds};

/// Lets the server be unavailable to the next report, and finishes the goodbye.
fn unavailable(bench: &mut Bench, retry: Duration) {
    bench.answers = false;
    let status = bench.now.mono.0.to_string();
    let step = bench.tell(health(&status));
    assert_eq!(parts(step.message()), ["health"]);
    if bench.transport() == Transport::WebSocket {
        bench.tell(Input::Written);
    }
    let nanoseconds = u64::try_from(retry.as_nanos()).unwrap();
    let mut step = bench.receive(error(Unavailable, nanoseconds));
    if bench.transport() == Transport::WebSocket {
        assert_eq!(parts(step.message()), ["agent_disconnect"]);
        step = bench.tell(Input::Written);
        assert!(step.has(&Output::Close(CloseCode::Normal)), "{step:?}");
        let closed = Input::Closed { code: Some(1000), reason: String::new() };
        step.extend(bench.tell(closed));
    }
    let kinds: Vec<_> = step.events.iter().map(|event| event.failure().unwrap().kind).collect();
    assert_eq!(kinds, [FailureKind::Throttled], "{step:?}");
    bench.answers = true;
}

on_both_transports! {
    fn unavailable_with_a_time_is_obeyed_to_the_second_and_then_the_report_comes_again(transport) {
        for seed in 0..50 {
            let mut bench = Bench::with(transport, |setup| {
                setup.seed = seed;
                setup.settings.full_state_on_reconnect = false;
            });
            bench.connect();
            bench.tell(health("before"));
            bench.pass(seconds(2));
            unavailable(&mut bench, seconds(30));
            let step = bench.pass(Duration::from_millis(29_999));
            assert!(step.connects().is_empty() && step.sent.is_empty(), "{step:?}");
            assert_eq!(bench.pass(Duration::from_millis(1_001)).connects().len(), 1, "and soon after");
            let step = bench.tell(Input::Connected);
            assert!(parts(step.message()).contains(&"health"), "{step:?}");
        }
    }

    fn unavailable_without_a_time_means_30_seconds_and_more_each_time(transport) {
        let mut sums = [0; 5];
        for seed in 0..100 {
            let mut bench = Bench::with(transport, |setup| setup.seed = seed);
            bench.connect();
            for sum in &mut sums {
                bench.pass(seconds(2));
                unavailable(&mut bench, Duration::ZERO);
                let wait = bench.until_dial();
                assert!(wait >= seconds(30), "{wait:?}");
                *sum += wait.as_millis();
                bench.pass(wait);
                bench.tell(Input::Connected);
            }
        }
        assert!(sums.windows(2).all(|pair| pair[0] < pair[1]), "{sums:?}");
    }

    fn statuses_503_and_429_are_obeyed_the_same_way(transport) {
        for status in [429, 503] {
            let mut bench = Bench::on(transport);
            bench.tell(Input::Start);
            bench.tell(Input::Failed(Failure::from_status(status, Some(seconds(40)))));
            let wait = bench.until_dial();
            assert!((seconds(40)..=seconds(41)).contains(&wait), "{wait:?}");
            bench.pass(wait);
            bench.tell(Input::Failed(Failure::from_status(status, None)));
            assert!(bench.until_dial() >= seconds(30));
        }
    }

    fn the_time_asked_for_concerns_reconnecting_only(transport) {
        let mut bench = Bench::able(transport);
        bench.tell(Input::Start);
        bench.tell(Input::Failed(Failure::from_status(503, Some(seconds(90)))));
        bench.pass(bench.until_dial());
        bench.tell(Input::Connected);
        assert_eq!(bench.pass(seconds(300)).sent.len(), 10, "the usual interval afterwards");
    }

    fn a_time_without_end_is_cut(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.pass(seconds(2));
        unavailable(&mut bench, Duration::from_nanos(u64::MAX));
        assert!(bench.until_dial() <= seconds(24 * 3600 + 1));
    }

    fn at_once_from_an_overloaded_server_is_no_reason_for_a_tight_loop(transport) {
        let mut bench = Bench::on(transport);
        bench.tell(Input::Start);
        let (start, mut attempts) = (bench.now.mono, 0);
        while bench.now.mono - start < seconds(60) {
            attempts += 1;
            bench.tell(Input::Failed(Failure::from_status(503, Some(Duration::ZERO))));
            bench.pass(bench.until_dial());
        }
        assert!(attempts < 40, "{attempts}");
    }

    fn a_stop_while_waiting_is_immediate(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.pass(seconds(2));
        unavailable(&mut bench, seconds(3600));
        bench.tell(Input::Stop);
        assert!(bench.session.is_finished());
    }

    fn an_impatient_reconnect_does_not_get_around_the_wait(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.answer(interval(1));
        bench.pass(seconds(2));
        unavailable(&mut bench, seconds(100));
        assert!(bench.tell(Input::Reconnect).connects().is_empty());
        assert!(bench.pass(seconds(99)).connects().is_empty());
    }
}
