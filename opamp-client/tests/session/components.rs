//! Available components: by hash, in full on demand.

use opamp_client::session::Input;
use opamp_client::{Component, Components, Event, Health, Transport, Wall};
use opamp_proto::pb;

use crate::bench::{Bench, Step, parts, seconds};

const REPORT_COMPONENTS: u64 = 2;

fn components() -> Components {
    Components::new()
        .component("receiver/a", Component::new().metadata("code.namespace", "a"))
        .component("exporter/b", Component::new().sub_component("sender", Component::new()))
}

fn listing(transport: Transport) -> Bench {
    let mut bench = Bench::on(transport);
    bench.tell(Input::AvailableComponents(components()));
    bench
}

fn asked() -> pb::ServerToAgent {
    pb::ServerToAgent { flags: REPORT_COMPONENTS, ..Default::default() }
}

fn reports(step: &Step) -> Vec<&pb::AvailableComponents> {
    step.sent.iter().filter_map(|message| message.available_components.as_ref()).collect()
}

on_both_transports! {
    /// R-CAP-28, R-COMP-02, R-COMP-03, R-COMP-06.
    fn the_first_message_has_the_hash_and_nothing_else_of_them(transport) {
        let message = Bench::on(transport).connect().message().clone();
        assert_eq!((message.capabilities & 0x4000, message.available_components), (0, None));
        let mut bench = listing(transport);
        let step = bench.connect();
        assert_eq!(step.message().capabilities & 0x4000, 0x4000);
        let report = reports(&step)[0];
        assert_eq!((&report.hash[..], report.components.len()), (&components().hash()[..], 0));
    }

    /// R-COMP-01, R-COMP-08, R-COMP-10.
    fn the_whole_list_is_sent_when_the_server_asks_and_not_again(transport) {
        let mut bench = listing(transport);
        bench.connect();
        let step = bench.answer(asked());
        let report = reports(&step)[0];
        assert_eq!(report.components.keys().collect::<Vec<_>>(), ["exporter/b", "receiver/a"]);
        assert_eq!(&report.hash[..], &components().hash()[..]);
        assert_eq!(report.components["exporter/b"].sub_component_map.len(), 1);
        assert!(bench.pass(seconds(300)).sent.iter().all(|message| parts(message).is_empty()), "told once");
        assert!(bench.tell(Input::AvailableComponents(components())).sent.is_empty(), "the same is no news");
        let step = bench.answer(pb::ServerToAgent { flags: 1, ..Default::default() });
        assert!(reports(&step)[0].components.is_empty(), "a full report has the hash");
    }

    fn a_list_that_got_lost_is_sent_again(transport) {
        let mut bench = listing(transport);
        bench.connect();
        bench.answers = false;
        let step = bench.answer(asked());
        assert_eq!(reports(&step).len(), 1);
        bench.lose();
        bench.answers = true;
        let mut step = bench.reconnect();
        step.extend(bench.pass(seconds(60)));
        assert!(!reports(&step)[0].components.is_empty(), "{step:?}");
        assert!(reports(&bench.pass(seconds(60))).is_empty());
    }

    fn a_server_that_asks_without_end_is_not_answered_without_pause(transport) {
        let mut bench = listing(transport);
        bench.connect();
        let mut told = 0;
        for _ in 0..100 {
            told += reports(&bench.answer(asked())).len();
            told += reports(&bench.pass(seconds(1))).len();
        }
        assert!((4..=110).contains(&told), "{told}");
        if transport == Transport::WebSocket {
            assert!(told <= 8, "{told}");
        }
    }

    fn a_list_too_large_for_a_message_is_told_and_the_hash_stays(transport) {
        let mut bench = Bench::with(transport, |setup| setup.settings.send_bytes_max = 400);
        let long = Component::new().metadata("code.namespace", "x".repeat(500));
        bench.tell(Input::AvailableComponents(Components::new().component("a", long)));
        bench.connect();
        let step = bench.answer(asked());
        let told = step.events.iter().any(|event| matches!(event, Event::Discarded { part: opamp_proto::Part::AvailableComponents, .. }));
        assert!(told && reports(&step).is_empty(), "{step:?}");
        assert!(bench.pass(seconds(100)).events.is_empty(), "told once");
        let step = bench.answer(pb::ServerToAgent { flags: 1, ..Default::default() });
        assert_eq!(reports(&step).len(), 1, "the hash is still reported");
    }

    /// R-COMP-11.
    fn components_and_health_need_not_match(transport) {
        let mut bench = listing(transport);
        let health = Health::healthy(Wall(1)).component("something/else", Health::healthy(Wall(1)));
        bench.tell(Input::Health(health));
        let step = bench.connect();
        let message = step.message();
        assert!(message.health.as_ref().unwrap().component_health_map.contains_key("something/else"));
        assert!(message.available_components.is_some());
    }
}
