//! The hand-written WebSocket client against an independent implementation of the other side.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use opamp_proto::pb;
use opamp_testkit::agent::Persona;
use opamp_testkit::raw::{
    CloseFrame, Ending, Endpoint, Frame, Handshake, Length, Opcode, Opening, Pieces, RawError, RawWs,
    Received,
};
use opamp_testkit::transcript::Transcript;
use prost::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame as PeerClose, Frame as PeerFrame};
use tokio_tungstenite::tungstenite::{Error, Message, error::ProtocolError};

type Peer = WebSocketStream<TcpStream>;

/// Opens a connection to a tungstenite server; the peer is ready when the handshake is.
async fn open() -> (RawWs, Peer, Transcript) {
    let (endpoint, accepted) = listen().await;
    let accepted: JoinHandle<Peer> =
        tokio::spawn(async { tokio_tungstenite::accept_async(accepted.await.unwrap()).await.unwrap() });
    let transcript = Transcript::new();
    let ws = RawWs::connect(&endpoint, &transcript).await.unwrap();
    (ws, accepted.await.unwrap(), transcript)
}

/// A listener and the first connection to it.
async fn listen() -> (Endpoint, JoinHandle<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::plain(listener.local_addr().unwrap());
    (endpoint, tokio::spawn(async move { listener.accept().await.unwrap().0 }))
}

/// A server that answers the opening request with `answer` (in which `ACCEPT` is replaced) and then sends `bytes`.
async fn scripted(answer: &'static str, bytes: &'static [u8]) -> (Endpoint, JoinHandle<TcpStream>) {
    let (endpoint, accepted) = listen().await;
    let accept = Handshake::new(&endpoint).accept();
    let server = tokio::spawn(async move {
        let mut tcp = accepted.await.unwrap();
        let mut request = [0; 4096];
        let _ = tcp.read(&mut request).await.unwrap();
        tcp.write_all(answer.replace("ACCEPT", &accept).as_bytes()).await.unwrap();
        tcp.write_all(bytes).await.unwrap();
        tcp
    });
    (endpoint, server)
}

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                      Sec-WebSocket-Accept: ACCEPT\r\n\r\n";

async fn binary(peer: &mut Peer) -> Bytes {
    match peer.next().await.unwrap().unwrap() {
        Message::Binary(payload) => payload,
        other => panic!("{other:?}"),
    }
}

fn at_once(bytes: usize) -> Pieces {
    Pieces { bytes, pause: Duration::ZERO }
}

#[tokio::test]
async fn messages_arrive_as_sent_in_every_length_form() {
    let (mut ws, mut peer, _) = open().await;
    for len in [0, 1, 125, 126, 65_535, 65_536, 100_000] {
        let payload: Bytes = (0..len).map(|n| n as u8).collect::<Vec<_>>().into();
        let forms = [Length::Shortest, Length::Sixteen, Length::SixtyFour];
        for length in forms.into_iter().filter(|form| *form != Length::Sixteen || len <= 65_535) {
            ws.send_frame(&Frame { length, ..Frame::binary(payload.clone()) }).await.unwrap();
            assert_eq!(binary(&mut peer).await, payload, "{len} {length:?}");
        }
    }
}

#[tokio::test]
async fn messages_arrive_as_sent_in_pieces_and_fragments() {
    let (mut ws, mut peer, _) = open().await;
    let payload: Bytes = (0..=255).cycle().take(1000).collect::<Vec<u8>>().into();
    for bytes in [1, 2, 7, 999] {
        ws.send_frame_in(&Frame::binary(payload.clone()), at_once(bytes)).await.unwrap();
        assert_eq!(binary(&mut peer).await, payload);
        ws.send_fragmented(&payload, bytes).await.unwrap();
        assert_eq!(binary(&mut peer).await, payload);
    }
}

#[tokio::test]
async fn a_control_frame_between_fragments_is_seen_on_its_own() {
    let (mut ws, mut peer, _) = open().await;
    let fragments = Frame::fragments(&Bytes::from_static(b"abcd"), 2);
    ws.send_frame(&fragments[0]).await.unwrap();
    ws.send_frame(&Frame::new(Opcode::PING, "p")).await.unwrap();
    ws.send_frame(&fragments[1]).await.unwrap();
    assert_eq!(peer.next().await.unwrap().unwrap(), Message::Ping("p".into()));
    assert_eq!(binary(&mut peer).await, "abcd");
    assert_eq!(ws.next().await.unwrap(), Received::Pong("p".into()));
}

