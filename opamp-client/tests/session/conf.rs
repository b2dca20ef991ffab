//! Remote configuration: taken once, reported truthfully, kept over restarts.

use opamp_client::session::{Input, Output, Setup};
use opamp_client::{ConfigHash, EffectiveConfig, Event, OfferStatus, SavedState, ServerFault, Transport};
use opamp_proto::pb;

use crate::bench::{self, ALL, Bench, Step, parts, seconds};

fn status(step: &Step) -> (Vec<u8>, pb::RemoteConfigStatuses, String) {
    let status = step.message().remote_config_status.as_ref().expect("a status");
    (status.last_remote_config_hash.to_vec(), status.status(), status.error_message.clone())
}

fn restarted(transport: Transport, saved: SavedState) -> Bench {
    Bench::with(transport, |setup: &mut Setup| {
        setup.abilities.remote_config = true;
        setup.saved = saved;
    })
}

on_both_transports! {
    fn an_offer_is_applied_once_and_reported_applying_then_applied(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        let step = bench.offer(&[1], "a: 1");
        assert_eq!(step.applies().len(), 1);
        assert_eq!(&step.applies()[0].single().unwrap()[..], b"a: 1");
        assert_eq!(status(&step), (vec![1], pb::RemoteConfigStatuses::Applying, String::new()));
        let step = bench.outcome(&[1], Ok(()));
        assert_eq!(status(&step), (vec![1], pb::RemoteConfigStatuses::Applied, String::new()));
        for _ in 0..20 {
            let step = bench.offer(&[1], "a: 1");
            assert!(step.is_silent(), "the same hash again: {step:?}");
        }
    }

    fn a_repeated_offer_while_it_is_applied_is_no_second_application(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.offer(&[1], "a: 1");
        assert!(bench.offer(&[1], "a: 1").is_silent());
        assert!(bench.offer(&[1], "a: 1").is_silent());
        let step = bench.offer(&[2], "a: 2");
        assert!(step.applies().is_empty(), "one at a time");
        assert_eq!(status(&step).0, [2]);
        let step = bench.outcome(&[1], Ok(()));
        assert_eq!(step.applies().len(), 1, "the newer one");
        assert!(step.sent.is_empty(), "the outcome of 1 is no news any more");
        assert_eq!(status(&bench.outcome(&[2], Ok(()))), (vec![2], pb::RemoteConfigStatuses::Applied, String::new()));
    }

    fn a_failed_configuration_is_reported_with_its_hash_and_a_text_that_goes_with_the_next_success(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.offer(&[1], "a: 1");
        bench.outcome(&[1], Ok(()));
        bench.offer(&[2], "broken");
        let step = bench.outcome(&[2], Err("no such exporter"));
        assert_eq!(status(&step), (vec![2], pb::RemoteConfigStatuses::Failed, "no such exporter".into()));
        assert!(bench.offer(&[2], "broken").is_silent());
        bench.offer(&[3], "a: 3");
        assert_eq!(status(&bench.outcome(&[3], Ok(()))), (vec![3], pb::RemoteConfigStatuses::Applied, String::new()));
    }

    fn what_changed_by_an_offer_is_reported_in_one_message(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.offer(&[1], "a: 1");
        let step = bench.tell(Input::ConfigOutcome {
            hash: ConfigHash::new(vec![1]),
            result: Ok(()),
            effective: Some(EffectiveConfig::single("a: 1")),
        });
        assert_eq!(parts(step.message()), ["effective_config", "remote_config_status"]);
    }

    fn hashes_are_opaque_and_come_back_verbatim(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        for length in [1, 20, 64] {
            let hash: Vec<u8> = (0..length).map(|byte: u8| byte.wrapping_mul(91) ^ length).collect();
            assert_eq!(status(&bench.offer(&hash, "x")).0, hash);
            bench.outcome(&hash, Ok(()));
        }
    }

    fn without_remote_configuration_an_offer_has_no_effect(transport) {
        let mut bench = Bench::on(transport);
        assert_eq!(bench.connect().message().capabilities & 0x1002, 0);
        assert!(bench.offer(&[1], "x").is_silent());
    }

    fn all_files_of_an_offer_arrive_as_they_are_and_of_a_repeated_name_the_last(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        // Three entries by hand: "" twice, then "b".
        let entry = |name: &[u8], body: &[u8]| {
            let file = [&[0x0a, body.len() as u8][..], body].concat();
            let entry = [&[0x0a, name.len() as u8][..], name, &[0x12, file.len() as u8], &file].concat();
            [&[0x0a, entry.len() as u8][..], &entry].concat()
        };
        let map = [entry(b"", b"old"), entry(b"b", b"\0\r\n\xff"), entry(b"", b"new")].concat();
        let offer = [&[0x0a, map.len() as u8][..], &map, &[0x12, 1, 9]].concat();
        let payload = [&[0x1a, offer.len() as u8][..], &offer].concat();
        if transport == Transport::Http {
            bench.answers = false;
            bench.pass(seconds(30));
        }
        let step = bench.receive_bytes(&payload);
        let config = step.applies()[0];
        assert_eq!(config.files().len(), 2);
        assert_eq!(&config.file("").unwrap().body[..], b"new");
        assert_eq!(&config.file("b").unwrap().body[..], b"\0\r\n\xff");
    }

    fn the_outcome_is_saved_before_it_is_reported(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.answers = false;
        let step = if transport == Transport::WebSocket {
            bench.offer(&[1], "x")
        } else {
            bench.pass(seconds(30));
            bench.receive(crate::bench::offer(&[1], "x"))
        };
        let persist = step.outputs.iter().position(|output| *output == Output::Persist).unwrap();
        let apply = step.outputs.iter().position(|output| matches!(output, Output::Apply(_))).unwrap();
        assert!(persist < apply);
        assert_eq!(bench.session.saved().remote_config.unwrap().status, OfferStatus::Applying);
    }

    fn the_last_hash_and_status_are_restored_and_the_offer_is_not_applied_again(transport) {
        for (result, reported) in [(Ok(()), pb::RemoteConfigStatuses::Applied), (Err("x"), pb::RemoteConfigStatuses::Failed)] {
            let mut bench = Bench::able(transport);
            bench.connect();
            bench.offer(&[1], "a: 1");
            bench.outcome(&[1], result);
            bench.tell(Input::Stop);
            let mut bench = restarted(transport, bench.session.saved());
            let step = bench.connect();
            assert_eq!((status(&step).0, status(&step).1), (vec![1], reported));
            assert!(bench.offer(&[1], "a: 1").is_silent());
        }
    }

    fn an_application_that_was_interrupted_begins_anew(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.offer(&[1], "a: 1");
        let mut bench = restarted(transport, bench.session.saved());
        assert_eq!(status(&bench.connect()).1, pb::RemoteConfigStatuses::Unset);
        assert_eq!(bench.offer(&[1], "a: 1").applies().len(), 1);
    }

    fn an_offer_without_a_hash_is_ignored_and_said_so(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        let step = bench.answer(bench::offer(&[], "x"));
        assert!(step.applies().is_empty());
        assert_eq!(step.events.len(), 1);
    }

    fn an_offer_with_a_hash_beyond_the_limit_is_ignored_and_said_so(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        let step = bench.offer(&[7; 1_025], "a: 1");
        assert!(step.applies().is_empty() && !step.has(&Output::Persist), "{step:?}");
        let fault = ServerFault::ConfigHashLength { length: 1_025, max: 1_024 };
        assert_eq!(step.events, [Event::ServerFault(fault)]);
        assert_eq!(bench.offer(&[7; 1_024], "a: 1").applies().len(), 1);
    }

    fn what_ends_after_a_stop_is_saved_and_nothing_begins_any_more(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.offer(&[1], "a: 1");
        bench.offer(&[2], "a: 2");
        bench.tell(Input::Stop);
        bench.tell(Input::Closed { code: Some(1000), reason: String::new() });
        assert!(bench.session.is_finished() && bench.session.is_applying());
        let step = bench.outcome(&[1], Ok(()));
        assert!(step.has(&Output::Persist) && step.applies().is_empty(), "{step:?}");
        assert!(!bench.session.is_applying());
        let saved = bench.session.saved().remote_config.unwrap();
        assert_eq!((saved.hash.as_bytes(), saved.status, saved.attempts), (&[2][..], OfferStatus::Applying, 0));
    }

    fn several_offers_in_one_message_are_all_processed(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        let uid = pb::AgentIdentification { new_instance_uid: vec![9; 16].into() };
        let message = pb::ServerToAgent {
            agent_identification: Some(uid),
            flags: 1,
            connection_settings: bench::interval(5).connection_settings,
            ..bench::offer(&[1], "x")
        };
        let step = bench.answer(message);
        assert_eq!(step.applies().len(), 1);
        assert_eq!(step.message().instance_uid[..], [9; 16]);
        assert_eq!(parts(step.message()).len(), 4, "and full state");
        assert_eq!(bench.pass(seconds(50)).sent.len(), 10);
    }
}

#[test]
fn a_configuration_of_too_many_files_is_refused_as_a_whole() {
    let mut bench = Bench::with(Transport::WebSocket, |setup| {
        setup.abilities.remote_config = true;
        setup.settings.config_files_max = 3;
    });
    bench.connect();
    let config_map = (0..4).map(|number| (number.to_string(), pb::AgentConfigObject::default())).collect();
    let config = Some(pb::AgentConfigMap { config_map });
    let offer = pb::AgentRemoteConfig { config, config_hash: vec![1].into() };
    let message = pb::ServerToAgent { remote_config: Some(offer), capabilities: ALL, ..Default::default() };
    let step = bench.receive(message);
    assert!(step.applies().is_empty() && step.sent.is_empty() && step.events.len() == 1, "{step:?}");
}
