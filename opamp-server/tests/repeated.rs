//! What an agent repeats is compared with what is held of it: on a socket that several share, and across sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

mod common;

use std::sync::Arc;

use futures::SinkExt as _;
use opamp_proto::{InstanceUid, Part, pb};
use opamp_server::{FrameReader, InsecureAcceptEveryone, ServerSettings};
use prost::Message as _;
use tokio_tungstenite::tungstenite::Message;

use common::{Agent, PATIENCE, TestServer, numbered, uid};

/// Parts that are compared with what is held, and a text in each.
const COMPARED: [(Part, &str); 4] = [
    (Part::AgentDescription, "described"),
    (Part::Health, "running"),
    (Part::PackageStatuses, "installed"),
    (Part::AvailableComponents, "receiving"),
];

/// As long for every agent and second.
fn status(agent: char, second: u64) -> pb::AgentToServer {
    let text = |index: usize| format!("{}-{agent}", COMPARED[index].1);
    let value = pb::any_value::Value::StringValue(text(0));
    let attribute =
        pb::KeyValue { key: "service.name".into(), value: Some(pb::AnyValue { value: Some(value) }) };
    let health = || pb::ComponentHealth {
        healthy: true,
        start_time_unix_nano: 1 << 60,
        status: text(1),
        status_time_unix_nano: (1 << 60) + second,
        ..Default::default()
    };
    let package = pb::PackageStatus { name: text(2), ..Default::default() };
    pb::AgentToServer {
        agent_description: Some(pb::AgentDescription {
            identifying_attributes: vec![attribute],
            ..Default::default()
        }),
        health: Some(pb::ComponentHealth {
            component_health_map: [("pipeline".to_owned(), health())].into(),
            ..health()
        }),
        package_statuses: Some(pb::PackageStatuses {
            packages: [(text(2), package)].into(),
            ..Default::default()
        }),
        available_components: Some(pb::AvailableComponents {
            hash: vec![agent as u8; 4].into(),
            components: [(text(3), pb::ComponentDetails::default())].into(),
        }),
        ..Default::default()
    }
}

fn encoded(status: &pb::AgentToServer, part: Part) -> Vec<u8> {
    match part {
        Part::AgentDescription => status.agent_description.as_ref().unwrap().encode_to_vec(),
        Part::Health => status.health.as_ref().unwrap().encode_to_vec(),
        Part::PackageStatuses => status.package_statuses.as_ref().unwrap().encode_to_vec(),
        _ => status.available_components.as_ref().unwrap().encode_to_vec(),
    }
}

/// What is held of an agent is this, in every part that is compared.
fn assert_holds(server: &TestServer, uid: InstanceUid, status: &pb::AgentToServer) {
    let held = server.handle.agent(&uid).unwrap();
    for (part, _) in COMPARED {
        assert_eq!(held.state.part(part).unwrap(), &encoded(status, part), "{part}");
    }
}

/// Sends a message whose last occurrence of a text is no UTF-8: as long as the message that is meant.
async fn send_broken(
    agent: &mut Agent,
    uid: InstanceUid,
    number: u64,
    status: pb::AgentToServer,
    text: &str,
) {
    let mut bytes = vec![0];
    numbered(uid, number, status).encode(&mut bytes).unwrap();
    let at = bytes.windows(text.len()).rposition(|window| window == text.as_bytes()).unwrap();
    bytes[at] = 0xff;
    agent.socket.send(Message::Binary(bytes.into())).await.unwrap();
}

async fn accepted(agent: &mut Agent, uid: InstanceUid, number: u64, status: pb::AgentToServer) {
    agent.send_numbered(uid, number, status).await;
    assert_accepted(agent, uid).await;
}

async fn assert_accepted(agent: &mut Agent, uid: InstanceUid) {
    let answer = agent.receive().await;
    assert_eq!((answer.error_response, &answer.instance_uid[..]), (None, &uid.as_bytes()[..]));
}

