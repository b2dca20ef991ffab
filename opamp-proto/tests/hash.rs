//! Hashes of configurations, settings and packages: stable, independent of the order of maps, different for different contents.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on should fail")]

mod common;

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use common::{shuffle, soup};
use opamp_proto::hash::{
    all_packages_hash, config_hash, connection_settings_hash, effective_config_hash, package_hash,
};
use opamp_proto::pb;
use proptest::prelude::*;
use prost::Message;

fn object(body: &'static [u8], content_type: &str, role: &str) -> pb::AgentConfigObject {
    pb::AgentConfigObject {
        body: Bytes::from_static(body),
        content_type: content_type.to_owned(),
        role: role.to_owned(),
    }
}

fn config<const N: usize>(objects: [(&str, pb::AgentConfigObject); N]) -> pb::AgentConfigMap {
    pb::AgentConfigMap { config_map: objects.map(|(name, object)| (name.to_owned(), object)).into() }
}

fn package() -> pb::PackageAvailable {
    pb::PackageAvailable {
        r#type: pb::PackageType::Addon.into(),
        version: "1.2.3".to_owned(),
        file: Some(pb::DownloadableFile {
            download_url: "https://example.com/p".to_owned(),
            content_hash: Bytes::from_static(&[0, 1, 2, 3]),
            signature: Bytes::from_static(&[0xaa]),
            headers: Some(pb::Headers {
                headers: vec![pb::Header { key: "Authorization".to_owned(), value: "Bearer x".to_owned() }],
            }),
        }),
        hash: Bytes::from_static(&[1]),
    }
}

/// The expected values were computed from the documented form with another implementation of SHA-256.
#[test]
fn config_hashes_are_the_same_in_every_version() {
    let cases = [
        (config([]), "edbc5fc82c0376c088e5813aa79245cde94d35a42453a396c2bd2a8c1b5d721f"),
        (
            config([("", object(b"a: 1\n", "text/yaml", ""))]),
            "f15bff91e7fe6ccfa4af687a2c896ae3c17acef962531a4f94e959a5a82fd174",
        ),
        (
            config([
                ("", object(b"a: 1\n", "text/yaml", "")),
                ("extra.yaml", object(b"\xff\0", "", "overlay")),
            ]),
            "993603a068ea306f424baba172debd56d8ac27b0193471af9f8f8fee106ecc2c",
        ),
    ];
    for (config, expected) in cases {
        assert_eq!(config_hash(&config).to_hex(), expected);
    }
}

#[test]
fn package_hashes_are_the_same_in_every_version() {
    let none = pb::PackageAvailable::default();
    let default = "362b1c6ce83463e321b6db4e0f0c9af872a2f8ba3f5ff0ee1a055933f2a450cd";
    assert_eq!(package_hash(&none).to_hex(), default);
    assert_eq!(
        package_hash(&package()).to_hex(),
        "b79590727742df7777338567a09bcec3c50b01f0fbba2e8a50e1b4b41b84748b"
    );
    assert_eq!(
        all_packages_hash(&BTreeMap::new()).to_hex(),
        "721147e98f37b886aee1b145e10104dbdec2adceff1ce65c9f22de9e600ff348"
    );
    assert_eq!(
        all_packages_hash(&[(String::new(), none), ("p".to_owned(), package())].into()).to_hex(),
        "001c383df6de8d7769f056228efc338c62e5dfce98e7640292bfec72fa962aa5"
    );
}

#[test]
fn every_field_of_an_object_counts_and_no_two_run_into_each_other() {
    let configs = [
        config([]),
        config([("", object(b"", "", ""))]),
        config([("a", object(b"", "", ""))]),
        config([("", object(b"a", "", ""))]),
        config([("", object(b"", "a", ""))]),
        config([("", object(b"", "", "a"))]),
        config([("", object(b"a", "a", ""))]),
        config([("", object(b"aa", "", ""))]),
        config([("ab", object(b"c", "", ""))]),
        config([("a", object(b"bc", "", ""))]),
        config([("a", object(b"", "", "")), ("b", object(b"", "", ""))]),
        config([("a", object(b"b", "", "")), ("b", object(b"a", "", ""))]),
        config([("a", object(b"a", "", "")), ("b", object(b"b", "", ""))]),
    ];
    let hashes: HashSet<_> = configs.iter().map(config_hash).collect();
    assert_eq!(hashes.len(), configs.len());
}

