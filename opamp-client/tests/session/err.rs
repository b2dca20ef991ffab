//! Error responses and messages that make no sense.

use opamp_client::session::{CloseCode, Input, Output};
use opamp_client::{Event, Failure, FailureKind, Health, ServerErrorKind, Transport, Wall};
use opamp_proto::pb;
use opamp_proto::pb::ServerErrorResponseType::{BadRequest, Unknown};
use prost::Message as _;

use crate::bench::{self, Bench, error, health, parts, seconds};

on_both_transports! {
    fn content_answered_with_an_error_does_not_come_again_but_changes_do(transport) {
        for (kind, told) in [(BadRequest, ServerErrorKind::BadRequest), (Unknown, ServerErrorKind::Unknown)] {
            let mut bench = Bench::able(transport);
            bench.connect();
            bench.pass(seconds(2));
            bench.answers = false;
            assert_eq!(parts(bench.tell(health("odd")).message()), ["health"]);
            if transport == Transport::WebSocket {
                bench.tell(Input::Written);
            }
            let step = bench.receive(error(kind, 0));
            assert_eq!(step.events, [Event::ServerError { kind: told, message: "because".into() }]);
            assert!(step.sent.is_empty());
            bench.answers = true;
            let step = bench.pass(seconds(90));
            assert!(step.sent.iter().all(|message| parts(message).is_empty()), "{step:?}");
            assert!(bench.tell(health("odd")).is_silent(), "the same again");
            assert_eq!(parts(bench.tell(Input::Health(Health::not_running("x"))).message()), ["health"]);
        }
    }

    fn content_answered_with_an_error_does_not_come_again_over_the_next_connection_unless_it_is_asked_for(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.pass(seconds(2));
        bench.answers = false;
        bench.tell(health("odd"));
        if transport == Transport::WebSocket {
            bench.tell(Input::Written);
        }
        bench.receive(error(BadRequest, 0));
        bench.lose();
        bench.answers = true;
        let mut step = bench.reconnect();
        step.extend(bench.pass(seconds(90)));
        assert!(step.sent.iter().all(|message| message.health.is_none()), "{step:?}");
        let step = bench.answer(pb::ServerToAgent { flags: 1, ..Default::default() });
        assert!(step.message().health.is_some(), "the server wants everything");
    }

    fn no_offer_is_taken_from_a_message_with_an_error(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        let message = pb::ServerToAgent {
            error_response: error(BadRequest, 0).error_response,
            agent_identification: Some(pb::AgentIdentification { new_instance_uid: vec![9; 16].into() }),
            connection_settings: bench::interval(1).connection_settings,
            flags: 1,
            ..bench::offer(&[1], "x")
        };
        let step = bench.answer(message);
        assert!(step.sent.is_empty() && step.outputs.is_empty(), "{step:?}");
        assert_eq!(step.events.len(), 1, "but the error is told");
        assert_eq!(bench.pass(seconds(60)).sent.len(), 2);
    }

    fn an_error_of_a_kind_nobody_knows_is_unknown(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        let response = pb::ServerErrorResponse { r#type: 77, ..Default::default() };
        let step = bench.answer(pb::ServerToAgent { error_response: Some(response), ..Default::default() });
        assert!(matches!(step.events[..], [Event::ServerError { kind: ServerErrorKind::Unknown, .. }]), "{step:?}");
    }

    fn an_error_addressed_to_nobody_is_for_the_only_agent_here(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.answers = false;
        bench.pass(seconds(30));
        let step = bench.receive_bytes(&error(BadRequest, 0).encode_to_vec());
        assert_eq!(step.events.len(), 1, "{step:?}");
    }
}

#[test]
fn a_server_that_answers_every_heartbeat_with_an_error_is_not_left_for_it() {
    let mut bench = Bench::on(Transport::WebSocket);
    bench.connect();
    bench.answers = false;
    for _ in 0..50 {
        let step = bench.pass(seconds(30));
        for _ in &step.sent {
            bench.tell(Input::Written);
            bench.tell(Input::Alive);
            let told = bench.receive(error(BadRequest, 0));
            assert!(matches!(told.events[..], [Event::ServerError { .. }]), "{told:?}");
        }
    }
    assert!(bench.session.is_connected());
}

#[test]
fn over_websocket_a_malformed_message_is_ignored_and_the_next_one_served() {
    let mut bench = Bench::able(Transport::WebSocket);
    bench.connect();
    for bytes in [&[1_u8, 0x30, 1][..], &[0xff; 11], &[], &[0, 0xff], &[0, 0x1a, 0x02, 0xff, 0xff]] {
        let step = bench.tell(Input::Received(bytes));
        assert!(step.sent.is_empty() && step.outputs.is_empty(), "{step:?}");
        assert!(matches!(step.events[..], [Event::ServerFault(_)]), "{step:?}");
        assert!(!bench.offer(&[bytes.len() as u8, 1], "x").applies().is_empty() || bytes.len() > 3);
        bench.outcome(&[bytes.len() as u8, 1], Ok(()));
    }
    assert_eq!(bench.session.stats(bench.now.mono).malformed, 5);
}

#[test]
fn a_long_header_of_value_0_is_a_header_and_no_data_is_a_message() {
    let mut bench = Bench::able(Transport::WebSocket);
    bench.connect();
    assert!(bench.tell(Input::Received(&[0])).is_silent());
    let bytes = [&[0x80, 0x00][..], &bench::offer(&[1], "x").encode_to_vec()].concat();
    assert_eq!(bench.tell(Input::Received(&bytes)).applies().len(), 1);
}

#[test]
fn a_server_that_sends_nothing_but_nonsense_is_left() {
    let mut bench = Bench::able(Transport::WebSocket);
    bench.connect();
    let mut last = bench::Step::default();
    for _ in 0..10 {
        last = bench.tell(Input::Received(&[9]));
    }
    assert_eq!(last.outputs, [Output::Close(CloseCode::Protocol)]);
    assert_eq!(last.events.len(), 1, "{last:?}");
    assert_eq!(last.events[0].failure().map(|failure| failure.kind), Some(FailureKind::Protocol));
}

#[test]
fn over_http_an_answer_that_makes_no_sense_is_a_failed_exchange() {
    let mut bench = Bench::able(Transport::Http);
    bench.connect();
    bench.pass(seconds(2));
    bench.answers = false;
    bench.tell(health("x"));
    let step = bench.receive_bytes(b"<html>");
    assert_eq!(step.events.len(), 1);
    assert_eq!(step.events[0].failure().map(|failure| failure.kind), Some(FailureKind::Protocol));
    bench.answers = true;
    assert_eq!(parts(bench.reconnect().message()), ["health"], "it was no acknowledgement");
}

#[test]
fn status_400_means_that_the_request_is_not_repeated() {
    let mut bench = Bench::able(Transport::Http);
    bench.connect();
    bench.pass(seconds(2));
    bench.answers = false;
    bench.tell(health("odd"));
    bench.tell(Input::Failed(Failure::from_status(400, None)));
    bench.answers = true;
    assert!(parts(bench.reconnect().message()).is_empty());
    bench.pass(seconds(2));
    assert_eq!(parts(bench.tell(health("even")).message()), ["health"]);
}

#[test]
fn statuses_401_404_and_500_are_told_and_the_message_comes_again() {
    for (status, kind) in
        [(401, FailureKind::Auth), (404, FailureKind::Status(404)), (500, FailureKind::Status(500))]
    {
        let mut bench = Bench::able(Transport::Http);
        bench.connect();
        bench.pass(seconds(2));
        bench.answers = false;
        bench.tell(Input::Health(Health::unhealthy(Wall(1), "x")));
        let step = bench.tell(Input::Failed(Failure::from_status(status, None)));
        assert_eq!(step.events.len(), 1, "{step:?}");
        assert_eq!(step.events[0].failure().map(|failure| failure.kind), Some(kind));
        assert!(step.events[0].to_string().contains(&status.to_string()));
        bench.answers = true;
        assert_eq!(parts(bench.reconnect().message()), ["health"]);
    }
}
