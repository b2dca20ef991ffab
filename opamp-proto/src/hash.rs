//! Hashes that a server makes: of configurations, of connection settings, of packages, and of all packages together.
//!
//! Each is SHA-256 over a canonical form: a label that says what is hashed, then every field in a fixed order, numbers as
//! 8 bytes little-endian, bytes and text preceded by their length, lists and maps by their count, maps by ascending key. So
//! equal contents have equal hashes whatever the order of an encoder's maps, no two different contents have the same form,
//! and a hash of one kind is never one of another (R-PKG-40). The forms are stable across versions of this crate: stored
//! hashes stay comparable.
//!
//! Agents treat all of these as opaque; nobody but the server computes them (R-PKG-39, R-PKG-41).

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use sha2::{Digest, Sha256};

use crate::config_hash::ConfigHash;
use crate::decode::DecodeError;
use crate::pb;

/// The hash of a configuration: `AgentRemoteConfig.config_hash`. It covers name, body, content type and role of every object.
#[must_use]
pub fn config_hash(config: &pb::AgentConfigMap) -> ConfigHash {
    let mut form = Form::new("opamp.config.v1");
    form.number(config.config_map.len() as u64);
    for (name, object) in &config.config_map {
        form.bytes(name.as_bytes());
        form.bytes(&object.body);
        form.bytes(object.content_type.as_bytes());
        form.bytes(object.role.as_bytes());
    }
    form.hash()
}

/// The hash of the configuration inside an encoded `EffectiveConfig`: [`config_hash`] of its map, so that the two compare.
/// An absent map counts as one without entries.
///
/// # Errors
///
/// [`DecodeError`] if the bytes are not an `EffectiveConfig`. A part of an accepted [`crate::AgentMessage`] always is.
pub fn effective_config_hash(encoded_effective_config: &[u8]) -> Result<ConfigHash, DecodeError> {
    let effective = pb::EffectiveConfig::decode(encoded_effective_config)?;
    Ok(config_hash(&effective.config_map.unwrap_or_default()))
}

