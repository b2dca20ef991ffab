//! A server under test: the real service behind the real listener, on a clock that the test moves.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) use opamp_proto::{AgentCapabilities, ServerCapabilities, ServerToAgentFlags};
use opamp_proto::{AgentMessage, ConfigHash, InstanceUid, Limits, Mono, Now, Part, Wall, hash, pb};
use opamp_server::{
    AgentChange, AgentSnapshot, Authenticate, Clock, Desired, Dispatch, Event, FrameReader,
    InsecureAcceptEveryone, IssueCertificate, OpampServer, ReceivedCustom, Refusal, RefusalReason,
    RemoteConfigOffer, ServerHandle, ServerSettings, TlsSource, serve,
};
pub(crate) use opamp_testkit::agent::{
    Connector, Persona, ScriptedAgent, Wire, attribute, config, padded, text,
};
pub(crate) use opamp_testkit::on_both_transports;
pub(crate) use opamp_testkit::raw::{
    Ending, Endpoint, Frame, Framing, Handshake, HttpRequest, HttpResponse, Length, Opcode, Opening, RawHttp,
    RawWs, Received,
};
pub(crate) use opamp_testkit::transcript::Transcript;
pub(crate) use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Bound on every wait for something to show in the server.
const WAIT: Duration = Duration::from_secs(10);

/// A server that runs until the test ends.
pub(crate) struct TestServer {
    pub(crate) handle: ServerHandle,
    pub(crate) clock: Arc<ManualClock>,
    endpoint: Endpoint,
    seen: Arc<Seen>,
    generation: AtomicU64,
}

/// What a test changes before the server starts.
pub(crate) struct Setup {
    pub(crate) settings: ServerSettings,
    pub(crate) limits: Limits,
    pub(crate) auth: Arc<dyn Authenticate>,
    pub(crate) path: Option<&'static str>,
    pub(crate) tls: Option<rustls::ServerConfig>,
    pub(crate) issuer: Option<Arc<dyn IssueCertificate>>,
}

/// Time that moves only when a test says so.
#[derive(Debug)]
pub(crate) struct ManualClock(AtomicU64);

#[derive(Default)]
struct Seen {
    changes: Mutex<Vec<AgentChange>>,
    refusals: Mutex<Vec<Refusal>>,
    custom: Mutex<Vec<ReceivedCustom>>,
    news: Notify,
}

impl Default for Setup {
    fn default() -> Self {
        // The clock stands still, so the sweeps may look at it as often as they like.
        let settings = ServerSettings {
            sweep_interval: Duration::from_millis(5),
            // The one for many agents; what depends on frames runs on both.
            frames: FrameReader::Lean,
            ..ServerSettings::default()
        };
        Self {
            settings,
            limits: Limits::default(),
            auth: Arc::new(InsecureAcceptEveryone),
            path: None,
            tls: None,
            issuer: None,
        }
    }
}

impl ManualClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Now {
        let millis = self.0.load(Ordering::SeqCst);
        Now { mono: Mono(millis), wall: Wall(1_700_000_000_000 + millis) }
    }
}

impl TestServer {
    /// A server with default settings that lets everyone in.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A server with changed settings.
    pub(crate) async fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = Setup::default();
        change(&mut setup);
        let clock = Arc::new(ManualClock(AtomicU64::new(1_000_000)));
        let mut builder = OpampServer::builder(setup.auth)
            .limits(setup.limits)
            .settings(setup.settings)
            .clock(Arc::clone(&clock) as Arc<dyn Clock>);
        if let Some(path) = setup.path {
            builder = builder.path(path);
        }
        if let Some(issuer) = setup.issuer {
            builder = builder
                .issue_certificates(issuer)
                .crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
        }
        let (service, handle, driver) = builder.build();
        tokio::spawn(driver.run());

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::plain(listener.local_addr().unwrap());
        tokio::spawn(serve(listener, setup.tls.map(TlsSource::new), service));

