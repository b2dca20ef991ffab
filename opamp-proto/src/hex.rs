//! Hexadecimal text, written and read without a dependency.

use std::fmt;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Writes `bytes` as lower-case hexadecimal digits.
pub(crate) fn write(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    // Pieces of a fixed size keep a long hash from becoming one call per digit.
    let mut piece = [0_u8; 64];
    for chunk in bytes.chunks(32) {
        let text = encode_into(chunk, &mut piece);
        f.write_str(text)?;
    }
    Ok(())
}

/// The bytes that `text` spells with two digits each, in either case; `None` for anything else.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

/// The value of one hexadecimal digit in either case.
pub(crate) const fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// The two digits of one byte.
pub(crate) const fn digits(byte: u8) -> [u8; 2] {
    [DIGITS[(byte >> 4) as usize], DIGITS[(byte & 0x0f) as usize]]
}

fn encode_into<'a>(bytes: &[u8], text: &'a mut [u8; 64]) -> &'a str {
    for (pair, &byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = digits(byte);
    }
    // Digits are ASCII, so this cannot fail; an empty text is the harmless answer if it could.
    std::str::from_utf8(&text[..bytes.len() * 2]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_accepts_both_cases_and_rejects_odd_lengths_and_other_characters() {
        assert_eq!(decode("00fFAb"), Some(vec![0x00, 0xff, 0xab]));
        assert_eq!(decode(""), Some(vec![]));
        assert_eq!(decode("0"), None);
        assert_eq!(decode("0g"), None);
        assert_eq!(decode("é"), None);
    }
}
