//! R-WS: WebSocket framing, exchange and size limits.

use std::time::Duration;

use bytes::Bytes;
use opamp_proto::InstanceUid;
use opamp_server::{FrameReader, RefusalReason};
use opamp_testkit::raw::Pieces;

use super::common::*;

const MIB_64: usize = 64 << 20;

/// A receive limit small enough to test around.
const LIMIT: usize = 10_000;

async fn limited(bytes: usize, frames: FrameReader) -> TestServer {
    TestServer::with(|setup| {
        setup.limits.message_bytes_max = bytes;
        setup.settings.frames = frames;
    })
    .await
}

/// A report whose WebSocket message, header included, has exactly `bytes` bytes.
fn report_of(number: u32, bytes: usize) -> Bytes {
    framed(&padded(&Persona::new(number).heartbeat(), bytes - 1)).into()
}

opamp_testkit::on_both_frame_readers! {
    /// R-WS-01.
    async fn a_text_message_is_not_opamp(frames: FrameReader) {
        let server = TestServer::with(|setup| setup.settings.frames = frames).await;
        let mut persona = Persona::new(1);
        persona.uid = InstanceUid::from_bytes(*b"sixteen letters!");
        persona.capabilities = AgentCapabilities::REPORTS_STATUS;
        let report = framed(&persona.heartbeat());
        assert!(std::str::from_utf8(&report).is_ok(), "as text it breaks no other rule");
        let mut ws = server.ws().await;
        ws.send_frame(&Frame::new(Opcode::TEXT, report)).await.unwrap();
        assert_eq!(ws.expect_close().await.unwrap().code, Some(1003));

        // Text that is not even UTF-8, which most reports are: RFC 6455 has a code for that too.
        let mut ws = server.ws().await;
        ws.send_frame(&Frame::new(Opcode::TEXT, framed(&Persona::new(2).full_state()))).await.unwrap();
        let code = ws.expect_close().await.unwrap().code;
        assert!(matches!(code, Some(1002 | 1003 | 1007)), "{code:?}");
        assert!(server.handle.agents().is_empty());
        server.refusal(RefusalReason::Protocol).await;
        assert_eq!(server.rejected(RefusalReason::Protocol), 2);
    }

    /// R-WS-05.
    async fn the_data_is_what_follows_the_header_in_every_size_and_fragmentation(frames: FrameReader) {
        let server = TestServer::with(|setup| setup.settings.frames = frames).await;
        let mut ws = server.ws().await;
        let mut persona = Persona::new(1);
        for bytes in [200, 1_000, 4_096, 4_097, 20_000, 70_000] {
            for fragment in [usize::MAX, 4_096, 1_000, 61] {
                let report = padded(&persona.heartbeat(), bytes);
                let payload = Bytes::from(framed(&report));
                ws.send_fragmented(&payload, fragment.min(payload.len())).await.unwrap();
                assert!(ws.receive().await.unwrap().error_response.is_none());
                let kept = server.part(persona.uid, opamp_proto::Part::EffectiveConfig);
                assert_eq!(kept, report.effective_config, "{bytes} in {fragment}");
            }
        }
    }

    /// R-WS-05: what the network does to frames changes nothing.
    async fn messages_that_arrive_byte_by_byte_are_understood(frames: FrameReader) {
        let server = TestServer::with(|setup| setup.settings.frames = frames).await;
        let mut ws = server.ws().await;
        let mut persona = Persona::new(1);
        let frame = Frame::binary(framed(&persona.full_state()));
        ws.send_frame_in(&frame, Pieces { bytes: 1, pause: Duration::ZERO }).await.unwrap();
        assert!(ws.receive().await.unwrap().error_response.is_none());
        assert_eq!(server.health(persona.uid), Some(persona.health));
    }

    /// R-WS-07, R-WS-09, R-WS-12.
    async fn the_limit_counts_header_and_data(frames: FrameReader) {
        let server = limited(LIMIT, frames).await;
        let mut ws = server.ws().await;
        ws.send_binary(report_of(1, LIMIT)).await.unwrap();
        assert!(ws.receive().await.unwrap().error_response.is_none());
        ws.send_binary(report_of(1, LIMIT + 1)).await.unwrap();
        assert_eq!(ws.expect_close().await.unwrap().code, Some(1009));

        // One more byte of header counts like one more byte of data.
        let mut ws = server.ws().await;
        let long_header = |bytes: usize| [&[0x80, 0x00], &report_of(1, bytes - 1)[1..]].concat();
        ws.send_binary(long_header(LIMIT)).await.unwrap();
        assert!(ws.receive().await.unwrap().error_response.is_none());
        ws.send_binary(long_header(LIMIT + 1)).await.unwrap();
        assert_eq!(ws.expect_close().await.unwrap().code, Some(1009));
    }

    /// R-WS-08.
    async fn the_limit_is_64_mib_by_default(frames: FrameReader) {
        let server = TestServer::with(|setup| setup.settings.frames = frames).await;
        let mut ws = server.ws().await;
        let full = Frame { mask: Some([0; 4]), ..Frame::binary(report_of(1, MIB_64)) };
        ws.stream_mut().set_wait(Duration::from_secs(60));
        ws.send_frame(&full).await.unwrap();
        assert!(ws.receive().await.unwrap().error_response.is_none());
        assert!(server.knows(Persona::new(1).uid));
        // The announced length alone is enough to refuse: not a byte of it need arrive.
        let announced = Frame { length: Length::Claimed(MIB_64 as u64 + 1), ..Frame::binary("") };
        ws.send_frame(&announced).await.unwrap();
        assert_eq!(ws.expect_close().await.unwrap().code, Some(1009));
    }

    /// R-WS-10: no extension is negotiated, so nothing inflates; what pretends to be compressed is refused.
    async fn compression_cannot_get_around_the_limit(frames: FrameReader) {
        let server = limited(LIMIT, frames).await;
        let endpoint = server.endpoint();
        let handshake = Handshake::new(&endpoint).map(|request| {
            request.with("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")
        });
        // A switch of protocols that accepts the extension would have this header.
        let mut http = server.http().await;
        let response = http.exchange(&handshake.request).await.unwrap();
        assert_eq!(response.status, 101);
        assert_eq!(response.header("sec-websocket-extensions"), None);

        let mut ws = server.ws().await;
        let compressed = Frame { rsv: 0b100, ..Frame::binary(vec![0; 64]) };
        ws.send_frame(&compressed).await.unwrap();
        assert_eq!(ws.expect_close().await.unwrap().code, Some(1002));
    }

    /// R-WS-10: a message is refused when its fragments pass the limit, before the last of them.
    async fn fragments_are_counted_together_as_they_arrive(frames: FrameReader) {
        let server = limited(LIMIT, frames).await;
        let mut ws = server.ws().await;
        let fragment = |opcode| Frame { fin: false, ..Frame::new(opcode, vec![0; LIMIT / 4]) };
        ws.send_frame(&fragment(Opcode::BINARY)).await.unwrap();
        for _ in 0..4 {
            ws.send_frame(&fragment(Opcode::CONTINUATION)).await.unwrap();
        }
        assert_eq!(ws.expect_close().await.unwrap().code, Some(1009));
        assert_eq!(server.refusal(RefusalReason::Oversize).await.reason.as_str(), "oversize");
    }

    /// R-WS-11, R-WS-12.
    async fn an_oversized_report_changes_nothing_and_ends_the_connection(frames: FrameReader) {
        let server = limited(LIMIT, frames).await;
        let mut ws = server.ws().await;
        let mut persona = Persona::new(1);
        ws.exchange(&persona.full_state()).await.unwrap();
        let before = server.snapshot(persona.uid);
        let oversized = persona.report(|message| message.health = Some(Default::default()));
        ws.send_binary(framed(&padded(&oversized, LIMIT))).await.unwrap();
        let close = ws.expect_close().await.unwrap();
        assert_eq!(close.code, Some(1009));
        assert_eq!(ws.answer_close(&close).await.unwrap(), Ending::Eof);
        server.refusal(RefusalReason::Oversize).await;
        assert_eq!(server.rejected(RefusalReason::Oversize), 1);
        let after = server.until(persona.uid, |agent| agent.disconnect.is_some()).await;
        assert_eq!(after.sequence_num, before.sequence_num);
        assert_eq!(server.health(persona.uid), Some(persona.health));
    }

    /// R-TRANS-10: frames that RFC 6455 forbids end the connection with its code for that.
    async fn frames_that_break_rfc_6455_end_the_connection(frames: FrameReader) {
        let server = TestServer::with(|setup| setup.settings.frames = frames).await;
        let faults = [
            Frame { mask: None, ..Frame::binary("unmasked") },
            Frame { rsv: 0b010, ..Frame::binary("reserved bit") },
            Frame::new(Opcode(0x3), "unknown kind of data"),
            Frame::new(Opcode(0xB), "unknown kind of control"),
            Frame::new(Opcode::CONTINUATION, "of nothing"),
            Frame { fin: false, ..Frame::new(Opcode::PING, "fragmented control") },
            Frame::new(Opcode::PING, vec![0; 126]),
            Frame::new(Opcode::CLOSE, vec![3]),
        ];
        for (number, fault) in (0..).zip(&faults) {
            let mut ws = server.ws().await;
            ws.exchange(&Persona::new(number).full_state()).await.unwrap();
            ws.send_frame(fault).await.unwrap();
            let close = ws.expect_close().await.unwrap();
            assert_eq!(close.code, Some(1002), "{fault:?}");
            let snapshot = server.until(Persona::new(number).uid, |agent| agent.disconnect.is_some()).await;
            assert_eq!(snapshot.disconnect.unwrap().0.as_str(), "refused");
        }
        assert_eq!(server.rejected(RefusalReason::Protocol), faults.len() as u64);
    }

    /// R-TRANS-10: a ping is answered with its own payload, also between the fragments of a message.
    async fn pings_are_answered_between_fragments(frames: FrameReader) {
        let server = TestServer::with(|setup| setup.settings.frames = frames).await;
        let mut ws = server.ws().await;
        let fragments = Frame::fragments(&Bytes::from(framed(&Persona::new(1).full_state())), 50);
        for (number, fragment) in (0_u8..).zip(&fragments) {
            ws.send_frame(fragment).await.unwrap();
            if !fragment.fin {
                ws.send_frame(&Frame::new(Opcode::PING, vec![number; 125])).await.unwrap();
                assert_eq!(ws.next().await.unwrap(), Received::Pong(vec![number; 125].into()));
            }
        }
        assert!(ws.receive().await.unwrap().error_response.is_none());
    }
}

