//! Names and numbers: what rollouts, members, waves, offers and commands are called.

use std::fmt;
use std::str::FromStr;

use opamp_proto::{AgentId, UidError};

/// The name of a rollout: a UUID, in text hyphenated.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(from = "AgentId", into = "AgentId")]
pub struct RolloutId([u8; 16]);

impl RolloutId {
    /// The name with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// A new UUID of version 7 from a time in milliseconds since 1970 and random bytes, of which 74 bits are kept.
    #[must_use]
    pub const fn v7(unix_ms: u64, random: [u8; 10]) -> Self {
        Self(*AgentId::v7(unix_ms, random).as_bytes())
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl From<AgentId> for RolloutId {
    fn from(id: AgentId) -> Self {
        Self(*id.as_bytes())
    }
}

impl From<RolloutId> for AgentId {
    fn from(id: RolloutId) -> Self {
        Self::from_bytes(id.0)
    }
}

impl FromStr for RolloutId {
    type Err = UidError;

    fn from_str(text: &str) -> Result<Self, UidError> {
        text.parse::<AgentId>().map(Self::from)
    }
}

impl fmt::Display for RolloutId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&AgentId::from(*self), f)
    }
}

impl fmt::Debug for RolloutId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! numbers {
    ($( $(#[$meta:meta])* $name:ident($inner:ty) )+) => {$(
        $(#[$meta])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )+};
}

macro_rules! positions {
    ($($name:ident)+) => {$(
        impl $name {
            /// The position as an index.
            #[must_use]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }
    )+};
}

numbers! {
    /// The number of a rollout's last committed batch, from 0 (R3). What optimistic concurrency compares.
    Serial(u64)
    /// The epoch of the leader's lease: the fence of every write (R3).
    Epoch(u64)
    /// A member's position in the order of its rollout, from 0.
    MemberIx(u32)
    /// A wave's position in its rollout, from 0. [`WaveIx::TAIL`] is the queue of those who come late.
    WaveIx(u16)
    /// A failure domain's position in the list of its rollout, from 0; [`ZoneIx::NONE`] without one.
    ZoneIx(u16)
    /// A configuration's position in the list of its rollout, from 0; [`ConfigIx::NONE`] without one.
    ConfigIx(u32)
    /// A group's number.
    GroupIx(u16)
    /// A gate's position in its plan, from 0: fewer than [`GateIx::MAX_GATES`].
    GateIx(u8)
}

positions! { MemberIx WaveIx ZoneIx ConfigIx GroupIx GateIx }

impl WaveIx {
    /// The queue of late joiners and of members that come back after their wave, which belongs to no wave.
    pub const TAIL: Self = Self(u16::MAX);
}

impl ZoneIx {
    /// No failure domain.
    pub const NONE: Self = Self(u16::MAX);
}

impl ConfigIx {
    /// No configuration.
    pub const NONE: Self = Self(u32::MAX);
}

impl GateIx {
    /// Most gates of a plan: as many as a member has bits for.
    pub const MAX_GATES: usize = 16;

    /// The gate's bit in a member's row.
    #[must_use]
    pub const fn bit(self) -> u16 {
        1 << (self.0 & 15)
    }
}

/// What makes an offer idempotent: rollout, agent, and the number of the offer within that member, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OfferKey {
    /// The rollout.
    pub rollout: RolloutId,
    /// The agent.
    pub agent: AgentId,
    /// The offer's number.
    pub offer: u32,
}

/// What makes a command idempotent (R2): chosen by the caller, 1 to [`CommandKey::BYTES_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandKey(Box<str>);

impl CommandKey {
    /// Longest key, in bytes.
    pub const BYTES_MAX: usize = 64;

    /// The key with this text.
    ///
    /// # Errors
    /// [`CommandKeyError`] if it is empty or too long.
    pub fn new(text: &str) -> Result<Self, CommandKeyError> {
        if text.is_empty() || text.len() > Self::BYTES_MAX {
            return Err(CommandKeyError { bytes: text.len() });
        }
        Ok(Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CommandKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The key of a command is empty or too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key of a command has 1 to {max} bytes, not {bytes}", max = CommandKey::BYTES_MAX)]
pub struct CommandKeyError {
    /// Its length.
    pub bytes: usize,
}

/// Which part of an agent a rollout moves (R60). Two rollouts of one slot never have the same agent in flight. The
/// numbers of names are given by [`crate::rollout::Rollouts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// Connection settings.
    ConnectionSettings,
    /// The whole remote configuration.
    MainConfig,
    /// One named part of it.
    NamedConfig(u16),
    /// Packages.
    Packages(u16),
    /// A restart.
    Restart,
}

impl Slot {
    /// The slot as one number, stable in stored records: kind in the upper half, name in the lower.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::ConnectionSettings => 1 << 16,
            Self::MainConfig => 2 << 16,
            Self::NamedConfig(name) => 3 << 16 | name as u32,
            Self::Packages(name) => 4 << 16 | name as u32,
            Self::Restart => 5 << 16,
        }
    }

    /// The slot of a number; none if it is no slot's.
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        let name = (code & 0xffff) as u16;
        match (code >> 16, name) {
            (1, 0) => Some(Self::ConnectionSettings),
            (2, 0) => Some(Self::MainConfig),
            (3, _) => Some(Self::NamedConfig(name)),
            (4, _) => Some(Self::Packages(name)),
            (5, 0) => Some(Self::Restart),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_id_is_a_hyphenated_uuid() {
        let id = RolloutId::v7(0x0190_a0b0_c0d0, [0xff; 10]);
        assert_eq!(id.to_string(), "0190a0b0-c0d0-7fff-bfff-ffffffffffff");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("0190a0b0".parse::<RolloutId>().is_err());
    }

    #[test]
    fn a_command_key_has_1_to_64_bytes() {
        assert_eq!(CommandKey::new(""), Err(CommandKeyError { bytes: 0 }));
        assert_eq!(CommandKey::new(&"k".repeat(65)), Err(CommandKeyError { bytes: 65 }));
        assert_eq!(CommandKey::new(&"k".repeat(64)).map(|key| key.as_str().len()), Ok(64));
    }

    #[test]
    fn the_code_of_a_slot_names_it() {
        let slots = [
            Slot::ConnectionSettings,
            Slot::MainConfig,
            Slot::NamedConfig(7),
            Slot::Packages(u16::MAX),
            Slot::Restart,
        ];
        for slot in slots {
            assert_eq!(Slot::from_code(slot.code()), Some(slot));
        }
        assert_eq!(Slot::from_code(0), None);
        assert_eq!(Slot::from_code(2 << 16 | 1), None);
    }
}
