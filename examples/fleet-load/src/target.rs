//! Where the load goes: the address of an OpAMP endpoint, and the rule that it is this machine unless somebody says otherwise.

use std::net::{SocketAddr, ToSocketAddrs as _};

use serde::{Deserialize, Serialize};

/// An OpAMP endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// How agents talk.
    pub transport: Transport,
    /// Where it listens.
    pub address: SocketAddr,
    /// Name and port, for the `Host` header.
    pub authority: String,
    /// Name or address that the certificate must be for.
    pub host: String,
    /// The path of the endpoint.
    pub path: String,
}

/// How agents talk to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Polling.
    Http,
    /// Polling with TLS.
    Https,
    /// WebSocket.
    Ws,
    /// WebSocket with TLS.
    Wss,
}

/// Why there is no load on what was named.
#[derive(Debug, thiserror::Error)]
#[error("target `{url}`: {fault}")]
pub struct TargetError {
    url: String,
    fault: String,
}

impl Transport {
    /// Whether the connection is encrypted.
    #[must_use]
    pub const fn tls(self) -> bool {
        matches!(self, Self::Https | Self::Wss)
    }

    /// Whether agents hold a WebSocket.
    #[must_use]
    pub const fn websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

impl Target {
    /// Reads `ws://`, `wss://`, `http://` or `https://`, host, port and path, by default `/v1/opamp`. The name is resolved here, once.
    ///
    /// # Errors
    ///
    /// If the URL is none of those, the name is not known, or the address is not loopback and `allow_remote` is not set: this
    /// program is able to bring a server down.
    pub fn new(url: &str, allow_remote: bool) -> Result<Self, TargetError> {
        parse(url, allow_remote).map_err(|fault| TargetError { url: url.to_owned(), fault })
    }
}

fn parse(url: &str, allow_remote: bool) -> Result<Target, String> {
    const FORM: &str = "write it as ws://127.0.0.1:4320/v1/opamp (or wss, http, https)";
    let (scheme, rest) = url.split_once("://").ok_or(FORM)?;
    let (transport, default_port) = match scheme {
        "http" => (Transport::Http, 80),
        "https" => (Transport::Https, 443),
        "ws" => (Transport::Ws, 80),
        "wss" => (Transport::Wss, 443),
        _ => return Err(format!("`{scheme}` is no transport of OpAMP; {FORM}")),
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/v1/opamp"),
    };
    let clean = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if authority.is_empty() || authority.contains('@') || !clean(authority) || !clean(path) {
        return Err(format!("host, port or path cannot be read; {FORM}"));
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            (host, port.parse().map_err(|_| format!("`{port}` is no port; {FORM}"))?)
        }
        _ => (authority, default_port),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = (host, port)
        .to_socket_addrs()
        .map_err(|error| format!("`{host}` cannot be resolved: {error}"))?
        .next()
        .ok_or_else(|| format!("`{host}` has no address"))?;
    if !address.ip().is_loopback() && !allow_remote {
        return Err(format!(
            "{} is not on this machine. Load can bring a server down; if it is yours and meant to be tested, add --allow-remote",
            address.ip()
        ));
    }
    Ok(Target {
        transport,
        address,
        authority: authority.to_owned(),
        host: host.to_owned(),
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_with_their_defaults() {
        let target = Target::new("wss://127.0.0.1:4320", false).unwrap();
        assert_eq!(target.transport, Transport::Wss);
        assert_eq!((target.address.port(), &*target.path), (4320, "/v1/opamp"));
        let target = Target::new("http://[::1]:4320/other", false).unwrap();
        assert_eq!((&*target.host, &*target.path), ("::1", "/other"));
        assert_eq!(target.authority, "[::1]:4320");
    }

    #[test]
    fn load_stays_on_this_machine_unless_somebody_says_otherwise() {
        let error = Target::new("ws://192.0.2.7:4320", false).unwrap_err().to_string();
        assert!(error.contains("--allow-remote"), "{error}");
        Target::new("ws://192.0.2.7:4320", true).unwrap();
    }

    #[test]
    fn what_is_no_endpoint_is_named_with_its_form() {
        for url in
            ["127.0.0.1:4320", "ftp://127.0.0.1", "ws://127.0.0.1:port/", "ws://", "ws://a@b/", "ws://a b/"]
        {
            let error = Target::new(url, false).unwrap_err().to_string();
            assert!(error.contains("ws://127.0.0.1:4320/v1/opamp"), "{error}");
        }
    }
}
