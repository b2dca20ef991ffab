//! TLS as a server offers it: what is trusted, what is spoken, what is never given up.

use std::sync::Arc;

use opamp_client::connection::SettingsPolicy;
use opamp_client::{FailureKind, MinTlsVersion, TlsOptions, TlsProblem, TlsSource};
use opamp_proto::pb::{self, ConnectionSettingsStatuses as Status};
use opamp_testkit::certs::Authority;
use rustls::crypto::ring;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};

use super::stub::TlsStub;
use super::{UID, opamp, settable, with_endpoint};
use crate::common::{Agent, Memory};
use crate::stub::ack;

fn options(authority: &Authority) -> TlsOptions {
    TlsOptions::new(Arc::new(ring::default_provider())).ca_pem(authority.pem())
}

fn server(authority: &Authority) -> ServerConfig {
    Authority::server_config(&authority.server(&["127.0.0.1"]))
}

/// A server that speaks these versions alone.
fn speaking(authority: &Authority, versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
    let identity = authority.server(&["127.0.0.1"]);
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![identity.cert.clone()], identity.private_key())
        .unwrap()
}

fn tls(change: impl FnOnce(&mut pb::TlsConnectionSettings)) -> Option<pb::TlsConnectionSettings> {
    let mut tls = pb::TlsConnectionSettings::default();
    change(&mut tls);
    Some(tls)
}

fn trusting(authority: &Authority) -> Option<pb::TlsConnectionSettings> {
    tls(|tls| tls.ca_pem_contents = authority.pem())
}

fn with_tls(url: &str, tls: Option<pb::TlsConnectionSettings>) -> pb::OpAmpConnectionSettings {
    pb::OpAmpConnectionSettings { tls, ..with_endpoint(url) }
}

fn offering(hash: &[u8], settings: pb::OpAmpConnectionSettings) -> pb::ServerToAgent {
    let offers = pb::ConnectionSettingsOffers { hash: hash.to_vec().into(), ..opamp(settings) };
    pb::ServerToAgent { connection_settings: Some(offers), ..ack() }
}

/// An agent at a server of its own authority that offers it something.
struct World {
    old: TlsStub,
    agent: Agent,
}

impl World {
    async fn new(source: TlsSource, authority: &Authority, policy: SettingsPolicy) -> Self {
        let old = TlsStub::start(server(authority)).await;
        let state = Memory::of(UID);
        let agent = Agent::start(settable(&old.url(), &state).tls(source).accept_connection_settings(policy));
        agent.connected().await;
        Self { old, agent }
    }

    /// Of an agent with options, which trusts this authority.
    async fn of(authority: &Authority) -> Self {
        let source = TlsSource::from_options(options(authority)).unwrap();
        Self::new(source, authority, SettingsPolicy::strict()).await
    }

    fn offer(&self, settings: pb::OpAmpConnectionSettings) {
        self.old.say(offering(b"h", settings));
        self.agent.advance(30);
    }

    /// Offers settings that have to work.
    async fn takes(&self, settings: pb::OpAmpConnectionSettings) {
        self.offer(settings);
        self.agent.applied(1).await;
    }

    /// Offers settings that are tried and fail.
    async fn fails(&self, settings: pb::OpAmpConnectionSettings) -> (FailureKind, String) {
        self.offer(settings);
        let failed = self.agent.comes_back().await;
        let status = self.old.told().await;
        assert_eq!(status.status(), Status::Failed, "{status:?}");
        failed
    }

    /// Offers settings that are refused; nobody is left for them.
    async fn refuses(&self, settings: pb::OpAmpConnectionSettings) -> String {
        self.offer(settings);
        let status = self.old.told().await;
        assert_eq!(status.status(), Status::Failed, "{status:?}");
        assert!(self.agent.client.stats().reconnects == 0);
        status.error_message
    }
}

