//! What an offer must hold to be worth sending.

use opamp_proto::pb;

use super::certificate;
use super::connection_settings::OfferRules;

/// Why an offer cannot be made. Names the field, never its value: there are secrets among them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidOffer {
    /// Nothing is set.
    #[error("the offer holds no settings; set at least one part")]
    Empty,
    /// The address is no URL of a kind that can be used there.
    #[error("{field}: must be a URL beginning with {expected}")]
    Endpoint {
        /// The field.
        field: String,
        /// What is accepted.
        expected: &'static str,
    },
    /// A telemetry endpoint without its path (R-CONN-32).
    #[error("{field}: must be the full URL with its path, such as https://example.com:4318/v1/metrics")]
    NoPath {
        /// The field.
        field: String,
    },
    /// A required field is empty.
    #[error("{field}: must not be empty")]
    Missing {
        /// The field.
        field: String,
    },
    /// A private key in an offer that answers a signing request (R-CSR-10).
    #[error("{field}: the key of a requested certificate stays with the agent; leave it out")]
    KeyOfAgent {
        /// The field.
        field: String,
    },
    /// Not what PEM looks like.
    #[error("{field}: must be PEM with a block {expected:?}")]
    NotPem {
        /// The field.
        field: String,
        /// The label that was looked for.
        expected: &'static str,
    },
    /// The certificate in the PEM block is none.
    #[error("{field}: is not an X.509 certificate")]
    NotACertificate {
        /// The field.
        field: String,
    },
    /// The certificate is signed by a CA whose own is not given (R-TLS-18).
    #[error("{field}: the certificate is signed by a CA; give that CA's certificate")]
    MissingCa {
        /// The field.
        field: String,
    },
    /// The certificate is self-signed, and then there is no CA (R-TLS-18).
    #[error("{field}: the certificate is self-signed; leave the CA's out")]
    NeedlessCa {
        /// The field.
        field: String,
    },
    /// A header that HTTP cannot carry.
    #[error("{field}: names of headers are tokens, and values hold no control characters")]
    Header {
        /// The field.
        field: String,
    },
    /// The content hash is not a SHA-256 (R-PKG-49).
    #[error("{field}: must be the 32 bytes of a SHA-256")]
    ContentHash {
        /// The field.
        field: String,
    },
}

const OPAMP_SCHEMES: &[&str] = &["wss", "ws", "https", "http"];
const HTTPS: &[&str] = &["https"];
const HTTP: &[&str] = &["https", "http"];

/// Checks settings as a whole.
pub(super) fn settings(
    settings: &pb::ConnectionSettingsOffers,
    rules: OfferRules,
) -> Result<(), InvalidOffer> {
    let pb::ConnectionSettingsOffers { hash: _, opamp, own_metrics, own_traces, own_logs, other_connections } =
        settings;
    let telemetry = [("own_metrics", own_metrics), ("own_traces", own_traces), ("own_logs", own_logs)];
    if opamp.is_none() && telemetry.iter().all(|(_, part)| part.is_none()) && other_connections.is_empty() {
        return Err(InvalidOffer::Empty);
    }
    if let Some(opamp) = opamp {
        let expected = "ws://, wss://, http:// or https://";
        url(&opamp.destination_endpoint, OPAMP_SCHEMES, expected, "opamp.destination_endpoint")?;
        headers(opamp.headers.as_ref(), "opamp.headers")?;
        check_certificate(opamp.certificate.as_ref(), "opamp.certificate", rules.issued_certificate)?;
        proxy(opamp.proxy.as_ref(), "opamp.proxy")?;
    }
    for (name, part) in telemetry {
        let Some(part) = part else { continue };
        let field = format!("{name}.destination_endpoint");
        let (schemes, expected) = match rules.insecure_telemetry {
            true => (HTTP, "https:// or http://"),
            false => (HTTPS, "https:// (plain http:// has to be allowed explicitly)"),
        };
        let path = url(&part.destination_endpoint, schemes, expected, &field)?;
        if path.len() < 2 {
            return Err(InvalidOffer::NoPath { field });
        }
        headers(part.headers.as_ref(), &format!("{name}.headers"))?;
        check_certificate(part.certificate.as_ref(), &format!("{name}.certificate"), false)?;
        proxy(part.proxy.as_ref(), &format!("{name}.proxy"))?;
    }
    for (name, part) in other_connections {
        let name = format!("other_connections[{name:?}]");
        headers(part.headers.as_ref(), &format!("{name}.headers"))?;
        check_certificate(part.certificate.as_ref(), &format!("{name}.certificate"), false)?;
        proxy(part.proxy.as_ref(), &format!("{name}.proxy"))?;
    }
    Ok(())
}

