//! What the hot path allocates: nothing.

use std::sync::Arc;

use opamp_proto::{AgentMessage, InstanceUid, Limits, Mono, Now, Wall, frame, pb};
use opamp_server::session::{Input, Outbox, Session, SessionSettings};
use opamp_server::{ConnectionInfo, Principal, Transport};
use prost::Message as _;

fn framed(sequence_num: u64, full: bool) -> Vec<u8> {
    let health = pb::ComponentHealth { healthy: true, ..Default::default() };
    let message = pb::AgentToServer {
        instance_uid: vec![7; 16].into(),
        sequence_num,
        capabilities: 0x0801,
        agent_description: full.then(pb::AgentDescription::default),
        health: full.then_some(health),
        ..Default::default()
    };
    let mut out = Vec::new();
    frame::encode(&message.encode_to_vec(), &mut out);
    out
}

#[test]
fn a_heartbeat_through_codec_and_session_allocates_nothing() {
    let settings = SessionSettings::default();
    let now = |ms| Now { mono: Mono(ms), wall: Wall(ms) };
    let mut session = Session::new(InstanceUid::from_bytes([7; 16]), &settings, now(0));
    let mut out = Outbox::new(settings);
    let limits = Limits::default();
    let connection = ConnectionInfo {
        id: 1,
        transport: Transport::WebSocket,
        remote_addr: None,
        principal: Principal::anonymous(),
        connected_at: Wall(0),
    };
    session.handle(Input::Attached(Arc::new(connection)), now(0), &mut out).unwrap();
    let mut receive = |bytes: &[u8], at| {
        out.clear();
        let message = AgentMessage::decode(frame::decode(bytes).unwrap(), &limits).unwrap();
        session.handle(Input::Message { message: &message, assign: None }, now(at), &mut out).unwrap();
        assert_eq!(out.messages().len(), 1);
    };
    let first = framed(1, true);
    let report = allocation_counter::measure(|| receive(&first, 1));
    assert!(report.count_total > 0, "the counter counts: a first report is kept");
    receive(&framed(2, false), 2);
    for sequence in 3..100 {
        let heartbeat = framed(sequence, false);
        let report = allocation_counter::measure(|| receive(&heartbeat, sequence));
        assert_eq!(report.count_total, 0, "heartbeat {sequence}");
    }
}
