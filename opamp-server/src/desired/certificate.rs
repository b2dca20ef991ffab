//! As much of PEM and X.509 as it takes to tell a certificate that signs itself from one that a CA signed.

use super::validate::InvalidOffer;

const CERTIFICATE: &str = "CERTIFICATE";

/// Whether the first certificate of this PEM text names itself as its issuer.
pub(super) fn is_self_signed(pem: &[u8], field: &str) -> Result<bool, InvalidOffer> {
    let field = || field.to_owned();
    if pem.is_empty() {
        return Err(InvalidOffer::Missing { field: field() });
    }
    let der = block(pem, CERTIFICATE)
        .ok_or_else(|| InvalidOffer::NotPem { field: field(), expected: CERTIFICATE })?;
    let names = names(&der).ok_or_else(|| InvalidOffer::NotACertificate { field: field() })?;
    Ok(names.0 == names.1)
}

/// Whether this PEM text holds a private key of any format.
pub(super) fn check_key(pem: &[u8], field: String) -> Result<(), InvalidOffer> {
    let labels = ["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"];
    match labels.into_iter().any(|label| block(pem, label).is_some_and(|der| !der.is_empty())) {
        true => Ok(()),
        false => Err(InvalidOffer::NotPem { field, expected: labels[0] }),
    }
}

/// The bytes of the first PEM block with this label (RFC 7468).
fn block(pem: &[u8], label: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let digits: String = body.split_ascii_whitespace().collect();
    data_encoding::BASE64.decode(digits.as_bytes()).ok()
}

/// The encoded issuer and subject of a certificate (RFC 5280 §4.1).
fn names(der: &[u8]) -> Option<(&[u8], &[u8])> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (_, certificate) = element(&mut { der }, SEQUENCE)?;
    let (_, to_be_signed) = element(&mut { certificate }, SEQUENCE)?;
    let mut rest = to_be_signed;
    if rest.first() == Some(&VERSION) {
        element(&mut rest, VERSION)?;
    }
    element(&mut rest, 0x02)?; // serial number
    element(&mut rest, SEQUENCE)?; // signature algorithm
    let (issuer, _) = element(&mut rest, SEQUENCE)?;
    element(&mut rest, SEQUENCE)?; // validity
    let (subject, _) = element(&mut rest, SEQUENCE)?;
    Some((issuer, subject))
}

/// Takes one DER element with this tag off the front: the whole of it, and its content.
fn element<'a>(rest: &mut &'a [u8], tag: u8) -> Option<(&'a [u8], &'a [u8])> {
    let whole = *rest;
    let (&found, after) = whole.split_first()?;
    let (&first, mut after) = after.split_first()?;
    let length = match first {
        short @ 0..=0x7f => usize::from(short),
        0x81..=0x84 => {
            let (digits, tail) = after.split_at_checked(usize::from(first & 0x7f))?;
            after = tail;
            digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit))
        }
        _ => return None,
    };
    let (content, tail) = after.split_at_checked(length)?;
    *rest = tail;
    (found == tag).then(|| (&whole[..whole.len() - tail.len()], content))
}
