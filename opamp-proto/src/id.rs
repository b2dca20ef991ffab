//! Identities: what an agent calls itself on the wire, and what a server calls its record of the agent.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::hex;

/// Length of the textual form: 32 digits and 4 hyphens.
const TEXT_LEN: usize = 36;
/// Where the hyphens stand in the textual form.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// The identity of a running agent instance, `instance_uid`: 16 bytes, in every message of either direction (spec section
/// "Agent identity", R-TRANS-06).
///
/// The text form is a hyphenated UUID, as in the `OpAMP-Instance-UID` header of plain HTTP. UUID version 7 is recommended
/// to agents, but any 16 bytes are accepted.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstanceUid([u8; 16]);

/// The key of an agent record on the server side; never on the wire.
///
/// It outlives the `instance_uid`, which the server may reassign and which an agent may lose. Its text form is a
/// hyphenated UUID.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AgentId([u8; 16]);

/// Why bytes or text are not an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UidError {
    /// The bytes are not 16. Agents from before OpAMP 0.10 send a 26-character ULID here; they have to be upgraded.
    #[error(
        "an instance_uid has 16 bytes, not {found}{hint}",
        hint = if *found == 26 { " (26 is the textual ULID of OpAMP before 0.10)" } else { "" }
    )]
    Length {
        /// How many bytes there were.
        found: usize,
    },
    /// The text is not a hyphenated UUID such as `0190a0b0-c0d0-7e0f-8a1b-2c3d4e5f6071`.
    #[error("not a hyphenated UUID")]
    Text,
}

macro_rules! uuid_like {
    ($name:ident) => {
        impl $name {
            /// The identity with these bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// A new UUID of version 7 (RFC 9562 section 5.7) from a time in milliseconds since the Unix epoch, of which
            /// the low 48 bits count, and random bytes, of which 74 bits are kept.
            ///
            /// Time and randomness are arguments so that nothing here reads a clock or draws a number.
            #[must_use]
            pub const fn v7(unix_ms: u64, random: [u8; 10]) -> Self {
                let mut bytes = [0; 16];
                let (time, rest) = bytes.split_at_mut(6);
                time.copy_from_slice(unix_ms.to_be_bytes().split_at(2).1);
                rest.copy_from_slice(&random);
                bytes[6] = 0x70 | bytes[6] & 0x0f;
                bytes[8] = 0x80 | bytes[8] & 0x3f;
                Self(bytes)
            }

            /// The 16 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = UidError;

            fn try_from(bytes: &[u8]) -> Result<Self, UidError> {
                match bytes.try_into() {
                    Ok(bytes) => Ok(Self(bytes)),
                    Err(_) => Err(UidError::Length { found: bytes.len() }),
                }
            }
        }

        impl FromStr for $name {
            type Err = UidError;

            fn from_str(text: &str) -> Result<Self, UidError> {
                parse(text).map(Self).ok_or(UidError::Text)
            }
        }

        /// By the bytes: compared as one number, which is much cheaper than byte by byte for whoever keeps sorted maps of
        /// them.
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                u128::from_be_bytes(self.0).cmp(&u128::from_be_bytes(other.0))
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let text = format(&self.0);
                f.pad(std::str::from_utf8(&text).unwrap_or_default())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        #[cfg(feature = "serde")]
        crate::serde_impls::as_text!($name, "a hyphenated UUID");
    };
}

uuid_like!(InstanceUid);
uuid_like!(AgentId);

fn format(bytes: &[u8; 16]) -> [u8; TEXT_LEN] {
    let mut text = [b'-'; TEXT_LEN];
    let mut at = 0;
    for &byte in bytes {
        if HYPHENS.contains(&at) {
            at += 1;
        }
        [text[at], text[at + 1]] = hex::digits(byte);
        at += 2;
    }
    text
}

