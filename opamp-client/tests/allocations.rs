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

/// An offer in pieces is legal, and costs no more than one in a piece: what is too much is counted over all of them.
#[test]
fn an_offer_in_pieces_costs_no_more_than_one_in_a_piece() {
    let uid = InstanceUid::from_bytes([7; 16]);
    let mut setup = Setup::new(
        EndpointInfo::new("endpoint", Transport::Http),
        Description::new("a"),
        SavedState::new(uid),
        1,
    );
    setup.abilities.remote_config = true;
    setup.abilities.packages = true;
    setup.abilities.opamp_settings = true;
    setup.abilities.other_connections = true;
    setup.settings.config_files_max = 100;
    // 600 files, packages or connections of other names in one map.
    let entries = |field: u8, tail: &[u8]| {
        let mut map = Vec::new();
        for number in 0..600_u16 {
            map.extend_from_slice(&[field, 4 + tail.len() as u8, 0x0a, 2]);
            map.extend_from_slice(&[b'a' + (number / 26) as u8, b'a' + (number % 26) as u8]);
            map.extend_from_slice(tail);
        }
        map
    };
    let mut config = Vec::new();
    encode::bytes_field(1, &entries(0x0a, &[0x12, 0]), &mut config);
    for (field, offer) in [(3, config), (4, entries(0x32, &[0x12, 0])), (5, entries(0x0a, &[0x12, 0]))] {
        let mut session = Session::new(setup.clone());
        let mut out = Outbox::new();
        session.handle(Input::Start, at(0), &mut out).unwrap();
        session.handle(Input::Connected, at(0), &mut out).unwrap();
        let (mut whole, mut pieces) = (Vec::new(), Vec::new());
        encode::bytes_field(field, &offer, &mut whole);
        encode::bytes_field(field, &[], &mut pieces);
        encode::bytes_field(field, &offer, &mut pieces);
        let mut cost = |bytes: &[u8]| {
            let mut session = Session::new(setup.clone());
            session.handle(Input::Start, at(0), &mut out).unwrap();
            session.handle(Input::Connected, at(0), &mut out).unwrap();
            let measured = allocation_counter::measure(|| {
                session.handle(Input::Received(bytes), at(0), &mut out).unwrap();
            });
            while out.take().is_some() {}
            measured.bytes_max
        };
        let (one, several) = (cost(&whole), cost(&pieces));
        assert!(
            several <= one + 4 * pieces.len() as u64 + (32 << 10),
            "field {field}: {several} after {one}"
        );
        if field == 3 {
            assert!(
                several <= 4 * pieces.len() as u64 + (32 << 10),
                "refused before it is decoded: {several}"
            );
        }
    }
}
