//! Agents of the testkit, which speak all of the protocol.

use opamp_proto::InstanceUid;
use opamp_testkit::{
    agent::{Connector, Persona, ScriptedAgent, Wire},
    raw::Endpoint,
};
use serde_json::Value;

use super::TestServer;

/// Connects an agent that has reported everything, and answers its path in the API.
pub async fn connect(server: &TestServer, wire: Wire, persona: Persona) -> (ScriptedAgent, String) {
    let connector = Connector::new(Endpoint::plain(server.running.opamp_addr()), wire);
    let (agent, _) = connector.start(persona).await.unwrap();
    let path = path_of(server, &agent.persona.uid).await;
    (agent, path)
}

/// The path in the API of the agent with this identity, once it is in the inventory.
pub async fn path_of(server: &TestServer, uid: &InstanceUid) -> String {
    let uid = uid.to_string();
    let find = |page: &Value| {
        let agents = page["agents"].as_array().unwrap();
        agents
            .iter()
            .find(|agent| agent["uid"] == uid.as_str())
            .map(|agent| agent["id"].as_str().unwrap().to_owned())
    };
    let page = server.eventually("/api/v1/agents", |page| find(page).is_some()).await;
    format!("/api/v1/agents/{}", find(&page).unwrap())
}
