//! How the server is reached from outside: by the Self-Agent, with address and proxy, and by agents that download.

use std::net::IpAddr;

use http::Uri;
use opamp_client::{Proxy, ProxyError};

use super::setting::{Setting, one, quoted};

/// The address of an OpAMP WebSocket endpoint, without credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalUrl(String);

/// The address of the OpAMP port for downloads: an HTTP URL without credentials and without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl(String);

/// Through which proxy a server is reached. `Debug` and the effective configuration never show user and password.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyChoice {
    /// What `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say.
    Environment,
    /// None.
    None,
    /// This one.
    Url(String),
}

impl ExternalUrl {
    /// The address as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the way there is encrypted.
    pub fn is_tls(&self) -> bool {
        self.0.starts_with("wss:")
    }

    /// Whether it is this machine, also to a client that spares this machine the proxy of the environment.
    pub fn is_loopback(&self) -> bool {
        is_this_machine(&self.0)
    }
}

impl PublicUrl {
    /// The address, to which a path can be appended.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the way there is encrypted.
    pub fn is_tls(&self) -> bool {
        self.0.starts_with("https:")
    }

    /// Whether it is this machine.
    pub fn is_loopback(&self) -> bool {
        is_this_machine(&self.0)
    }
}

impl ProxyChoice {
    /// The choice, as a client takes it.
    ///
    /// # Errors
    /// The URL, made by hand, is not that of a proxy.
    pub(crate) fn proxy(&self) -> Result<Proxy, ProxyError> {
        match self {
            ProxyChoice::Environment => Ok(Proxy::from_env()),
            ProxyChoice::None => Ok(Proxy::none()),
            ProxyChoice::Url(url) => Proxy::url(url),
        }
    }
}

impl Setting for Option<ExternalUrl> {
    // The text is never repeated in an error: somebody may have put a password into it.
    fn read(texts: &[String]) -> Result<Self, String> {
        const NOTATION: &str = "write for example `wss://opamp.example.com/v1/opamp`";
        Ok(address(one(texts), ["ws", "wss"], NOTATION)?.map(ExternalUrl))
    }

    fn show(&self) -> String {
        quoted(self.as_ref().map_or("", ExternalUrl::as_str))
    }
}

impl Setting for Option<PublicUrl> {
    // The text is never repeated in an error: somebody may have put a password into it.
    fn read(texts: &[String]) -> Result<Self, String> {
        const NOTATION: &str = "write for example `https://opamp.example.com:4320`";
        let url = address(one(texts), ["http", "https"], NOTATION)?;
        Ok(url.map(|url| PublicUrl(url.trim_end_matches('/').to_owned())))
    }

    fn show(&self) -> String {
        quoted(self.as_ref().map_or("", PublicUrl::as_str))
    }
}

fn is_this_machine(url: &str) -> bool {
    let uri: Option<Uri> = url.parse().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// A URL of one of two schemes without credentials; none if it is not set.
fn address(text: &str, schemes: [&str; 2], notation: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let uri: Uri = text.parse().map_err(|_| format!("that is not a URL; {notation}"))?;
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    if !uri.scheme_str().is_some_and(|scheme| schemes.contains(&scheme)) {
        return Err(format!("its scheme is neither {} nor {}; {notation}", schemes[0], schemes[1]));
    }
    if authority.contains('@') || uri.query().is_some() {
        return Err(format!(
            "it has a user name, a password or a query, which do not belong there; {notation}"
        ));
    }
    Ok(Some(text.to_owned()))
}

impl Setting for ProxyChoice {
    fn read(texts: &[String]) -> Result<Self, String> {
        match one(texts) {
            "environment" => Ok(ProxyChoice::Environment),
            "none" => Ok(ProxyChoice::None),
            url => match Proxy::url(url) {
                Ok(_) => Ok(ProxyChoice::Url(url.to_owned())),
                Err(error) => Err(format!("{error}, nor `environment` or `none`")),
            },
        }
    }

    fn show(&self) -> String {
        match self {
            ProxyChoice::Environment => quoted("environment"),
            ProxyChoice::None => quoted("none"),
            ProxyChoice::Url(url) => quoted(without_user(url)),
        }
    }
}

impl std::fmt::Debug for ProxyChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.show())
    }
}

/// The URL with `<redacted>` for what stands before an `@`.
fn without_user(url: &str) -> String {
    let Some((user, host)) = url.rsplit_once('@') else { return url.to_owned() };
    let scheme = user.split_once("://").map_or(String::new(), |(scheme, _)| format!("{scheme}://"));
    format!("{scheme}<redacted>@{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Result<Option<ExternalUrl>, String> {
        Option::<ExternalUrl>::read(&[text.to_owned()])
    }

    #[test]
    fn an_external_url_is_a_websocket_address_without_credentials() {
        assert_eq!(url(""), Ok(None));
        for (text, tls, loopback) in [
            ("wss://opamp.example.com/v1/opamp", true, false),
            ("ws://127.0.0.1:4320", false, true),
            ("ws://[::1]:4320/x", false, true),
            ("ws://localhost", false, true),
            ("ws://[::ffff:127.0.0.1]", false, false),
        ] {
            let read = url(text).unwrap().unwrap();
            assert_eq!((read.as_str(), read.is_tls(), read.is_loopback()), (text, tls, loopback));
        }
        for wrong in
            ["https://h/", "opamp.example.com", "wss://", "wss://me:s3cret@h/", "wss://h/?token=s3cret"]
        {
            let error = url(wrong).unwrap_err();
            assert!(error.contains("wss://opamp.example.com") && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_public_url_is_an_http_address_to_which_paths_are_appended() {
        let url = |text: &str| Option::<PublicUrl>::read(&[text.to_owned()]);
        assert_eq!(url(""), Ok(None));
        for (text, read, tls) in [
            ("https://opamp.example.com:4320", "https://opamp.example.com:4320", true),
            ("https://example.com/opamp//", "https://example.com/opamp", true),
            ("http://10.0.0.1:4320/", "http://10.0.0.1:4320", false),
        ] {
            let url = url(text).unwrap().unwrap();
            assert_eq!((url.as_str(), url.is_tls()), (read, tls));
        }
        for wrong in
            ["wss://h/", "example.com", "https://", "https://me:s3cret@h/", "https://h/?token=s3cret"]
        {
            let error = url(wrong).unwrap_err();
            assert!(error.contains("https://opamp.example.com") && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_proxy_never_shows_its_password() {
        let read = |text: &str| ProxyChoice::read(&[text.to_owned()]);
        assert_eq!(read("environment"), Ok(ProxyChoice::Environment));
        assert_eq!(read("none"), Ok(ProxyChoice::None));
        let proxy = read("http://me:s3cret@proxy:3128").unwrap();
        assert_eq!(format!("{proxy:?}"), "\"http://<redacted>@proxy:3128\"");
        assert_eq!(format!("{:?}", read("http://proxy:3128").unwrap()), "\"http://proxy:3128\"");
        let error = read("socks5://me:s3cret@proxy").unwrap_err();
        assert!(error.contains("HTTP proxy") && !error.contains("s3cret"), "{error}");
    }
}