        let seen = Arc::new(Seen::default());
        let mut events = handle.events().unwrap();
        let seen_by_task = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                match event {
                    Event::Agent(change) => seen_by_task.changes.lock().unwrap().push(*change),
                    Event::Refused(refusal) => seen_by_task.refusals.lock().unwrap().push(refusal),
                    Event::Custom(received) => seen_by_task.custom.lock().unwrap().push(*received),
                    _ => {}
                }
                seen_by_task.news.notify_waiters();
            }
        });
        Self { handle, clock, endpoint, seen, generation: AtomicU64::new(0) }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    pub(crate) fn connector(&self, wire: Wire) -> Connector {
        Connector::new(self.endpoint(), wire)
    }

    /// An agent that has reported its full state; the answer is dropped.
    pub(crate) async fn agent(&self, wire: Wire, persona: Persona) -> ScriptedAgent {
        self.connector(wire).start(persona).await.unwrap().0
    }

    pub(crate) async fn ws(&self) -> RawWs {
        RawWs::connect(&self.endpoint, &Transcript::new()).await.unwrap()
    }

    pub(crate) async fn http(&self) -> RawHttp {
        RawHttp::connect(&self.endpoint, &Transcript::new()).await.unwrap()
    }

    /// One POST on a connection of its own.
    pub(crate) async fn post(&self, request: &HttpRequest) -> HttpResponse {
        self.http().await.exchange(request).await.unwrap()
    }

    /// What the server knows of an agent.
    pub(crate) fn snapshot(&self, uid: InstanceUid) -> AgentSnapshot {
        self.handle.agent(&uid).unwrap_or_else(|| panic!("the server does not know {uid}"))
    }

    pub(crate) fn knows(&self, uid: InstanceUid) -> bool {
        self.handle.agent(&uid).is_some()
    }

    /// A reported part as the server exposes it.
    pub(crate) fn part<M: Message + Default>(&self, uid: InstanceUid, part: Part) -> Option<M> {
        let snapshot = self.snapshot(uid);
        snapshot.state.part(part).map(|bytes| M::decode(&bytes[..]).unwrap())
    }

    pub(crate) fn health(&self, uid: InstanceUid) -> Option<pb::ComponentHealth> {
        self.part(uid, Part::Health)
    }

    /// Makes a configuration the desired one of an agent.
    pub(crate) fn assign(&self, uid: InstanceUid, config: &pb::AgentConfigMap) -> (ConfigHash, Dispatch) {
        let hash = hash::config_hash(config);
        let dispatch = self.assign_as(uid, &hash, config);
        (hash, dispatch)
    }

    /// The same under a hash of the test's own.
    pub(crate) fn assign_as(
        &self,
        uid: InstanceUid,
        hash: &ConfigHash,
        config: &pb::AgentConfigMap,
    ) -> Dispatch {
        let offer = RemoteConfigOffer::new(hash.clone(), config);
        self.handle.set_desired(&uid, Desired::remote_config(self.next_generation(), offer))
    }

    /// A generation later than every one before, of any kind.
    pub(crate) fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Waits until the server shows an agent as `wanted`.
    pub(crate) async fn until(
        &self,
        uid: InstanceUid,
        wanted: impl Fn(&AgentSnapshot) -> bool,
    ) -> AgentSnapshot {
        self.eventually(|| self.handle.agent(&uid).filter(&wanted))
            .await
            .unwrap_or_else(|| panic!("never as wanted: {:#?}", self.handle.agent(&uid)))
    }

    /// Waits for a refusal with this reason.
    pub(crate) async fn refusal(&self, reason: RefusalReason) -> Refusal {
        let found = || self.refusals().into_iter().find(|refusal| refusal.reason == reason);
        self.eventually(found).await.unwrap_or_else(|| panic!("no {reason}, but {:?}", self.refusals()))
    }

    pub(crate) fn refusals(&self) -> Vec<Refusal> {
        self.seen.refusals.lock().unwrap().clone()
    }

    /// Waits for this many custom messages, and returns all there are.
    pub(crate) async fn custom(&self, count: usize) -> Vec<ReceivedCustom> {
        let found = || {
            let received = self.seen.custom.lock().unwrap();
            (received.len() >= count).then(|| received.clone())
        };
        self.eventually(found)
            .await
            .unwrap_or_else(|| panic!("fewer: {:?}", self.seen.custom.lock().unwrap()))
    }

    /// Every change of this agent that was delivered, with any of its identities.
    pub(crate) fn changes(&self, uid: InstanceUid) -> Vec<AgentChange> {
        let changes = self.seen.changes.lock().unwrap();
        changes
            .iter()
            .filter(|change| change.snapshot.uid == uid || change.previous_uid == Some(uid))
            .cloned()
            .collect()
    }

    pub(crate) fn rejected(&self, reason: RefusalReason) -> u64 {
        self.handle.stats().frames_rejected[reason.index()]
    }

    /// Lets time pass, at least the 30 s between two pings, and waits until the server has looked at every deadline.
    ///
    /// A socket of its own shows when: it is pinged or closed in the sweep that looks at the agents too.
    pub(crate) async fn pass(&self, time: Duration) {
        let mut canary = self.ws().await;
        canary.exchange(&Persona::new(u32::MAX).full_state()).await.unwrap();
        self.clock.advance(time);
        assert!(matches!(canary.next().await.unwrap(), Received::Ping(_) | Received::Close(_)));
    }

    /// Looks at every event, and in between now and then, until there is something.
    pub(crate) async fn eventually<T>(&self, look: impl Fn() -> Option<T>) -> Option<T> {
        let waiting = async {
            loop {
                if let Some(found) = look() {
                    return found;
                }
                // Not every fact comes with an event: checkpoints and counters do not.
                let _ = timeout(Duration::from_millis(5), self.seen.news.notified()).await;
            }
        };
        timeout(WAIT, waiting).await.ok()
    }
}

