//! Proxies: which one, and what it is told.

use std::fmt;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;

use super::endpoint::Endpoint;
use super::tls::TlsSource;

/// The proxy between agent and server, if there is one.
///
/// TLS connections and WebSockets pass it in a tunnel opened with CONNECT, plain HTTP as ordinary requests through a
/// proxy, as other programs do it.
///
/// Exceptions, from `NO_PROXY` or given, are separated by commas: names, with all names below them; `*.name` and `.name`
/// alike; addresses, IPv6 with or without brackets; networks such as `10.0.0.0/8`; any of these with a port; `*` for
/// every server.
#[derive(Clone)]
pub struct Proxy {
    /// For wss and https.
    tls: Option<Address>,
    /// For ws and http.
    plain: Option<Address>,
    exceptions: Vec<Exception>,
    connect_headers: HeaderMap,
    /// How an https proxy is reached.
    tls_source: Option<TlsSource>,
    /// It is shown the certificate that the server is shown.
    shows_identity: bool,
    /// From the environment, where servers on this machine are not meant.
    spares_loopback: bool,
}

/// The address of a proxy as somebody wrote it.
#[derive(Clone)]
struct Address {
    url: String,
    /// Where it stands: the name of a variable.
    source: &'static str,
}

/// A server that is reached without the proxy.
#[derive(Clone)]
struct Exception {
    host: String,
    port: Option<u16>,
}

/// Why text is not the address of a proxy, or not a header for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// The name or value cannot stand in a header.
    #[error("{0:?} cannot be a header for a proxy")]
    Header(String),
    /// It is not a URL such as `http://proxy:3128`, or of a kind of proxy that is not spoken.
    #[error("not the address of an HTTP proxy, such as http://user:password@proxy.example.com:3128")]
    Url,
}

/// The proxy for one server.
pub(crate) struct Hop {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
    pub(crate) authorization: Option<HeaderValue>,
}

impl Proxy {
    /// No proxy, whatever the environment says.
    #[must_use]
    pub fn none() -> Self {
        Self::new(None, None, "")
    }

    /// What the variables `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say now, in upper or lower case:
    /// the first for wss and https, the second for ws and http. A proxy that cannot be used fails each attempt to
    /// connect; it is not passed by. Servers on this machine (`localhost` and loopback addresses) are reached without.
    #[must_use]
    pub fn from_env() -> Self {
        let first = |names: &[&'static str]| {
            let set = |name: &&'static str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
            names
                .iter()
                .find_map(|name| set(name).map(|url| Address { url: url.trim().to_owned(), source: name }))
        };
        // Where a web server makes variables of a client's headers, HTTP_PROXY is whatever that client wants.
        let cgi = std::env::var_os("REQUEST_METHOD").is_some();
        let plain: &[_] = if cgi { &["http_proxy"] } else { &["HTTP_PROXY", "http_proxy"] };
        let all = first(&["ALL_PROXY", "all_proxy"]);
        let exceptions = first(&["NO_PROXY", "no_proxy"]).map_or_else(String::new, |list| list.url);
        let tls = first(&["HTTPS_PROXY", "https_proxy"]).or(all.clone());
        Self { spares_loopback: true, ..Self::new(tls, first(plain).or(all), &exceptions) }
    }

    /// This proxy for every server. User name and password in the URL are sent to it as Basic authentication.
    ///
    /// # Errors
    ///
    /// [`ProxyError::Url`].
    pub fn url(url: &str) -> Result<Self, ProxyError> {
        Self::with_exceptions(url, "")
    }

    /// This proxy for every server but those of a list as in `NO_PROXY`.
    ///
    /// # Errors
    ///
    /// [`ProxyError::Url`].
    pub fn with_exceptions(url: &str, no_proxy: &str) -> Result<Self, ProxyError> {
        let address = Address { url: url.to_owned(), source: "the proxy" };
        address.hop().map_err(|_| ProxyError::Url)?;
        Ok(Self::new(Some(address.clone()), Some(address), no_proxy))
    }

