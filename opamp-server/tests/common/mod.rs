//! A server on a loopback port with a clock in the test's hand, and agents made of tokio-tungstenite.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    dead_code,
    reason = "support of several tests"
)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use http::Request;
use opamp_proto::{InstanceUid, Mono, Now, Wall, pb};
use opamp_server::{
    AgentChange, Authenticate, Builder, Clock, Event, Events, FrameReader, InsecureAcceptEveryone,
    OpampServer, ServerHandle, ServerSettings, TlsSource,
};
use prost::Message as _;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

/// Long enough for a loaded machine, short enough for a person.
pub const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
pub struct HandClock(AtomicU64);

impl HandClock {
    pub fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds * 1000, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Now {
        let ms = self.0.load(Ordering::SeqCst);
        Now { mono: Mono(ms), wall: Wall(1_700_000_000_000 + ms) }
    }
}

pub struct TestServer {
    pub address: SocketAddr,
    pub handle: ServerHandle,
    pub clock: Arc<HandClock>,
    events: Mutex<Option<Events>>,
}

impl TestServer {
    pub async fn start() -> Self {
        Self::with(Arc::new(InsecureAcceptEveryone), ServerSettings::default()).await
    }

    /// One that reads and writes frames this way.
    pub async fn on(frames: FrameReader) -> Self {
        let settings = ServerSettings { frames, ..ServerSettings::default() };
        Self::with(Arc::new(InsecureAcceptEveryone), settings).await
    }

    pub async fn with(auth: Arc<dyn Authenticate>, settings: ServerSettings) -> Self {
        Self::built(auth, settings, |builder| builder).await
    }

    /// With what else there is to set.
    pub async fn built(
        auth: Arc<dyn Authenticate>,
        settings: ServerSettings,
        finish: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        Self::listening(auth, settings, None, finish).await
    }

    /// Behind TLS.
    pub async fn over_tls(config: ServerConfig, settings: ServerSettings) -> Self {
        let tls = Some(TlsSource::new(config));
        Self::listening(Arc::new(InsecureAcceptEveryone), settings, tls, |builder| builder).await
    }

    async fn listening(
        auth: Arc<dyn Authenticate>,
        settings: ServerSettings,
        tls: Option<TlsSource>,
        finish: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let clock = Arc::new(HandClock::default());
        // Sweeps look at the hand clock often; how long a deadline is, the hand clock says.
        let settings = ServerSettings { sweep_interval: Duration::from_millis(5), ..settings };
        let builder =
            OpampServer::builder(auth).settings(settings).clock(Arc::clone(&clock) as Arc<dyn Clock>);
        let (service, handle, driver) = finish(builder).build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(driver.run());
        tokio::spawn(opamp_server::serve(listener, tls, service));
        let events = Mutex::new(handle.events());
        Self { address, handle, clock, events }
    }

    pub async fn connect(&self, token: Option<&str>) -> Agent {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let request = Request::get(format!("ws://{}/v1/opamp", self.address))
            .header("host", "x")
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let request = match token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        };
        let (socket, response) = client_async(request.body(()).unwrap(), stream).await.unwrap();
        assert_eq!(response.status(), 101);
        Agent { socket, sequence: 0 }
    }

    /// Waits for an agent change that fits.
    #[allow(clippy::await_holding_lock)] // one test task waits for events, and nobody else takes them
    pub async fn change(&self, what: &str, fits: impl Fn(&AgentChange) -> bool) -> AgentChange {
        let mut events = self.events.try_lock().expect("one waiter at a time").take().unwrap();
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                match events.next().await.expect("the server runs") {
                    Event::Agent(change) if fits(&change) => break *change,
                    _ => {}
                }
            }
        });
        let found = found.await.unwrap_or_else(|_| panic!("no change came: {what}"));
        *self.events.lock().unwrap() = Some(events);
        found
    }

    /// Waits for an event that fits.
    #[allow(clippy::await_holding_lock)] // as above
    pub async fn event<T>(&self, what: &str, fits: impl Fn(Event) -> Option<T>) -> T {
        let mut events = self.events.try_lock().expect("one waiter at a time").take().unwrap();
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Some(found) = fits(events.next().await.expect("the server runs")) {
                    break found;
                }
            }
        });
        let found = found.await.unwrap_or_else(|_| panic!("no event came: {what}"));
        *self.events.lock().unwrap() = Some(events);
        found
    }

    /// One poll with everything there is about its answer.
    pub async fn poll(&self, token: Option<&str>, message: &pb::AgentToServer) -> Polled {
        let body = message.encode_to_vec();
        let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        let head = format!(
            "POST /v1/opamp HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n{token}connection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        let mut response = Vec::new();
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut response)).await.expect("an answer").unwrap();
        let end = response.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(response[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let retry_after = head.lines().find_map(|line| line.strip_prefix("retry-after: ")?.parse().ok());
        let message = pb::ServerToAgent::decode(&response[end + 4..]).ok();
        Polled { status, retry_after, message }
    }

    pub async fn until(&self, what: &str, reached: impl Fn(&ServerHandle) -> bool) {
        let poll = async {
            while !reached(&self.handle) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, poll).await.is_ok(), "never happened: {what}");
    }
}

