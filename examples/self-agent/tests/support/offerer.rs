//! A server without a fleet, which offers whatever a test wants.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use opamp_proto::{InstanceUid, Part, pb};
use opamp_server::{
    AgentSnapshot, ConnectionSettingsOffer, CustomCapabilities, Desired, Event, InsecureAcceptEveryone,
    Liveness, OpampServer, PackagesOffer, ReceivedCustom, ServerHandle, ServerSettings,
};
use opamp_testkit::certs::{Authority, Identity};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use super::PATIENCE;

/// A running server. It ends with the runtime of its test.
pub struct Offerer {
    pub address: SocketAddr,
    handle: ServerHandle,
    events: Mutex<opamp_server::Events>,
}

impl Offerer {
    pub async fn start() -> Self {
        Self::with(None).await
    }

    pub async fn with_tls(identity: &Identity) -> Self {
        Self::with(Some(Authority::server_config(identity))).await
    }

    async fn with(tls: Option<rustls::ServerConfig>) -> Self {
        let mut settings = ServerSettings::default();
        settings.session.custom_capabilities =
            CustomCapabilities::new([self_agent::diagnostics::CAPABILITY]).unwrap();
        let (service, handle, driver) =
            OpampServer::builder(Arc::new(InsecureAcceptEveryone)).settings(settings).build();
        let events = Mutex::new(handle.events().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(driver.run());
        tokio::spawn(opamp_server::serve(listener, tls.map(opamp_server::TlsSource::new), service));
        Self { address, handle, events }
    }

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
            let agent = self.handle.agent(&uid);
            if let Some(agent) = agent.as_ref().filter(|agent| holds(agent)) {
                return agent.clone();
            }
            assert!(since.elapsed() < PATIENCE, "{what}: {agent:#?} {:#?}", agent.as_ref().map(packages));
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Waits until an agent is connected.
    pub async fn connected(&self, uid: InstanceUid) -> AgentSnapshot {
        self.sees(uid, "connected", |agent| {
            agent.liveness == Liveness::Connected && agent.capabilities.bits() != 0
        })
        .await
    }

    /// Offers packages under a hash of its own, and waits until the agent has come to an end with them.
    pub async fn offer_packages(
        &self,
        uid: InstanceUid,
        generation: u64,
        all: &[(&str, pb::PackageAvailable)],
    ) -> pb::PackageStatuses {
        let offer = self.begin_packages(uid, generation, all);
        let done = |agent: &AgentSnapshot| {
            let statuses = packages(agent);
            statuses.server_provided_all_packages_hash == offer.hash().as_bytes()
                && statuses.packages.values().all(|status| {
                    use pb::PackageStatusEnum::{InstallFailed, Installed};
                    matches!(status.status(), Installed | InstallFailed)
                })
                && all.iter().all(|(name, _)| statuses.packages.contains_key(*name))
        };
        packages(&self.sees(uid, "the packages come to an end", done).await)
    }

    /// Offers packages.
    pub fn begin_packages(
        &self,
        uid: InstanceUid,
        generation: u64,
        all: &[(&str, pb::PackageAvailable)],
    ) -> PackagesOffer {
        let packages = all.iter().map(|(name, package)| ((*name).to_owned(), package.clone())).collect();
        let offer =
            PackagesOffer::new(pb::PackagesAvailable { packages, all_packages_hash: Bytes::new() }).unwrap();
        self.handle.set_desired(&uid, Desired::packages(generation, offer.clone()));
        offer
    }

    /// Offers connection settings.
    pub fn begin_settings(
        &self,
        uid: InstanceUid,
        generation: u64,
        mut settings: pb::ConnectionSettingsOffers,
    ) -> ConnectionSettingsOffer {
        settings.hash = opamp_proto::hash::connection_settings_hash(&settings).to_bytes();
        let offer = ConnectionSettingsOffer::restored(settings);
        self.handle.set_desired(&uid, Desired::connection_settings(generation, offer.clone()));
        offer
    }

    /// Offers a destination of own metrics, and waits for what becomes of that: whether it is applied, and the text if not.
    pub async fn offer_metrics(
        &self,
        uid: InstanceUid,
        generation: u64,
        own_metrics: pb::TelemetryConnectionSettings,
    ) -> Result<(), String> {
        use pb::ConnectionSettingsStatuses::{Applied, Failed};
        let settings = pb::ConnectionSettingsOffers { own_metrics: Some(own_metrics), ..Default::default() };
        let offer = self.begin_settings(uid, generation, settings);
        let over = |agent: &AgentSnapshot| {
            let report = agent.connection_settings.report.as_ref();
            report.is_some_and(|report| {
                report.hash == *offer.hash() && [Applied as i32, Failed as i32].contains(&report.status)
            })
        };
        let report =
            self.sees(uid, "the settings come to an end", over).await.connection_settings.report.unwrap();
        if report.status == Applied as i32 { Ok(()) } else { Err(report.error) }
    }

    /// The next custom message of an agent.
    pub async fn custom(&self) -> Box<ReceivedCustom> {
        let mut events = self.events.lock().await;
        let next = async {
            loop {
                match events.next().await {
                    Some(Event::Custom(custom)) => return custom,
                    Some(_) => {}
                    None => panic!("the server has ended"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("a custom message")
    }
}

/// What an agent says of its packages.
pub fn packages(agent: &AgentSnapshot) -> pb::PackageStatuses {
    let bytes = agent.state.part(Part::PackageStatuses).cloned().unwrap_or_default();
    pb::PackageStatuses::decode(&bytes[..]).unwrap()
}

/// A package with this file at this address.
pub fn package(url: &str, version: &str, content: &[u8], signature: &[u8]) -> pb::PackageAvailable {
    use sha2::Digest as _;
    pb::PackageAvailable {
        version: version.to_owned(),
        file: Some(pb::DownloadableFile {
            download_url: url.to_owned(),
            content_hash: sha2::Sha256::digest(content).to_vec().into(),
            signature: signature.to_vec().into(),
            headers: None,
        }),
        ..Default::default()
    }
}
