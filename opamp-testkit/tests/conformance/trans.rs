//! R-TRANS: transport in general.

use std::sync::Arc;

use futures::{SinkExt, StreamExt};
use opamp_testkit::certs::Authority;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite;

use super::common::*;

/// R-TRANS-01, R-HTTP-10, R-HTTP-11.
#[tokio::test]
async fn both_transports_are_served_on_one_url() {
    let server = TestServer::start().await;
    for (number, wire) in [(1, Wire::WebSocket), (2, Wire::Http)] {
        let (agent, answer) = server.connector(wire).start(Persona::new(number)).await.unwrap();
        assert!(answer.error_response.is_none());
        assert!(server.knows(agent.persona.uid));
    }
}

/// R-TRANS-03.
#[tokio::test]
async fn the_path_is_v1_opamp_unless_configured() {
    let server = TestServer::start().await;
    for (number, wire) in [(1, Wire::WebSocket), (2, Wire::Http)] {
        let mut connector = server.connector(wire);
        assert_eq!(connector.endpoint.path, "/v1/opamp");
        connector.start(Persona::new(number)).await.unwrap();
        for path in ["/", "/v1/opamp/", "/v1/opamp2", "/v1"] {
            connector.endpoint.path = path.to_owned();
            assert_eq!(status_of(&connector, Persona::new(9)).await, 404, "{path}");
        }
    }
    assert!(!server.knows(Persona::new(9).uid));
}

on_both_transports! {
    /// R-TRANS-04.
    async fn the_path_can_be_configured(wire: Wire) {
        let server = TestServer::with(|setup| setup.path = Some("/agents/in")).await;
        let mut connector = server.connector(wire);
        assert_eq!(status_of(&connector, Persona::new(1)).await, 404);
        connector.endpoint.path = "/agents/in".to_owned();
        let mut agent = connector.connect(restartable(2)).await.unwrap();
        scenario(&server, &mut agent).await;
    }

    /// R-TRANS-06, R-MSG-07, R-ID-03.
    async fn every_message_names_its_agent(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.connector(wire).connect(restartable(1)).await.unwrap();
        for message in scenario(&server, &mut agent).await {
            assert_eq!(&message.instance_uid[..], agent.persona.uid.as_bytes());
        }
    }

    /// R-TRANS-08.
    async fn many_agents_are_kept_apart(wire: Wire) {
        const AGENTS: u32 = 200;
        let server = TestServer::start().await;
        let mut agents = Vec::new();
        for number in 0..AGENTS {
            let mut persona = Persona::new(number);
            persona.health.status = format!("agent {number}");
            agents.push(server.agent(wire, persona).await);
        }
        for (number, agent) in agents.iter().enumerate() {
            server.assign(agent.persona.uid, &yaml(&format!("number: {number}\n")));
        }
        for (number, agent) in agents.iter_mut().enumerate() {
            let message = agent.until(|message| message.remote_config.is_some()).await.unwrap();
            assert_eq!(&message.instance_uid[..], agent.persona.uid.as_bytes());
            let offer = message.remote_config.unwrap();
            assert_eq!(offer.config, Some(yaml(&format!("number: {number}\n"))));
            let health = server.health(agent.persona.uid).unwrap();
            assert_eq!(health.status, format!("agent {number}"));
        }
        assert_eq!(server.handle.stats().agents, u64::from(AGENTS));
    }
}

/// R-TRANS-07: what arrives decodes as `ServerToAgent` of the schema and leaves no byte over.
#[tokio::test]
async fn answers_are_binary_protobuf_of_the_schema() {
    let server = TestServer::start().await;
    server.assign(Persona::new(1).uid, &yaml("a: 1\n"));
    let report = Persona::new(1).full_state();
    let response = server.post(&HttpRequest::opamp(&server.endpoint(), &report)).await;
    assert_eq!(response.header("content-type"), Some("application/x-protobuf"));
    let message = response.message().unwrap();
    assert!(message.remote_config.is_some() && message.capabilities != 0);
    assert_eq!(message.encoded_len(), response.body.len(), "no field outside the schema");

    let mut ws = server.ws().await;
    ws.send_message(&report).await.unwrap();
    match ws.next().await.unwrap() {
        Received::Binary(payload) => {
            let message = pb(&payload[1..]);
            assert_eq!(message.encoded_len(), payload.len() - 1);
        }
        other => panic!("{other:?}"),
    }
}

