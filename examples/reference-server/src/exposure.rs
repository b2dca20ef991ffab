//! What the server refuses to expose: ports beyond loopback without the protection they need there.

use std::net::{IpAddr, SocketAddr};

use opamp_server::Network;

use crate::config::{AgentAuth, Config, ConfigError};

/// Shortest prefix of a trusted IPv4 network without a warning.
const NARROW_V4: u8 = 8;
/// Shortest prefix of a trusted IPv6 network without a warning.
const NARROW_V6: u8 = 16;

/// Whether an address can be reached from this machine only.
pub fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Checks both ports and the proxies that are trusted on them.
///
/// # Errors
/// The reason, and what to set.
pub fn check(config: &Config) -> Result<(), ConfigError> {
    if let Some((key, network)) = trusted(config).find(|(_, network)| network.prefix_len() == 0) {
        return Err(ConfigError::new(format!(
            "`{key}` has {network}, which is everybody: name the addresses of the proxies, such as `10.0.0.7`"
        )));
    }
    let opamp = &config.opamp;
    if !is_loopback(&opamp.listen) {
        if opamp.auth == AgentAuth::Insecure {
            return Err(refused(
                "opamp.listen",
                &opamp.listen,
                "anybody there could join the fleet, because agents are not authenticated",
                "set `opamp.auth` to \"token\" (with `opamp.tokens`) or \"mtls\" (with `opamp.client_ca`)",
            ));
        }
        if opamp.tls_cert.is_none() && opamp.trusted_proxies.is_empty() {
            return Err(refused(
                "opamp.listen",
                &opamp.listen,
                "credentials and configurations would cross the network in clear text",
                "set `opamp.tls_cert` and `opamp.tls_key`, or `opamp.trusted_proxies` if a proxy terminates TLS",
            ));
        }
    }
    let admin = &config.admin;
    if !is_loopback(&admin.listen) && admin.tls_cert.is_none() && admin.trusted_proxies.is_empty() {
        return Err(refused(
            "admin.listen",
            &admin.listen,
            "API tokens would cross the network in clear text",
            "set `admin.tls_cert` and `admin.tls_key`, or `admin.trusted_proxies` if a proxy terminates TLS",
        ));
    }
    Ok(())
}

/// What is allowed and yet hardly meant: trusted networks with far more addresses than anyone has proxies, and downloads
/// whose tokens everybody on the way can read.
pub fn warnings(config: &Config) -> Vec<String> {
    let wide = trusted(config)
        .filter(|(_, network)| network.prefix_len() < if network.is_ipv4() { NARROW_V4 } else { NARROW_V6 });
    let wide = wide.map(|(key, network)| {
        format!("`{key}` has {network}: everyone in there may connect without TLS and name any address as the client's")
    });
    let public_url = config.packages.public_url.as_ref();
    let in_clear = public_url.filter(|url| config.packages.enabled && !url.is_tls() && !url.is_loopback());
    let in_clear = in_clear.map(|url| {
        format!(
            "`packages.public_url` is {}: download tokens and packages cross the network in clear text",
            url.as_str()
        )
    });
    wide.chain(in_clear).collect()
}

/// Whether a plain connection from this address may be served on a port beyond loopback: it comes through a proxy that
/// is trusted to have terminated TLS, or from this machine.
pub(crate) fn plain_peer_allowed(peer: IpAddr, proxies: &[Network]) -> bool {
    peer.to_canonical().is_loopback() || proxies.iter().any(|network| network.contains(peer))
}

/// Networks that are trusted, with the key that names them.
fn trusted(config: &Config) -> impl Iterator<Item = (&'static str, &Network)> {
    let opamp = config.opamp.trusted_proxies.iter().map(|network| ("opamp.trusted_proxies", network));
    let admin = config.admin.trusted_proxies.iter().map(|network| ("admin.trusted_proxies", network));
    opamp.chain(admin)
}

