//! TLS: whom the agent trusts, what it shows, how failures are told apart, and certificates that change.

use std::sync::Arc;

use opamp_client::{FailureKind, MinTlsVersion, TlsError, TlsOptions, TlsProblem, TlsSource};
use opamp_server::{InsecureAcceptEveryone, MutualTls, ServerSettings};
use opamp_testkit::certs::Authority;
use rustls::crypto::ring;

use crate::common::{Agent, Directory, TestServer, builder, until};

fn options(authority: &Authority) -> TlsOptions {
    TlsOptions::new(Arc::new(ring::default_provider())).ca_pem(authority.pem())
}

/// Trusts this authority and shows no certificate.
pub(crate) fn trusting(authority: &Authority) -> TlsSource {
    TlsSource::from_options(options(authority)).unwrap()
}

async fn server(config: rustls::ServerConfig) -> TestServer {
    let tls = opamp_server::TlsSource::new(config);
    TestServer::with(Arc::new(InsecureAcceptEveryone), ServerSettings::default(), Some(tls)).await
}

async fn mutual(authority: &Authority) -> TestServer {
    let identity = authority.server(&["127.0.0.1"]);
    let tls = opamp_server::TlsSource::new(authority.mutual_server_config(&identity, true));
    TestServer::with(Arc::new(MutualTls), ServerSettings::default(), Some(tls)).await
}

on_both_transports! {
    over tls;

    async fn a_server_of_a_trusted_authority_is_reached(scheme) {
        let authority = Authority::new("ca");
        let server = server(Authority::server_config(&authority.server(&["127.0.0.1"]))).await;
        let agent = Agent::start(builder(&server.url(scheme)).tls(trusting(&authority)));
        agent.connected().await;
        server.sees(agent.client.uid(), "the report", |agent| agent.sequence_num.0 >= 1).await;
        agent.stop().await;
        assert!(agent.events.failures().is_empty());
    }

    async fn each_failure_has_its_class_and_its_hint(scheme) {
        let (authority, stranger) = (Authority::new("ca"), Authority::new("stranger"));
        for (identity, problem, hint) in [
            (stranger.server(&["127.0.0.1"]), TlsProblem::UnknownIssuer, "give this agent the certificate of the CA"),
            (authority.server(&["opamp.example"]), TlsProblem::NameMismatch, "opamp.example"),
            (authority.expired_server(&["127.0.0.1"]), TlsProblem::Expired, "renew the server's certificate"),
        ] {
            let server = server(Authority::server_config(&identity)).await;
            let agent = Agent::start(builder(&server.url(scheme)).tls(trusting(&authority)));
            let (kind, text) = agent.failure().await;
            assert_eq!(kind, FailureKind::Tls(problem), "{text}");
            assert!(text.contains(hint), "{text}");
            assert_eq!(agent.events.all().len(), 1);
            assert!(server.handle.agents().is_empty(), "nothing was sent to it");
        }
    }

    async fn a_missing_and_a_strange_client_certificate_are_told_apart(scheme) {
        let (authority, stranger) = (Authority::new("ca"), Authority::new("stranger"));
        let server = mutual(&authority).await;
        let agent = Agent::start(builder(&server.url(scheme)).tls(trusting(&authority)));
        let (kind, text) = agent.failure().await;
        assert_eq!(kind, FailureKind::Tls(TlsProblem::ClientCertificateRequired), "{text}");
        for identity in [stranger.client("agent", &[]), authority.expired_client("agent")] {
            let with = options(&authority).client_certificate_pem(identity.cert_pem.clone(), identity.key_pem.clone());
            let agent = Agent::start(builder(&server.url(scheme)).tls(TlsSource::from_options(with).unwrap()));
            let (kind, text) = agent.failure().await;
            assert_eq!(kind, FailureKind::Tls(TlsProblem::ClientCertificateRejected), "{text}");
        }
    }

    async fn a_client_certificate_is_shown(scheme) {
        let authority = Authority::new("ca");
        let server = mutual(&authority).await;
        let identity = authority.client("agent-7", &[]);
        let with = options(&authority).client_certificate_pem(identity.cert_pem.clone(), identity.key_pem.clone());
        let agent = Agent::start(builder(&server.url(scheme)).tls(TlsSource::from_options(with).unwrap()));
        let seen = server.sees(agent.client.uid(), "the report", |agent| agent.connection.is_some()).await;
        assert_eq!(seen.connection.unwrap().principal.to_string(), "certificate:agent-7");
    }

    async fn changed_files_are_used_from_the_next_connection_on(scheme) {
        let (authority, successor) = (Authority::new("ca"), Authority::new("successor"));
        let identity = authority.server(&["127.0.0.1"]);
        let tls = opamp_server::TlsSource::new(authority.mutual_server_config(&identity, true));
        let server = TestServer::with(Arc::new(MutualTls), ServerSettings::default(), Some(tls.clone())).await;
        let directory = Directory::new(&format!("reload-{scheme}"));
        let old = authority.client("agent", &[]);
        let ca = directory.write("ca.pem", &authority.pem());
        let (cert, key) = (directory.write("cert.pem", &old.cert_pem), directory.write("key.pem", &old.key_pem));
        let files = TlsOptions::new(Arc::new(ring::default_provider())).ca_file(ca).client_certificate_files(&cert, &key);
        let source = TlsSource::from_options(files).unwrap();
        let agent = Agent::start(builder(&server.url(scheme)).tls(source.clone()));
        let uid = agent.client.uid();
        let reports = |count| move |agent: &opamp_server::AgentSnapshot| agent.sequence_num.0 >= count;
        server.sees(uid, "the first report", reports(1)).await;
        agent.received(1).await;

        // Half of a rotation does not cut the agent off.
        assert_eq!(source.check(), Ok(()));
        directory.write("cert.pem", "nonsense");
        assert!(matches!(source.check(), Err(TlsError::Pem { .. })));
        agent.client.reconnect().unwrap();
        server.sees(uid, "goodbye, and a report with the old one", reports(3)).await;
        until("reached again", || agent.client.stats().reconnects == 1).await;

        // The server trusts another authority now, and so is no help until the files follow.
        tls.replace(successor.mutual_server_config(&identity, true));
        agent.client.reconnect().unwrap();
        let (kind, text) = agent.failure().await;
        assert_eq!(kind, FailureKind::Tls(TlsProblem::ClientCertificateRejected), "{text}");
        let new = successor.client("agent", &[]);
        directory.write("key.pem", &new.key_pem);
        directory.write("cert.pem", &new.cert_pem);
        agent.reconnect_until("let in with the new one", || agent.client.stats().reconnects == 2).await;
    }

    async fn a_lowest_version_is_kept_to(scheme) {
        let authority = Authority::new("ca");
        let identity = authority.server(&["127.0.0.1"]);
        let old = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![identity.cert.clone()], identity.private_key())
            .unwrap();
        let server = server(old).await;
        let agent = Agent::start(builder(&server.url(scheme)).tls(trusting(&authority)));
        agent.connected().await;
        let strict = TlsSource::from_options(options(&authority).min_version(MinTlsVersion::V1_3)).unwrap();
        let agent = Agent::start(builder(&server.url(scheme)).tls(strict));
        let (kind, text) = agent.failure().await;
        assert_eq!(kind, FailureKind::Tls(TlsProblem::Version), "{text}");
    }
}

