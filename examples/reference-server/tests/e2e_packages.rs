//! A package goes the whole way: uploaded with its signature, assigned, downloaded from the OpAMP port by a real agent,
//! verified, installed and reported.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::{fs, time::Duration};

use data_encoding::{BASE64, HEXLOWER};
use opamp_client::{
    Client, ClientSettings, Description,
    packages::{DownloadSettings, Installer, InstallerSettings, PackageKey, SignaturePolicy, statement},
};
use rcgen::{KeyPair, PKCS_ED25519, SigningKey as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use support::{TempDir, TestServer};

/// Signs where the server is not.
struct Publisher {
    key: KeyPair,
}

impl Publisher {
    fn new() -> Self {
        Publisher { key: KeyPair::generate_for(&PKCS_ED25519).unwrap() }
    }

    /// Uploads a version; with `of` another version's signature.
    async fn publish(&self, server: &TestServer, version: &str, of: &str, content: &[u8]) {
        let sha256: [u8; 32] = Sha256::digest(content).into();
        let signature = self.key.sign(&statement("collector", of, &sha256)).unwrap();
        let path = format!(
            "/api/v1/packages?name=collector&version={version}&type=top_level&sha256={}&signature={}",
            HEXLOWER.encode(&sha256),
            BASE64.encode(&signature).replace('+', "%2B")
        );
        server.admin.upload(&path, content.to_vec()).await.expect(201);
    }
}

/// Polls often.
fn quick() -> ClientSettings {
    let mut settings = ClientSettings::default();
    settings.session.poll_interval = Duration::from_millis(200);
    settings
}

/// R-PKG-03, R-PKG-14, R-PKG-49, R-PKG-53, R-SEC-10, R-SEC-12, R-SEC-13
#[tokio::test]
async fn a_signed_package_reaches_a_real_agent_and_a_wrongly_signed_one_does_not() {
    for scheme in ["ws", "http"] {
        let server = TestServer::start().await;
        let dir = TempDir::new();
        let publisher = Publisher::new();
        let keys = vec![PackageKey::from_pem(&publisher.key.public_key_pem()).unwrap()];
        let policy = SignaturePolicy::require(&rustls::crypto::ring::default_provider(), keys).unwrap();
        let installer = Installer::builder(dir.path().join("packages"), policy)
            .settings(InstallerSettings {
                download: DownloadSettings { allow_plain_http: true, ..DownloadSettings::default() },
                ..InstallerSettings::default()
            })
            .open()
            .unwrap();
        let client = Client::builder(&server.endpoint(scheme), Description::new("collector"))
            .on_packages(installer.clone())
            .settings(quick())
            .start()
            .unwrap();
        let page =
            server.eventually("/api/v1/agents", |page| !page["agents"].as_array().unwrap().is_empty()).await;
        let path = format!("/api/v1/agents/{}/packages", page["agents"][0]["id"].as_str().unwrap());
        let assign = async |version: &str| {
            server.admin.put(&path, json!({"packages": {"collector": version}})).await.expect(200);
        };
        let state = |shown: &Value| shown["reported"]["packages"]["collector"].clone();
        let file = || {
            let at = installer.installed("collector").unwrap();
            let files = fs::read_dir(&at.current).unwrap().map(|entry| entry.unwrap().path());
            fs::read(files.filter(|path| path.is_file()).max().unwrap()).unwrap()
        };

        // More than one chunk of the store, and no multiple of it.
        let first: Vec<u8> = (0..(2 << 20) + 77).map(|at| (at * 31 % 253) as u8).collect();
        publisher.publish(&server, "1.0.0", "1.0.0", &first).await;
        assign("1.0.0").await;
        let has = |shown: &Value, version: &str| {
            shown["drift"] == "in_sync" && state(shown)["agent_has_version"] == version
        };
        let shown = server.eventually(&path, |shown| has(shown, "1.0.0")).await;
        assert_eq!(state(&shown)["status"], "INSTALLED");
        assert!(file() == first, "what was uploaded is what is installed");

        // A good signature of the same file, but for another version.
        publisher.publish(&server, "2.0.0", "1.9.0", b"second").await;
        assign("2.0.0").await;
        let shown = server.eventually(&path, |shown| shown["drift"] == "failed").await;
        let failed = state(&shown);
        assert_eq!(
            (&failed["status"], &failed["agent_has_version"]),
            (&json!("INSTALL_FAILED"), &json!("1.0.0"))
        );
        assert!(failed["error"].as_str().unwrap().contains("signature"), "{failed}");
        assert!(file() == first, "the version before stays");

        publisher.publish(&server, "3.0.0", "3.0.0", b"third").await;
        assign("3.0.0").await;
        server.eventually(&path, |shown| has(shown, "3.0.0")).await;
        assert_eq!(file(), b"third");
        // And back: a downgrade is an offer like any other.
        assign("1.0.0").await;
        server.eventually(&path, |shown| has(shown, "1.0.0")).await;
        assert!(file() == first);
        client.stop();
        client.stopped().await;
    }
}
