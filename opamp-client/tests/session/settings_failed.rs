//! Settings of the OpAMP connection that do not work: the agent comes back, and says so.

use std::time::Duration;

use opamp_client::session::ConnectionPart;
use opamp_client::session::{Input, Unusable};
use opamp_client::{ConfigHash, Event, Failure, FailureKind, Rejected, TlsProblem, Transport};
use opamp_proto::pb::{self, ServerErrorResponseType as ErrorType};

use crate::bench::{Bench, Step, error, seconds};
use crate::settings::{
    Applied, Applying, Failed, certificate, elsewhere, last_report, offer, takes_settings, with_endpoint,
};

type Mishap = Box<dyn Fn(&mut Bench) -> Step>;

fn throttled() -> Failure {
    Failure::new(FailureKind::Throttled, "x")
}

/// Everything that can go wrong with a candidate that is being tried, and how it shows.
fn mishaps() -> Vec<(&'static str, FailureKind, Mishap)> {
    let dialing = |kind: FailureKind| -> Mishap {
        Box::new(move |bench| bench.tell(Input::Failed(Failure::new(kind, "x"))))
    };
    let connected = |mishap: fn(&mut Bench) -> Step| -> Mishap {
        Box::new(move |bench| {
            bench.answers = false;
            let mut step = bench.tell(Input::Connected);
            if bench.transport() == Transport::WebSocket {
                step.extend(bench.tell(Input::Written));
            }
            step.extend(mishap(bench));
            bench.answers = true;
            step
        })
    };
    vec![
        ("refused", FailureKind::Refused, dialing(FailureKind::Refused)),
        ("dns", FailureKind::Dns, dialing(FailureKind::Dns)),
        (
            "tls",
            FailureKind::Tls(TlsProblem::UnknownIssuer),
            dialing(FailureKind::Tls(TlsProblem::UnknownIssuer)),
        ),
        ("401", FailureKind::Auth, dialing(FailureKind::Auth)),
        ("404", FailureKind::Status(404), dialing(FailureKind::Status(404))),
        (
            "503",
            FailureKind::Throttled,
            Box::new(|bench| bench.tell(Input::Failed(throttled().with_retry_after(Some(seconds(60)))))),
        ),
        ("proxy", FailureKind::ProxyUnreachable, dialing(FailureKind::ProxyUnreachable)),
        ("no connection", FailureKind::Timeout, Box::new(|bench| bench.pass(seconds(60)))),
        ("silence", FailureKind::Timeout, connected(|bench| bench.pass(seconds(60)))),
        ("cut", FailureKind::Closed, connected(Bench::lose)),
        (
            "400",
            FailureKind::Status(400),
            connected(|bench| bench.tell(Input::Failed(Failure::from_status(400, None)))),
        ),
        (
            "413",
            FailureKind::TooLarge,
            connected(|bench| bench.tell(Input::Failed(Failure::from_status(413, None)))),
        ),
        (
            "unavailable",
            FailureKind::Throttled,
            connected(|bench| bench.receive(error(ErrorType::Unavailable, 60_000_000_000))),
        ),
        (
            "bad request",
            FailureKind::Protocol,
            connected(|bench| bench.receive(error(ErrorType::BadRequest, 0))),
        ),
        (
            "oversize",
            FailureKind::Oversize,
            connected(|bench| bench.tell(Input::Unusable(Unusable::Oversize { limit: 1 }))),
        ),
    ]
}

