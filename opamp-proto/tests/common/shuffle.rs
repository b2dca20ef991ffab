//! The same message with its fields in another order, at every level: what a peer with unordered maps sends.

use protox::prost_reflect::{Kind, MessageDescriptor};

use opamp_proto::encode;

/// Reverses the order of all fields of an encoded message of this type, but keeps elements of arrays in theirs.
pub(crate) fn reversed(message: &MessageDescriptor, encoded: &[u8]) -> Vec<u8> {
    let mut pieces = Vec::new();
    let mut rest = encoded;
    while !rest.is_empty() {
        let start = rest;
        let key = prost::decode_length_delimiter(&mut rest).expect("a key");
        let mut piece = start[..start.len() - rest.len()].to_vec();
        match key & 7 {
            0 => {
                let before = rest;
                prost::decode_length_delimiter(&mut rest).expect("a number");
                piece.extend_from_slice(&before[..before.len() - rest.len()]);
            }
            1 => {
                let (number, tail) = rest.split_at(8);
                piece.extend_from_slice(number);
                rest = tail;
            }
            2 => {
                let len = prost::decode_length_delimiter(&mut rest).expect("a length");
                let (content, tail) = rest.split_at(len);
                rest = tail;
                let field = message.get_field((key >> 3) as u32).expect("a known field");
                let content = match field.kind() {
                    Kind::Message(below) => reversed(&below, content),
                    _ => content.to_vec(),
                };
                encode::varint(content.len() as u64, &mut piece);
                piece.extend(content);
            }
            other => panic!("wire type {other} in the encoding of prost"),
        }
        pieces.push(piece);
    }
    if message.name() != "ArrayValue" {
        pieces.reverse();
    }
    pieces.concat()
}
