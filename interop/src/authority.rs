//! An authority that signs what agents request, with its key as a file for programs that are to do the same.

use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PublicKeyData, SignatureAlgorithm,
};
use rustls::{RootCertStore, ServerConfig};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;

use crate::failure::{Failure, Outcome};

/// A certificate authority whose files are `authority.pem` and `authority.key`.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    key_pem: String,
}

/// A certificate and its key, both in PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// The key of a request: all that is taken over from it is that and the name.
struct RequestedKey(Vec<u8>);

impl Authority {
    /// A new authority.
    ///
    /// # Errors
    ///
    /// There are no random numbers.
    pub fn new(name: &str) -> Outcome<Self> {
        let mut params = params(name, &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate()?;
        let key_pem = key.serialize_pem();
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, key)?, key_pem })
    }

    /// Its certificate, in PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Writes its files into a directory, and returns their paths.
    ///
    /// # Errors
    ///
    /// They cannot be written.
    pub fn write(&self, directory: &Path) -> Outcome<(String, String)> {
        let (certificate, key) = (directory.join("authority.pem"), directory.join("authority.key"));
        fs::write(&certificate, self.pem())?;
        fs::write(&key, &self.key_pem)?;
        Ok((certificate.to_string_lossy().into_owned(), key.to_string_lossy().into_owned()))
    }

    /// A certificate for a server on loopback.
    ///
    /// # Errors
    ///
    /// There are no random numbers.
    pub fn server(&self) -> Outcome<Pair> {
        self.pair("server", &["localhost", "127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate for a client.
    ///
    /// # Errors
    ///
    /// There are no random numbers.
    pub fn client(&self, name: &str) -> Outcome<Pair> {
        self.pair(name, &[], ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A client's certificate in PEM for the key of a request in PEM.
    ///
    /// # Errors
    ///
    /// The request cannot be read.
    pub fn sign(&self, request: &[u8]) -> Outcome<String> {
        let (_, pem) = parse_x509_pem(request).map_err(|error| Failure::new(error.to_string()))?;
        let (_, request) = X509CertificationRequest::from_der(&pem.contents)
            .map_err(|error| Failure::new(error.to_string()))?;
        let info = &request.certification_request_info;
        let name = info.subject.iter_common_name().next().and_then(|name| name.as_str().ok());
        let mut params = params(name.unwrap_or_default(), &[])?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = RequestedKey(info.subject_pki.subject_public_key.data.to_vec());
        Ok(params.signed_by(&key, &self.issuer)?.pem())
    }

    /// TLS for a server with a certificate of this authority, which takes clients that have one, too, and those without.
    ///
    /// # Errors
    ///
    /// There are no random numbers.
    pub fn tls(&self) -> Outcome<ServerConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone())?;
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
                .allow_unauthenticated()
                .build()?;
        let mut params = params("server", &["localhost", "127.0.0.1"])?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok(ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], key.into())?)
    }

    fn pair(&self, name: &str, names: &[&str], usage: ExtendedKeyUsagePurpose) -> Outcome<Pair> {
        let mut params = params(name, names)?;
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Pair { certificate, key: key.serialize_pem() })
    }
}

impl PublicKeyData for RequestedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        // What both requesters here make.
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

fn params(name: &str, names: &[&str]) -> Outcome<CertificateParams> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Ok(params)
}
