//! The settings of connections.

use std::collections::BTreeMap;
use std::fmt;

use super::secret::Secret;

/// How an OpAMP server is reached, in place of what the agent was configured with (spec section
/// "OpAMPConnectionSettings").
#[derive(Clone, Default, PartialEq, Eq)]
pub struct OpampSettings {
    /// The URL, of scheme ws, wss, http or https.
    pub endpoint: String,
    /// Headers of each request, in order, in place of all that the agent was configured with; `None` for those, which are
    /// shown to the configured host and port alone.
    pub headers: Option<Vec<Header>>,
    /// The client certificate. `None` for none, also if the agent was configured with one (R-CONN-30).
    pub certificate: Option<ClientCertificate>,
    /// Distance of heartbeats and polls in seconds; 0 for no heartbeats, and for polls as configured.
    pub heartbeat_seconds: u64,
    /// TLS; `None` for what was in force before (R-TLS-02).
    pub tls: Option<TlsParameters>,
    /// The proxy; `None` for what was in force before (R-TLS-10).
    pub proxy: Option<ProxyParameters>,
}

/// Where a signal of the agent's own telemetry goes, by OTLP/HTTP with protobuf (spec section
/// "TelemetryConnectionSettings").
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TelemetrySettings {
    /// The full URL; nothing is to be appended.
    pub endpoint: String,
    /// Headers of each request, in order.
    pub headers: Vec<Header>,
    /// The client certificate; `None` for none.
    pub certificate: Option<ClientCertificate>,
    /// TLS, also as offered earlier; `None` for what the agent does by itself.
    pub tls: Option<TlsParameters>,
    /// The proxy, also as offered earlier; `None` for what the agent does by itself.
    pub proxy: Option<ProxyParameters>,
}

/// A connection that only the agent knows, with everything that was offered for it so far (spec section
/// "OtherConnectionSettings", R-CONN-35).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct OtherSettings {
    /// A URL, host and port, or any other form of address; empty if none was ever offered (R-CONN-37).
    pub endpoint: String,
    /// Headers of each request, in order.
    pub headers: Vec<Header>,
    /// The client certificate.
    pub certificate: Option<ClientCertificate>,
    /// Keys and values that only the agent understands (R-CONN-39). They may be secret.
    pub other: BTreeMap<String, Secret>,
    /// TLS.
    pub tls: Option<TlsParameters>,
    /// The proxy.
    pub proxy: Option<ProxyParameters>,
}

/// A signal of the agent's own telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// `own_logs`; announced as ReportsOwnLogs.
    Logs,
    /// `own_metrics`; announced as ReportsOwnMetrics.
    Metrics,
    /// `own_traces`; announced as ReportsOwnTraces.
    Traces,
}

/// One header of a request. Its value is a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Secret,
}

/// A client certificate (spec section "TLSCertificate").
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, or chain, as PEM.
    pub cert: Vec<u8>,
    /// The private key, as PEM.
    pub key: Secret,
    /// The certificate of the authority that signed it, as PEM. It is for those who verify the agent; the agent itself trusts
    /// nobody for it (R-TLS-20).
    pub ca: Vec<u8>,
}

/// TLS of one connection (spec section "TLSConnectionSettings").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsParameters {
    /// Authorities that are trusted, as PEM; empty for those trusted before, unless the system's are wanted.
    pub ca_pem: String,
    /// Whether those of the operating system are trusted as well.
    pub system_ca: bool,
    /// Whether the server is not verified at all. Refused unless [`SettingsPolicy`](super::SettingsPolicy) allows it.
    pub insecure_skip_verify: bool,
    /// The lowest version, such as `1.2` or `TLSv1.2`; empty for that of before.
    pub min_version: String,
    /// The highest version; empty for none.
    pub max_version: String,
    /// The cipher suites by their IANA names; empty for all.
    pub cipher_suites: Vec<String>,
}

/// The proxy of one connection (spec section "ProxyConnectionSettings").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyParameters {
    /// A URL, or host and port. There may be a password in it.
    pub url: Secret,
    /// Headers of the CONNECT request.
    pub connect_headers: Vec<Header>,
}

impl Signal {
    /// Every signal.
    pub const ALL: [Self; 3] = [Self::Logs, Self::Metrics, Self::Traces];

    /// The field of an offer: `own_logs`, `own_metrics` or `own_traces`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Logs => "own_logs",
            Self::Metrics => "own_metrics",
            Self::Traces => "own_traces",
        }
    }
}

impl Header {
    /// A header.
    pub fn new(name: impl Into<String>, value: impl Into<Secret>) -> Self {
        Self { name: name.into(), value: value.into() }
    }
}

impl OpampSettings {
    /// The address as events show it: without user and query.
    #[must_use]
    pub fn shown(&self) -> &str {
        shown(&self.endpoint)
    }
}

/// Shows how long it is.
impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate")
            .field("cert_bytes", &self.cert.len())
            .field("key", &self.key)
            .field("ca_bytes", &self.ca.len())
            .finish()
    }
}

impl fmt::Debug for OpampSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpampSettings")
            .field("endpoint", &self.shown())
            .field("headers", &self.headers)
            .field("certificate", &self.certificate)
            .field("heartbeat_seconds", &self.heartbeat_seconds)
            .field("tls", &self.tls)
            .field("proxy", &self.proxy)
            .finish()
    }
}

impl fmt::Debug for TelemetrySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TelemetrySettings")
            .field("endpoint", &shown(&self.endpoint))
            .field("headers", &self.headers)
            .field("certificate", &self.certificate)
            .field("tls", &self.tls)
            .field("proxy", &self.proxy)
            .finish()
    }
}

impl fmt::Debug for OtherSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtherSettings")
            .field("endpoint", &shown(&self.endpoint))
            .field("headers", &self.headers)
            .field("certificate", &self.certificate)
            .field("other", &self.other)
            .field("tls", &self.tls)
            .field("proxy", &self.proxy)
            .finish()
    }
}

/// An address without what may be secret in it.
fn shown(address: &str) -> &str {
    let address = address.split(['?', '#']).next().unwrap_or_default();
    match address.rsplit_once('@') {
        Some((_, rest)) => rest,
        None => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let header = || vec![Header::new("authorization", "Bearer hunter2")];
        let certificate =
            || Some(ClientCertificate { cert: b"c".to_vec(), key: "hunter2".into(), ca: Vec::new() });
        let proxy = || Some(ProxyParameters { url: "http://u:hunter2@p".into(), connect_headers: header() });
        let endpoint = || "wss://u:hunter2@h/x?token=hunter2".to_owned();
        let opamp = OpampSettings {
            endpoint: endpoint(),
            headers: Some(header()),
            certificate: certificate(),
            proxy: proxy(),
            ..Default::default()
        };
        let telemetry = TelemetrySettings {
            endpoint: endpoint(),
            headers: header(),
            certificate: certificate(),
            proxy: proxy(),
            tls: None,
        };
        let other = OtherSettings {
            endpoint: endpoint(),
            headers: header(),
            certificate: certificate(),
            proxy: proxy(),
            other: [("key".to_owned(), "hunter2".into())].into(),
            tls: None,
        };
        let shown = format!("{opamp:?} {telemetry:?} {other:?}");
        assert!(shown.contains("authorization") && !shown.contains("hunter2"), "{shown}");
    }
}