    fn new(tls: Option<Address>, plain: Option<Address>, exceptions: &str) -> Self {
        let entries = exceptions.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty());
        let exceptions = entries.map(Exception::parse).collect();
        Self {
            tls,
            plain,
            exceptions,
            connect_headers: HeaderMap::new(),
            tls_source: None,
            shows_identity: false,
            spares_loopback: false,
        }
    }

    /// Sends a header with each CONNECT request, for proxies that want one. The server does not see it.
    ///
    /// # Errors
    ///
    /// [`ProxyError::Header`] if name or value cannot stand in a header; the value is not repeated.
    pub fn connect_header(mut self, name: &str, value: &str) -> Result<Self, ProxyError> {
        let error = |_| ProxyError::Header(name.to_owned());
        let header: HeaderName = name.parse().map_err(|_| ProxyError::Header(name.to_owned()))?;
        let mut value = HeaderValue::from_str(value).map_err(error)?;
        value.set_sensitive(true);
        self.connect_headers.append(header, value);
        Ok(self)
    }

    /// How a proxy with an https address is reached. Default: by the authorities that the agent trusts, without showing
    /// it the agent's certificate.
    #[must_use]
    pub fn tls(mut self, tls: TlsSource) -> Self {
        self.tls_source = Some(tls);
        self
    }

    /// Shows the agent's certificate to an https proxy as well, unless that is reached in a way of its own.
    pub(crate) fn showing_identity(mut self) -> Self {
        self.shows_identity = true;
        self
    }

    /// How an https proxy is reached by an agent with this TLS configuration.
    pub(crate) async fn tls_source(&self, agent: Option<&TlsSource>) -> Option<TlsSource> {
        match (&self.tls_source, agent) {
            (Some(own), _) => Some(own.clone()),
            (None, Some(agent)) if self.shows_identity => Some(agent.clone()),
            (None, Some(agent)) => Some(agent.without_identity().await),
            (None, None) => None,
        }
    }

    pub(crate) fn connect_headers(&self) -> &HeaderMap {
        &self.connect_headers
    }

    /// The proxy on the way to a server; an error says why the one that is named cannot be used.
    pub(crate) fn hop(&self, target: &Endpoint) -> Result<Option<Hop>, String> {
        let address = if target.tls { &self.tls } else { &self.plain };
        match address {
            Some(address) if !self.excepts(target) => address.hop().map(Some),
            _ => Ok(None),
        }
    }

    fn excepts(&self, target: &Endpoint) -> bool {
        let meant = self.exceptions.iter().filter(|known| known.port.is_none_or(|port| port == target.port));
        let hosts: Vec<_> = meant.map(|exception| exception.host.as_str()).collect();
        let host = target.host.trim_end_matches('.');
        if self.spares_loopback && is_loopback(host) {
            return true;
        }
        let url = if host.contains(':') { format!("http://[{host}]/") } else { format!("http://{host}/") };
        let Ok(uri) = url.parse::<Uri>() else { return false };
        let matcher = Matcher::builder().all("http://proxy.invalid").no(hosts.join(",")).build();
        hosts.contains(&"*") || matcher.intercept(&uri).is_none()
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl Address {
    fn hop(&self) -> Result<Hop, String> {
        let source = self.source;
        // A password with such a character in it ends the address early, and its start would stand for the host.
        let after_scheme = self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest);
        if after_scheme.find(['/', '?', '#']).is_some_and(|end| after_scheme[end..].contains('@')) {
            return Err(format!(
                "{source} is not the address of an HTTP proxy; a character of its password is to be escaped"
            ));
        }
        let any = Uri::from_static("http://server.invalid/");
        let hop = Matcher::builder().all(&self.url).build().intercept(&any);
        // What it is instead stays unsaid: there may be a password in it.
        let hop = hop.ok_or_else(|| format!("{source} is not the address of an HTTP proxy"))?;
        // A port that is none would silently become that of the scheme.
        let authority = hop.uri().authority().map_or("", |authority| authority.as_str());
        let after_host = authority.rsplit_once(']').map_or(authority, |(_, rest)| rest);
        if after_host.contains(':') && hop.uri().port_u16().is_none() {
            return Err(format!("{source} has a port that does not exist"));
        }
        let tls = match hop.uri().scheme_str() {
            Some("http") => false,
            Some("https") => true,
            other => return Err(format!("{source}: {} proxies are not supported", other.unwrap_or("such"))),
        };
        let default_port = if tls { 443 } else { 80 };
        Ok(Hop {
            host: hop.uri().host().unwrap_or_default().trim_matches(['[', ']']).to_owned(),
            port: hop.uri().port_u16().unwrap_or(default_port),
            tls,
            authorization: hop.basic_auth().cloned(),
        })
    }
}

