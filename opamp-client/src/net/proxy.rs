//! Proxies: which one, and what it is told.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;

use super::endpoint::Endpoint;

/// The proxy between agent and server, if there is one.
///
/// TLS connections and WebSockets pass it in a tunnel opened with CONNECT, plain HTTP as ordinary requests through a
/// proxy, as other programs do it.
pub struct Proxy {
    matcher: Option<Matcher>,
    connect_headers: HeaderMap,
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
        Self { matcher: None, connect_headers: HeaderMap::new() }
    }

    /// What the variables `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say now, in upper or lower case:
    /// the first for wss and https, the second for ws and http.
    #[must_use]
    pub fn from_env() -> Self {
        Self { matcher: Some(Matcher::from_env()), connect_headers: HeaderMap::new() }
    }

    /// This proxy for every server. User name and password in the URL are sent to it as Basic authentication.
    ///
    /// # Errors
    ///
    /// [`ProxyError::Url`].
    pub fn url(url: &str) -> Result<Self, ProxyError> {
        Self::with_exceptions(url, "")
    }

    /// This proxy for every server but those of a list as in `NO_PROXY`: names with all below them, addresses, networks.
    ///
    /// # Errors
    ///
    /// [`ProxyError::Url`].
    pub fn with_exceptions(url: &str, no_proxy: &str) -> Result<Self, ProxyError> {
        let any = Uri::from_static("http://server.invalid/");
        let hop = Matcher::builder().all(url).build().intercept(&any);
        if !hop.is_some_and(|hop| matches!(hop.uri().scheme_str(), Some("http" | "https"))) {
            return Err(ProxyError::Url);
        }
        let matcher = Matcher::builder().all(url).no(no_proxy).build();
        Ok(Self { matcher: Some(matcher), connect_headers: HeaderMap::new() })
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

    pub(crate) fn connect_headers(&self) -> &HeaderMap {
        &self.connect_headers
    }

    /// The proxy on the way to a server; an error names a kind of proxy that is not spoken.
    pub(crate) fn hop(&self, target: &Endpoint) -> Result<Option<Hop>, String> {
        let Some(matcher) = &self.matcher else { return Ok(None) };
        let Ok(uri) = target.http_url().parse::<Uri>() else { return Ok(None) };
        let Some(hop) = matcher.intercept(&uri) else { return Ok(None) };
        let tls = match hop.uri().scheme_str() {
            Some("http") => false,
            Some("https") => true,
            other => return Err(format!("{} proxies are not supported", other.unwrap_or("such"))),
        };
        let default_port = if tls { 443 } else { 80 };
        Ok(Some(Hop {
            host: hop.uri().host().unwrap_or_default().trim_matches(['[', ']']).to_owned(),
            port: hop.uri().port_u16().unwrap_or(default_port),
            tls,
            authorization: hop.basic_auth().cloned(),
        }))
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
    fn exceptions_are_names_with_all_below_them_addresses_and_networks() {
        let proxy = Proxy::with_exceptions("http://p:3128", "example.com, 10.0.0.0/8, [::1]").unwrap();
        assert_eq!(hop(&proxy, "wss://opamp.example.org").as_deref(), Some("p:3128"));
        for direct in ["wss://example.com", "ws://a.example.com:4320", "http://10.1.2.3"] {
            assert_eq!(hop(&proxy, direct), None, "{direct}");
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
        for bad in ["", "socks5://p", "ftp://p", "http://"] {
            assert_eq!(Proxy::url(bad).unwrap_err(), ProxyError::Url, "{bad}");
        }
        assert!(Proxy::none().connect_header("a b", "x").is_err());
        assert!(Proxy::none().connect_header("x-token", "a\nb").is_err());
    }
}
