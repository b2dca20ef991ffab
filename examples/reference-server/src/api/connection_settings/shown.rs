//! Connection settings as the API shows them: everything but the secrets.
//!
//! Values of headers and of further settings, private keys, and user, password and query of addresses are
//! `<redacted>`: that something is there can be seen, and nothing else.

use std::collections::BTreeMap;

use opamp_proto::pb;

use crate::api::schema::reply;

/// Stands where a secret is.
const REDACTED: &str = "<redacted>";

reply! {
    /// Connection settings without their secrets.
    pub(crate) struct Settings {
        /// The OpAMP connection itself.
        opamp: Option<OpampSettings>,
        /// Where the agent sends its own metrics.
        own_metrics: Option<TelemetrySettings>,
        /// Where the agent sends its own traces.
        own_traces: Option<TelemetrySettings>,
        /// Where the agent sends its own logs.
        own_logs: Option<TelemetrySettings>,
        /// Other connections by the agent's own name for them.
        other_connections: BTreeMap<String, OtherSettings>,
    }
}

reply! {
    /// Settings of the OpAMP connection.
    pub(crate) struct OpampSettings {
        /// Where the server is.
        destination_endpoint: String,
        /// Headers, in order; values are `<redacted>`.
        headers: Vec<Header>,
        /// The client certificate.
        certificate: Option<Certificate>,
        /// Seconds between heartbeats; 0 switches them off.
        heartbeat_interval_seconds: u64,
        /// How TLS is done.
        tls: Option<Tls>,
        /// Through which proxy.
        proxy: Option<Proxy>,
    }
}

reply! {
    /// A destination of the agent's own telemetry.
    pub(crate) struct TelemetrySettings {
        /// Where it is sent.
        destination_endpoint: String,
        /// Headers, in order; values are `<redacted>`.
        headers: Vec<Header>,
        /// The client certificate.
        certificate: Option<Certificate>,
        /// How TLS is done.
        tls: Option<Tls>,
        /// Through which proxy.
        proxy: Option<Proxy>,
    }
}

reply! {
    /// Another connection of the agent.
    pub(crate) struct OtherSettings {
        /// Its address; empty if that stays as it is.
        destination_endpoint: String,
        /// Headers, in order; values are `<redacted>`.
        headers: Vec<Header>,
        /// The client certificate.
        certificate: Option<Certificate>,
        /// Names of further settings; values are `<redacted>`.
        other_settings: BTreeMap<String, String>,
        /// How TLS is done.
        tls: Option<Tls>,
        /// Through which proxy.
        proxy: Option<Proxy>,
    }
}

reply! {
    /// A header.
    pub(crate) struct Header {
        /// Its name.
        key: String,
        /// `<redacted>`.
        value: &'static str,
    }
}

reply! {
    /// A client certificate, in PEM.
    pub(crate) struct Certificate {
        /// The certificate.
        cert: String,
        /// `<redacted>`; null if the agent has made the key itself.
        private_key: Option<String>,
        /// The certificate of the CA that signed it; empty for a self-signed one.
        ca_cert: String,
    }
}

reply! {
    /// How TLS is done.
    pub(crate) struct Tls {
        /// Authorities to trust, in PEM.
        ca_pem_contents: String,
        /// Whether those of the operating system are trusted as well.
        include_system_ca_certs_pool: bool,
        /// Whether certificates are not verified at all.
        insecure_skip_verify: bool,
        /// Lowest version; empty for 1.2.
        min_version: String,
        /// Highest version; empty for no bound.
        max_version: String,
        /// Names of the cipher suites to use; empty for the agent's own choice.
        cipher_suites: Vec<String>,
    }
}

reply! {
    /// A proxy.
    pub(crate) struct Proxy {
        /// Its address.
        url: String,
        /// Headers of the CONNECT request, in order; values are `<redacted>`.
        connect_headers: Vec<Header>,
    }
}

impl From<&pb::ConnectionSettingsOffers> for Settings {
    fn from(settings: &pb::ConnectionSettingsOffers) -> Self {
        let others = settings.other_connections.iter();
        Settings {
            opamp: settings.opamp.as_ref().map(Into::into),
            own_metrics: settings.own_metrics.as_ref().map(Into::into),
            own_traces: settings.own_traces.as_ref().map(Into::into),
            own_logs: settings.own_logs.as_ref().map(Into::into),
            other_connections: others.map(|(name, other)| (name.clone(), other.into())).collect(),
        }
    }
}

