//! Signatures of packages: who may say what runs here.
//!
//! A server that was taken over can offer whatever it likes, so a package counts only if somebody signed it whose public
//! key was configured on this machine, and whose private key the server does not have (R-SEC-10, R-SEC-13).
//!
//! What is signed is a [`statement`]. Name and version are in it, so that a signed file cannot be offered as another package or
//! as a later version. An older version that was signed once stays valid: downgrades are offers like others (R-PKG-53).

use std::fmt;

use rustls::crypto::CryptoProvider;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, alg_id};

/// What every statement begins with, so that no other signature of the same key is one.
const DOMAIN: &[u8] = b"opamp package signature 1\0";
/// `SubjectPublicKeyInfo` of an Ed25519 key, up to the key (RFC 8410 §4).
const ED25519_KEY_INFO: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A public key that packages may be signed with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PackageKey([u8; 32]);

/// Whether packages must be signed, and by whom.
#[derive(Clone)]
pub struct SignaturePolicy(Policy);

#[derive(Clone)]
enum Policy {
    /// Whatever the server offers.
    Anything,
    Signed {
        keys: Vec<PackageKey>,
        algorithm: &'static dyn SignatureVerificationAlgorithm,
    },
}

/// Why a policy cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// It is no public key as it should be. Make one with, for example, `openssl genpkey -algorithm ed25519` and
    /// `openssl pkey -pubout`.
    #[error("not an Ed25519 public key in PEM form (BEGIN PUBLIC KEY)")]
    Key,
    /// No key was given, so that no package could ever be installed.
    #[error("no public key was given for the signatures of packages; name one, or ask for unsigned packages")]
    NoKey,
    /// The crypto provider has no Ed25519. Use another.
    #[error("the crypto provider does not verify Ed25519 signatures")]
    Provider,
}

/// Why a signature does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SignatureProblem {
    #[error("the package is not signed, and this agent takes signed packages only")]
    Missing,
    #[error("the signature is not one of a key trusted here, for this name, version and content")]
    Wrong,
}

impl PackageKey {
    /// The key of these bytes (RFC 8032 §5.1.5).
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key in PEM text: `BEGIN PUBLIC KEY`.
    ///
    /// # Errors
    ///
    /// [`KeyError::Key`] if it is not, or of another kind.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let info = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::Key)?;
        let key = info.strip_prefix(&ED25519_KEY_INFO).ok_or(KeyError::Key)?;
        key.try_into().map(Self).map_err(|_| KeyError::Key)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for PackageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackageKey({})", opamp_proto::ConfigHash::new(self.0.to_vec()))
    }
}

impl SignaturePolicy {
    /// Only packages signed by one of these keys. To replace a key, name the old and the new one until everything is signed
    /// with the new one.
    ///
    /// # Errors
    ///
    /// [`KeyError`] if no package could ever satisfy that.
    pub fn require(
        provider: &CryptoProvider,
        keys: impl IntoIterator<Item = PackageKey>,
    ) -> Result<Self, KeyError> {
        let keys: Vec<_> = keys.into_iter().collect();
        if keys.is_empty() {
            return Err(KeyError::NoKey);
        }
        let all = provider.signature_verification_algorithms.all;
        let algorithm = all.iter().find(|algorithm| algorithm.public_key_alg_id() == alg_id::ED25519);
        let algorithm = *algorithm.ok_or(KeyError::Provider)?;
        Ok(Self(Policy::Signed { keys, algorithm }))
    }

    /// Whatever the server offers, signed or not: then whoever has the server has this machine too.
    #[must_use]
    pub const fn insecure_accept_unsigned() -> Self {
        Self(Policy::Anything)
    }

    pub(super) fn verify(
        &self,
        name: &str,
        version: &str,
        content_hash: &[u8; 32],
        signature: &[u8],
    ) -> Result<(), SignatureProblem> {
        let (keys, algorithm) = match &self.0 {
            Policy::Anything => return Ok(()),
            Policy::Signed { keys, algorithm } => (keys, algorithm),
        };
        if signature.is_empty() {
            return Err(SignatureProblem::Missing);
        }
        let statement = statement(name, version, content_hash);
        let good = |key: &PackageKey| algorithm.verify_signature(&key.0, &statement, signature).is_ok();
        if keys.iter().any(good) { Ok(()) } else { Err(SignatureProblem::Wrong) }
    }
}

