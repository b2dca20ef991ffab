//! Bearer tokens from a list.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use futures::future::BoxFuture;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use super::{AuthRequest, Authenticate, Denied, DeniedReason, principal};
use crate::snapshot::{Principal, PrincipalKind};

/// One accepted or revoked bearer token, known by its SHA-256 only.
#[derive(Clone, PartialEq, Eq)]
pub struct StaticToken {
    /// Becomes the principal's id.
    pub name: String,
    /// SHA-256 of the token.
    pub sha256: [u8; 32],
    /// Refused as revoked, which the audit log tells apart from unknown.
    pub revoked: bool,
}

impl StaticToken {
    /// A valid token called `name`.
    pub fn new(name: impl Into<String>, token: &str) -> Self {
        Self { name: name.into(), sha256: Sha256::digest(token.as_bytes()).into(), revoked: false }
    }
}

/// Shows the name, not the hash.
impl fmt::Debug for StaticToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticToken")
            .field("name", &self.name)
            .field("revoked", &self.revoked)
            .finish_non_exhaustive()
    }
}

/// Accepts the bearer tokens of a list, which can be replaced while the server runs.
///
/// The presented token is hashed and compared with every entry in constant time, so neither the position nor the
/// length of a match shows in the time it takes.
#[derive(Clone, Debug, Default)]
pub struct StaticTokens(Arc<RwLock<Vec<StaticToken>>>);

impl StaticTokens {
    /// Accepts `tokens`.
    pub fn new(tokens: Vec<StaticToken>) -> Self {
        Self(Arc::new(RwLock::new(tokens)))
    }

    /// Accepts `tokens` instead, from the next request on. Open sockets stay:
    /// [`ServerHandle::disconnect_principal`](crate::ServerHandle::disconnect_principal) closes those of a token.
    pub fn replace(&self, tokens: Vec<StaticToken>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = tokens;
    }

    fn check(&self, token: &str) -> Result<Principal, Denied> {
        let presented: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let tokens = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (mut found, mut position) = (Choice::from(0), 0u32);
        for (index, token) in (0u32..).zip(tokens.iter()) {
            let equal = token.sha256.ct_eq(&presented);
            position.conditional_assign(&index, equal);
            found |= equal;
        }
        if !bool::from(found) {
            return Err(DeniedReason::Unknown.into());
        }
        let token = &tokens[position as usize];
        if token.revoked {
            return Err(Denied::from(DeniedReason::Revoked).claimed(&token.name));
        }
        Ok(principal(PrincipalKind::Token, &token.name))
    }
}

impl Authenticate for StaticTokens {
    fn authenticate<'a>(&'a self, request: AuthRequest<'a>) -> BoxFuture<'a, Result<Principal, Denied>> {
        Box::pin(std::future::ready(request.bearer().and_then(|token| self.check(token))))
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, header};

    use super::*;
    use crate::snapshot::Transport;

    fn outcome(tokens: &StaticTokens, authorization: Option<&str>) -> Result<String, DeniedReason> {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        let request = AuthRequest { headers: &headers, peer: None, transport: Transport::Http };
        request.bearer().and_then(|token| tokens.check(token)).map(|p| p.to_string()).map_err(|d| d.reason)
    }

    #[test]
    fn each_refusal_has_its_reason_and_only_bearer_counts() {
        let mut revoked = StaticToken::new("old", "s3");
        revoked.revoked = true;
        let tokens =
            StaticTokens::new(vec![StaticToken::new("a", "s1"), StaticToken::new("b", "s2"), revoked]);
        assert_eq!(outcome(&tokens, Some("Bearer s2")), Ok("token:b".into()));
        assert_eq!(outcome(&tokens, Some("bearer  s1")), Ok("token:a".into()));
        assert_eq!(outcome(&tokens, None), Err(DeniedReason::MissingCredentials));
        assert_eq!(outcome(&tokens, Some("s1")), Err(DeniedReason::WrongScheme));
        assert_eq!(outcome(&tokens, Some("Basic s1")), Err(DeniedReason::WrongScheme));
        assert_eq!(outcome(&tokens, Some("Bearer s")), Err(DeniedReason::Unknown));
        assert_eq!(outcome(&tokens, Some("Bearer s3")), Err(DeniedReason::Revoked));
        tokens.replace(vec![StaticToken::new("b", "s9")]);
        assert_eq!(outcome(&tokens, Some("Bearer s2")), Err(DeniedReason::Unknown));
        assert_eq!(outcome(&tokens, Some("Bearer s9")), Ok("token:b".into()));
    }

    #[test]
    fn every_denial_looks_the_same_on_the_wire() {
        let denials = [DeniedReason::Unknown, DeniedReason::Revoked, DeniedReason::MissingCredentials];
        for denied in denials.map(Denied::from) {
            assert_eq!(denied.status, 401);
            assert_eq!(denied.headers.len(), 1);
        }
    }
}
