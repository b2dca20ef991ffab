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

/// What of the credentials that were offered a request came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// The `Authorization` header, which others may have been given too.
    Authorization,
    /// The client certificate, which only one can prove to have.
    Certificate,
    Nothing,
}

impl Presented {
    pub(crate) fn of(headers: &HeaderMap, peer: Option<&PeerInfo>) -> Self {
        let certificate = peer.and_then(|peer| peer.client_certificate.as_deref());
        Self {
            authorization: headers.get(header::AUTHORIZATION).map(|value| fingerprint(value.as_bytes())),
            certificate: certificate.map(fingerprint),
        }
    }

    /// What these say about the credentials for the OpAMP connection that this offer holds. Beside a certificate the header is
    /// nobody's proof: the one belongs to one agent, the other perhaps to the whole fleet.
    pub(crate) fn matched(&self, offer: &ConnectionSettingsOffer) -> Match {
        let Some(opamp) = &offer.settings().opamp else { return Match::Nothing };
        let certificate = opamp.certificate.as_ref().and_then(|certificate| {
            let der = CertificateDer::from_pem_slice(&certificate.cert).ok()?;
            Some(fingerprint(&der))
        });
        let headers = opamp.headers.iter().flat_map(|headers| &headers.headers);
        let mut authorizations = headers
            .filter(|header| header.key.eq_ignore_ascii_case(header::AUTHORIZATION.as_str()))
            .map(|header| fingerprint(header.value.as_bytes()));
        if opamp.certificate.as_ref().is_some_and(|certificate| !certificate.cert.is_empty()) {
            let same = certificate.is_some() && certificate == self.certificate;
            return if same { Match::Certificate } else { Match::Nothing };
        }
        let same =
            self.authorization.is_some() && authorizations.any(|offered| Some(offered) == self.authorization);
        if same { Match::Authorization } else { Match::Nothing }
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

#[cfg(test)]
mod tests {
    use opamp_proto::pb;

    use super::*;

    /// A token may be the whole fleet's; the certificate beside it is one agent's.
    #[test]
    fn a_header_beside_a_certificate_proves_nothing() {
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let header = pb::Header { key: "Authorization".to_owned(), value: "Bearer fleet".to_owned() };
        let offer = |certificate: Option<&str>| {
            let certificate = certificate.map(|pem| pb::TlsCertificate {
                cert: pem.as_bytes().to_vec().into(),
                ..pb::TlsCertificate::default()
            });
            let headers = Some(pb::Headers { headers: vec![header.clone()] });
            let opamp = pb::OpAmpConnectionSettings { headers, certificate, ..Default::default() };
            let settings = pb::ConnectionSettingsOffers { opamp: Some(opamp), ..Default::default() };
            ConnectionSettingsOffer::restored(settings)
        };
        let token = Presented { authorization: Some(fingerprint(b"Bearer fleet")), certificate: None };
        assert_eq!(token.matched(&offer(None)), Match::Authorization);
        assert_eq!(token.matched(&offer(Some(pem))), Match::Nothing);
        assert_eq!(
            token.matched(&offer(Some("no PEM"))),
            Match::Nothing,
            "nor beside one that cannot be read"
        );
        let both = Presented { certificate: Some(fingerprint(&[0, 0, 0])), ..token };
        assert_eq!(both.matched(&offer(Some(pem))), Match::Certificate);
        let other = Presented { certificate: Some(fingerprint(&[1, 1, 1])), ..token };
        assert_eq!(other.matched(&offer(Some(pem))), Match::Nothing);
    }
}