impl From<&pb::OpAmpConnectionSettings> for OpampSettings {
    fn from(opamp: &pb::OpAmpConnectionSettings) -> Self {
        OpampSettings {
            destination_endpoint: address(&opamp.destination_endpoint),
            headers: headers(opamp.headers.as_ref()),
            certificate: opamp.certificate.as_ref().map(Into::into),
            heartbeat_interval_seconds: opamp.heartbeat_interval_seconds,
            tls: opamp.tls.as_ref().map(Into::into),
            proxy: opamp.proxy.as_ref().map(Into::into),
        }
    }
}

impl From<&pb::TelemetryConnectionSettings> for TelemetrySettings {
    fn from(telemetry: &pb::TelemetryConnectionSettings) -> Self {
        TelemetrySettings {
            destination_endpoint: address(&telemetry.destination_endpoint),
            headers: headers(telemetry.headers.as_ref()),
            certificate: telemetry.certificate.as_ref().map(Into::into),
            tls: telemetry.tls.as_ref().map(Into::into),
            proxy: telemetry.proxy.as_ref().map(Into::into),
        }
    }
}

impl From<&pb::OtherConnectionSettings> for OtherSettings {
    fn from(other: &pb::OtherConnectionSettings) -> Self {
        let names = other.other_settings.keys();
        OtherSettings {
            destination_endpoint: address(&other.destination_endpoint),
            headers: headers(other.headers.as_ref()),
            certificate: other.certificate.as_ref().map(Into::into),
            other_settings: names.map(|name| (name.clone(), REDACTED.to_owned())).collect(),
            tls: other.tls.as_ref().map(Into::into),
            proxy: other.proxy.as_ref().map(Into::into),
        }
    }
}

impl From<&pb::TlsCertificate> for Certificate {
    fn from(certificate: &pb::TlsCertificate) -> Self {
        let text = |pem: &[u8]| String::from_utf8_lossy(pem).into_owned();
        Certificate {
            cert: certificates_only(&text(&certificate.cert)),
            private_key: (!certificate.private_key.is_empty()).then(|| REDACTED.to_owned()),
            ca_cert: certificates_only(&text(&certificate.ca_cert)),
        }
    }
}

impl From<&pb::TlsConnectionSettings> for Tls {
    fn from(tls: &pb::TlsConnectionSettings) -> Self {
        Tls {
            ca_pem_contents: certificates_only(&tls.ca_pem_contents),
            include_system_ca_certs_pool: tls.include_system_ca_certs_pool,
            insecure_skip_verify: tls.insecure_skip_verify,
            min_version: tls.min_version.clone(),
            max_version: tls.max_version.clone(),
            cipher_suites: tls.cipher_suites.clone(),
        }
    }
}

impl From<&pb::ProxyConnectionSettings> for Proxy {
    fn from(proxy: &pb::ProxyConnectionSettings) -> Self {
        Proxy { url: address(&proxy.url), connect_headers: headers(proxy.connect_headers.as_ref()) }
    }
}

fn headers(headers: Option<&pb::Headers>) -> Vec<Header> {
    let headers = headers.map(|headers| headers.headers.as_slice()).unwrap_or_default();
    headers.iter().map(|header| Header { key: header.key.clone(), value: REDACTED }).collect()
}

/// An address with `<redacted>` for what may be a secret in it: what stands before an `@`, and behind a `?` or `#`.
fn address(address: &str) -> String {
    let (scheme, rest) = match address.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), address),
    };
    let (place, mark) = match rest.find(['?', '#']) {
        Some(at) => (&rest[..at], format!("{}{REDACTED}", &rest[at..=at])),
        None => (rest, String::new()),
    };
    match place.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}{REDACTED}@{host}{mark}"),
        None => format!("{scheme}{place}{mark}"),
    }
}

