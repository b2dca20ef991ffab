//! R-STATUS: status reporting, compression, resynchronisation.

use std::collections::BTreeMap;
use std::time::Duration;

use opamp_proto::{Part, PartSet, SequenceNum, Wall, pb};
use opamp_server::Seed;

use super::common::*;

fn component(status: &str) -> pb::ComponentHealth {
    pb::ComponentHealth { healthy: true, status: status.to_owned(), ..Default::default() }
}

on_both_transports! {
    /// R-STATUS-09.
    async fn what_is_left_out_stays_as_it_was(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.connector(wire).connect(Persona::new(1)).await.unwrap();
        let full = agent.persona.full_state();
        agent.exchange(&full).await.unwrap();
        for _ in 0..3 {
            agent.heartbeat().await.unwrap();
        }
        agent.report(|message| message.health = Some(component("new"))).await.unwrap();
        let uid = agent.persona.uid;
        assert_eq!(server.part(uid, Part::AgentDescription), full.agent_description);
        assert_eq!(server.part(uid, Part::EffectiveConfig), full.effective_config);
        assert_eq!(server.part(uid, Part::RemoteConfigStatus), full.remote_config_status);
        assert_eq!(server.health(uid), Some(component("new")));
    }

    /// R-STATUS-10.
    async fn a_part_is_replaced_as_a_whole(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1)).await;
        let uid = agent.persona.uid;
        let map = |names: &[&str]| -> BTreeMap<String, pb::ComponentHealth> {
            names.iter().map(|name| ((*name).to_owned(), component("ok"))).collect()
        };
        let both = pb::ComponentHealth { component_health_map: map(&["a", "b"]), ..component("both") };
        agent.report(|message| message.health = Some(both.clone())).await.unwrap();
        assert_eq!(server.health(uid), Some(both));
        let one = pb::ComponentHealth { component_health_map: map(&["a"]), ..Default::default() };
        agent.report(|message| message.health = Some(one.clone())).await.unwrap();
        assert_eq!(server.health(uid), Some(one), "b is gone, and so is every scalar that was unset");

        // Present and empty is not the same as absent.
        agent.report(|message| message.health = Some(pb::ComponentHealth::default())).await.unwrap();
        assert_eq!(server.health(uid), Some(pb::ComponentHealth::default()));
    }

    /// R-STATUS-16, R-STATUS-17.
    async fn every_number_but_the_next_is_a_gap(wire: Wire) {
        let server = TestServer::start().await;
        for (number, after_5, gap) in [(1, 7, true), (2, 5, true), (3, 2, true), (4, 6, false), (5, 0, true)] {
            let mut persona = Persona::new(number);
            persona.sequence_num = 5;
            let mut agent = server.agent(wire, persona).await;
            agent.persona.sequence_num = after_5;
            let answer = agent.heartbeat().await.unwrap();
            assert_eq!(asks_full_state(&answer), gap, "5, then {after_5}");
            let snapshot = server.snapshot(agent.persona.uid);
            assert_eq!(snapshot.sticky.gaps, u32::from(gap));
            assert_eq!(snapshot.sequence_num, SequenceNum(after_5));

            // Once answered in full, all is well again.
            let answer = agent.report_full_state().await.unwrap();
            assert!(says_nothing(&answer), "{answer:?}");
            assert!(says_nothing(&agent.heartbeat().await.unwrap()));
        }
    }

    /// R-STATUS-16: the counter may wrap.
    async fn zero_follows_the_largest_number(wire: Wire) {
        let server = TestServer::start().await;
        let mut persona = Persona::new(1);
        persona.sequence_num = u64::MAX;
        let mut agent = server.agent(wire, persona).await;
        assert_eq!(agent.persona.sequence_num, 0);
        assert!(says_nothing(&agent.heartbeat().await.unwrap()));
    }

    /// R-STATUS-17: what a report across a gap says is taken, and only what it leaves out is asked for.
    async fn a_full_report_across_a_gap_needs_no_second(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1)).await;
        agent.persona.sequence_num += 10;
        assert!(says_nothing(&agent.report_full_state().await.unwrap()));
        agent.persona.sequence_num += 10;
        let answer = agent.report(|message| message.health = Some(component("across"))).await.unwrap();
        assert!(asks_full_state(&answer));
        assert_eq!(server.health(agent.persona.uid), Some(component("across")));
    }

    /// R-STATUS-19: after a restart without state one round completes it.
    async fn a_server_that_lost_its_state_has_it_again_after_one_round(wire: Wire) {
        let old = TestServer::start().await;
        let agent = old.agent(wire, Persona::new(1)).await;
        let server = TestServer::start().await;
        let mut agent = server.connector(wire).connect(agent.persona.clone()).await.unwrap();
        let answer = agent.heartbeat().await.unwrap();
        assert!(asks_full_state(&answer));
        assert!(says_nothing(&agent.report_full_state().await.unwrap()));
        assert_eq!(server.health(agent.persona.uid), Some(agent.persona.health.clone()));
    }

    /// R-STATUS-19: a server that kept its state asks for nothing.
    async fn a_server_that_kept_its_state_asks_for_nothing(wire: Wire) {
        let server = TestServer::start().await;
        let mut persona = Persona::new(1);
        persona.full_state();
        server.handle.restore([seed(&persona, 0)]);
        let mut agent = server.connector(wire).connect(persona.clone()).await.unwrap();
        assert!(says_nothing(&agent.heartbeat().await.unwrap()));

        // What was missed while the server was away shows as a gap.
        let mut persona = Persona::new(2);
        server.handle.restore([seed(&persona, 41)]);
        persona.sequence_num = 50;
        let mut agent = server.connector(wire).connect(persona).await.unwrap();
        assert!(asks_full_state(&agent.heartbeat().await.unwrap()));
    }

    /// R-STATUS-20.
    async fn an_unknown_agent_may_start_at_any_number(wire: Wire) {
        let server = TestServer::start().await;
        for (number, first) in [(1, 0), (2, 1), (3, 1000), (4, u64::MAX)] {
            let mut persona = Persona::new(number);
            persona.sequence_num = first;
            let (mut agent, answer) = server.connector(wire).start(persona).await.unwrap();
            assert!(says_nothing(&answer), "complete at once, from {first}: {answer:?}");
            assert!(says_nothing(&agent.heartbeat().await.unwrap()));
            assert_eq!(server.health(agent.persona.uid), Some(agent.persona.health.clone()));
        }
        // An incomplete first report is completed in one extra round.
        let mut agent = server.connector(wire).connect(Persona::new(9)).await.unwrap();
        let first = agent.persona.report(|message| message.health = Some(component("only")));
        let answer = agent.exchange(&first).await.unwrap();
        assert!(asks_full_state(&answer));
        assert!(says_nothing(&agent.obey(answer).await.unwrap()));
    }

    /// R-STATUS-21: at most once per message, spaced in time after a while, never given up.
    async fn an_agent_that_ignores_the_request_is_neither_flooded_nor_given_up(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.connector(wire).connect(Persona::new(1)).await.unwrap();
        let mut asked = 0;
        for _ in 0..20 {
            asked += u32::from(asks_full_state(&agent.heartbeat().await.unwrap()));
            if wire == Wire::WebSocket {
                assert_eq!(agent.ws().fence().await.unwrap(), [], "nothing but answers");
            }
        }
        assert!((1..20).contains(&asked), "{asked} of 20");
        server.clock.advance(Duration::from_secs(3600));
        assert!(asks_full_state(&agent.heartbeat().await.unwrap()), "not given up");
        assert!(says_nothing(&agent.report_full_state().await.unwrap()), "and content at last");
    }
}

