//! A world of one store, one server and one manager, and agents that poll it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use opamp_fleet::manager::{Actor, AgentDetail, AgentQuery, FleetManager, ManagerSettings};
use opamp_proto::pb::any_value::Value;
use opamp_proto::{AgentCapabilities, AgentId, InstanceUid, ServerToAgentFlags, Wall, pb};
use opamp_server::{
    Authenticate, Clock, InsecureAcceptEveryone, OpampServer, OpampService, PeerInfo, ServerHandle,
    ServerSettings, TokioClock,
};
use opamp_store::{AuditEntry, AuditQuery, Store};
use prost::Message as _;
use tokio::task::JoinHandle;
use tower_service::Service as _;

pub(crate) const CAPABILITIES: AgentCapabilities = AgentCapabilities::from_bits(
    AgentCapabilities::REPORTS_STATUS.bits()
        | AgentCapabilities::ACCEPTS_REMOTE_CONFIG.bits()
        | AgentCapabilities::REPORTS_EFFECTIVE_CONFIG.bits()
        | AgentCapabilities::REPORTS_REMOTE_CONFIG.bits()
        | AgentCapabilities::REPORTS_HEALTH.bits(),
);

pub(crate) const EPOCH: Wall = Wall(1_760_000_000_000);

pub(crate) fn uid(n: u16) -> InstanceUid {
    let mut random = [0; 10];
    random[8..].copy_from_slice(&n.to_be_bytes());
    InstanceUid::v7(1, random)
}

pub(crate) fn operator() -> Actor {
    Actor {
        name: "olivia".to_owned(),
        role: "operator".to_owned(),
        source: Some("192.0.2.1".to_owned()),
        trace_id: Some("trace-1".to_owned()),
    }
}

/// One process: it can be stopped in order, or crash. The store and the clock outlive it.
pub(crate) struct Process {
    pub(crate) manager: FleetManager,
    pub(crate) server: ServerHandle,
    pub(crate) clock: Arc<TokioClock>,
    service: OpampService,
    tasks: Vec<JoinHandle<()>>,
}

pub(crate) fn clock() -> Arc<TokioClock> {
    Arc::new(TokioClock::starting_at(EPOCH))
}

impl Process {
    pub(crate) async fn start(store: Arc<dyn Store>, clock: &Arc<TokioClock>) -> Self {
        let everyone = Arc::new(InsecureAcceptEveryone);
        Self::start_with(store, clock, everyone, ManagerSettings::default()).await
    }

    pub(crate) async fn start_with(
        store: Arc<dyn Store>,
        clock: &Arc<TokioClock>,
        auth: Arc<dyn Authenticate>,
        settings: ManagerSettings,
    ) -> Self {
        Self::start_full(store, clock, auth, ServerSettings::default(), settings).await
    }

    pub(crate) async fn start_full(
        store: Arc<dyn Store>,
        clock: &Arc<TokioClock>,
        auth: Arc<dyn Authenticate>,
        server_settings: ServerSettings,
        settings: ManagerSettings,
    ) -> Self {
        let same_clock: Arc<dyn Clock> = clock.clone();
        let builder = OpampServer::builder(auth).settings(server_settings).clock(same_clock.clone());
        let (service, server, server_driver) = builder.build();
        let (manager, driver) =
            FleetManager::start(store, server.clone(), settings, same_clock).await.expect("the fleet loads");
        let tasks = vec![tokio::spawn(server_driver.run()), tokio::spawn(driver.run())];
        Self { manager, server, clock: clock.clone(), service, tasks }
    }

    /// An orderly end: the server drains, the manager writes everything.
    pub(crate) async fn stop(self) {
        assert!(self.server.drain(Duration::from_secs(5)).await);
        self.manager.shutdown().await.expect("everything is written");
        for task in self.tasks {
            task.await.expect("no task panicked");
        }
    }

    /// kill -9: nothing more is written.
    pub(crate) async fn crash(self) {
        for task in self.tasks {
            task.abort();
            assert!(task.await.expect_err("it ran until now").is_cancelled());
        }
    }

    /// Lets the manager take in what was said, and write it.
    pub(crate) async fn settle(&self) {
        tokio::time::sleep(Duration::from_secs(2)).await;
    }

    pub(crate) fn now(&self) -> Wall {
        self.clock.now().wall
    }

    pub(crate) fn id(&self, uid: &InstanceUid) -> AgentId {
        self.manager.agent_id(uid).unwrap_or_else(|| panic!("{uid} has a record"))
    }

