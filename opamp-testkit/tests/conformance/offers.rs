//! What tests of connection settings and packages offer, and how.

use std::collections::BTreeMap;

use bytes::Bytes;
use opamp_proto::{ConfigHash, InstanceUid, pb};
use opamp_server::{ConnectionSettingsOffer, Desired, Dispatch, InvalidOffer, PackagesOffer};
use opamp_testkit::certs::Authority;
use sha2::{Digest, Sha256};

use super::common::*;

/// Where an agent that takes an offer would go.
pub(crate) const ELSEWHERE: &str = "wss://other.example:4320/v1/opamp";

pub(crate) fn opamp(endpoint: &str) -> pb::OpAmpConnectionSettings {
    pb::OpAmpConnectionSettings {
        destination_endpoint: endpoint.to_owned(),
        heartbeat_interval_seconds: 30,
        ..Default::default()
    }
}

pub(crate) fn telemetry(endpoint: &str) -> pb::TelemetryConnectionSettings {
    pb::TelemetryConnectionSettings { destination_endpoint: endpoint.to_owned(), ..Default::default() }
}

pub(crate) fn header(key: &str, value: &str) -> pb::Header {
    pb::Header { key: key.to_owned(), value: value.to_owned() }
}

pub(crate) fn headers(headers: &[(&str, &str)]) -> Option<pb::Headers> {
    Some(pb::Headers { headers: headers.iter().map(|(key, value)| header(key, value)).collect() })
}

/// Settings of every class.
pub(crate) fn everything() -> pb::ConnectionSettingsOffers {
    let other = pb::OtherConnectionSettings {
        destination_endpoint: "store.example:9000".to_owned(),
        other_settings: BTreeMap::from([("bucket".to_owned(), "logs".to_owned())]),
        ..Default::default()
    };
    pb::ConnectionSettingsOffers {
        opamp: Some(opamp(ELSEWHERE)),
        own_metrics: Some(telemetry("https://otlp.example/v1/metrics")),
        own_traces: Some(telemetry("https://otlp.example/v1/traces")),
        own_logs: Some(telemetry("https://otlp.example/v1/logs")),
        other_connections: BTreeMap::from([("archive".to_owned(), other)]),
        ..Default::default()
    }
}

/// Nothing but settings for OpAMP itself.
pub(crate) fn only_opamp(settings: pb::OpAmpConnectionSettings) -> pb::ConnectionSettingsOffers {
    pb::ConnectionSettingsOffers { opamp: Some(settings), ..Default::default() }
}

/// The same with another destination of logs.
pub(crate) fn with_logs(
    mut settings: pb::ConnectionSettingsOffers,
    endpoint: &str,
) -> pb::ConnectionSettingsOffers {
    settings.own_logs = Some(telemetry(endpoint));
    settings
}

/// Whether the server takes these settings for something to offer.
pub(crate) fn judged(
    settings: &pb::ConnectionSettingsOffers,
) -> Result<ConnectionSettingsOffer, InvalidOffer> {
    ConnectionSettingsOffer::new(settings.clone())
}

/// The complaint about settings that are refused.
#[track_caller]
pub(crate) fn complaint(settings: &pb::ConnectionSettingsOffers) -> String {
    match judged(settings) {
        Ok(_) => panic!("accepted: {settings:?}"),
        Err(fault) => fault.to_string(),
    }
}

/// A package of a file with this content.
pub(crate) fn package(version: &str, content: &[u8]) -> pb::PackageAvailable {
    pb::PackageAvailable {
        r#type: pb::PackageType::TopLevel.into(),
        version: version.to_owned(),
        file: Some(pb::DownloadableFile {
            download_url: "https://files.example/agent.tar".to_owned(),
            content_hash: Bytes::copy_from_slice(&Sha256::digest(content)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(crate) fn packages(packages: &[(&str, pb::PackageAvailable)]) -> pb::PackagesAvailable {
    pb::PackagesAvailable {
        packages: packages.iter().map(|(name, package)| ((*name).to_owned(), package.clone())).collect(),
        ..Default::default()
    }
}

impl TestServer {
    /// Makes settings the desired ones of an agent, in a new generation.
    pub(crate) fn offer_settings(
        &self,
        uid: InstanceUid,
        settings: &pb::ConnectionSettingsOffers,
    ) -> (ConfigHash, Dispatch) {
        let offer = judged(settings).unwrap();
        let hash = offer.hash().clone();
        let desired = Desired::connection_settings(self.next_generation(), offer);
        (hash, self.handle.set_desired(&uid, desired))
    }

    /// Makes packages the desired ones of an agent, in a new generation.
    pub(crate) fn offer_packages(
        &self,
        uid: InstanceUid,
        packages: &pb::PackagesAvailable,
    ) -> (ConfigHash, Dispatch) {
        let offer = PackagesOffer::new(packages.clone()).unwrap();
        let hash = offer.hash().clone();
        let desired = Desired::packages(self.next_generation(), offer);
        (hash, self.handle.set_desired(&uid, desired))
    }
}

/// A report of connection settings with any hash.
pub(crate) fn settings_status(
    hash: &[u8],
    status: pb::ConnectionSettingsStatuses,
) -> pb::ConnectionSettingsStatus {
    pb::ConnectionSettingsStatus {
        last_connection_settings_hash: Bytes::copy_from_slice(hash),
        status: status.into(),
        error_message: String::new(),
    }
}

/// Requires that a settled agent hears of nothing: in answers, over WebSocket unasked, after reconnects, after a while.
pub(crate) async fn requires_silence(server: &TestServer, agent: &mut ScriptedAgent) {
    for round in 0..3 {
        for _ in 0..3 {
            let answer = agent.heartbeat().await.unwrap();
            assert!(says_nothing(&answer), "round {round}: {answer:?}");
        }
        agent.reconnect().await.unwrap();
        let answer = agent.report_full_state().await.unwrap();
        assert!(says_nothing(&answer), "round {round}, after a reconnect: {answer:?}");
        if agent.wire() == Wire::WebSocket {
            assert_eq!(agent.ws().fence().await.unwrap(), [], "round {round}");
        }
        server.clock.advance(std::time::Duration::from_secs(20));
    }
}

/// A client certificate of this authority as it is offered.
pub(crate) fn certificate(authority: &Authority, name: &str) -> pb::TlsCertificate {
    let identity = authority.client(name, &[]);
    pb::TlsCertificate {
        cert: identity.cert_pem.into(),
        private_key: identity.key_pem.into(),
        ca_cert: authority.pem().into(),
    }
}
