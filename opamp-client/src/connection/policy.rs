//! What a server may not change.

use super::parts::{OpampSettings, TelemetrySettings, TlsParameters};

/// Which offers of OpAMP connection settings are taken. By default none that makes the connection less safe than it was
/// configured; each exception has a name here, and only this program can make it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SettingsPolicy {
    credentials_elsewhere: bool,
    insecure_skip_verify: bool,
    older_tls: bool,
    plaintext: bool,
    plaintext_telemetry: bool,
}

/// What an offer is measured by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InUse {
    /// The configured endpoint or the one in use has TLS.
    pub(crate) tls: bool,
    /// What is accepted outlives the process.
    pub(crate) durable: bool,
}

impl SettingsPolicy {
    /// Nothing that makes the connection less safe.
    #[must_use]
    pub const fn strict() -> Self {
        Self {
            credentials_elsewhere: false,
            insecure_skip_verify: false,
            older_tls: false,
            plaintext: false,
            plaintext_telemetry: false,
        }
    }

    /// Takes an endpoint without TLS (ws or http) also in place of one with TLS. For tests of a fleet, not for a fleet:
    /// whoever is on the way then reads and writes everything, credentials included.
    #[must_use]
    pub const fn allow_plaintext(mut self) -> Self {
        self.plaintext = true;
        self
    }

    /// Takes http destinations for the agent's own telemetry also beyond this machine (R-CONN-34).
    #[must_use]
    pub const fn allow_plaintext_telemetry(mut self) -> Self {
        self.plaintext_telemetry = true;
        self
    }

    /// Obeys `insecure_skip_verify`: the server is then not verified (R-TLS-05), and anybody can stand for it.
    #[must_use]
    pub const fn allow_insecure_skip_verify(mut self) -> Self {
        self.insecure_skip_verify = true;
        self
    }

    /// Takes a lower `min_version` of TLS than the agent was configured with. Below 1.2 there is nothing to be had.
    #[must_use]
    pub const fn allow_older_tls(mut self) -> Self {
        self.older_tls = true;
        self
    }

    /// Shows the headers and tokens the agent was configured with also to another host or port, if an offer leads there and
    /// names no headers. Without, nothing is shown there.
    #[must_use]
    pub const fn allow_credentials_elsewhere(mut self) -> Self {
        self.credentials_elsewhere = true;
        self
    }

    #[cfg(feature = "net")]
    pub(crate) const fn allows_older_tls(self) -> bool {
        self.older_tls
    }

    pub(crate) const fn allows_credentials_elsewhere(self) -> bool {
        self.credentials_elsewhere
    }

    /// Whether settings may be tried; if not, why. What takes more than a look (certificates, cipher suites, proxies) is
    /// examined by the driver.
    pub(crate) fn check(self, offer: &OpampSettings, in_use: InUse) -> Result<(), String> {
        let endpoint = offer.endpoint.trim();
        if endpoint.is_empty() {
            return Err("destination_endpoint is empty".to_owned());
        }
        let scheme = endpoint.split_once("://").map_or("", |(scheme, _)| scheme);
        if !["ws", "wss", "http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return Err("destination_endpoint has no scheme of OpAMP: ws, wss, http or https".to_owned());
        }
        if in_use.tls && !is_tls(endpoint) && !self.plaintext {
            return Err(
                "destination_endpoint has no TLS, and what is in use has; this agent does not give it up"
                    .to_owned(),
            );
        }
        if offer.tls.as_ref().is_some_and(|tls| tls.insecure_skip_verify) && !self.insecure_skip_verify {
            return Err("tls.insecure_skip_verify is not obeyed by this agent".to_owned());
        }
        if offer.proxy.as_ref().is_some_and(|proxy| proxy.url.is_empty()) {
            return Err("proxy.url is empty".to_owned());
        }
        match &offer.certificate {
            Some(_) if !in_use.durable => {
                Err("this agent keeps nothing over a restart, so it takes no certificate".to_owned())
            }
            Some(certificate) if certificate.cert.is_empty() => Err("certificate.cert is empty".to_owned()),
            _ => Ok(()),
        }
    }

    #[cfg(feature = "net")]
    pub(crate) const fn allows_insecure_skip_verify(self) -> bool {
        self.insecure_skip_verify
    }

    /// Whether a destination of own telemetry is handed over. What the application makes of it is its own, but what is less
    /// safe than it has to be is not even handed over without permission.
    pub(crate) fn check_telemetry(self, offer: &TelemetrySettings) -> Result<(), String> {
        let endpoint = offer.endpoint.trim();
        let (scheme, rest) = endpoint.split_once("://").unwrap_or_default();
        let plaintext = scheme.eq_ignore_ascii_case("http");
        if rest.is_empty() || !(plaintext || scheme.eq_ignore_ascii_case("https")) {
            return Err("destination_endpoint is no URL of scheme https or http".to_owned());
        }
        if plaintext && !self.plaintext_telemetry && !is_loopback(rest) {
            return Err("destination_endpoint has no TLS; this agent sends no telemetry there".to_owned());
        }
        self.check_tls(offer.tls.as_ref())
    }