impl Exception {
    fn parse(entry: &str) -> Self {
        let (host, port) = match entry.rsplit_once(':') {
            // More than one colon without brackets is an IPv6 address.
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().ok()),
            _ => (entry, None),
        };
        let host = if port.is_some() { host } else { entry };
        let host = host.trim_matches(['[', ']']).trim_end_matches('.');
        let host = if host == "*" { host } else { host.trim_start_matches('*') };
        Self { host: host.to_ascii_lowercase(), port }
    }
}

/// The environment decides, as with other programs.
impl Default for Proxy {
    fn default() -> Self {
        Self::from_env()
    }
}

/// Names headers, never their values, and no address: it may hold a password.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.connect_headers.keys().collect();
        f.debug_struct("Proxy").field("connect_headers", &headers).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(proxy: &Proxy, target: &str) -> Option<String> {
        let hop = proxy.hop(&Endpoint::parse(target).unwrap()).unwrap()?;
        Some(format!("{}:{}", hop.host, hop.port))
    }

    #[test]
    fn exceptions_are_names_with_all_below_them_addresses_networks_ports_and_everything() {
        let exceptions = [
            ("example.com", "wss://example.com", "wss://example.org"),
            ("example.com", "ws://a.example.com:4320", "wss://badexample.com"),
            ("Example.COM", "wss://example.com.", "wss://com"),
            ("*.example.com", "wss://a.example.com", "wss://example.org"),
            (".example.com", "wss://a.example.com", "wss://example.org"),
            ("10.0.0.0/8", "http://10.1.2.3", "http://11.1.2.3"),
            ("10.1.2.3", "http://10.1.2.3", "http://10.1.2.4"),
            ("[::1]", "ws://[::1]:4320", "ws://[::2]:4320"),
            ("::1", "ws://[::1]:4320", "ws://[::2]:4320"),
            ("fd00::/8", "ws://[fd00::1]", "ws://[fe00::1]"),
            ("example.com:4320", "wss://example.com:4320", "wss://example.com:4321"),
            ("10.1.2.3:4320", "ws://10.1.2.3:4320", "ws://10.1.2.3:4321"),
            ("[::1]:4320", "ws://[::1]:4320", "ws://[::1]:4321"),
        ];
        for (list, direct, through) in exceptions {
            let list = format!("nowhere.invalid, {list},");
            let proxy = Proxy::with_exceptions("http://p:3128", &list).unwrap();
            assert_eq!(hop(&proxy, direct), None, "{list}: {direct}");
            assert_eq!(hop(&proxy, through).as_deref(), Some("p:3128"), "{list}: {through}");
        }
        let proxy = Proxy::with_exceptions("http://p:3128", "*").unwrap();
        for direct in ["wss://10.0.0.1", "wss://example.com", "ws://[::1]", "http://localhost"] {
            assert_eq!(hop(&proxy, direct), None, "{direct}");
        }
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_not_passed_by() {
        for bad in [
            "http://u:p#w@proxy",
            "http://u:12#w@proxy",
            "http://to#en@proxy:3128",
            "http://u:1?p#w@proxy",
            "u:1/p#w@proxy",
            "http://",
            "socks5://p:1080",
        ] {
            let address = Address { url: bad.to_owned(), source: "HTTPS_PROXY" };
            let proxy = Proxy::new(Some(address), None, "example.org");
            let why = proxy.hop(&Endpoint::parse("wss://example.com").unwrap()).err().unwrap();
            assert!(why.contains("HTTPS_PROXY") && !why.contains("#w") && !why.contains("12"), "{why}");
            assert_eq!(hop(&proxy, "ws://example.com"), None);
            assert_eq!(hop(&proxy, "wss://example.org"), None);
        }
    }

    #[test]
    fn user_and_password_become_basic_authentication() {
        let proxy = Proxy::url("http://Aladdin:open%20sesame@p").unwrap();
        let hop = proxy.hop(&Endpoint::parse("wss://h").unwrap()).unwrap().unwrap();
        assert_eq!((hop.port, hop.tls), (80, false));
        assert_eq!(hop.authorization.unwrap(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(!format!("{proxy:?}").contains("sesame"));
    }

    #[test]
    fn what_is_no_http_proxy_is_refused() {
        for bad in [
            "",
            "socks5://p",
            "ftp://p",
            "http://",
            "http://p:99999",
            "http://p:3l28",
            "http://user:secret",
            "http://[::1]:x",
        ] {
            assert_eq!(Proxy::url(bad).unwrap_err(), ProxyError::Url, "{bad}");
        }
        assert!(Proxy::none().connect_header("a b", "x").is_err());
        assert!(Proxy::none().connect_header("x-token", "a\nb").is_err());
    }
}
