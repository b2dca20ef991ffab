//! API tokens in the store: made, revoked, listed. Used by the REST API, the first start and the offline commands.

use std::sync::Arc;

use opamp_fleet::manager::Actor;
use opamp_proto::Wall;
use opamp_store::{
    ApiToken, CommitError, NewAuditEntry, Precondition, ReadError, Role, RoleError, Store, WriteBatch,
};
use serde_json::{Value, json};
use tokio::{sync::Mutex, task::JoinError};

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
    /// The change was cut off, by the end of the runtime or by a defect: look whether it was made.
    #[error("the change was interrupted: {0}")]
    Interrupted(JoinError),
    /// Nobody could administer the server any more, now or when the other admin tokens expire: make another admin token
    /// without expiry first.
    #[error("without token {0:?} there is no admin token left that does not expire")]
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

/// Makes and revokes the tokens of a store, one after the other: what was looked at before a change still holds when it
/// is written. A change runs to its end even if the caller stops waiting.
#[derive(Clone)]
pub(crate) struct Tokens(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    turn: Mutex<()>,
}

impl Tokens {
    /// The tokens of this store. Only one value (and its clones) may change them.
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Tokens(Arc::new(Inner { store, turn: Mutex::new(()) }))
    }

    /// Makes the first admin token if there is no token at all.
    pub(crate) async fn create_first(&self, now: Wall) -> Result<Option<NewToken>, TokenError> {
        if !self.0.store.tokens().await?.is_empty() {
            return Ok(None);
        }
        let (_, secret) = self.create(&local_actor(), FIRST_ADMIN, Role::Admin, None, now).await?;
        Ok(Some(secret))
    }

    /// Makes a token.
    pub(crate) async fn create(
        &self,
        actor: &Actor,
        name: &str,
        role: Role,
        expires_at: Option<Wall>,
        now: Wall,
    ) -> Result<(ApiToken, NewToken), TokenError> {
        let (inner, actor, name) = (Arc::clone(&self.0), actor.clone(), name.to_owned());
        let change = async move { inner.create(&actor, name, role, expires_at, now).await };
        tokio::spawn(change).await.map_err(TokenError::Interrupted)?
    }

    /// Revokes a token, for good. Revoking twice changes nothing.
    pub(crate) async fn revoke(&self, actor: &Actor, id: &str, now: Wall) -> Result<ApiToken, TokenError> {
        let (inner, actor, id) = (Arc::clone(&self.0), actor.clone(), id.to_owned());
        let change = async move { inner.revoke(&actor, &id, now).await };
        tokio::spawn(change).await.map_err(TokenError::Interrupted)?
    }
}

