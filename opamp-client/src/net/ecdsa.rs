//! Keys and requests for certificates, made on this machine.

use futures::future::BoxFuture;
use opamp_proto::InstanceUid;
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};

use super::handler::CertificateRequester;
use crate::config::Rejected;
use crate::connection::{CertificateSigningRequest, Secret};

/// Makes ECDSA P-256 keys, and requests that name the agent's identity as common name of the subject, for client
/// authentication and nothing else.
///
/// ```no_run
/// # use opamp_client::{Client, Description, EcdsaRequester, FileState, connection::SettingsPolicy};
/// # fn start() -> Result<Client, opamp_client::StartError> {
/// Client::builder("wss://opamp.example.com/v1/opamp", Description::new("com.example.agent"))
///     .state(FileState::new("/var/lib/example/opamp-state"))
///     .accept_connection_settings(SettingsPolicy::strict())
///     .certificate_requests(EcdsaRequester::new().organization("Example"))
///     .start()
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct EcdsaRequester {
    organization: Option<String>,
}

impl EcdsaRequester {
    /// Requests with the identity alone.
    #[must_use]
    pub const fn new() -> Self {
        Self { organization: None }
    }

    /// Names an organization in the subject as well.
    #[must_use]
    pub fn organization(mut self, name: impl Into<String>) -> Self {
        self.organization = Some(name.into());
        self
    }

    fn make(&self, uid: InstanceUid) -> Result<CertificateSigningRequest, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, uid.to_string());
        if let Some(organization) = &self.organization {
            params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let csr = params.serialize_request(&key)?.pem()?.into_bytes();
        Ok(CertificateSigningRequest { csr, key: Secret::new(key.serialize_pem()) })
    }
}

impl CertificateRequester for EcdsaRequester {
    fn request(&self, uid: InstanceUid) -> BoxFuture<'_, Result<CertificateSigningRequest, Rejected>> {
        let made = self
            .make(uid)
            .map_err(|error| Rejected::new(format!("no key or request could be made: {error}")));
        Box::pin(std::future::ready(made))
    }
}
