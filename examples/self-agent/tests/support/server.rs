//! A fleet server of its own for each test, in this process: sessions, inventory and configurations.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opamp_fleet::manager::{Actor, FleetManager, ManagerSettings};
use opamp_proto::{InstanceUid, Part, pb};
use opamp_server::{
    AgentSnapshot, Authenticate, InsecureAcceptEveryone, MutualTls, OpampServer, ServerHandle, StaticToken,
    StaticTokens, SystemClock, TlsSource,
};
use opamp_store::MemoryStore;
use opamp_testkit::certs::{Authority, Identity};
use prost::Message as _;
use tokio::net::TcpListener;

use super::PATIENCE;

/// A running server. It ends with the runtime of its test.
pub struct TestServer {
    pub address: SocketAddr,
    handle: ServerHandle,
    fleet: FleetManager,
    /// What it shows and whom it trusts, if it has TLS.
    pub tls: Option<TlsSource>,
}

impl TestServer {
    /// Open to everyone.
    pub async fn start() -> Self {
        Self::with(Arc::new(InsecureAcceptEveryone), None).await
    }

    /// For those who have this token.
    pub async fn with_token(token: &str) -> Self {
        Self::with(Arc::new(StaticTokens::new(vec![StaticToken::new("edge", token)])), None).await
    }

    /// Over TLS, with this certificate.
    pub async fn with_tls(identity: &Identity) -> Self {
        Self::with(Arc::new(InsecureAcceptEveryone), Some(Authority::server_config(identity))).await
    }

    /// Over TLS, for those who show a certificate of this authority.
    pub async fn with_mutual_tls(identity: &Identity, authority: &Authority) -> Self {
        Self::with(Arc::new(MutualTls), Some(authority.mutual_server_config(identity, true))).await
    }

    pub async fn with(auth: Arc<dyn Authenticate>, tls: Option<rustls::ServerConfig>) -> Self {
        let (service, handle, driver) = OpampServer::builder(auth).build();
        let (store, settings) = (Arc::new(MemoryStore::new()), ManagerSettings::default());
        let clock = Arc::new(SystemClock::new());
        let (fleet, fleet_driver) =
            FleetManager::start(store, handle.clone(), settings, clock).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(driver.run());
        tokio::spawn(fleet_driver.run());
        let tls = tls.map(TlsSource::new);
        tokio::spawn(opamp_server::serve(listener, tls.clone(), service));
        Self { address, handle, fleet, tls }
    }

    /// Where agents connect.
    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/v1/opamp", self.address)
    }

    pub fn handle(&self) -> &ServerHandle {
        &self.handle
    }

    /// Waits until an agent is as it should be.
    pub async fn sees(
        &self,
        uid: InstanceUid,
        what: &str,
        holds: impl Fn(&AgentSnapshot) -> bool,
    ) -> AgentSnapshot {
        let since = Instant::now();
        loop {
            let agent = self.handle().agent(&uid);
            if let Some(agent) = agent.as_ref().filter(|agent| holds(agent)) {
                return agent.clone();
            }
            assert!(since.elapsed() < PATIENCE, "{what}: {agent:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Publishes a configuration of these files and assigns it to an agent.
    pub async fn assign_files(&self, uid: InstanceUid, name: &str, files: &[(&str, &[u8])]) {
        let object = |body: &[u8]| pb::AgentConfigObject { body: body.to_vec().into(), ..Default::default() };
        let config_map: BTreeMap<_, _> =
            files.iter().map(|(name, body)| ((*name).to_owned(), object(body))).collect();
        let (fleet, actor) = (&self.fleet, Actor::system());
        let map = pb::AgentConfigMap { config_map };
        let version = fleet.create_config(&actor, name, map, "").await.unwrap().version;
        fleet.publish(&actor, name, version, None).await.unwrap();
        let since = Instant::now();
        let id = loop {
            if let Some(id) = fleet.agent_id(&uid) {
                break id;
            }
            assert!(since.elapsed() < PATIENCE, "{uid} has no record");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        fleet.assign(&actor, &id, name, version, None).await.unwrap();
    }

    /// The same with one document.
    pub async fn assign(&self, uid: InstanceUid, name: &str, document: &str) {
        self.assign_files(uid, name, &[("", document.as_bytes())]).await;
    }
}

/// What became of the configuration offered last: status and error text.
pub fn config_status(agent: &AgentSnapshot) -> (pb::RemoteConfigStatuses, String) {
    match &agent.remote_config.report {
        Some(report) => (report.status.try_into().unwrap(), report.error.clone()),
        None => (pb::RemoteConfigStatuses::Unset, String::new()),
    }
}

/// The effective configuration as text; empty if there is none.
pub fn effective(agent: &AgentSnapshot) -> String {
    let Some(bytes) = agent.state.part(Part::EffectiveConfig) else { return String::new() };
    let message = pb::EffectiveConfig::decode(&bytes[..]).unwrap();
    let files = message.config_map.unwrap().config_map;
    String::from_utf8(files[""].body.to_vec()).unwrap()
}

pub fn health(agent: &AgentSnapshot) -> pb::ComponentHealth {
    let bytes = agent.state.part(Part::Health).cloned().unwrap_or_default();
    pb::ComponentHealth::decode(&bytes[..]).unwrap()
}

pub fn description(agent: &AgentSnapshot) -> pb::AgentDescription {
    let bytes = agent.state.part(Part::AgentDescription).cloned().unwrap_or_default();
    pb::AgentDescription::decode(&bytes[..]).unwrap()
}

/// The text of an attribute.
pub fn attribute(attributes: &[pb::KeyValue], key: &str) -> Option<String> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        pb::any_value::Value::StringValue(text) => Some(text.clone()),
        other => panic!("{key} is {other:?}"),
    }
}