/// R-TRANS-09.
#[tokio::test]
async fn both_transports_carry_the_same_messages() {
    let mut said = Vec::new();
    for wire in [Wire::WebSocket, Wire::Http] {
        let server = TestServer::start().await;
        let mut agent = server.connector(wire).connect(restartable(1)).await.unwrap();
        scenario(&server, &mut agent).await;
        // A poll that fetches what a WebSocket gets pushed is the one difference there may be.
        let server_lines: Vec<String> =
            agent.transcript().messages().into_iter().filter(|line| line.starts_with('<')).collect();
        said.push(server_lines);
    }
    let (ws, http) = (&said[0], &said[1]);
    // The WebSocket server answers the good-bye with nothing or an acknowledgement; HTTP always answers.
    let bare = http[1].clone();
    let content = |lines: &[String]| lines.iter().filter(|line| **line != bare).cloned().collect::<Vec<_>>();
    assert_eq!(content(ws), content(http));
    assert_eq!(content(http).len(), 3, "offer, full-state request, restart: {http:#?}");
}

/// R-TRANS-10: an independent implementation of WebSocket completes the handshake and an exchange.
#[tokio::test]
async fn an_independent_websocket_client_connects_with_and_without_tls() {
    let server = TestServer::start().await;
    let addr = server.endpoint().addr;
    exchange(&format!("ws://{addr}/v1/opamp"), TcpStream::connect(addr).await.unwrap()).await;

    let ca = Authority::new("test CA");
    let tls = Authority::server_config(&ca.server(&["opamp.test"]));
    let server = TestServer::with(|setup| setup.tls = Some(tls)).await;
    let tcp = TcpStream::connect(server.endpoint().addr).await.unwrap();
    let connector = TlsConnector::from(Arc::clone(&ca.client_config()));
    let stream = connector.connect(ServerName::try_from("opamp.test").unwrap(), tcp).await.unwrap();
    exchange("wss://opamp.test/v1/opamp", stream).await;

    let endpoint = Endpoint::tls(server.endpoint().addr, ca.client_config(), "opamp.test");
    for wire in [Wire::WebSocket, Wire::Http] {
        Connector::new(endpoint.clone(), wire).start(Persona::new(2)).await.unwrap();
    }
}

async fn exchange(url: &str, stream: impl AsyncRead + AsyncWrite + Unpin) {
    let (mut ws, response) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    assert_eq!(response.status(), 101);
    let report = Persona::new(1).full_state();
    ws.send(tungstenite::Message::binary(framed(&report))).await.unwrap();
    match ws.next().await.unwrap().unwrap() {
        tungstenite::Message::Binary(payload) => {
            assert_eq!(payload[0], 0);
            assert_eq!(pb(&payload[1..]).instance_uid, report.instance_uid);
        }
        other => panic!("{other:?}"),
    }
    ws.close(None).await.unwrap();
    while let Some(frame) = ws.next().await {
        assert!(frame.unwrap().is_close());
    }
}

fn pb(bytes: &[u8]) -> opamp_proto::pb::ServerToAgent {
    Message::decode(bytes).unwrap()
}

/// Status with which a connection attempt is refused.
async fn status_of(connector: &Connector, mut persona: Persona) -> u16 {
    let endpoint = &connector.endpoint;
    let transcript = Transcript::new();
    match connector.wire {
        Wire::WebSocket => {
            match RawWs::attempt(endpoint, &Handshake::new(endpoint), &transcript).await.unwrap() {
                Opening::Open(_) => 101,
                Opening::Refused(response) => response.status,
            }
        }
        Wire::Http => {
            let mut http = RawHttp::connect(endpoint, &transcript).await.unwrap();
            http.exchange(&HttpRequest::opamp(endpoint, &persona.full_state())).await.unwrap().status
        }
    }
}
