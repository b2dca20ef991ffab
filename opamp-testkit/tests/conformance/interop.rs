//! R-INTEROP: interoperability, and R-OTEL-08: life behind a forwarder.

use opamp_proto::{Part, pb};
use opamp_server::Liveness;

use super::common::*;

/// Field 1000 in every wire type, a group included.
fn unknown_fields() -> Vec<u8> {
    let key = |wire_type: u64| {
        let mut bytes = Vec::new();
        prost::encoding::encode_varint(1000 << 3 | wire_type, &mut bytes);
        bytes
    };
    let parts: [(u64, &[u8]); 4] =
        [(0, &[0x96, 0x01]), (1, &[7; 8]), (2, &[3, 0xff, 0xfe, 0xfd]), (5, &[9; 4])];
    let mut bytes: Vec<u8> =
        parts.iter().flat_map(|(kind, content)| [key(*kind), content.to_vec()].concat()).collect();
    bytes.extend([key(3), vec![0x08, 0x01], key(4)].concat());
    bytes
}

on_both_transports! {
    /// R-INTEROP-01.
    async fn unknown_fields_are_ignored_at_every_level(wire: Wire) {
        let server = TestServer::start().await;
        let persona = Persona::new(1);
        let mut health = persona.health.encode_to_vec();
        health.extend(unknown_fields());
        let mut report = persona.clone().report(|message| {
            message.agent_description = Some(persona.description.clone());
        })
        .encode_to_vec();
        report.extend(unknown_fields());
        report.extend([0x2a, health.len() as u8]);
        report.extend(&health);
        report.extend(unknown_fields());

        let answer = match wire {
            Wire::WebSocket => {
                let mut ws = server.ws().await;
                ws.send_binary([vec![0], report].concat()).await.unwrap();
                ws.receive().await.unwrap()
            }
            Wire::Http => server.post(&HttpRequest::post(&server.endpoint(), report)).await.message().unwrap(),
        };
        assert!(answer.error_response.is_none());
        assert_eq!(server.health(persona.uid), Some(persona.health));
        assert_eq!(server.part(persona.uid, Part::AgentDescription), Some(persona.description));
    }

    /// R-INTEROP-02.
    async fn unknown_capability_bits_are_tolerated_and_have_no_effect(wire: Wire) {
        let server = TestServer::start().await;
        let every_bit = AgentCapabilities::from_bits(u64::MAX);
        let (mut agent, answer) =
            server.connector(wire).start(Persona::new(1).with_capabilities(every_bit)).await.unwrap();
        assert!(answer.error_response.is_none());
        assert_eq!(server.snapshot(agent.persona.uid).capabilities, every_bit);
        server.assign(agent.persona.uid, &yaml("a: 1\n"));
        assert!(agent.next_offer().await.is_ok(), "known bits count");

        let unknown = AgentCapabilities::from_bits(!0xffff) | AgentCapabilities::REPORTS_STATUS;
        let mut agent = server.agent(wire, Persona::new(2).with_capabilities(unknown)).await;
        server.assign(agent.persona.uid, &yaml("a: 1\n"));
        assert!(says_nothing(&agent.heartbeat().await.unwrap()), "others do not");
    }

    /// R-INTEROP-04.
    async fn the_first_message_decides_what_the_agent_is_sent(wire: Wire) {
        let server = TestServer::start().await;
        for (number, accepts) in [(1, true), (2, false)] {
            let mut persona = restartable(number);
            if !accepts {
                persona.capabilities = AgentCapabilities::REPORTS_STATUS;
            }
            server.assign(persona.uid, &yaml("a: 1\n"));
            let (agent, answer) = server.connector(wire).start(persona).await.unwrap();
            assert_eq!(answer.remote_config.is_some(), accepts);
            assert_eq!(server.handle.restart_agent(&agent.persona.uid).is_ok(), accepts);
        }
    }

    /// R-INTEROP-07.
    async fn unknown_enum_numbers_do_no_harm(wire: Wire) {
        let server = TestServer::with(|setup| {
            setup.settings.session.capabilities.insert(ServerCapabilities::ACCEPTS_PACKAGES_STATUS);
        })
        .await;
        let all = AgentCapabilities::from_bits(0xffff);
        let components = pb::AvailableComponents { hash: "hash".into(), components: [("a".to_owned(), pb::ComponentDetails::default())].into() };
        let persona = Persona::new(1).with_components(components).with_capabilities(all);
        let (mut agent, answer) = server.connector(wire).start(persona).await.unwrap();
        agent.obey(answer).await.unwrap();
        let uid = agent.persona.uid;
        let package = pb::PackageStatus { name: "p".to_owned(), status: 99, ..Default::default() };
        let answer = agent
            .report(|message| {
                message.flags = 1 << 40;
                message.remote_config_status = Some(pb::RemoteConfigStatus { status: 99, ..Default::default() });
                message.connection_settings_status =
                    Some(pb::ConnectionSettingsStatus { status: -99, ..Default::default() });
                message.package_statuses = Some(pb::PackageStatuses {
                    packages: [("p".to_owned(), package.clone())].into(),
                    ..Default::default()
                });
            })
            .await
            .unwrap();
        assert!(says_nothing(&answer), "{answer:?}");
        assert_eq!(server.snapshot(uid).remote_config.report.unwrap().status, 99);
        let packages: pb::PackageStatuses = server.part(uid, Part::PackageStatuses).unwrap();
        assert_eq!(packages.packages["p"], package);
        assert!(says_nothing(&agent.heartbeat().await.unwrap()), "the session goes on");
    }
}

