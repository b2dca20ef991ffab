//! The header in front of WebSocket messages, against a reading of its definition that takes every detour.

use opamp_proto::frame::{self, FrameError};

use crate::memory::measured;

pub(crate) fn run(input: &[u8]) {
    let (decoded, allocated) = measured(|| frame::decode(input));
    assert_eq!(allocated.count_total, 0, "decoding a header allocates nothing");
    assert_eq!(decoded, expected(input));

    let mut framed = Vec::new();
    frame::encode(input, &mut framed);
    assert_eq!(framed.len(), input.len() + 1);
    assert_eq!(frame::decode(&framed), Ok(input));
}

/// An unsigned varint of at most 64 bits in at most 10 bytes, seven bits in each, the lowest first.
fn expected(input: &[u8]) -> Result<&[u8], FrameError> {
    let length = input.iter().take(10).position(|byte| byte & 0x80 == 0).map(|last| last + 1);
    let header = &input[..length.unwrap_or(input.len().min(10))];
    let groups = header.iter().rev().map(|byte| u128::from(byte & 0x7f));
    let value = groups.fold(0_u128, |value, group| value << 7 | group);
    match (length, u64::try_from(value)) {
        (Some(length), Ok(0)) => Ok(&input[length..]),
        (Some(_), Ok(value)) => Err(FrameError::Header { value }),
        (None, _) if header.len() < 10 => Err(FrameError::Truncated),
        (None, _) | (_, Err(_)) => Err(FrameError::Overlong),
    }
}

pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let padded = [[0x80].repeat(9), vec![0, 1]].concat();
    let largest = [[0xff].repeat(9), vec![1]].concat();
    vec![
        ("plain", vec![0, 0x0a, 0x01, 0x07]),
        ("padded", padded),
        ("largest", largest),
        ("version-one", vec![1, 2, 3]),
        ("truncated", vec![0x80, 0x80]),
    ]
}