    pub(crate) async fn detail(&self, uid: &InstanceUid) -> AgentDetail {
        let id = self.id(uid);
        self.manager.agent(&id).await.expect("readable").expect("there is a record")
    }

    pub(crate) fn everyone(&self) -> AgentQuery {
        AgentQuery { limit: 1000, ..AgentQuery::default() }
    }

    pub(crate) async fn audit(&self, action: &str) -> Vec<AuditEntry> {
        self.manager.flush().await.expect("written");
        let query = AuditQuery { action: Some(action.to_owned()), limit: 1000, ..AuditQuery::default() };
        self.manager.audit(query).await.expect("readable").items
    }

    /// A config with one published version of the given text.
    pub(crate) async fn publish(&self, name: &str, text: &str) -> u32 {
        let actor = operator();
        let files = files(&[("collector.yaml", text)]);
        let created = match self.manager.create_config(&actor, name, files.clone(), "").await {
            Ok(created) => created,
            Err(_) => self.manager.create_version(&actor, name, files, "").await.expect("created"),
        };
        self.manager.publish(&actor, name, created.version, None).await.expect("published").version
    }

    /// Sends one poll; the status and the decoded answer.
    pub(crate) async fn poll(
        &self,
        message: &pb::AgentToServer,
        from: SocketAddr,
        token: Option<&str>,
    ) -> (u16, pb::ServerToAgent) {
        self.post(message.encode_to_vec(), from, token).await
    }

    /// The same with a body of the caller's own making.
    pub(crate) async fn post(
        &self,
        body: Vec<u8>,
        from: SocketAddr,
        token: Option<&str>,
    ) -> (u16, pb::ServerToAgent) {
        let mut request = http::Request::post("/v1/opamp").header("content-type", "application/x-protobuf");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut request = request.body(Full::new(Bytes::from(body))).expect("a request");
        let peer = PeerInfo { remote_addr: from, tls: false, client_certificate: None };
        request.extensions_mut().insert(peer);
        let response = self.service.clone().call(request).await.expect("infallible");
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, pb::ServerToAgent::decode(body).unwrap_or_default())
    }
}

/// A polling agent with everything it would report if asked.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) uid: InstanceUid,
    pub(crate) sequence: u64,
    pub(crate) capabilities: AgentCapabilities,
    pub(crate) description: pb::AgentDescription,
    pub(crate) health: pb::ComponentHealth,
    pub(crate) effective: pb::AgentConfigMap,
    pub(crate) remote_config: Option<pb::RemoteConfigStatus>,
    pub(crate) settings: Option<pb::ConnectionSettingsStatus>,
    pub(crate) packages: Option<pb::PackageStatuses>,
    pub(crate) components: Option<pb::AvailableComponents>,
    pub(crate) token: Option<String>,
    pub(crate) from: SocketAddr,
    /// How often the server asked for full state.
    pub(crate) asked: usize,
}

impl Agent {
    pub(crate) fn new(n: u16) -> Self {
        Self {
            uid: uid(n),
            sequence: 0,
            capabilities: CAPABILITIES,
            description: description(&format!("host-{n}")),
            health: health(true, 1),
            effective: files(&[("", "receivers: {}")]),
            remote_config: None,
            settings: None,
            packages: None,
            components: None,
            token: None,
            from: SocketAddr::from(([198, 51, 100, 7], 4000 + n)),
            asked: 0,
        }
    }

    /// A report of everything.
    pub(crate) fn full(&self) -> pb::AgentToServer {
        let effective = pb::EffectiveConfig { config_map: Some(self.effective.clone()) };
        let reports = |capability| self.capabilities.contains(capability);
        pb::AgentToServer {
            agent_description: Some(self.description.clone()),
            health: reports(AgentCapabilities::REPORTS_HEALTH).then(|| self.health.clone()),
            effective_config: reports(AgentCapabilities::REPORTS_EFFECTIVE_CONFIG).then_some(effective),
            // An agent that was never offered anything says so by an empty status.
            remote_config_status: reports(AgentCapabilities::REPORTS_REMOTE_CONFIG)
                .then(|| self.remote_config.clone().unwrap_or_default()),
            connection_settings_status: reports(AgentCapabilities::REPORTS_CONNECTION_SETTINGS_STATUS)
                .then(|| self.settings.clone().unwrap_or_default()),
            package_statuses: reports(AgentCapabilities::REPORTS_PACKAGE_STATUSES)
                .then(|| self.packages.clone().unwrap_or_default()),
            // The list itself only when it is asked for (R-COMP-02).
            available_components: self
                .components
                .clone()
                .map(|list| pb::AvailableComponents { components: BTreeMap::new(), ..list }),
            ..self.bare()
        }
    }

