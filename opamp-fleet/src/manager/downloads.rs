//! Who may download which package.
//!
//! A token is the HMAC-SHA256 of an agent's id and the SHA-256 of a content, under a key the server made for itself and
//! keeps in the store. So a token is good for one agent and one content only, needs no record of its own, and survives
//! a restart. Whether the package is (still) assigned to that agent is looked up besides.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, Mac};
use opamp_proto::AgentId;
use sha2::Sha256;

/// The secret's name in the store.
pub(super) const KEY_NAME: &str = "package_downloads";
/// Length of the secret, in bytes.
pub(super) const KEY_BYTES: usize = 32;

/// What tokens are made with.
#[derive(Clone)]
pub(super) struct DownloadKey(Hmac<Sha256>);

impl DownloadKey {
    pub(super) fn new(secret: &[u8]) -> Option<Self> {
        Hmac::new_from_slice(secret).ok().map(Self)
    }

    /// The token for one agent and one content.
    pub(super) fn token(&self, agent: &AgentId, content_sha256: &[u8; 32]) -> String {
        BASE64URL_NOPAD.encode(&self.mac(agent, content_sha256).finalize().into_bytes())
    }

    /// Whether a token is good for this agent and content. Takes the same time whatever is wrong with it.
    pub(super) fn verify(&self, agent: &AgentId, content_sha256: &[u8; 32], token: &str) -> bool {
        let presented = BASE64URL_NOPAD.decode(token.as_bytes()).unwrap_or_default();
        self.mac(agent, content_sha256).verify_slice(&presented).is_ok()
    }

    fn mac(&self, agent: &AgentId, content_sha256: &[u8; 32]) -> Hmac<Sha256> {
        // All fields are of fixed length, so that no two inputs run together.
        self.0
            .clone()
            .chain_update(b"opamp package download v1\0")
            .chain_update(agent.as_bytes())
            .chain_update(content_sha256)
    }
}

impl fmt::Debug for DownloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DownloadKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_one_agent_one_content_and_one_key() {
        let (key, other) = (DownloadKey::new(&[1; 32]).unwrap(), DownloadKey::new(&[2; 32]).unwrap());
        let (agent, stranger) = (AgentId::from_bytes([3; 16]), AgentId::from_bytes([4; 16]));
        let (content, another) = ([5; 32], [6; 32]);
        let token = key.token(&agent, &content);
        assert!(key.verify(&agent, &content, &token));
        assert!(!key.verify(&stranger, &content, &token));
        assert!(!key.verify(&agent, &another, &token));
        assert!(!other.verify(&agent, &content, &token));
        for wrong in ["", "x", &token[1..], &token[..42], &format!("{token}A"), &token.to_uppercase(), "ü"] {
            assert!(!key.verify(&agent, &content, wrong), "{wrong}");
        }
        assert_eq!(
            token,
            DownloadKey::new(&[1; 32]).unwrap().token(&agent, &content),
            "it survives a restart"
        );
        assert_eq!(format!("{key:?}"), "DownloadKey(..)");
    }
}
