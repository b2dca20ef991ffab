//! Bit sets of the protocol: capabilities and flags.
//!
//! One list defines for each set the constants, their names and the known bits. A set keeps bits that it does not know,
//! because a peer of a later version may set them and that is no error (spec section "Capabilities").

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

macro_rules! bit_set {
    (
        $(#[$doc:meta])*
        $name:ident { $($(#[$bit_doc:meta])* $bit:ident = $value:literal $text:literal,)+ }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
        pub struct $name(u64);

        impl $name {
            /// No bit. On the wire this is the same as a field that is not set.
            pub const NONE: Self = Self(0);
            $($(#[$bit_doc])* pub const $bit: Self = Self($value);)+

            /// Every defined bit with its name, lowest first.
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$bit, $text),)+];

            const KNOWN: u64 = 0 $(| $value)+;

            /// The set with exactly these bits; unknown ones are kept.
            #[must_use]
            pub const fn from_bits(bits: u64) -> Self {
                Self(bits)
            }

            /// All bits, known or not, as they stand on the wire.
            #[must_use]
            pub const fn bits(self) -> u64 {
                self.0
            }

            /// Whether no bit is set.
            #[must_use]
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// Whether every bit of `other` is set here too.
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// The bits of both sets; `|` in constant expressions.
            #[must_use]
            pub const fn union(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// Sets every bit of `other`.
            pub const fn insert(&mut self, other: Self) {
                self.0 |= other.0;
            }

            /// Clears every bit of `other`.
            pub const fn remove(&mut self, other: Self) {
                self.0 &= !other.0;
            }

            /// Only the bits that this version of the protocol defines.
            #[must_use]
            pub const fn known(self) -> Self {
                Self(self.0 & Self::KNOWN)
            }

            /// The bits that this version of the protocol does not define.
            #[must_use]
            pub const fn unknown(self) -> u64 {
                self.0 & !Self::KNOWN
            }

            /// The known bits that are set, each as a set of its own, lowest first.
            pub fn iter(self) -> impl Iterator<Item = Self> {
                Self::ALL.iter().map(|&(bit, _)| bit).filter(move |&bit| self.contains(bit))
            }

            /// The names of the known bits that are set, lowest first, as the schema spells them without the prefix.
            pub fn names(self) -> impl Iterator<Item = &'static str> {
                Self::ALL.iter().filter(move |&&(bit, _)| self.contains(bit)).map(|&(_, name)| name)
            }

            /// The single bit of this name; `None` if there is none. Case matters.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().find(|&&(_, text)| text == name).map(|&(bit, _)| bit)
            }
        }

        impl BitOr for $name {
            type Output = Self;

            fn bitor(self, other: Self) -> Self {
                self.union(other)
            }
        }

        impl BitOrAssign for $name {
            fn bitor_assign(&mut self, other: Self) {
                self.insert(other);
            }
        }

        /// The names, separated by `|`; unknown bits follow as one hexadecimal number.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_names(self.names(), self.unknown(), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        #[cfg(feature = "serde")]
        crate::serde_impls::as_u64!($name, $name::from_bits, |set: &$name| set.bits());
    };
}

bit_set! {
    /// What an agent can do and wants: `AgentToServer.capabilities` (spec section "AgentToServer.capabilities").
    ///
    /// Serialised as the number on the wire, so that unknown bits survive.
    AgentCapabilities {
        /// Reports status; always set.
        REPORTS_STATUS = 0x0000_0001 "ReportsStatus",
        /// Takes `remote_config`.
        ACCEPTS_REMOTE_CONFIG = 0x0000_0002 "AcceptsRemoteConfig",
        /// Sends `effective_config`.
        REPORTS_EFFECTIVE_CONFIG = 0x0000_0004 "ReportsEffectiveConfig",
        /// Takes `packages_available`. Status: beta.
        ACCEPTS_PACKAGES = 0x0000_0008 "AcceptsPackages",
        /// Sends `package_statuses`. Status: beta.
        REPORTS_PACKAGE_STATUSES = 0x0000_0010 "ReportsPackageStatuses",
        /// Takes `own_traces`. Status: beta.
        REPORTS_OWN_TRACES = 0x0000_0020 "ReportsOwnTraces",
        /// Takes `own_metrics`. Status: beta.
        REPORTS_OWN_METRICS = 0x0000_0040 "ReportsOwnMetrics",
        /// Takes `own_logs`. Status: beta.
        REPORTS_OWN_LOGS = 0x0000_0080 "ReportsOwnLogs",
        /// Takes `ConnectionSettingsOffers.opamp`. Status: beta.
        ACCEPTS_OPAMP_CONNECTION_SETTINGS = 0x0000_0100 "AcceptsOpAMPConnectionSettings",
        /// Takes `other_connections`. Status: beta.
        ACCEPTS_OTHER_CONNECTION_SETTINGS = 0x0000_0200 "AcceptsOtherConnectionSettings",
        /// Takes the Restart command. Status: beta.
        ACCEPTS_RESTART_COMMAND = 0x0000_0400 "AcceptsRestartCommand",
        /// Sends `health`.
        REPORTS_HEALTH = 0x0000_0800 "ReportsHealth",
        /// Sends `remote_config_status`.
        REPORTS_REMOTE_CONFIG = 0x0000_1000 "ReportsRemoteConfig",
        /// Sends heartbeats. Status: development.
        REPORTS_HEARTBEAT = 0x0000_2000 "ReportsHeartbeat",
        /// Sends `available_components`. Status: development.
        REPORTS_AVAILABLE_COMPONENTS = 0x0000_4000 "ReportsAvailableComponents",
        /// Sends `connection_settings_status`. Status: development.
        REPORTS_CONNECTION_SETTINGS_STATUS = 0x0000_8000 "ReportsConnectionSettingsStatus",
    }
}

bit_set! {
    /// What a server can do: `ServerToAgent.capabilities` (spec section "ServerToAgent.capabilities").
    ///
    /// Serialised as the number on the wire, so that unknown bits survive.
    ServerCapabilities {
        /// Takes status reports; always set.
        ACCEPTS_STATUS = 0x0000_0001 "AcceptsStatus",
        /// May offer configuration.
        OFFERS_REMOTE_CONFIG = 0x0000_0002 "OffersRemoteConfig",
        /// Takes `effective_config`.
        ACCEPTS_EFFECTIVE_CONFIG = 0x0000_0004 "AcceptsEffectiveConfig",
        /// May offer packages. Status: beta.
        OFFERS_PACKAGES = 0x0000_0008 "OffersPackages",
        /// Takes `package_statuses`. Status: beta.
        ACCEPTS_PACKAGES_STATUS = 0x0000_0010 "AcceptsPackagesStatus",
        /// May offer connection settings. Status: beta.
        OFFERS_CONNECTION_SETTINGS = 0x0000_0020 "OffersConnectionSettings",
        /// Takes `connection_settings_request` and answers with an offer. Status: development.
        ACCEPTS_CONNECTION_SETTINGS_REQUEST = 0x0000_0040 "AcceptsConnectionSettingsRequest",
    }
}

bit_set! {
    /// Wishes of an agent: `AgentToServer.flags` (spec section "AgentToServer.flags").
    AgentToServerFlags {
        /// Asks the server for a fresh `instance_uid`.
        REQUEST_INSTANCE_UID = 0x0000_0001 "RequestInstanceUid",
    }
}

bit_set! {
    /// Wishes of a server: `ServerToAgent.flags` (spec section "ServerToAgent.flags").
    ServerToAgentFlags {
        /// Asks for one complete status report.
        REPORT_FULL_STATE = 0x0000_0001 "ReportFullState",
        /// Asks for the complete component map. Status: development.
        REPORT_AVAILABLE_COMPONENTS = 0x0000_0002 "ReportAvailableComponents",
    }
}

fn write_names(
    names: impl Iterator<Item = &'static str>,
    unknown: u64,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let mut separator = "";
    for name in names {
        write!(f, "{separator}{name}")?;
        separator = "|";
    }
    if unknown != 0 {
        write!(f, "{separator}{unknown:#x}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn unknown_bits_are_kept_and_told_apart() {
        let set = AgentCapabilities::from_bits(0x1_0003);
        assert_eq!(set.bits(), 0x1_0003);
        assert_eq!(set.unknown(), 0x1_0000);
        assert_eq!(set.known().bits(), 0x3);
        assert_eq!(set.names().collect::<Vec<_>>(), ["ReportsStatus", "AcceptsRemoteConfig"]);
        assert_eq!(set.to_string(), "ReportsStatus|AcceptsRemoteConfig|0x10000");
        assert_eq!(format!("{set:?}"), "AgentCapabilities(ReportsStatus|AcceptsRemoteConfig|0x10000)");
        assert_eq!(AgentCapabilities::NONE.to_string(), "");
    }

    #[test]
    fn bits_are_inserted_removed_and_combined() {
        let mut set = ServerCapabilities::ACCEPTS_STATUS | ServerCapabilities::OFFERS_PACKAGES;
        assert!(set.contains(ServerCapabilities::OFFERS_PACKAGES));
        assert!(
            !set.contains(ServerCapabilities::OFFERS_PACKAGES | ServerCapabilities::OFFERS_REMOTE_CONFIG)
        );
        set.remove(ServerCapabilities::OFFERS_PACKAGES);
        assert_eq!(set, ServerCapabilities::ACCEPTS_STATUS);
        set |= ServerCapabilities::OFFERS_REMOTE_CONFIG;
        set.insert(ServerCapabilities::from_bits(1 << 63));
        assert_eq!(set.bits(), 0x8000_0000_0000_0003);
        assert!(!set.is_empty());
        assert!(ServerToAgentFlags::default().is_empty());
    }

    #[test]
    fn names_are_case_sensitive() {
        assert_eq!(AgentCapabilities::from_name("ReportsHealth"), Some(AgentCapabilities::REPORTS_HEALTH));
        assert_eq!(AgentCapabilities::from_name("reportshealth"), None);
        assert_eq!(AgentCapabilities::from_name(""), None);
    }

    proptest! {
        #[test]
        fn known_bits_unknown_bits_and_iteration_rebuild_the_set(bits: u64) {
            let set = AgentCapabilities::from_bits(bits);
            let rebuilt = set.iter().fold(AgentCapabilities::from_bits(set.unknown()), BitOr::bitor);
            prop_assert_eq!(rebuilt, set);
            let named = set.names().filter_map(AgentCapabilities::from_name);
            prop_assert_eq!(named.fold(AgentCapabilities::NONE, BitOr::bitor), set.known());
        }
    }
}
