//! Endpoints of API tokens.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, State},
};
use http::StatusCode;
use opamp_fleet::manager::Actor;
use opamp_proto::Wall;
use opamp_store::{ApiToken, Role};

use super::{
    error::ApiError,
    extract::{Body, NoParameters, Query},
    schema::{reply, request},
    state::App,
};
use crate::tokens::TokenError;

request! {
    /// A token to be made.
    pub(crate) struct NewTokenRequest {
        /// What it is called, in listings and in the audit log.
        name: String,
        /// `viewer`, `operator` or `admin`.
        role: String,
        /// From when on it is no longer valid; never, if left out.
        expires_at: Option<Wall>,
    }
}

reply! {
    /// A token, without its secret.
    pub(crate) struct TokenReply {
        /// Id by which it is revoked.
        id: String,
        /// What it is called.
        name: String,
        /// `viewer`, `operator` or `admin`.
        role: &'static str,
        /// When it was made.
        created_at: Wall,
        /// By whom.
        created_by: String,
        /// From when on it is no longer valid.
        expires_at: Option<Wall>,
        /// When it was revoked.
        revoked_at: Option<Wall>,
    }
}

reply! {
    /// A token that was just made.
    pub(crate) struct CreatedToken {
        /// The secret. It is shown this once and stored only as a hash.
        token: String,
        /// What is known of it from now on.
        info: TokenReply,
    }
}

reply! {
    /// All tokens, revoked and expired ones included.
    pub(crate) struct TokenList {
        /// Ascending by id.
        tokens: Vec<TokenReply>,
    }
}

impl From<ApiToken> for TokenReply {
    fn from(token: ApiToken) -> Self {
        TokenReply {
            id: token.id,
            name: token.name,
            role: token.role.as_str(),
            created_at: token.created_at,
            created_by: token.created_by,
            expires_at: token.expires_at,
            revoked_at: token.revoked_at,
        }
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        let text = error.to_string();
        match error {
            TokenError::Commit(error) => ApiError::from(error),
            TokenError::Expired(_) | TokenError::Name | TokenError::Role(_) => ApiError::bad_request(text),
            TokenError::LastAdmin(_) => {
                ApiError::conflict(text).hint("make another admin token without expiry first")
            }
            TokenError::NameTaken(_) => {
                ApiError::conflict(text).hint("choose another name or revoke that token")
            }
            TokenError::Interrupted(_) | TokenError::Random(_) => ApiError::internal(text),
            TokenError::Read(error) => ApiError::from(error),
            TokenError::Unknown(_) => ApiError::not_found(text),
        }
    }
}

pub(crate) async fn list(
    State(app): State<Arc<App>>,
    _: Query<NoParameters>,
) -> Result<Json<TokenList>, ApiError> {
    let tokens = app.store.tokens().await?;
    Ok(Json(TokenList { tokens: tokens.into_iter().map(TokenReply::from).collect() }))
}

pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Extension(actor): Extension<Actor>,
    Body(wanted): Body<NewTokenRequest>,
) -> Result<(StatusCode, Json<CreatedToken>), ApiError> {
    let role: Role = wanted.role.parse().map_err(TokenError::Role)?;
    let (token, secret) = app.tokens.create(&actor, &wanted.name, role, wanted.expires_at, app.now()).await?;
    let reply = CreatedToken { token: secret.reveal().to_owned(), info: token.into() };
    Ok((StatusCode::CREATED, Json(reply)))
}

pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    Extension(actor): Extension<Actor>,
    Path(id): Path<String>,
) -> Result<Json<TokenReply>, ApiError> {
    let revoked = app.tokens.revoke(&actor, &id, app.now()).await?;
    Ok(Json(revoked.into()))
}
