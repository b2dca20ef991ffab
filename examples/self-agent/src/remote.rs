//! Remote configurations: checked against what may be set remotely, kept, put in force.
//!
//! Nothing of one that is refused counts, and the one before stays in force (R-CONF-28). It is kept before it is
//! reported as applied, so that what the server believes is true after any crash.

use std::sync::Arc;

use futures::future::BoxFuture;
use opamp_client::{Client, ConfigHash, Rejected, RemoteConfig, RemoteConfigHandler};

use crate::config::Config;
use crate::description::description;
use crate::live::Live;

/// Applies remote configurations to an agent.
pub(crate) struct RemoteSettings(pub(crate) Arc<Live>);

impl RemoteConfigHandler for RemoteSettings {
    fn apply(&self, config: RemoteConfig, client: Client) -> BoxFuture<'_, Result<(), Rejected>> {
        Box::pin(async move {
            let applied = self.checked_and_kept(&config).await;
            match applied {
                Ok(effective) => {
                    // A client that has stopped meanwhile describes nothing; the next start does.
                    let _ = client.set_description(description(&effective));
                    self.0.put_in_force(effective);
                    tracing::info!("remote configuration {} is in force", config.hash());
                    Ok(())
                }
                Err(why) => {
                    tracing::warn!("remote configuration {} is refused: {why}", config.hash());
                    self.0.remote_failed(&why);
                    Err(Rejected::new(why))
                }
            }
        })
    }
}

impl RemoteSettings {
    async fn checked_and_kept(&self, config: &RemoteConfig) -> Result<Config, String> {
        let text = document(config, self.0.local.agent.remote_config_bytes_max)?;
        let effective = self.0.local.with_remote(&text).map_err(|error| error.to_string())?;
        let hash: ConfigHash = config.hash().clone();
        self.0.keep(hash, text).await?;
        Ok(effective)
    }
}

/// The one document of a remote configuration; none at all sets nothing.
fn document(config: &RemoteConfig, bytes_max: usize) -> Result<String, String> {
    if config.files().len() == 0 {
        return Ok(String::new());
    }
    let body = config.single().ok_or_else(|| {
        format!("the configuration has {} files; this agent takes one YAML document", config.files().len())
    })?;
    if body.len() > bytes_max {
        return Err(format!(
            "the configuration has {} bytes, and this agent takes {bytes_max} (`agent.limits.remote_config_bytes`)",
            body.len()
        ));
    }
    String::from_utf8(body.to_vec()).map_err(|error| {
        format!("the configuration is not text: byte {} is not UTF-8", error.utf8_error().valid_up_to())
    })
}
