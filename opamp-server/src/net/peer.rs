//! Who is at the other end of a request.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::HeaderMap;

use super::network::Network;

/// What the listener knows of a peer: put it into the request's extensions.
///
/// [`serve`](crate::serve) does so. Mounted in another HTTP stack, insert it there; without it refusals and
/// snapshots show no address, and [`MutualTls`](crate::MutualTls) denies everyone.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// The other end of the TCP connection.
    pub remote_addr: SocketAddr,
    /// Whether the connection to this process is encrypted.
    pub tls: bool,
    /// The client's certificate in DER, verified by the TLS handshake.
    pub client_certificate: Option<Arc<[u8]>>,
}

impl PeerInfo {
    /// The client's address: behind a trusted proxy, the last untrusted address of `X-Forwarded-For`.
    pub(crate) fn client_addr(&self, headers: &HeaderMap, trusted: &[Network]) -> SocketAddr {
        let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
        if !is_trusted(self.remote_addr.ip()) {
            return self.remote_addr;
        }
        let forwarded = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
        let mut addresses: Vec<&str> = forwarded.flat_map(|value| value.split(',')).map(str::trim).collect();
        while let Some(last) = addresses.pop() {
            match last.parse::<IpAddr>() {
                Ok(address) if is_trusted(address) => {}
                Ok(address) => return SocketAddr::new(address, 0),
                Err(_) => break,
            }
        }
        self.remote_addr
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> PeerInfo {
        PeerInfo { remote_addr: address.parse().unwrap(), tls: false, client_certificate: None }
    }

    #[test]
    fn forwarded_addresses_are_believed_from_trusted_proxies_only() {
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "6.6.6.6, 10.0.0.7".parse().unwrap());
        headers.append("x-forwarded-for", "127.0.0.2".parse().unwrap());
        let trusted = ["127.0.0.0/8".parse().unwrap()];
        let behind = peer("127.0.0.1:9").client_addr(&headers, &trusted);
        assert_eq!(behind.ip().to_string(), "10.0.0.7", "the last hop nobody of ours added");
        let direct = peer("1.2.3.4:9").client_addr(&headers, &trusted);
        assert_eq!(direct, "1.2.3.4:9".parse().unwrap());
    }
}
