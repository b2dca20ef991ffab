//! Own telemetry and other connections: handed over, kept, and reported together with everything else.

use std::collections::BTreeMap;

use opamp_client::connection::{SettingsPolicy, Signal};
use opamp_client::session::{ConnectionPart, Input, Setup};
use opamp_client::{ConfigHash, Event, Rejected, ServerFault, Transport};
use opamp_proto::pb;

use crate::bench::{Bench, Step, seconds};
use crate::settings::{Applied, Failed, elsewhere, last_report, takes_settings, with_endpoint};

fn takes_all(setup: &mut Setup) {
    takes_settings(setup);
    setup.abilities.own_logs = true;
    setup.abilities.own_metrics = true;
    setup.abilities.own_traces = true;
    setup.abilities.other_connections = true;
}

fn able(transport: Transport) -> Bench {
    let mut bench = Bench::with(transport, takes_all);
    bench.connect();
    bench
}

fn to(endpoint: &str) -> Option<pb::TelemetryConnectionSettings> {
    Some(pb::TelemetryConnectionSettings { destination_endpoint: endpoint.into(), ..Default::default() })
}

fn other(endpoint: &str) -> pb::OtherConnectionSettings {
    pb::OtherConnectionSettings { destination_endpoint: endpoint.into(), ..Default::default() }
}

fn message(hash: &'static [u8], offers: pb::ConnectionSettingsOffers) -> pb::ServerToAgent {
    let offers = pb::ConnectionSettingsOffers { hash: hash.into(), ..offers };
    pb::ServerToAgent { connection_settings: Some(offers), ..Default::default() }
}

/// The destinations that were handed over.
fn telemetry(step: &Step) -> BTreeMap<Signal, String> {
    let changes = step.handed_over().into_iter().flat_map(|change| &change.telemetry);
    changes.map(|(signal, settings)| (*signal, settings.endpoint.clone())).collect()
}