#[test]
fn a_body_is_raw_bytes() {
    let bodies: [&[u8]; 4] = [b"a\n", b"a\r\n", b"a\0\n", b"\xff\xfe"];
    let hashes: HashSet<_> =
        bodies.iter().map(|body| config_hash(&config([("", object(body, "", ""))]))).collect();
    assert_eq!(hashes.len(), bodies.len());
}

/// The expected values were computed from the documented form with another implementation of SHA-256.
#[test]
fn connection_settings_hashes_are_the_same_in_every_version() {
    let headers = pb::Headers {
        headers: vec![pb::Header { key: "Authorization".to_owned(), value: "Bearer x".to_owned() }],
    };
    let other = pb::OtherConnectionSettings {
        destination_endpoint: "host:1".to_owned(),
        other_settings: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        ..Default::default()
    };
    let settings = pb::ConnectionSettingsOffers {
        opamp: Some(pb::OpAmpConnectionSettings {
            destination_endpoint: "wss://example.com/v1/opamp".to_owned(),
            headers: Some(headers),
            certificate: Some(pb::TlsCertificate {
                cert: Bytes::from_static(b"cert"),
                private_key: Bytes::from_static(b"key"),
                ca_cert: Bytes::new(),
            }),
            heartbeat_interval_seconds: 30,
            tls: Some(pb::TlsConnectionSettings {
                ca_pem_contents: "ca".to_owned(),
                include_system_ca_certs_pool: true,
                insecure_skip_verify: false,
                min_version: "1.3".to_owned(),
                max_version: String::new(),
                cipher_suites: vec!["TLS_A".to_owned()],
            }),
            proxy: Some(pb::ProxyConnectionSettings { url: "http://p:1".to_owned(), connect_headers: None }),
        }),
        own_traces: Some(pb::TelemetryConnectionSettings {
            destination_endpoint: "https://example.com/v1/traces".to_owned(),
            ..Default::default()
        }),
        other_connections: BTreeMap::from([("db".to_owned(), other)]),
        ..Default::default()
    };
    let nothing = pb::ConnectionSettingsOffers::default();
    assert_eq!(
        connection_settings_hash(&nothing).to_hex(),
        "b5dfeb22835cd26802fce24fb8432014efcc73d002290818b3763cbf7a9e3cf0"
    );
    assert_eq!(
        connection_settings_hash(&settings).to_hex(),
        "a8b3ddd7ff204352b4e95915713ce8d03ee0c9fcd4715143adcb36afcfb3853b"
    );
}

