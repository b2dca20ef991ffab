//! How agents prove who they are, built from the configuration and kept up to date with its files.

use std::{fs, net::IpAddr, path::Path, sync::Arc};

use futures::future::BoxFuture;
use opamp_proto::InstanceUid;
use opamp_server::{
    AnyOf, AuthRequest, Authenticate, Denied, DeniedReason, InsecureAcceptEveryone, MutualTls, Network,
    Principal, PrincipalKind, ServerHandle, StaticToken, StaticTokens,
};

use crate::{
    config::{
        AgentAuth, ConfigError, OpampConfig,
        value::{TokenEntry, TokenSource},
    },
    exposure,
    self_agent::access::Guard,
    token,
};

/// The authenticator of the OpAMP port and what its token files hold now.
pub(crate) struct AgentAccess {
    config: OpampConfig,
    tokens: StaticTokens,
    current: Vec<StaticToken>,
}

impl AgentAccess {
    /// Reads the token files.
    ///
    /// # Errors
    /// A token file that cannot be read or is empty.
    pub(crate) fn new(config: &OpampConfig) -> Result<Self, ConfigError> {
        let current = read_tokens(config)?;
        Ok(AgentAccess { config: config.clone(), tokens: StaticTokens::new(current.clone()), current })
    }

    /// The authenticator, with the Self-Agent's own in front of it. It follows every [`AgentAccess::reload`].
    pub(crate) fn authenticator(&self, self_agent: Option<Guard>) -> Arc<dyn Authenticate> {
        let tokens = || Arc::new(self.tokens.clone()) as Arc<dyn Authenticate>;
        let inner = match self.config.auth {
            AgentAuth::Insecure => Arc::new(InsecureAcceptEveryone) as Arc<dyn Authenticate>,
            AgentAuth::Mtls => Arc::new(MutualTls),
            AgentAuth::Token => tokens(),
            AgentAuth::TokenOrMtls => Arc::new(AnyOf::new(vec![Arc::new(MutualTls), tokens()])),
        };
        let inner = match self_agent.clone() {
            Some(guard) => guard.before(inner),
            None => inner,
        };
        if exposure::is_loopback(&self.config.listen) || self.config.tls_cert.is_some() {
            return inner;
        }
        let (listen, proxies) = (self.config.listen.ip(), self.config.trusted_proxies.clone());
        Arc::new(ThroughProxies { inner, self_agent, listen, proxies })
    }

    /// Files to watch.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        let entries = self.config.tokens.iter().chain(&self.config.revoked_tokens);
        entries.filter_map(|entry| match &entry.secret {
            TokenSource::File(path) => Some(path.as_path()),
            TokenSource::Plain(_) | TokenSource::Sha256(_) => None,
        })
    }

    /// Reads the token files again. Connections that were authenticated by a token that is gone, has changed or is
    /// revoked now are closed. On an error everything stays as it was.
    ///
    /// # Errors
    /// As [`AgentAccess::new`].
    pub(crate) fn reload(&mut self, server: &ServerHandle) -> Result<(), ConfigError> {
        let fresh = read_tokens(&self.config)?;
        if fresh == self.current {
            return Ok(());
        }
        self.tokens.replace(fresh.clone());
        let revoked = |old: &StaticToken| fresh.iter().any(|new| new.revoked && new.sha256 == old.sha256);
        let still_good = |old: &StaticToken| fresh.contains(old) && !revoked(old);
        for gone in self.current.iter().filter(|old| !old.revoked && !still_good(old)) {
            let principal = Principal { kind: PrincipalKind::Token, id: gone.name.clone() };
            let closed = server.disconnect_principal(&principal);
            tracing::info!(token = gone.name, closed, "agent token replaced, removed or revoked");
        }
        self.current = fresh;
        Ok(())
    }
}

/// Revoked ones come last: of two entries for one token the stricter wins, because the last match counts.
fn read_tokens(config: &OpampConfig) -> Result<Vec<StaticToken>, ConfigError> {
    let good = config.tokens.iter().map(|entry| (entry, false));
    let revoked = config.revoked_tokens.iter().map(|entry| (entry, true));
    good.chain(revoked).map(|(entry, revoked)| read_token(entry, revoked)).collect()
}

