//! Client certificates of the Self-Agent, where agents prove who they are by certificate.
//!
//! Each is signed by itself and accepted as it is, byte for byte: there is no authority that could issue another, and the
//! operator's authorities cannot issue this one. Possession of the key is proven in the handshake, as with any other.

use std::sync::Arc;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use zeroize::Zeroizing;

/// A certificate with its key, in memory only.
pub(crate) struct ClientCertificate {
    pub(crate) certificate: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
}

impl ClientCertificate {
    /// A new key, and a certificate of this name for it. Its dates mean nothing: it ends with the process.
    pub(crate) fn generate(name: &str) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.self_signed(&key)?;
        Ok(ClientCertificate { certificate: certificate.der().clone(), pem: certificate.pem(), key })
    }

    /// Chain and key, as a TLS configuration takes them.
    pub(crate) fn identity(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        (vec![self.certificate.clone()], key)
    }

    /// Certificate and key in PEM.
    pub(crate) fn pem(&self) -> (&str, Zeroizing<String>) {
        (&self.pem, Zeroizing::new(self.key.serialize_pem()))
    }
}

/// Accepts the Self-Agent's certificates, and leaves all others to the operator's authorities.
#[derive(Debug)]
pub(crate) struct OwnOrIssued {
    pub(crate) own: Vec<CertificateDer<'static>>,
    pub(crate) issued: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for OwnOrIssued {
    fn offer_client_auth(&self) -> bool {
        self.issued.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.issued.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.issued.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.own.iter().any(|own| own == end_entity) {
            return Ok(ClientCertVerified::assertion());
        }
        self.issued.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.issued.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.issued.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.issued.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.issued.requires_raw_public_keys()
    }
}
