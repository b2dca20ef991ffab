//! Hashes of configurations, packages and settings, as peers exchange them.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::hex;

/// A hash as a peer sends it: opaque bytes of any length, also none, which means that there is no hash (R-PKG-41).
///
/// Hashes made by this crate (see [`crate::hash`]) have 32 bytes. Text is lower-case hexadecimal. Cloning is cheap, but
/// a hash that was sliced out of a received message keeps all of that message alive; build what is to be kept with
/// `ConfigHash::new(bytes.to_vec())`.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigHash(Bytes);

/// A [`ConfigHash`] of any length in 16 bytes: the start of its SHA-256, for compact storage and comparison.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 16]);

/// The text is not an even number of hexadecimal digits (for a [`Fingerprint`]: not 32 of them).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not hexadecimal digits, two for each byte")]
pub struct HexError;

impl ConfigHash {
    /// The hash with these bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// The hash that `text` spells in hexadecimal digits of either case.
    ///
    /// # Errors
    ///
    /// [`HexError`] for an odd number of digits, or any other character.
    pub fn from_hex(text: &str) -> Result<Self, HexError> {
        hex::decode(text).map(Self::new).ok_or(HexError)
    }

    /// The bytes of the hash.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether there is no hash at all, which on the wire is the same as a hash of no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lower-case hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        self.to_string()
    }

    /// The hash of this hash, in 16 bytes.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let digest: [u8; 32] = Sha256::digest(&self.0).into();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Fingerprint(bytes)
    }

    /// The bytes of the hash, shared and not copied.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }
}

impl fmt::Display for ConfigHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(&self.0, f)
    }
}

impl fmt::Debug for ConfigHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(&self.0, f)
    }
}

impl FromStr for ConfigHash {
    type Err = HexError;

    fn from_str(text: &str) -> Result<Self, HexError> {
        Self::from_hex(text)
    }
}

#[cfg(feature = "serde")]
crate::serde_impls::as_text!(ConfigHash, "hexadecimal digits");

impl Fingerprint {
    /// The fingerprint with these bytes, as [`Fingerprint::as_bytes`] gave them.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(&self.0, f)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(&self.0, f)
    }
}

impl FromStr for Fingerprint {
    type Err = HexError;

    fn from_str(text: &str) -> Result<Self, HexError> {
        let bytes = hex::decode(text).ok_or(HexError)?;
        bytes.try_into().map(Self).map_err(|_| HexError)
    }
}

#[cfg(feature = "serde")]
crate::serde_impls::as_text!(Fingerprint, "32 hexadecimal digits");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_fingerprint_is_the_start_of_the_sha_256_of_the_hash() {
        // SHA-256 of the empty string and of "abc" (FIPS 180-2, appendix B.1).
        assert_eq!(ConfigHash::default().fingerprint().to_string(), "e3b0c44298fc1c149afbf4c8996fb924");
        assert_eq!(ConfigHash::new("abc").fingerprint().to_string(), "ba7816bf8f01cfea414140de5dae2223");
    }

    #[test]
    fn a_hash_may_have_any_length_also_none() {
        assert!(ConfigHash::new(Vec::new()).is_empty());
        assert_eq!(ConfigHash::new(Vec::new()), ConfigHash::default());
        assert_eq!(ConfigHash::new(vec![7; 1000]).as_bytes(), [7; 1000]);
        assert_ne!(ConfigHash::new(vec![0]), ConfigHash::new(vec![0, 0]));
    }

    #[test]
    fn text_that_is_not_hexadecimal_is_refused() {
        assert_eq!(ConfigHash::from_hex("0"), Err(HexError));
        assert_eq!("xy".parse::<ConfigHash>(), Err(HexError));
        assert_eq!("00".parse::<Fingerprint>(), Err(HexError));
    }

    proptest! {
        #[test]
        fn hexadecimal_text_round_trips(bytes: Vec<u8>) {
            let hash = ConfigHash::new(bytes);
            prop_assert_eq!(hash.to_hex().len(), hash.as_bytes().len() * 2);
            prop_assert_eq!(format!("{hash:?}"), hash.to_hex());
            prop_assert_eq!(ConfigHash::from_hex(&hash.to_hex()), Ok(hash.clone()));
            let fingerprint = hash.fingerprint();
            prop_assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
            prop_assert_eq!(Fingerprint::from_bytes(*fingerprint.as_bytes()), fingerprint);
        }
    }
}
