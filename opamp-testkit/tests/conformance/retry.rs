//! R-RETRY: retrying.

use super::common::*;

on_both_transports! {
    /// R-RETRY-04.
    async fn every_copy_of_a_message_is_answered(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.connector(wire).connect(Persona::new(1)).await.unwrap();
        let report = agent.persona.full_state();
        for copy in 0..3 {
            let answer = agent.exchange(&report).await.unwrap();
            assert_eq!(answer.instance_uid, report.instance_uid, "copy {copy}");
            assert!(answer.error_response.is_none());
        }
        assert_eq!(server.health(agent.persona.uid), report.health);
    }

    /// R-RETRY-07.
    async fn of_ten_changes_while_an_agent_is_away_it_gets_the_last(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1)).await;
        agent.disconnect().await.unwrap();
        let uid = agent.persona.uid;
        server.until(uid, |agent| agent.disconnect.is_some()).await;
        for number in 0..10 {
            server.assign(uid, &yaml(&format!("n: {number}\n")));
        }
        agent.reconnect().await.unwrap();
        let offer = agent.heartbeat().await.unwrap().remote_config.unwrap();
        assert_eq!(offer.config, Some(yaml("n: 9\n")));
        assert!(says_nothing(&agent.apply(&offer).await.unwrap()));
        if wire == Wire::WebSocket {
            assert_eq!(agent.ws().fence().await.unwrap(), []);
        }
        assert_eq!(server.handle.stats().offers_sent, 1);
    }

    /// R-RETRY-07: an agent that was never seen gets what waits for it with its first answer.
    async fn what_is_set_before_the_first_visit_waits(wire: Wire) {
        let server = TestServer::start().await;
        let persona = Persona::new(1);
        server.assign(persona.uid, &yaml("n: 1\n"));
        server.assign(persona.uid, &yaml("n: 2\n"));
        let (_agent, answer) = server.connector(wire).start(persona).await.unwrap();
        assert_eq!(answer.remote_config.unwrap().config, Some(yaml("n: 2\n")));
    }
}

/// R-RETRY-02 from the server's side: an answer that never arrived is made up for on the next connection.
#[tokio::test]
async fn an_offer_lost_with_its_connection_comes_again() {
    let server = TestServer::start().await;
    for wire in [Wire::WebSocket, Wire::Http] {
        let mut agent = server.agent(wire, Persona::new(wire as u32)).await;
        let uid = agent.persona.uid;
        server.assign(uid, &yaml("a: 1\n"));
        let lost = agent.next_offer().await.unwrap();
        agent.vanish();
        agent.reconnect().await.unwrap();
        // The agent never saw the answer, and does not know that its number was used up.
        if wire == Wire::Http {
            agent.persona.sequence_num -= 1;
        }
        let answer = agent.heartbeat().await.unwrap();
        assert_eq!(answer.remote_config, Some(lost), "{wire:?}");
    }
}