#[tokio::test]
async fn every_masking_key_is_undone_by_the_peer() {
    let (mut ws, mut peer, _) = open().await;
    for mask in [[0, 0, 0, 0], [0xff; 4], [1, 2, 3, 4]] {
        ws.send_frame(&Frame { mask: Some(mask), ..Frame::binary("masked payload") }).await.unwrap();
        assert_eq!(binary(&mut peer).await, "masked payload");
    }
}

#[tokio::test]
async fn broken_rules_reach_the_peer() {
    for (frame, fault) in [
        (Frame { mask: None, ..Frame::binary("x") }, ProtocolError::UnmaskedFrameFromClient),
        (Frame { rsv: 4, ..Frame::binary("x") }, ProtocolError::NonZeroReservedBits),
        (Frame::new(Opcode::CONTINUATION, "x"), ProtocolError::UnexpectedContinueFrame),
        (Frame { fin: false, ..Frame::new(Opcode::PING, "x") }, ProtocolError::FragmentedControlFrame),
        (Frame::new(Opcode(0x3), "x"), ProtocolError::InvalidOpcode(3)),
    ] {
        let (mut ws, mut peer, _) = open().await;
        ws.send_frame(&frame).await.unwrap();
        match peer.next().await.unwrap() {
            Err(Error::Protocol(seen)) => assert_eq!(seen, fault),
            other => panic!("{frame:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_frame_can_claim_more_than_it_holds() {
    let (mut ws, mut peer, _) = open().await;
    ws.send_frame(&Frame { length: Length::Claimed(1 << 40), ..Frame::binary("x") }).await.unwrap();
    assert!(matches!(peer.next().await.unwrap(), Err(Error::Capacity(_))));
}

#[tokio::test]
async fn fragments_of_the_peer_are_joined() {
    let (mut ws, mut peer, transcript) = open().await;
    let message = pb::ServerToAgent { capabilities: 7, flags: 1, ..Default::default() };
    let mut payload = vec![0];
    message.encode(&mut payload).unwrap();
    let parts: Vec<_> = payload.chunks(2).collect();
    for (n, part) in parts.iter().enumerate() {
        let kind = if n == 0 { Data::Binary } else { Data::Continue };
        let frame = PeerFrame::message(part.to_vec(), OpCode::Data(kind), n + 1 == parts.len());
        peer.send(Message::Frame(frame)).await.unwrap();
        peer.send(Message::Ping("between".into())).await.unwrap();
    }
    assert_eq!(ws.receive().await.unwrap(), message);
    assert_eq!(transcript.messages(), ["< server (no uid) capabilities=0x7 flags=0x1"]);
}

#[tokio::test]
async fn close_codes_and_reasons_pass_in_both_directions() {
    let (mut ws, mut peer, _) = open().await;
    let close = PeerClose { code: CloseCode::Size, reason: "too big".into() };
    peer.close(Some(close)).await.unwrap();
    let seen = ws.expect_close().await.unwrap();
    assert_eq!(seen, CloseFrame { code: Some(1009), reason: "too big".to_owned() });
    let peer = tokio::spawn(async move { while peer.next().await.is_some() {} });
    assert_eq!(ws.answer_close(&seen).await.unwrap(), Ending::Eof);
    peer.await.unwrap();

    let (mut ws, mut peer, _) = open().await;
    let peer = tokio::spawn(async move {
        let first = peer.next().await.unwrap().unwrap();
        while peer.next().await.is_some() {}
        first
    });
    assert_eq!(ws.close(4001, "done").await.unwrap().code, Some(4001));
    match peer.await.unwrap() {
        Message::Close(Some(close)) => {
            assert_eq!((close.code, &*close.reason), (CloseCode::from(4001), "done"))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn pings_are_answered_or_left_to_the_script() {
    let (mut ws, mut peer, _) = open().await;
    let answer = Message::Binary(vec![0].into());
    for _ in 0..2 {
        peer.send(Message::Ping("p".into())).await.unwrap();
        peer.send(answer.clone()).await.unwrap();
        if ws.auto_pong {
            ws.receive().await.unwrap();
            assert_eq!(peer.next().await.unwrap().unwrap(), Message::Pong("p".into()));
        } else {
            assert!(matches!(ws.receive().await, Err(RawError::Unexpected { .. })));
        }
        ws.auto_pong = false;
    }
}

#[tokio::test]
async fn a_fence_returns_what_was_said_before_it() {
    let (mut ws, mut peer, _) = open().await;
    peer.send(Message::Binary(vec![0].into())).await.unwrap();
    let peer = tokio::spawn(async move {
        // Reading makes tungstenite answer the ping.
        assert!(peer.next().await.unwrap().unwrap().is_ping());
        let _ = peer.next().await;
    });
    assert_eq!(ws.fence().await.unwrap(), [pb::ServerToAgent::default()]);
    ws.into_stream().reset();
    peer.await.unwrap();
}

#[tokio::test]
async fn half_close_and_reset_reach_the_peer() {
    let (mut ws, mut peer, _) = open().await;
    ws.stream_mut().half_close().await.unwrap();
    assert!(matches!(
        peer.next().await.unwrap(),
        Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))
    ));
    // The other direction still works.
    peer.get_mut().write_all(&[0x82, 1, 0]).await.unwrap();
    assert_eq!(ws.receive().await.unwrap(), pb::ServerToAgent::default());

    let (ws, mut peer, _) = open().await;
    ws.into_stream().reset();
    match peer.next().await.unwrap() {
        Err(Error::Io(fault)) => assert_eq!(fault.kind(), std::io::ErrorKind::ConnectionReset),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_wait_is_bounded_and_shows_the_conversation() {
    let (mut ws, _peer, _) = open().await;
    ws.stream_mut().set_wait(Duration::from_millis(20));
    let fault = ws.exchange(&Persona::new(1).heartbeat()).await.unwrap_err();
    assert!(fault.is_timeout());
    let text = fault.to_string();
    assert!(text.contains("> agent GET /v1/opamp 0 B\n< server 101 Switching Protocols 0 B\n"), "{text}");
    assert!(text.contains("> agent a1 #0 capabilities=0x1807\n"), "{text}");
}

#[tokio::test]
async fn a_server_that_breaks_the_protocol_is_caught() {
    for (bytes, complaint) in [
        (&[0x82, 0x81, 0, 0, 0, 0, 0][..], "a masked frame"),
        (&[0xc2, 0x00], "reserved bits"),
        (&[0x80, 0x00], "out of place"),
        (&[0x83, 0x00], "out of place"),
        (&[0x09, 0x00], "control frame"),
        (&[0x8b, 0x00], "unknown opcode"),
        (&[0x88, 0x01, 0x03], "close frame of one byte"),
        (&[0x82, 0x7f, 0x7f, 0, 0, 0, 0, 0, 0, 0], "256 MiB"),
        (&[0x82, 0x01, 0x01], "without the header 0"),
        (&[0x82, 0x02, 0x00, 0x0a], "no ServerToAgent"),
        (&[0x81, 0x01, b'x'], "instead of a message"),
    ] {
        let (endpoint, server) = scripted(SWITCH, bytes).await;
        let mut ws = RawWs::connect(&endpoint, &Transcript::new()).await.unwrap();
        let fault = ws.receive().await.unwrap_err().to_string();
        assert!(fault.contains(complaint), "{bytes:x?}: {fault}");
        drop(server);
    }
}

#[tokio::test]
async fn a_wrong_switch_of_protocols_is_caught() {
    for (from, to) in [
        ("ACCEPT", "bm8="),
        ("Upgrade: websocket\r\n", ""),
        ("Connection: Upgrade\r\n", ""),
        ("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
    ] {
        let answer = String::leak(SWITCH.replacen(from, to, 1));
        let (endpoint, server) = scripted(answer, b"").await;
        let outcome = RawWs::connect(&endpoint, &Transcript::new()).await;
        assert!(matches!(outcome, Err(RawError::Unexpected { .. })), "{answer}");
        drop(server);
    }
}

#[tokio::test]
async fn a_refusal_is_handed_over_whole() {
    let answer = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 30\r\nContent-Length: 4\r\n\r\nbusy";
    let (endpoint, _server) = scripted(answer, b"").await;
    let handshake = Handshake::new(&endpoint).bearer("secret");
    let transcript = Transcript::new();
    match RawWs::attempt(&endpoint, &handshake, &transcript).await.unwrap() {
        Opening::Refused(response) => {
            assert_eq!((response.status, response.header("retry-after")), (503, Some("30")));
            assert_eq!(response.body, "busy");
        }
        Opening::Open(_) => panic!("not refused"),
    }
    assert!(!transcript.to_string().contains("secret"), "{transcript}");
}