/// The blocks of a PEM text that are certificates: somebody may have put the key beside them.
fn certificates_only(pem: &str) -> String {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let blocks = pem.split(BEGIN).skip(1).filter_map(|rest| rest.split_once(END));
    let clean = blocks.filter(|(body, _)| !body.contains("-----"));
    clean.map(|(body, _)| format!("{BEGIN}{body}{END}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_show_where_they_lead_and_no_secret() {
        for (given, shown) in [
            ("wss://opamp.example.com/v1/opamp", "wss://opamp.example.com/v1/opamp"),
            ("https://me:s3cret@h:1/v1/metrics", "https://<redacted>@h:1/v1/metrics"),
            ("https://me:s3@cret@h/x", "https://<redacted>@h/x"),
            ("https://h/v1/traces?key=s3cret", "https://h/v1/traces?<redacted>"),
            ("https://h/x#s3cret", "https://h/x#<redacted>"),
            ("me:s3cret@proxy:3128", "<redacted>@proxy:3128"),
            ("proxy:3128", "proxy:3128"),
            ("", ""),
        ] {
            assert_eq!(address(given), shown);
        }
    }

    #[test]
    fn of_pem_texts_only_certificates_are_shown() {
        let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let key = "-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----\n";
        let both = format!("# s3cret note\n{key}{certificate}{key}{certificate}s3cret");
        assert_eq!(certificates_only(&both), format!("{certificate}{certificate}"));
        let unclosed = format!("-----BEGIN CERTIFICATE-----\nAAAA\n{key}{certificate}");
        assert_eq!(certificates_only(&unclosed), certificate);
    }

    #[test]
    fn settings_show_everything_but_the_secrets() {
        const SECRET: &str = "s3cret";
        let headers = || {
            Some(pb::Headers {
                headers: vec![pb::Header { key: "authorization".into(), value: SECRET.into() }],
            })
        };
        let certificate = || {
            Some(pb::TlsCertificate {
                cert: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
                private_key: SECRET.into(),
                ca_cert: SECRET.into(),
            })
        };
        let tls = || {
            let ca_pem_contents = SECRET.to_owned();
            Some(pb::TlsConnectionSettings {
                ca_pem_contents,
                min_version: "1.3".into(),
                ..Default::default()
            })
        };
        let proxy = || {
            let url = format!("http://me:{SECRET}@proxy:3128");
            Some(pb::ProxyConnectionSettings { url, connect_headers: headers() })
        };
        let telemetry = || {
            Some(pb::TelemetryConnectionSettings {
                destination_endpoint: format!("https://h/v1/metrics?{SECRET}"),
                headers: headers(),
                certificate: certificate(),
                tls: tls(),
                proxy: proxy(),
            })
        };
        let other = pb::OtherConnectionSettings {
            destination_endpoint: "h:1".into(),
            headers: headers(),
            certificate: certificate(),
            other_settings: [("password".to_owned(), SECRET.to_owned())].into(),
            tls: tls(),
            proxy: proxy(),
        };
        let settings = pb::ConnectionSettingsOffers {
            hash: vec![1].into(),
            opamp: Some(pb::OpAmpConnectionSettings {
                destination_endpoint: format!("wss://me:{SECRET}@h/"),
                headers: headers(),
                certificate: certificate(),
                heartbeat_interval_seconds: 30,
                tls: tls(),
                proxy: proxy(),
            }),
            own_metrics: telemetry(),
            own_traces: telemetry(),
            own_logs: telemetry(),
            other_connections: [("db".to_owned(), other)].into(),
        };
        let shown = serde_json::to_value(Settings::from(&settings)).unwrap();
        assert!(!shown.to_string().contains(SECRET), "{shown:#}");
        assert_eq!(shown["opamp"]["destination_endpoint"], "wss://<redacted>@h/");
        assert_eq!(shown["opamp"]["headers"][0]["key"], "authorization");
        assert_eq!(shown["opamp"]["certificate"]["private_key"], REDACTED);
        assert_eq!(shown["own_logs"]["tls"]["min_version"], "1.3");
        assert_eq!(shown["other_connections"]["db"]["other_settings"]["password"], REDACTED);
        assert_eq!(shown["own_traces"]["proxy"]["url"], "http://<redacted>@proxy:3128");
    }
}
