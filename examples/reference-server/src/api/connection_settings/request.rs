//! Connection settings as the API takes them: the names are those of the protocol.

use std::collections::BTreeMap;

use opamp_proto::pb;
use opamp_server::OfferRules;

use crate::api::schema::request;

request! {
    /// Connection settings for one agent, all of them: what is not there is not offered any more, and stays with the agent
    /// as it is.
    pub(crate) struct SettingsRequest {
        /// The OpAMP connection itself.
        opamp: Option<OpampRequest>,
        /// Where the agent sends its own metrics.
        own_metrics: Option<TelemetryRequest>,
        /// Where the agent sends its own traces.
        own_traces: Option<TelemetryRequest>,
        /// Where the agent sends its own logs.
        own_logs: Option<TelemetryRequest>,
        /// Other connections by the agent's own name for them.
        other_connections: Option<BTreeMap<String, OtherRequest>>,
    }
}

request! {
    /// Settings of the OpAMP connection.
    pub(crate) struct OpampRequest {
        /// A WebSocket or HTTP URL, also when only something else changes.
        destination_endpoint: String,
        /// Headers of the agent's HTTP requests, in order.
        headers: Option<Vec<HeaderRequest>>,
        /// The client certificate from then on.
        certificate: Option<CertificateRequest>,
        /// Seconds between heartbeats; 30 if left out, and 0 switches them off on WebSockets.
        heartbeat_interval_seconds: Option<u64>,
        /// How TLS is done; stays as it is if left out.
        tls: Option<TlsRequest>,
        /// Through which proxy; stays as it is if left out.
        proxy: Option<ProxyRequest>,
    }
}

request! {
    /// A destination of the agent's own telemetry.
    pub(crate) struct TelemetryRequest {
        /// The full OTLP/HTTP URL with its path, such as `https://example.com:4318/v1/metrics`.
        destination_endpoint: String,
        /// Headers of the agent's HTTP requests, in order.
        headers: Option<Vec<HeaderRequest>>,
        /// The client certificate from then on.
        certificate: Option<CertificateRequest>,
        /// How TLS is done; stays as it is if left out.
        tls: Option<TlsRequest>,
        /// Through which proxy; stays as it is if left out.
        proxy: Option<ProxyRequest>,
    }
}

request! {
    /// Any other connection of the agent. What is left out stays as it is.
    pub(crate) struct OtherRequest {
        /// An address in whatever form the agent understands.
        destination_endpoint: Option<String>,
        /// Headers, in order.
        headers: Option<Vec<HeaderRequest>>,
        /// The client certificate from then on.
        certificate: Option<CertificateRequest>,
        /// Further settings, whose meaning is the agent's.
        other_settings: Option<BTreeMap<String, String>>,
        /// How TLS is done.
        tls: Option<TlsRequest>,
        /// Through which proxy.
        proxy: Option<ProxyRequest>,
    }
}

request! {
    /// A header. A name may be there several times.
    pub(crate) struct HeaderRequest {
        /// Its name.
        key: String,
        /// Its value; nobody is shown it again.
        value: String,
    }
}

request! {
    /// A client certificate, in PEM.
    pub(crate) struct CertificateRequest {
        /// The certificate.
        cert: String,
        /// Its private key; nobody is shown it again.
        private_key: String,
        /// The certificate of the CA that signed it; none for a self-signed one.
        ca_cert: Option<String>,
    }
}

request! {
    /// How TLS is done.
    pub(crate) struct TlsRequest {
        /// Authorities to trust, in PEM.
        ca_pem_contents: Option<String>,
        /// Whether those of the operating system are trusted as well.
        include_system_ca_certs_pool: Option<bool>,
        /// Whether certificates are not verified at all. Agents of this project refuse that unless they are told to allow it.
        insecure_skip_verify: Option<bool>,
        /// Lowest version, such as `1.2`.
        min_version: Option<String>,
        /// Highest version.
        max_version: Option<String>,
        /// Names of the cipher suites to use.
        cipher_suites: Option<Vec<String>>,
    }
}