/// A configuration of one YAML file without a name.
pub(crate) fn yaml(body: &str) -> pb::AgentConfigMap {
    config(&[("", body)])
}

/// A hash that costs nothing, for configurations too large to hash without optimisation.
pub(crate) fn any_hash() -> ConfigHash {
    ConfigHash::new(&b"hash"[..])
}

/// The bytes of an agent's message behind the WebSocket header 0.
pub(crate) fn framed(message: &pb::AgentToServer) -> Vec<u8> {
    let mut payload = vec![0];
    message.encode(&mut payload).unwrap();
    payload
}

/// What a message of the server says beside identity and capabilities, for comparing.
pub(crate) fn says_nothing(message: &pb::ServerToAgent) -> bool {
    let bare = pb::ServerToAgent {
        instance_uid: message.instance_uid.clone(),
        capabilities: message.capabilities,
        ..Default::default()
    };
    *message == bare
}

/// The error of an answer, which has to have one.
#[track_caller]
pub(crate) fn error(message: &pb::ServerToAgent) -> &pb::ServerErrorResponse {
    message.error_response.as_ref().unwrap_or_else(|| panic!("no error in {message:?}"))
}

/// Requires a BadRequest that excludes all else (R-MSG-09) and says something (R-ERR-03).
#[track_caller]
pub(crate) fn bad_request(message: &pb::ServerToAgent) -> String {
    let error = error(message);
    assert_eq!(error.r#type, pb::ServerErrorResponseType::BadRequest as i32);
    assert!(!error.error_message.is_empty());
    assert!(error.details.is_none(), "retry_info belongs to Unavailable");
    let alone = pb::ServerToAgent {
        instance_uid: message.instance_uid.clone(),
        error_response: message.error_response.clone(),
        ..Default::default()
    };
    assert_eq!(*message, alone, "an error excludes every other field");
    error.error_message.clone()
}

pub(crate) fn asks_full_state(message: &pb::ServerToAgent) -> bool {
    ServerToAgentFlags::from_bits(message.flags).contains(ServerToAgentFlags::REPORT_FULL_STATE)
}

/// A session with everything in it: first report, settled heartbeat, offer and APPLIED, a gap and full state, restart,
/// good-bye. Returns every message of the server but the answer to the good-bye.
pub(crate) async fn scenario(server: &TestServer, agent: &mut ScriptedAgent) -> Vec<pb::ServerToAgent> {
    let uid = agent.persona.uid;
    let mut heard = vec![agent.report_full_state().await.unwrap(), agent.heartbeat().await.unwrap()];
    server.assign(uid, &config(&[("a.yaml", "a: 1\n"), ("b.yaml", "b: 2\n")]));
    let offered = agent.until(|message| message.remote_config.is_some()).await.unwrap();
    let offer = offered.remote_config.clone().unwrap();
    heard.push(offered);
    heard.push(agent.apply(&offer).await.unwrap());
    agent.persona.sequence_num += 3;
    heard.push(agent.heartbeat().await.unwrap());
    heard.push(agent.report_full_state().await.unwrap());
    server.handle.restart_agent(&uid).unwrap();
    heard.push(agent.until(|message| message.command.is_some()).await.unwrap());
    heard.push(agent.heartbeat().await.unwrap());
    agent.disconnect().await.unwrap();
    heard
}

/// An agent that also takes restart orders.
pub(crate) fn restartable(number: u32) -> Persona {
    Persona::new(number).and(AgentCapabilities::ACCEPTS_RESTART_COMMAND)
}

/// Decodes with the crate's own lazy decoder, as a second opinion on what a script sends.
pub(crate) fn is_valid(bytes: &[u8]) -> bool {
    AgentMessage::decode(bytes, &Limits::default()).is_ok()
}