async fn assert_refused(agent: &mut Agent, what: &str) {
    let error = agent.receive().await.error_response.unwrap_or_else(|| panic!("{what} was accepted"));
    assert_eq!(error.r#type, pb::ServerErrorResponseType::BadRequest as i32, "{what}");
}

/// Two agents on one socket.
async fn shared(server: &TestServer) -> Agent {
    let mut socket = server.connect(None).await;
    accepted(&mut socket, uid(1), 1, status('a', 1)).await;
    accepted(&mut socket, uid(2), 1, status('b', 1)).await;
    socket
}

opamp_testkit::on_both_frame_readers! {
    async fn the_status_of_one_agent_under_another_of_its_socket_is_kept_as_that_ones(frames: FrameReader) {
        let server = TestServer::on(frames).await;
        let mut socket = shared(&server).await;
        let health = encoded(&status('a', 1), Part::Health);
        accepted(&mut socket, uid(2), 2, status('a', 1)).await;
        assert_holds(&server, uid(2), &status('a', 1));
        server
            .change("the health of the other", |change| {
                let held = change.snapshot.state.part(Part::Health);
                change.snapshot.uid == uid(2)
                    && change.changed.contains(Part::Health)
                    && held.is_some_and(|held| held == &health)
            })
            .await;
        accepted(&mut socket, uid(1), 2, status('b', 2)).await;
        accepted(&mut socket, uid(2), 3, status('a', 3)).await;
        assert_holds(&server, uid(1), &status('b', 2));
        assert_holds(&server, uid(2), &status('a', 3));
    }

    async fn what_is_malformed_is_refused_although_it_is_as_long_as_what_is_held(frames: FrameReader) {
        let server = TestServer::on(frames).await;
        let mut socket = shared(&server).await;
        for (number, (_, text)) in (2..).zip(COMPARED) {
            for second in [1, 2] {
                // What it said itself, and what the other one said.
                for (agent, sender) in [('a', 1), ('a', 2), ('b', 1), ('b', 2)] {
                    send_broken(&mut socket, uid(sender), number, status(agent, second), text).await;
                    assert_refused(&mut socket, text).await;
                    accepted(&mut socket, uid(3), 1, pb::AgentToServer::default()).await;
                }
            }
            assert_holds(&server, uid(1), &status('a', number - 1));
            assert_holds(&server, uid(2), &status('b', number - 1));
            accepted(&mut socket, uid(1), number, status('a', number)).await;
            accepted(&mut socket, uid(2), number, status('b', number)).await;
        }
    }

    async fn an_agent_that_another_socket_took_over_is_compared_with_what_it_said_there(frames: FrameReader) {
        let server = TestServer::on(frames).await;
        for (_, text) in COMPARED {
            let mut old = shared(&server).await;
            let mut new = server.connect(None).await;
            // The old socket learns of it before or after its own next message.
            new.send_numbered(uid(1), 2, status('b', 2)).await;
            send_broken(&mut old, uid(1), 3, status('b', 2), text).await;
            assert_refused(&mut old, text).await;
            assert_accepted(&mut new, uid(1)).await;
            send_broken(&mut old, uid(1), 3, status('b', 3), text).await;
            assert_refused(&mut old, text).await;
            assert_holds(&server, uid(1), &status('b', 2));
            accepted(&mut old, uid(1), 3, status('b', 3)).await;
            send_broken(&mut old, uid(1), 4, status('a', 4), text).await;
            assert_refused(&mut old, text).await;
            assert_holds(&server, uid(1), &status('b', 3));
            assert_eq!(new.close_code().await, 1000);
            drop(old);
            server.until("its socket is gone", |handle| handle.stats().websocket_active == 0).await;
        }
    }

    async fn a_message_that_waited_for_a_verdict_is_decoded_again_as_what_it_was(frames: FrameReader) {
        let mut settings = ServerSettings { frames, ..ServerSettings::default() };
        settings.duplicates.ping_timeout = PATIENCE;
        let server = TestServer::with(Arc::new(InsecureAcceptEveryone), settings).await;
        for (_, text) in COMPARED {
            let mut old = shared(&server).await;
            let mut new = server.connect(None).await;
            accepted(&mut new, uid(1), 2, status('a', 2)).await;
            old.send_numbered(uid(1), 90, status('a', 3)).await;
            send_broken(&mut old, uid(1), 91, status('a', 3), text).await;
            assert_refused(&mut old, text).await;
            old.send_numbered(uid(1), 92, status('b', 4)).await;
            accepted(&mut old, uid(2), 2, status('b', 2)).await;
            assert_holds(&server, uid(1), &status('a', 2));
            // The other socket ends with the question whether it lives.
            drop(new);
            for _ in 0..2 {
                assert_accepted(&mut old, uid(1)).await;
            }
            send_broken(&mut old, uid(1), 93, status('a', 5), text).await;
            assert_refused(&mut old, text).await;
            assert_holds(&server, uid(1), &status('b', 4));
            assert_eq!(server.handle.agent(&uid(1)).unwrap().sequence_num.0, 92);
            drop(old);
            server.until("its socket is gone", |handle| handle.stats().websocket_active == 0).await;
        }
    }
}