request! {
    /// A proxy.
    pub(crate) struct ProxyRequest {
        /// Its URL, or host and port.
        url: String,
        /// Headers of the CONNECT request, in order.
        connect_headers: Option<Vec<HeaderRequest>>,
    }
}

impl SettingsRequest {
    /// What the request allows beyond the usual; `insecure_telemetry` is the configuration's to say.
    pub(crate) fn rules(&self, insecure_telemetry: bool) -> OfferRules {
        let interval = self.opamp.as_ref().and_then(|opamp| opamp.heartbeat_interval_seconds);
        OfferRules { insecure_telemetry, heartbeats_off: interval == Some(0), ..OfferRules::default() }
    }

    /// The settings as the protocol has them.
    pub(crate) fn into_settings(self) -> pb::ConnectionSettingsOffers {
        let others = self.other_connections.unwrap_or_default().into_iter();
        pb::ConnectionSettingsOffers {
            opamp: self.opamp.map(Into::into),
            own_metrics: self.own_metrics.map(Into::into),
            own_traces: self.own_traces.map(Into::into),
            own_logs: self.own_logs.map(Into::into),
            other_connections: others.map(|(name, other)| (name, other.into())).collect(),
            ..Default::default()
        }
    }
}

impl From<OpampRequest> for pb::OpAmpConnectionSettings {
    fn from(opamp: OpampRequest) -> Self {
        pb::OpAmpConnectionSettings {
            destination_endpoint: opamp.destination_endpoint,
            headers: opamp.headers.map(headers),
            certificate: opamp.certificate.map(Into::into),
            heartbeat_interval_seconds: opamp.heartbeat_interval_seconds.unwrap_or_default(),
            tls: opamp.tls.map(Into::into),
            proxy: opamp.proxy.map(Into::into),
        }
    }
}

impl From<TelemetryRequest> for pb::TelemetryConnectionSettings {
    fn from(telemetry: TelemetryRequest) -> Self {
        pb::TelemetryConnectionSettings {
            destination_endpoint: telemetry.destination_endpoint,
            headers: telemetry.headers.map(headers),
            certificate: telemetry.certificate.map(Into::into),
            tls: telemetry.tls.map(Into::into),
            proxy: telemetry.proxy.map(Into::into),
        }
    }
}

impl From<OtherRequest> for pb::OtherConnectionSettings {
    fn from(other: OtherRequest) -> Self {
        pb::OtherConnectionSettings {
            destination_endpoint: other.destination_endpoint.unwrap_or_default(),
            headers: other.headers.map(headers),
            certificate: other.certificate.map(Into::into),
            other_settings: other.other_settings.unwrap_or_default(),
            tls: other.tls.map(Into::into),
            proxy: other.proxy.map(Into::into),
        }
    }
}

impl From<CertificateRequest> for pb::TlsCertificate {
    fn from(certificate: CertificateRequest) -> Self {
        pb::TlsCertificate {
            cert: certificate.cert.into(),
            private_key: certificate.private_key.into(),
            ca_cert: certificate.ca_cert.unwrap_or_default().into(),
        }
    }
}

impl From<TlsRequest> for pb::TlsConnectionSettings {
    fn from(tls: TlsRequest) -> Self {
        pb::TlsConnectionSettings {
            ca_pem_contents: tls.ca_pem_contents.unwrap_or_default(),
            include_system_ca_certs_pool: tls.include_system_ca_certs_pool.unwrap_or_default(),
            insecure_skip_verify: tls.insecure_skip_verify.unwrap_or_default(),
            min_version: tls.min_version.unwrap_or_default(),
            max_version: tls.max_version.unwrap_or_default(),
            cipher_suites: tls.cipher_suites.unwrap_or_default(),
        }
    }
}

impl From<ProxyRequest> for pb::ProxyConnectionSettings {
    fn from(proxy: ProxyRequest) -> Self {
        pb::ProxyConnectionSettings { url: proxy.url, connect_headers: proxy.connect_headers.map(headers) }
    }
}

fn headers(headers: Vec<HeaderRequest>) -> pb::Headers {
    let header = |header: HeaderRequest| pb::Header { key: header.key, value: header.value };
    pb::Headers { headers: headers.into_iter().map(header).collect() }
}
