//! Where a request comes from, as the audit log shows it.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use opamp_server::Network;

/// The client's address: the peer, or what trusted proxies say about it.
pub(crate) fn source(peer: SocketAddr, headers: &HeaderMap, proxies: &[Network]) -> String {
    let trusted = |ip: IpAddr| proxies.iter().any(|network| network.contains(ip));
    if !trusted(peer.ip()) {
        return peer.to_string();
    }
    let lists = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let hops: Vec<IpAddr> =
        lists.flat_map(|list| list.split(',')).filter_map(|hop| hop.trim().parse().ok()).collect();
    // From the right: the last hop that is not one of ours was seen by one of ours.
    let client = hops.into_iter().rev().find(|hop| !trusted(*hop));
    client.map_or_else(|| peer.to_string(), |ip| ip.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarded_addresses_count_only_from_trusted_proxies() {
        let proxies = ["10.0.0.0/8".parse().unwrap()];
        let source = |peer: &str, forwarded: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append("x-forwarded-for", value.parse().unwrap());
            }
            source(peer.parse().unwrap(), &headers, &proxies)
        };
        assert_eq!(source("192.0.2.9:5", &["1.2.3.4"]), "192.0.2.9:5", "not a proxy");
        assert_eq!(source("10.0.0.1:5", &["1.2.3.4"]), "1.2.3.4");
        assert_eq!(
            source("10.0.0.1:5", &["6.6.6.6, 1.2.3.4", "10.0.0.2"]),
            "1.2.3.4",
            "the client may have lied"
        );
        assert_eq!(source("10.0.0.1:5", &[]), "10.0.0.1:5");
    }
}