#[test]
fn options_that_make_no_configuration_say_why() {
    let authority = Authority::new("ca");
    let build = |options: TlsOptions| TlsSource::from_options(options).map(drop).unwrap_err();
    let provider = || Arc::new(ring::default_provider());
    assert_eq!(build(TlsOptions::new(provider())), TlsError::NoAuthority);
    let missing = build(TlsOptions::new(provider()).ca_file("/nonexistent/ca.pem"));
    assert!(missing.to_string().contains("/nonexistent/ca.pem"), "{missing}");
    let no_pem = build(TlsOptions::new(provider()).ca_pem("hello"));
    assert!(matches!(no_pem, TlsError::Pem { .. }), "{no_pem}");
    let (one, other) = (authority.client("a", &[]), authority.client("b", &[]));
    let mixed = options(&authority).client_certificate_pem(one.cert_pem.clone(), other.key_pem.clone());
    assert!(matches!(build(mixed), TlsError::Identity(_)));
    let no_key = options(&authority).client_certificate_pem(one.cert_pem.clone(), one.cert_pem.clone());
    assert!(!build(no_key).to_string().contains("BEGIN"));
}

#[tokio::test]
async fn only_http_1_1_is_offered_since_an_upgrade_needs_it() {
    let authority = Authority::new("ca");
    let mut config = Authority::server_config(&authority.server(&["127.0.0.1"]));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("wss://{}", listener.local_addr().unwrap());
    let _agent = Agent::start(builder(&url).tls(trusting(&authority)));
    let (stream, _) = listener.accept().await.unwrap();
    let stream = acceptor.accept(stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

/// A pipe stands for a disk that does not answer: whoever opens it waits for somebody at the other end.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_file_that_cannot_be_read_to_its_end_holds_up_one_attempt_and_no_thread_but_its_own() {
    let authority = Authority::new("ca");
    let server = server(Authority::server_config(&authority.server(&["127.0.0.1"]))).await;
    let directory = Directory::new("pipe");
    let ca = directory.write("ca.pem", &authority.pem());
    let options = TlsOptions::new(Arc::new(ring::default_provider())).ca_file(&ca);
    let agent = Agent::start(builder(&server.url("wss")).tls(TlsSource::from_options(options).unwrap()));
    agent.connected().await;
    std::fs::remove_file(&ca).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&ca).status().unwrap().success());
    let waiting = std::thread::spawn(move || {
        // Opens when somebody reads, and ends the reading.
        std::fs::OpenOptions::new().write(true).open(ca)
    });
    // One attempt may wait for the disk; the next goes on with what is known.
    for _ in 0..3 {
        agent.client.reconnect().unwrap();
        agent.reconnect_until("connected again", || agent.client.stats().reconnects > 0).await;
    }
    drop(waiting.join().unwrap().unwrap());
    agent.stop().await;
}
