//! Servers from before OpAMP 0.7, which knew no header in front of a WebSocket message.

use opamp_client::session::{EndpointInfo, Input, Outbox, Output, Session, Setup};
use opamp_client::{Description, Event, Mono, Now, SavedState, ServerFault, Transport, Wall};
use opamp_proto::pb;
use prost::Message as _;

use crate::bench::UID;

fn session(headerless: bool) -> Session {
    let endpoint = EndpointInfo::new("old", Transport::WebSocket);
    let mut setup = Setup::new(endpoint, Description::new("com.example.agent"), SavedState::new(UID), 1);
    setup.settings.headerless = headerless;
    Session::new(setup)
}

/// The first message, and what comes of answers with and without a header.
fn meets(headerless: bool) -> (Vec<u8>, Vec<bool>) {
    let mut session = session(headerless);
    let (now, mut out) = (Now { mono: Mono(1), wall: Wall(1) }, Outbox::new());
    session.handle(Input::Start, now, &mut out).unwrap();
    session.handle(Input::Connected, now, &mut out).unwrap();
    let first = out.message().to_vec();
    session.handle(Input::Written, now, &mut out).unwrap();
    while out.take().is_some() {}
    let answer = pb::ServerToAgent {
        instance_uid: UID.as_bytes().to_vec().into(),
        capabilities: 7,
        ..Default::default()
    };
    let understood = [vec![], vec![0]].map(|header| {
        let bytes = [header, answer.encode_to_vec()].concat();
        session.handle(Input::Received(&bytes), now, &mut out).unwrap();
        let fault = |output: Output| {
            matches!(output, Output::Event(Event::ServerFault(ServerFault::Malformed { .. })))
        };
        !std::iter::from_fn(|| out.take()).any(fault)
    });
    (first, understood.to_vec())
}

#[test]
fn messages_have_a_header_unless_the_server_is_known_to_be_older() {
    let (first, understood) = meets(false);
    assert_eq!((first[0], understood), (0, vec![false, true]));
    let (first, understood) = meets(true);
    assert!(pb::AgentToServer::decode(&first[..]).is_ok() && first[0] != 0);
    assert_eq!(understood, [true, true], "answers are taken in either form");
}