/// R-TLS-01, R-TLS-02, R-TLS-03.
#[tokio::test]
async fn an_offered_authority_is_trusted_in_place_of_that_before_until_another_is_offered() {
    let (own, second) = (Authority::new("own"), Authority::new("second"));
    let new = TlsStub::start(server(&second)).await;
    let world = World::of(&own).await;
    world.takes(with_tls(&new.url(), trusting(&second))).await;
    // Left out, it stays.
    let third = TlsStub::start(server(&second)).await;
    new.say(offering(b"i", with_endpoint(&third.url())));
    world.agent.advance(30);
    world.agent.applied(2).await;
    // Of the first one's servers none is trusted any more.
    let of_own = TlsStub::start(server(&own)).await;
    third.say(offering(b"j", with_endpoint(&of_own.url())));
    world.agent.advance(30);
    let (kind, text) = world.agent.comes_back().await;
    assert_eq!(kind, FailureKind::Tls(TlsProblem::UnknownIssuer), "{text}");
    assert_eq!(third.told().await.status(), Status::Failed);
    assert!(of_own.seen().is_empty());
    world.agent.stop().await;
}

#[tokio::test]
async fn a_server_of_another_authority_than_the_offered_one_leads_back() {
    let (own, second, stranger) =
        (Authority::new("own"), Authority::new("second"), Authority::new("stranger"));
    let new = TlsStub::start(server(&stranger)).await;
    let (kind, text) = World::of(&own).await.fails(with_tls(&new.url(), trusting(&second))).await;
    assert_eq!(kind, FailureKind::Tls(TlsProblem::UnknownIssuer), "{text}");
    let wrong_name = TlsStub::start(Authority::server_config(&own.server(&["opamp.example"]))).await;
    let (kind, text) = World::of(&own).await.fails(with_endpoint(&wrong_name.url())).await;
    assert_eq!(kind, FailureKind::Tls(TlsProblem::NameMismatch), "{text}");
}

/// R-TLS-20: the authority beside a client certificate is for those who verify the agent.
#[tokio::test]
async fn the_authority_of_a_client_certificate_is_no_reason_to_trust_a_server() {
    let (own, second) = (Authority::new("own"), Authority::new("second"));
    let new = TlsStub::start(server(&second)).await;
    let client = second.client("agent", &[]);
    let certificate = Some(pb::TlsCertificate {
        cert: client.cert_pem.into_bytes().into(),
        private_key: client.key_pem.into_bytes().into(),
        ca_cert: second.pem().into_bytes().into(),
    });
    let settings = pb::OpAmpConnectionSettings { certificate, ..with_endpoint(&new.url()) };
    let (kind, text) = World::of(&own).await.fails(settings).await;
    assert_eq!(kind, FailureKind::Tls(TlsProblem::UnknownIssuer), "{text}");
}

/// R-TLS-05, lesson: an offer without a certificate switches verification off.
#[tokio::test]
async fn verification_is_switched_off_by_the_offer_only_where_the_configuration_allows_it() {
    let (own, stranger) = (Authority::new("own"), Authority::new("stranger"));
    let new = TlsStub::start(server(&stranger)).await;
    let blind = || with_tls(&new.url(), tls(|tls| tls.insecure_skip_verify = true));
    let why = World::of(&own).await.refuses(blind()).await;
    assert!(why.contains("insecure_skip_verify"), "{why}");
    let source = || TlsSource::from_options(options(&own)).unwrap();
    let policy = SettingsPolicy::strict().allow_insecure_skip_verify();
    let (kind, _) = World::new(source(), &own, policy).await.fails(with_endpoint(&new.url())).await;
    assert_eq!(kind, FailureKind::Tls(TlsProblem::UnknownIssuer), "not unless it is offered");
    assert!(new.seen().is_empty());
    World::new(source(), &own, policy).await.takes(blind()).await;
    assert!(!new.seen().is_empty());
}