on_both_transports! {
    /// R-CONN-08, R-CONN-12, R-CONN-13, R-CONN-14, R-CONN-23.
    fn whatever_goes_wrong_in_a_trial_the_agent_is_back_in_time_and_says_so(transport) {
        for (name, kind, mishap) in mishaps() {
            let mut bench = Bench::settable(transport);
            bench.offer_settings(b"h", with_endpoint(elsewhere(transport)));
            let begun = bench.now.mono;
            let step = mishap(&mut bench);
            let told = step.events.iter().find_map(|event| match event {
                Event::ConnectionSettingsFailed { failure, endpoint } => Some((failure.kind, endpoint.to_string())),
                _ => None,
            });
            assert_eq!(told, Some((kind, elsewhere(transport).to_owned())), "{name}: {step:?}");
            assert!(bench.now.mono - begun <= seconds(60), "{name}");
            let saved = bench.session.saved().connections;
            assert!(saved.candidate.is_none() && saved.accepted.is_none(), "{name}: {saved:?}");
            let reached = step.sent.iter().any(|message| message.agent_description.is_some());
            let step = bench.come_back();
            let message = step.sent.first().unwrap();
            let same_connection = transport == Transport::Http && !reached;
            assert!(message.agent_description.is_some() || same_connection, "{name}: who knows what got lost");
            let (hash, status, why) = last_report(&step);
            assert_eq!((hash.as_slice(), status), (&b"h"[..], Failed), "{name}");
            assert!(why.starts_with("opamp: "), "{name}: {why}");
            let reports: Vec<_> = step.settings_reports();
            assert!(reports.iter().all(|(_, status, _)| *status != Applying), "{name}: never again as APPLYING");
            assert!((3..=5).contains(&bench.pass(seconds(120)).sent.len()), "{name}: and all is as before");
        }
    }

    /// A fleet that is given the same in the same second does not come in the same second.
    fn a_trial_begins_at_another_moment_with_each_agent(transport) {
        let waits: Vec<Duration> = (0..20)
            .map(|seed| {
                let mut bench = Bench::with(transport, |setup| {
                    takes_settings(setup);
                    setup.seed = seed;
                });
                bench.connect();
                let left = bench.now.mono;
                let mut step = bench.answer(offer(b"h", with_endpoint(elsewhere(transport))));
                if transport == Transport::WebSocket {
                    step.extend(bench.tell(Input::Closed { code: Some(1000), reason: String::new() }));
                } else {
                    bench.now.mono = bench.now.mono.max(left);
                }
                assert!(step.dialed().is_empty(), "not at once");
                let wait = bench.until_dial();
                assert_eq!(bench.pass(wait).dialed().len(), 1);
                wait
            })
            .collect();
        assert!(waits.iter().all(|wait| *wait <= seconds(1)), "{waits:?}");
        assert!(waits.iter().max().unwrap().saturating_sub(*waits.iter().min().unwrap()) > Duration::from_millis(500), "{waits:?}");
    }

    /// R-THROT-02, R-THROT-04: a server that has no time in the second in which all come has proven nothing.
    fn a_server_without_time_is_tried_again_when_it_says_and_within_the_trial(transport) {
        for on_connection in [false, true] {
            let mut bench = Bench::settable(transport);
            bench.offer_settings(b"h", with_endpoint(elsewhere(transport)));
            let mut step = Step::default();
            if on_connection {
                bench.answers = false;
                step.extend(bench.tell(Input::Connected));
                if transport == Transport::WebSocket {
                    step.extend(bench.tell(Input::Written));
                }
                step.extend(bench.receive(error(ErrorType::Unavailable, 20_000_000_000)));
                bench.answers = true;
            } else {
                step.extend(bench.tell(Input::Failed(throttled().with_retry_after(Some(seconds(20))))));
            }
            let failed = |event: &Event| matches!(event, Event::ConnectionSettingsFailed { .. });
            assert!(!step.events.iter().any(failed), "{step:?}");
            assert!(bench.session.saved().connections.candidate.is_some());
            assert!(bench.pass(Duration::from_millis(19_999)).is_silent(), "R-THROT-04");
            let step = bench.pass(seconds(2));
            assert_eq!((step.dialed().len(), step.connects().len()), (1, 0), "{step:?}");
            assert_eq!(last_report(&bench.tell(Input::Connected)), (b"h".to_vec(), Applied, String::new()));
        }
        // Also one that asks for no wait, again and again, has the time of the trial and no more.
        let mut bench = Bench::settable(transport);
        bench.offer_settings(b"h", with_endpoint(elsewhere(transport)));
        let (begun, mut dials) = (bench.now.mono, 1);
        while bench.session.saved().connections.candidate.is_some() {
            bench.tell(Input::Failed(throttled().with_retry_after(Some(Duration::ZERO))));
            dials += bench.pass(seconds(2)).dialed().len();
        }
        assert!(bench.now.mono - begun <= seconds(62) && (20..=60).contains(&dials), "{dials}");
    }

    /// R-THROT-04: the way back from a server that asked to be left alone is no way around that.
    fn a_server_that_is_also_the_one_before_is_left_alone_as_it_asked(transport) {
        let home = elsewhere(transport).replace("elsewhere", "first");
        let mut bench = Bench::with(transport, |setup| {
            takes_settings(setup);
            setup.endpoint.name = home.as_str().into();
        });
        bench.connect();
        let headers = pb::Headers { headers: vec![pb::Header { key: "a".into(), value: "new".into() }] };
        let rotated = pb::OpAmpConnectionSettings { headers: Some(headers), ..with_endpoint(&home.replace("first", "FIRST:443")) };
        bench.offer_settings(b"h", rotated);
        let step = bench.tell(Input::Failed(throttled().with_retry_after(Some(seconds(300)))));
        assert!(step.events.iter().any(|event| matches!(event, Event::ConnectionSettingsFailed { .. })));
        assert!(bench.pass(seconds(299)).is_silent());
        let step = bench.pass(seconds(3));
        assert_eq!((step.dialed().len(), step.connects()), (0, vec![0]), "{step:?}");
    }

    /// R-CONN-10, R-CONN-12: with settings in use the way back leads to them.
    fn the_way_back_leads_to_what_was_accepted_before(transport) {
        let mut bench = Bench::settable(transport);
        bench.offer_settings(b"1", with_endpoint(elsewhere(transport)));
        bench.tell(Input::Connected);
        let third = elsewhere(transport).replace("elsewhere", "third");
        bench.offer_settings(b"2", with_endpoint(&third));
        bench.tell(Input::Failed(Failure::new(FailureKind::Refused, "x")));
        let step = bench.pass(seconds(2));
        let dialed = step.dialed();
        assert_eq!((dialed.len(), dialed[0].endpoint.as_str()), (1, elsewhere(transport)));
        let step = bench.tell(Input::Connected);
        assert_eq!((last_report(&step).0, last_report(&step).1), (b"2".to_vec(), Failed));
        // A failed offer is not tried again by itself.
        assert!(bench.pass(seconds(3_600)).dialed().is_empty());
        assert!(bench.session.is_connected());
    }

    /// R-CONN-01, R-CONN-26, R-SEC-01: nothing is tried, and nobody is left.
    fn what_is_refused_outright_costs_no_connection(transport) {
        let tls = |change: fn(&mut pb::TlsConnectionSettings)| {
            let mut tls = pb::TlsConnectionSettings::default();
            change(&mut tls);
            Some(tls)
        };
        let good = || with_endpoint(elsewhere(transport));
        let cases = [
            ("destination_endpoint is empty", with_endpoint("")),
            ("scheme", with_endpoint("ftp://x")),
            ("no TLS", with_endpoint("ws://elsewhere/")),
            ("no TLS", with_endpoint("http://elsewhere/")),
            ("insecure_skip_verify", pb::OpAmpConnectionSettings { tls: tls(|tls| tls.insecure_skip_verify = true), ..good() }),
            ("proxy.url", pb::OpAmpConnectionSettings { proxy: Some(pb::ProxyConnectionSettings::default()), ..good() }),
            ("private_key", pb::OpAmpConnectionSettings { certificate: certificate(b"c", b""), ..good() }),
            ("certificate.cert", pb::OpAmpConnectionSettings { certificate: certificate(b"", b"k"), ..good() }),
        ];
        for (number, (what, opamp)) in cases.into_iter().enumerate() {
            let mut bench = Bench::with(transport, |setup| {
                takes_settings(setup);
                setup.endpoint.name = "wss://first/".into();
            });
            bench.connect();
            let step = bench.answer(offer(&[number as u8], opamp));
            let (hash, status, why) = last_report(&step);
            assert_eq!((hash, status), (vec![number as u8], Failed), "{what}: {step:?}");
            assert!(why.contains(what), "{what}: {why}");
            assert!(step.events.iter().any(|event| matches!(event, Event::ConnectionSettingsRejected { .. })));
            assert!(bench.session.is_connected() && step.handed_over().is_empty(), "{what}");
            assert!((3..=5).contains(&bench.pass(seconds(120)).sent.len()), "{what}: the session lives on");
        }
    }

    /// R-CONN-15.
    fn an_agent_that_keeps_nothing_takes_no_certificate(transport) {
        let mut bench = Bench::with(transport, |setup| setup.abilities.opamp_settings = true);
        bench.connect();
        let with = pb::OpAmpConnectionSettings { certificate: certificate(b"c", b"k"), ..with_endpoint(elsewhere(transport)) };
        let step = bench.answer(offer(b"1", with));
        let (_, status, why) = last_report(&step);
        assert!(status == Failed && why.contains("restart"), "{why}");
        assert!(bench.session.is_connected());
        let step = bench.offer_settings(b"2", with_endpoint(elsewhere(transport)));
        assert_eq!(step.dialed().len(), 1, "other settings it does");
    }

    /// R-CONN-15: a store that says it keeps things, and then cannot.
    fn a_certificate_that_cannot_be_saved_is_not_tried(transport) {
        let mut bench = Bench::settable(transport);
        bench.answers = false;
        let with = pb::OpAmpConnectionSettings { certificate: certificate(b"c", b"k"), ..with_endpoint(elsewhere(transport)) };
        bench.answer(offer(b"1", with));
        bench.answers = false;
        bench.tell(Input::NotSaved);
        assert_eq!(bench.session.saved().connections.candidate, None);
        bench.answers = true;
        let mut step = Step::default();
        if transport == Transport::WebSocket {
            step.extend(bench.tell(Input::Written));
        }
        step.extend(bench.ack());
        let (_, status, why) = last_report(&step);
        assert!(status == Failed && why.contains("cannot be saved"), "{why}");
        assert!(bench.session.is_connected() && step.dialed().is_empty());
        bench.answer(offer(b"2", with_endpoint(elsewhere(transport))));
        bench.tell(Input::NotSaved);
        assert!(!bench.session.is_connected(), "settings without a certificate are tried all the same");
    }

    fn settings_that_the_driver_finds_unusable_are_not_tried(transport) {
        let mut bench = Bench::settable(transport);
        bench.takes_connections = false;
        let step = bench.answer(offer(b"h", with_endpoint(elsewhere(transport))));
        assert_eq!(step.handed_over().len(), 1);
        assert_eq!(last_report(&step).1, Applying);
        let failed = vec![(ConnectionPart::Opamp, Rejected::new("tls.cipher_suites: \"X\" is not known"))];
        let step = bench.tell(Input::ConnectionsOutcome { hash: ConfigHash::new(b"h".to_vec()), failed });
        let (_, status, why) = last_report(&step);
        assert!(status == Failed && why == "opamp: tls.cipher_suites: \"X\" is not known", "{why}");
        assert!(bench.session.is_connected());
    }

    fn a_newer_offer_takes_the_place_of_one_that_is_being_examined(transport) {
        let mut bench = Bench::settable(transport);
        bench.takes_connections = false;
        bench.answer(offer(b"1", with_endpoint(elsewhere(transport))));
        let third = elsewhere(transport).replace("elsewhere", "third");
        let step = bench.answer(offer(b"2", with_endpoint(&third)));
        assert!(step.handed_over().is_empty(), "one at a time");
        assert_eq!(last_report(&step), (b"2".to_vec(), Applying, String::new()));
        bench.takes_connections = true;
        let step = bench.tell(Input::ConnectionsOutcome { hash: ConfigHash::new(b"1".to_vec()), failed: Vec::new() });
        let step = bench.left(step);
        assert_eq!(step.dialed()[0].endpoint, third);
        let step = bench.tell(Input::Connected);
        assert_eq!(step.settings_reports().iter().map(|report| report.0.clone()).collect::<Vec<_>>(), [b"2", b"2"]);
        assert_eq!(last_report(&step).1, Applied);
    }

    fn a_newer_offer_takes_the_place_of_one_that_is_announced(transport) {
        let mut bench = Bench::settable(transport);
        bench.answers = false;
        bench.answer(offer(b"1", with_endpoint(elsewhere(transport))));
        bench.answers = false;
        let third = elsewhere(transport).replace("elsewhere", "third");
        // The announcement is on its way; over HTTP the answer to it brings the newer offer.
        let mut step = bench.receive(offer(b"2", with_endpoint(&third)));
        assert!(step.dialed().is_empty());
        bench.answers = true;
        if transport == Transport::WebSocket {
            step.extend(bench.tell(Input::Written));
        }
        step.extend(bench.ack());
        let step = bench.left(step);
        assert_eq!(step.dialed().iter().map(|settings| settings.endpoint.as_str()).collect::<Vec<_>>(), [third.as_str()]);
        assert_eq!(last_report(&step), (b"2".to_vec(), Applying, String::new()));
        assert_eq!(last_report(&bench.tell(Input::Connected)).1, Applied);
    }

    /// The first answer on the new connection may bring the next offer.
    fn a_newer_offer_with_the_first_answer_does_not_mix_the_two(transport) {
        let mut bench = Bench::settable(transport);
        bench.offer_settings(b"1", with_endpoint(elsewhere(transport)));
        bench.answers = false;
        bench.tell(Input::Connected);
        if transport == Transport::WebSocket {
            bench.tell(Input::Written);
        }
        bench.answers = true;
        let step = bench.receive(offer(b"2", with_endpoint("")));
        let reports = step.settings_reports();
        assert!(reports.iter().all(|(hash, status, _)| (hash.as_slice(), *status) == (b"2", Failed)), "{reports:?}");
        assert_eq!(bench.session.saved().connections.accepted.unwrap().endpoint, elsewhere(transport));
        assert!(bench.session.is_connected());
    }

    /// The old connection breaks before APPLYING is told: nothing is waited for.
    fn a_loss_before_the_goodbye_leads_to_the_trial_as_well(transport) {
        let mut bench = Bench::settable(transport);
        bench.answers = false;
        bench.answer(offer(b"h", with_endpoint(elsewhere(transport))));
        bench.lose();
        bench.answers = true;
        let step = bench.pass(seconds(2));
        assert_eq!((step.dialed().len(), step.connects().len()), (1, 0), "{step:?}");
        assert_eq!(last_report(&bench.tell(Input::Connected)).1, Applied);
    }

    fn an_old_server_that_reads_nothing_does_not_keep_the_agent(transport) {
        let mut bench = Bench::settable(transport);
        bench.answers = false;
        bench.answer(offer(b"h", with_endpoint(elsewhere(transport))));
        let step = bench.pass(seconds(60));
        assert!(!step.dialed().is_empty(), "{step:?}");
    }

    /// Nothing of the candidate is left behind, not even how it was spoken to.
    fn a_failed_trial_over_the_other_transport_leads_back_to_the_first(transport) {
        let other = if transport == Transport::Http { Transport::WebSocket } else { Transport::Http };
        let mut bench = Bench::settable(transport);
        bench.offer_settings(b"h", with_endpoint(elsewhere(other)));
        bench.tell(Input::Failed(Failure::new(FailureKind::Refused, "x")));
        let step = bench.come_back();
        let back = |event: &Event| {
            matches!(event, Event::Connected { endpoint, transport: over } if &**endpoint == "first" && *over == transport)
        };
        assert!(step.events.iter().any(back), "{step:?}");
        assert_eq!(last_report(&step).1, Failed);
    }

    fn a_trial_may_have_less_time_than_an_answer(transport) {
        let mut bench = Bench::with(transport, |setup| {
            takes_settings(setup);
            setup.settings.trial_timeout = seconds(5);
        });
        bench.connect();
        bench.offer_settings(b"h", with_endpoint(elsewhere(transport)));
        bench.answers = false;
        bench.tell(Input::Connected);
        let failed = |step: &Step| step.events.iter().any(|event| matches!(event, Event::ConnectionSettingsFailed { .. }));
        assert!(!failed(&bench.pass(Duration::from_millis(4_900))));
        assert!(failed(&bench.pass(Duration::from_millis(200))));
    }

    /// A stop comes before everything else, and is not held against the settings.
    fn a_stop_during_a_trial_ends_it_and_the_next_start_goes_on(transport) {
        for connected in [false, true] {
            let mut bench = Bench::settable(transport);
            bench.offer_settings(b"h", with_endpoint(elsewhere(transport)));
            for _ in 0..5 {
                if connected {
                    bench.answers = false;
                    bench.tell(Input::Connected);
                }
                bench.tell(Input::Stop);
                bench.pass(seconds(10));
                assert!(bench.session.is_finished() && !bench.session.is_applying());
                bench = Bench::restarted(bench.session.saved(), transport);
                let step = bench.tell(Input::Start);
                assert_eq!(step.dialed().len(), 1, "{step:?}");
            }
            assert_eq!(last_report(&bench.tell(Input::Connected)).1, Applied);
        }
    }
}

/// A fleet that was given the same mistake does not come back in the same instant.
#[test]
fn agents_return_from_a_failed_trial_spread_over_a_second() {
    let waits: std::collections::BTreeSet<Duration> = (0..50)
        .map(|seed| {
            let mut bench = Bench::with(Transport::WebSocket, |setup| {
                takes_settings(setup);
                setup.seed = seed;
            });
            bench.connect();
            bench.offer_settings(b"h", with_endpoint("wss://elsewhere/"));
            bench.tell(Input::Failed(Failure::new(FailureKind::Refused, "x")));
            bench.until_dial()
        })
        .collect();
    assert!(waits.len() > 40 && *waits.last().unwrap() <= seconds(1), "{waits:?}");
}
