//! API tokens: `opamp-pat.<base32 of 160 random bits>.<base32 of the CRC-32 of what precedes it>`.
//!
//! Only the SHA-256 of a token is ever stored. The check digits tell a truncated or mistyped token from an unknown one;
//! the difference shows in the audit log, never on the wire.

use std::fmt;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use sha2::{Digest, Sha256};

const PREFIX: &str = "opamp-pat";
const RANDOM_BYTES: usize = 20;

/// A new API token. `Debug` hides it; [`NewToken::reveal`] is the one way to see it.
pub struct NewToken(String);

impl NewToken {
    /// Draws a token from the operating system's random numbers.
    ///
    /// # Errors
    /// The operating system has no random numbers to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut random = [0; RANDOM_BYTES];
        getrandom::fill(&mut random)?;
        let body = format!("{PREFIX}.{}", BASE32_NOPAD.encode(&random));
        let check = check_digits(&body);
        Ok(NewToken(format!("{body}.{check}")))
    }

    /// The token in clear text, to be shown once.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored of the token.
    pub fn sha256(&self) -> [u8; 32] {
        sha256(&self.0)
    }
}

impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewToken(<redacted>)")
    }
}

/// SHA-256 of a token's text.
pub fn sha256(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Whether a presented text is a complete API token, right down to its check digits.
pub fn is_well_formed(token: &str) -> bool {
    let Some((body, check)) = token.rsplit_once('.') else { return false };
    let random = body.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('.'));
    let complete = random
        .and_then(|random| BASE32_NOPAD.decode(random.as_bytes()).ok())
        .is_some_and(|random| random.len() == RANDOM_BYTES);
    complete && check == check_digits(body)
}

/// A short random identifier by which a token is listed and revoked.
///
/// # Errors
/// The operating system has no random numbers to give.
pub fn new_id() -> Result<String, getrandom::Error> {
    let mut random = [0; 8];
    getrandom::fill(&mut random)?;
    Ok(HEXLOWER.encode(&random))
}

fn check_digits(body: &str) -> String {
    BASE32_NOPAD.encode(&crc32fast::hash(body.as_bytes()).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_carries_160_random_bits_and_its_crc() {
        let token = NewToken::generate().unwrap();
        let parts: Vec<_> = token.reveal().split('.').collect();
        assert_eq!((parts[0], parts[1].len(), parts[2].len()), ("opamp-pat", 32, 7));
        assert!(is_well_formed(token.reveal()));
        assert_ne!(token.reveal(), NewToken::generate().unwrap().reveal());
    }

    #[test]
    fn truncation_and_typing_errors_are_noticed() {
        let token = NewToken::generate().unwrap();
        let text = token.reveal();
        for end in 0..text.len() {
            assert!(!is_well_formed(&text[..end]), "cut after {end}");
        }
        for at in 10..text.len() {
            let mut typed: Vec<u8> = text.bytes().collect();
            if typed[at] != b'.' {
                typed[at] = if typed[at] == b'A' { b'B' } else { b'A' };
                assert!(!is_well_formed(std::str::from_utf8(&typed).unwrap()), "typed wrong at {at}");
            }
        }
        assert!(!is_well_formed(&text.to_lowercase()));
    }

    #[test]
    fn debug_hides_the_token() {
        let token = NewToken::generate().unwrap();
        assert!(!format!("{token:?}").contains(&token.reveal()[10..20]));
    }
}
