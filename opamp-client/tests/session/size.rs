//! Size limits, in both directions.

use opamp_client::session::{CloseCode, Input, Output, SessionSettings, Unusable};
use opamp_client::{EffectiveConfig, Event, Failure, FailureKind, Transport};
use opamp_proto::{Part, encode};
use prost::Message as _;

use crate::bench::{Bench, health, parts, seconds};

fn big(bytes: usize) -> Input<'static> {
    Input::EffectiveConfig(EffectiveConfig::single("x".repeat(bytes)))
}

fn limited(transport: Transport, limit: usize) -> Bench {
    let mut bench = Bench::with(transport, |setup| {
        setup.abilities.remote_config = true;
        setup.settings.send_bytes_max = limit;
    });
    bench.tell(health("x"));
    bench
}

fn length(message: &opamp_proto::pb::AgentToServer, transport: Transport) -> usize {
    message.encoded_len() + usize::from(transport == Transport::WebSocket)
}

on_both_transports! {
    fn a_part_over_the_send_limit_is_not_sent_is_recorded_once_and_the_rest_flows(transport) {
        let mut bench = limited(transport, 1_000);
        bench.tell(big(2_000));
        let step = bench.connect();
        assert_eq!(parts(step.message()), ["agent_description", "health", "remote_config_status"]);
        let discarded: Vec<_> = step.events.iter().filter(|event| matches!(event, Event::Discarded { .. })).collect();
        assert!(matches!(discarded[..], [Event::Discarded { part: Part::EffectiveConfig, limit: 1_000, .. }]), "{step:?}");
        assert_eq!(bench.session.stats(bench.now.mono).discarded_outgoing, 1);
        let step = bench.pass(seconds(300));
        assert!(step.events.is_empty() && step.sent.iter().all(|message| parts(message).is_empty()));
        assert_eq!(parts(bench.tell(big(10)).message()), ["effective_config"], "a smaller one is sent");
    }

    fn the_limit_counts_the_whole_message_to_the_byte(transport) {
        let limit = 1_000;
        let mut bench = limited(transport, limit);
        bench.connect();
        let mut sent = Vec::new();
        for bytes in 900..1_000 {
            let step = bench.tell(big(bytes));
            assert_eq!(step.sent.len() + step.events.len(), 1, "sent or recorded");
            sent.extend(step.sent.iter().map(|message| length(message, transport)));
        }
        assert_eq!(sent.iter().max(), Some(&limit), "{sent:?}");
    }

    fn parts_that_do_not_fit_together_are_sent_one_after_the_other(transport) {
        let mut bench = limited(transport, 700);
        bench.tell(big(500));
        let step = bench.connect();
        let told: Vec<_> = step.sent.iter().map(parts).collect();
        assert_eq!(told, [vec!["agent_description", "health", "remote_config_status"], vec!["effective_config"]]);
        assert!(step.sent.iter().all(|message| length(message, transport) <= 700));
    }

    fn the_default_limit_is_64_mib_and_each_message_stays_below(transport) {
        assert_eq!(SessionSettings::default().send_bytes_max, 67_108_864);
        let mut bench = Bench::on(transport);
        bench.connect();
        assert_eq!(bench.tell(big(67_108_864)).sent.len(), 0);
        assert_eq!(bench.tell(big(67_108_864 - 200)).sent.len(), 1);
    }

    fn what_the_server_refuses_for_its_size_is_not_sent_again_but_changes_are(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.answers = false;
        assert_eq!(parts(bench.tell(big(5_000)).message()), ["effective_config"]);
        let refusal = match transport {
            Transport::Http => Failure::from_status(413, None),
            Transport::WebSocket => Failure::from_close(Some(1009), ""),
        };
        let step = bench.tell(Input::Failed(refusal));
        assert_eq!(step.events.len(), 1);
        bench.answers = true;
        let mut step = bench.reconnect();
        step.extend(bench.pass(seconds(100)));
        assert!(step.sent.iter().all(|message| message.effective_config.is_none()), "{step:?}");
        assert_eq!(parts(bench.tell(big(10)).message()), ["effective_config"]);
    }

    fn a_report_of_several_parts_that_is_too_large_is_taken_apart_to_find_the_one(transport) {
        let mut bench = Bench::able(transport);
        bench.tell(big(5_000));
        bench.answers = false;
        let refused = |bench: &mut Bench| match transport {
            Transport::Http => bench.tell(Input::Failed(Failure::from_status(413, None))),
            Transport::WebSocket => bench.tell(Input::Closed { code: Some(1009), reason: String::new() }),
        };
        let mut step = bench.connect();
        let mut told = Vec::new();
        for _ in 0..30 {
            for message in std::mem::take(&mut step.sent) {
                told.push(parts(&message));
                if transport == Transport::WebSocket {
                    bench.tell(Input::Written);
                }
                step.extend(if message.effective_config.is_some() { refused(&mut bench) } else { bench.ack() });
            }
            if step.sent.is_empty() {
                let wait = bench.until_dial();
                step.extend(bench.pass(wait));
                if !step.connects().is_empty() {
                    step.outputs.clear();
                    step.extend(bench.tell(Input::Connected));
                }
            }
        }
        let with_config = told.iter().filter(|parts| parts.contains(&"effective_config")).count();
        assert_eq!(with_config, 2, "with the others, and alone: {told:?}");
        assert!(told[1..].contains(&vec!["health"]) && told[1..].contains(&vec!["remote_config_status"]), "{told:?}");
    }

    fn an_oversized_message_of_the_server_is_recorded_and_not_used(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.answers = false;
        bench.pass(seconds(30));
        let step = bench.tell(Input::Unusable(Unusable::Oversize { limit: 1_000 }));
        let kinds: Vec<_> = step.events.iter().map(|event| event.failure().unwrap().kind).collect();
        assert_eq!(kinds, [FailureKind::Oversize]);
        assert!(step.applies().is_empty());
        assert_eq!(bench.session.stats(bench.now.mono).discarded_incoming, 1);
        if transport == Transport::WebSocket {
            assert!(step.has(&Output::Close(CloseCode::TooBig)), "{step:?}");
            bench.pass(seconds(2));
        }
        bench.answers = true;
        assert_eq!(bench.reconnect().sent.len(), 1, "and it goes on");
    }
}