#[test]
fn every_field_of_a_package_but_its_hash_counts() {
    let file = |change: fn(&mut pb::DownloadableFile)| {
        let mut package = package();
        change(package.file.as_mut().expect("a file"));
        package
    };
    let packages = [
        package(),
        pb::PackageAvailable { r#type: 0, ..package() },
        pb::PackageAvailable { r#type: -1, ..package() },
        pb::PackageAvailable { version: "1.2.4".to_owned(), ..package() },
        pb::PackageAvailable { file: None, ..package() },
        pb::PackageAvailable { file: Some(pb::DownloadableFile::default()), ..package() },
        file(|file| file.download_url.push('2')),
        file(|file| file.content_hash = Bytes::from_static(&[9])),
        file(|file| file.signature = Bytes::new()),
        file(|file| file.headers = None),
        file(|file| file.headers = Some(pb::Headers::default())),
        file(|file| file.headers.as_mut().expect("headers").headers[0].value.clear()),
    ];
    let hashes: HashSet<_> = packages.iter().map(package_hash).collect();
    assert_eq!(hashes.len(), packages.len());
    let other_hash = pb::PackageAvailable { hash: Bytes::from_static(&[2]), ..package() };
    assert_eq!(package_hash(&other_hash), package_hash(&package()));
}

#[test]
fn names_contents_and_own_hashes_of_all_packages_count() {
    let all = |packages: &[(&str, pb::PackageAvailable)]| {
        all_packages_hash(
            &packages.iter().map(|(name, package)| ((*name).to_owned(), package.clone())).collect(),
        )
    };
    let changed = pb::PackageAvailable { version: "2".to_owned(), ..package() };
    let rehashed = pb::PackageAvailable { hash: Bytes::from_static(&[2]), ..package() };
    let sets = [
        all(&[]),
        all(&[("p", package())]),
        all(&[("q", package())]),
        all(&[("p", changed.clone())]),
        all(&[("p", rehashed)]),
        all(&[("p", package()), ("q", changed.clone())]),
        all(&[("p", changed), ("q", package())]),
    ];
    assert_eq!(sets.iter().collect::<HashSet<_>>().len(), sets.len());
    assert!(sets.iter().all(|hash| hash.as_bytes().len() == 32));
}

#[test]
fn an_absent_map_of_an_effective_config_counts_as_empty() {
    let empty = config_hash(&pb::AgentConfigMap::default());
    assert_eq!(effective_config_hash(&[]), Ok(empty.clone()));
    assert_eq!(effective_config_hash(&[0x0a, 0x00]), Ok(empty));
    assert!(effective_config_hash(&[0x0a]).is_err());
}

#[test]
fn an_object_under_the_empty_name_hashes_alike_with_the_key_written_or_left_out() {
    let written = common::hex("0a18 0a16 0a00 1212 0a05613a20310a 1209746578742f79616d6c");
    let left_out = common::hex("0a16 0a14 1212 0a05613a20310a 1209746578742f79616d6c");
    let expected = config_hash(&config([("", object(b"a: 1\n", "text/yaml", ""))]));
    assert_eq!(effective_config_hash(&written), Ok(expected.clone()));
    assert_eq!(effective_config_hash(&left_out), Ok(expected));
}

proptest! {
    #[test]
    fn an_effective_config_hashes_like_its_map_in_any_order(encoded in soup::valid("EffectiveConfig")) {
        let effective = pb::EffectiveConfig::decode(&*encoded).expect("well-formed");
        let expected = config_hash(&effective.config_map.clone().unwrap_or_default());
        prop_assert_eq!(effective_config_hash(&encoded), Ok(expected.clone()));
        let descriptor = common::message("EffectiveConfig");
        let reversed = shuffle::reversed(&descriptor, &effective.encode_to_vec());
        prop_assert_eq!(effective_config_hash(&reversed), Ok(expected));
    }

    #[test]
    fn connection_settings_hash_alike_exactly_when_they_are_equal_but_for_their_hash(
        a in soup::valid("ConnectionSettingsOffers"),
        b in soup::mutated(soup::valid("ConnectionSettingsOffers")),
    ) {
        let decode = |bytes: &[u8]| {
            let mut settings = pb::ConnectionSettingsOffers::decode(bytes).ok()?;
            let hash = connection_settings_hash(&settings);
            settings.hash = Bytes::new();
            assert_eq!(connection_settings_hash(&settings), hash);
            Some((settings, hash))
        };
        let (a, of_a) = decode(&a).expect("well-formed");
        if let Some((b, of_b)) = decode(&b) {
            prop_assert_eq!(of_a == of_b, a == b);
        }
    }

    #[test]
    fn configs_hash_alike_exactly_when_they_are_equal(
        a in soup::valid("AgentConfigMap"),
        b in soup::mutated(soup::valid("AgentConfigMap")),
    ) {
        let a = pb::AgentConfigMap::decode(&*a).expect("well-formed");
        if let Ok(b) = pb::AgentConfigMap::decode(&*b) {
            prop_assert_eq!(config_hash(&a) == config_hash(&b), a == b);
        }
    }
}
