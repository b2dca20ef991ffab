//! Secrets of the server itself.

use std::fmt;

use bytes::Bytes;

/// Random bytes the server made for itself, such as the key its download tokens are made with. `Debug` hides them.
///
/// They lie in the store as they are: who can read the store can use them.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerSecret(Bytes);

impl ServerSecret {
    /// The longest secret, in bytes.
    pub const BYTES_MAX: usize = 4 << 10;
    /// How many secrets a store keeps; one more is refused.
    pub const SECRETS_MAX: usize = 100;

    /// A secret of these bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for ServerSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerSecret(..)")
    }
}
