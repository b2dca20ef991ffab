//! Many agents on few connections: four on each, half of them over WebSocket and half of them polling.

use opamp_proto::pb;
use opamp_testkit::{
    agent::Persona,
    raw::{Endpoint, HttpRequest, RawHttp, RawWs},
    transcript::Transcript,
};

/// Agents that share a connection.
const ON_EACH: u32 = 4;

/// Agents and their connections.
pub struct Swarm {
    endpoint: Endpoint,
    links: Vec<(Link, Vec<Persona>)>,
}

enum Link {
    Http(RawHttp),
    WebSocket(RawWs),
}

impl Swarm {
    /// Connects agents `0..agents`. They have said nothing yet.
    pub async fn connect(endpoint: &Endpoint, agents: u32) -> Self {
        let mut links = Vec::new();
        for first in (0..agents).step_by(ON_EACH as usize) {
            let transcript = Transcript::new();
            let link = if first < agents / 2 {
                Link::WebSocket(RawWs::connect(endpoint, &transcript).await.unwrap())
            } else {
                Link::Http(RawHttp::connect(endpoint, &transcript).await.unwrap())
            };
            links.push((link, (first..agents.min(first + ON_EACH)).map(Persona::new).collect()));
        }
        Swarm { endpoint: endpoint.clone(), links }
    }

    /// Every agent says one thing. The server has no wishes.
    pub async fn say(&mut self, what: impl Fn(&mut Persona) -> pb::AgentToServer) {
        for (link, personas) in &mut self.links {
            for persona in personas {
                let message = what(persona);
                let answer = link.exchange(&self.endpoint, &message).await;
                assert!(answer.error_response.is_none(), "{answer:?}");
                assert_eq!((answer.flags, answer.remote_config), (0, None));
            }
        }
    }

    /// The agent with this number says one thing.
    pub async fn one_says(&mut self, number: u32, what: impl Fn(&mut Persona) -> pb::AgentToServer) {
        let (link, personas) = &mut self.links[(number / ON_EACH) as usize];
        let message = what(&mut personas[(number % ON_EACH) as usize]);
        link.exchange(&self.endpoint, &message).await;
    }
}

impl Link {
    async fn exchange(&mut self, endpoint: &Endpoint, message: &pb::AgentToServer) -> pb::ServerToAgent {
        let answer = match self {
            Link::Http(http) => {
                let response = http.exchange(&HttpRequest::opamp(endpoint, message)).await.unwrap();
                assert_eq!(response.status, 200);
                response.message().unwrap()
            }
            Link::WebSocket(ws) => ws.exchange(message).await.unwrap(),
        };
        let stream = match self {
            Link::Http(http) => http.stream_mut(),
            Link::WebSocket(ws) => ws.stream_mut(),
        };
        // Nobody reads what thousands of heartbeats said.
        stream.transcript().clear();
        assert_eq!(answer.instance_uid, message.instance_uid, "an answer for this one");
        answer
    }
}
