//! What an offer must hold, and what is filled in.

use bytes::Bytes;
use opamp_proto::pb;

use super::*;

fn certificate(self_signed: bool) -> (Bytes, Bytes, Bytes) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "ca");
    let ca = params.self_signed(&key).unwrap();
    if self_signed {
        return (ca.pem().into(), key.serialize_pem().into(), Bytes::new());
    }
    let issuer = rcgen::Issuer::new(params, key);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "leaf");
    let leaf = params.signed_by(&key, &issuer).unwrap();
    (leaf.pem().into(), key.serialize_pem().into(), ca.pem().into())
}

fn opamp(endpoint: &str) -> pb::ConnectionSettingsOffers {
    let opamp = pb::OpAmpConnectionSettings { destination_endpoint: endpoint.into(), ..Default::default() };
    pb::ConnectionSettingsOffers { opamp: Some(opamp), ..Default::default() }
}

fn with_certificate(cert: Bytes, private_key: Bytes, ca_cert: Bytes) -> pb::ConnectionSettingsOffers {
    let mut settings = opamp("wss://example.com");
    settings.opamp.as_mut().unwrap().certificate = Some(pb::TlsCertificate { cert, private_key, ca_cert });
    settings
}

fn metrics(endpoint: &str) -> pb::ConnectionSettingsOffers {
    let telemetry =
        pb::TelemetryConnectionSettings { destination_endpoint: endpoint.into(), ..Default::default() };
    pb::ConnectionSettingsOffers { own_metrics: Some(telemetry), ..Default::default() }
}

fn refused(settings: pb::ConnectionSettingsOffers) -> String {
    ConnectionSettingsOffer::new(settings).unwrap_err().to_string()
}

/// R-CONN-25.
#[test]
fn an_opamp_endpoint_is_a_websocket_or_http_url() {
    for good in ["ws://h", "wss://h:4320/v1/opamp", "http://[::1]:80/x", "HTTPS://user@h/?a=b"] {
        assert!(ConnectionSettingsOffer::new(opamp(good)).is_ok(), "{good}");
    }
    for bad in ["", "h", "ftp://h", "wss://", "wss:///path", "wss://:443", "wss://h /x", "wss://h\r\n"] {
        let why = refused(opamp(bad));
        assert!(why.starts_with("opamp.destination_endpoint: "), "{bad}: {why}");
    }
}

/// R-CONN-32, R-CONN-33.
#[test]
fn a_telemetry_endpoint_is_an_https_url_with_its_path_unless_http_is_allowed_explicitly() {
    assert!(ConnectionSettingsOffer::new(metrics("https://h:4318/v1/metrics")).is_ok());
    for bad in ["", "https://h", "https://h/", "http://h/v1/metrics", "wss://h/v1/metrics"] {
        assert!(refused(metrics(bad)).starts_with("own_metrics.destination_endpoint: "), "{bad}");
    }
    let rules = OfferRules { insecure_telemetry: true, ..OfferRules::default() };
    assert!(ConnectionSettingsOffer::with_rules(metrics("http://h/v1/metrics"), rules).is_ok());
    assert!(ConnectionSettingsOffer::with_rules(metrics("http://h"), rules).is_err());
}

/// R-HB-12, A-02.
#[test]
fn the_heartbeat_interval_is_filled_in_unless_heartbeats_are_switched_off() {
    let interval =
        |offer: &ConnectionSettingsOffer| offer.settings().opamp.as_ref().unwrap().heartbeat_interval_seconds;
    assert_eq!(interval(&ConnectionSettingsOffer::new(opamp("wss://h")).unwrap()), 30);
    let mut own = opamp("wss://h");
    own.opamp.as_mut().unwrap().heartbeat_interval_seconds = 7;
    assert_eq!(interval(&ConnectionSettingsOffer::new(own).unwrap()), 7);
    let rules = OfferRules { heartbeats_off: true, ..OfferRules::default() };
    let off = ConnectionSettingsOffer::with_rules(opamp("wss://h"), rules).unwrap();
    assert_eq!(interval(&off), 0);
    assert!(!off.parts().contains(SettingsParts::HEARTBEAT_INTERVAL));
}