/// R-WS-01, R-WS-02.
#[tokio::test]
async fn every_message_is_binary_and_begins_with_header_0() {
    let server = TestServer::start().await;
    let mut ws = server.ws().await;
    let mut persona = Persona::new(1);
    for message in [persona.full_state(), persona.heartbeat()] {
        ws.send_message(&message).await.unwrap();
        assert!(matches!(ws.next().await.unwrap(), Received::Binary(payload) if payload[0] == 0));
    }
    server.assign(persona.uid, &yaml("a: 1\n"));
    assert!(matches!(ws.next().await.unwrap(), Received::Binary(payload) if payload[0] == 0));
    ws.send_binary(vec![0, 0xff]).await.unwrap();
    assert!(matches!(ws.next().await.unwrap(), Received::Binary(payload) if payload[0] == 0));
}

/// R-WS-03.
#[tokio::test]
async fn a_header_other_than_0_is_malformed() {
    let server = TestServer::start().await;
    let mut ws = server.ws().await;
    let mut persona = Persona::new(1);
    ws.exchange(&persona.full_state()).await.unwrap();
    for header in
        [&[1][..], &[0x81, 0x00], &[0x80, 0x01], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]]
    {
        let report = persona.clone().report(|message| {
            message.health =
                Some(opamp_proto::pb::ComponentHealth { status: "smuggled".into(), ..Default::default() });
        });
        let payload = [header, &report.encode_to_vec()].concat();
        ws.send_binary(payload).await.unwrap();
        bad_request(&ws.receive().await.unwrap());
    }
    assert_eq!(server.health(persona.uid).unwrap().status, "running");
    assert!(says_nothing(&ws.exchange(&persona.heartbeat()).await.unwrap()), "no gap: nothing was processed");
}

