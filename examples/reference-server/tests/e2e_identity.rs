//! One connection with many agents, and one agent with more than one identity.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod e2e;

use e2e::{PATIENCE, harness::Harness, rest::Rest, until, when};
use opamp_proto::{AgentToServerFlags, InstanceUid, ServerToAgentFlags};
use opamp_testkit::{
    agent::{Connector, Persona, Wire},
    raw::{Endpoint, RawWs},
    transcript::Transcript,
};
use reference_server::Server;
use serde_json::{Value, json};

#[tokio::test]
async fn one_gap_and_one_goodbye_among_a_hundred_agents_of_a_socket_disturb_no_other() {
    const GAP: usize = 40;
    const GOODBYE: usize = 50;
    let harness = Harness::start().await;
    let mut socket = RawWs::connect(&harness.endpoint(), &Transcript::new()).await.unwrap();
    let mut personas: Vec<_> = (0..100).map(Persona::new).collect();
    for persona in &mut personas {
        assert_eq!(socket.exchange(&persona.full_state()).await.unwrap().flags, 0);
    }
    personas[GAP].sequence_num += 5;
    let answer = socket.exchange(&personas[GAP].heartbeat()).await.unwrap();
    assert_eq!(ServerToAgentFlags::from_bits(answer.flags), ServerToAgentFlags::REPORT_FULL_STATE);
    assert_eq!(&answer.instance_uid[..], personas[GAP].uid.as_bytes());
    socket.exchange(&personas[GAP].full_state()).await.unwrap();
    socket.exchange(&personas[GOODBYE].disconnect()).await.unwrap();

    for (number, persona) in personas.iter_mut().enumerate().filter(|(number, _)| *number != GOODBYE) {
        let answer = socket.exchange(&persona.heartbeat()).await.unwrap();
        assert_eq!(
            (&answer.instance_uid[..], answer.flags),
            (&persona.uid.as_bytes()[..], 0),
            "agent {number}"
        );
    }
    let stats = until("the inventory shows all of it", || async {
        let stats = harness.rest.get("/api/v1/stats").await;
        let is_all = stats["registered"] == 100 && stats["by_liveness"]["disconnected"] == 1;
        when(is_all, stats.clone(), stats)
    })
    .await;
    assert_eq!((&stats["registered"], &stats["by_liveness"]["connected"]), (&json!(100), &json!(99)));
    assert_eq!(stats["websockets"], 1);
    for (number, persona) in personas.iter().enumerate() {
        let record = harness.rest.agent(&harness.rest.id_of(persona.uid).await).await;
        assert_eq!(record["sticky"]["gaps"], u32::from(number == GAP), "agent {number}");
        assert_eq!(record["sticky"]["full_state_requests"], u32::from(number == GAP), "agent {number}");
        assert_eq!(
            record["disconnect"]["graceful"],
            if number == GOODBYE { json!(true) } else { Value::Null }
        );
    }

    harness.rest.publish("edge", &[("", "a: 1\n")]).await;
    for (number, dispatch) in [(60, "pushed"), (GOODBYE, "no_session")] {
        let id = harness.rest.id_of(personas[number].uid).await;
        assert_eq!(harness.rest.assign(&id, "edge", 1).await["dispatch"], dispatch);
    }
    let pushed = socket.receive().await.unwrap();
    assert_eq!(&pushed.instance_uid[..], personas[60].uid.as_bytes());
    assert!(pushed.remote_config.is_some());
    assert!(socket.fence().await.unwrap().is_empty(), "nobody else was sent anything");
}

#[tokio::test]
async fn an_agent_that_is_given_another_uid_over_websocket_stays_the_same_agent() {
    Box::pin(a_new_uid_is_no_new_agent(Wire::WebSocket)).await;
}

#[tokio::test]
async fn an_agent_that_is_given_another_uid_over_http_stays_the_same_agent() {
    Box::pin(a_new_uid_is_no_new_agent(Wire::Http)).await;
}

async fn a_new_uid_is_no_new_agent(wire: Wire) {
    let harness = Harness::start().await;
    let rest = &harness.rest;
    let (mut agent, _) = Connector::new(harness.endpoint(), wire).start(Persona::new(1)).await.unwrap();
    let old = agent.persona.uid;
    let id = rest.id_of(old).await;
    rest.publish("edge", &[("", "a: 1\n")]).await;
    rest.publish_version("edge", 2, &[("", "a: 2\n")]).await;
    for version in [1, 2] {
        rest.assign(&id, "edge", version).await;
        let offer = agent.next_offer().await.unwrap();
        agent.apply(&offer).await.unwrap();
    }
    let before = rest.agent_when(&id, "version 2 is applied", |record| record["drift"] == "in_sync").await;

    let request = AgentToServerFlags::REQUEST_INSTANCE_UID.bits();
    let answer = agent.report(|message| message.flags = request).await.unwrap();
    assert_eq!(&answer.instance_uid[..], old.as_bytes());
    let new = InstanceUid::try_from(&answer.agent_identification.unwrap().new_instance_uid[..]).unwrap();
    assert_ne!(new, old);
    agent.persona.uid = new;
    for _ in 0..3 {
        let answer = agent.heartbeat().await.unwrap();
        assert_eq!((&answer.instance_uid[..], answer.flags), (&new.as_bytes()[..], 0));
        assert!(answer.remote_config.is_none() && answer.agent_identification.is_none());
    }
    let moved = |record: &Value| record["uid"] == new.to_string();
    let after = rest.agent_when(&id, "the record has the new identity", moved).await;
    is_the_same(&after, &before);
    assert_eq!(after["previous_uids"][0]["uid"], old.to_string());
    assert_eq!(rest.agents().await.len(), 1, "the old identity is nobody");
    let entity = format!("agent:{id}");
    let entry = until("the audit log tells of it", || async {
        let audit = rest.audit().await;
        let found = audit
            .iter()
            .find(|entry| entry["action"] == "agent.change_uid" && entry["entity"] == entity.as_str());
        found.cloned().ok_or_else(|| format!("{audit:#?}"))
    })
    .await;
    assert_eq!(
        (&entry["before"]["instance_uid"], &entry["after"]["instance_uid"]),
        (&json!(old), &json!(new))
    );

    // The next process knows it under the new identity.
    let config = harness.server.config().clone();
    let token = harness.server.first_admin_token().unwrap().to_owned();
    agent.vanish();
    assert!(harness.server.shutdown().await);
    let server = Server::start(config).await.unwrap();
    let rest = Rest::new(server.admin_addr(), &token);
    let endpoint = Endpoint::plain(server.opamp_addr()).with_wait(PATIENCE);
    let mut agent = Connector::new(endpoint, wire).connect(agent.persona.clone()).await.unwrap();
    assert_eq!(agent.heartbeat().await.unwrap().flags, 0);
    let record = rest.agent_when(&id, "it is back", |record| record["liveness"] == "connected").await;
    is_the_same(&record, &before);
    assert_eq!(rest.agents().await.len(), 1);
    agent.vanish();
    assert!(server.shutdown().await);
}

/// What an identity on the wire has no part in.
fn is_the_same(after: &Value, before: &Value) {
    for field in [
        "id",
        "first_seen",
        "desired_config",
        "history",
        "last_known_good",
        "drift",
        "effective_config",
        "description",
    ] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert_eq!(before["history"].as_array().unwrap().len(), 1, "there is a history to keep");
}
