//! Identity from a verified client certificate.

use futures::future::BoxFuture;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{AuthRequest, Authenticate, Denied, DeniedReason, principal};
use crate::snapshot::{Principal, PrincipalKind};

/// Takes the identity from the client certificate that the TLS handshake verified.
///
/// The identity is the first URI of the subject alternative name, else its first DNS name; a certificate without that
/// extension is known by its common name: names that survive a renewal, which a fingerprint would not. Possession of the key is proven by the handshake;
/// a certificate that arrives in any other way is no identity.
#[derive(Clone, Copy, Debug, Default)]
pub struct MutualTls;

impl Authenticate for MutualTls {
    fn authenticate<'a>(&'a self, request: AuthRequest<'a>) -> BoxFuture<'a, Result<Principal, Denied>> {
        let certificate = request.peer.and_then(|peer| peer.client_certificate.as_deref());
        let outcome = match certificate {
            None => Err(DeniedReason::MissingCredentials.into()),
            Some(der) => match identity(der) {
                Some(name) => Ok(principal(PrincipalKind::Certificate, &name)),
                None => Err(DeniedReason::Malformed.into()),
            },
        };
        Box::pin(std::future::ready(outcome))
    }
}

fn identity(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    // Names that cannot be read are no leave to fall back to another one.
    let extension = certificate.subject_alternative_name().ok()?;
    let names =
        extension.as_ref().map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let uri = names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let dns = names.iter().find_map(|name| match name {
        GeneralName::DNSName(dns) => Some(*dns),
        _ => None,
    });
    let common_name = match extension {
        None => certificate.subject().iter_common_name().find_map(|name| name.as_str().ok()),
        Some(_) => None,
    };
    uri.or(dns).or(common_name).filter(|name| !name.is_empty()).map(str::to_owned)
}
