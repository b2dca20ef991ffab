//! Settings as they stand in messages, and in what is saved.

use opamp_proto::pb;

use super::parts::{
    ClientCertificate, Header, OpampSettings, OtherSettings, ProxyParameters, TelemetrySettings,
    TlsParameters,
};
use super::secret::Secret;

impl From<pb::OpAmpConnectionSettings> for OpampSettings {
    fn from(message: pb::OpAmpConnectionSettings) -> Self {
        Self {
            endpoint: message.destination_endpoint,
            headers: message.headers.map(headers),
            certificate: message.certificate.map(Into::into),
            heartbeat_seconds: message.heartbeat_interval_seconds,
            tls: message.tls.map(Into::into),
            proxy: message.proxy.map(Into::into),
        }
    }
}

impl From<&OpampSettings> for pb::OpAmpConnectionSettings {
    fn from(settings: &OpampSettings) -> Self {
        Self {
            destination_endpoint: settings.endpoint.clone(),
            headers: settings.headers.as_deref().map(message_of),
            certificate: settings.certificate.as_ref().map(Into::into),
            heartbeat_interval_seconds: settings.heartbeat_seconds,
            tls: settings.tls.as_ref().map(Into::into),
            proxy: settings.proxy.as_ref().map(Into::into),
        }
    }
}

impl From<pb::TelemetryConnectionSettings> for TelemetrySettings {
    fn from(message: pb::TelemetryConnectionSettings) -> Self {
        Self {
            endpoint: message.destination_endpoint,
            headers: message.headers.map(headers).unwrap_or_default(),
            certificate: message.certificate.map(Into::into),
            tls: message.tls.map(Into::into),
            proxy: message.proxy.map(Into::into),
        }
    }
}

impl From<&TelemetrySettings> for pb::TelemetryConnectionSettings {
    fn from(settings: &TelemetrySettings) -> Self {
        Self {
            destination_endpoint: settings.endpoint.clone(),
            headers: non_empty(&settings.headers),
            certificate: settings.certificate.as_ref().map(Into::into),
            tls: settings.tls.as_ref().map(Into::into),
            proxy: settings.proxy.as_ref().map(Into::into),
        }
    }
}

impl From<&OtherSettings> for pb::OtherConnectionSettings {
    fn from(settings: &OtherSettings) -> Self {
        let other = settings.other.iter().map(|(key, value)| (key.clone(), value.to_text()));
        Self {
            destination_endpoint: settings.endpoint.clone(),
            headers: non_empty(&settings.headers),
            certificate: settings.certificate.as_ref().map(Into::into),
            other_settings: other.collect(),
            tls: settings.tls.as_ref().map(Into::into),
            proxy: settings.proxy.as_ref().map(Into::into),
        }
    }
}

impl From<pb::TlsCertificate> for ClientCertificate {
    fn from(message: pb::TlsCertificate) -> Self {
        Self {
            cert: message.cert.into(),
            key: Secret::received(message.private_key),
            ca: message.ca_cert.into(),
        }
    }
}

impl From<&ClientCertificate> for pb::TlsCertificate {
    fn from(certificate: &ClientCertificate) -> Self {
        Self {
            cert: certificate.cert.clone().into(),
            private_key: certificate.key.expose().to_vec().into(),
            ca_cert: certificate.ca.clone().into(),
        }
    }
}

impl From<pb::TlsConnectionSettings> for TlsParameters {
    fn from(message: pb::TlsConnectionSettings) -> Self {
        Self {
            ca_pem: message.ca_pem_contents,
            system_ca: message.include_system_ca_certs_pool,
            insecure_skip_verify: message.insecure_skip_verify,
            min_version: message.min_version,
            max_version: message.max_version,
            cipher_suites: message.cipher_suites,
        }
    }
}

impl From<&TlsParameters> for pb::TlsConnectionSettings {
    fn from(tls: &TlsParameters) -> Self {
        Self {
            ca_pem_contents: tls.ca_pem.clone(),
            include_system_ca_certs_pool: tls.system_ca,
            insecure_skip_verify: tls.insecure_skip_verify,
            min_version: tls.min_version.clone(),
            max_version: tls.max_version.clone(),
            cipher_suites: tls.cipher_suites.clone(),
        }
    }
}

impl From<pb::ProxyConnectionSettings> for ProxyParameters {
    fn from(message: pb::ProxyConnectionSettings) -> Self {
        Self {
            url: message.url.into(),
            connect_headers: message.connect_headers.map(headers).unwrap_or_default(),
        }
    }
}

impl From<&ProxyParameters> for pb::ProxyConnectionSettings {
    fn from(proxy: &ProxyParameters) -> Self {
        Self { url: proxy.url.to_text(), connect_headers: non_empty(&proxy.connect_headers) }
    }
}

/// In their order, repetitions included (R-TLS-14).
pub(super) fn headers(message: pb::Headers) -> Vec<Header> {
    message.headers.into_iter().map(|header| Header::new(header.key, header.value)).collect()
}

fn message_of(headers: &[Header]) -> pb::Headers {
    let header = |header: &Header| pb::Header { key: header.name.clone(), value: header.value.to_text() };
    pb::Headers { headers: headers.iter().map(header).collect() }
}

fn non_empty(headers: &[Header]) -> Option<pb::Headers> {
    (!headers.is_empty()).then(|| message_of(headers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_back_from_their_message_as_they_were() {
        let header = |value: &str| Header::new("x", value);
        let tls = TlsParameters {
            ca_pem: "pem".into(),
            system_ca: true,
            insecure_skip_verify: true,
            min_version: "1.2".into(),
            max_version: "1.3".into(),
            cipher_suites: vec!["TLS13_AES_128_GCM_SHA256".into()],
        };
        let settings = OpampSettings {
            endpoint: "wss://h/v1/opamp".into(),
            headers: Some(vec![header("2"), header("1"), header("2")]),
            certificate: Some(ClientCertificate { cert: vec![1], key: "k".into(), ca: vec![2] }),
            heartbeat_seconds: 7,
            tls: Some(tls.clone()),
            proxy: Some(ProxyParameters { url: "p:1".into(), connect_headers: vec![header("3")] }),
        };
        assert_eq!(OpampSettings::from(pb::OpAmpConnectionSettings::from(&settings)), settings);
        for headers in [None, Some(Vec::new())] {
            let settings = OpampSettings { headers, ..Default::default() };
            assert_eq!(OpampSettings::from(pb::OpAmpConnectionSettings::from(&settings)), settings);
        }
        let telemetry = TelemetrySettings {
            endpoint: "https://h/v1/metrics".into(),
            headers: vec![header("1")],
            certificate: settings.certificate.clone(),
            tls: Some(tls),
            proxy: settings.proxy,
        };
        assert_eq!(TelemetrySettings::from(pb::TelemetryConnectionSettings::from(&telemetry)), telemetry);
    }
}
