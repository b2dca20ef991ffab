//! A minimal agent: enough to have something in the inventory. The protocol itself is tested elsewhere.

use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use opamp_proto::{AgentCapabilities, InstanceUid, frame, pb};
use prost::Message as _;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{self, client::IntoClientRequest as _},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// An agent on a WebSocket.
pub struct Agent {
    pub uid: InstanceUid,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    sequence: u64,
    capabilities: AgentCapabilities,
}

impl Agent {
    /// Connects and reports who it is. `number` makes the identity.
    pub async fn connect(url: &str, number: u8) -> Self {
        Self::connect_as(url, number, None).await.expect("the server lets it in")
    }

    /// The same with a bearer token; `None` if the server answers 401.
    pub async fn connect_as(url: &str, number: u8, token: Option<&str>) -> Option<Self> {
        let mut request = url.into_client_request().unwrap();
        if let Some(token) = token {
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let socket = match timeout(PATIENCE, tokio_tungstenite::connect_async(request)).await.unwrap() {
            Ok((socket, _)) => socket,
            Err(tungstenite::Error::Http(answer)) if answer.status() == 401 => return None,
            Err(error) => panic!("{error}"),
        };
        let capabilities = AgentCapabilities::REPORTS_STATUS
            | AgentCapabilities::ACCEPTS_REMOTE_CONFIG
            | AgentCapabilities::REPORTS_REMOTE_CONFIG
            | AgentCapabilities::REPORTS_EFFECTIVE_CONFIG
            | AgentCapabilities::ACCEPTS_RESTART_COMMAND
            | AgentCapabilities::REPORTS_HEALTH;
        let uid = InstanceUid::v7(u64::from(number), [number; 10]);
        let mut agent = Agent { uid, socket, sequence: 0, capabilities };
        let answer = agent
            .report(pb::AgentToServer {
                agent_description: Some(description(number)),
                health: Some(pb::ComponentHealth {
                    healthy: true,
                    status: "running".into(),
                    ..Default::default()
                }),
                ..Default::default()
            })
            .await;
        assert!(answer.error_response.is_none(), "{answer:?}");
        Some(agent)
    }

    /// Sends a report and reads the answer.
    pub async fn report(&mut self, mut report: pb::AgentToServer) -> pb::ServerToAgent {
        self.sequence += 1;
        report.instance_uid = self.uid.as_bytes().to_vec().into();
        report.sequence_num = self.sequence;
        report.capabilities = self.capabilities.bits();
        let mut framed = Vec::new();
        frame::encode(&report.encode_to_vec(), &mut framed);
        self.socket.send(tungstenite::Message::Binary(framed.into())).await.unwrap();
        self.receive().await
    }

    /// The next message of the server.
    pub async fn receive(&mut self) -> pb::ServerToAgent {
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await.expect("a message").unwrap().unwrap();
            if let tungstenite::Message::Binary(bytes) = message {
                return pb::ServerToAgent::decode(frame::decode(&bytes).unwrap()).unwrap();
            }
        }
    }

    /// Waits for the close frame and answers its code.
    pub async fn closed(&mut self) -> Option<u16> {
        loop {
            match timeout(PATIENCE, self.socket.next()).await.expect("a close frame") {
                Some(Ok(tungstenite::Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// Waits for an offer, then reports it as applied or failed, with the files as effective config.
    pub async fn take_offer(&mut self, error: Option<&str>) -> pb::AgentRemoteConfig {
        let offer = loop {
            if let Some(offer) = self.receive().await.remote_config {
                break offer;
            }
        };
        self.answer_offer(&offer, error).await;
        offer
    }

    async fn answer_offer(&mut self, offer: &pb::AgentRemoteConfig, error: Option<&str>) {
        let status = match error {
            None => pb::RemoteConfigStatuses::Applied,
            Some(_) => pb::RemoteConfigStatuses::Failed,
        };
        let effective = error.is_none().then(|| pb::EffectiveConfig { config_map: offer.config.clone() });
        self.report(pb::AgentToServer {
            remote_config_status: Some(pb::RemoteConfigStatus {
                last_remote_config_hash: offer.config_hash.clone(),
                status: status as i32,
                error_message: error.unwrap_or_default().into(),
            }),
            effective_config: effective,
            ..Default::default()
        })
        .await;
    }
}

fn description(number: u8) -> pb::AgentDescription {
    let attribute = |key: &str, value: String| pb::KeyValue {
        key: key.into(),
        value: Some(pb::AnyValue { value: Some(pb::any_value::Value::StringValue(value)) }),
    };
    pb::AgentDescription {
        identifying_attributes: vec![
            attribute("service.name", "otelcol".into()),
            attribute("service.version", "0.130.0".into()),
        ],
        non_identifying_attributes: vec![attribute("host.name", format!("host-{number}"))],
    }
}
