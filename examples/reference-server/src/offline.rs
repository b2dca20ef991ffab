//! Commands on the data directory while no server runs on it.

use std::{fmt::Write as _, sync::Arc};

use opamp_server::{Clock as _, SystemClock};
use opamp_store::{SqliteOptions, SqliteStore, Store};

use crate::{
    cli::TokenAction,
    config::{Config, ConfigError, StoreKind},
    data_dir::DataDir,
    error::StartError,
    tokens::{self, TokenError, Tokens},
};

/// Makes, lists or revokes API tokens; the answer is the text to print.
///
/// # Errors
/// The data directory is in use or cannot be opened, or the change is refused.
pub async fn tokens(config: &Config, action: TokenAction) -> Result<String, StartError> {
    if config.server.store == StoreKind::Memory {
        return Err(
            ConfigError::new("with `server.store = \"memory\"` there are no tokens to work on").into()
        );
    }
    let data_dir = DataDir::open(&config.server.data_dir)?;
    let store = SqliteStore::open(data_dir.database(), SqliteOptions::default()).await?;
    let store: Arc<dyn Store> = Arc::new(store);
    let outcome = apply(&store, action).await;
    store.close().await;
    Ok(outcome?)
}

async fn apply(store: &Arc<dyn Store>, action: TokenAction) -> Result<String, TokenError> {
    let tokens = Tokens::new(Arc::clone(store));
    let now = SystemClock::new().now().wall;
    let actor = tokens::local_actor();
    match action {
        TokenAction::Create { name, role } => {
            let role = role.parse().map_err(TokenError::Role)?;
            let (token, secret) = tokens.create(&actor, &name, role, None, now).await?;
            Ok(format!(
                "{}\n{role} token {:?}, id {}; it is shown this once\n",
                secret.reveal(),
                token.name,
                token.id
            ))
        }
        TokenAction::List => {
            let mut text = String::new();
            for token in store.tokens().await? {
                let state = match (token.revoked_at, token.expires_at) {
                    (Some(at), _) => format!("revoked {at}"),
                    (None, Some(at)) if at <= now => format!("expired {at}"),
                    (None, Some(at)) => format!("valid until {at}"),
                    (None, None) => "valid".into(),
                };
                let _ = writeln!(text, "{}  {:8}  {:30}  {state}", token.id, token.role.as_str(), token.name);
            }
            Ok(text)
        }
        TokenAction::Revoke { id } => {
            let token = tokens.revoke(&actor, &id, now).await?;
            Ok(format!("token {:?} ({id}) is revoked\n", token.name))
        }
    }
}