on_both_transports! {
    /// Whoever waits for the outcome waits once.
    fn what_the_application_does_not_end_is_abandoned_with_the_session(transport) {
        let mut bench = Bench::settable(transport);
        bench.takes_connections = false;
        let step = bench.answer(crate::settings::offer(b"h", with_endpoint(elsewhere(transport))));
        assert_eq!(step.handed_over().len(), 1);
        bench.tell(Input::Stop);
        bench.tell(Input::Closed { code: Some(1000), reason: String::new() });
        assert!(bench.session.is_finished() && bench.session.is_applying());
        bench.tell(Input::Abandoned);
        assert!(!bench.session.is_applying());
        let saved = bench.session.saved().connections.offer.unwrap();
        assert_eq!(saved.attempts, 0, "not held against it");
    }

    /// R-OWN-07, R-OWN-12.
    fn each_signal_has_a_destination_of_its_own(transport) {
        let mut bench = able(transport);
        let step = bench.answer(message(b"h", pb::ConnectionSettingsOffers {
            own_metrics: to("https://m/v1/metrics"),
            own_traces: to("https://t/v1/traces"),
            own_logs: to("https://l/v1/logs"),
            ..Default::default()
        }));
        let expected = [
            (Signal::Logs, "https://l/v1/logs".to_owned()),
            (Signal::Metrics, "https://m/v1/metrics".to_owned()),
            (Signal::Traces, "https://t/v1/traces".to_owned()),
        ];
        assert_eq!(telemetry(&step), expected.into());
        assert_eq!(last_report(&step), (b"h".to_vec(), Applied, String::new()));
        assert!(bench.session.is_connected(), "no reason to leave");
    }

    /// R-CONN-18, R-CONN-19, R-OWN-06: what is not in an offer is not touched, and is known after a restart.
    fn what_an_offer_leaves_out_stays_as_it_is(transport) {
        let mut bench = able(transport);
        let others = [("db".to_owned(), other("host:1234"))].into();
        bench.answer(message(b"1", pb::ConnectionSettingsOffers {
            own_metrics: to("https://m/1"), own_logs: to("https://l/1"), other_connections: others, ..Default::default()
        }));
        let step = bench.answer(message(b"2", pb::ConnectionSettingsOffers {
            own_traces: to("https://t/2"), own_logs: to("https://l/1"), ..Default::default()
        }));
        assert_eq!(telemetry(&step), [(Signal::Traces, "https://t/2".to_owned())].into(), "what is the same is no news");
        assert!(step.handed_over()[0].others.is_empty());
        assert!(bench.pass(seconds(300)).handed_over().is_empty());
        let saved = bench.session.saved();
        let endpoints: Vec<_> = saved.connections.telemetry.values().map(|settings| settings.endpoint.clone()).collect();
        assert_eq!(endpoints, ["https://l/1", "https://m/1", "https://t/2"]);
        assert_eq!(saved.connections.others["db"].endpoint, "host:1234");
        let mut restarted = Bench::with(transport, |setup| {
            takes_all(setup);
            setup.saved = saved.clone();
        });
        assert_eq!(last_report(&restarted.connect()), (b"2".to_vec(), Applied, String::new()));
        assert_eq!(restarted.session.saved().connections, saved.connections);
    }

    /// R-CONN-35 to R-CONN-39: in part, in any form, under any name.
    fn other_connections_are_handed_over_whole_with_what_was_known_of_them(transport) {
        let mut bench = able(transport);
        let known = pb::OtherConnectionSettings {
            other_settings: [("odd key".to_owned(), "\u{1F600}".to_owned())].into(),
            ..other("host:1234")
        };
        let others = [("db".to_owned(), known), ("?".to_owned(), other("anything goes"))].into();
        let step = bench.answer(message(b"1", pb::ConnectionSettingsOffers { other_connections: others, ..Default::default() }));
        let change = &step.handed_over()[0].others;
        assert_eq!(change.keys().collect::<Vec<_>>(), ["?", "db"]);
        assert_eq!(change["?"].endpoint, "anything goes");
        assert_eq!(change["db"].other["odd key"].expose_text(), Some("\u{1F600}"));
        let part = pb::OtherConnectionSettings {
            certificate: crate::settings::certificate(b"c", b"k"),
            ..Default::default()
        };
        let others = [("db".to_owned(), part)].into();
        let step = bench.answer(message(b"2", pb::ConnectionSettingsOffers { other_connections: others, ..Default::default() }));
        let db = &step.handed_over()[0].others["db"];
        assert_eq!((db.endpoint.as_str(), db.other.len(), db.certificate.is_some()), ("host:1234", 1, true));
        assert_eq!(step.handed_over()[0].others.len(), 1);
    }

    fn a_part_that_fails_is_named_and_the_others_are_in_use(transport) {
        let mut bench = able(transport);
        bench.takes_connections = false;
        let others = [("db".to_owned(), other("a:1")), ("mq".to_owned(), other("b:2"))].into();
        let offers = pb::ConnectionSettingsOffers {
            own_metrics: to("https://m/1"), own_logs: to("https://l/1"), other_connections: others, ..Default::default()
        };
        bench.answer(message(b"h", offers));
        let failed = vec![
            (ConnectionPart::Own(Signal::Logs), Rejected::new("no exporter")),
            (ConnectionPart::Other("mq".to_owned()), Rejected::new("unknown")),
        ];
        let step = bench.tell(Input::ConnectionsOutcome { hash: ConfigHash::new(b"h".to_vec()), failed });
        let (_, status, why) = last_report(&step);
        assert_eq!((status, why.as_str()), (Failed, "own_logs: no exporter; other_connections[\"mq\"]: unknown"));
        let saved = bench.session.saved().connections;
        assert_eq!(saved.telemetry.keys().collect::<Vec<_>>(), [&Signal::Metrics]);
        assert_eq!(saved.others.keys().collect::<Vec<_>>(), ["db"]);
    }

    /// R-CONN-32, R-CONN-34.
    fn telemetry_without_tls_is_refused_by_name_unless_allowed(transport) {
        for (policy, status) in [
            (SettingsPolicy::strict(), Failed),
            (SettingsPolicy::strict().allow_plaintext_telemetry(), Applied),
        ] {
            let mut bench = Bench::with(transport, |setup| {
                takes_all(setup);
                setup.abilities.policy = policy;
            });
            bench.connect();
            let offers = pb::ConnectionSettingsOffers {
                own_metrics: to("http://sink/v1/metrics"), own_logs: to("https://l/1"), ..Default::default()
            };
            let step = bench.answer(message(b"h", offers));
            assert_eq!(last_report(&step).1, status, "{step:?}");
            assert_eq!(telemetry(&step).contains_key(&Signal::Metrics), status == Applied);
            assert!(telemetry(&step).contains_key(&Signal::Logs), "the others are taken");
        }
    }

    /// R-CAP-06: what belongs to no capability of this agent does not exist.
    fn parts_that_the_agent_does_not_take_are_ignored(transport) {
        let mut bench = Bench::with(transport, |setup| setup.abilities.own_logs = true);
        let first = bench.connect();
        assert_eq!(first.message().capabilities & 0x83e0, 0x8080);
        let others = [("db".to_owned(), other("a:1"))].into();
        let offers = pb::ConnectionSettingsOffers {
            opamp: Some(with_endpoint(elsewhere(transport))),
            own_metrics: to("https://m/1"), other_connections: others, ..Default::default()
        };
        let step = bench.answer(message(b"h", offers));
        assert!(step.handed_over().is_empty() && bench.session.is_connected());
        assert_eq!(last_report(&step), (b"h".to_vec(), Applied, String::new()), "so that it is not offered for ever");
    }

    fn names_of_other_connections_have_a_bound(transport) {
        let mut bench = Bench::with(transport, |setup| {
            takes_all(setup);
            setup.settings.other_connections_max = 2;
        });
        bench.connect();
        let others = (0..3).map(|number| (format!("c{number}"), other("a:1"))).collect();
        let offers = pb::ConnectionSettingsOffers { other_connections: others, ..Default::default() };
        let step = bench.answer(message(b"1", offers));
        let (_, status, why) = last_report(&step);
        assert!(status == Failed && why.contains("keeps 2"), "{why}");
        assert_eq!(bench.session.saved().connections.others.len(), 2);
        let others = [("c1".to_owned(), other("b:2"))].into();
        let offers = pb::ConnectionSettingsOffers { other_connections: others, ..Default::default() };
        assert_eq!(last_report(&bench.answer(message(b"2", offers))).1, Applied, "known ones still change");
    }

    /// Telemetry settings and settings of the connection in one offer.
    fn an_offer_of_everything_is_applied_when_the_last_part_is(transport) {
        let mut bench = able(transport);
        let offers = pb::ConnectionSettingsOffers {
            opamp: Some(with_endpoint(elsewhere(transport))),
            own_logs: to("http://unsafe/"), own_traces: to("https://t/1"),
            ..Default::default()
        };
        let step = bench.answer(message(b"h", offers));
        let step = bench.left(step);
        assert_eq!((telemetry(&step).len(), step.dialed().len()), (1, 1));
        let step = bench.tell(Input::Connected);
        let (_, status, why) = last_report(&step);
        assert!(status == Failed && why.starts_with("own_logs: ") && !why.contains("opamp"), "{why}");
        assert!(bench.session.saved().connections.accepted.is_some(), "each part stands for itself");
    }

    fn an_offer_without_a_usable_hash_is_a_fault_of_the_server(transport) {
        let mut bench = able(transport);
        let step = bench.answer(message(b"", pb::ConnectionSettingsOffers { own_logs: to("https://l/1"), ..Default::default() }));
        assert_eq!(step.events, [Event::ServerFault(ServerFault::ConnectionsWithoutHash)]);
        static LONG: [u8; 2_000] = [7; 2_000];
        let step = bench.answer(message(&LONG, pb::ConnectionSettingsOffers { own_logs: to("https://l/1"), ..Default::default() }));
        assert_eq!(step.events, [Event::ServerFault(ServerFault::ConnectionsHashLength { length: 2_000, max: 1_024 })]);
        assert!(step.handed_over().is_empty() && bench.session.is_connected());
    }
}
