//! Capabilities: what is announced, and what is left out because the server does not take it.

use opamp_client::session::{Input, Output};
use opamp_client::{ConfigHash, EffectiveConfig, Health, Transport, Wall};
use opamp_proto::pb;

use crate::bench::{Bench, health, parts, seconds};

const REPORTS_STATUS: u64 = 0x1;

on_both_transports! {
    fn capabilities_follow_from_what_the_agent_was_given(transport) {
        let mut bench = Bench::with(transport, |setup| setup.settings.heartbeat = None);
        assert_eq!(bench.connect().message().capabilities, REPORTS_STATUS, "nothing is on by default");
        let mut bench = Bench::able(transport);
        assert_eq!(bench.connect().message().capabilities, 0x1 | 0x2 | 0x4 | 0x400 | 0x800 | 0x1000 | 0x2000);
    }

    fn capabilities_stand_in_every_message_and_undefined_bits_are_zero(transport) {
        let mut bench = Bench::able(transport);
        let mut step = bench.connect();
        step.extend(bench.pass(seconds(95)));
        step.extend(bench.tell(health("x")));
        step.extend(bench.tell(Input::Stop));
        assert!(step.sent.len() >= 5);
        for message in &step.sent {
            assert_ne!(message.capabilities & REPORTS_STATUS, 0);
            assert_eq!(message.capabilities & !0xffff, 0);
        }
    }

    fn what_is_reported_for_the_first_time_is_announced_with_it(transport) {
        let mut bench = Bench::on(transport);
        assert_eq!(bench.connect().message().capabilities & 0x804, 0);
        let step = bench.tell(Input::Health(Health::healthy(Wall(1))));
        assert_eq!(step.message().capabilities & 0x804, 0x800);
        assert_eq!(parts(step.message()), ["health"]);
        let step = bench.tell(Input::EffectiveConfig(EffectiveConfig::new()));
        assert_eq!(step.message().capabilities & 0x804, 0x804);
    }

    fn nothing_gated_is_sent_from_the_second_message_on_to_a_server_that_does_not_take_it(transport) {
        let mut bench = Bench::able(transport);
        bench.capabilities = 0x1;
        assert!(parts(bench.connect().message()).contains(&"effective_config"), "before anything is known");
        let step = bench.tell(Input::EffectiveConfig(EffectiveConfig::single("b: 2")));
        assert!(step.is_silent(), "{step:?}");
        bench.pass(seconds(2));
        let step = bench.tell(health("x"));
        assert_eq!(parts(step.message()), ["health"]);
        assert_ne!(step.message().capabilities & 0x4, 0, "the agent's own ability is no less");
        let step = bench.answer(pb::ServerToAgent { capabilities: 0x5, ..Default::default() });
        assert_eq!(parts(step.message()), ["effective_config"], "once it takes it, it gets it");
    }

    fn capabilities_0_means_not_repeated(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.capabilities = 0;
        bench.answer(pb::ServerToAgent::default());
        let step = bench.tell(Input::EffectiveConfig(EffectiveConfig::single("b: 2")));
        assert_eq!(parts(step.message()), ["effective_config"]);

        let mut bench = Bench::able(transport);
        bench.capabilities = 1;
        bench.connect();
        bench.capabilities = 0;
        bench.answer(pb::ServerToAgent::default());
        assert!(bench.tell(Input::EffectiveConfig(EffectiveConfig::single("b: 2"))).is_silent());
    }

    fn unknown_capability_bits_of_the_server_do_no_harm(transport) {
        let mut bench = Bench::able(transport);
        bench.capabilities = u64::MAX;
        bench.connect();
        assert_eq!(bench.pass(seconds(60)).sent.len(), 2);
    }

    fn parts_that_belong_to_capabilities_the_agent_lacks_are_ignored(transport) {
        let mut bench = Bench::on(transport);
        bench.connect();
        let packages = pb::PackagesAvailable {
            packages: [("p".to_owned(), pb::PackageAvailable::default())].into(),
            all_packages_hash: vec![1].into(),
        };
        let message = pb::ServerToAgent {
            packages_available: Some(packages),
            custom_message: Some(pb::CustomMessage::default()),
            ..crate::bench::offer(&[1], "x")
        };
        let step = bench.answer(message);
        assert!(step.is_silent(), "{step:?}");
        let command = pb::ServerToAgent { command: Some(pb::ServerToAgentCommand::default()), ..Default::default() };
        let step = bench.answer(command);
        assert!(!step.has(&Output::Restart) && step.events.is_empty(), "{step:?}");
        assert_eq!(bench.pass(seconds(60)).sent.len(), 2, "the session goes on");
    }

    fn a_server_that_supports_status_alone_makes_a_stable_session(transport) {
        let mut bench = Bench::able(transport);
        bench.capabilities = 1;
        bench.connect();
        assert!(bench.tell(Input::EffectiveConfig(EffectiveConfig::single("b: 2"))).is_silent());
        let step = bench.pass(seconds(3000));
        assert_eq!(step.sent.len(), 100);
        assert!(step.sent.iter().all(|message| parts(message).is_empty()));
        assert!(step.events.is_empty());
    }

    fn remote_config_status_is_reported_exactly_if_announced(transport) {
        let mut bench = Bench::able(transport);
        let step = bench.connect();
        assert!(step.message().capabilities & 0x1000 != 0 && step.message().remote_config_status.is_some());
        let mut bench = Bench::on(transport);
        let step = bench.connect();
        assert!(step.message().capabilities & 0x1000 == 0 && step.message().remote_config_status.is_none());
        bench.answer(crate::bench::offer(&[1], "x"));
        let outcome = Input::ConfigOutcome { hash: ConfigHash::new(vec![1]), result: Ok(()), effective: None };
        assert!(bench.tell(outcome).sent.is_empty(), "also not because an outcome is claimed");
    }
}

#[test]
fn what_another_server_takes_is_not_assumed_of_the_next() {
    let mut bench = Bench::with(Transport::WebSocket, |setup| {
        setup.fallbacks.push(crate::bench::endpoint("second", Transport::WebSocket));
    });
    bench.tell(Input::EffectiveConfig(EffectiveConfig::single("a: 0")));
    bench.capabilities = 1;
    bench.connect();
    bench.lose();
    bench.pass(seconds(1));
    bench.lose();
    assert_eq!(bench.endpoint, 1);
    let step = bench.tell(Input::Connected);
    assert!(parts(step.message()).contains(&"effective_config"), "{step:?}");
}