/// Checks packages as a whole.
pub(super) fn packages(packages: &pb::PackagesAvailable) -> Result<(), InvalidOffer> {
    for (name, package) in &packages.packages {
        let name = format!("packages[{name:?}].file");
        let Some(file) = &package.file else {
            return Err(InvalidOffer::Missing { field: name });
        };
        url(&file.download_url, HTTP, "https:// or http://", &format!("{name}.download_url"))?;
        if file.content_hash.len() != 32 {
            return Err(InvalidOffer::ContentHash { field: format!("{name}.content_hash") });
        }
        headers(file.headers.as_ref(), &format!("{name}.headers"))?;
    }
    Ok(())
}

/// The path of a URL with one of these schemes and a host.
fn url<'a>(
    text: &'a str,
    schemes: &[&str],
    expected: &'static str,
    field: &str,
) -> Result<&'a str, InvalidOffer> {
    let wrong = || InvalidOffer::Endpoint { field: field.to_owned(), expected };
    let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
    if !schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(wrong());
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    if !printable || host.is_empty() || host.starts_with(':') {
        return Err(wrong());
    }
    Ok(path.split(['?', '#']).next().unwrap_or_default())
}

fn headers(headers: Option<&pb::Headers>, field: &str) -> Result<(), InvalidOffer> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let fits = |header: &pb::Header| {
        !header.key.is_empty()
            && header.key.bytes().all(is_token)
            && header.value.bytes().all(|byte| byte == b'\t' || !byte.is_ascii_control())
    };
    match headers.is_none_or(|headers| headers.headers.iter().all(fits)) {
        true => Ok(()),
        false => Err(InvalidOffer::Header { field: field.to_owned() }),
    }
}

fn proxy(proxy: Option<&pb::ProxyConnectionSettings>, field: &str) -> Result<(), InvalidOffer> {
    let Some(proxy) = proxy else { return Ok(()) };
    if proxy.url.trim().is_empty() {
        return Err(InvalidOffer::Missing { field: format!("{field}.url") });
    }
    headers(proxy.connect_headers.as_ref(), &format!("{field}.connect_headers"))
}

fn check_certificate(
    certificate: Option<&pb::TlsCertificate>,
    field: &str,
    issued: bool,
) -> Result<(), InvalidOffer> {
    let Some(pb::TlsCertificate { cert, private_key, ca_cert }) = certificate else { return Ok(()) };
    let [cert_field, key_field, ca_field] =
        ["cert", "private_key", "ca_cert"].map(|name| format!("{field}.{name}"));
    let self_signed = certificate::is_self_signed(cert, &cert_field)?;
    match (private_key.is_empty(), issued) {
        (true, true) => {}
        (true, false) => return Err(InvalidOffer::Missing { field: key_field }),
        (false, true) => return Err(InvalidOffer::KeyOfAgent { field: key_field }),
        (false, false) => certificate::check_key(private_key, key_field)?,
    }
    match (self_signed, ca_cert.is_empty()) {
        (true, false) => Err(InvalidOffer::NeedlessCa { field: ca_field }),
        (false, true) => Err(InvalidOffer::MissingCa { field: ca_field }),
        (true, true) => Ok(()),
        (false, false) => certificate::is_self_signed(ca_cert, &ca_field).map(|_| ()),
    }
}
