//! R-CAP: capabilities and gating.

use opamp_proto::{Part, pb};
use opamp_server::{CommandError, RefusalReason};

use super::common::*;
use super::offers::*;

type IsThere = fn(&pb::ConnectionSettingsOffers) -> bool;

/// The parts of connection settings, each with the bit that asks for it.
const PARTS: [(AgentCapabilities, IsThere); 5] = [
    (AgentCapabilities::REPORTS_OWN_TRACES, |offer| offer.own_traces.is_some()),
    (AgentCapabilities::REPORTS_OWN_METRICS, |offer| offer.own_metrics.is_some()),
    (AgentCapabilities::REPORTS_OWN_LOGS, |offer| offer.own_logs.is_some()),
    (AgentCapabilities::ACCEPTS_OPAMP_CONNECTION_SETTINGS, |offer| offer.opamp.is_some()),
    (AgentCapabilities::ACCEPTS_OTHER_CONNECTION_SETTINGS, |offer| !offer.other_connections.is_empty()),
];

on_both_transports! {
    /// R-CAP-05.
    async fn capabilities_may_change_in_mid_session(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1)).await;
        let uid = agent.persona.uid;
        agent.persona.capabilities.remove(AgentCapabilities::ACCEPTS_REMOTE_CONFIG);
        assert!(says_nothing(&agent.heartbeat().await.unwrap()));
        server.assign(uid, &yaml("a: 1\n"));
        if wire == Wire::WebSocket {
            assert_eq!(agent.ws().fence().await.unwrap(), [], "nothing is pushed");
        }
        assert!(says_nothing(&agent.heartbeat().await.unwrap()), "nothing is answered either");
        // An outdated hash obliges the server to offer; the capability wins.
        let status = pb::RemoteConfigStatus { last_remote_config_hash: "old".into(), ..Default::default() };
        let answer = agent.report(|message| message.remote_config_status = Some(status)).await.unwrap();
        assert!(says_nothing(&answer));

        agent.persona.capabilities.insert(AgentCapabilities::ACCEPTS_REMOTE_CONFIG);
        let answer = agent.heartbeat().await.unwrap();
        assert!(answer.remote_config.is_some(), "with the bit the offer is back: {answer:?}");
    }

    /// R-CAP-07, R-INTEROP-03.
    async fn undefined_server_bits_are_never_sent(wire: Wire) {
        let server = TestServer::with(|setup| {
            setup.settings.session.capabilities = ServerCapabilities::from_bits(u64::MAX);
        })
        .await;
        let mut agent = server.connector(wire).connect(restartable(1)).await.unwrap();
        for message in scenario(&server, &mut agent).await {
            assert_eq!(message.capabilities & !0x7f, 0);
        }
    }

    /// R-CAP-08: even a server that is set to offer nothing takes status reports.
    async fn accepts_status_is_always_set(wire: Wire) {
        let server = TestServer::with(|setup| setup.settings.session.capabilities = ServerCapabilities::NONE).await;
        let mut agent = server.connector(wire).connect(Persona::new(1)).await.unwrap();
        let answer = agent.report_full_state().await.unwrap();
        assert_eq!(answer.capabilities, ServerCapabilities::ACCEPTS_STATUS.bits());
        for _ in 0..3 {
            let later = agent.heartbeat().await.unwrap().capabilities;
            assert!(later == 0 || later == ServerCapabilities::ACCEPTS_STATUS.bits(), "{later:#x}");
        }
        assert!(server.part::<pb::AgentDescription>(agent.persona.uid, Part::AgentDescription).is_some());
    }

    /// R-CAP-09, R-CAP-10 (A-13: every HTTP answer may be the first of its connection).
    async fn the_first_message_announces_the_capabilities(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.connector(wire).connect(Persona::new(1)).await.unwrap();
        let announced = agent.report_full_state().await.unwrap().capabilities;
        let expected = ServerCapabilities::ACCEPTS_STATUS
            | ServerCapabilities::OFFERS_REMOTE_CONFIG
            | ServerCapabilities::ACCEPTS_EFFECTIVE_CONFIG
            | ServerCapabilities::OFFERS_PACKAGES
            | ServerCapabilities::ACCEPTS_PACKAGES_STATUS
            | ServerCapabilities::OFFERS_CONNECTION_SETTINGS;
        assert_eq!(announced, expected.bits());
        for _ in 0..3 {
            let later = agent.heartbeat().await.unwrap().capabilities;
            assert!(later == 0 || later == announced);
        }
        agent.vanish();
        agent.reconnect().await.unwrap();
        assert_eq!(agent.heartbeat().await.unwrap().capabilities, announced, "a new connection");
    }

    /// R-CAP-12, R-CAP-13.
    async fn an_agent_that_only_reports_status_is_asked_for_nothing_else(wire: Wire) {
        let server = TestServer::start().await;
        let persona = Persona::new(1).with_capabilities(AgentCapabilities::REPORTS_STATUS);
        let uid = persona.uid;
        server.assign(uid, &yaml("a: 1\n"));
        let (mut agent, answer) = server.connector(wire).start(persona).await.unwrap();
        assert!(says_nothing(&answer), "{answer:?}");
        assert_eq!(server.handle.restart_agent(&uid), Err(CommandError::NotAccepted));
        server.assign(uid, &yaml("a: 2\n"));
        for _ in 0..5 {
            assert!(says_nothing(&agent.heartbeat().await.unwrap()));
        }
        if wire == Wire::WebSocket {
            assert_eq!(agent.ws().fence().await.unwrap(), []);
        }
    }

    /// R-CAP-15: with the bit of each side, and only then.
    async fn configurations_are_offered_with_the_bits_of_both_sides_only(wire: Wire) {
        for (agent_bit, server_bit) in [(true, true), (true, false), (false, true)] {
            let server = TestServer::with(|setup| {
                if !server_bit {
                    setup.settings.session.capabilities.remove(ServerCapabilities::OFFERS_REMOTE_CONFIG);
                }
            })
            .await;
            let mut persona = Persona::new(1);
            if !agent_bit {
                persona.capabilities.remove(AgentCapabilities::ACCEPTS_REMOTE_CONFIG);
            }
            server.assign(persona.uid, &yaml("a: 1\n"));
            let (_agent, answer) = server.connector(wire).start(persona).await.unwrap();
            assert_eq!(answer.remote_config.is_some(), agent_bit && server_bit);
            let announced = ServerCapabilities::from_bits(answer.capabilities);
            assert_eq!(announced.contains(ServerCapabilities::OFFERS_REMOTE_CONFIG), server_bit);
        }
    }

    /// R-CAP-17: with the bit of each side, and only then.
    async fn packages_are_offered_with_the_bits_of_both_sides_only(wire: Wire) {
        for (agent_bit, server_bit) in [(true, true), (true, false), (false, true)] {
            let server = TestServer::with(|setup| {
                if !server_bit {
                    setup.settings.session.capabilities.remove(ServerCapabilities::OFFERS_PACKAGES);
                }
            })
            .await;
            let mut persona = Persona::new(1).with_packages();
            if !agent_bit {
                persona.capabilities.remove(AgentCapabilities::ACCEPTS_PACKAGES);
            }
            server.offer_packages(persona.uid, &packages(&[("agent", package("1", b"x"))]));
            let (mut agent, answer) = server.connector(wire).start(persona).await.unwrap();
            assert_eq!(answer.packages_available.is_some(), agent_bit && server_bit);
            let announced = ServerCapabilities::from_bits(answer.capabilities);
            assert_eq!(announced.contains(ServerCapabilities::OFFERS_PACKAGES), server_bit);
            assert!(agent.heartbeat().await.unwrap().packages_available.is_none());
        }
    }

    /// R-CAP-19, R-CAP-20, R-CAP-21, R-CAP-22, R-CAP-23: each part by a bit of its own: alone with it, and all others without.
    async fn each_part_of_connection_settings_has_its_own_bit(wire: Wire) {
        let server = TestServer::start().await;
        let mut number = 0;
        for (part, (bit, _)) in PARTS.iter().enumerate() {
            for with in [true, false] {
                number += 1;
                let mut persona = Persona::new(number).with_settings();
                for (other, (other_bit, _)) in PARTS.iter().enumerate() {
                    if (other == part) != with {
                        persona.capabilities.remove(*other_bit);
                    }
                }
                server.offer_settings(persona.uid, &everything());
                let (_agent, answer) = server.connector(wire).start(persona).await.unwrap();
                let offer = answer.connection_settings.expect("some part of it");
                for (other, (_, is_there)) in PARTS.iter().enumerate() {
                    assert_eq!(is_there(&offer), (other == part) == with, "{bit}: part {other}, {with}");
                }
            }
        }
    }

    /// R-CAP-30: what is not announced is not offered, and what is offered is announced.
    async fn connection_settings_are_offered_only_by_a_server_that_announces_them(wire: Wire) {
        for announced in [true, false] {
            let server = TestServer::with(|setup| {
                if !announced {
                    setup.settings.session.capabilities.remove(ServerCapabilities::OFFERS_CONNECTION_SETTINGS);
                }
            })
            .await;
            let persona = Persona::new(1).with_settings();
            server.offer_settings(persona.uid, &everything());
            let (mut agent, answer) = server.connector(wire).start(persona).await.unwrap();
            assert_eq!(answer.connection_settings.is_some(), announced);
            let bits = ServerCapabilities::from_bits(answer.capabilities);
            assert_eq!(bits.contains(ServerCapabilities::OFFERS_CONNECTION_SETTINGS), announced);
            assert!(agent.heartbeat().await.unwrap().connection_settings.is_none());
        }
    }

    /// R-HB-12: the interval is for agents that send heartbeats.
    async fn the_heartbeat_interval_is_for_agents_that_send_heartbeats(wire: Wire) {
        let server = TestServer::start().await;
        for (number, beats) in [(1, true), (2, false)] {
            let mut persona = Persona::new(number).with_settings();
            if !beats {
                persona.capabilities.remove(AgentCapabilities::REPORTS_HEARTBEAT);
            }
            server.offer_settings(persona.uid, &everything());
            let (_agent, answer) = server.connector(wire).start(persona).await.unwrap();
            let offered = answer.connection_settings.unwrap().opamp.unwrap();
            assert_eq!(offered.heartbeat_interval_seconds, if beats { 30 } else { 0 });
        }
    }

    /// R-CAP-05, R-CAP-13: for every kind of offer at once, as the agent's mind changes.
    async fn offers_of_every_kind_follow_the_capabilities_announced_last(wire: Wire) {
        let server = TestServer::start().await;
        let full = Persona::new(1).with_settings().with_packages();
        let mut agent =
            server.agent(wire, full.clone().with_capabilities(AgentCapabilities::REPORTS_STATUS)).await;
        let uid = agent.persona.uid;
        server.assign(uid, &yaml("a: 1\n"));
        server.offer_settings(uid, &everything());
        server.offer_packages(uid, &packages(&[("agent", package("1", b"x"))]));
        requires_silence(&server, &mut agent).await;
        agent.persona.capabilities = full.capabilities;
        let mut heard = vec![agent.heartbeat().await.unwrap()];
        let wishes: [fn(&pb::ServerToAgent) -> bool; 3] = [
            |message| message.remote_config.is_some(),
            |message| message.connection_settings.is_some(),
            |message| message.packages_available.is_some(),
        ];
        for _ in 0..5 {
            if wishes.iter().all(|wish| heard.iter().any(wish)) {
                break;
            }
            heard.push(agent.next_message().await.unwrap());
        }
        assert!(wishes.iter().all(|wish| heard.iter().any(wish)), "{heard:#?}");
        for message in heard {
            agent.obey(message).await.unwrap();
        }
        requires_silence(&server, &mut agent).await;
    }

    /// R-CAP-24.
    async fn a_restart_is_ordered_only_with_its_capability(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1)).await;
        let uid = agent.persona.uid;
        assert_eq!(server.handle.restart_agent(&uid), Err(CommandError::NotAccepted));
        assert!(says_nothing(&agent.heartbeat().await.unwrap()));

        agent.persona.capabilities.insert(AgentCapabilities::ACCEPTS_RESTART_COMMAND);
        assert!(says_nothing(&agent.heartbeat().await.unwrap()), "what was refused is not made up for");
        server.handle.restart_agent(&uid).unwrap();
        assert!(agent.next_message().await.unwrap().command.is_some());
    }

    /// R-CAP-12, A-01: a message without capabilities keeps what is known.
    async fn capabilities_that_are_not_repeated_stay_known(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1)).await;
        let uid = agent.persona.uid;
        let known = agent.persona.capabilities;
        server.assign(uid, &yaml("a: 1\n"));
        if wire == Wire::WebSocket {
            assert!(agent.next_message().await.unwrap().remote_config.is_some());
        }
        let mut bare = agent.persona.heartbeat();
        bare.capabilities = 0;
        let answer = agent.exchange(&bare).await.unwrap();
        assert_eq!(answer.remote_config.is_some(), wire == Wire::Http);
        assert_eq!(server.snapshot(uid).capabilities, known);
    }
}