    /// A report of nothing new.
    pub(crate) fn bare(&self) -> pb::AgentToServer {
        pb::AgentToServer {
            instance_uid: Bytes::copy_from_slice(self.uid.as_bytes()),
            capabilities: self.capabilities.bits(),
            ..pb::AgentToServer::default()
        }
    }

    /// Sends a message, and answers a request for full state as agents do.
    pub(crate) async fn send(&mut self, process: &Process, message: pb::AgentToServer) -> pb::ServerToAgent {
        let answer = self.send_once(process, message).await;
        if answer.flags & ServerToAgentFlags::REPORT_FULL_STATE.bits() == 0 {
            return answer;
        }
        self.asked += 1;
        let mut later = self.send_once(process, self.full()).await;
        later.remote_config = later.remote_config.or(answer.remote_config);
        later.connection_settings = later.connection_settings.or(answer.connection_settings);
        later.packages_available = later.packages_available.or(answer.packages_available);
        later
    }

    async fn send_once(&mut self, process: &Process, mut message: pb::AgentToServer) -> pb::ServerToAgent {
        self.sequence += 1;
        message.sequence_num = self.sequence;
        let (status, answer) = process.poll(&message, self.from, self.token.as_deref()).await;
        assert_eq!(status, 200, "{answer:?}");
        answer
    }

    pub(crate) async fn connect(&mut self, process: &Process) -> pb::ServerToAgent {
        self.send(process, self.full()).await
    }

    pub(crate) async fn heartbeat(&mut self, process: &Process) -> pb::ServerToAgent {
        self.send(process, self.bare()).await
    }

    /// Reports what became of an offer, and runs it if it was applied.
    pub(crate) async fn report(
        &mut self,
        process: &Process,
        offer: &pb::AgentRemoteConfig,
        status: pb::RemoteConfigStatuses,
        error: &str,
    ) -> pb::ServerToAgent {
        let mut message = self.bare();
        if status == pb::RemoteConfigStatuses::Applied {
            self.effective = offer.config.clone().expect("an offer has files");
            message.effective_config = self.full().effective_config;
        }
        let report = pb::RemoteConfigStatus {
            last_remote_config_hash: offer.config_hash.clone(),
            status: status.into(),
            error_message: error.to_owned(),
        };
        self.remote_config = Some(report.clone());
        message.remote_config_status = Some(report);
        self.send(process, message).await
    }

    pub(crate) async fn goodbye(&mut self, process: &Process) {
        let message = pb::AgentToServer { agent_disconnect: Some(pb::AgentDisconnect {}), ..self.bare() };
        self.send(process, message).await;
    }
}

pub(crate) fn text(key: &str, value: &str) -> pb::KeyValue {
    pb::KeyValue {
        key: key.to_owned(),
        value: Some(pb::AnyValue { value: Some(Value::StringValue(value.to_owned())) }),
    }
}

pub(crate) fn description(host: &str) -> pb::AgentDescription {
    pb::AgentDescription {
        identifying_attributes: vec![
            text("service.name", "io.example.collector"),
            text("service.version", "0.128.0"),
        ],
        non_identifying_attributes: vec![text("os.type", "linux"), text("host.name", host)],
    }
}

pub(crate) fn health(healthy: bool, status_time: u64) -> pb::ComponentHealth {
    pb::ComponentHealth {
        healthy,
        start_time_unix_nano: 1_000,
        status: if healthy { "StatusOK" } else { "StatusPermanentError" }.to_owned(),
        status_time_unix_nano: status_time,
        ..pb::ComponentHealth::default()
    }
}

pub(crate) fn files(files: &[(&str, &str)]) -> pb::AgentConfigMap {
    let object = |body: &str| pb::AgentConfigObject {
        body: Bytes::copy_from_slice(body.as_bytes()),
        content_type: "text/yaml".to_owned(),
        role: String::new(),
    };
    let config_map: BTreeMap<_, _> =
        files.iter().map(|(name, body)| ((*name).to_owned(), object(body))).collect();
    pb::AgentConfigMap { config_map }
}
