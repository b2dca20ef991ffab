//! Text that is never shown, and text of which a part is not.

use std::fmt;
use std::net::IpAddr;

/// What stands in place of a secret.
pub(super) const REDACTED: &str = "<redacted>";

/// A secret. `Debug` shows that there is one, and nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text, for whoever has to use it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// The address of a server. What follows a question mark in it can be a credential, and is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(String);

impl Address {
    /// The whole address, for whoever connects to it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether it is reached over TLS.
    pub(crate) fn has_tls(&self) -> bool {
        has_tls(&self.0)
    }

    /// Whether what is sent there leaves neither this machine nor TLS.
    pub(crate) fn is_private(&self) -> bool {
        let uri = self.0.parse::<http::Uri>().unwrap_or_default();
        let host = uri.host().unwrap_or_default();
        let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        self.has_tls()
            || host.eq_ignore_ascii_case("localhost")
            || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
    }
}

/// Whether a URL is one of TLS.
pub(crate) fn has_tls(url: &str) -> bool {
    let scheme = url.split(':').next().unwrap_or_default();
    scheme.eq_ignore_ascii_case("wss") || scheme.eq_ignore_ascii_case("https")
}

impl From<String> for Address {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_once('?') {
            Some((shown, _)) => write!(f, "{shown}?{REDACTED}"),
            None => f.write_str(&self.0),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