/// R-CAP-24: an order that waits when the capability is withdrawn is void.
#[tokio::test]
async fn a_restart_that_waits_is_dropped_with_its_capability() {
    let server = TestServer::start().await;
    let mut agent = server.agent(Wire::Http, restartable(1)).await;
    server.handle.restart_agent(&agent.persona.uid).unwrap();
    agent.persona.capabilities.remove(AgentCapabilities::ACCEPTS_RESTART_COMMAND);
    assert!(says_nothing(&agent.heartbeat().await.unwrap()));
    agent.persona.capabilities.insert(AgentCapabilities::ACCEPTS_RESTART_COMMAND);
    assert!(says_nothing(&agent.heartbeat().await.unwrap()));
}

/// R-CAP-13: a part whose bit the agent did not set is left out, counted and named; the rest is processed.
#[tokio::test]
async fn a_part_without_its_capability_is_ignored_and_shown() {
    let server = TestServer::start().await;
    let persona = Persona::new(1).without(AgentCapabilities::REPORTS_HEALTH);
    let mut agent = server.connector(Wire::WebSocket).connect(persona).await.unwrap();
    let mut report = agent.persona.full_state();
    report.health = Some(pb::ComponentHealth { healthy: true, ..Default::default() });
    assert!(agent.exchange(&report).await.unwrap().error_response.is_none());
    let snapshot = server.snapshot(agent.persona.uid);
    assert!(snapshot.ignored.contains(Part::Health));
    assert_eq!(server.health(agent.persona.uid), None);
    assert_eq!(server.part(agent.persona.uid, Part::AgentDescription), report.agent_description);
    assert_eq!(server.rejected(RefusalReason::CapMismatch), 1);
}
