//! What stands on the wire is the schema: messages of an agent, and of a server that knows more than this agent.

use bytes::Bytes;
use opamp_client::Transport;
use opamp_client::session::{Input, Outbox, Output, Session};
use opamp_proto::{frame, pb};
use prost::Message as _;

use crate::bench::{self, Bench, health, parts, seconds, setup};

/// Feeds one input and returns the bytes of what is sent.
fn told(session: &mut Session, out: &mut Outbox, input: Input<'_>, ms: u64) -> Vec<Vec<u8>> {
    let now =
        opamp_client::Now { mono: opamp_client::Mono(ms), wall: opamp_client::Wall(1_700_000_000_000 + ms) };
    session.handle(input, now, out).unwrap();
    let mut sent = Vec::new();
    while let Some(output) = out.take() {
        if output == Output::Send {
            sent.push(out.message().to_vec());
        }
    }
    sent
}

on_both_transports! {
    fn every_message_is_one_agent_to_server_of_the_schema_and_nothing_else(transport) {
        let mut setup = setup(transport);
        setup.abilities.remote_config = true;
        setup.settings.request_uid = true;
        let (mut session, mut out) = (Session::new(setup), Outbox::new());
        let is_websocket = transport == Transport::WebSocket;
        let answer = |message: &pb::ServerToAgent| {
            let header: &[u8] = if is_websocket { &[0] } else { &[] };
            [header, &message.encode_to_vec()].concat()
        };
        let acknowledgement = answer(&pb::ServerToAgent { capabilities: bench::ALL, ..Default::default() });
        let offer = answer(&bench::offer(&[1], "a: 1"));
        let mut sent = Vec::new();
        let story = [
            (0, health("first")),
            (0, Input::EffectiveConfig(opamp_client::EffectiveConfig::single("a: 0"))),
            (0, Input::Start),
            (0, Input::Connected),
            (0, Input::Written),
            (0, Input::Received(&acknowledgement)),
            (5_000, health("second")),
            (5_000, Input::Written),
            (5_000, Input::Received(&offer)),
            (5_000, Input::Written),
            (5_000, Input::Received(&acknowledgement)),
            (40_000, Input::Tick),
            (40_000, Input::Written),
            (40_000, Input::Received(&acknowledgement)),
            (41_000, Input::Stop),
        ];
        for (ms, input) in story {
            sent.extend(told(&mut session, &mut out, input, ms));
        }
        assert_eq!(sent.len(), 5, "a full report, health, a status, a heartbeat and the goodbye");
        for bytes in sent {
            let data = if is_websocket {
                assert_eq!(bytes[0], 0, "the header in front");
                &bytes[1..]
            } else {
                &bytes[..]
            };
            let message = pb::AgentToServer::decode(data).unwrap();
            assert_eq!(message.encoded_len(), data.len(), "no field that the schema does not have: {message:?}");
            assert_eq!(message.instance_uid.len(), 16);
        }
    }

    fn unknown_fields_are_ignored_and_the_rest_is_used(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        bench.answers = false;
        if transport == Transport::Http {
            bench.pass(seconds(30));
        }
        // Fields 100 and 14, before and after an offer.
        let unknown = [0xa0, 0x06, 0x01, 0x72, 0x02, b'x', b'y'];
        let bytes = [&unknown[..], &bench::offer(&[1], "x").encode_to_vec(), &unknown].concat();
        let step = bench.receive_bytes(&bytes);
        assert_eq!(step.applies().len(), 1, "{step:?}");
        assert!(step.events.is_empty(), "{step:?}");
    }
}

/// The bytes of a header of value 0 in so many bytes.
fn header(bytes: usize) -> Vec<u8> {
    [vec![0x80; bytes - 1], vec![0]].concat()
}

#[test]
fn the_data_is_what_follows_the_header_in_every_size() {
    let mut bench = Bench::able(Transport::WebSocket);
    bench.connect();
    let sizes = (0..300).chain([16_383, 16_384, 65_535, 65_536, 1 << 20]);
    for (number, size) in sizes.enumerate() {
        let hash = (number as u32).to_be_bytes();
        let object = pb::AgentConfigObject { body: vec![b'x'; size].into(), ..Default::default() };
        let config = pb::AgentConfigMap { config_map: [(String::new(), object)].into() };
        let offer =
            pb::AgentRemoteConfig { config: Some(config), config_hash: Bytes::copy_from_slice(&hash) };
        let message =
            pb::ServerToAgent { remote_config: Some(offer), capabilities: bench::ALL, ..Default::default() };
        let bytes = [header(1 + number % 10), message.encode_to_vec()].concat();
        let step = bench.tell(Input::Received(&bytes));
        assert_eq!(step.applies().len(), 1, "{size} bytes after a header of {}: {step:?}", 1 + number % 10);
        assert_eq!(step.applies()[0].single().map(Bytes::len), Some(size));
        bench.outcome(&hash, Ok(()));
    }
    let step = bench.tell(Input::Received(&[header(11), bench::offer(&[1], "x").encode_to_vec()].concat()));
    assert!(step.applies().is_empty() && step.events.len() == 1, "a header that does not end: {step:?}");
    assert_eq!(frame::HEADER, 0);
}

