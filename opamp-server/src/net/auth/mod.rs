//! Authentication, before the upgrade and before any message is read (R-AUTH-02).

mod mutual_tls;
mod tokens;

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use opamp_proto::InstanceUid;

use super::peer::PeerInfo;
use crate::snapshot::{Principal, PrincipalKind, Transport};

pub use self::mutual_tls::MutualTls;
pub use self::tokens::{StaticToken, StaticTokens};

/// Decides who may connect, and for whom they may speak.
pub trait Authenticate: Send + Sync + 'static {
    /// Who sends this request, or why it is denied. Runs before the upgrade and on every poll.
    fn authenticate<'a>(&'a self, request: AuthRequest<'a>) -> BoxFuture<'a, Result<Principal, Denied>>;

    /// Whether `principal` may speak for `uid`; asked for every message. Default: yes.
    ///
    /// Apart from this, an agent that was authenticated by certificate stays bound to that identity, and no
    /// second credential can take over an agent that is connected.
    fn owns(&self, principal: &Principal, uid: &InstanceUid) -> bool {
        let _ = (principal, uid);
        true
    }
}

/// What an authenticator may look at.
#[derive(Clone, Copy)]
pub struct AuthRequest<'a> {
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// The peer, if the listener told.
    pub peer: Option<&'a PeerInfo>,
    /// What the request wants to become.
    pub transport: Transport,
}

impl<'a> AuthRequest<'a> {
    /// The bearer token of the request.
    ///
    /// # Errors
    ///
    /// [`DeniedReason::MissingCredentials`] without an `Authorization` header, [`DeniedReason::WrongScheme`] for
    /// anything but one `Bearer` credential: a bare token is not one.
    pub fn bearer(&self) -> Result<&'a str, Denied> {
        let mut values = self.headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return Err(DeniedReason::MissingCredentials.into());
        };
        let (None, Ok(value)) = (values.next(), value.to_str()) else {
            return Err(DeniedReason::WrongScheme.into());
        };
        match value.trim().split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
            _ => Err(DeniedReason::WrongScheme.into()),
        }
    }
}

/// Shows the names of the headers, not their values: credentials are among them.
impl fmt::Debug for AuthRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthRequest")
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("peer", &self.peer.map(|peer| peer.remote_addr))
            .field("transport", &self.transport)
            .finish()
    }
}

/// A refusal to authenticate: the status and headers the peer sees, and the reason it does not.
#[derive(Clone, Debug)]
pub struct Denied {
    /// For the audit log and the event; never sent.
    pub reason: DeniedReason,
    /// Default 401 (R-AUTH-03); an authenticator may choose 403, 429 or 503.
    pub status: StatusCode,
    /// Sent with the answer, e.g. `WWW-Authenticate`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Who it claimed to be, if that is known and no secret: the name of a revoked token, say.
    pub claimed: Option<String>,
}

impl Denied {
    /// Names whom the credentials belong to.
    #[must_use]
    pub fn claimed(mut self, who: impl Into<String>) -> Self {
        self.claimed = Some(who.into());
        self
    }
}

impl From<DeniedReason> for Denied {
    fn from(reason: DeniedReason) -> Self {
        let (status, headers) = match reason {
            DeniedReason::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, Vec::new()),
            DeniedReason::InsecureTransport => (StatusCode::FORBIDDEN, Vec::new()),
            _ => {
                let challenge = HeaderValue::from_static("Bearer realm=\"opamp\"");
                (StatusCode::UNAUTHORIZED, vec![(header::WWW_AUTHENTICATE, challenge)])
            }
        };
        Self { reason, status, headers, claimed: None }
    }
}

/// Why credentials were refused. On the wire the wrong ones all look the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeniedReason {
    /// Past their time.
    Expired,
    /// Not over TLS although that is required; answered 403.
    InsecureTransport,
    /// Recognisably cut or mistyped.
    Malformed,
    /// None were sent.
    MissingCredentials,
    /// Taken back.
    Revoked,
    /// The authenticator cannot tell now; answered 503.
    Unavailable,
    /// Not known.
    Unknown,
    /// Not of a kind that is accepted here, such as a token without `Bearer`.
    WrongScheme,
}

impl DeniedReason {
    /// The reason as audit value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::InsecureTransport => "insecure-transport",
            Self::Malformed => "malformed",
            Self::MissingCredentials => "missing-credentials",
            Self::Revoked => "revoked",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
            Self::WrongScheme => "missing-scheme",
        }
    }
}

impl fmt::Display for DeniedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Lets everybody in as the anonymous principal. Named so that nobody installs it by accident.
#[derive(Clone, Copy, Debug)]
pub struct InsecureAcceptEveryone;

impl Authenticate for InsecureAcceptEveryone {
    fn authenticate<'a>(&'a self, _request: AuthRequest<'a>) -> BoxFuture<'a, Result<Principal, Denied>> {
        Box::pin(std::future::ready(Ok(Principal::anonymous())))
    }
}

/// Several ways to authenticate: the first that accepts wins; if none does, the most telling refusal is reported.
///
/// A principal owns a uid if *every* way says so: one that knows only its own principals must not speak about others.
#[derive(Clone)]
pub struct AnyOf(Vec<Arc<dyn Authenticate>>);

impl AnyOf {
    /// Tries `ways` in order. With none, everybody is denied.
    pub fn new(ways: Vec<Arc<dyn Authenticate>>) -> Self {
        Self(ways)
    }
}

impl Authenticate for AnyOf {
    fn authenticate<'a>(&'a self, request: AuthRequest<'a>) -> BoxFuture<'a, Result<Principal, Denied>> {
        Box::pin(async move {
            let mut denied: Denied = DeniedReason::MissingCredentials.into();
            for way in &self.0 {
                match way.authenticate(request).await {
                    Ok(principal) => return Ok(principal),
                    // Nothing presented says less than something presented and refused.
                    Err(reason) if denied.reason == DeniedReason::MissingCredentials => denied = reason,
                    Err(_) => {}
                }
            }
            Err(denied)
        })
    }

    fn owns(&self, principal: &Principal, uid: &InstanceUid) -> bool {
        self.0.iter().all(|way| way.owns(principal, uid))
    }
}

impl fmt::Debug for AnyOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnyOf({} ways)", self.0.len())
    }
}

pub(crate) fn principal(kind: PrincipalKind, id: &str) -> Principal {
    Principal { kind, id: id.to_owned() }
}
