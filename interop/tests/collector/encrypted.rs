//! TLS and credentials: who trusts whom, and what the server then knows of the collector.

use std::path::Path;

use interop::collector::{Collector, CollectorConfig, NAME};
use interop::{Certificates, Look, Outcome, Server, ensure, eventually};
use serde_json::{Value, json};

use super::{ENCRYPTED, EVENTUALLY, PLAIN, is_well, over};

/// What a collector says when all its components have started.
const AT_WORK: &str = "Everything is ready";

#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn collector_with_a_certificate_is_known_by_it() -> Outcome {
    over(&ENCRYPTED, "mutual", |scheme, directory| {
        let files = Certificates::issue(directory)?;
        let server = mutual(directory, &files)?;
        let config = CollectorConfig::new(directory, &server.url(scheme))?
            .with_connection("tls", tls(&files, Some("client")));
        let _collector = Collector::start(&config, &[])?;
        let (seen, _) = server.agent(NAME)?.until("a healthy collector", EVENTUALLY, is_well)?;
        let identity = seen["identity"].as_str().unwrap_or_default();
        ensure!(identity.starts_with("certificate:"), "identity {identity:?}");
        Ok(())
    })
}

#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn collector_with_a_foreign_certificate_or_none_stays_outside() -> Outcome {
    over(&ENCRYPTED, "stranger", |scheme, directory| {
        let files = Certificates::issue(directory)?;
        let server = mutual(directory, &files)?;
        for certificate in [Some("stranger"), None] {
            let config = CollectorConfig::new(directory, &server.url(scheme))?
                .with_connection("tls", tls(&files, certificate));
            stays_outside(&server, &config)?;
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn collector_that_cannot_verify_the_server_tells_it_nothing() -> Outcome {
    over(&ENCRYPTED, "unverified", |scheme, directory| {
        let files = Certificates::issue(directory)?;
        let (cert, key) = (files.certificate("server"), files.key("server"));
        let server = Server::start(
            directory,
            &["--tls-cert", &cert.to_string_lossy(), "--tls-key", &key.to_string_lossy()],
        )?;
        // The authorities of the system do not include that of the test.
        stays_outside(&server, &CollectorConfig::new(directory, &server.url(scheme))?)?;
        let config =
            CollectorConfig::new(directory, &server.url(scheme))?.with_connection("tls", tls(&files, None));
        let _collector = Collector::start(&config, &[])?;
        server.agent(NAME)?.until("a healthy collector", EVENTUALLY, is_well).map(drop)
    })
}

#[test]
#[ignore = "needs the collector: cargo xtask interop --collector"]
fn collector_gets_in_with_its_token_and_not_without() -> Outcome {
    over(&PLAIN, "token", |scheme, directory| {
        let server = Server::start(directory, &["--auth", "token", "--tokens", "fleet=sesame-open"])?;
        let config = CollectorConfig::new(directory, &server.url(scheme))?;
        is_refused(&server, &config)?;
        let config = config.with_connection("headers", json!({"Authorization": "Bearer sesame-open"}));
        let _collector = Collector::start(&config, &[])?;
        let (seen, _) = server.agent(NAME)?.until("a healthy collector", EVENTUALLY, is_well)?;
        ensure!(seen["identity"].as_str().is_some_and(|text| text.contains("fleet")), "{seen:#}");
        let config = seen["effective_config"][""]["body"].as_str().unwrap_or_default();
        ensure!(!config.contains("sesame-open"), "the token is in the effective config: {config}");
        Ok(())
    })
}

fn mutual(directory: &Path, files: &Certificates) -> Outcome<Server> {
    let [cert, key, ca] = [files.certificate("server"), files.key("server"), files.certificate("ca")];
    let [cert, key, ca] = [&cert, &key, &ca].map(|path| path.to_string_lossy());
    Server::start(directory, &["--auth", "mtls", "--tls-cert", &cert, "--tls-key", &key, "--client-ca", &ca])
}

fn tls(files: &Certificates, certificate: Option<&str>) -> Value {
    let mut tls = json!({"ca_file": files.certificate("ca")});
    if let Some(name) = certificate {
        tls["cert_file"] = json!(files.certificate(name));
        tls["key_file"] = json!(files.key(name));
    }
    tls
}

/// A collector with this config tries, says that it failed, goes on with its own work, and does not get into the inventory.
fn stays_outside(server: &Server, config: &CollectorConfig) -> Outcome {
    let mut collector = Collector::start(config, &[])?;
    eventually("a failed attempt in the log", EVENTUALLY, || {
        let log = collector.log()?;
        let failed = log.contains("will retry") || log.contains("Failed to connect");
        Ok(Look::when(failed && log.contains(AT_WORK), (), log))
    })?;
    outside(server)?;
    collector.kill()
}

/// The same for a collector whose token is refused: one that polls says nothing of that, so the server is asked.
fn is_refused(server: &Server, config: &CollectorConfig) -> Outcome {
    let mut collector = Collector::start(config, &[])?;
    eventually("a refusal", EVENTUALLY, || {
        let refused = server.metric(r#"opamp_frames_rejected_total{reason="auth_failed"}"#)?;
        let log = collector.log()?;
        Ok(Look::when(refused >= 1.0 && log.contains(AT_WORK), (), log))
    })?;
    outside(server)?;
    collector.kill()
}

fn outside(server: &Server) -> Outcome {
    let stats = server.rest().get("/api/v1/stats")?;
    ensure!(stats["registered"] == 0, "it got in: {stats}");
    Ok(())
}
