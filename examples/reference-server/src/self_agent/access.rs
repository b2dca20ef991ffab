//! The Self-Agent's credentials, and the door they open.
//!
//! There are two, made at each start and kept in memory only: one for the agent, one for the probes. The agent's is
//! bound to the agent's `instance_uid` in both directions: nobody else may use that uid, and it may use no other. The
//! probes' may use none at all: it opens a connection on which every message is refused. That is the one which goes
//! through proxies to `self_agent.external_url`.

use std::{fmt, sync::Arc};

use data_encoding::BASE32_NOPAD;
use futures::future::BoxFuture;
use opamp_proto::InstanceUid;
use opamp_server::{AuthRequest, Authenticate, Denied, Principal, PrincipalKind, StaticToken, StaticTokens};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::{certificate::ClientCertificate, marks::Marks};
use crate::config::AgentAuth;

/// What the inventory and the audit log call the agent.
const AGENT: &str = "self-agent";
/// What they call the probes.
const PROBE: &str = "self-agent-probe";
/// The marks by which such a token is recognised where it must not be.
const TOKEN_PREFIX: &str = "opamp-self";
const TOKEN_RANDOM_BYTES: usize = 32;

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    #[error("no certificate can be made: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
}

/// What one of the two shows.
#[derive(Default)]
pub(crate) struct Credential {
    pub(crate) token: Option<Zeroizing<String>>,
    pub(crate) certificate: Option<ClientCertificate>,
}

/// Both credentials of this process.
pub(crate) struct Credentials {
    pub(crate) agent: Arc<Credential>,
    pub(crate) probe: Arc<Credential>,
    /// By which a probe is known that arrives.
    pub(crate) marks: Marks,
    tokens: StaticTokens,
}

impl Credentials {
    /// Makes what agents of this server have to show. Where agents show nothing, the agent has a token still, so that
    /// its identity is its own.
    pub(crate) fn generate(auth: AgentAuth) -> Result<Self, CredentialError> {
        let (agent, probe) = match auth {
            AgentAuth::Insecure => (token()?, Credential::default()),
            AgentAuth::Token | AgentAuth::TokenOrMtls => (token()?, token()?),
            AgentAuth::Mtls => (certificate(AGENT)?, certificate(PROBE)?),
        };
        let known = |name: &str, credential: &Credential| {
            credential.token.as_ref().map(|token| StaticToken::new(name, token))
        };
        let tokens = [known(AGENT, &agent), known(PROBE, &probe)].into_iter().flatten().collect();
        let (agent, probe, tokens) = (Arc::new(agent), Arc::new(probe), StaticTokens::new(tokens));
        Ok(Credentials { agent, probe, marks: Marks::default(), tokens })
    }

    /// None, for a server whose Self-Agent is away.
    fn nobodys() -> Self {
        let none = || Arc::new(Credential::default());
        Credentials { agent: none(), probe: none(), marks: Marks::default(), tokens: StaticTokens::default() }
    }

    /// The client certificates that the TLS handshake has to let through.
    pub(crate) fn certificates(&self) -> Vec<CertificateDer<'static>> {
        let both = [&self.agent, &self.probe].into_iter();
        both.filter_map(|one| one.certificate.as_ref()).map(|own| own.certificate.clone()).collect()
    }

    /// The principal whose credentials these are, if they are ours.
    async fn recognise(&self, request: AuthRequest<'_>) -> Option<Principal> {
        if let Some(shown) = request.peer.and_then(|peer| peer.client_certificate.as_deref()) {
            let both = [(AGENT, &self.agent), (PROBE, &self.probe)].into_iter();
            let own = |one: &Credential| {
                one.certificate.as_ref().is_some_and(|own| own.certificate.as_ref() == shown)
            };
            if let Some((name, _)) = both.into_iter().find(|(_, one)| own(one)) {
                return Some(principal(name));
            }
        }
        request.bearer().ok()?;
        self.tokens.authenticate(request).await.ok().map(|known| principal(&known.id))
    }
}

/// Names no secret.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(<redacted>)")
    }
}

/// Lets the Self-Agent in, and keeps everybody else off its identity.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) uid: InstanceUid,
}

impl Guard {
    /// Keeps everybody off an identity whose owner is away: whoever took it meanwhile would own it for good.
    pub(crate) fn of_absent(uid: InstanceUid) -> Self {
        Guard { credentials: Arc::new(Credentials::nobodys()), uid }
    }

    /// The authenticator for all: who is not the Self-Agent is for `others` to judge.
    pub(crate) fn before(self, others: Arc<dyn Authenticate>) -> Arc<dyn Authenticate> {
        Arc::new(Guarded { guard: self, others })
    }

    /// The Self-Agent or its probes, if it is they who send this.
    pub(crate) async fn recognise(&self, request: AuthRequest<'_>) -> Option<Principal> {
        let who = self.credentials.recognise(request).await;
        self.credentials.marks.note(request.headers, who.is_some());
        who
    }
}

struct Guarded {
    guard: Guard,
    others: Arc<dyn Authenticate>,
}

impl Authenticate for Guarded {
    fn authenticate<'a>(&'a self, request: AuthRequest<'a>) -> BoxFuture<'a, Result<Principal, Denied>> {
        Box::pin(async move {
            match self.guard.recognise(request).await {
                Some(principal) => Ok(principal),
                None => self.others.authenticate(request).await,
            }
        })
    }

