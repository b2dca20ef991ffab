//! Certificates for TLS tests: an authority, what it signs, and what is wrong on purpose.
//!
//! Keys are ECDSA P-256 and new in every run. The rustls configurations name the ring provider themselves, so that no test
//! depends on a process-wide default.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A certificate authority of a test.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A request for a certificate, with the key that never leaves whoever made it.
pub struct Request {
    /// The request, PEM.
    pub csr_pem: String,
    /// The private key, PKCS #8 PEM.
    pub key_pem: String,
    key: KeyPair,
    params: CertificateParams,
}

/// A certificate with its private key.
pub struct Identity {
    /// Certificate, PEM.
    pub cert_pem: String,
    /// Private key, PKCS #8 PEM.
    pub key_pem: String,
    /// Certificate, DER.
    pub cert: CertificateDer<'static>,
    key: Vec<u8>,
}

#[expect(clippy::expect_used, reason = "a test without certificates cannot go on, and says so at once")]
impl Authority {
    /// A new authority with this common name.
    ///
    /// # Panics
    ///
    /// If the system has no random numbers.
    pub fn new(name: &str) -> Self {
        let mut params = params(&[], name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("a CA certificate") }
    }

    /// The authority's certificate, PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A store that trusts this authority and nothing else.
    ///
    /// # Panics
    ///
    /// Never with a certificate of its own.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a usable root");
        roots
    }

    /// A server certificate for these DNS names and IP addresses.
    pub fn server(&self, names: &[&str]) -> Identity {
        let mut params = params(names, names.first().unwrap_or(&"server"));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params)
    }

    /// A server certificate that ran out in the year 2000.
    pub fn expired_server(&self, names: &[&str]) -> Identity {
        let mut params = params(names, "expired");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        expire(&mut params);
        self.sign(&params)
    }

    /// A client certificate with a common name and subject alternative names.
    pub fn client(&self, common_name: &str, names: &[&str]) -> Identity {
        let mut params = params(names, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    /// A client certificate for the key of a request, PEM.
    ///
    /// # Panics
    ///
    /// Never with names that made a request.
    pub fn grant(&self, request: &Request) -> String {
        let mut params = request.params.clone();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.signed_by(&request.key, &self.issuer).expect("a certificate").pem()
    }

    /// A client certificate that ran out in the year 2000.
    pub fn expired_client(&self, common_name: &str) -> Identity {
        let mut params = params(&[], common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        expire(&mut params);
        self.sign(&params)
    }

    /// A client that trusts this authority and shows no certificate.
    ///
    /// # Panics
    ///
    /// Never with the ring provider.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        Arc::new(client_builder(self.roots()).with_no_client_auth())
    }

    /// A client that trusts this authority and shows a certificate of any authority.
    ///
    /// # Panics
    ///
    /// If the identity's key does not fit its certificate.
    pub fn client_config_with(&self, identity: &Identity) -> Arc<ClientConfig> {
        let config = client_builder(self.roots())
            .with_client_auth_cert(vec![identity.cert.clone()], identity.private_key())
            .expect("a key that fits");
        Arc::new(config)
    }

    /// A server that shows `identity` and asks nobody for a certificate.
    ///
    /// # Panics
    ///
    /// If the identity's key does not fit its certificate.
    pub fn server_config(identity: &Identity) -> ServerConfig {
        server_builder()
            .with_no_client_auth()
            .with_single_cert(vec![identity.cert.clone()], identity.private_key())
            .expect("a key that fits")
    }

    /// A server that shows `identity` and wants client certificates of this authority; without `required` it also takes
    /// clients that show none.
    ///
    /// # Panics
    ///
    /// If the identity's key does not fit its certificate.
    pub fn mutual_server_config(&self, identity: &Identity, required: bool) -> ServerConfig {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider());
        let verifier = if required { verifier } else { verifier.allow_unauthenticated() };
        server_builder()
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(vec![identity.cert.clone()], identity.private_key())
            .expect("a key that fits")
    }

    fn sign(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity::new(&cert, &key)
    }
}

#[expect(clippy::expect_used, reason = "a test without certificates cannot go on, and says so at once")]
impl Request {
    /// A request in this common name, with subject alternative names.
    ///
    /// # Panics
    ///
    /// If the system has no random numbers, or a name cannot stand in a certificate.
    pub fn new(common_name: &str, names: &[&str]) -> Self {
        let params = params(names, common_name);
        let key = KeyPair::generate().expect("a key");
        let csr_pem = params.serialize_request(&key).expect("a request").pem().expect("PEM");
        Self { csr_pem, key_pem: key.serialize_pem(), key, params }
    }
}

#[expect(clippy::expect_used, reason = "a test without certificates cannot go on, and says so at once")]
impl Identity {
    /// A client certificate that its own key signed.
    ///
    /// # Panics
    ///
    /// If the system has no random numbers.
    pub fn self_signed(common_name: &str) -> Self {
        let mut params = params(&[], common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let cert = params.self_signed(&key).expect("a certificate");
        Self::new(&cert, &key)
    }

    fn new(cert: &Certificate, key: &KeyPair) -> Self {
        Self {
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
            cert: cert.der().clone(),
            key: key.serialize_der(),
        }
    }

    /// The private key for a rustls configuration.
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()))
    }
}

#[expect(clippy::expect_used, reason = "names in tests are written by hand")]
fn params(names: &[&str], common_name: &str) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("valid names");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

fn expire(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(1999, 1, 1);
    params.not_after = date_time_ymd(2000, 1, 1);
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[expect(clippy::expect_used, reason = "ring has suites for the default versions")]
fn client_builder(
    roots: RootCertStore,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_root_certificates(roots)
}

#[expect(clippy::expect_used, reason = "ring has suites for the default versions")]
fn server_builder() -> rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier> {
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
}