/// TLS is not given up, neither for plaintext nor for a lower version than configured.
#[tokio::test]
async fn nothing_that_was_configured_is_given_up() {
    let own = Authority::new("own");
    let plain = crate::stub::HttpStub::acknowledging().await;
    let why = World::of(&own).await.refuses(with_endpoint(&plain.url("http"))).await;
    assert!(why.contains("no TLS"), "{why}");
    assert!(plain.requests().is_empty());
    let new = TlsStub::start(speaking(&own, &[&TLS12])).await;
    let modern = || TlsSource::from_options(options(&own).min_version(MinTlsVersion::V1_3)).unwrap();
    for min in ["1.2", "TLSv1.2"] {
        let world = World::new(modern(), &own, SettingsPolicy::strict()).await;
        let why = world.refuses(with_tls(&new.url(), tls(|tls| tls.min_version = min.into()))).await;
        assert!(why.contains("min_version"), "{why}");
    }
    // Unset is not lower.
    let world = World::new(modern(), &own, SettingsPolicy::strict()).await;
    let (kind, text) = world.fails(with_tls(&new.url(), trusting(&own))).await;
    assert_eq!(kind, FailureKind::Tls(TlsProblem::Version), "{text}");
    let world = World::new(modern(), &own, SettingsPolicy::strict().allow_older_tls()).await;
    world.takes(with_tls(&new.url(), tls(|tls| tls.min_version = "1.2".into()))).await;
    assert_eq!(new.seen()[0].version, "TLSv1_2");
}

/// R-TLS-06.
#[tokio::test]
async fn the_lowest_version_is_understood_in_both_forms_and_kept_to() {
    let own = Authority::new("own");
    let old = TlsStub::start(speaking(&own, &[&TLS12])).await;
    for min in ["1.3", "TLSv1.3", "tls1.3"] {
        let settings = with_tls(&old.url(), tls(|tls| tls.min_version = min.into()));
        let (kind, text) = World::of(&own).await.fails(settings).await;
        assert_eq!(kind, FailureKind::Tls(TlsProblem::Version), "{min}: {text}");
    }
    for bad in ["1.1", "TLSv1.0", "SSLv3", "2", "tls"] {
        let settings = with_tls(&old.url(), tls(|tls| tls.min_version = bad.into()));
        let why = World::of(&own).await.refuses(settings).await;
        assert!(why.contains("min_version"), "{bad}: {why}");
    }
}

/// R-TLS-07.
#[tokio::test]
async fn the_highest_version_is_kept_to() {
    let own = Authority::new("own");
    let new = TlsStub::start(speaking(&own, &[&TLS13, &TLS12])).await;
    World::of(&own).await.takes(with_tls(&new.url(), tls(|tls| tls.max_version = "1.2".into()))).await;
    assert_eq!(new.seen()[0].version, "TLSv1_2");
    World::of(&own).await.takes(with_tls(&new.url(), tls(|tls| tls.max_version = "TLSv1.3".into()))).await;
    assert_eq!(new.seen().last().unwrap().version, "TLSv1_3");
    let both = tls(|tls| (tls.min_version, tls.max_version) = ("1.3".into(), "1.2".into()));
    let why = World::of(&own).await.refuses(with_tls(&new.url(), both)).await;
    assert!(why.contains("max_version"), "{why}");
}

/// R-TLS-08.
#[tokio::test]
async fn cipher_suites_are_those_named_and_an_unknown_name_is_refused() {
    let own = Authority::new("own");
    for (suite, shown) in [
        ("TLS_CHACHA20_POLY1305_SHA256", "TLS13_CHACHA20_POLY1305_SHA256"),
        ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    ] {
        let new = TlsStub::start(server(&own)).await;
        let one = tls(|tls| tls.cipher_suites = vec![suite.into()]);
        World::of(&own).await.takes(with_tls(&new.url(), one)).await;
        assert_eq!(new.seen()[0].suite, shown);
    }
    let new = TlsStub::start(server(&own)).await;
    let unknown =
        tls(|tls| tls.cipher_suites = vec!["TLS_AES_128_GCM_SHA256".into(), "TLS_NO_SUCH_SUITE".into()]);
    let why = World::of(&own).await.refuses(with_tls(&new.url(), unknown)).await;
    assert!(why.contains("TLS_NO_SUCH_SUITE"), "{why}");
    assert!(new.seen().is_empty());
}

