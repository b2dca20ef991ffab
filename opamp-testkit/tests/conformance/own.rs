//! R-OWN: destinations of the agents' own telemetry.

use opamp_proto::pb;

use super::common::*;
use super::offers::*;

const METRICS: &str = "https://otlp.example/v1/metrics";
const TRACES: &str = "https://otlp.example/v1/traces";
const LOGS: &str = "https://otlp.example/v1/logs";

fn destinations(metrics: bool, traces: bool, logs: bool) -> pb::ConnectionSettingsOffers {
    pb::ConnectionSettingsOffers {
        own_metrics: metrics.then(|| telemetry(METRICS)),
        own_traces: traces.then(|| telemetry(TRACES)),
        own_logs: logs.then(|| telemetry(LOGS)),
        ..Default::default()
    }
}

on_both_transports! {
    /// R-OWN-02: any number of them, each in its own field.
    async fn destinations_of_any_signals_are_offered(wire: Wire) {
        let server = TestServer::start().await;
        for signals in 1..8 {
            let wanted = destinations(signals & 1 != 0, signals & 2 != 0, signals & 4 != 0);
            let mut agent = server.agent(wire, Persona::new(signals).with_settings()).await;
            let (hash, _) = server.offer_settings(agent.persona.uid, &wanted);
            let offer = agent.next_settings().await.unwrap();
            assert_eq!(&offer.hash[..], hash.as_bytes());
            assert_eq!(pb::ConnectionSettingsOffers { hash: Default::default(), ..offer }, wanted);
        }
    }

    /// R-OWN-03.
    async fn the_first_answer_to_an_agent_has_the_destinations(wire: Wire) {
        let server = TestServer::start().await;
        let persona = Persona::new(1).with_settings();
        server.offer_settings(persona.uid, &destinations(true, true, true));
        let (_agent, answer) = server.connector(wire).start(persona).await.unwrap();
        let offer = answer.connection_settings.expect("in the very first answer");
        assert_eq!(offer.own_traces, Some(telemetry(TRACES)));
        assert!(offer.own_metrics.is_some() && offer.own_logs.is_some());
    }

    /// R-OWN-04.
    async fn a_destination_that_changed_is_offered_again(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1).with_settings()).await;
        let uid = agent.persona.uid;
        server.offer_settings(uid, &destinations(true, false, false));
        let first = agent.next_settings().await.unwrap();
        assert!(says_nothing(&agent.apply_settings(&first).await.unwrap()));
        let moved = pb::ConnectionSettingsOffers {
            own_metrics: Some(telemetry("https://elsewhere.example/v1/metrics")),
            ..Default::default()
        };
        server.offer_settings(uid, &moved);
        let second = agent.next_settings().await.unwrap();
        assert_eq!(second.own_metrics, moved.own_metrics);
        assert_ne!(first.hash, second.hash);
        assert!(says_nothing(&agent.apply_settings(&second).await.unwrap()));
    }

    /// R-OWN-05: whatever else is said meanwhile, on this connection or the next.
    async fn destinations_that_did_not_change_are_not_repeated(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1).with_settings()).await;
        server.offer_settings(agent.persona.uid, &destinations(true, true, true));
        let offer = agent.next_settings().await.unwrap();
        assert!(says_nothing(&agent.apply_settings(&offer).await.unwrap()));
        // The same once more, decided anew: the agent has it.
        server.offer_settings(agent.persona.uid, &destinations(true, true, true));
        requires_silence(&server, &mut agent).await;
    }

    /// R-OWN-05: who does not report what became of settings is offered them once, and not again on every connection.
    async fn an_agent_that_reports_no_status_is_offered_destinations_once(wire: Wire) {
        let server = TestServer::start().await;
        let persona =
            Persona::new(1).with_settings().without(AgentCapabilities::REPORTS_CONNECTION_SETTINGS_STATUS);
        let mut agent = server.agent(wire, persona).await;
        server.offer_settings(agent.persona.uid, &destinations(true, false, false));
        agent.next_settings().await.unwrap();
        requires_silence(&server, &mut agent).await;
        server.offer_settings(agent.persona.uid, &destinations(true, true, false));
        assert!(agent.next_settings().await.unwrap().own_traces.is_some(), "a new decision is offered");
        requires_silence(&server, &mut agent).await;
    }
}
