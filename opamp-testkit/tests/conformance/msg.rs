//! R-MSG: messages as a whole.

use opamp_proto::{InstanceUid, Part, pb};
use opamp_server::RefusalReason;
use opamp_server::session::CapabilityMismatch;

use super::common::*;

/// A report with every status part in it.
fn everything(persona: &mut Persona) -> pb::AgentToServer {
    let mut message = persona.full_state();
    message.remote_config_status = Some(pb::RemoteConfigStatus {
        last_remote_config_hash: "hash".into(),
        status: pb::RemoteConfigStatuses::Failed.into(),
        error_message: "no".into(),
    });
    message.package_statuses =
        Some(pb::PackageStatuses { server_provided_all_packages_hash: "all".into(), ..Default::default() });
    message.custom_capabilities = Some(pb::CustomCapabilities { capabilities: vec!["org.example.x".into()] });
    message.available_components =
        Some(pb::AvailableComponents { hash: "components".into(), ..Default::default() });
    message.connection_settings_status = Some(pb::ConnectionSettingsStatus {
        last_connection_settings_hash: "settings".into(),
        status: pb::ConnectionSettingsStatuses::Applied.into(),
        ..Default::default()
    });
    message
}

on_both_transports! {
    /// R-MSG-01.
    async fn every_field_shows_in_what_the_server_exposes(wire: Wire) {
        let server = TestServer::with(|setup| {
            setup.settings.session.capabilities.insert(ServerCapabilities::ACCEPTS_PACKAGES_STATUS);
        })
        .await;
        let all = AgentCapabilities::from_bits(0xffff);
        let mut agent = server.connector(wire).connect(Persona::new(1).with_capabilities(all)).await.unwrap();
        let sent = everything(&mut agent.persona);
        assert!(agent.exchange(&sent).await.unwrap().error_response.is_none());

        let uid = agent.persona.uid;
        assert_eq!(server.part(uid, Part::AgentDescription), sent.agent_description);
        assert_eq!(server.part(uid, Part::Health), sent.health);
        assert_eq!(server.part(uid, Part::EffectiveConfig), sent.effective_config);
        assert_eq!(server.part(uid, Part::RemoteConfigStatus), sent.remote_config_status);
        assert_eq!(server.part(uid, Part::PackageStatuses), sent.package_statuses);
        assert_eq!(server.part(uid, Part::CustomCapabilities), sent.custom_capabilities);
        assert_eq!(server.part(uid, Part::AvailableComponents), sent.available_components);
        assert_eq!(server.part(uid, Part::ConnectionSettingsStatus), sent.connection_settings_status);
        let snapshot = server.snapshot(uid);
        assert_eq!((snapshot.capabilities, snapshot.sequence_num.0), (all, 0));
        let report = snapshot.remote_config.report.unwrap();
        assert_eq!((report.hash.as_bytes(), report.status, report.error.as_str()), (&b"hash"[..], 3, "no"));
        assert!(snapshot.ignored.is_empty());
    }

    /// R-MSG-02.
    async fn every_report_is_answered(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.connector(wire).connect(Persona::new(1)).await.unwrap();
        for number in 0..20 {
            let answer = if number % 5 == 0 { agent.report_full_state().await } else { agent.heartbeat().await };
            assert_eq!(&answer.unwrap().instance_uid[..], agent.persona.uid.as_bytes());
        }
        assert_eq!(server.handle.stats().frames_received, 20);
        assert_eq!(server.handle.stats().frames_sent, 20);
    }

    /// R-MSG-03.
    async fn with_nothing_to_say_the_answer_only_acknowledges(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1)).await;
        for _ in 0..3 {
            let answer = agent.heartbeat().await.unwrap();
            assert!(says_nothing(&answer), "{answer:?}");
        }
    }

    /// R-MSG-07.
    async fn answers_carry_the_identity_that_was_received(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.connector(wire).connect(Persona::new(1)).await.unwrap();
        let uid = agent.persona.uid;
        // Also the answer that assigns a new identity, and the one that reports an error.
        let answer = agent.report(|message| message.flags = 1).await.unwrap();
        assert!(answer.agent_identification.is_some());
        assert_eq!(&answer.instance_uid[..], uid.as_bytes());
    }

    /// R-MSG-09, R-MSG-10, R-ERR-09: what was pending comes with the next good answer.
    async fn an_error_excludes_everything_that_is_pending(wire: Wire) {
        let server = TestServer::with(|setup| {
            setup.settings.session.capability_mismatch = CapabilityMismatch::Reject;
        })
        .await;
        let mut agent = server.agent(wire, restartable(1).without(AgentCapabilities::REPORTS_HEALTH)).await;
        let uid = agent.persona.uid;
        if wire == Wire::Http {
            // Over WebSocket these would be pushed before the faulty message arrives.
            server.assign(uid, &yaml("a: 1\n"));
            server.handle.restart_agent(&uid).unwrap();
            server.handle.request_full_state(&uid);
        }
        let mut faulty = agent.persona.clone().heartbeat();
        faulty.health = Some(pb::ComponentHealth { healthy: true, ..Default::default() });
        let answer = agent.exchange(&faulty).await.unwrap();
        let complaint = bad_request(&answer);
        assert!(complaint.contains("health") && complaint.contains("ReportsHealth"), "{complaint}");
        assert_eq!(&answer.instance_uid[..], uid.as_bytes());
        assert_eq!(server.health(uid), None);

        let answer = agent.heartbeat().await.unwrap();
        assert!(answer.error_response.is_none());
        assert_eq!(answer.remote_config.is_some(), wire == Wire::Http);
    }

    /// R-MSG-11.
    async fn no_answer_to_a_good_report_has_an_error(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.connector(wire).connect(restartable(1)).await.unwrap();
        for message in scenario(&server, &mut agent).await {
            assert_eq!(message.error_response, None);
        }
        assert!(server.refusals().is_empty());
    }
}