#[tokio::test]
async fn what_is_no_certificate_is_refused_before_anybody_is_left() {
    let own = Authority::new("own");
    let bad = tls(|tls| tls.ca_pem_contents = "no certificate".into());
    let why = World::of(&own).await.refuses(with_tls("https://127.0.0.1:1", bad)).await;
    assert!(why.contains("no certificate in PEM form"), "{why}");
    let (one, other) = (own.client("a", &[]), own.client("b", &[]));
    let certificate = Some(pb::TlsCertificate {
        cert: one.cert_pem.into_bytes().into(),
        private_key: other.key_pem.into_bytes().into(),
        ..Default::default()
    });
    let settings = pb::OpAmpConnectionSettings { certificate, ..with_endpoint("https://127.0.0.1:1") };
    let why = World::of(&own).await.refuses(settings).await;
    assert!(why.contains("cannot be used"), "{why}");
}

/// A configuration given as a whole cannot be looked into: what is not known to be allowed is not.
#[tokio::test]
async fn a_whole_configuration_is_changed_only_where_nothing_is_given_up() {
    let (own, second) = (Authority::new("own"), Authority::new("second"));
    let whole = || TlsSource::new(rustls::ClientConfig::clone(&own.client_config()));
    let new = TlsStub::start(server(&second)).await;
    let world = World::new(whole(), &own, SettingsPolicy::strict()).await;
    world.takes(with_tls(&new.url(), trusting(&second))).await;
    assert_eq!(new.seen()[0].version, "TLSv1_3");
    let same = TlsStub::start(server(&own)).await;
    World::new(whole(), &own, SettingsPolicy::strict()).await.takes(with_endpoint(&same.url())).await;
    let world = World::new(whole(), &own, SettingsPolicy::strict()).await;
    let why = world.refuses(with_tls(&same.url(), tls(|tls| tls.max_version = "1.2".into()))).await;
    assert!(why.contains("names no authority"), "{why}");
}

/// R-TLS-04. The system's authorities are those of a file that an environment variable names, so this runs in a process of
/// its own.
#[cfg(feature = "native-roots")]
#[test]
fn the_authorities_of_the_system_are_trusted_if_they_are_wanted() {
    let directory = crate::common::Directory::new("system-roots");
    let system = Authority::new("system");
    let file = directory.write("roots.pem", &system.pem());
    let (cert, key) = {
        let identity = system.server(&["127.0.0.1"]);
        (directory.write("cert.pem", &identity.cert_pem), directory.write("key.pem", &identity.key_pem))
    };
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "offered::verified::with_the_authorities_of_the_system"])
        .env("SSL_CERT_FILE", file)
        .env("TEST_CERT", cert)
        .env("TEST_KEY", key)
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && text.contains("1 passed"), "{text}");
}

#[cfg(feature = "native-roots")]
#[ignore = "runs in a process of its own"]
#[tokio::test]
async fn with_the_authorities_of_the_system() {
    use rustls_pki_types::pem::PemObject as _;
    let read = |name: &str| std::fs::read(std::env::var(name).unwrap()).unwrap();
    let certificate = rustls_pki_types::CertificateDer::from_pem_slice(&read("TEST_CERT")).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(&read("TEST_KEY")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let (own, private) = (Authority::new("own"), Authority::new("private"));
    let new = TlsStub::start(config).await;
    let with_system = |wanted: bool| {
        tls(|tls| (tls.ca_pem_contents, tls.include_system_ca_certs_pool) = (private.pem(), wanted))
    };
    let (kind, text) = World::of(&own).await.fails(with_tls(&new.url(), with_system(false))).await;
    assert_eq!(kind, FailureKind::Tls(TlsProblem::UnknownIssuer), "{text}");
    World::of(&own).await.takes(with_tls(&new.url(), with_system(true))).await;
    let of_private = TlsStub::start(server(&private)).await;
    World::of(&own).await.takes(with_tls(&of_private.url(), with_system(true))).await;
}

/// Without the feature nothing of the system is trusted, and that is said.
#[cfg(not(feature = "native-roots"))]
#[tokio::test]
async fn the_authorities_of_the_system_are_refused_where_they_are_not_built_in() {
    let own = Authority::new("own");
    let wanted = tls(|tls| tls.include_system_ca_certs_pool = true);
    let why = World::of(&own).await.refuses(with_tls("https://127.0.0.1:1", wanted)).await;
    assert!(why.contains("include_system_ca_certs_pool"), "{why}");
}
