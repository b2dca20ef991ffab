//! R-HEALTH: health.

use std::collections::BTreeMap;

use opamp_proto::pb;
use opamp_server::RefusalReason;

use super::common::*;

/// Health nested so many levels below the top, with attributes at the bottom.
fn nested(levels: usize) -> pb::ComponentHealth {
    let bottom = pb::ComponentHealth {
        status: "bottom".to_owned(),
        attributes: vec![attribute("queue.length", text("7")), attribute("queue.length", text("again"))],
        ..Default::default()
    };
    (0..levels).fold(bottom, |health, level| pb::ComponentHealth {
        healthy: level % 2 == 0,
        component_health_map: BTreeMap::from([(format!("level {level}"), health)]),
        ..Default::default()
    })
}

async fn reported(wire: Wire, health: pb::ComponentHealth) -> (TestServer, ScriptedAgent, pb::ServerToAgent) {
    let server = TestServer::start().await;
    let mut persona = Persona::new(1);
    persona.health = health;
    let (agent, answer) = server.connector(wire).start(persona).await.unwrap();
    (server, agent, answer)
}

on_both_transports! {
    /// R-HEALTH-06.
    async fn an_unheard_of_status_word_is_kept(wire: Wire) {
        let health = pb::ComponentHealth { status: "Vérglühend/42 ☃".to_owned(), ..Default::default() };
        let (server, agent, _) = reported(wire, health.clone()).await;
        assert_eq!(server.health(agent.persona.uid), Some(health));
    }

    /// R-HEALTH-08.
    async fn nested_components_are_kept(wire: Wire) {
        for levels in [0, 1, 10, 30] {
            let (server, agent, answer) = reported(wire, nested(levels)).await;
            assert_eq!(answer.error_response, None);
            assert_eq!(server.health(agent.persona.uid), Some(nested(levels)), "{levels} levels");
        }
    }

    /// R-HEALTH-09.
    async fn attributes_of_components_are_kept_unread(wire: Wire) {
        let (server, agent, _) = reported(wire, nested(1)).await;
        let kept = server.health(agent.persona.uid).unwrap();
        let bottom = kept.component_health_map.into_values().next().unwrap();
        assert_eq!(bottom.attributes, nested(0).attributes);
    }
}

/// R-HEALTH-08 in reason: nesting beyond every purpose is refused and does no harm.
#[tokio::test]
async fn ten_thousand_levels_are_refused() {
    let server = TestServer::start().await;
    // Each level is `component_health_map { "": value }`, from the inside out; encoding it by recursion would not end well.
    let mut health = Vec::new();
    for _ in 0..10_000 {
        let entry = [field(2, &health)].concat();
        health = field(6, &entry);
    }
    let mut report = Persona::new(1).heartbeat().encode_to_vec();
    report.extend(field(5, &health));
    assert!(!is_valid(&report));

    let mut ws = server.ws().await;
    ws.send_binary([vec![0], report.clone()].concat()).await.unwrap();
    bad_request(&ws.receive().await.unwrap());
    assert_eq!(server.post(&HttpRequest::post(&server.endpoint(), report)).await.status, 400);
    assert_eq!(server.rejected(RefusalReason::Malformed), 2);
    assert!(ws.exchange(&Persona::new(1).full_state()).await.unwrap().error_response.is_none());
}

/// A length-delimited Protobuf field.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut bytes);
    bytes.extend_from_slice(content);
    bytes
}