impl fmt::Debug for SignaturePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Policy::Anything => f.write_str("SignaturePolicy(anything)"),
            Policy::Signed { keys, .. } => f.debug_tuple("SignaturePolicy").field(keys).finish(),
        }
    }
}

/// What is signed for a package. `DownloadableFile.signature` is the 64 bytes of an Ed25519 signature (RFC 8032) over it:
///
/// ```text
/// "opamp package signature 1" 0x00
/// length of the name, 4 bytes big-endian      name, UTF-8
/// length of the version, 4 bytes big-endian   version, UTF-8
/// SHA-256 of the file, 32 bytes
/// ```
///
/// The same signature is worth nothing for another name, version or content.
#[must_use]
pub fn statement(name: &str, version: &str, content_hash: &[u8; 32]) -> Vec<u8> {
    let mut statement = DOMAIN.to_vec();
    for text in [name, version] {
        // Longer ones are refused long before: see `OfferLimits::name_bytes_max`.
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        statement.extend(length.to_be_bytes());
        statement.extend(text.as_bytes());
    }
    statement.extend(content_hash);
    statement
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider() -> CryptoProvider {
        rustls::crypto::ring::default_provider()
    }

    #[test]
    fn no_two_packages_have_the_same_statement() {
        let hash = [7; 32];
        let all = [
            statement("ab", "c", &hash),
            statement("a", "bc", &hash),
            statement("", "abc", &hash),
            statement("abc", "", &hash),
            statement("ab", "c", &[8; 32]),
        ];
        for (number, one) in all.iter().enumerate() {
            assert!(one.starts_with(DOMAIN));
            assert!(all.iter().skip(number + 1).all(|other| other != one));
        }
    }

    #[test]
    fn a_policy_without_keys_is_asked_for_in_so_many_words_or_not_had() {
        assert_eq!(SignaturePolicy::require(&provider(), []).unwrap_err(), KeyError::NoKey);
        let anything = SignaturePolicy::insecure_accept_unsigned();
        assert_eq!(anything.verify("x", "1", &[0; 32], b""), Ok(()));
    }

    #[test]
    fn a_provider_without_ed25519_is_refused() {
        let mut without = provider();
        without.signature_verification_algorithms.all = &[];
        let key = PackageKey::from_bytes([1; 32]);
        assert_eq!(SignaturePolicy::require(&without, [key]).unwrap_err(), KeyError::Provider);
    }

    #[test]
    fn the_example_of_rfc_8032_verifies_with_the_algorithm_chosen() {
        // RFC 8032 §7.1, TEST 1: the empty message.
        let hex = |text| opamp_proto::ConfigHash::from_hex(text).unwrap();
        let key = hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let signature = hex(
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        );
        let policy = SignaturePolicy::require(&provider(), [PackageKey::from_bytes([1; 32])]).unwrap();
        let Policy::Signed { algorithm, .. } = policy.0 else { panic!("keys were given") };
        assert!(algorithm.verify_signature(key.as_bytes(), b"", signature.as_bytes()).is_ok());
        assert!(algorithm.verify_signature(key.as_bytes(), b"x", signature.as_bytes()).is_err());
    }

    #[test]
    fn keys_of_other_kinds_and_what_is_no_key_are_refused() {
        // RFC 8410 §10.1.
        let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
        assert_eq!(PackageKey::from_pem(pem).unwrap().as_bytes()[..2], [0x19, 0xbf]);
        assert_eq!(PackageKey::from_pem(""), Err(KeyError::Key));
        // An X25519 key has the same length.
        let other = pem.replace("MCowBQYDK2VwAyEA", "MCowBQYDK2VuAyEA");
        assert_eq!(PackageKey::from_pem(&other), Err(KeyError::Key));
    }
}