/// R-WS-04.
#[tokio::test]
async fn a_long_form_of_header_0_is_accepted() {
    let server = TestServer::start().await;
    let mut ws = server.ws().await;
    let mut persona = Persona::new(1);
    for length in 1..=10 {
        let mut payload = vec![0x80; length];
        payload[length - 1] = 0;
        payload.extend(persona.heartbeat().encode_to_vec());
        ws.send_binary(payload).await.unwrap();
        let answer = ws.receive().await.unwrap();
        assert!(answer.error_response.is_none(), "{length} bytes");
    }
    assert_eq!(server.snapshot(persona.uid).sequence_num.0, 9);
}

/// R-WS-04.
#[tokio::test]
async fn a_header_that_never_ends_is_rejected_cleanly() {
    let server = TestServer::start().await;
    let mut ws = server.ws().await;
    let mut persona = Persona::new(1);
    for header in [vec![0x80; 11], vec![0x80; 3], vec![0xff; 10]] {
        ws.send_binary(header).await.unwrap();
        bad_request(&ws.receive().await.unwrap());
    }
    assert!(ws.exchange(&persona.heartbeat()).await.unwrap().error_response.is_none());
    assert_eq!(server.refusal(RefusalReason::Malformed).await.reason, RefusalReason::Malformed);
}

/// R-WS-06.
#[tokio::test]
async fn no_data_at_all_is_a_message_in_which_nothing_is_set() {
    let server = TestServer::start().await;
    let mut ws = server.ws().await;
    ws.send_binary(vec![0]).await.unwrap();
    // Well framed, but nobody's: R-ID-13 asks for an identity.
    let complaint = bad_request(&ws.receive().await.unwrap());
    assert!(complaint.contains("instance_uid"), "{complaint}");
    assert!(ws.exchange(&Persona::new(1).heartbeat()).await.unwrap().error_response.is_none());
}