fn parse(text: &str) -> Option<[u8; 16]> {
    let text: &[u8; TEXT_LEN] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 16];
    let mut at = 0;
    for byte in &mut bytes {
        if HYPHENS.contains(&at) {
            if text[at] != b'-' {
                return None;
            }
            at += 1;
        }
        *byte = hex::digit(text[at])? << 4 | hex::digit(text[at + 1])?;
        at += 2;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "0190a0b0-c0d0-7e0f-8a1b-2c3d4e5f6071";
    const BYTES: [u8; 16] =
        [0x01, 0x90, 0xa0, 0xb0, 0xc0, 0xd0, 0x7e, 0x0f, 0x8a, 0x1b, 0x2c, 0x3d, 0x4e, 0x5f, 0x60, 0x71];

    #[test]
    fn ids_are_in_the_order_of_their_bytes() {
        proptest!(|(mut a: [u8; 16], b: [u8; 16], shared in 0..=16_usize)| {
            a[..shared].copy_from_slice(&b[..shared]);
            prop_assert_eq!(AgentId::from_bytes(a).cmp(&AgentId::from_bytes(b)), a.cmp(&b));
            prop_assert_eq!(InstanceUid::from_bytes(a) < InstanceUid::from_bytes(b), a < b);
        });
    }

    #[test]
    fn text_is_a_hyphenated_uuid_for_display_and_debug() {
        let uid = InstanceUid::from_bytes(BYTES);
        assert_eq!(uid.to_string(), TEXT);
        assert_eq!(format!("{uid:?}"), TEXT);
        assert_eq!(format!("{uid:>38}"), format!("  {TEXT}"));
        assert_eq!(AgentId::from_bytes(BYTES).to_string(), TEXT);
    }

    #[test]
    fn text_is_read_in_either_case_and_only_when_hyphenated() {
        assert_eq!(TEXT.parse(), Ok(InstanceUid::from_bytes(BYTES)));
        assert_eq!(TEXT.to_uppercase().parse(), Ok(InstanceUid::from_bytes(BYTES)));
        let bad = [
            "",
            "0190a0b0c0d07e0f8a1b2c3d4e5f6071",
            "0190a0b0-c0d0-7e0f-8a1b-2c3d4e5f607",
            "0190a0b0-c0d0-7e0f-8a1b-2c3d4e5f60711",
            "0190a0b0-c0d0-7e0f-8a1b-2c3d4e5f607g",
            "0190a0b0+c0d0-7e0f-8a1b-2c3d4e5f6071",
            "0190a0b-0c0d0-7e0f-8a1b-2c3d4e5f6071",
            "{190a0b0-c0d0-7e0f-8a1b-2c3d4e5f607}",
        ];
        for text in bad {
            assert_eq!(text.parse::<InstanceUid>(), Err(UidError::Text), "{text}");
        }
    }

    #[test]
    fn other_lengths_than_16_bytes_are_refused_by_their_length() {
        assert_eq!(InstanceUid::try_from(&BYTES[..]), Ok(InstanceUid::from_bytes(BYTES)));
        for length in [0, 1, 15, 17, 26, 32] {
            let error = InstanceUid::try_from(&vec![7; length][..]).unwrap_err();
            assert_eq!(error, UidError::Length { found: length });
            assert!(error.to_string().contains(&length.to_string()), "{error}");
        }
        assert!(UidError::Length { found: 26 }.to_string().contains("ULID"));
    }

    #[test]
    fn version_7_carries_time_version_variant_and_randomness() {
        let uid = InstanceUid::v7(0x0190_a0b0_c0d0, [0xff; 10]);
        assert_eq!(uid.to_string(), "0190a0b0-c0d0-7fff-bfff-ffffffffffff");
        let uid = AgentId::v7(0, [0; 10]);
        assert_eq!(uid.to_string(), "00000000-0000-7000-8000-000000000000");
    }

    proptest! {
        #[test]
        fn text_round_trips(bytes: [u8; 16]) {
            let uid = InstanceUid::from_bytes(bytes);
            prop_assert_eq!(uid.to_string().parse(), Ok(uid));
            prop_assert_eq!(uid.as_bytes(), &bytes);
        }

        #[test]
        fn version_7_sorts_by_time(a in 0..1_u64 << 48, b in 0..1_u64 << 48, r: [u8; 10], s: [u8; 10]) {
            prop_assume!(a != b);
            prop_assert_eq!(AgentId::v7(a, r) < AgentId::v7(b, s), a < b);
        }

        #[test]
        fn arbitrary_text_never_panics(text: String) {
            let _ = text.parse::<AgentId>();
        }
    }
}
