//! R-COMP and R-CUST, as far as a server that only keeps and shows them is concerned.

use std::collections::BTreeMap;

use opamp_proto::{Part, pb};

use super::common::*;

fn with_components() -> Persona {
    Persona::new(1).and(AgentCapabilities::REPORTS_AVAILABLE_COMPONENTS)
}

async fn report(agent: &mut ScriptedAgent, components: &pb::AvailableComponents) -> pb::ServerToAgent {
    agent.report(|message| message.available_components = Some(components.clone())).await.unwrap()
}

on_both_transports! {
    /// R-COMP-13.
    async fn nested_components_are_kept(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, with_components()).await;
        let bottom = pb::ComponentDetails { metadata: vec![attribute("vcs.ref", text("v1"))], ..Default::default() };
        let nested = (0..10).fold(bottom, |details, level| pb::ComponentDetails {
            sub_component_map: BTreeMap::from([(format!("level {level}"), details)]),
            ..Default::default()
        });
        let components = pb::AvailableComponents {
            components: BTreeMap::from([("top".to_owned(), nested)]),
            hash: "hash".into(),
        };
        assert!(says_nothing(&report(&mut agent, &components).await));
        assert_eq!(server.part(agent.persona.uid, Part::AvailableComponents), Some(components));
    }

    /// R-COMP-04, R-COMP-11: any hash, and components that no health entry mentions.
    async fn the_hash_of_components_is_opaque(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, with_components()).await;
        for hash in [vec![0xff], vec![0; 16], vec![7; 500]] {
            let components = pb::AvailableComponents {
                components: BTreeMap::from([("receiver/otlp".to_owned(), pb::ComponentDetails::default())]),
                hash: hash.into(),
            };
            assert!(says_nothing(&report(&mut agent, &components).await));
            assert_eq!(server.part(agent.persona.uid, Part::AvailableComponents), Some(components));
        }
    }

    /// R-CUST-03.
    async fn the_list_of_custom_capabilities_is_replaced_and_cleared(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1)).await;
        for names in [&["org.example.a", "org.example.b/2"][..], &["org.example.b/2"], &[]] {
            let list = pb::CustomCapabilities { capabilities: names.iter().map(|name| (*name).to_owned()).collect() };
            let sent = list.clone();
            agent.report(|message| message.custom_capabilities = Some(sent)).await.unwrap();
            agent.heartbeat().await.unwrap();
            assert_eq!(server.part(agent.persona.uid, Part::CustomCapabilities), Some(list));
        }
    }

    /// R-CUST-06.
    async fn a_custom_message_nobody_supports_has_no_effect(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1)).await;
        let message = pb::CustomMessage {
            capability: "org.example.unheard".to_owned(),
            r#type: "hello".to_owned(),
            data: vec![0xff; 100].into(),
        };
        let answer = agent.report(|report| report.custom_message = Some(message)).await.unwrap();
        assert!(says_nothing(&answer), "{answer:?}");
        assert!(says_nothing(&agent.heartbeat().await.unwrap()));
    }
}
