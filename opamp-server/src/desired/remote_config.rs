//! A remote configuration to offer.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use opamp_proto::{ConfigHash, pb};
use prost::Message;

use super::Offered;

/// A remote configuration ready to be offered: encoded once, shared by every agent it is meant for.
#[derive(Clone)]
pub struct RemoteConfigOffer(Arc<Inner>);

struct Inner {
    hash: ConfigHash,
    /// The encoded `AgentRemoteConfig`, without the tag and length of the field that carries it.
    encoded: Bytes,
}

impl RemoteConfigOffer {
    /// Encodes an offer of `config` under `hash`, which identifies it to the agent (R-CONF-19).
    ///
    /// Use [`opamp_proto::hash::config_hash`] unless the hash comes from elsewhere. An empty hash is replaced
    /// by the canonical one, because every offer must carry a hash.
    pub fn new(hash: ConfigHash, config: &pb::AgentConfigMap) -> Self {
        let hash = if hash.is_empty() { opamp_proto::hash::config_hash(config) } else { hash };
        let message = pb::AgentRemoteConfig {
            config: Some(config.clone()),
            config_hash: Bytes::copy_from_slice(hash.as_bytes()),
        };
        let encoded = Bytes::from(message.encode_to_vec());
        Self(Arc::new(Inner { hash, encoded }))
    }

    /// The hash the agent reports back.
    pub fn hash(&self) -> &ConfigHash {
        &self.0.hash
    }

    /// The encoded `AgentRemoteConfig`.
    pub fn encoded(&self) -> &Bytes {
        &self.0.encoded
    }
}

impl Offered for RemoteConfigOffer {
    fn hash(&self) -> &ConfigHash {
        &self.0.hash
    }
}

/// Shows hash and size, never the bodies.
impl fmt::Debug for RemoteConfigOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteConfigOffer")
            .field("hash", &self.0.hash)
            .field("encoded_bytes", &self.0.encoded.len())
            .finish()
    }
}
