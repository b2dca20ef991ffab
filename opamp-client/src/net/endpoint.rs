//! Addresses of servers.

use std::fmt;

use http::Uri;

use crate::event::Transport;
use crate::failure::peer_text;

/// The path of an endpoint that has none (R-TRANS-03).
pub(crate) const DEFAULT_PATH: &str = "/v1/opamp";

/// Where a server is: scheme, host, port and path.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) transport: Transport,
    pub(crate) tls: bool,
    /// Without the brackets of an IPv6 address.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path_and_query: String,
}

/// Why text is not the address of an OpAMP server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// It has a user name or password. Credentials belong into headers: endpoints are shown in logs.
    #[error("the endpoint holds credentials; set them as header or token instead")]
    Credentials,
    /// It has no host.
    #[error("{0:?} has no host")]
    Host(String),
    /// Its scheme is none of those OpAMP has.
    #[error("{0:?} is no scheme for OpAMP; use ws, wss, http or https")]
    Scheme(String),
    /// It is not a URL at all.
    #[error("{0:?} is not a URL such as wss://opamp.example.com/v1/opamp")]
    Url(String),
}

impl Endpoint {
    /// Reads a URL (R-TRANS-02, R-TRANS-03, R-TRANS-04). The port is that of the scheme unless given, the path
    /// `/v1/opamp` unless given; a path of `/` counts as given.
    pub(crate) fn parse(url: &str) -> Result<Self, EndpointError> {
        let url = url.trim();
        let not_a_url = || EndpointError::Url(without_secrets(url).to_owned());
        let uri: Uri = url.parse().map_err(|_| not_a_url())?;
        let (transport, tls, default_port) = match uri.scheme_str() {
            Some("ws") => (Transport::WebSocket, false, 80),
            Some("wss") => (Transport::WebSocket, true, 443),
            Some("http") => (Transport::Http, false, 80),
            Some("https") => (Transport::Http, true, 443),
            Some(other) => return Err(EndpointError::Scheme(other.to_owned())),
            None => return Err(not_a_url()),
        };
        let authority = uri.authority().ok_or_else(not_a_url)?;
        if authority.as_str().contains('@') {
            return Err(EndpointError::Credentials);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(EndpointError::Host(url.to_owned()));
        }
        let given = authority.as_str().len() > authority.host().len();
        let port = match authority.port_u16() {
            Some(port) => port,
            None if given => return Err(not_a_url()),
            None => default_port,
        };
        let after_scheme = url.split_once("://").map_or("", |(_, rest)| rest);
        let after_scheme = after_scheme.split(['?', '#']).next().unwrap_or_default();
        let path_and_query = match uri.path_and_query() {
            Some(given) if after_scheme.contains('/') => given.as_str().to_owned(),
            Some(given) => format!("{DEFAULT_PATH}{}", given.as_str().trim_start_matches('/')),
            None => DEFAULT_PATH.to_owned(),
        };
        Ok(Self { transport, tls, host: host.to_owned(), port, path_and_query })
    }

    /// Where a redirect leads, seen from here. The transport stays; TLS is never given up.
    pub(crate) fn redirected(&self, location: &str) -> Result<Self, String> {
        let location = location.split('#').next().unwrap_or_default();
        let absolute = if is_absolute(location) {
            location.to_owned()
        } else if let Some(rest) = location.strip_prefix("//") {
            format!("{}://{rest}", self.scheme())
        } else {
            let path = self.path_and_query.split('?').next().unwrap_or_default();
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let path = match location {
                whole if whole.starts_with('/') => whole.to_owned(),
                query if query.starts_with('?') => format!("{path}{query}"),
                below => format!("{folder}/{below}"),
            };
            format!("{}://{}{path}", self.scheme(), self.authority())
        };
        // What follows a question mark can be a credential, and stays out of the error.
        let target = Self::parse(&absolute).map_err(|_| {
            format!(
                "the server redirects to {:?}, which is no endpoint",
                peer_text(without_secrets(&absolute))
            )
        })?;
        let target = Self { transport: self.transport, ..target };
        if self.tls && !target.tls {
            return Err(format!("the server redirects from TLS to {target}, which has none"));
        }
        Ok(target)
    }

    /// Whether credentials for one may be shown to the other: the same host and the same port.
    pub(crate) fn is_same_origin(&self, other: &Self) -> bool {
        self.host.eq_ignore_ascii_case(&other.host) && self.port == other.port
    }

    /// Host and port, as they stand in a `Host` header or a CONNECT request.
    pub(crate) fn authority(&self) -> String {
        format!("{}:{}", self.bracketed_host(), self.port)
    }

    /// Host, and port unless it is the scheme's own.
    pub(crate) fn host_header(&self) -> String {
        let default = if self.tls { 443 } else { 80 };
        if self.port == default { self.bracketed_host() } else { self.authority() }
    }

