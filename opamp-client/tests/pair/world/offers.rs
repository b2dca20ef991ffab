//! What the servers want of the agent, by number: the same number is the same offer.

use opamp_client::{ConfigHash, Transport};
use opamp_proto::pb;
use opamp_server::{ConnectionSettingsOffer, PackagesOffer, RemoteConfigOffer};

use super::places::{Behind, Place};

/// A configuration; every fifth is broken.
pub(crate) fn config(number: u8) -> RemoteConfigOffer {
    let object = pb::AgentConfigObject { body: vec![number].into(), ..Default::default() };
    let config = pb::AgentConfigMap { config_map: [(String::new(), object)].into() };
    RemoteConfigOffer::new(config_hash(number), &config)
}

pub(crate) fn config_hash(number: u8) -> ConfigHash {
    ConfigHash::new(vec![number, 0xcf])
}

pub(crate) fn is_broken(number: u8) -> bool {
    number % 5 == 4
}

/// Settings of connections: where the server is, with headers of its own each; some without, for own telemetry alone.
pub(crate) fn settings(number: u8) -> ConnectionSettingsOffer {
    let header = pb::Header { key: "x-number".to_owned(), value: number.to_string() };
    let headers = Some(pb::Headers { headers: vec![header] });
    let opamp = settings_place(number).map(|url| pb::OpAmpConnectionSettings {
        destination_endpoint: url,
        headers: headers.clone(),
        heartbeat_interval_seconds: 30,
        ..Default::default()
    });
    let metrics = pb::TelemetryConnectionSettings {
        destination_endpoint: format!("https://metrics.example/{}", number / 4),
        headers,
        ..Default::default()
    };
    let other = pb::OtherConnectionSettings {
        destination_endpoint: format!("other.example:{number}"),
        ..Default::default()
    };
    let offers = pb::ConnectionSettingsOffers {
        opamp,
        own_metrics: Some(metrics),
        other_connections: [("other".to_owned(), other)].into(),
        ..Default::default()
    };
    ConnectionSettingsOffer::new(offers).expect("an offer")
}

/// Where the settings of this number lead, if they lead anywhere.
pub(crate) fn settings_place(number: u8) -> Option<String> {
    let (transport, host) = match number % 10 {
        0 | 1 => (Transport::WebSocket, "one.example"),
        2 | 3 => (Transport::Http, "one.example"),
        4 => (Transport::WebSocket, "two.example"),
        5 => (Transport::Http, "two.example"),
        6 => (Transport::WebSocket, "gone.example"),
        7 => (Transport::WebSocket, "mute.example"),
        8 => (Transport::Http, "unfit.example"),
        _ => return None,
    };
    Some(Place::url(transport, host))
}

/// Whether an agent that nothing disturbs can use the settings of this number.
pub(crate) fn settings_work(number: u8) -> bool {
    settings_place(number).is_none_or(|url| Place::at(&url).behind == Behind::Good)
}

/// One to three packages; those whose version is a multiple of five and four more cannot be installed.
pub(crate) fn packages(number: u8) -> PackagesOffer {
    let package = |version: u8| {
        let file = pb::DownloadableFile {
            download_url: format!("https://one.example/packages/{version}"),
            content_hash: vec![version; 32].into(),
            ..Default::default()
        };
        pb::PackageAvailable {
            r#type: pb::PackageType::Addon.into(),
            version: version.to_string(),
            file: Some(file),
            ..Default::default()
        }
    };
    let packages = (0..=number % 3)
        .map(|place| (format!("package {place}"), package(number.wrapping_add(place))))
        .collect();
    PackagesOffer::new(pb::PackagesAvailable { packages, ..Default::default() }).expect("an offer")
}

/// Whether one of the packages of this number cannot be installed.
pub(crate) fn packages_fail(number: u8) -> bool {
    is_rejected(number) || (0..=number % 3).any(|place| is_broken(number.wrapping_add(place)))
}

/// Whether the agent wants nothing of the packages of this number.
pub(crate) fn is_rejected(number: u8) -> bool {
    number % 11 == 10
}
