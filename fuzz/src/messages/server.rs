//! What a server says.

use bytes::Bytes;
use opamp_proto::pb;

use super::{config_map, custom_capabilities, custom_message, enumeration, hash, headers, list, map, some};
use crate::tape::Tape;

/// A message with any of the fields. The identity is [`crate::UID`] more often than not.
#[must_use]
pub fn server_to_agent(tape: &mut Tape<'_>) -> pb::ServerToAgent {
    let instance_uid = match tape.below(8) {
        7 => Bytes::copy_from_slice(tape.bytes(20)),
        6 => Bytes::new(),
        _ => Bytes::copy_from_slice(crate::UID.as_bytes()),
    };
    let mut message = pb::ServerToAgent {
        instance_uid,
        capabilities: if tape.flag() { 0x7f } else { tape.number() },
        flags: tape.number() & tape.number(),
        ..Default::default()
    };
    let parts = tape.short();
    let has = |part: u32| parts & (1 << part) != 0;
    message.error_response = has(0).then(|| error_response(tape));
    message.remote_config = has(1).then(|| remote_config(tape));
    message.connection_settings = has(2).then(|| connection_settings(tape));
    message.packages_available = has(3).then(|| packages_available(tape));
    message.agent_identification =
        has(4).then(|| pb::AgentIdentification { new_instance_uid: identity(tape) });
    message.command = has(5).then(|| pb::ServerToAgentCommand { r#type: enumeration(tape) });
    message.custom_capabilities = has(6).then(|| custom_capabilities(tape));
    message.custom_message = has(7).then(|| custom_message(tape));
    message
}

/// An offer of a configuration.
#[must_use]
pub fn remote_config(tape: &mut Tape<'_>) -> pb::AgentRemoteConfig {
    pb::AgentRemoteConfig { config: some(tape, config_map), config_hash: hash(tape) }
}

/// An offer of connection settings.
#[must_use]
pub fn connection_settings(tape: &mut Tape<'_>) -> pb::ConnectionSettingsOffers {
    pb::ConnectionSettingsOffers {
        hash: hash(tape),
        opamp: some(tape, |tape| pb::OpAmpConnectionSettings {
            destination_endpoint: endpoint(tape),
            headers: some(tape, headers),
            certificate: some(tape, certificate),
            heartbeat_interval_seconds: tape.number(),
            tls: some(tape, tls),
            proxy: some(tape, proxy),
        }),
        own_metrics: some(tape, telemetry),
        own_traces: some(tape, telemetry),
        own_logs: some(tape, telemetry),
        other_connections: map(tape, |tape| pb::OtherConnectionSettings {
            destination_endpoint: endpoint(tape),
            headers: some(tape, headers),
            certificate: some(tape, certificate),
            other_settings: map(tape, |tape| tape.text()),
            tls: some(tape, tls),
            proxy: some(tape, proxy),
        }),
    }
}

/// An offer of packages.
#[must_use]
pub fn packages_available(tape: &mut Tape<'_>) -> pb::PackagesAvailable {
    pb::PackagesAvailable {
        packages: map(tape, |tape| pb::PackageAvailable {
            r#type: enumeration(tape),
            version: tape.text(),
            file: some(tape, |tape| pb::DownloadableFile {
                download_url: endpoint(tape),
                content_hash: hash(tape),
                signature: Bytes::copy_from_slice(tape.bytes(64)),
                headers: some(tape, headers),
            }),
            hash: hash(tape),
        }),
        all_packages_hash: hash(tape),
    }
}

fn error_response(tape: &mut Tape<'_>) -> pb::ServerErrorResponse {
    let retry = |tape: &mut Tape<'_>| pb::RetryInfo { retry_after_nanoseconds: tape.number() };
    pb::ServerErrorResponse {
        r#type: enumeration(tape),
        error_message: tape.text(),
        details: some(tape, retry).map(pb::server_error_response::Details::RetryInfo),
    }
}

fn identity(tape: &mut Tape<'_>) -> Bytes {
    match tape.below(4) {
        0 => Bytes::copy_from_slice(tape.bytes(20)),
        few => Bytes::copy_from_slice(&[few as u8; 16]),
    }
}

fn telemetry(tape: &mut Tape<'_>) -> pb::TelemetryConnectionSettings {
    pb::TelemetryConnectionSettings {
        destination_endpoint: endpoint(tape),
        headers: some(tape, headers),
        certificate: some(tape, certificate),
        tls: some(tape, tls),
        proxy: some(tape, proxy),
    }
}

fn endpoint(tape: &mut Tape<'_>) -> String {
    const ENDPOINTS: [&str; 8] = [
        "",
        "wss://one.example/v1/opamp",
        "ws://two.example/v1/opamp",
        "https://three.example:4320/v1/opamp",
        "http://four.example/v1/opamp",
        "wss://user:secret@five.example/",
        "ftp://six.example",
        "wss://[::1]:99999/",
    ];
    tape.pick(&ENDPOINTS).to_owned()
}

fn certificate(tape: &mut Tape<'_>) -> pb::TlsCertificate {
    const PEM: [&str; 3] = ["", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", "x"];
    pb::TlsCertificate {
        cert: tape.pick(&PEM).into(),
        private_key: tape.pick(&PEM).into(),
        ca_cert: tape.pick(&PEM).into(),
    }
}

fn tls(tape: &mut Tape<'_>) -> pb::TlsConnectionSettings {
    const VERSIONS: [&str; 6] = ["", "TLSv1.2", "TLSv1.3", "1.2", "1.0", "x"];
    pb::TlsConnectionSettings {
        ca_pem_contents: tape.text(),
        include_system_ca_certs_pool: tape.flag(),
        insecure_skip_verify: tape.flag(),
        min_version: tape.pick(&VERSIONS).to_owned(),
        max_version: tape.pick(&VERSIONS).to_owned(),
        cipher_suites: list(tape, |tape| tape.text()),
    }
}

fn proxy(tape: &mut Tape<'_>) -> pb::ProxyConnectionSettings {
    pb::ProxyConnectionSettings {
        url: tape
            .pick(&["", "http://proxy.example:3128", "https://u:p@proxy.example", "socks5://x"])
            .to_owned(),
        connect_headers: some(tape, headers),
    }
}