    fn owns(&self, who: &Principal, uid: &InstanceUid) -> bool {
        let reserved = *uid == self.guard.uid;
        if *who == principal(AGENT) {
            return reserved;
        }
        *who != principal(PROBE) && !reserved && self.others.owns(who, uid)
    }
}

/// A kind that no token and no certificate of an operator can have.
fn principal(name: &str) -> Principal {
    Principal { kind: PrincipalKind::Custom, id: name.to_owned() }
}

fn token() -> Result<Credential, CredentialError> {
    let mut random = Zeroizing::new([0; TOKEN_RANDOM_BYTES]);
    getrandom::fill(random.as_mut()).map_err(CredentialError::Random)?;
    let token = format!("{TOKEN_PREFIX}.{}", BASE32_NOPAD.encode(random.as_ref()));
    Ok(Credential { token: Some(Zeroizing::new(token)), certificate: None })
}

fn certificate(name: &str) -> Result<Credential, CredentialError> {
    Ok(Credential { token: None, certificate: Some(ClientCertificate::generate(name)?) })
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use opamp_server::{DeniedReason, InsecureAcceptEveryone, MutualTls, PeerInfo, Transport};

    use super::*;

    const UID: InstanceUid = InstanceUid::from_bytes([7; 16]);
    const OTHER: InstanceUid = InstanceUid::from_bytes([8; 16]);

    fn guarded(auth: AgentAuth, others: Arc<dyn Authenticate>) -> (Arc<Credentials>, Arc<dyn Authenticate>) {
        let credentials = Arc::new(Credentials::generate(auth).unwrap());
        let guard = Guard { credentials: Arc::clone(&credentials), uid: UID };
        (credentials, guard.before(others))
    }

    async fn shown(
        authenticator: &Arc<dyn Authenticate>,
        token: Option<&str>,
        certificate: Option<&[u8]>,
    ) -> Result<Principal, DeniedReason> {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let client_certificate = certificate.map(Arc::from);
        let peer = PeerInfo { remote_addr: "127.0.0.1:9".parse().unwrap(), tls: true, client_certificate };
        let request = AuthRequest { headers: &headers, peer: Some(&peer), transport: Transport::WebSocket };
        authenticator.authenticate(request).await.map_err(|denied| denied.reason)
    }

    /// What each of agent, probe and somebody else may say in whose name.
    fn assert_bound(
        authenticator: &Arc<dyn Authenticate>,
        agent: &Principal,
        probe: &Principal,
        else_: &Principal,
    ) {
        let owns = |who: &Principal| (authenticator.owns(who, &UID), authenticator.owns(who, &OTHER));
        assert_eq!(owns(agent), (true, false), "its own identity and no other");
        assert_eq!(owns(probe), (false, false), "none at all");
        assert_eq!(owns(else_), (false, true), "any but the Self-Agent's");
    }

    #[tokio::test]
    async fn a_token_is_good_for_the_self_agents_identity_alone() {
        let edge = StaticTokens::new(vec![StaticToken::new("self-agent", "edge-token")]);
        let (credentials, authenticator) = guarded(AgentAuth::Token, Arc::new(edge));
        let (agent, probe) = (credentials.agent.token.as_deref(), credentials.probe.token.as_deref());
        assert_ne!(agent, probe);
        let agent = shown(&authenticator, agent.map(String::as_str), None).await.unwrap();
        let probe = shown(&authenticator, probe.map(String::as_str), None).await.unwrap();
        let edge = shown(&authenticator, Some("edge-token"), None).await.unwrap();
        assert_ne!(edge, agent, "a token that is called like it is not it");
        assert_bound(&authenticator, &agent, &probe, &edge);
        for wrong in [Some("opamp-self.AAAA"), None] {
            assert!(shown(&authenticator, wrong, None).await.is_err());
        }
    }

    #[tokio::test]
    async fn where_everybody_is_let_in_the_identity_is_kept_all_the_same() {
        let (credentials, authenticator) = guarded(AgentAuth::Insecure, Arc::new(InsecureAcceptEveryone));
        let token = credentials.agent.token.as_deref().map(String::as_str);
        let agent = shown(&authenticator, token, None).await.unwrap();
        let anybody = shown(&authenticator, None, None).await.unwrap();
        assert_eq!(anybody, Principal::anonymous());
        assert!(authenticator.owns(&agent, &UID) && !authenticator.owns(&agent, &OTHER));
        assert!(!authenticator.owns(&anybody, &UID) && authenticator.owns(&anybody, &OTHER));
    }

    #[tokio::test]
    async fn a_certificate_is_good_as_itself_and_not_by_its_name() {
        let (credentials, authenticator) = guarded(AgentAuth::Mtls, Arc::new(MutualTls));
        let [agent, probe] = credentials.certificates().try_into().unwrap();
        let namesake = ClientCertificate::generate(AGENT).unwrap().certificate;
        let agent = shown(&authenticator, None, Some(&agent)).await.unwrap();
        let probe = shown(&authenticator, None, Some(&probe)).await.unwrap();
        let namesake = shown(&authenticator, None, Some(&namesake)).await.unwrap();
        assert_eq!(namesake, Principal { kind: PrincipalKind::Certificate, id: AGENT.into() });
        assert_bound(&authenticator, &agent, &probe, &namesake);
        assert!(credentials.agent.token.is_none() && credentials.probe.token.is_none());
    }

    #[test]
    fn debug_shows_no_secret() {
        let credentials = Credentials::generate(AgentAuth::Token).unwrap();
        assert!(!format!("{credentials:?}").contains(TOKEN_PREFIX));
    }
}
