//! Servers that do what a test says, on a loopback port.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::{SinkExt as _, StreamExt as _};
use opamp_proto::pb;
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::common::{until, within};

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn message(&self) -> pb::AgentToServer {
        pb::AgentToServer::decode(&self.body[..]).unwrap()
    }

    /// Reads one request; `None` at the end of the stream.
    pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Self> {
        let mut bytes = Vec::new();
        let head = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        };
        let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
        let mut lines = text.lines();
        let mut first = lines.next()?.split(' ');
        let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim().to_owned()))
        };
        let headers = lines.filter_map(header).collect();
        let mut request = Self { method, target, headers, body: bytes.split_off(head) };
        let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
        while request.body.len() < length {
            if stream.read_buf(&mut request.body).await.ok()? == 0 {
                return None;
            }
        }
        Some(request)
    }
}

/// What to do with a request.
pub(crate) enum Reply {
    /// Answer so when told.
    After(Arc<Notify>, Vec<u8>),
    Bytes(Vec<u8>),
    /// Close the connection, and say nothing.
    Hangup,
    /// Neither answer nor close.
    Silence,
}

/// An answer with a status, headers and a body.
pub(crate) fn status(line: &str, headers: &str, body: &[u8]) -> Reply {
    let mut bytes =
        format!("HTTP/1.1 {line}\r\n{headers}content-length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    Reply::Bytes(bytes)
}

pub(crate) fn answer(message: &pb::ServerToAgent) -> Reply {
    status("200 OK", "content-type: application/x-protobuf\r\n", &message.encode_to_vec())
}

pub(crate) fn ack() -> pb::ServerToAgent {
    pb::ServerToAgent { capabilities: 7, ..Default::default() }
}

/// An HTTP server of a few lines.
pub(crate) struct HttpStub {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    pub(crate) connections: Arc<AtomicUsize>,
}

impl HttpStub {
    pub(crate) async fn start(reply: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let connections: Arc<AtomicUsize> = Arc::default();
        let stub = Self { address, requests: Arc::clone(&requests), connections: Arc::clone(&connections) };
        let reply = Arc::new(reply);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (reply, requests) = (Arc::clone(&reply), Arc::clone(&requests));
                tokio::spawn(async move {
                    while let Some(request) = Request::read(&mut stream).await {
                        let number = {
                            let mut requests = requests.lock().unwrap();
                            requests.push(request.clone());
                            requests.len() - 1
                        };
                        match reply(number, &request) {
                            Reply::After(told, bytes) => {
                                told.notified().await;
                                stream.write_all(&bytes).await.unwrap();
                            }
                            Reply::Bytes(bytes) => stream.write_all(&bytes).await.unwrap(),
                            Reply::Hangup => return,
                            Reply::Silence => std::future::pending().await,
                        }
                    }
                });
            }
        });
        stub
    }

    /// Answers every poll with an acknowledgement.
    pub(crate) async fn acknowledging() -> Self {
        Self::start(|_, _| answer(&ack())).await
    }

    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/v1/opamp", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) async fn request(&self, number: usize) -> Request {
        until("another request", || self.requests().len() > number).await;
        self.requests()[number].clone()
    }
}

/// A WebSocket server whose connections the test holds.
pub(crate) struct WsStub {
    pub(crate) address: SocketAddr,
    accepted: tokio::sync::Mutex<mpsc::UnboundedReceiver<WsPeer>>,
}

/// The server's end of a WebSocket.
pub(crate) struct WsPeer {
    pub(crate) socket: WebSocketStream<TcpStream>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) path: String,
    received: VecDeque<pb::AgentToServer>,
}

impl WsStub {
    #[allow(clippy::result_large_err, reason = "the signature is tungstenite's")]
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, accepted) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let sender = sender.clone();
                tokio::spawn(async move {
                    let (mut headers, mut path) = (Vec::new(), String::new());
                    let look = |request: &http::Request<()>, response| {
                        path = request.uri().path().to_owned();
                        let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
                        headers.extend(
                            request.headers().iter().map(|(name, value)| (name.to_string(), text(value))),
                        );
                        Ok(response)
                    };
                    if let Ok(socket) = tokio_tungstenite::accept_hdr_async(stream, look).await {
                        let _ = sender.send(WsPeer { socket, headers, path, received: VecDeque::new() });
                    }
                });
            }
        });
        Self { address, accepted: tokio::sync::Mutex::new(accepted) }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/v1/opamp", self.address)
    }

    pub(crate) async fn accept(&self) -> WsPeer {
        let mut accepted = self.accepted.lock().await;
        within("a connection", accepted.recv()).await.unwrap()
    }
}

impl WsPeer {
    /// The next message of the agent.
    pub(crate) async fn receive(&mut self) -> pb::AgentToServer {
        loop {
            match self.next().await {
                Some(Message::Binary(bytes)) => {
                    assert_eq!(bytes[0], 0, "the frame header");
                    return pb::AgentToServer::decode(&bytes[1..]).unwrap();
                }
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("expected a message, got {other:?}; before it {:?}", self.received),
            }
        }
    }

    pub(crate) async fn send(&mut self, message: &pb::ServerToAgent) {
        let bytes = [&[0], &message.encode_to_vec()[..]].concat();
        self.socket.send(Message::Binary(bytes.into())).await.unwrap();
    }

    /// Takes a report and acknowledges it.
    pub(crate) async fn acknowledge(&mut self) -> pb::AgentToServer {
        let message = self.receive().await;
        self.send(&ack()).await;
        message
    }

    /// The code of the Close frame that comes next, and completes the handshake.
    pub(crate) async fn close_code(&mut self) -> Option<u16> {
        loop {
            match self.next().await {
                Some(Message::Close(frame)) => {
                    let _ = self.socket.flush().await;
                    return frame.map(|frame| frame.code.into());
                }
                Some(_) => {}
                None => panic!("the stream ended without a Close frame"),
            }
        }
    }

    pub(crate) async fn next(&mut self) -> Option<Message> {
        let next = within("something from the agent", self.socket.next()).await;
        next.and_then(Result::ok)
    }
}
