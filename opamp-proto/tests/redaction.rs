//! `Debug` of a message shows no content of files, no secret and no custom data.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use bytes::Bytes;
use opamp_proto::{AgentMessage, Limits, pb};
use prost::Message;

const SECRET: &str = "hunter2";

fn secret_bytes() -> Bytes {
    Bytes::from_static(SECRET.as_bytes())
}

fn headers() -> pb::Headers {
    pb::Headers {
        headers: vec![pb::Header { key: "Authorization".to_owned(), value: format!("Bearer {SECRET}") }],
    }
}

fn certificate() -> pb::TlsCertificate {
    pb::TlsCertificate { cert: secret_bytes(), private_key: secret_bytes(), ca_cert: secret_bytes() }
}

fn proxy() -> pb::ProxyConnectionSettings {
    pb::ProxyConnectionSettings {
        url: format!("http://user:{SECRET}@proxy.example:3128"),
        connect_headers: Some(headers()),
    }
}

fn endpoint() -> String {
    format!("wss://user:{SECRET}@opamp.example:4320/v1/opamp?token={SECRET}")
}

fn config() -> pb::AgentConfigMap {
    let object = pb::AgentConfigObject {
        body: secret_bytes(),
        content_type: "text/yaml".to_owned(),
        role: "main".to_owned(),
    };
    pb::AgentConfigMap { config_map: [("collector.yaml".to_owned(), object)].into() }
}

/// Both forms of `Debug`, checked for what must be absent and for what must be left.
fn check(message: &impl std::fmt::Debug, shown: &[&str]) {
    for text in [format!("{message:?}"), format!("{message:#?}")] {
        assert!(!text.contains(SECRET), "{text}");
        // Nor as a list of numbers.
        assert!(!text.replace(char::is_whitespace, "").contains("104,117,110,116"), "{text}");
        for shown in shown {
            assert!(text.contains(shown), "{shown} in {text}");
        }
    }
}

#[test]
fn agent_messages_hide_bodies_custom_data_and_certificate_requests() {
    let message = pb::AgentToServer {
        effective_config: Some(pb::EffectiveConfig { config_map: Some(config()) }),
        custom_message: Some(pb::CustomMessage {
            capability: "com.example.query".to_owned(),
            r#type: "ask".to_owned(),
            data: secret_bytes(),
        }),
        connection_settings_request: Some(pb::ConnectionSettingsRequest {
            opamp: Some(pb::OpAmpConnectionSettingsRequest {
                certificate_request: Some(pb::CertificateRequest { csr: secret_bytes() }),
            }),
        }),
        ..Default::default()
    };
    check(&message, &["collector.yaml", "text/yaml", "main", "<7 bytes>", "com.example.query", "ask"]);
    let encoded = message.encode_to_vec();
    let lazy = AgentMessage::decode(&encoded, &Limits::default()).expect("acceptable");
    check(&lazy, &["Length", "EffectiveConfig", "CustomMessage", "ConnectionSettingsRequest"]);
}

#[test]
fn offers_hide_bodies_headers_keys_signatures_settings_and_credentials_in_addresses() {
    let telemetry = pb::TelemetryConnectionSettings {
        destination_endpoint: endpoint(),
        headers: Some(headers()),
        certificate: Some(certificate()),
        tls: None,
        proxy: Some(proxy()),
    };
    let other = pb::OtherConnectionSettings {
        destination_endpoint: endpoint(),
        headers: Some(headers()),
        certificate: Some(certificate()),
        other_settings: [("password".to_owned(), SECRET.to_owned())].into(),
        tls: None,
        proxy: Some(proxy()),
    };
    let message = pb::ServerToAgent {
        remote_config: Some(pb::AgentRemoteConfig { config: Some(config()), config_hash: Bytes::new() }),
        connection_settings: Some(pb::ConnectionSettingsOffers {
            opamp: Some(pb::OpAmpConnectionSettings {
                destination_endpoint: endpoint(),
                headers: Some(headers()),
                certificate: Some(certificate()),
                heartbeat_interval_seconds: 30,
                tls: Some(pb::TlsConnectionSettings { min_version: "1.3".to_owned(), ..Default::default() }),
                proxy: Some(proxy()),
            }),
            own_metrics: Some(telemetry),
            other_connections: [("store".to_owned(), other)].into(),
            ..Default::default()
        }),
        packages_available: Some(pb::PackagesAvailable {
            packages: [(
                "p".to_owned(),
                pb::PackageAvailable {
                    file: Some(pb::DownloadableFile {
                        download_url: format!("https://files.example/p?sig={SECRET}"),
                        signature: secret_bytes(),
                        headers: Some(headers()),
                        ..Default::default()
                    }),
                    ..Default::default()
                },
            )]
            .into(),
            ..Default::default()
        }),
        custom_message: Some(pb::CustomMessage { data: secret_bytes(), ..Default::default() }),
        ..Default::default()
    };
    let shown = [
        "Authorization",
        "<14 bytes>",
        "wss://…@opamp.example:4320/v1/opamp?…",
        "http://…@proxy.example:3128",
        "https://files.example/p?…",
        "password",
        "store",
        "1.3",
        "heartbeat_interval_seconds: 30",
    ];
    check(&message, &shown);
}

#[test]
fn addresses_of_any_form_hide_user_information_and_query() {
    let shown = |url: &str| {
        let text = format!("{:?}", pb::ProxyConnectionSettings { url: url.to_owned(), ..Default::default() });
        text.split('"').nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(shown("proxy.example:3128"), "proxy.example:3128");
    assert_eq!(shown("user:pass@proxy.example:3128"), "…@proxy.example:3128");
    assert_eq!(shown("http://proxy.example/"), "http://proxy.example/");
    assert_eq!(shown("http://u:p@ss?w#rd@proxy.example/#x"), "http://…@proxy.example/?…");
    assert_eq!(shown("u:p://w@host"), "…@host");
    assert_eq!(shown(""), "");
}