/// R-OTEL-08: a forwarder sends the requests of many agents over few connections, in any order.
#[tokio::test]
async fn agents_behind_a_forwarder_have_sessions_of_their_own() {
    let server = TestServer::start().await;
    let mut connections = [server.http().await, server.http().await];
    let mut personas: Vec<Persona> = (0..10).map(Persona::new).collect();
    for persona in &personas {
        server.assign(persona.uid, &yaml(&format!("for: {}\n", persona.uid)));
    }
    for round in 0..4 {
        for (number, persona) in personas.iter_mut().enumerate() {
            let message = if round == 0 { persona.full_state() } else { persona.heartbeat() };
            let http = &mut connections[(number + round) % 2];
            let response = http.exchange(&HttpRequest::opamp(&server.endpoint(), &message)).await.unwrap();
            let answer = response.message().unwrap();
            assert_eq!(answer.instance_uid, message.instance_uid);
            match round {
                0 => {
                    let offer = answer.remote_config.unwrap();
                    assert_eq!(offer.config, Some(yaml(&format!("for: {}\n", persona.uid))));
                    let applied = persona.applied(&offer);
                    let request = HttpRequest::opamp(&server.endpoint(), &applied);
                    assert_eq!(http.exchange(&request).await.unwrap().status, 200);
                }
                _ => assert!(says_nothing(&answer), "{answer:?}"),
            }
        }
    }
    for persona in &personas {
        assert_eq!(server.snapshot(persona.uid).liveness, Liveness::Connected);
        assert_eq!(server.snapshot(persona.uid).sticky.gaps, 0);
    }
}

/// Lets a peer from before the header speak once, and returns what the server answers, as bytes.
async fn without_header(server: &TestServer) -> Vec<u8> {
    let mut ws = server.ws().await;
    ws.send_binary(Persona::new(1).full_state().encode_to_vec()).await.unwrap();
    match ws.next().await.unwrap() {
        Received::Binary(payload) => payload.to_vec(),
        other => panic!("{other:?} instead of an answer"),
    }
}

/// R-INTEROP-04 in its spirit: peers from before OpAMP 0.7 are served without a header, if that is wanted, and both ways.
#[tokio::test]
async fn a_peer_from_before_the_header_is_served_without_one_if_that_is_wanted() {
    let server = TestServer::with(|setup| setup.settings.accept_headerless = true).await;
    let answer = pb::ServerToAgent::decode(&without_header(&server).await[..]).unwrap();
    assert!(answer.error_response.is_none(), "{answer:?}");
    assert_eq!(&answer.instance_uid[..], Persona::new(1).uid.as_bytes());
    assert!(server.health(Persona::new(1).uid).is_some());
    let mut modern = server.agent(Wire::WebSocket, Persona::new(2)).await;
    assert!(says_nothing(&modern.heartbeat().await.unwrap()), "others have their header, as before");
}

/// R-WS-03: without that setting a message without a header is malformed.
#[tokio::test]
async fn a_message_without_a_header_is_malformed_unless_allowed() {
    let server = TestServer::start().await;
    let answer = without_header(&server).await;
    assert_eq!(answer[0], 0, "answered behind a header");
    bad_request(&pb::ServerToAgent::decode(&answer[1..]).unwrap());
    assert!(!server.knows(Persona::new(1).uid));
}