impl Inner {
    async fn create(
        &self,
        actor: &Actor,
        name: String,
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
        let _turn = self.turn.lock().await;
        if self.store.tokens().await?.iter().any(|token| token.name == name && is_valid(token, now)) {
            return Err(TokenError::NameTaken(name));
        }
        let secret = NewToken::generate().map_err(TokenError::Random)?;
        let token = ApiToken {
            id: token::new_id().map_err(TokenError::Random)?,
            name,
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
        self.store.commit(batch, None).await?;
        Ok((token, secret))
    }

    async fn revoke(&self, actor: &Actor, id: &str, now: Wall) -> Result<ApiToken, TokenError> {
        let _turn = self.turn.lock().await;
        let before = self.store.token(id).await?.ok_or_else(|| TokenError::Unknown(id.to_owned()))?;
        if before.revoked_at.is_some() {
            return Ok(before);
        }
        if before.role == Role::Admin && is_valid(&before, now) {
            let stays = |token: &ApiToken| {
                token.role == Role::Admin && token.revoked_at.is_none() && token.expires_at.is_none()
            };
            let tokens = self.store.tokens().await?;
            if !tokens.iter().any(|token| token.id != before.id && stays(token)) {
                return Err(TokenError::LastAdmin(before.name));
            }
        }
        let after = ApiToken { revoked_at: Some(now), ..before.clone() };
        let mut batch = WriteBatch::new();
        batch.append_audit(entry(actor, "token.revoke", id, Some(shown(&before)), Some(shown(&after)), now));
        batch.put_token(after.clone());
        self.store.commit(batch, None).await?;
        Ok(after)
    }
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

#[cfg(test)]
mod tests {
    use std::{env, fs, path::PathBuf, process};

    use futures::FutureExt as _;
    use opamp_store::{SqliteOptions, SqliteStore};

    use super::*;

    const NOW: Wall = Wall(1_760_000_000_000);

    /// A database of its own, removed when dropped. In memory nothing takes long enough to be overtaken.
    struct Database(PathBuf);

    impl Database {
        async fn open(name: &str) -> (Self, Tokens) {
            let directory = env::temp_dir().join(format!("reference-server-tokens-{name}-{}", process::id()));
            fs::create_dir(&directory).unwrap();
            let store =
                SqliteStore::open(directory.join("opamp.db"), SqliteOptions::default()).await.unwrap();
            (Database(directory), Tokens::new(Arc::new(store)))
        }
    }

    impl Drop for Database {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    async fn admin(tokens: &Tokens, name: &str, expires_at: Option<Wall>) -> ApiToken {
        tokens.create(&local_actor(), name, Role::Admin, expires_at, NOW).await.unwrap().0
    }

    #[tokio::test]
    async fn two_admin_tokens_revoked_at_once_do_not_both_go() {
        let (_database, tokens) = Database::open("revoke").await;
        let (a, b) = (admin(&tokens, "a", None).await, admin(&tokens, "b", None).await);
        let actor = local_actor();
        let (a, b) = tokio::join!(tokens.revoke(&actor, &a.id, NOW), tokens.revoke(&actor, &b.id, NOW));
        let outcomes = [a, b];
        let refused = outcomes.iter().filter(|outcome| matches!(outcome, Err(TokenError::LastAdmin(_))));
        assert_eq!(refused.count(), 1, "{outcomes:?}");
    }

    #[tokio::test]
    async fn two_tokens_made_at_once_do_not_share_a_name() {
        let (_database, tokens) = Database::open("create").await;
        let actor = local_actor();
        let make = || tokens.create(&actor, "ci", Role::Viewer, None, NOW);
        let outcomes = tokio::join!(make(), make());
        let taken = [&outcomes.0, &outcomes.1]
            .into_iter()
            .filter(|outcome| matches!(outcome, Err(TokenError::NameTaken(_))));
        assert_eq!(taken.count(), 1, "{outcomes:?}");
    }

    #[tokio::test]
    async fn an_admin_token_that_expires_does_not_stand_in_for_one_that_does_not() {
        let (_database, tokens) = Database::open("expiry").await;
        let (lasting, _) = (
            admin(&tokens, "lasting", None).await,
            admin(&tokens, "short", Some(Wall(NOW.0 + 60_000))).await,
        );
        let refused = tokens.revoke(&local_actor(), &lasting.id, NOW).await;
        assert!(matches!(refused, Err(TokenError::LastAdmin(_))), "{refused:?}");
        admin(&tokens, "another", None).await;
        tokens.revoke(&local_actor(), &lasting.id, NOW).await.unwrap();
    }

    #[tokio::test]
    async fn a_change_is_made_although_nobody_waits_for_it_any_more() {
        let (_database, tokens) = Database::open("dropped").await;
        let actor = local_actor();
        let abandoned = tokens.create(&actor, "abandoned", Role::Viewer, None, NOW).now_or_never();
        assert!(abandoned.is_none(), "begun, then dropped");
        // Its turn comes after that of the other one.
        admin(&tokens, "next", None).await;
        let names: Vec<_> =
            tokens.0.store.tokens().await.unwrap().into_iter().map(|token| token.name).collect();
        assert!(names.contains(&"abandoned".to_owned()), "{names:?}");
    }
}
