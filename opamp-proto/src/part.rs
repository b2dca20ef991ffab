//! The sub-messages that an agent's message can carry.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};
use std::str::FromStr;

/// A sub-message of `AgentToServer`, in the order of field numbers.
///
/// Presence carries meaning: an absent part means "as before", a present and empty one means "nothing any more" (spec
/// section "Agent Status Compression").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Part {
    /// Who the agent is: `agent_description`.
    AgentDescription,
    /// Health of the agent and its components: `health`.
    Health,
    /// The configuration in use: `effective_config`.
    EffectiveConfig,
    /// Outcome of the last remote configuration: `remote_config_status`.
    RemoteConfigStatus,
    /// State of all packages: `package_statuses`.
    PackageStatuses,
    /// The last message of this client: `agent_disconnect`.
    AgentDisconnect,
    /// A request for connection settings: `connection_settings_request`.
    ConnectionSettingsRequest,
    /// Custom capabilities of the agent: `custom_capabilities`.
    CustomCapabilities,
    /// One custom message: `custom_message`.
    CustomMessage,
    /// Components built into the agent: `available_components`.
    AvailableComponents,
    /// Outcome of the last connection settings offer: `connection_settings_status`.
    ConnectionSettingsStatus,
}

/// A set of [`Part`]s.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct PartSet(u16);

/// The text is not the name of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a part of AgentToServer")]
pub struct PartError;

impl Part {
    /// How many parts there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Every part, in the order of field numbers.
    pub const ALL: [Self; 11] = [
        Self::AgentDescription,
        Self::Health,
        Self::EffectiveConfig,
        Self::RemoteConfigStatus,
        Self::PackageStatuses,
        Self::AgentDisconnect,
        Self::ConnectionSettingsRequest,
        Self::CustomCapabilities,
        Self::CustomMessage,
        Self::AvailableComponents,
        Self::ConnectionSettingsStatus,
    ];

    /// The part's field number in `AgentToServer`.
    #[must_use]
    pub const fn field_number(self) -> u32 {
        match self {
            Self::AgentDescription => 3,
            Self::Health => 5,
            Self::EffectiveConfig => 6,
            Self::RemoteConfigStatus => 7,
            Self::PackageStatuses => 8,
            Self::AgentDisconnect => 9,
            Self::ConnectionSettingsRequest => 11,
            Self::CustomCapabilities => 12,
            Self::CustomMessage => 13,
            Self::AvailableComponents => 14,
            Self::ConnectionSettingsStatus => 15,
        }
    }

