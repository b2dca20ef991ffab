//! The distance of heartbeats and polls, to the millisecond.

use std::time::Duration;

use crate::bench::{Bench, interval, seconds};

/// The distances between so many messages of an idle session, the first one from now on.
fn distances(bench: &mut Bench, messages: usize) -> Vec<Duration> {
    let (mut distances, mut last) = (Vec::new(), bench.now.mono);
    while distances.len() < messages {
        let wait = bench.until_dial();
        assert!(wait < seconds(100_000), "no message at all");
        for message in bench.pass(wait).sent {
            assert!(crate::bench::parts(&message).is_empty(), "{message:?}");
            distances.push(bench.now.mono - last);
            last = bench.now.mono;
        }
    }
    distances
}

/// The first of a connection may come early, so that a fleet does not speak in one second; none comes late.
fn assert_paced(bench: &mut Bench, pace: Duration) {
    let found = distances(bench, 11);
    assert!(found[0] >= pace / 2 && found[0] <= pace, "{found:?}");
    assert_eq!(found[1..], [pace; 10]);
}

on_both_transports! {
    fn an_idle_agent_speaks_every_30_seconds_to_the_millisecond(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        assert_paced(&mut bench, seconds(30));
    }

    fn a_configured_distance_is_kept_to_the_millisecond(transport) {
        for pace in [Duration::from_millis(1_500), seconds(2), seconds(120)] {
            let mut bench = Bench::with(transport, |setup| {
                setup.settings.heartbeat = Some(pace);
                setup.settings.poll_interval = pace;
            });
            bench.connect();
            assert_paced(&mut bench, pace);
        }
    }

    fn a_distance_set_by_the_server_is_kept_to_the_millisecond_over_reconnects(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        distances(&mut bench, 1);
        bench.answer(interval(5));
        assert_eq!(distances(&mut bench, 11)[1..], [seconds(5); 10]);
        bench.lose();
        bench.reconnect();
        assert_paced(&mut bench, seconds(5));
    }
}