/// R-MSG-02: also over WebSocket, where nobody waits for answers, each message gets its own.
#[tokio::test]
async fn reports_sent_without_waiting_are_each_answered_in_order() {
    let server = TestServer::start().await;
    let mut ws = server.ws().await;
    let mut personas: Vec<Persona> = (0..4).map(Persona::new).collect();
    let mut order = Vec::new();
    for round in 0..5 {
        for persona in &mut personas {
            let message = if round == 0 { persona.full_state() } else { persona.heartbeat() };
            ws.send_message(&message).await.unwrap();
            order.push(message.instance_uid);
        }
    }
    for uid in order {
        assert_eq!(ws.receive().await.unwrap().instance_uid, uid);
    }
}

/// R-MSG-08.
#[tokio::test]
async fn agents_that_share_a_socket_are_told_apart() {
    let server = TestServer::start().await;
    let mut ws = server.ws().await;
    let (mut a, mut b) = (Persona::new(1), Persona::new(2));
    a.health.status = "a".to_owned();
    b.health.status = "b".to_owned();
    for message in [a.full_state(), b.full_state(), a.heartbeat(), b.heartbeat()] {
        let answer = ws.exchange(&message).await.unwrap();
        assert_eq!(answer.instance_uid, message.instance_uid);
    }
    assert_eq!(server.health(a.uid).unwrap().status, "a");
    assert_eq!(server.health(b.uid).unwrap().status, "b");
    for persona in [&b, &a] {
        server.assign(persona.uid, &yaml(&format!("for: {}\n", persona.uid)));
        let message = ws.receive().await.unwrap();
        assert_eq!(&message.instance_uid[..], persona.uid.as_bytes());
        assert_eq!(message.remote_config.unwrap().config, Some(yaml(&format!("for: {}\n", persona.uid))));
    }
    // One agent's gap is not the other's.
    b.sequence_num += 5;
    assert!(asks_full_state(&ws.exchange(&b.heartbeat()).await.unwrap()));
    let message = a.remote_config_status.is_none().then(|| a.heartbeat()).unwrap();
    assert!(!asks_full_state(&ws.exchange(&message).await.unwrap()));
}

/// R-MSG-08: a thousand agents may share a socket by default, and one more is refused without harm to them.
#[tokio::test]
async fn a_socket_carries_as_many_agents_as_it_may() {
    let server = TestServer::with(|setup| setup.settings.agents_per_connection_max = 3).await;
    let mut ws = server.ws().await;
    for number in 1..=3 {
        assert!(ws.exchange(&Persona::new(number).full_state()).await.unwrap().error_response.is_none());
    }
    bad_request(&ws.exchange(&Persona::new(4).full_state()).await.unwrap());
    assert!(!server.knows(Persona::new(4).uid));
    assert_eq!(server.refusal(RefusalReason::RateLimited).await.reason, RefusalReason::RateLimited);
    let mut first = Persona::new(1);
    first.sequence_num = 1;
    assert!(says_nothing(&ws.exchange(&first.heartbeat()).await.unwrap()));
}

/// R-MSG-10: a report for an identity of other credentials is not processed, and its answer says so.
#[tokio::test]
async fn a_report_that_cannot_be_processed_is_answered_with_an_error() {
    let server = TestServer::start().await;
    let mut http = server.http().await;
    for uid in [&b""[..], &[7; 15], b"01HF8Z2M3N4P5Q6R7S8T9V0W1X"] {
        let mut report = Persona::new(1).full_state();
        report.instance_uid = bytes::Bytes::copy_from_slice(uid);
        let response = http.exchange(&HttpRequest::opamp(&server.endpoint(), &report)).await.unwrap();
        assert_eq!(response.status, 200);
        let answer = response.message().unwrap();
        bad_request(&answer);
        assert!(answer.instance_uid.is_empty(), "A-08: nobody can be named");
    }
    assert!(server.handle.agents().is_empty());
    assert!(InstanceUid::try_from(&[7; 15][..]).is_err());
}
