//! Several endpoints: tried in order, and back to the first.

use opamp_client::session::{CloseCode, Input, Output, Setup};
use opamp_client::{Failure, FailureKind, Transport};

use crate::bench::{Bench, Step, endpoint, parts, seconds};

fn three(setup: &mut Setup) {
    setup.fallbacks = vec![endpoint("second", Transport::Http), endpoint("third", Transport::WebSocket)];
}

fn refuse(bench: &mut Bench) -> Step {
    bench.tell(Input::Failed(Failure::new(FailureKind::Refused, "refused")))
}

#[test]
fn the_next_endpoint_is_tried_at_once_and_after_the_last_one_there_is_a_wait() {
    let mut bench = Bench::with(Transport::WebSocket, three);
    assert_eq!(bench.tell(Input::Start).connects(), [0]);
    assert_eq!(refuse(&mut bench).connects(), [1]);
    assert_eq!(refuse(&mut bench).connects(), [2]);
    let step = refuse(&mut bench);
    assert!(step.connects().is_empty());
    assert_eq!(step.events.len(), 1, "one event per failure");
    let wait = bench.until_dial();
    assert_eq!(bench.pass(wait).connects(), [0], "the next round begins with the first");
}

#[test]
fn an_agent_that_lost_its_server_finds_the_next_and_reports_everything_there() {
    let mut bench = Bench::with(Transport::WebSocket, three);
    bench.connect();
    bench.lose();
    let wait = bench.until_dial();
    assert_eq!(bench.pass(wait).connects(), [0]);
    assert_eq!(refuse(&mut bench).connects(), [1]);
    let step = bench.tell(Input::Connected);
    assert_eq!(parts(step.message()), ["agent_description"], "over HTTP now: {step:?}");
}

#[test]
fn what_one_server_finds_too_large_is_offered_to_the_next() {
    let mut bench = Bench::with(Transport::WebSocket, three);
    bench.connect();
    bench.answers = false;
    let config = opamp_client::EffectiveConfig::single("x".repeat(5_000));
    bench.tell(Input::EffectiveConfig(config));
    bench.tell(Input::Closed { code: Some(1009), reason: String::new() });
    bench.answers = true;
    let wait = bench.until_dial();
    bench.pass(wait);
    assert_eq!(refuse(&mut bench).connects(), [1]);
    let step = bench.tell(Input::Connected);
    assert_eq!(parts(step.message()), ["agent_description", "effective_config"]);
}

#[test]
fn the_first_endpoint_is_looked_for_and_returned_to_in_good_order() {
    let mut bench = Bench::with(Transport::WebSocket, three);
    bench.tell(Input::Start);
    refuse(&mut bench);
    refuse(&mut bench);
    bench.tell(Input::Connected);
    for _ in 0..2 {
        let step = bench.pass(seconds(299));
        assert!(!step.has(&Output::Probe { endpoint: 0 }), "not so soon");
        let step = bench.pass(seconds(602));
        assert_eq!(step.outputs.iter().filter(|output| matches!(output, Output::Probe { .. })).count(), 1);
        assert!(bench.tell(Input::Probed(false)).is_silent());
    }
    bench.pass(seconds(901));
    let step = bench.tell(Input::Probed(true));
    assert_eq!(parts(step.message()), ["agent_disconnect"]);
    assert!(step.has(&Output::Close(CloseCode::Normal)) && step.connects().is_empty());
    let step = bench.tell(Input::Closed { code: Some(1000), reason: String::new() });
    assert_eq!(step.connects(), [0]);
}

#[test]
fn a_first_endpoint_that_is_still_gone_costs_nothing_but_an_attempt() {
    let mut bench = Bench::with(Transport::WebSocket, three);
    bench.tell(Input::Start);
    refuse(&mut bench);
    bench.tell(Input::Connected);
    bench.pass(seconds(901));
    let step = bench.tell(Input::Probed(true));
    assert_eq!(step.connects(), [0], "over HTTP there is nothing to close");
    assert_eq!(refuse(&mut bench).connects(), [1]);
    assert_eq!(bench.tell(Input::Connected).sent.len(), 1);
}

#[test]
fn an_overloaded_endpoint_is_left_alone_while_another_serves() {
    let mut bench = Bench::with(Transport::WebSocket, three);
    bench.tell(Input::Start);
    bench.tell(Input::Failed(Failure::from_status(503, Some(seconds(1_000)))));
    let start = bench.now.mono;
    let wait = bench.until_dial();
    assert!(wait <= seconds(2), "{wait:?}");
    assert_eq!(bench.pass(wait).connects(), [1]);
    bench.tell(Input::Connected);
    let step = bench.pass(seconds(999) - (bench.now.mono - start));
    assert!(step.outputs.iter().all(|output| !matches!(output, Output::Probe { .. })), "not even looked at");
    assert!(bench.pass(seconds(3)).has(&Output::Probe { endpoint: 0 }));
}

#[test]
fn an_answer_about_the_first_endpoint_that_comes_when_the_agent_is_back_there_leads_to_nothing() {
    let mut bench = Bench::with(Transport::WebSocket, three);
    bench.tell(Input::Start);
    refuse(&mut bench);
    bench.tell(Input::Connected);
    assert!(bench.pass(seconds(901)).has(&Output::Probe { endpoint: 0 }));
    bench.tell(Input::Failed(Failure::new(FailureKind::Closed, "reset")));
    let wait = bench.until_dial();
    assert_eq!(bench.pass(wait).connects(), [0]);
    bench.tell(Input::Connected);
    for reachable in [false, true] {
        assert!(bench.tell(Input::Probed(reachable)).is_silent());
    }
    assert!(!bench.pass(seconds(3_600)).has(&Output::Probe { endpoint: 0 }));
}

#[test]
fn a_fleet_that_left_its_first_server_together_does_not_return_together() {
    let mut at = Vec::new();
    for seed in 0..1_000 {
        let mut bench = Bench::with(Transport::WebSocket, |setup| {
            three(setup);
            setup.seed = seed;
        });
        bench.tell(Input::Start);
        refuse(&mut bench);
        bench.tell(Input::Connected);
        let start = bench.now.mono;
        while !bench.pass(seconds(1)).has(&Output::Probe { endpoint: 0 }) {}
        at.push((bench.now.mono - start).as_secs());
    }
    assert!(at.iter().all(|at| (300..=901).contains(at)));
    let most = (300..=901).map(|second| at.iter().filter(|at| **at == second).count()).max();
    assert!(most <= Some(10), "no second holds more than a hundredth: {most:?}");
}

#[test]
fn a_first_endpoint_that_takes_the_agent_and_fails_takes_it_ever_more_seldom() {
    let mut bench = Bench::with(Transport::WebSocket, three);
    bench.tell(Input::Start);
    refuse(&mut bench);
    bench.tell(Input::Connected);
    let mut returns = 0;
    let start = bench.now.mono;
    while bench.now.mono - start < seconds(24 * 3_600) {
        let wait = bench.until_dial();
        if !bench.pass(wait).has(&Output::Probe { endpoint: 0 }) {
            continue;
        }
        returns += 1;
        assert_eq!(bench.tell(Input::Probed(true)).connects(), [0]);
        bench.tell(Input::Connected);
        // It took the upgrade, and that was all.
        bench.tell(Input::Failed(Failure::new(FailureKind::Closed, "reset")));
        let wait = bench.until_dial();
        assert_eq!(bench.pass(wait).connects(), [0]);
        refuse(&mut bench);
        bench.tell(Input::Connected);
    }
    assert!((6..=14).contains(&returns), "{returns} in a day instead of 144");
}
