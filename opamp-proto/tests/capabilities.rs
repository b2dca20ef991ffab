//! Every bit of every bit set has the value and the name of the specification, and of the compiled schema.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on should fail")]

mod common;

use opamp_proto::{AgentCapabilities, AgentToServerFlags, ServerCapabilities, ServerToAgentFlags, pb};
use proptest::prelude::*;

macro_rules! one_test_per_bit {
    ($module:ident: $set:ident, $count:literal, $all:literal, { $($test:ident: $bit:ident = $value:literal $name:literal $generated:ident,)+ }) => {
        mod $module {
            use super::*;

            $(
                #[test]
                fn $test() {
                    assert_eq!($set::$bit.bits(), $value);
                    assert_eq!($set::$bit.names().collect::<Vec<_>>(), [$name]);
                    assert_eq!($set::$bit.iter().collect::<Vec<_>>(), [$set::$bit]);
                    assert_eq!($set::$bit.unknown(), 0);
                    assert_eq!($set::from_name($name), Some($set::$bit));
                    let generated = pb::$set::$generated;
                    assert_eq!(generated as u64, $value);
                    assert_eq!(generated.as_str_name(), concat!(stringify!($set), "_", $name));
                }
            )+

            #[test]
            fn the_tested_bits_are_all_there_are() {
                let tested = [$(($set::$bit, $name)),+];
                assert_eq!($set::ALL, tested);
                let combined = $set::ALL.iter().fold($set::NONE, |all, &(bit, _)| all | bit);
                assert_eq!(combined.bits(), $all);
                assert_eq!($set::from_bits(u64::MAX).known(), combined);
                let descriptor = common::SCHEMA
                    .get_enum_by_name(concat!("opamp.proto.v1.", stringify!($set)))
                    .expect("the enum is declared");
                // One value more: "unspecified", 0.
                assert_eq!(descriptor.values().count(), tested.len() + 1);
                assert_eq!(tested.len(), $count);
            }
        }
    };
}

one_test_per_bit!(agent: AgentCapabilities, 16, 0xFFFF, {
    reports_status: REPORTS_STATUS = 0x1 "ReportsStatus" ReportsStatus,
    accepts_remote_config: ACCEPTS_REMOTE_CONFIG = 0x2 "AcceptsRemoteConfig" AcceptsRemoteConfig,
    reports_effective_config: REPORTS_EFFECTIVE_CONFIG = 0x4 "ReportsEffectiveConfig" ReportsEffectiveConfig,
    accepts_packages: ACCEPTS_PACKAGES = 0x8 "AcceptsPackages" AcceptsPackages,
    reports_package_statuses: REPORTS_PACKAGE_STATUSES = 0x10 "ReportsPackageStatuses" ReportsPackageStatuses,
    reports_own_traces: REPORTS_OWN_TRACES = 0x20 "ReportsOwnTraces" ReportsOwnTraces,
    reports_own_metrics: REPORTS_OWN_METRICS = 0x40 "ReportsOwnMetrics" ReportsOwnMetrics,
    reports_own_logs: REPORTS_OWN_LOGS = 0x80 "ReportsOwnLogs" ReportsOwnLogs,
    accepts_opamp_connection_settings:
        ACCEPTS_OPAMP_CONNECTION_SETTINGS = 0x100 "AcceptsOpAMPConnectionSettings" AcceptsOpAmpConnectionSettings,
    accepts_other_connection_settings:
        ACCEPTS_OTHER_CONNECTION_SETTINGS = 0x200 "AcceptsOtherConnectionSettings" AcceptsOtherConnectionSettings,
    accepts_restart_command: ACCEPTS_RESTART_COMMAND = 0x400 "AcceptsRestartCommand" AcceptsRestartCommand,
    reports_health: REPORTS_HEALTH = 0x800 "ReportsHealth" ReportsHealth,
    reports_remote_config: REPORTS_REMOTE_CONFIG = 0x1000 "ReportsRemoteConfig" ReportsRemoteConfig,
    reports_heartbeat: REPORTS_HEARTBEAT = 0x2000 "ReportsHeartbeat" ReportsHeartbeat,
    reports_available_components:
        REPORTS_AVAILABLE_COMPONENTS = 0x4000 "ReportsAvailableComponents" ReportsAvailableComponents,
    reports_connection_settings_status:
        REPORTS_CONNECTION_SETTINGS_STATUS = 0x8000 "ReportsConnectionSettingsStatus" ReportsConnectionSettingsStatus,
});

one_test_per_bit!(server: ServerCapabilities, 7, 0x7F, {
    accepts_status: ACCEPTS_STATUS = 0x1 "AcceptsStatus" AcceptsStatus,
    offers_remote_config: OFFERS_REMOTE_CONFIG = 0x2 "OffersRemoteConfig" OffersRemoteConfig,
    accepts_effective_config: ACCEPTS_EFFECTIVE_CONFIG = 0x4 "AcceptsEffectiveConfig" AcceptsEffectiveConfig,
    offers_packages: OFFERS_PACKAGES = 0x8 "OffersPackages" OffersPackages,
    accepts_packages_status: ACCEPTS_PACKAGES_STATUS = 0x10 "AcceptsPackagesStatus" AcceptsPackagesStatus,
    offers_connection_settings: OFFERS_CONNECTION_SETTINGS = 0x20 "OffersConnectionSettings" OffersConnectionSettings,
    accepts_connection_settings_request:
        ACCEPTS_CONNECTION_SETTINGS_REQUEST = 0x40 "AcceptsConnectionSettingsRequest" AcceptsConnectionSettingsRequest,
});

one_test_per_bit!(agent_flags: AgentToServerFlags, 1, 0x1, {
    request_instance_uid: REQUEST_INSTANCE_UID = 0x1 "RequestInstanceUid" RequestInstanceUid,
});

one_test_per_bit!(server_flags: ServerToAgentFlags, 2, 0x3, {
    report_full_state: REPORT_FULL_STATE = 0x1 "ReportFullState" ReportFullState,
    report_available_components:
        REPORT_AVAILABLE_COMPONENTS = 0x2 "ReportAvailableComponents" ReportAvailableComponents,
});

proptest! {
    #[test]
    fn undefined_bits_are_kept_and_change_nothing_else(bits: u64) {
        let set = AgentCapabilities::from_bits(bits);
        prop_assert_eq!(set.bits(), bits);
        prop_assert_eq!(set.known().bits() | set.unknown(), bits);
        prop_assert_eq!(set.names().count(), (bits & 0xFFFF).count_ones() as usize);
    }
}