fn refused(key: &str, address: &SocketAddr, reason: &str, remedy: &str) -> ConfigError {
    ConfigError::new(format!("`{key}` = {address} is reachable from other machines, and {reason}: {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Inputs;

    fn config(change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::default();
        change(&mut config);
        config
    }

    #[test]
    fn loopback_needs_nothing() {
        for listen in ["127.0.0.1:4320", "127.9.9.9:1", "[::1]:4320", "[::ffff:127.0.0.1]:4320"] {
            let listen = listen.parse().unwrap();
            assert_eq!(check(&config(|c| (c.opamp.listen, c.admin.listen) = (listen, listen))), Ok(()));
        }
    }

    #[test]
    fn beyond_loopback_the_agent_port_needs_authentication_and_then_encryption() {
        for listen in ["0.0.0.0:4320", "[::]:4320", "192.0.2.1:4320"] {
            let mut config = config(|c| c.opamp.listen = listen.parse().unwrap());
            let text = check(&config).unwrap_err().to_string();
            assert!(text.contains("not authenticated") && text.contains("opamp.auth"), "{text}");
            config.opamp.auth = AgentAuth::Token;
            let text = check(&config).unwrap_err().to_string();
            assert!(text.contains("clear text") && text.contains("opamp.trusted_proxies"), "{text}");
            config.opamp.trusted_proxies = vec!["192.0.2.7".parse().unwrap()];
            assert_eq!(check(&config), Ok(()));
        }
    }

    /// The configuration with these networks trusted on one of the ports.
    fn trusting(key: &str, network: &str) -> Config {
        let networks = vec![network.parse().unwrap()];
        config(|c| match key {
            "opamp.trusted_proxies" => c.opamp.trusted_proxies = networks,
            _ => c.admin.trusted_proxies = networks,
        })
    }

    #[test]
    fn trusting_everybody_is_refused_and_trusting_very_many_is_warned_of() {
        for key in ["opamp.trusted_proxies", "admin.trusted_proxies"] {
            for everybody in ["0.0.0.0/0", "10.0.0.0/0", "::/0"] {
                let text = check(&trusting(key, everybody)).unwrap_err().to_string();
                assert!(text.contains(&format!("`{key}`")) && text.contains("everybody"), "{text}");
            }
            for (network, warned) in [
                ("0.0.0.0/1", true),
                ("10.0.0.0/7", true),
                ("10.0.0.0/8", false),
                ("192.0.2.7", false),
                ("2000::/3", true),
                ("fc00::/15", true),
                ("fd00::/16", false),
            ] {
                let config = trusting(key, network);
                assert_eq!(check(&config), Ok(()), "{network}");
                let warnings = warnings(&config);
                assert_eq!(warnings.iter().any(|text| text.contains(network)), warned, "{warnings:?}");
            }
        }
    }

    #[test]
    fn downloads_in_clear_text_are_warned_of() {
        for (url, warned) in [
            ("http://opamp.example.com:4320", true),
            ("https://opamp.example.com:4320", false),
            ("http://127.0.0.1:4320", false),
        ] {
            let flags = vec![("packages.public_url", vec![url.to_owned()])];
            let inputs = Inputs { flags, ..Inputs::default() };
            let config = Config::load(&inputs).unwrap();
            assert_eq!(warnings(&config).iter().any(|text| text.contains(url)), warned, "{url}");
        }
    }

    #[test]
    fn plain_connections_come_from_proxies_or_this_machine() {
        let proxies = ["10.0.0.0/8".parse().unwrap()];
        for (peer, allowed) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("192.0.2.1", false),
        ] {
            assert_eq!(plain_peer_allowed(peer.parse().unwrap(), &proxies), allowed, "{peer}");
        }
    }

    #[test]
    fn beyond_loopback_the_admin_port_needs_encryption() {
        let mut config = config(|c| c.admin.listen = "0.0.0.0:4321".parse().unwrap());
        let text = check(&config).unwrap_err().to_string();
        assert!(text.contains("admin.listen") && text.contains("admin.tls_cert"), "{text}");
        config.admin.tls_cert = Some("cert.pem".into());
        assert_eq!(check(&config), Ok(()));
    }
}
