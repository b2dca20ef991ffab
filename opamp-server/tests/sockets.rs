//! Connections over loopback: who owns an agent, who is told, and what a bad peer costs the others.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on should fail")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::SinkExt as _;
use opamp_proto::{ConfigHash, pb};
use opamp_server::{
    Desired, DisconnectReason, Dispatch, FrameReader, InsecureAcceptEveryone, Liveness, RefusalReason,
    RemoteConfigOffer, ServerSettings, StaticToken, StaticTokens,
};
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::Message;

use common::{TestServer, full, post, uid};

fn desired(generation: u64, body: &[u8]) -> Desired {
    let object = pb::AgentConfigObject { body: Bytes::copy_from_slice(body), ..Default::default() };
    let config = pb::AgentConfigMap { config_map: [(String::new(), object)].into() };
    let hash = ConfigHash::new(generation.to_be_bytes().to_vec());
    Desired::remote_config(generation, RemoteConfigOffer::new(hash, &config))
}

opamp_testkit::on_both_frame_readers! {
    async fn a_change_reaches_an_idle_socket_at_once(frames: FrameReader) {
        let server = TestServer::on(frames).await;
        assert_eq!(
            server.handle.set_desired(&uid(1), desired(1, b"x")),
            Dispatch::NoSession,
            "it waits for the agent"
        );
        let mut agent = server.connect(None).await;
        assert!(agent.say(uid(1), full()).await.remote_config.is_some());
        assert_eq!(server.handle.set_desired(&uid(1), desired(2, b"y")), Dispatch::Pushed);
        let pushed = agent.receive().await.remote_config.unwrap();
        assert_eq!(&pushed.config.unwrap().config_map[""].body[..], b"y");
        let offered = server.change("the offer", |change| change.snapshot.remote_config.offered.is_some()).await;
        assert_eq!(offered.snapshot.remote_config.generation, 2);
    }

    async fn a_hundred_agents_on_one_socket_do_not_disturb_each_other(frames: FrameReader) {
        let server = TestServer::on(frames).await;
        let mut socket = server.connect(None).await;
        for agent in 1..=100 {
            socket.send_numbered(uid(agent), 1, full()).await;
            assert_eq!(&socket.receive().await.instance_uid[..], uid(agent).as_bytes());
        }
        socket.send_numbered(uid(40), 7, pb::AgentToServer::default()).await;
        assert_eq!(socket.receive().await.flags, 1, "a gap of one");
        let goodbye = pb::AgentToServer { agent_disconnect: Some(pb::AgentDisconnect {}), ..Default::default() };
        socket.send_numbered(uid(50), 2, goodbye).await;
        socket.receive().await;
        for agent in (1..=100).filter(|agent| ![40, 50].contains(agent)) {
            socket.send_numbered(uid(agent), 2, pb::AgentToServer::default()).await;
            let answer = socket.receive().await;
            assert_eq!((&answer.instance_uid[..], answer.flags), (&uid(agent).as_bytes()[..], 0));
            server.handle.set_desired(&uid(agent), desired(1, b"x"));
            assert_eq!(&socket.receive().await.instance_uid[..], uid(agent).as_bytes(), "an offer for this one");
        }
        assert_eq!(server.handle.set_desired(&uid(50), desired(1, b"x")), Dispatch::NoSession);
        let connected =
            server.handle.agents().into_iter().filter(|agent| agent.liveness == Liveness::Connected).count();
        assert_eq!(connected, 99);
        drop(socket);
        server
            .until("all are disconnected when the stream ends", |handle| {
                handle.agents().iter().all(|agent| agent.liveness == Liveness::Disconnected)
            })
            .await;
    }

    async fn a_late_close_of_the_old_socket_does_not_evict_the_new_one(frames: FrameReader) {
        let server = TestServer::on(frames).await;
        let mut old = server.connect(None).await;
        old.say(uid(1), full()).await;
        let mut new = server.connect(None).await;
        new.send_numbered(uid(1), 2, pb::AgentToServer::default()).await;
        let answer = new.receive().await;
        assert_eq!(answer.flags, 0, "the conversation goes on where it was, without a full report");
        assert_eq!(old.close_code().await, 1000);
        server.until("the old socket is gone", |handle| handle.stats().websocket_active == 1).await;
        assert_eq!(server.handle.agent(&uid(1)).unwrap().liveness, Liveness::Connected);
        assert_eq!(server.handle.set_desired(&uid(1), desired(1, b"x")), Dispatch::Pushed);
        assert!(new.receive().await.remote_config.is_some());
    }

    async fn a_wake_up_lost_with_its_socket_does_not_silence_the_next_one(frames: FrameReader) {
        let server = TestServer::on(frames).await;
        for generation in 1..40 {
            let mut agent = server.connect(None).await;
            agent.send_numbered(uid(1), generation, full()).await;
            agent.receive().await;
            // The wake-up of this change races the end of the socket.
            server.handle.set_desired(&uid(1), desired(generation, b"x"));
            drop(agent);
        }
        let mut agent = server.connect(None).await;
        agent.send_numbered(uid(1), 40, full()).await;
        agent.receive().await;
        server.handle.set_desired(&uid(1), desired(99, b"y"));
        assert_eq!(&agent.receive().await.remote_config.unwrap().config_hash[..], 99u64.to_be_bytes());
    }

    async fn a_push_that_met_a_closing_socket_does_not_mute_the_next_one(frames: FrameReader) {
        let server = TestServer::on(frames).await;
        let mut old = server.connect(None).await;
        old.say(uid(1), full()).await;
        // Both before the socket's task runs: it closes and never gets to the push.
        assert!(server.handle.disconnect(&uid(1)));
        assert_eq!(server.handle.set_desired(&uid(1), desired(1, b"x")), Dispatch::Pushed);
        assert_eq!(old.close_code().await, 1008);
        let mut new = server.connect(None).await;
        new.send_numbered(uid(1), 2, pb::AgentToServer::default()).await;
        assert!(new.receive().await.remote_config.is_some(), "with the first answer");
        assert_eq!(server.handle.set_desired(&uid(1), desired(2, b"y")), Dispatch::Pushed);
        assert!(new.receive().await.remote_config.is_some(), "pushed");
    }

    async fn an_agent_is_one_agent_while_it_changes_its_identity(frames: FrameReader) {
        let server = TestServer::on(frames).await;
        let mut agent = server.connect(None).await;
        let answer = agent.say(uid(1), pb::AgentToServer { flags: 1, ..full() }).await;
        assert_eq!((server.handle.stats().agents, server.handle.agents().len()), (1, 1));
        let assigned = answer.agent_identification.unwrap().new_instance_uid;
        let assigned = opamp_proto::InstanceUid::try_from(&assigned[..]).unwrap();
        agent.say(assigned, pb::AgentToServer::default()).await;
        assert_eq!((server.handle.stats().agents, server.handle.agents().len()), (1, 1));
        assert!(server.handle.agent(&uid(1)).is_none() && server.handle.agent(&assigned).is_some());
        assert!(server.handle.forget(&assigned));
        assert_eq!(server.handle.stats().agents, 0);
    }

    async fn a_refused_message_makes_no_agent(frames: FrameReader) {
        use opamp_server::session::{CapabilityMismatch, SessionSettings};
        let session =
            SessionSettings { capability_mismatch: CapabilityMismatch::Reject, ..SessionSettings::default() };
        let settings = ServerSettings { session, frames, ..ServerSettings::default() };
        let server = TestServer::with(Arc::new(InsecureAcceptEveryone), settings).await;
        let answer = post(
            server.address,
            prost::Message::encode_to_vec(&pb::AgentToServer {
                instance_uid: uid(1).as_bytes().to_vec().into(),
                capabilities: 1,
                ..full()
            }),
        );
        assert!(answer.await.error_response.is_some());
        assert_eq!((server.handle.stats().agents, server.handle.agents().len()), (0, 0));
    }

    async fn an_agent_that_comes_back_to_a_socket_it_left_is_disconnected_with_it(frames: FrameReader) {
        let server = TestServer::on(frames).await;
        let (mut first, mut second) = (server.connect(None).await, server.connect(None).await);
        first.say(uid(2), full()).await;
        for round in 0..20 {
            first.send_numbered(uid(1), 2 * round, full()).await;
            first.receive().await;
            second.send_numbered(uid(3), round, full()).await;
            second.receive().await;
            second.send_numbered(uid(1), 2 * round + 1, full()).await;
            second.receive().await;
        }
        first.send_numbered(uid(1), 40, full()).await;
        first.receive().await;
        drop(first);
        server
            .until("it is gone with the socket", |handle| {
                handle.agent(&uid(1)).unwrap().liveness == Liveness::Disconnected
            })
            .await;
    }

    async fn sessions_of_agents_long_gone_are_forgotten_unless_something_is_desired_of_them(frames: FrameReader) {
        let server = TestServer::on(frames).await;
        let mut agent = server.connect(None).await;
        for number in 1..=3 {
            agent.say(uid(number), full()).await;
        }
        server.handle.set_desired(&uid(2), desired(1, b"x"));
        drop(agent);
        for _ in 0..3 {
            server.change("gone", |change| change.snapshot.liveness == Liveness::Disconnected).await;
        }
        server.clock.advance(24 * 3600);
        server.until("forgotten", |handle| handle.stats().agents == 1).await;
        assert!(server.handle.agent(&uid(2)).is_some());
    }

    async fn an_agent_may_change_transport_and_loses_nothing(frames: FrameReader) {
        let server = TestServer::on(frames).await;
        let mut socket = server.connect(None).await;
        socket.say(uid(1), full()).await;
        let poll = |sequence_num| {
            let message = pb::AgentToServer {
                instance_uid: uid(1).as_bytes().to_vec().into(),
                sequence_num,
                capabilities: 0xffff,
                ..Default::default()
            };
            post(server.address, prost::Message::encode_to_vec(&message))
        };
        assert_eq!(poll(2).await.flags, 0);
        assert_eq!(socket.close_code().await, 1000);
        assert_eq!(server.handle.set_desired(&uid(1), desired(1, b"x")), Dispatch::NextPoll);
        assert!(poll(3).await.remote_config.is_some());
        let mut socket = server.connect(None).await;
        socket.send_numbered(uid(1), 4, pb::AgentToServer::default()).await;
        assert_eq!(socket.receive().await.flags, 0);
    }

    async fn nobody_takes_over_a_connected_agent_with_other_credentials(frames: FrameReader) {
        let tokens = StaticTokens::new(vec![StaticToken::new("a", "one"), StaticToken::new("b", "two")]);
        let server = TestServer::with(Arc::new(tokens), ServerSettings { frames, ..ServerSettings::default() }).await;
        let mut owner = server.connect(Some("one")).await;
        owner.say(uid(1), full()).await;
        server.handle.set_desired(&uid(1), desired(1, b"secret"));
        owner.receive().await;
        let mut thief = server.connect(Some("two")).await;
        let answer = thief.say(uid(1), full()).await;
        assert_eq!(answer.error_response.unwrap().r#type, pb::ServerErrorResponseType::BadRequest as i32);
        assert!(answer.remote_config.is_none());
        assert_eq!(server.handle.stats().frames_rejected[RefusalReason::UidConflict.index()], 1);
        assert_eq!(owner.say(uid(1), pb::AgentToServer::default()).await.flags, 0, "the owner notices nothing");
    }

    async fn a_dead_peer_is_stale_first_and_then_closed(frames: FrameReader) {
        let server = TestServer::on(frames).await;
        let mut agent = server.connect(None).await;
        agent.say(uid(1), full()).await;
        server.clock.advance(60);
        server.change("stale", |change| change.snapshot.liveness == Liveness::Stale).await;
        server.clock.advance(30);
        let gone = server.change("closed", |change| change.snapshot.liveness == Liveness::Disconnected).await;
        assert_eq!(gone.snapshot.disconnect.unwrap().0, DisconnectReason::Timeout);
        assert_eq!(server.handle.stats().frames_rejected[RefusalReason::Timeout.index()], 1);
    }

    async fn pongs_keep_a_quiet_agent_connected(frames: FrameReader) {
        let server = TestServer::on(frames).await;
        let mut agent = server.connect(None).await;
        agent.say(uid(1), full()).await;
        let reader = tokio::spawn(async move {
            // Reading is what makes the client answer pings.
            agent.next().await
        });
        for _ in 0..20 {
            let before = server.handle.agent(&uid(1)).unwrap().last_seen;
            server.clock.advance(30);
            server.until("a pong", |handle| handle.agent(&uid(1)).unwrap().last_seen > before).await;
            assert_eq!(server.handle.agent(&uid(1)).unwrap().liveness, Liveness::Connected);
        }
        reader.abort();
    }

    async fn a_socket_that_never_says_anything_is_closed(frames: FrameReader) {
        let server = TestServer::on(frames).await;
        let mut agent = server.connect(None).await;
        server.clock.advance(30);
        assert_eq!(agent.close_code().await, 1008);
    }

    async fn a_slow_reader_is_cut_off_and_stalls_nobody(frames: FrameReader) {
        let server = TestServer::on(frames).await;
        let mut slow = server.connect(None).await;
        slow.say(uid(1), full()).await;
        let mut other = server.connect(None).await;
        other.say(uid(2), full()).await;
        // More than the kernel buffers of both ends take.
        server.handle.set_desired(&uid(1), desired(1, &vec![7; 32 << 20]));
        for _ in 0..10 {
            other.say(uid(2), pb::AgentToServer::default()).await;
        }
        assert_eq!(server.handle.agent(&uid(1)).unwrap().liveness, Liveness::Connected);
        server
            .until("the write began", |handle| handle.agent(&uid(1)).unwrap().remote_config.offered.is_some())
            .await;
        server.clock.advance(20);
        let gone = server.change("cut off", |change| change.snapshot.liveness == Liveness::Disconnected).await;
        assert_eq!(gone.snapshot.disconnect.unwrap().0, DisconnectReason::Timeout);
        other.say(uid(2), pb::AgentToServer::default()).await;
    }

    async fn a_slow_but_steady_reader_is_not_cut_off(frames: FrameReader) {
        let server = TestServer::on(frames).await;
        let mut slow = server.connect(None).await;
        slow.say(uid(1), full()).await;
        let body = vec![7; 32 << 20];
        server.handle.set_desired(&uid(1), desired(1, &body));
        server
            .until("the write began", |handle| handle.agent(&uid(1)).unwrap().remote_config.offered.is_some())
            .await;
        // Taken in many small steps, each well within the deadline, all of them together twice as long. What the kernel holds
        // is less than is taken within one deadline, so the server has to go on writing all the time.
        let (mut taken, mut since) = (0, 0);
        let raw = slow.socket.get_mut();
        let mut chunk = vec![0; 256 << 10];
        while taken < body.len() {
            let read = tokio::time::timeout(common::PATIENCE, tokio::io::AsyncReadExt::read(raw, &mut chunk));
            taken += read.await.expect("the server goes on writing").unwrap();
            if taken - since >= body.len() / 40 {
                since = taken;
                server.clock.advance(1);
            }
            assert!(server.handle.agent(&uid(1)).unwrap().disconnect.is_none(), "cut off after {taken} bytes");
        }
    }

    async fn two_clients_with_one_temporary_uid_are_told_different_ones(frames: FrameReader) {
        let server = TestServer::on(frames).await;
        let asking = || pb::AgentToServer { flags: 1, ..full() };
        let (mut first, mut second) = (server.connect(None).await, server.connect(None).await);
        let told = |answer: pb::ServerToAgent| {
            opamp_proto::InstanceUid::try_from(&answer.agent_identification.unwrap().new_instance_uid[..])
                .unwrap()
        };
        let one = told(first.say(uid(1), asking()).await);
        let two = told(second.say(uid(1), asking()).await);
        assert_ne!(one, two);
        for (agent, uid) in [(&mut first, one), (&mut second, two)] {
            let answer = agent.say(uid, pb::AgentToServer::default()).await;
            assert_eq!((answer.flags, answer.error_response), (0, None), "each goes on as itself");
        }
        assert_eq!(server.handle.stats().agents, 2);
    }

    async fn a_socket_whose_agent_says_goodbye_may_be_used_again(frames: FrameReader) {
        let server = TestServer::on(frames).await;
        let mut witness = server.connect(None).await;
        witness.say(uid(2), full()).await;
        let mut socket = server.connect(None).await;
        socket.say(uid(1), full()).await;
        server.clock.advance(40);
        let goodbye = pb::AgentToServer { agent_disconnect: Some(pb::AgentDisconnect {}), ..Default::default() };
        socket.say(uid(1), goodbye).await;
        server.clock.advance(20);
        // A sweep has looked at both by then.
        server.change("stale", |change| change.snapshot.liveness == Liveness::Stale).await;
        socket.say(uid(1), full()).await;
        assert_eq!(server.handle.agent(&uid(1)).unwrap().liveness, Liveness::Connected);
    }

    async fn a_drain_closes_with_1001_and_ends_half_sent_requests(frames: FrameReader) {
        let server = TestServer::on(frames).await;
        let mut agents = Vec::new();
        for number in 1..=20 {
            let mut agent = server.connect(None).await;
            agent.say(uid(number), full()).await;
            agents.push(agent);
        }
        let mut newcomer = tokio::net::TcpStream::connect(server.address).await.unwrap();
        newcomer.write_all(b"GET /v1/opamp HTTP/1.1\r\nhost: x\r\nx-wait: ").await.unwrap();
        let handle = server.handle.clone();
        let drain = tokio::spawn(async move { handle.drain(Duration::from_secs(10)).await });
        for mut agent in agents {
            assert_eq!(agent.close_code().await, 1001);
        }
        assert!(drain.await.unwrap(), "all sockets were closed in time");
        let gone = server.handle.agents();
        assert!(gone.iter().all(|agent| agent.disconnect.unwrap().0 == DisconnectReason::ServerShutdown));
        let mut rest = Vec::new();
        let ended = tokio::io::AsyncReadExt::read_to_end(&mut newcomer, &mut rest);
        let ended = tokio::time::timeout(common::PATIENCE, ended).await;
        assert!(ended.is_ok(), "half a request keeps no connection");
    }

    async fn fragmented_messages_are_put_together_and_large_ones_are_fragmented(frames: FrameReader) {
        use tokio_tungstenite::tungstenite::protocol::frame::Frame;
        use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
        let server = TestServer::on(frames).await;
        let mut agent = server.connect(None).await;
        let message =
            pb::AgentToServer { instance_uid: uid(1).as_bytes().to_vec().into(), capabilities: 0xffff, ..full() };
        let mut bytes = vec![0];
        prost::Message::encode(&message, &mut bytes).unwrap();
        let frames = bytes.len();
        for (index, byte) in bytes.into_iter().enumerate() {
            let kind = if index == 0 { Data::Binary } else { Data::Continue };
            let frame = Frame::message(vec![byte], OpCode::Data(kind), index + 1 == frames);
            agent.socket.send(Message::Frame(frame)).await.unwrap();
        }
        assert!(agent.receive().await.error_response.is_none());
        let body = vec![5; 1 << 20];
        server.handle.set_desired(&uid(1), desired(1, &body));
        let offer = agent.receive().await.remote_config.unwrap();
        assert_eq!(&offer.config.unwrap().config_map[""].body[..], &body[..]);
    }

    async fn faulty_messages_are_answered_until_there_are_too_many(frames: FrameReader) {
        let settings = ServerSettings { faults_max: 3, frames, ..ServerSettings::default() };
        let server = TestServer::with(Arc::new(InsecureAcceptEveryone), settings).await;
        let mut agent = server.connect(None).await;
        for _ in 0..2 {
            agent.socket.send(Message::Binary(vec![0, 0xff, 0xff].into())).await.unwrap();
            assert!(agent.receive().await.error_response.is_some());
            // A good one between them starts the count again.
            agent.say(uid(1), full()).await;
        }
        for _ in 0..3 {
            agent.socket.send(Message::Binary(vec![1].into())).await.unwrap();
            assert!(agent.receive().await.error_response.is_some());
        }
        assert_eq!(agent.close_code().await, 1008);
    }

    async fn a_forgotten_agent_that_comes_back_is_new(frames: FrameReader) {
        let server = TestServer::on(frames).await;
        let mut agent = server.connect(None).await;
        agent.say(uid(1), full()).await;
        server.handle.set_desired(&uid(1), desired(1, b"x"));
        agent.receive().await;
        assert!(server.handle.forget(&uid(1)));
        assert!(server.handle.agent(&uid(1)).is_none());
        assert_eq!(agent.close_code().await, 1000);
        let mut agent = server.connect(None).await;
        let answer = agent.say(uid(1), pb::AgentToServer::default()).await;
        assert_eq!(answer.flags, 1);
        assert!(answer.remote_config.is_none());
    }

    async fn sockets_of_a_revoked_principal_are_closed(frames: FrameReader) {
        let tokens = StaticTokens::new(vec![StaticToken::new("a", "one"), StaticToken::new("b", "two")]);
        let server = TestServer::with(Arc::new(tokens), ServerSettings { frames, ..ServerSettings::default() }).await;
        let mut revoked = server.connect(Some("one")).await;
        revoked.say(uid(1), full()).await;
        let mut other = server.connect(Some("two")).await;
        other.say(uid(2), full()).await;
        let principal = server.handle.agent(&uid(1)).unwrap().connection.unwrap().principal.clone();
        assert_eq!(server.handle.disconnect_principal(&principal), 1);
        assert_eq!(revoked.close_code().await, 1008);
        other.say(uid(2), pb::AgentToServer::default()).await;
    }
}

#[tokio::test]
async fn a_drained_service_answers_503_with_a_time_to_come_back() {
    use tower_service::Service as _;
    let builder = opamp_server::OpampServer::builder(Arc::new(InsecureAcceptEveryone));
    let (mut service, handle, _driver) = builder.build();
    assert!(handle.drain(Duration::from_secs(1)).await);
    let request = http::Request::get("/v1/opamp").body(http_body_util::Full::new(Bytes::new())).unwrap();
    let response = service.call(request).await.unwrap();
    assert_eq!(response.status(), 503);
    let seconds: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((15..=30).contains(&seconds), "{seconds}");
    assert_eq!(handle.stats().frames_rejected[RefusalReason::Unavailable.index()], 1);
}