fn read_token(entry: &TokenEntry, revoked: bool) -> Result<StaticToken, ConfigError> {
    let sha256 = match &entry.secret {
        TokenSource::Plain(text) => token::sha256(text),
        TokenSource::Sha256(hash) => *hash,
        TokenSource::File(path) => {
            let problem =
                |what: String| ConfigError::new(format!("token {:?}: {} {what}", entry.name, path.display()));
            let text =
                fs::read_to_string(path).map_err(|error| problem(format!("cannot be read: {error}")))?;
            match text.lines().next().map(str::trim) {
                Some(line) if !line.is_empty() => token::sha256(line),
                _ => return Err(problem("has an empty first line".into())),
            }
        }
    };
    Ok(StaticToken { name: entry.name.clone(), sha256, revoked })
}

/// Beyond loopback without TLS: only what comes through a proxy that terminates TLS, or from this machine. From the address
/// that is listened on that is sure of the Self-Agent alone: whoever is behind address translation may come from there.
struct ThroughProxies {
    inner: Arc<dyn Authenticate>,
    self_agent: Option<Guard>,
    listen: IpAddr,
    proxies: Vec<Network>,
}

impl Authenticate for ThroughProxies {
    fn authenticate<'a>(&'a self, request: AuthRequest<'a>) -> BoxFuture<'a, Result<Principal, Denied>> {
        let peer = request.peer.map(|peer| peer.remote_addr.ip());
        if peer.is_some_and(|peer| exposure::plain_peer_allowed(peer, &self.proxies)) {
            return self.inner.authenticate(request);
        }
        Box::pin(async move {
            if let Some(guard) = &self.self_agent
                && let Some(own) = guard.recognise(request).await
                && peer == Some(self.listen)
            {
                return Ok(own);
            }
            // Counted and in the audit log, whose rate is bounded; a whole fleet may be configured like that.
            tracing::debug!(?peer, "plain connection from outside `opamp.trusted_proxies` refused");
            Err(DeniedReason::InsecureTransport.into())
        })
    }

    fn owns(&self, principal: &Principal, uid: &InstanceUid) -> bool {
        self.inner.owns(principal, uid)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};
    use opamp_server::{PeerInfo, Transport};

    use super::*;
    use crate::{config::Config, self_agent::access::Credentials};

    /// What a peer without TLS gets from a server that listens there, with this token or the Self-Agent's own.
    async fn outcome(listen: &str, peer: &str, token: Option<&str>) -> Result<Principal, StatusCode> {
        let mut config = Config::default().opamp;
        config.listen = listen.parse().unwrap();
        config.auth = AgentAuth::Token;
        config.tokens = vec!["edge=good".parse().unwrap()];
        config.trusted_proxies = vec!["192.0.2.7".parse().unwrap()];
        let access = AgentAccess::new(&config).unwrap();
        let credentials = Arc::new(Credentials::generate(AgentAuth::Token).unwrap());
        let token = token.unwrap_or_else(|| credentials.probe.token.as_ref().unwrap()).to_owned();
        let guard = Guard { credentials, uid: InstanceUid::from_bytes([7; 16]) };
        let mut headers = HeaderMap::new();
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        let remote_addr = format!("{peer}:9").parse().unwrap();
        let peer = PeerInfo { remote_addr, tls: false, client_certificate: None };
        let request = AuthRequest { headers: &headers, peer: Some(&peer), transport: Transport::Http };
        access.authenticator(Some(guard)).authenticate(request).await.map_err(|denied| denied.status)
    }

    #[tokio::test]
    async fn beyond_loopback_without_tls_only_proxies_are_served() {
        for good in [Some("good"), None] {
            assert!(outcome("0.0.0.0:1", "192.0.2.7", good).await.is_ok());
            assert!(outcome("0.0.0.0:1", "127.0.0.1", good).await.is_ok());
            assert_eq!(outcome("0.0.0.0:1", "192.0.2.8", good).await, Err(StatusCode::FORBIDDEN));
            assert_eq!(outcome("192.0.2.9:1", "192.0.2.8", good).await, Err(StatusCode::FORBIDDEN));
            assert!(outcome("127.0.0.1:1", "192.0.2.8", good).await.is_ok(), "nobody else gets there");
        }
        assert_eq!(outcome("0.0.0.0:1", "192.0.2.7", Some("bad")).await, Err(StatusCode::UNAUTHORIZED));
    }

    #[tokio::test]
    async fn from_the_address_that_is_listened_on_only_the_self_agent_comes_without_tls() {
        assert!(outcome("192.0.2.9:1", "192.0.2.9", None).await.is_ok());
        for token in ["good", "bad"] {
            let other = outcome("192.0.2.9:1", "192.0.2.9", Some(token)).await;
            assert_eq!(other, Err(StatusCode::FORBIDDEN), "its address may be a translated one");
        }
    }
}