    /// The part's field name in `AgentToServer`, for example `agent_description`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AgentDescription => "agent_description",
            Self::Health => "health",
            Self::EffectiveConfig => "effective_config",
            Self::RemoteConfigStatus => "remote_config_status",
            Self::PackageStatuses => "package_statuses",
            Self::AgentDisconnect => "agent_disconnect",
            Self::ConnectionSettingsRequest => "connection_settings_request",
            Self::CustomCapabilities => "custom_capabilities",
            Self::CustomMessage => "custom_message",
            Self::AvailableComponents => "available_components",
            Self::ConnectionSettingsStatus => "connection_settings_status",
        }
    }

    /// Whether the part is a status that an agent leaves out while it has not changed, and that a full state report
    /// repeats. The other three are one-time events.
    #[must_use]
    pub const fn is_status(self) -> bool {
        !matches!(self, Self::AgentDisconnect | Self::ConnectionSettingsRequest | Self::CustomMessage)
    }

    /// Position in [`Part::ALL`], for tables with one row per part.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The part with this field number in `AgentToServer`; `None` for other fields.
    #[must_use]
    pub const fn from_field_number(number: u32) -> Option<Self> {
        Some(match number {
            3 => Self::AgentDescription,
            5 => Self::Health,
            6 => Self::EffectiveConfig,
            7 => Self::RemoteConfigStatus,
            8 => Self::PackageStatuses,
            9 => Self::AgentDisconnect,
            11 => Self::ConnectionSettingsRequest,
            12 => Self::CustomCapabilities,
            13 => Self::CustomMessage,
            14 => Self::AvailableComponents,
            15 => Self::ConnectionSettingsStatus,
            _ => return None,
        })
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Part {
    type Err = PartError;

    fn from_str(text: &str) -> Result<Self, PartError> {
        Self::ALL.into_iter().find(|part| part.name() == text).ok_or(PartError)
    }
}

#[cfg(feature = "serde")]
crate::serde_impls::as_text!(Part, "the name of a part of AgentToServer");

impl PartSet {
    /// No part.
    pub const NONE: Self = Self(0);

    /// The parts that are a status; see [`Part::is_status`].
    pub const STATUS: Self = Self::NONE
        .with(Part::AgentDescription)
        .with(Part::Health)
        .with(Part::EffectiveConfig)
        .with(Part::RemoteConfigStatus)
        .with(Part::PackageStatuses)
        .with(Part::CustomCapabilities)
        .with(Part::AvailableComponents)
        .with(Part::ConnectionSettingsStatus);

    /// This set and one part more.
    #[must_use]
    pub const fn with(self, part: Part) -> Self {
        Self(self.0 | 1 << part as u16)
    }

    /// Whether the part is in the set.
    #[must_use]
    pub const fn contains(self, part: Part) -> bool {
        self.0 & 1 << part as u16 != 0
    }

    /// Adds a part; says whether it is new.
    pub const fn insert(&mut self, part: Part) -> bool {
        let new = !self.contains(part);
        self.0 |= 1 << part as u16;
        new
    }

    /// Takes a part out; says whether it was there.
    pub const fn remove(&mut self, part: Part) -> bool {
        let there = self.contains(part);
        self.0 &= !(1 << part as u16);
        there
    }

    /// Whether there is no part.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many parts there are.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The parts that are in both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The parts that are here but not in `other`.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The parts, in the order of field numbers.
    pub fn iter(self) -> impl Iterator<Item = Part> {
        Part::ALL.into_iter().filter(move |&part| self.contains(part))
    }
}

impl BitOr for PartSet {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for PartSet {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl From<Part> for PartSet {
    fn from(part: Part) -> Self {
        Self::NONE.with(part)
    }
}

impl FromIterator<Part> for PartSet {
    fn from_iter<I: IntoIterator<Item = Part>>(parts: I) -> Self {
        parts.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Debug for PartSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eight_statuses_are_told_from_the_three_events() {
        let events: Vec<_> = Part::ALL.into_iter().filter(|part| !part.is_status()).collect();
        assert_eq!(events, [Part::AgentDisconnect, Part::ConnectionSettingsRequest, Part::CustomMessage]);
        assert_eq!(
            Part::ALL.into_iter().filter(|part| part.is_status()).collect::<PartSet>(),
            PartSet::STATUS
        );
        assert_eq!(PartSet::STATUS.len(), 8);
    }

    #[test]
    fn names_numbers_and_positions_lead_back_to_the_part() {
        for (index, part) in Part::ALL.into_iter().enumerate() {
            assert_eq!(part.index(), index);
            assert_eq!(Part::from_field_number(part.field_number()), Some(part));
            assert_eq!(part.name().parse(), Ok(part));
        }
        assert_eq!("flags".parse::<Part>(), Err(PartError));
        let others = [0, 1, 2, 4, 10, 16, 17, u32::MAX];
        assert!(others.into_iter().all(|number| Part::from_field_number(number).is_none()));
    }

    #[test]
    fn a_set_holds_each_part_once() {
        let mut set = PartSet::NONE;
        assert!(set.is_empty());
        for part in Part::ALL {
            assert!(!set.contains(part));
            assert!(set.insert(part));
            assert!(!set.insert(part));
            assert!(set.contains(part));
        }
        assert_eq!(set.len(), Part::COUNT);
        assert_eq!(set.iter().collect::<Vec<_>>(), Part::ALL);
        assert!(set.remove(Part::Health));
        assert!(!set.remove(Part::Health));
        assert!(!set.contains(Part::Health));
        assert_eq!(set | Part::Health.into(), Part::ALL.into_iter().collect());
    }

    #[test]
    fn sets_combine_and_print_their_parts() {
        let a = PartSet::from(Part::Health) | Part::CustomMessage.into();
        assert_eq!(a.intersection(PartSet::STATUS), Part::Health.into());
        assert_eq!(a.difference(PartSet::STATUS), Part::CustomMessage.into());
        assert_eq!(format!("{a:?}"), "{Health, CustomMessage}");
    }
}
