//! R-CMD: the restart command.

use opamp_proto::pb;
use opamp_server::CommandError;

use super::common::*;

fn restart() -> pb::ServerToAgentCommand {
    pb::ServerToAgentCommand { r#type: pb::CommandType::Restart.into() }
}

on_both_transports! {
    /// R-CMD-01.
    async fn a_command_comes_with_nothing_but_identity_and_capabilities(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, restartable(1)).await;
        let uid = agent.persona.uid;
        // A gap, an offer and the order at once: three wishes of the server.
        agent.persona.sequence_num += 1;
        if wire == Wire::WebSocket {
            // The order is in the mailbox before the task looks at the socket again.
            server.handle.restart_agent(&uid).unwrap();
            server.assign(uid, &yaml("a: 1\n"));
        } else {
            server.assign(uid, &yaml("a: 1\n"));
            server.handle.restart_agent(&uid).unwrap();
        }
        let message = agent.persona.heartbeat();
        let mut heard = vec![agent.exchange(&message).await.unwrap()];
        let wishes: [fn(&pb::ServerToAgent) -> bool; 3] =
            [asks_full_state, |message| message.command.is_some(), |message| message.remote_config.is_some()];
        for _ in 0..5 {
            if wishes.iter().all(|wish| heard.iter().any(wish)) {
                break;
            }
            heard.push(agent.next_message().await.unwrap());
        }
        for wish in wishes {
            assert!(heard.iter().any(wish), "{heard:#?}");
        }
        let commands: Vec<_> = heard.iter().filter(|message| message.command.is_some()).collect();
        assert_eq!(commands.len(), 1, "ordered once, sent once");
        let alone = pb::ServerToAgent {
            instance_uid: commands[0].instance_uid.clone(),
            capabilities: commands[0].capabilities,
            command: Some(restart()),
            ..Default::default()
        };
        assert_eq!(*commands[0], alone);
    }

    /// R-CMD-01 in time: an order is given once.
    async fn an_order_is_given_once(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, restartable(1)).await;
        server.handle.restart_agent(&agent.persona.uid).unwrap();
        assert_eq!(agent.next_message().await.unwrap().command, Some(restart()));
        for _ in 0..3 {
            assert!(says_nothing(&agent.heartbeat().await.unwrap()));
        }
        assert_eq!(server.handle.stats().restarts_sent, 1);
    }

    /// R-CMD-01 in time: commands do not wait for agents that have left.
    async fn an_agent_that_has_left_gets_no_order(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, restartable(1)).await;
        let uid = agent.persona.uid;
        agent.disconnect().await.unwrap();
        server.until(uid, |agent| agent.disconnect.is_some()).await;
        assert_eq!(server.handle.restart_agent(&uid), Err(CommandError::NoSession));
        agent.reconnect().await.unwrap();
        assert!(says_nothing(&agent.heartbeat().await.unwrap()));
    }
}
