//! A clock in the test's hand, a server on a loopback port, and agents whose events are kept.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use opamp_client::{
    Builder, Client, ClientSettings, Clock, Description, Event, FailureKind, InstanceUid, Mono, Now, Proxy,
    SavedState, StateError, StateStore, Wall,
};
use opamp_proto::{ConfigHash, pb};
use opamp_server::{
    AgentSnapshot, Authenticate, Desired, InsecureAcceptEveryone, OpampServer, RemoteConfigOffer,
    ServerHandle, ServerSettings, TlsSource,
};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

/// Long enough for a loaded machine, short enough for a person.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test once for each transport, given the scheme of its endpoint; after `over tls;` with TLS.
macro_rules! on_both_transports {
    (over tls; $($tests:tt)+) => {
        on_both_transports!(@ "wss", "https"; $($tests)+);
    };
    (@ $websocket:literal, $http:literal; $($(#[$doc:meta])* async fn $name:ident($scheme:ident) $body:block)+) => {
        $(mod $name {
            #[allow(unused_imports)]
            use super::*;

            $(#[$doc])*
            async fn case($scheme: &'static str) $body

            #[tokio::test]
            async fn over_websocket() {
                case($websocket).await;
            }

            #[tokio::test]
            async fn over_http() {
                case($http).await;
            }
        })+
    };
    ($($tests:tt)+) => {
        on_both_transports!(@ "ws", "http"; $($tests)+);
    };
}

#[derive(Debug)]
pub(crate) struct HandClock(watch::Sender<u64>);

impl HandClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(0)))
    }

    pub(crate) fn advance(&self, span: Duration) {
        self.0.send_modify(|ms| *ms += u64::try_from(span.as_millis()).unwrap());
    }
}

impl Clock for HandClock {
    fn now(&self) -> Now {
        let ms = *self.0.borrow();
        Now { mono: Mono(ms), wall: Wall(1_700_000_000_000 + ms) }
    }

    fn sleep_until(&self, at: Mono) -> BoxFuture<'static, ()> {
        let mut time = self.0.subscribe();
        Box::pin(async move {
            if time.wait_for(|ms| *ms >= at.0).await.is_err() {
                std::future::pending().await
            }
        })
    }
}

/// An agent whose events are kept.
pub(crate) struct Agent {
    pub(crate) client: Client,
    pub(crate) clock: Arc<HandClock>,
    pub(crate) events: Events,
}

#[derive(Clone, Default)]
pub(crate) struct Events(Arc<Mutex<Vec<Event>>>);

/// State that outlives an agent, for tests.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Option<SavedState>>>);

impl Memory {
    pub(crate) fn of(uid: InstanceUid) -> Self {
        Self(Arc::new(Mutex::new(Some(SavedState::new(uid)))))
    }

    pub(crate) fn saved(&self) -> Option<SavedState> {
        self.0.lock().unwrap().clone()
    }
}

impl StateStore for Memory {
    fn load(&self) -> Result<Option<SavedState>, StateError> {
        Ok(self.saved())
    }

    fn save(&self, state: &SavedState) -> Result<(), StateError> {
        *self.0.lock().unwrap() = Some(state.clone());
        Ok(())
    }
}

/// A builder for an agent without a proxy, whatever the environment of the test says.
pub(crate) fn builder(endpoint: &str) -> Builder {
    Client::builder(endpoint, Description::new("com.example.agent").version("1")).proxy(Proxy::none())
}

impl Agent {
    pub(crate) fn start(builder: Builder) -> Self {
        Self::with_clock(builder, HandClock::new())
    }

    pub(crate) fn with_clock(builder: Builder, clock: Arc<HandClock>) -> Self {
        let events = Events::default();
        let kept = events.clone();
        let client = builder
            .clock(Arc::clone(&clock) as Arc<dyn Clock>)
            .on_event(move |event, _| {
                kept.0.lock().unwrap().push(event);
                std::future::ready(())
            })
            .start()
            .unwrap();
        Self { client, clock, events }
    }