#[test]
fn no_data_at_all_is_a_message_in_which_nothing_is_set() {
    let mut bench = Bench::able(Transport::WebSocket);
    bench.connect();
    assert!(bench.tell(Input::Received(&[0])).is_silent());
    let stats = bench.session.stats(bench.now.mono);
    assert_eq!((stats.malformed, stats.foreign), (0, 0));
    assert!(parts(bench.pass(seconds(30)).message()).is_empty(), "and the session goes on");
}

/// Several agents may share a WebSocket, behind a gateway for example; what is for the others has no effect here.
#[test]
fn of_messages_to_several_agents_on_one_connection_only_its_own_count() {
    let identity = pb::AgentIdentification { new_instance_uid: vec![9; 16].into() };
    let interleaved = [
        pb::ServerToAgent { capabilities: 1, ..Default::default() },
        bench::offer(&[1], "x"),
        bench::error(pb::ServerErrorResponseType::BadRequest, 0),
        bench::error(pb::ServerErrorResponseType::Unavailable, 1),
        bench::interval(1),
        pb::ServerToAgent { flags: 1, ..Default::default() },
        pb::ServerToAgent { agent_identification: Some(identity), ..Default::default() },
        pb::ServerToAgent { command: Some(pb::ServerToAgentCommand::default()), ..Default::default() },
    ];
    for foreign in interleaved {
        let mut bench = Bench::able(Transport::WebSocket);
        bench.connect();
        let other = pb::ServerToAgent { instance_uid: vec![1; 16].into(), ..foreign.clone() };
        assert!(bench.receive(other.clone()).is_silent(), "{foreign:?}");
        let step = bench.offer(&[2], "own");
        assert_eq!(step.applies()[0].single().map(|body| &body[..]), Some(&b"own"[..]));
        assert!(bench.receive(other).is_silent(), "{foreign:?}");
        let step = bench.tell(Input::EffectiveConfig(opamp_client::EffectiveConfig::single("own")));
        assert_eq!(parts(step.message()), ["effective_config"], "what the server takes is as before");
        assert_eq!(step.message().instance_uid[..], *bench::UID.as_bytes());
        assert_eq!(bench.pass(seconds(300)).sent.len(), 10, "the interval too");
        assert_eq!(bench.session.stats(bench.now.mono).foreign, 2);
    }
}

#[test]
fn an_answer_to_another_agent_acknowledges_nothing() {
    let mut bench = Bench::with(Transport::WebSocket, |setup| setup.settings.full_state_on_reconnect = false);
    bench.connect();
    bench.answers = false;
    assert_eq!(parts(bench.tell(health("new")).message()), ["health"]);
    bench.tell(Input::Written);
    bench.receive(pb::ServerToAgent { instance_uid: vec![1; 16].into(), ..Default::default() });
    bench.lose();
    bench.answers = true;
    assert_eq!(parts(bench.reconnect().message()), ["health"], "so it is sent again");
}

#[test]
fn nothing_of_a_body_is_shown_by_what_holds_it() {
    let mut bench = Bench::able(Transport::WebSocket);
    bench.tell(Input::EffectiveConfig(opamp_client::EffectiveConfig::single("password: hunter2")));
    bench.connect();
    let offer = bench::offer(&[1], "password: hunter2");
    let step = bench.receive(offer.clone());
    assert_eq!(step.applies().len(), 1);
    let bytes = offer.encode_to_vec();
    let shown = format!("{:?} {:?} {:?}", bench.session, step.outputs, Input::Received(&bytes));
    let raw = format!("{:?}", b"hunter2").replace(['[', ']'], "");
    assert!(!shown.contains("hunter2") && !shown.contains(&raw), "{shown}");
    assert!(shown.contains("EffectiveConfig") || shown.contains("effective_config"), "{shown}");
}
