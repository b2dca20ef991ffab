//! A server with TLS that shows what it saw of each connection, and answers polls.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use opamp_proto::pb;
use prost::Message as _;
use rustls::ServerConfig;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::common::until;
use crate::stub::{Request, ack};

/// One TLS connection.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The client's certificate, DER.
    pub(crate) certificate: Option<Vec<u8>>,
    pub(crate) version: String,
    pub(crate) suite: String,
    pub(crate) requests: Vec<Request>,
}

pub(crate) struct TlsStub {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    answer: Arc<Mutex<pb::ServerToAgent>>,
}

impl TlsStub {
    pub(crate) async fn start(config: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let answer = Arc::new(Mutex::new(ack()));
        let (acceptor, noted, said) =
            (TlsAcceptor::from(Arc::new(config)), Arc::clone(&seen), Arc::clone(&answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, noted, said) = (acceptor.clone(), Arc::clone(&noted), Arc::clone(&said));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let session = stream.get_ref().1;
                    let suite = session.negotiated_cipher_suite().unwrap().suite();
                    let number = {
                        let mut noted = noted.lock().unwrap();
                        noted.push(Seen {
                            certificate: session.peer_certificates().map(|chain| chain[0].to_vec()),
                            version: format!("{:?}", session.protocol_version().unwrap()),
                            suite: format!("{suite:?}"),
                            requests: Vec::new(),
                        });
                        noted.len() - 1
                    };
                    while let Some(request) = Request::read(&mut stream).await {
                        noted.lock().unwrap()[number].requests.push(request);
                        let body = said.lock().unwrap().encode_to_vec();
                        let head = format!(
                            "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
                            body.len()
                        );
                        if stream.write_all(&[head.as_bytes(), &body].concat()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, seen, answer }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}/v1/opamp", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// What it says from now on.
    pub(crate) fn say(&self, answer: pb::ServerToAgent) {
        *self.answer.lock().unwrap() = answer;
    }

    /// The last message with a status of connection settings that is no longer one of being applied.
    pub(crate) async fn told(&self) -> pb::ConnectionSettingsStatus {
        let status = || {
            let seen = self.seen();
            let messages = seen.iter().flat_map(|seen| &seen.requests).map(Request::message);
            let mut statuses = messages.filter_map(|message| message.connection_settings_status);
            statuses.rfind(|status| status.status != pb::ConnectionSettingsStatuses::Applying as i32)
        };
        until("a status", || status().is_some_and(|status| status.status != 0)).await;
        status().unwrap()
    }
}