    /// Waits for an event that fits, and returns it.
    pub(crate) async fn event(&self, what: &str, fits: impl Fn(&Event) -> bool) -> Event {
        let found = || self.events.all().into_iter().find(&fits);
        until(what, || found().is_some()).await;
        found().unwrap()
    }

    /// The kind of the first failure, once there is one.
    pub(crate) async fn failure(&self) -> (FailureKind, String) {
        let event = self.event("a failure", |event| event.failure().is_some()).await;
        (event.failure().unwrap().kind, event.to_string())
    }

    /// Waits until so many messages of the server were taken.
    pub(crate) async fn received(&self, messages: u64) {
        until("a message of the server", || self.client.stats().messages_received >= messages).await;
    }

    pub(crate) async fn connected(&self) {
        until("connected", || self.client.stats().is_connected).await;
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    pub(crate) fn clock_seconds(&self) -> u64 {
        self.clock.now().mono.0 / 1_000
    }

    /// Lets time pass, a little at a time, while the agent is not connected, until something holds.
    pub(crate) async fn reconnect_until(&self, what: &str, holds: impl Fn() -> bool) {
        until(what, || {
            if !self.client.stats().is_connected {
                self.clock.advance(Duration::from_millis(200));
            }
            holds()
        })
        .await;
    }

    /// Stops, with the other end of its WebSocket playing along.
    pub(crate) async fn stop_with(&self, peer: &mut crate::stub::WsPeer) {
        self.client.stop();
        peer.close_code().await;
        within("the agent stops", self.client.stopped()).await;
    }

    pub(crate) async fn stop(&self) {
        self.client.stop();
        within("the agent stops", self.client.stopped()).await;
    }
}

impl Events {
    pub(crate) fn all(&self) -> Vec<Event> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn push(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }

    pub(crate) fn failures(&self) -> Vec<FailureKind> {
        self.all().iter().filter_map(|event| event.failure().map(|failure| failure.kind)).collect()
    }
}

/// A port that nobody listens at, and nobody else can take meanwhile.
pub(crate) struct Unheard(TcpSocket);

impl Unheard {
    pub(crate) fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self(socket)
    }

    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/v1/opamp", self.0.local_addr().unwrap())
    }

    /// From now on somebody does.
    pub(crate) fn listen(self) -> TcpListener {
        self.0.listen(16).unwrap()
    }
}

pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) handle: ServerHandle,
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        Self::with(Arc::new(InsecureAcceptEveryone), ServerSettings::default(), None).await
    }

    pub(crate) async fn with(
        auth: Arc<dyn Authenticate>,
        settings: ServerSettings,
        tls: Option<TlsSource>,
    ) -> Self {
        let (service, handle, driver) = OpampServer::builder(auth).settings(settings).build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(driver.run());
        tokio::spawn(opamp_server::serve(listener, tls, service));
        Self { address, handle }
    }

    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/v1/opamp", self.address)
    }

    /// Waits until the server's view of an agent fits.
    pub(crate) async fn sees(
        &self,
        uid: InstanceUid,
        what: &str,
        fits: impl Fn(&AgentSnapshot) -> bool,
    ) -> AgentSnapshot {
        let agent = || self.handle.agent(&uid);
        until(what, || agent().is_some_and(|agent| fits(&agent))).await;
        agent().unwrap()
    }
}

pub(crate) fn desired(generation: u64, body: &[u8]) -> Desired {
    let object = pb::AgentConfigObject { body: Bytes::copy_from_slice(body), ..Default::default() };
    let config = pb::AgentConfigMap { config_map: [(String::new(), object)].into() };
    Desired::remote_config(generation, RemoteConfigOffer::new(hash(generation), &config))
}

pub(crate) fn hash(generation: u64) -> ConfigHash {
    ConfigHash::new(generation.to_be_bytes().to_vec())
}

pub(crate) fn session(change: impl FnOnce(&mut opamp_client::session::SessionSettings)) -> ClientSettings {
    let mut settings = ClientSettings::default();
    change(&mut settings.session);
    settings
}

/// A directory of this test alone, removed at its end.
pub(crate) struct Directory(std::path::PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("opamp-client-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> std::path::PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Polls until something holds.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let poll = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within(what, poll).await;
}

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("never happened: {what}"),
    }
}