/// R-TLS-16, R-TLS-17, R-TLS-18, R-CSR-10.
#[test]
fn a_certificate_comes_with_its_key_and_its_ca_and_an_issued_one_without_the_key() {
    let (cert, key, ca) = certificate(false);
    let none = Bytes::new;
    let new = |cert: &Bytes, key: Bytes, ca: Bytes| with_certificate(cert.clone(), key, ca);
    assert!(ConnectionSettingsOffer::new(new(&cert, key.clone(), ca.clone())).is_ok());
    assert!(refused(new(&none(), key.clone(), ca.clone())).starts_with("opamp.certificate.cert: "));
    assert!(refused(new(&key, key.clone(), ca.clone())).contains("CERTIFICATE"));
    assert!(refused(new(&cert, none(), ca.clone())).starts_with("opamp.certificate.private_key: "));
    assert!(refused(new(&cert, cert.clone(), ca.clone())).contains("PRIVATE KEY"));
    assert!(refused(new(&cert, key.clone(), none())).starts_with("opamp.certificate.ca_cert: "));
    let (own, own_key, _) = certificate(true);
    assert!(ConnectionSettingsOffer::new(new(&own, own_key.clone(), none())).is_ok());
    assert!(refused(new(&own, own_key, ca.clone())).contains("self-signed"));
    let rules = OfferRules { issued_certificate: true, ..OfferRules::default() };
    assert!(ConnectionSettingsOffer::with_rules(new(&cert, none(), ca.clone()), rules).is_ok());
    let kept = ConnectionSettingsOffer::with_rules(new(&cert, key, ca), rules).unwrap_err();
    assert!(kept.to_string().starts_with("opamp.certificate.private_key: "));
    let nonsense = Bytes::from_static(b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n");
    assert!(refused(new(&nonsense, none(), none())).contains("X.509"));
}

/// R-TLS-12, R-TLS-14.
#[test]
fn a_proxy_has_an_address_and_headers_are_what_http_can_carry() {
    let mut settings = opamp("wss://h");
    settings.opamp.as_mut().unwrap().proxy = Some(pb::ProxyConnectionSettings::default());
    assert!(refused(settings).starts_with("opamp.proxy.url: "));
    let header = |key: &str, value: &str| pb::Header { key: key.into(), value: value.into() };
    let with = |headers: Vec<pb::Header>| {
        let mut settings = metrics("https://h/x");
        settings.own_metrics.as_mut().unwrap().headers = Some(pb::Headers { headers });
        settings
    };
    let twice = vec![header("x-a", "1"), header("x-b", "2"), header("x-a", "3")];
    let offer = ConnectionSettingsOffer::new(with(twice.clone())).unwrap();
    let kept = offer.settings().own_metrics.as_ref().unwrap().headers.as_ref().unwrap();
    assert_eq!(kept.headers, twice, "order and repetition");
    for (key, value) in [("", "x"), ("a b", "x"), ("a", "x\r\nb: hunter2"), ("a:", "x")] {
        let why = refused(with(vec![header(key, value)]));
        assert!(why.starts_with("own_metrics.headers: ") && !why.contains("hunter2"), "{why}");
    }
}

/// R-CONN-16.
#[test]
fn the_hash_covers_every_part_and_is_the_same_for_the_same_settings() {
    let base = ConnectionSettingsOffer::new(opamp("wss://h")).unwrap();
    assert_eq!(base.hash(), ConnectionSettingsOffer::new(opamp("wss://h")).unwrap().hash());
    let mut more = opamp("wss://h");
    more.own_logs = metrics("https://h/x").own_metrics;
    assert_ne!(base.hash(), ConnectionSettingsOffer::new(more).unwrap().hash());
    let mut named = opamp("wss://h");
    named.hash = Bytes::from_static(b"made up");
    assert_eq!(
        ConnectionSettingsOffer::new(named).unwrap().hash(),
        base.hash(),
        "only the server calculates it"
    );
    let restored = ConnectionSettingsOffer::restored(base.settings().clone());
    assert_eq!((restored.hash(), restored.settings()), (base.hash(), base.settings()));
    assert!(refused(pb::ConnectionSettingsOffers::default()).contains("no settings"));
}

#[test]
fn what_is_encoded_part_by_part_is_what_prost_reads() {
    use prost::Message as _;
    let mut settings = opamp("wss://h");
    settings.own_metrics = metrics("https://h/m").own_metrics;
    settings.own_traces = metrics("https://h/t").own_metrics;
    settings.own_logs = metrics("https://h/l").own_metrics;
    settings.other_connections =
        [("db".to_owned(), Default::default()), (String::new(), Default::default())].into();
    let offer = ConnectionSettingsOffer::new(settings).unwrap();
    let mut out = Vec::new();
    offer.encode(offer.parts(), &mut out);
    assert!(out.len() <= offer.encoded_len_max(offer.parts()));
    assert_eq!(pb::ConnectionSettingsOffers::decode(&out[..]).unwrap(), *offer.settings());
    out.clear();
    offer.encode(SettingsParts::OPAMP | SettingsParts::OWN_LOGS, &mut out);
    let some = pb::ConnectionSettingsOffers::decode(&out[..]).unwrap();
    assert_eq!(some.opamp.unwrap().heartbeat_interval_seconds, 0, "not among the parts");
    assert!(some.own_logs.is_some() && some.own_metrics.is_none() && some.other_connections.is_empty());
    assert_eq!(some.hash, offer.settings().hash);
}

fn package() -> pb::PackageAvailable {
    let file = pb::DownloadableFile {
        download_url: "https://example.com/file".into(),
        content_hash: vec![1; 32].into(),
        ..Default::default()
    };
    pb::PackageAvailable { version: "1".into(), file: Some(file), ..Default::default() }
}

fn available(package: pb::PackageAvailable) -> Result<PackagesOffer, InvalidOffer> {
    let packages = [("agent".to_owned(), package)].into();
    PackagesOffer::new(pb::PackagesAvailable { packages, ..Default::default() })
}

/// R-PKG-39, R-PKG-40, R-PKG-46, R-PKG-51.
#[test]
fn hashes_of_packages_are_filled_in_and_change_with_what_they_cover() {
    let base = available(package()).unwrap();
    let of = |offer: &PackagesOffer| {
        let one = offer.packages().packages["agent"].hash.clone();
        assert!(!one.is_empty() && !offer.hash().is_empty());
        (one, offer.hash().clone())
    };
    assert_eq!(of(&base), of(&available(package()).unwrap()), "the same over time");
    let changes: [fn(&mut pb::PackageAvailable); 3] = [
        |package| package.r#type = 1,
        |package| package.version = "2".into(),
        |package| package.file.as_mut().unwrap().content_hash = vec![2; 32].into(),
    ];
    for change in changes {
        let mut changed = package();
        change(&mut changed);
        let changed = of(&available(changed).unwrap());
        assert!(changed.0 != of(&base).0 && changed.1 != of(&base).1);
    }
    let mut named = package();
    named.hash = Bytes::from_static(b"mine");
    assert_eq!(available(named).unwrap().packages().packages["agent"].hash, "mine");
    let nothing = PackagesOffer::new(pb::PackagesAvailable::default()).unwrap();
    assert!(!nothing.hash().is_empty());
}

/// R-PKG-04, R-PKG-49.
#[test]
fn a_package_has_a_file_with_an_address_and_the_hash_of_its_content() {
    type Break = fn(&mut pb::PackageAvailable);
    let broken: [(Break, &str); 4] = [
        (|package| package.file = None, "file: "),
        (|package| package.file.as_mut().unwrap().download_url = "ftp://h/x".into(), "file.download_url: "),
        (|package| package.file.as_mut().unwrap().content_hash = vec![1; 16].into(), "file.content_hash: "),
        (
            |package| {
                let header = pb::Header { key: "a b".into(), value: "hunter2".into() };
                package.file.as_mut().unwrap().headers = Some(pb::Headers { headers: vec![header] });
            },
            "file.headers: ",
        ),
    ];
    for (breaks, field) in broken {
        let mut package = package();
        breaks(&mut package);
        let why = available(package).unwrap_err().to_string();
        assert!(why.contains(field) && !why.contains("hunter2"), "{why}");
    }
}
