//! Custom capabilities and messages.

use bytes::Bytes;
use opamp_client::session::{Input, Output};
use opamp_client::{CustomMessage, Event, Failure, FailureKind, SendCustomError, Transport};
use opamp_proto::pb;
use opamp_proto::pb::ServerErrorResponseType as ErrorType;

use crate::bench::{ALL, Bench, Step, error, parts, seconds};

const ECHO: &str = "com.example.echo/v1";
const OTHER: &str = "com.example.other";

fn announced(names: &[&str]) -> pb::ServerToAgent {
    let capabilities = names.iter().map(|name| (*name).to_owned()).collect();
    pb::ServerToAgent {
        custom_capabilities: Some(pb::CustomCapabilities { capabilities }),
        capabilities: ALL,
        ..Default::default()
    }
}

fn message(capability: &str, kind: &str, data: &'static [u8]) -> CustomMessage {
    CustomMessage::new(capability, kind, Bytes::from_static(data))
}

fn from_server(capability: &str, kind: &str, data: &'static [u8]) -> pb::ServerToAgent {
    let custom = pb::CustomMessage { capability: capability.into(), r#type: kind.into(), data: data.into() };
    pb::ServerToAgent { custom_message: Some(custom), ..Default::default() }
}

/// An agent with two capabilities whose server has one of them.
fn talking(transport: Transport) -> Bench {
    let mut bench = Bench::on(transport);
    bench.tell(Input::CustomCapabilities(vec![ECHO.into(), OTHER.into()]));
    bench.connect();
    bench.answer(announced(&[ECHO]));
    bench
}

/// The custom messages that were sent: their data.
fn data(step: &Step) -> Vec<Bytes> {
    step.sent.iter().filter_map(|message| Some(message.custom_message.as_ref()?.data.clone())).collect()
}

fn received(step: &Step) -> Vec<&CustomMessage> {
    let custom = |output: &'_ Output| matches!(output, Output::Custom(_));
    step.outputs
        .iter()
        .filter(|output| custom(output))
        .map(|output| match output {
            Output::Custom(message) => message,
            other => panic!("{other:?}"),
        })
        .collect()
}

on_both_transports! {
    /// R-CUST-01, R-CUST-02, R-CUST-03.
    fn capabilities_are_announced_first_and_when_they_change(transport) {
        let mut bench = Bench::on(transport);
        assert!(bench.connect().message().custom_capabilities.is_none(), "who has none says nothing");
        let names = |step: &Step| step.message().custom_capabilities.clone().unwrap().capabilities;
        let step = bench.tell(Input::CustomCapabilities(vec![ECHO.into()]));
        assert_eq!(names(&step), [ECHO]);
        assert!(bench.pass(seconds(300)).sent.iter().all(|message| parts(message).is_empty()), "told once");
        assert!(bench.tell(Input::CustomCapabilities(vec![ECHO.into()])).sent.is_empty());
        let step = bench.tell(Input::CustomCapabilities(Vec::new()));
        assert_eq!(names(&step), Vec::<String>::new(), "none is said in so many words");
        let mut bench = talking(transport);
        bench.lose();
        let step = bench.reconnect();
        assert_eq!(step.sent[0].custom_capabilities.is_some(), transport == Transport::WebSocket);
    }

    /// R-CUST-11, R-CUST-12, R-CUST-13: in order, untouched, one in each message.
    fn messages_are_sent_once_in_order_and_one_by_one(transport) {
        let mut bench = talking(transport);
        bench.answers = false;
        // While one is on its way the others wait.
        static BYTES: [u8; 256] = { let mut bytes = [0; 256]; let mut at = 0; while at < 256 { bytes[at] = at as u8; at += 1; } bytes };
        let all: Vec<&'static [u8]> = vec![b"1", &BYTES, b"", b"4", b"5", b"6", b"7", b"8", b"9", b"10"];
        let mut step = Step::default();
        for data in &all {
            step.extend(bench.tell(Input::Custom(message(ECHO, "x", data))));
        }
        assert_eq!((step.sent.len(), bench.session.custom_waiting().0), (1, 10));
        bench.answers = true;
        if transport == Transport::WebSocket {
            step.extend(bench.tell(Input::Written));
        }
        step.extend(bench.ack());
        assert_eq!(data(&step), all);
        assert!(step.said().iter().all(|parts| *parts == ["custom_message"]), "one in each");
        assert_eq!(bench.session.custom_waiting(), (0, 0));
        bench.answer(pb::ServerToAgent { flags: 1, ..Default::default() });
        assert!(data(&bench.pass(seconds(300))).is_empty(), "not repeated with a full report (A-20)");
        assert_eq!(bench.session.stats(bench.now.mono).custom_sent, 10);
    }

    /// R-CUST-04, R-CUST-09.
    fn only_what_both_have_announced_is_sent_version_included(transport) {
        let mut bench = Bench::on(transport);
        bench.tell(Input::CustomCapabilities(vec![ECHO.into(), OTHER.into()]));
        bench.connect();
        let check = |bench: &Bench, name: &str| bench.session.check_custom(&message(name, "x", b""));
        assert_eq!(check(&bench, ECHO), Err(SendCustomError::NotAnnounced(ECHO.into())), "never announced");
        bench.answer(announced(&[ECHO]));
        assert_eq!(check(&bench, ECHO), Ok(()));
        assert_eq!(check(&bench, OTHER), Err(SendCustomError::NotAnnounced(OTHER.into())));
        assert_eq!(check(&bench, "com.example.echo"), Err(SendCustomError::NotOurs("com.example.echo".into())));
        bench.answer(announced(&["com.example.echo/v2", OTHER]));
        assert_eq!(check(&bench, ECHO), Err(SendCustomError::NotAnnounced(ECHO.into())), "replaced");
        assert_eq!(check(&bench, OTHER), Ok(()));
        bench.answer(announced(&[]));
        assert_eq!(check(&bench, OTHER), Err(SendCustomError::NotAnnounced(OTHER.into())), "cleared");
        let step = bench.tell(Input::Custom(message(OTHER, "x", b"")));
        assert!(step.sent.is_empty());
        assert!(step.events.iter().any(|event| matches!(event, Event::CustomDropped { .. })), "{step:?}");
    }

    /// R-CUST-06, R-CUST-07, R-CUST-08, R-CUST-10: by capability, whatever the type.
    fn messages_of_the_server_go_to_the_capability_they_name(transport) {
        let mut bench = talking(transport);
        for (capability, kind, data) in
            [(ECHO, "x", &b"1"[..]), (OTHER, "x", b"2"), (ECHO, "never heard of", b"\0\xff"), (ECHO, "", b"")]
        {
            let step = bench.answer(from_server(capability, kind, match data { b"1" => b"1", b"2" => b"2", b"" => b"", _ => b"\0\xff" }));
            let got = received(&step);
            assert_eq!((got.len(), got[0].capability.as_str(), got[0].kind.as_str()), (1, capability, kind));
            assert_eq!(&got[0].data[..], data);
        }
        for strange in ["com.example.strange", "com.example.echo", ""] {
            let step = bench.answer(from_server(strange, "x", b"1"));
            assert!(received(&step).is_empty() && step.events.is_empty(), "{strange}: {step:?}");
        }
        assert!(bench.session.is_connected());
        assert_eq!(bench.session.stats(bench.now.mono).custom_received, 4);
    }

    /// Lesson: one slot, silently overwritten.
    fn what_waits_has_a_bound_in_number_and_size_and_full_is_an_error(transport) {
        let mut bench = Bench::with(transport, |setup| {
            setup.settings.custom_messages_max = 3;
            setup.settings.custom_bytes_max = 400;
        });
        bench.tell(Input::CustomCapabilities(vec![ECHO.into()]));
        bench.connect();
        bench.answer(announced(&[ECHO]));
        bench.answers = false;
        for _ in 0..3 {
            bench.tell(Input::Custom(message(ECHO, "x", b"1")));
        }
        let full = bench.session.check_custom(&message(ECHO, "x", b"1"));
        assert!(matches!(full, Err(SendCustomError::Full { messages: 3, .. })), "{full:?}");
        bench.answers = true;
        if transport == Transport::WebSocket {
            bench.tell(Input::Written);
        }
        bench.ack();
        assert_eq!(bench.session.check_custom(&message(ECHO, "x", b"1")), Ok(()), "there is room again");
        static LARGE: [u8; 300] = [0; 300];
        bench.answers = false;
        bench.tell(Input::Custom(message(ECHO, "x", &LARGE)));
        let full = bench.session.check_custom(&message(ECHO, "x", &LARGE));
        assert!(matches!(full, Err(SendCustomError::Full { messages: 1, .. })), "{full:?}");
        static TOO_LARGE: [u8; 500] = [0; 500];
        let large = bench.session.check_custom(&message(ECHO, "x", &TOO_LARGE));
        assert!(matches!(large, Err(SendCustomError::TooLarge { max: 400, .. })), "{large:?}");
    }

    /// what may have arrived is not sent again, what cannot have arrived is.
    fn a_message_that_got_stuck_is_sent_again_only_if_it_cannot_have_arrived(transport) {
        for (kind, again_over_http) in [
            (FailureKind::Refused, true),
            (FailureKind::Throttled, true),
            (FailureKind::Closed, false),
            (FailureKind::Timeout, false),
            (FailureKind::TooLarge, false),
        ] {
            let mut bench = talking(transport);
            bench.answers = false;
            let step = bench.tell(Input::Custom(message(ECHO, "x", b"1")));
            assert_eq!(data(&step), ["1"]);
            bench.tell(Input::Custom(message(ECHO, "x", b"2")));
            let mut step = bench.tell(Input::Failed(Failure::new(kind, "x")));
            bench.answers = true;
            let again = kind != FailureKind::TooLarge && (transport == Transport::WebSocket || again_over_http);
            let lost = step.events.iter().any(|event| matches!(event, Event::CustomDropped { .. }));
            assert_eq!(lost, !again, "{kind:?}");
            step = bench.reconnect();
            step.extend(bench.pass(seconds(60)));
            let expected: &[&str] = if again { &["1", "2"] } else { &["2"] };
            assert_eq!(data(&step), expected, "{kind:?}");
        }
    }

    fn a_message_that_was_written_is_never_sent_again(transport) {
        let mut bench = talking(transport);
        bench.tell(Input::Custom(message(ECHO, "x", b"1")));
        bench.lose();
        let mut step = bench.reconnect();
        step.extend(bench.pass(seconds(60)));
        step.extend(bench.answer(error(ErrorType::BadRequest, 0)));
        step.extend(bench.pass(seconds(60)));
        assert!(data(&step).is_empty());
    }

    fn another_server_is_sent_nothing_before_it_has_announced(transport) {
        let mut bench = Bench::with(transport, |setup| {
            setup.fallbacks = vec![crate::bench::endpoint("second", transport)];
        });
        bench.tell(Input::CustomCapabilities(vec![ECHO.into()]));
        bench.connect();
        bench.answer(announced(&[ECHO]));
        bench.answers = false;
        bench.lose();
        bench.tell(Input::Custom(message(ECHO, "x", b"1")));
        bench.pass(seconds(2));
        bench.tell(Input::Failed(Failure::new(FailureKind::Refused, "x")));
        bench.answers = true;
        let step = bench.tell(Input::Connected);
        assert_eq!(bench.endpoint, 1);
        assert!(data(&step).is_empty());
        assert!(step.events.iter().any(|event| matches!(event, Event::CustomDropped { .. })), "and it is told");
    }
}

/// Names from a server are as bounded as everything else.
#[test]
fn capabilities_of_the_server_beyond_the_bound_do_not_exist() {
    let mut bench = Bench::with(Transport::WebSocket, |setup| setup.settings.custom_capabilities_max = 2);
    bench.connect();
    let names: Vec<String> = (0..5).map(|number| format!("com.example.c{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    bench.receive(announced(&names));
    assert_eq!(bench.session.server_custom_capabilities().1.len(), 2);
    bench.receive(announced(&["no name", "com.example.good"]));
    assert_eq!(bench.session.server_custom_capabilities().1.iter().collect::<Vec<_>>(), ["com.example.good"]);
}
