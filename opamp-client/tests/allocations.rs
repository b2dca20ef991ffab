//! What the hot path allocates: nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "support of tests")]

use opamp_client::session::{EndpointInfo, Input, Outbox, Output, Session, Setup};
use opamp_client::{
    Description, EffectiveConfig, Health, InstanceUid, Mono, Now, SavedState, Transport, Wall,
};
use opamp_proto::encode;

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms), wall: Wall(1_700_000_000_000 + ms) }
}

fn heartbeats_allocate_nothing(transport: Transport) {
    let uid = InstanceUid::from_bytes([7; 16]);
    let endpoint = EndpointInfo::new("endpoint", transport);
    let mut session = Session::new(Setup::new(endpoint, Description::new("a"), SavedState::new(uid), 1));
    let mut out = Outbox::new();
    let websocket = transport == Transport::WebSocket;
    let mut answer = if websocket { vec![0] } else { Vec::new() };
    encode::uid_field(1, &uid, &mut answer);
    encode::varint_field(7, 7, &mut answer);
    let mut round = |input: Input<'_>, ms| {
        let mut sent = 0;
        session.handle(input, at(ms), &mut out).unwrap();
        while let Some(output) = out.take() {
            if output == Output::Send {
                sent += 1;
                if websocket {
                    session.handle(Input::Written, at(ms), &mut out).unwrap();
                }
                session.handle(Input::Received(&answer), at(ms), &mut out).unwrap();
            }
        }
        sent
    };
    round(Input::Health(Health::healthy(Wall(1))), 0);
    round(Input::EffectiveConfig(EffectiveConfig::single("x")), 0);
    round(Input::Start, 0);
    let first = allocation_counter::measure(|| assert_eq!(round(Input::Connected, 0), 1));
    assert!(first.count_total > 0, "the counter counts");
    round(Input::Tick, 30_000);
    for beat in 2..200 {
        let report = allocation_counter::measure(|| assert_eq!(round(Input::Tick, beat * 30_000), 1));
        assert_eq!(report.count_total, 0, "heartbeat {beat} over {transport:?}");
    }
}

#[test]
fn a_heartbeat_and_its_answer_allocate_nothing_over_websocket() {
    heartbeats_allocate_nothing(Transport::WebSocket);
}

#[test]
fn a_poll_and_its_answer_allocate_nothing_over_http() {
    heartbeats_allocate_nothing(Transport::Http);
}