    /// The address as HTTP has it, `http` or `https`, for requests through a proxy and for the rules which proxy to use.
    pub(crate) fn http_url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.host_header(), self.path_and_query)
    }

    /// The whole address. What follows a question mark can be a credential: show it to nobody.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}{}", self.scheme(), self.host_header(), self.path_and_query)
    }

    const fn scheme(&self) -> &'static str {
        match (self.transport, self.tls) {
            (Transport::WebSocket, false) => "ws",
            (Transport::WebSocket, true) => "wss",
            (Transport::Http, false) => "http",
            (Transport::Http, true) => "https",
        }
    }

    fn bracketed_host(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

/// The address as logs show it. What follows a question mark can be a credential, and is left out.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path_and_query.split('?').next().unwrap_or_default();
        write!(f, "{}://{}{path}", self.scheme(), self.host_header())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether it begins with a scheme.
fn is_absolute(location: &str) -> bool {
    let scheme = location.split_once("://").map_or("", |(scheme, _)| scheme);
    !scheme.is_empty()
        && scheme.chars().all(|character| character.is_ascii_alphanumeric() || "+-.".contains(character))
}

/// A URL whose path is `/` if it has none: files and telemetry are not where OpAMP is unless told otherwise.
pub(crate) fn with_path(url: &str) -> String {
    let Some((scheme, rest)) = url.trim().split_once("://") else { return url.to_owned() };
    if !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return url.to_owned(); // part of a query
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if path.starts_with('/') {
        return url.trim().to_owned();
    }
    format!("{scheme}://{authority}/{path}")
}

/// An address without user, password and query.
fn without_secrets(text: &str) -> &str {
    let text = text.split('?').next().unwrap_or_default();
    text.rsplit('@').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        Endpoint::parse(url).unwrap().to_string()
    }

    #[test]
    fn the_four_schemes_are_understood_and_others_refused_by_name() {
        for (url, transport, tls, port) in [
            ("ws://h", Transport::WebSocket, false, 80),
            ("wss://h", Transport::WebSocket, true, 443),
            ("http://h:4320", Transport::Http, false, 4320),
            ("HTTPS://h", Transport::Http, true, 443),
        ] {
            let endpoint = Endpoint::parse(url).unwrap();
            assert_eq!((endpoint.transport, endpoint.tls, endpoint.port), (transport, tls, port), "{url}");
        }
        assert_eq!(Endpoint::parse("ftp://h/x"), Err(EndpointError::Scheme("ftp".into())));
        for bad in ["", "h", "h:4320", "ws://", "ws:///v1", "ws://h:99999", "ws://h:", "ws://h o"] {
            let error = Endpoint::parse(bad).unwrap_err();
            assert!(matches!(error, EndpointError::Url(_) | EndpointError::Host(_)), "{bad}: {error}");
        }
    }

    #[test]
    fn the_path_is_the_default_unless_another_is_given() {
        assert_eq!(shown("ws://h:4320"), "ws://h:4320/v1/opamp");
        assert_eq!(shown("ws://h/elsewhere"), "ws://h/elsewhere");
        assert_eq!(shown("ws://h/"), "ws://h/");
        assert_eq!(Endpoint::parse("ws://h?a=b").unwrap().path_and_query, "/v1/opamp?a=b");
        assert_eq!(Endpoint::parse("ws://h?a=b/c").unwrap().path_and_query, "/v1/opamp?a=b/c");
    }

    #[test]
    fn addresses_of_ipv6_keep_their_brackets_where_they_belong() {
        let endpoint = Endpoint::parse("wss://[::1]:4320").unwrap();
        assert_eq!((endpoint.host.as_str(), endpoint.authority().as_str()), ("::1", "[::1]:4320"));
    }

    #[test]
    fn credentials_in_an_endpoint_are_refused_and_not_repeated() {
        for url in ["ws://u:secret@h/x", "u:secret@h o"] {
            let error = Endpoint::parse(url).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert!(!shown("ws://h/x?token=secret").contains("secret"));
        assert_eq!(Endpoint::parse("ws://h:80?token=secret").unwrap().url(), "ws://h/v1/opamp?token=secret");
    }

    #[test]
    fn redirects_are_followed_but_not_out_of_tls() {
        let from = Endpoint::parse("wss://h/v1/opamp").unwrap();
        let to = |location| from.redirected(location).map(|target| target.to_string());
        assert_eq!(to("/other").as_deref(), Ok("wss://h/other"));
        assert_eq!(to("https://g:444/x").as_deref(), Ok("wss://g:444/x"));
        assert_eq!(to("//g/x").as_deref(), Ok("wss://g/x"));
        assert_eq!(to("other").as_deref(), Ok("wss://h/v1/other"));
        assert_eq!(to("x?next=http://g/").as_deref(), Ok("wss://h/v1/x"));
        assert_eq!(from.redirected("?x=y").unwrap().path_and_query, "/v1/opamp?x=y");
        let error = to("nowhere://u:secret@h/x?token=secret").unwrap_err();
        assert!(error.contains("no endpoint") && !error.contains("secret"), "{error}");
        assert!(to("http://h/x").is_err() && to("ws://h/x").is_err() && to("ftp://h").is_err());
        let plain = Endpoint::parse("http://h/x").unwrap();
        assert_eq!(plain.redirected("https://h/x").unwrap().to_string(), "https://h/x");
        assert!(!from.is_same_origin(&Endpoint::parse("wss://h:444").unwrap()));
        assert!(from.is_same_origin(&Endpoint::parse("https://H").unwrap()));
    }

    #[test]
    fn an_address_without_a_path_is_that_of_the_root() {
        for (given, meant) in [
            ("https://h", "https://h/"),
            ("https://h?a=b/c", "https://h/?a=b/c"),
            ("https://h/x?y", "https://h/x?y"),
            (" https://h:1/x ", "https://h:1/x"),
            ("/x", "/x"),
            ("x?next=http://h", "x?next=http://h"),
        ] {
            assert_eq!(with_path(given), meant);
        }
    }
}
