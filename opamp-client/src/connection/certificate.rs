//! Certificates that the agent asks for, and how long a certificate lasts.

use std::fmt;

use super::secret::Secret;

/// A request for a client certificate, with the key that never leaves the agent (spec section "CertificateRequest").
///
/// The key is kept until the certificate arrives, with the rest of the agent's state: in a [`FileState`](crate::FileState)
/// that is a file for its owner alone.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateSigningRequest {
    /// The signing request, as PEM, signed with the key.
    pub csr: Vec<u8>,
    /// The private key, as PEM.
    pub key: Secret,
}

/// Shows how long they are.
impl fmt::Debug for CertificateSigningRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateSigningRequest({} bytes)", self.csr.len())
    }
}

/// From when to when a certificate is valid, in milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) from_ms: u64,
    pub(crate) until_ms: u64,
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

impl Validity {
    /// Of the first certificate in PEM text; `None` if it cannot be told. No more of it is read than what it takes
    /// (RFC 5280 §4.1).
    pub(crate) fn of_pem(pem: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(pem).ok()?;
        let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----")?;
        let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
        Self::of_der(&base64(body)?)
    }

    fn of_der(der: &[u8]) -> Option<Self> {
        let mut certificate = expect(&mut &*der, SEQUENCE)?;
        let mut tbs = expect(&mut certificate, SEQUENCE)?;
        if tbs.first() == Some(&VERSION) {
            expect(&mut tbs, VERSION)?;
        }
        expect(&mut tbs, INTEGER)?;
        expect(&mut tbs, SEQUENCE)?; // algorithm
        expect(&mut tbs, SEQUENCE)?; // issuer
        let mut validity = expect(&mut tbs, SEQUENCE)?;
        let (from_ms, until_ms) = (time(&mut validity)?, time(&mut validity)?);
        Some(Self { from_ms, until_ms })
    }
}

/// Takes the element of this tag off the start of `rest` and returns its content.
fn expect<'a>(rest: &mut &'a [u8], wanted: u8) -> Option<&'a [u8]> {
    let (tag, content) = element(rest)?;
    (tag == wanted).then_some(content)
}

fn element<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&[tag, length], mut tail) = rest.split_first_chunk()?;
    let mut bytes = usize::from(length);
    if length & 0x80 != 0 {
        let digits = usize::from(length & 0x7f);
        if !(1..=4).contains(&digits) {
            return None;
        }
        let (number, after) = tail.split_at_checked(digits)?;
        bytes = number.iter().fold(0, |value, digit| value << 8 | usize::from(*digit));
        tail = after;
    }
    let (content, after) = tail.split_at_checked(bytes)?;
    *rest = after;
    Some((tag, content))
}

/// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ`, as certificates have it (RFC 5280 §4.1.2.5).
fn time(rest: &mut &[u8]) -> Option<u64> {
    let (tag, content) = element(rest)?;
    let text = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match tag {
        UTC_TIME if text.len() == 12 => {
            let year: u64 = text[..2].parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &text[2..])
        }
        GENERALIZED_TIME if text.len() == 14 => (text[..4].parse().ok()?, &text[4..]),
        _ => return None,
    };
    let number = |at: usize| rest[at..at + 2].parse::<u64>().ok();
    let (month, day, hour, minute, second) = (number(0)?, number(2)?, number(4)?, number(6)?, number(8)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_since_epoch(year, month, day)?;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000)
}

/// Days from 1 January 1970 in the Gregorian calendar. A year is counted from March, so that the day that some years
/// have more is its last.
fn days_since_epoch(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let month = (month + 9) % 12;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 306 + 5) / 10 + day - 1;
    days.checked_sub(719_468)
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for symbol in text.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=') {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        (bits, count) = (bits << 6 | u32::from(value), count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use opamp_testkit::certs::Authority;
    use proptest::prelude::*;

    use super::*;

    const YEAR_2000_MS: u64 = 946_684_800_000;

    #[test]
    fn the_validity_of_a_certificate_is_read() {
        let authority = Authority::new("ca");
        let expired = authority.expired_client("agent");
        let validity = Validity::of_pem(expired.cert_pem.as_bytes()).unwrap();
        assert_eq!(validity.until_ms, YEAR_2000_MS);
        assert_eq!(YEAR_2000_MS - validity.from_ms, 365 * 24 * 3_600_000);
        let other = Validity::of_pem(authority.client("agent", &[]).cert_pem.as_bytes()).unwrap();
        assert!(other.from_ms < other.until_ms);
        assert_eq!(Validity::of_pem(b"nothing of the kind"), None);
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (date, days) in [
            ((1970, 1, 1), 0),
            ((1970, 12, 31), 364),
            ((2000, 2, 29), 11_016),
            ((2000, 3, 1), 11_017),
            ((2026, 11, 20), 20_777),
        ] {
            assert_eq!(days_since_epoch(date.0, date.1, date.2), Some(days), "{date:?}");
        }
        assert_eq!(days_since_epoch(1960, 1, 1), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut: usize) {
            let _ = Validity::of_der(&bytes);
            let der = Authority::new("ca").client("agent", &[]).cert.to_vec();
            let _ = Validity::of_der(&der[..cut % der.len()]);
        }
    }
}