/// The answer to a poll.
#[derive(Debug)]
pub struct Polled {
    pub status: u16,
    pub retry_after: Option<u64>,
    pub message: Option<pb::ServerToAgent>,
}

/// An agent whose socket is read all the time, so that pings are answered.
pub struct Alive {
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<(Agent, Vec<pb::ServerToAgent>)>,
}

impl Alive {
    /// The agent back, and what it received meanwhile.
    pub async fn stop(self) -> (Agent, Vec<pb::ServerToAgent>) {
        let _ = self.stop.send(());
        self.task.await.unwrap()
    }
}

pub struct Agent {
    pub socket: WebSocketStream<TcpStream>,
    sequence: u64,
}

impl Agent {
    /// Reads on in the background.
    pub fn keep_alive(mut self) -> Alive {
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let mut received = Vec::new();
            loop {
                tokio::select! {
                    _ = &mut stopped => break,
                    message = self.socket.next() => match message {
                        Some(Ok(Message::Binary(bytes))) => {
                            received.push(pb::ServerToAgent::decode(&bytes[1..]).unwrap());
                        }
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => break,
                    },
                }
            }
            (self, received)
        });
        Alive { stop, task }
    }

    pub async fn send(&mut self, uid: InstanceUid, message: pb::AgentToServer) {
        self.sequence += 1;
        self.send_numbered(uid, self.sequence, message).await;
    }

    pub async fn send_numbered(&mut self, uid: InstanceUid, sequence_num: u64, message: pb::AgentToServer) {
        let message = numbered(uid, sequence_num, message);
        let mut bytes = vec![0];
        message.encode(&mut bytes).unwrap();
        self.socket.send(Message::Binary(bytes.into())).await.unwrap();
    }

    pub async fn say(&mut self, uid: InstanceUid, message: pb::AgentToServer) -> pb::ServerToAgent {
        self.send(uid, message).await;
        self.receive().await
    }

    pub async fn receive(&mut self) -> pb::ServerToAgent {
        match self.next().await {
            Some(Message::Binary(bytes)) => pb::ServerToAgent::decode(&bytes[1..]).unwrap(),
            other => panic!("expected a message, got {other:?}"),
        }
    }

    /// The close code that comes next.
    pub async fn close_code(&mut self) -> u16 {
        loop {
            match self.next().await {
                Some(Message::Close(frame)) => return frame.expect("a code").code.into(),
                Some(_) => {}
                None => panic!("the stream ended without a Close frame"),
            }
        }
    }

    /// The next message that is not an answer to a ping.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("nothing came");
            match next {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return Some(message),
                Some(Err(_)) | None => return None,
            }
        }
    }
}

pub fn uid(number: u8) -> InstanceUid {
    InstanceUid::from_bytes([number; 16])
}

/// A message with its number, as a poll carries it.
pub fn numbered(uid: InstanceUid, sequence_num: u64, message: pb::AgentToServer) -> pb::AgentToServer {
    pb::AgentToServer {
        instance_uid: uid.as_bytes().to_vec().into(),
        sequence_num,
        capabilities: 0xffff,
        ..message
    }
}

pub fn full() -> pb::AgentToServer {
    pb::AgentToServer {
        agent_description: Some(pb::AgentDescription::default()),
        health: Some(pb::ComponentHealth { healthy: true, ..Default::default() }),
        effective_config: Some(pb::EffectiveConfig::default()),
        remote_config_status: Some(pb::RemoteConfigStatus::default()),
        package_statuses: Some(pb::PackageStatuses::default()),
        available_components: Some(pb::AvailableComponents::default()),
        connection_settings_status: Some(pb::ConnectionSettingsStatus::default()),
        ..Default::default()
    }
}

/// One poll.
pub async fn post(address: std::net::SocketAddr, body: Vec<u8>) -> pb::ServerToAgent {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/opamp HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.unwrap();
    assert!(response.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&response));
    let body = response.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    prost::Message::decode(&response[body..]).unwrap()
}