#[test]
fn what_waits_for_an_answer_before_it_is_sent_waits_without_spinning() {
    let mut bench = Bench::able(Transport::WebSocket);
    bench.answers = false;
    bench.connect();
    bench.tell(Input::Closed { code: Some(1009), reason: String::new() });
    // From here on one part goes at a time, and the next when the one before was answered.
    let step = bench.reconnect();
    assert_eq!(step.sent.len(), 1);
    bench.tell(Input::Written);
    bench.tell(health("b"));
    let step = bench.pass(seconds(29));
    assert!(step.sent.is_empty(), "{step:?}");
    assert_eq!(bench.pass(seconds(2)).events.len(), 1, "no answer");
}

#[test]
fn a_text_message_ends_the_connection_with_1003() {
    let mut bench = Bench::able(Transport::WebSocket);
    bench.connect();
    let step = bench.tell(Input::Unusable(Unusable::Text));
    assert_eq!(step.outputs, [Output::Close(CloseCode::Unsupported)]);
    assert_eq!(step.events.len(), 1);
}

#[test]
fn a_field_is_as_long_as_announced() {
    // The limit is computed before anything is written; both have to agree.
    for length in [0, 1, 127, 128, 16_383, 16_384] {
        let mut out = Vec::new();
        encode::bytes_field(6, &vec![0; length], &mut out);
        assert_eq!(out.len(), encode::bytes_field_len(6, length));
    }
}

on_both_transports! {
    fn an_oversized_answer_acknowledges_nothing(transport) {
        let mut bench = Bench::with(transport, |setup| setup.settings.full_state_on_reconnect = false);
        bench.connect();
        bench.answers = false;
        assert_eq!(parts(bench.tell(health("new")).message()), ["health"]);
        if transport == Transport::WebSocket {
            bench.tell(Input::Written);
        }
        bench.tell(Input::Unusable(Unusable::Oversize { limit: 1_000 }));
        bench.answers = true;
        bench.pass(seconds(2));
        assert_eq!(parts(bench.reconnect().message()), ["health"], "so it is sent again");
    }
}