/// R-WS-09.
#[tokio::test]
async fn the_receive_limit_is_configurable() {
    for limit in [1_000, 100_000] {
        let server = limited(limit, FrameReader::Lean).await;
        let mut ws = server.ws().await;
        ws.send_binary(report_of(1, limit)).await.unwrap();
        assert!(ws.receive().await.unwrap().error_response.is_none());
        ws.send_binary(report_of(1, limit + 1)).await.unwrap();
        assert_eq!(ws.expect_close().await.unwrap().code, Some(1009));
    }
}

/// R-WS-08, for what is sent.
#[tokio::test]
async fn the_send_limit_is_64_mib_by_default() {
    let server = TestServer::start().await;
    let mut agent = server.agent(Wire::WebSocket, Persona::new(1)).await;
    let uid = agent.persona.uid;
    agent.ws().stream_mut().set_wait(Duration::from_secs(60));
    // One byte of body more than fits with its envelope: the size of the whole message decides.
    server.assign_as(uid, &any_hash(), &yaml(&"x".repeat(MIB_64)));
    server.until(uid, |agent| agent.remote_config.too_large).await;
    assert_eq!(agent.ws().fence().await.unwrap(), []);
    server.assign_as(uid, &any_hash(), &yaml(&"x".repeat(MIB_64 - 1_000)));
    let message = agent.until(|message| message.remote_config.is_some()).await.unwrap();
    assert!((MIB_64 - 1_000..=MIB_64).contains(&message.encoded_len()));
}

/// R-WS-16, R-WS-17, R-WS-18: the limit is on the plain size, however well it would compress.
#[tokio::test]
async fn a_message_beyond_the_send_limit_is_never_sent_and_that_is_recorded() {
    let server = TestServer::with(|setup| setup.settings.session.send_bytes_max = LIMIT).await;
    let mut agent = server.agent(Wire::WebSocket, restartable(1)).await;
    let uid = agent.persona.uid;
    server.assign(uid, &yaml(&"x".repeat(LIMIT)));
    server.until(uid, |agent| agent.remote_config.too_large).await;
    assert_eq!(server.handle.stats().messages_discarded_oversize, 1);
    assert_eq!(agent.ws().fence().await.unwrap(), []);
    assert!(says_nothing(&agent.heartbeat().await.unwrap()));

    // What is small enough still flows, and the next offer too.
    server.handle.restart_agent(&uid).unwrap();
    assert!(agent.next_message().await.unwrap().command.is_some());
    server.assign(uid, &yaml("small: true\n"));
    assert_eq!(agent.next_offer().await.unwrap().config, Some(yaml("small: true\n")));
    server.until(uid, |agent| !agent.remote_config.too_large).await;
}

/// R-WS-16: the largest offer that fits is sent.
#[tokio::test]
async fn a_message_just_below_the_send_limit_is_sent() {
    let server = TestServer::with(|setup| setup.settings.session.send_bytes_max = LIMIT).await;
    let mut agent = server.agent(Wire::WebSocket, Persona::new(1)).await;
    // 300 bytes are plenty for the envelope and little beside the limit.
    server.assign(agent.persona.uid, &yaml(&"x".repeat(LIMIT - 300)));
    let offer = agent.until(|message| message.remote_config.is_some()).await.unwrap();
    assert!(offer.encoded_len() <= LIMIT && offer.encoded_len() > LIMIT - 300);
}

/// R-WS-22.
#[tokio::test]
async fn either_side_may_speak_first_and_reports_may_follow_each_other() {
    let server = TestServer::start().await;
    let mut agent = server.agent(Wire::WebSocket, Persona::new(1)).await;
    let uid = agent.persona.uid;
    let (first, second) = (agent.persona.heartbeat(), agent.persona.heartbeat());
    agent.ws().send_message(&first).await.unwrap();
    agent.ws().send_message(&second).await.unwrap();
    assert!(says_nothing(&agent.ws().receive().await.unwrap()));
    assert!(says_nothing(&agent.ws().receive().await.unwrap()));

    server.assign(uid, &yaml("pushed: true\n"));
    assert!(agent.ws().receive().await.unwrap().remote_config.is_some());
}

/// R-WS-23, R-CONF-10.
#[tokio::test]
async fn a_silent_agent_gets_its_offer_right_away() {
    let server = TestServer::start().await;
    let mut agent = server.agent(Wire::WebSocket, Persona::new(1)).await;
    let (hash, dispatch) = server.assign(agent.persona.uid, &yaml("a: 1\n"));
    assert_eq!(dispatch, opamp_server::Dispatch::Pushed);
    // Nothing is sent by the agent meanwhile, and the server's clock stands still.
    let offer = agent.ws().receive().await.unwrap().remote_config.unwrap();
    assert_eq!(&offer.config_hash[..], hash.as_bytes());
}
