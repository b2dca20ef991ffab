//! API tokens in the store: made, revoked, listed. Used by the REST API, the first start and the offline commands.

use opamp_fleet::manager::Actor;
use opamp_proto::Wall;
use opamp_store::{
    ApiToken, CommitError, NewAuditEntry, Precondition, ReadError, Role, RoleError, Store, WriteBatch,
};
use serde_json::{Value, json};

use crate::token::{self, NewToken};

/// Longest name of a token in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 128;

/// Name of the token made at the first start.
const FIRST_ADMIN: &str = "first-admin";

/// A change of tokens that was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Writing failed: try again when the store is healthy.
    #[error("{0}")]
    Commit(#[from] CommitError),
    /// The token would be expired at once: choose a later time.
    #[error("expiry {0} is not in the future")]
    Expired(Wall),
    /// Nobody could administer the server any more: make another admin token first.
    #[error("token {0:?} is the last valid admin token")]
    LastAdmin(String),
    /// The name is empty, too long or has control characters: choose another one.
    #[error("a token's name has 1 to {NAME_BYTES_MAX} bytes and no control characters")]
    Name,
    /// The name is that of another valid token: choose another one, so that the audit log stays readable.
    #[error("there is a valid token called {0:?}")]
    NameTaken(String),
    /// The operating system has no random numbers.
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
    /// Reading failed: try again when the store is healthy.
    #[error("{0}")]
    Read(#[from] ReadError),
    /// That is no role.
    #[error(transparent)]
    Role(RoleError),
    /// There is no such token.
    #[error("there is no token with id {0:?}")]
    Unknown(String),
}

/// Makes the first admin token if there is no token at all.
pub(crate) async fn create_first(store: &dyn Store, now: Wall) -> Result<Option<NewToken>, TokenError> {
    if !store.tokens().await?.is_empty() {
        return Ok(None);
    }
    let (_, secret) = create(store, &local_actor(), FIRST_ADMIN, Role::Admin, None, now).await?;
    Ok(Some(secret))
}

/// Makes a token.
pub(crate) async fn create(
    store: &dyn Store,
    actor: &Actor,
    name: &str,
    role: Role,
    expires_at: Option<Wall>,
    now: Wall,
) -> Result<(ApiToken, NewToken), TokenError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(TokenError::Name);
    }
    if let Some(at) = expires_at.filter(|at| *at <= now) {
        return Err(TokenError::Expired(at));
    }
    if store.tokens().await?.iter().any(|token| token.name == name && is_valid(token, now)) {
        return Err(TokenError::NameTaken(name.to_owned()));
    }
    let secret = NewToken::generate().map_err(TokenError::Random)?;
    let token = ApiToken {
        id: token::new_id().map_err(TokenError::Random)?,
        name: name.to_owned(),
        role,
        secret_sha256: secret.sha256(),
        created_at: now,
        created_by: actor.name.clone(),
        expires_at,
        revoked_at: None,
    };
    let mut batch = WriteBatch::new();
    batch.require(Precondition::TokenAbsent(token.id.clone()));
    batch.append_audit(entry(actor, "token.create", &token.id, None, Some(shown(&token)), now));
    batch.put_token(token.clone());
    store.commit(batch, None).await?;
    Ok((token, secret))
}

/// Revokes a token, for good. Revoking twice changes nothing.
pub(crate) async fn revoke(
    store: &dyn Store,
    actor: &Actor,
    id: &str,
    now: Wall,
) -> Result<ApiToken, TokenError> {
    let before = store.token(id).await?.ok_or_else(|| TokenError::Unknown(id.to_owned()))?;
    if before.revoked_at.is_some() {
        return Ok(before);
    }
    if before.role == Role::Admin && is_valid(&before, now) {
        let tokens = store.tokens().await?;
        let another = tokens.iter().any(|t| t.id != before.id && t.role == Role::Admin && is_valid(t, now));
        if !another {
            return Err(TokenError::LastAdmin(before.name));
        }
    }
    let after = ApiToken { revoked_at: Some(now), ..before.clone() };
    let mut batch = WriteBatch::new();
    batch.append_audit(entry(actor, "token.revoke", id, Some(shown(&before)), Some(shown(&after)), now));
    batch.put_token(after.clone());
    store.commit(batch, None).await?;
    Ok(after)
}

/// Whoever starts this program on the machine of the data directory.
pub(crate) fn local_actor() -> Actor {
    Actor { name: "local".into(), role: Role::Admin.to_string(), source: None, trace_id: None }
}

fn is_valid(token: &ApiToken, now: Wall) -> bool {
    token.revoked_at.is_none() && token.expires_at.is_none_or(|at| at > now)
}

/// A token as the audit log shows it: without anything of its secret.
fn shown(token: &ApiToken) -> Value {
    json!({
        "name": token.name,
        "role": token.role,
        "expires_at": token.expires_at,
        "revoked_at": token.revoked_at,
    })
}

fn entry(
    actor: &Actor,
    action: &str,
    id: &str,
    before: Option<Value>,
    after: Option<Value>,
    at: Wall,
) -> NewAuditEntry {
    NewAuditEntry {
        writer: crate::AUDIT_WRITER.into(),
        at,
        actor: actor.name.clone(),
        role: actor.role.clone(),
        action: action.into(),
        entity: format!("token:{id}"),
        before,
        after,
        source: actor.source.clone(),
        trace_id: actor.trace_id.clone(),
    }
}