/// The hash of an offered package: `PackageAvailable.hash`. It covers all the other fields, and the content of the file by way of
/// `content_hash`, which therefore has to be set (R-PKG-51).
#[must_use]
pub fn package_hash(package: &pb::PackageAvailable) -> ConfigHash {
    let mut form = Form::new("opamp.package.v1");
    // A negative number is an unknown type from the wire; the cast keeps types apart all the same.
    form.number(package.r#type as u64);
    form.bytes(package.version.as_bytes());
    form.number(u64::from(package.file.is_some()));
    if let Some(file) = &package.file {
        form.bytes(file.download_url.as_bytes());
        form.bytes(&file.content_hash);
        form.bytes(&file.signature);
        form.headers(file.headers.as_ref());
    }
    form.hash()
}

/// The hash of connection settings: `ConnectionSettingsOffers.hash`. It covers every field but itself, so it has to be made
/// from the settings as a whole, also where only the parts that changed are sent (R-CONN-16).
#[must_use]
pub fn connection_settings_hash(settings: &pb::ConnectionSettingsOffers) -> ConfigHash {
    let pb::ConnectionSettingsOffers { hash: _, opamp, own_metrics, own_traces, own_logs, other_connections } =
        settings;
    let mut form = Form::new("opamp.connection-settings.v1");
    form.optional(opamp.as_ref(), |form, opamp| {
        let pb::OpAmpConnectionSettings {
            destination_endpoint,
            headers,
            certificate,
            heartbeat_interval_seconds,
            tls,
            proxy,
        } = opamp;
        form.bytes(destination_endpoint.as_bytes());
        form.headers(headers.as_ref());
        form.certificate(certificate.as_ref());
        form.number(*heartbeat_interval_seconds);
        form.tls(tls.as_ref());
        form.proxy(proxy.as_ref());
    });
    for telemetry in [own_metrics, own_traces, own_logs] {
        form.optional(telemetry.as_ref(), |form, telemetry| {
            let pb::TelemetryConnectionSettings { destination_endpoint, headers, certificate, tls, proxy } =
                telemetry;
            form.bytes(destination_endpoint.as_bytes());
            form.headers(headers.as_ref());
            form.certificate(certificate.as_ref());
            form.tls(tls.as_ref());
            form.proxy(proxy.as_ref());
        });
    }
    form.number(other_connections.len() as u64);
    for (name, other) in other_connections {
        let pb::OtherConnectionSettings {
            destination_endpoint,
            headers,
            certificate,
            other_settings,
            tls,
            proxy,
        } = other;
        form.bytes(name.as_bytes());
        form.bytes(destination_endpoint.as_bytes());
        form.headers(headers.as_ref());
        form.certificate(certificate.as_ref());
        form.number(other_settings.len() as u64);
        for (key, value) in other_settings {
            form.bytes(key.as_bytes());
            form.bytes(value.as_bytes());
        }
        form.tls(tls.as_ref());
        form.proxy(proxy.as_ref());
    }
    form.hash()
}

/// The hash of all offered packages: `PackagesAvailable.all_packages_hash`. It covers their names, contents and own
/// `hash` fields (R-PKG-45); no packages have a hash too (R-PKG-46).
#[must_use]
pub fn all_packages_hash(packages: &BTreeMap<String, pb::PackageAvailable>) -> ConfigHash {
    let mut form = Form::new("opamp.packages.v1");
    form.number(packages.len() as u64);
    for (name, package) in packages {
        form.bytes(name.as_bytes());
        form.bytes(package_hash(package).as_bytes());
        // An agent looks into the offer only when this hash differs, and then compares the packages' own: where those
        // were made differently, a change of one must show here too.
        form.bytes(&package.hash);
    }
    form.hash()
}

/// A canonical form on its way into SHA-256.
struct Form(Sha256);

impl Form {
    fn new(label: &str) -> Self {
        let mut form = Self(Sha256::new());
        form.bytes(label.as_bytes());
        form
    }

    fn number(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn optional<T>(&mut self, value: Option<&T>, write: impl FnOnce(&mut Self, &T)) {
        self.number(u64::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn headers(&mut self, headers: Option<&pb::Headers>) {
        self.optional(headers, |form, headers| {
            form.number(headers.headers.len() as u64);
            for header in &headers.headers {
                form.bytes(header.key.as_bytes());
                form.bytes(header.value.as_bytes());
            }
        });
    }

    fn certificate(&mut self, certificate: Option<&pb::TlsCertificate>) {
        self.optional(certificate, |form, certificate| {
            let pb::TlsCertificate { cert, private_key, ca_cert } = certificate;
            form.bytes(cert);
            form.bytes(private_key);
            form.bytes(ca_cert);
        });
    }

    fn tls(&mut self, tls: Option<&pb::TlsConnectionSettings>) {
        self.optional(tls, |form, tls| {
            let pb::TlsConnectionSettings {
                ca_pem_contents,
                include_system_ca_certs_pool,
                insecure_skip_verify,
                min_version,
                max_version,
                cipher_suites,
            } = tls;
            form.bytes(ca_pem_contents.as_bytes());
            form.number(u64::from(*include_system_ca_certs_pool));
            form.number(u64::from(*insecure_skip_verify));
            form.bytes(min_version.as_bytes());
            form.bytes(max_version.as_bytes());
            form.number(cipher_suites.len() as u64);
            for suite in cipher_suites {
                form.bytes(suite.as_bytes());
            }
        });
    }

    fn proxy(&mut self, proxy: Option<&pb::ProxyConnectionSettings>) {
        self.optional(proxy, |form, proxy| {
            let pb::ProxyConnectionSettings { url, connect_headers } = proxy;
            form.bytes(url.as_bytes());
            form.headers(connect_headers.as_ref());
        });
    }

    fn hash(self) -> ConfigHash {
        ConfigHash::new(Bytes::copy_from_slice(&self.0.finalize()))
    }
}
