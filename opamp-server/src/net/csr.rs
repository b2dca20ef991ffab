//! Checking certificate signing requests (PKCS #10, RFC 2986): form, signature, and whose identity they name.

use opamp_proto::InstanceUid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use x509_parser::asn1_rs::Sequence;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// A signing request larger than this is none.
const CSR_BYTES_MAX: usize = 64 << 10;

/// What is wrong with a signing request. The agent is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CsrError {
    #[error("the certificate request has more than {CSR_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the certificate request must be PEM with a block CERTIFICATE REQUEST")]
    NotPem,
    #[error("the certificate request is no PKCS #10 request")]
    Malformed,
    #[error("the certificate request is signed in a way this server does not support")]
    UnknownAlgorithm,
    #[error("the signature of the certificate request is not made with its key")]
    BadSignature,
    #[error("the certificate request names another identity than the instance_uid of the message")]
    OtherIdentity,
}

/// Checks a request as it came (R-CSR-17, R-CSR-23); the public key it is about, as encoded `SubjectPublicKeyInfo`.
///
/// Names that are no UUIDs, such as host names, are the issuer's business.
pub(super) fn check(pem: &[u8], uid: &InstanceUid, provider: &CryptoProvider) -> Result<Vec<u8>, CsrError> {
    if pem.len() > CSR_BYTES_MAX {
        return Err(CsrError::TooLarge);
    }
    let der = CertificateSigningRequestDer::from_pem_slice(pem).map_err(|_| CsrError::NotPem)?;
    let (rest, csr) = X509CertificationRequest::from_der(&der).map_err(|_| CsrError::Malformed)?;
    if !rest.is_empty() {
        return Err(CsrError::Malformed);
    }
    verify(&der, &csr, provider)?;
    if identities(&csr).iter().any(|named| named != uid) {
        return Err(CsrError::OtherIdentity);
    }
    Ok(csr.certification_request_info.subject_pki.raw.to_vec())
}

/// Whether the first certificate of this PEM text is about that key (R-CSR-08).
pub(super) fn certifies(pem: &[u8], key: &[u8]) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(pem) else { return false };
    X509Certificate::from_der(&der).is_ok_and(|(_, certificate)| certificate.public_key().raw == key)
}

fn verify(der: &[u8], csr: &X509CertificationRequest<'_>, provider: &CryptoProvider) -> Result<(), CsrError> {
    let info = &csr.certification_request_info;
    let signature_algorithm = signature_algorithm(der).ok_or(CsrError::Malformed)?;
    let (_, key) = Sequence::from_der(info.subject_pki.raw).map_err(|_| CsrError::Malformed)?;
    let (_, key_algorithm) = Sequence::from_der(&key.content).map_err(|_| CsrError::Malformed)?;
    let mut fitting = provider
        .signature_verification_algorithms
        .all
        .iter()
        .filter(|algorithm| {
            algorithm.public_key_alg_id().as_ref() == &*key_algorithm.content
                && algorithm.signature_alg_id().as_ref() == &*signature_algorithm
        })
        .peekable();
    if fitting.peek().is_none() {
        return Err(CsrError::UnknownAlgorithm);
    }
    let key = &info.subject_pki.subject_public_key.data;
    let verified = |algorithm: &&dyn rustls::pki_types::SignatureVerificationAlgorithm| {
        algorithm.verify_signature(key, info.raw, &csr.signature_value.data).is_ok()
    };
    if fitting.any(verified) { Ok(()) } else { Err(CsrError::BadSignature) }
}

/// The content of the `AlgorithmIdentifier` of the signature: what comes behind the signed part.
fn signature_algorithm(der: &[u8]) -> Option<Vec<u8>> {
    let (_, request) = Sequence::from_der(der).ok()?;
    let (behind, _) = Sequence::from_der(&request.content).ok()?;
    let (_, algorithm) = Sequence::from_der(behind).ok()?;
    Some(algorithm.content.into_owned())
}

/// Every UUID the request gives as its subject: as common name, or as alternative DNS name or URI (also `urn:uuid:`).
fn identities(csr: &X509CertificationRequest<'_>) -> Vec<InstanceUid> {
    let mut named = Vec::new();
    let mut note =
        |text: &str| named.extend(text.strip_prefix("urn:uuid:").unwrap_or(text).parse::<InstanceUid>().ok());
    for name in csr.certification_request_info.subject.iter_common_name() {
        if let Ok(text) = name.as_str() {
            note(text);
        }
    }
    for extension in csr.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(alternative) = extension else { continue };
        for name in &alternative.general_names {
            if let GeneralName::DNSName(text) | GeneralName::URI(text) = name {
                note(text);
            }
        }
    }
    named
}
