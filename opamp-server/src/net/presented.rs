//! The credentials a request came with, to be compared with credentials that were offered.

use std::fmt;

use http::{HeaderMap, header};
use opamp_proto::{ConfigHash, Fingerprint};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::peer::PeerInfo;
use crate::desired::ConnectionSettingsOffer;

/// What a request proved itself with, as far as an offer of connection settings can hold it: its `Authorization` header and its
/// client certificate. Fingerprints only.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Presented {
    authorization: Option<Fingerprint>,
    certificate: Option<Fingerprint>,
}

impl Presented {
    pub(crate) fn of(headers: &HeaderMap, peer: Option<&PeerInfo>) -> Self {
        let certificate = peer.and_then(|peer| peer.client_certificate.as_deref());
        Self {
            authorization: headers.get(header::AUTHORIZATION).map(|value| fingerprint(value.as_bytes())),
            certificate: certificate.map(fingerprint),
        }
    }

    /// Whether these are credentials of the OpAMP connection that this offer holds.
    pub(crate) fn are_of(&self, offer: &ConnectionSettingsOffer) -> bool {
        let Some(opamp) = &offer.settings().opamp else { return false };
        let certificate = opamp.certificate.as_ref().and_then(|certificate| {
            let der = CertificateDer::from_pem_slice(&certificate.cert).ok()?;
            Some(fingerprint(&der))
        });
        let headers = opamp.headers.iter().flat_map(|headers| &headers.headers);
        let mut authorizations = headers
            .filter(|header| header.key.eq_ignore_ascii_case(header::AUTHORIZATION.as_str()))
            .map(|header| fingerprint(header.value.as_bytes()));
        (certificate.is_some() && certificate == self.certificate)
            || (self.authorization.is_some()
                && authorizations.any(|offered| Some(offered) == self.authorization))
    }
}

/// Shows what there is, not even its fingerprint.
impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented")
            .field("authorization", &self.authorization.is_some())
            .field("certificate", &self.certificate.is_some())
            .finish()
    }
}

fn fingerprint(bytes: &[u8]) -> Fingerprint {
    ConfigHash::new(bytes.to_vec()).fingerprint()
}
