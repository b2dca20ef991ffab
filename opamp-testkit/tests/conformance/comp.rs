//! R-COMP: available components; and of R-CUST what a server keeps that supports nothing custom itself.

use std::collections::BTreeMap;

use opamp_proto::{InstanceUid, Part, pb};

use super::common::*;

fn with_components() -> Persona {
    Persona::new(1).with_components(build(0))
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

fn build(number: u8) -> pb::AvailableComponents {
    let details = pb::ComponentDetails {
        metadata: vec![attribute("code.namespace", text("example"))],
        ..Default::default()
    };
    pb::AvailableComponents {
        components: BTreeMap::from([(format!("receiver/{number}"), details)]),
        hash: vec![number; 20].into(),
    }
}

fn asks_components(message: &pb::ServerToAgent) -> bool {
    ServerToAgentFlags::from_bits(message.flags).contains(ServerToAgentFlags::REPORT_AVAILABLE_COMPONENTS)
}

/// The list that the server shows for an agent.
fn shown(server: &TestServer, uid: InstanceUid) -> Option<pb::AvailableComponents> {
    let encoded = server.snapshot(uid).components?;
    Some(pb::AvailableComponents::decode(&encoded[..]).unwrap())
}

on_both_transports! {
    /// R-COMP-07, R-COMP-09: asked for once, and known from then on: to this agent, on every connection, and to the next of
    /// the same build.
    async fn a_list_is_asked_for_once_and_kept_under_its_hash(wire: Wire) {
        let server = TestServer::start().await;
        let (mut first, answer) =
            server.connector(wire).start(Persona::new(1).with_components(build(1))).await.unwrap();
        assert!(asks_components(&answer), "an unknown hash");
        let full = first.persona.all_components();
        assert!(says_nothing(&first.exchange(&full).await.unwrap()));
        assert_eq!(shown(&server, first.persona.uid), Some(build(1)));

        first.reconnect().await.unwrap();
        assert!(says_nothing(&first.report_full_state().await.unwrap()), "known to the server");
        let (second, answer) =
            server.connector(wire).start(Persona::new(2).with_components(build(1))).await.unwrap();
        assert!(says_nothing(&answer), "another of the same build: {answer:?}");
        assert_eq!(shown(&server, second.persona.uid), Some(build(1)));

        let (third, answer) =
            server.connector(wire).start(Persona::new(3).with_components(build(2))).await.unwrap();
        assert!(asks_components(&answer), "another build");
        assert_eq!(shown(&server, third.persona.uid), None);
    }

    /// R-COMP-07: who is asked and does not answer is neither flooded nor given up.
    async fn an_agent_that_keeps_its_list_to_itself_is_served_all_the_same(wire: Wire) {
        let server = TestServer::start().await;
        let (mut agent, answer) =
            server.connector(wire).start(Persona::new(1).with_components(build(1))).await.unwrap();
        assert!(asks_components(&answer));
        if wire == Wire::WebSocket {
            assert_eq!(agent.ws().fence().await.unwrap(), [], "asked in answers alone");
        }
        server.assign(agent.persona.uid, &yaml("a: 1\n"));
        let offer = agent.next_offer().await.unwrap();
        assert!(agent.apply(&offer).await.unwrap().error_response.is_none());
        let mut asked = 0;
        for _ in 0..20 {
            asked += u32::from(asks_components(&agent.heartbeat().await.unwrap()));
        }
        assert!(asked <= 4, "{asked} times without a pause");
    }

    /// R-COMP-07, R-CAP-05: who takes the capability back is asked no more, whatever is missing.
    async fn an_agent_that_takes_the_capability_back_is_asked_no_more(wire: Wire) {
        let server = TestServer::start().await;
        let (mut agent, answer) =
            server.connector(wire).start(Persona::new(1).with_components(build(1))).await.unwrap();
        assert!(asks_components(&answer));
        agent.persona.capabilities.remove(AgentCapabilities::REPORTS_AVAILABLE_COMPONENTS);
        for _ in 0..3 {
            assert!(says_nothing(&agent.heartbeat().await.unwrap()));
        }
        agent.persona.capabilities.insert(AgentCapabilities::REPORTS_AVAILABLE_COMPONENTS);
        assert!(asks_components(&agent.heartbeat().await.unwrap()), "with the bit it is asked again");
    }

    /// R-COMP-07, R-CAP-13: nobody is asked for what it does not report.
    async fn no_agent_without_the_capability_is_asked_for_components(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1)).await;
        let answer = report(&mut agent, &pb::AvailableComponents { hash: "unknown".into(), ..Default::default() }).await;
        assert!(!asks_components(&answer));
        assert!(!asks_components(&agent.heartbeat().await.unwrap()));
    }
}

/// R-COMP-09 in reason: the store of lists has its bounds; what fell out is asked for again.
#[tokio::test]
async fn lists_of_components_are_kept_within_their_bound() {
    let server = TestServer::with(|setup| setup.settings.components_kept = 2).await;
    for number in 1..=3 {
        let persona = Persona::new(u32::from(number)).with_components(build(number));
        let (mut agent, answer) = server.connector(Wire::WebSocket).start(persona).await.unwrap();
        assert!(asks_components(&answer));
        let full = agent.persona.all_components();
        agent.exchange(&full).await.unwrap();
        agent.disconnect().await.unwrap();
    }
    let newest = Persona::new(10).with_components(build(3));
    let (_agent, answer) = server.connector(Wire::WebSocket).start(newest).await.unwrap();
    assert!(!asks_components(&answer), "the newest is known");
    let oldest = Persona::new(11).with_components(build(1));
    let (_agent, answer) = server.connector(Wire::WebSocket).start(oldest).await.unwrap();
    assert!(asks_components(&answer), "the oldest fell out");
}
