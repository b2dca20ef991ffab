//! What is shown to nobody.

use std::fmt;

use bytes::Bytes;
use zeroize::Zeroizing;

/// Bytes that are in no log and in no error, and are wiped from memory when they are dropped: keys, tokens, passwords.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes bytes over.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// What it is. Show it to nobody.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// What it is, if it is text.
    #[must_use]
    pub fn expose_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes over what was received, and wipes that if nobody else holds it.
    pub(crate) fn received(bytes: Bytes) -> Self {
        match bytes.try_into_mut() {
            Ok(mut bytes) => {
                let secret = Self::new(bytes.to_vec());
                bytes.fill(0);
                secret
            }
            Err(shared) => Self::new(shared.to_vec()),
        }
    }

    /// A copy for a message, or for what is saved.
    pub(crate) fn to_text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

/// Shows how long it is.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_it_is_shown() {
        assert_eq!(format!("{:?}", Secret::from("hunter2")), "<7 bytes>");
        assert_eq!(Secret::received(Bytes::from_static(b"abc")).expose(), b"abc");
    }
}
