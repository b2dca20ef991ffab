//! The agent's process ends without a word, at any moment of a trial.

use opamp_client::session::Input;
use opamp_client::{Failure, FailureKind, SavedState, Transport};

use crate::bench::{Bench, seconds};
use crate::settings::{Applied, Failed, elsewhere, last_report, takes_settings, with_endpoint};

/// What is on the disk after each step of a trial that passes, with the name of the step.
fn moments(transport: Transport) -> Vec<(&'static str, SavedState)> {
    let mut moments = Vec::new();
    let mut bench = Bench::settable(transport);
    bench.answers = false;
    bench.takes_connections = false;
    let step = bench.answer(crate::settings::offer(b"h", with_endpoint(elsewhere(transport))));
    moments.push(("offered", bench.session.saved()));
    let hash = step.handed_over()[0].hash.clone();
    bench.answers = false;
    bench.tell(Input::ConnectionsOutcome { hash, failed: Vec::new() });
    moments.push(("examined", bench.session.saved()));
    if transport == Transport::WebSocket {
        bench.tell(Input::Written);
    }
    bench.ack();
    moments.push(("announced", bench.session.saved()));
    if transport == Transport::WebSocket {
        bench.tell(Input::Written);
    }
    let step = bench.ack();
    let step = bench.left(step);
    moments.push(("left", bench.session.saved()));
    drop(step);
    bench.pass(seconds(3));
    bench.tell(Input::Connected);
    moments.push(("connected", bench.session.saved()));
    if transport == Transport::WebSocket {
        bench.tell(Input::Written);
    }
    bench.ack();
    moments.push(("answered", bench.session.saved()));
    moments
}

on_both_transports! {
    /// R-CONN-05: from when it is saved the candidate is tried again; before, the server offers it again.
    fn a_crash_at_any_moment_leads_to_another_trial_or_to_what_was_accepted(transport) {
        for (moment, saved) in moments(transport) {
            let mut bench = Bench::restarted(saved, transport);
            let step = bench.tell(Input::Start);
            if moment == "offered" {
                assert_eq!((step.connects().len(), step.dialed().len()), (1, 0), "{moment}");
                let step = bench.tell(Input::Connected);
                assert_eq!(last_report(&step).0, Vec::<u8>::new(), "{moment}: never received");
                let step = bench.offer_settings(b"h", with_endpoint(elsewhere(transport)));
                assert_eq!(step.dialed().len(), 1, "{moment}: and taken again");
            } else {
                assert_eq!((step.connects().len(), step.dialed().len()), (0, 1), "{moment}: {step:?}");
            }
            let step = bench.tell(Input::Connected);
            assert_eq!(last_report(&step), (b"h".to_vec(), Applied, String::new()), "{moment}");
            assert_eq!(bench.session.saved().connections.candidate, None, "{moment}");
        }
    }

    fn a_crash_at_any_moment_before_settings_that_do_not_work_leads_back(transport) {
        for (moment, saved) in moments(transport).into_iter().filter(|(moment, _)| !["offered", "answered"].contains(moment)) {
            let mut bench = Bench::restarted(saved, transport);
            bench.tell(Input::Start);
            bench.tell(Input::Failed(Failure::new(FailureKind::Refused, "x")));
            let step = bench.come_back();
            let (hash, status, _) = last_report(&step);
            assert_eq!((hash.as_slice(), status), (&b"h"[..], Failed), "{moment}");
        }
    }

    fn settings_that_bring_the_agent_down_are_not_tried_for_ever(transport) {
        let mut bench = Bench::settable(transport);
        bench.offer_settings(b"h", with_endpoint(elsewhere(transport)));
        let mut trials = 1;
        let report = loop {
            bench = Bench::restarted(bench.session.saved(), transport);
            let step = bench.tell(Input::Start);
            if step.dialed().is_empty() {
                assert_eq!(step.connects(), [0]);
                break last_report(&bench.tell(Input::Connected));
            }
            trials += 1;
            assert!(trials < 10, "for ever");
        };
        assert_eq!(trials, 3);
        assert!(report.1 == Failed && report.2.contains("ended 3 times"), "{report:?}");
        assert_eq!(bench.session.saved().connections.candidate, None);
        assert!(bench.pass(seconds(120)).dialed().is_empty());
    }

    /// Also between two accepted settings.
    fn a_crash_during_the_second_trial_keeps_the_first_settings(transport) {
        let mut bench = Bench::settable(transport);
        bench.offer_settings(b"1", with_endpoint(elsewhere(transport)));
        bench.tell(Input::Connected);
        let third = elsewhere(transport).replace("elsewhere", "third");
        bench.offer_settings(b"2", with_endpoint(&third));
        bench = Bench::restarted(bench.session.saved(), transport);
        assert_eq!(bench.tell(Input::Start).dialed()[0].endpoint, third);
        bench.tell(Input::Failed(Failure::new(FailureKind::Auth, "401")));
        let step = bench.pass(seconds(2));
        assert_eq!(step.dialed()[0].endpoint, elsewhere(transport));
        assert_eq!(last_report(&bench.tell(Input::Connected)).1, Failed);
    }
}

/// Without a configuration that takes settings, none of it is looked at.
#[test]
fn a_candidate_is_not_tried_by_an_agent_that_takes_no_settings_any_more() {
    let mut bench = Bench::settable(Transport::WebSocket);
    bench.offer_settings(b"h", with_endpoint("wss://elsewhere/"));
    let saved = bench.session.saved();
    let mut bench = Bench::with(Transport::WebSocket, |setup| {
        takes_settings(setup);
        setup.abilities.opamp_settings = false;
        setup.abilities.own_logs = true;
        setup.saved = saved;
    });
    assert_eq!(bench.connect().dialed().len(), 0);
}