    /// TLS of connections that only the application knows.
    pub(crate) fn check_tls(self, tls: Option<&TlsParameters>) -> Result<(), String> {
        if tls.is_some_and(|tls| tls.insecure_skip_verify) && !self.insecure_skip_verify {
            return Err("tls.insecure_skip_verify is not obeyed by this agent".to_owned());
        }
        Ok(())
    }
}

/// Whether what follows the scheme of a URL leads to this machine.
fn is_loopback(rest: &str) -> bool {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => v6.split_once(']').unwrap_or_default(),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    // What is in front of an `@` is a user, and what follows it the host.
    let port = port.strip_prefix(':').unwrap_or(port);
    if port.bytes().any(|byte| !byte.is_ascii_digit()) {
        return false;
    }
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether an endpoint has TLS, by its scheme.
pub(crate) fn is_tls(endpoint: &str) -> bool {
    let scheme = endpoint.trim().split_once("://").map_or("", |(scheme, _)| scheme);
    scheme.eq_ignore_ascii_case("wss") || scheme.eq_ignore_ascii_case("https")
}

#[cfg(test)]
mod tests {
    use super::super::parts::{ClientCertificate, ProxyParameters};
    use super::*;

    const SAFE: InUse = InUse { tls: true, durable: true };

    fn offer(endpoint: &str) -> OpampSettings {
        OpampSettings { endpoint: endpoint.into(), ..Default::default() }
    }

    fn refused(policy: SettingsPolicy, offer: &OpampSettings, in_use: InUse) -> Option<String> {
        policy.check(offer, in_use).err()
    }

    #[test]
    fn what_makes_the_connection_less_safe_is_refused_unless_allowed_by_name() {
        let strict = SettingsPolicy::strict();
        for plain in ["ws://h", "http://h", "HTTP://h"] {
            assert!(refused(strict, &offer(plain), SAFE).unwrap().contains("no TLS"), "{plain}");
            assert_eq!(refused(strict.allow_plaintext(), &offer(plain), SAFE), None);
            assert_eq!(refused(strict, &offer(plain), InUse { tls: false, ..SAFE }), None);
        }
        let tls = Some(TlsParameters { insecure_skip_verify: true, ..Default::default() });
        let blind = OpampSettings { tls, ..offer("wss://h") };
        for policy in [strict, strict.allow_plaintext().allow_older_tls().allow_credentials_elsewhere()] {
            assert!(refused(policy, &blind, SAFE).unwrap().contains("insecure_skip_verify"));
            assert!(policy.check_tls(blind.tls.as_ref()).is_err());
        }
        assert_eq!(refused(strict.allow_insecure_skip_verify(), &blind, SAFE), None);
    }

    #[test]
    fn what_can_never_work_is_refused_by_name() {
        let strict = SettingsPolicy::strict();
        for (bad, what) in [("", "empty"), ("  ", "empty"), ("ftp://x", "scheme"), ("h:4320", "scheme")] {
            assert!(refused(strict, &offer(bad), SAFE).unwrap().contains(what), "{bad}");
        }
        let proxy = Some(ProxyParameters::default());
        assert!(
            refused(strict, &OpampSettings { proxy, ..offer("wss://h") }, SAFE).unwrap().contains("proxy")
        );
        let with = |cert: &[u8]| OpampSettings {
            certificate: Some(ClientCertificate { cert: cert.to_vec(), ..Default::default() }),
            ..offer("wss://h")
        };
        assert!(refused(strict, &with(b""), SAFE).unwrap().contains("certificate"));
        assert_eq!(refused(strict, &with(b"x"), SAFE), None);
        let why = refused(strict, &with(b"x"), InUse { durable: false, ..SAFE }).unwrap();
        assert!(why.contains("restart"), "{why}");
    }

    #[test]
    fn telemetry_without_tls_stays_on_this_machine_unless_allowed_by_name() {
        let to = |endpoint: &str| TelemetrySettings { endpoint: endpoint.into(), ..Default::default() };
        let strict = SettingsPolicy::strict();
        for good in
            ["https://h/v1/metrics", "http://localhost:4318/v1/logs", "http://[::1]:1/x", "http://127.0.0.9"]
        {
            assert_eq!(strict.check_telemetry(&to(good)), Ok(()), "{good}");
        }
        for plain in [
            "http://h/v1/metrics",
            "http://localhost.example/x",
            "http://1.2.3.4:4318",
            "http://localhost:1@h/v1/metrics",
            "http://localhost@h/",
            "http://[::1]@h/",
            "http://[::1]:1@h/",
            "http://[::1].h/",
            "http://[::1/",
            "http://127.0.0.1:1.h/",
        ] {
            assert!(strict.check_telemetry(&to(plain)).unwrap_err().contains("no TLS"), "{plain}");
            assert_eq!(strict.allow_plaintext_telemetry().check_telemetry(&to(plain)), Ok(()), "{plain}");
        }
        for bad in ["", "h:4318", "ftp://h", "https://"] {
            assert!(strict.check_telemetry(&to(bad)).unwrap_err().contains("no URL"), "{bad}");
        }
    }
}