/// R-STATUS-16: one connection's gap leaves the other agents on it alone.
#[tokio::test]
async fn of_a_hundred_agents_on_one_socket_a_gap_concerns_one() {
    let server = TestServer::start().await;
    let mut ws = server.ws().await;
    let mut personas: Vec<Persona> = (0..100).map(Persona::new).collect();
    for persona in &mut personas {
        assert!(says_nothing(&ws.exchange(&persona.full_state()).await.unwrap()));
    }
    personas[41].sequence_num += 1;
    for (number, persona) in personas.iter_mut().enumerate() {
        let answer = ws.exchange(&persona.heartbeat()).await.unwrap();
        assert_eq!(asks_full_state(&answer), number == 41);
    }
    assert_eq!(server.handle.stats().full_state_requested, 1);
}

fn seed(persona: &Persona, sequence_num: u64) -> Seed {
    let mut known = PartSet::NONE;
    for part in [Part::AgentDescription, Part::Health, Part::EffectiveConfig, Part::RemoteConfigStatus] {
        known.insert(part);
    }
    Seed {
        sequence_num: Some(SequenceNum(sequence_num)),
        capabilities: persona.capabilities,
        last_seen: Wall(1_700_000_000_000),
        known,
        ..Seed::new(persona.uid)
    }
}
