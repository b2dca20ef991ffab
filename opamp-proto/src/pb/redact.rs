//! `Debug` of messages that hold secrets or whole files: lengths instead of contents.
//!
//! Messages end up in logs. Bodies of configurations, header values, keys and certificates, custom data, signatures and free
//! settings never do; of addresses, what can hold a credential (user information and query) does not.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Formatter};

use super::{
    AgentConfigObject, CertificateRequest, CustomMessage, DownloadableFile, Header, OpAmpConnectionSettings,
    OtherConnectionSettings, ProxyConnectionSettings, TelemetryConnectionSettings, TlsCertificate,
};

impl Debug for AgentConfigObject {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentConfigObject")
            .field("body", &Hidden(self.body.len()))
            .field("content_type", &self.content_type)
            .field("role", &self.role)
            .finish()
    }
}

impl Debug for CertificateRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateRequest").field("csr", &Hidden(self.csr.len())).finish()
    }
}

impl Debug for CustomMessage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomMessage")
            .field("capability", &self.capability)
            .field("type", &self.r#type)
            .field("data", &Hidden(self.data.len()))
            .finish()
    }
}

impl Debug for DownloadableFile {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("DownloadableFile")
            .field("download_url", &Address(&self.download_url))
            .field("content_hash", &self.content_hash)
            .field("signature", &Hidden(self.signature.len()))
            .field("headers", &self.headers)
            .finish()
    }
}

impl Debug for Header {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header").field("key", &self.key).field("value", &Hidden(self.value.len())).finish()
    }
}

impl Debug for OpAmpConnectionSettings {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpAmpConnectionSettings")
            .field("destination_endpoint", &Address(&self.destination_endpoint))
            .field("headers", &self.headers)
            .field("certificate", &self.certificate)
            .field("heartbeat_interval_seconds", &self.heartbeat_interval_seconds)
            .field("tls", &self.tls)
            .field("proxy", &self.proxy)
            .finish()
    }
}

impl Debug for OtherConnectionSettings {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtherConnectionSettings")
            .field("destination_endpoint", &Address(&self.destination_endpoint))
            .field("headers", &self.headers)
            .field("certificate", &self.certificate)
            .field("other_settings", &HiddenValues(&self.other_settings))
            .field("tls", &self.tls)
            .field("proxy", &self.proxy)
            .finish()
    }
}

impl Debug for ProxyConnectionSettings {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyConnectionSettings")
            .field("url", &Address(&self.url))
            .field("connect_headers", &self.connect_headers)
            .finish()
    }
}

impl Debug for TelemetryConnectionSettings {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("TelemetryConnectionSettings")
            .field("destination_endpoint", &Address(&self.destination_endpoint))
            .field("headers", &self.headers)
            .field("certificate", &self.certificate)
            .field("tls", &self.tls)
            .field("proxy", &self.proxy)
            .finish()
    }
}

impl Debug for TlsCertificate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsCertificate")
            .field("cert", &Hidden(self.cert.len()))
            .field("private_key", &Hidden(self.private_key.len()))
            .field("ca_cert", &Hidden(self.ca_cert.len()))
            .finish()
    }
}

/// Stands for so many bytes.
struct Hidden(usize);

impl Debug for Hidden {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0)
    }
}

/// The keys, without the values.
struct HiddenValues<'a>(&'a BTreeMap<String, String>);

impl Debug for HiddenValues<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(key, value)| (key, Hidden(value.len())))).finish()
    }
}

/// A URL, or any other form of address, without user information and query.
struct Address<'a>(&'a str);

impl Debug for Address<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let is_scheme =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let (scheme, rest) = match self.0.split_once("://") {
            Some((scheme, rest)) if is_scheme(scheme) => (&self.0[..scheme.len() + 3], rest),
            _ => ("", self.0),
        };
        // Passwords hold any character, so everything up to the last `@` is taken for user information, even where a
        // careful reading would find the `@` in a path or query.
        let (hidden, rest) = match rest.rsplit_once('@') {
            Some((_, rest)) => ("…@", rest),
            None => ("", rest),
        };
        let shown = rest.split(['?', '#']).next().unwrap_or_default();
        let cut = if shown.len() < rest.len() { "?…" } else { "" };
        write!(f, "\"{scheme}{hidden}{}{cut}\"", shown.escape_debug())
    }
}
