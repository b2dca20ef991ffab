//! The header of WebSocket messages is a varint of 1 to 10 bytes with the value 0 (R-WS-02 to R-WS-06).

use opamp_proto::frame::{self, FrameError, Framing, HEADER};
use proptest::prelude::*;

#[test]
fn a_header_of_one_byte_zero_is_stripped() {
    assert_eq!(frame::decode(&[0, 1, 2, 3]), Ok(&[1, 2, 3][..]));
}

#[test]
fn zero_data_bytes_are_a_message() {
    assert_eq!(frame::decode(&[0]), Ok(&[][..]));
}

#[test]
fn a_long_form_of_zero_is_accepted_up_to_ten_bytes() {
    assert_eq!(frame::decode(&[0x80, 0x00, 7]), Ok(&[7][..]));
    for length in 1..=10 {
        let mut message = vec![0x80; length - 1];
        message.extend([0, 7]);
        assert_eq!(frame::decode(&message), Ok(&[7][..]), "header of {length} bytes");
    }
}

#[test]
fn a_header_of_eleven_bytes_is_rejected() {
    let mut message = vec![0x80; 10];
    message.extend([0, 7]);
    assert_eq!(frame::decode(&message), Err(FrameError::Overlong));
    assert_eq!(frame::decode(&[0x80; 11]), Err(FrameError::Overlong));
}

#[test]
fn a_tenth_byte_beyond_64_bits_is_rejected() {
    let mut message = vec![0x80; 9];
    message.extend([2, 7]);
    assert_eq!(frame::decode(&message), Err(FrameError::Overlong));
    message[9] = 1;
    assert_eq!(frame::decode(&message), Err(FrameError::Header { value: 1 << 63 }));
}

#[test]
fn another_header_value_is_rejected_with_that_value() {
    assert_eq!(frame::decode(&[1, 0x0a, 0]), Err(FrameError::Header { value: 1 }));
    assert_eq!(frame::decode(&[0xac, 0x02]), Err(FrameError::Header { value: 300 }));
    // What an agent from before OpAMP 0.7 sends: protobuf without a header.
    assert_eq!(frame::decode(&[0x0a, 0x10, 0x01]), Err(FrameError::Header { value: 10 }));
    assert!(FrameError::Header { value: 300 }.to_string().contains("300"));
}

#[test]
fn a_message_that_ends_within_the_header_is_rejected() {
    assert_eq!(frame::decode(&[]), Err(FrameError::Truncated));
    for length in 1..=9 {
        assert_eq!(frame::decode(&vec![0x80; length]), Err(FrameError::Truncated));
    }
}

#[test]
fn an_encoded_frame_begins_with_the_header_and_is_appended() {
    let mut out = vec![9];
    frame::encode(&[1, 2], &mut out);
    assert_eq!(out, [9, HEADER, 1, 2]);
}

proptest! {
    #[test]
    fn every_payload_round_trips(payload: Vec<u8>) {
        let mut message = Vec::new();
        frame::encode(&payload, &mut message);
        prop_assert_eq!(message.len(), payload.len() + 1);
        prop_assert_eq!(frame::decode(&message), Ok(&payload[..]));
    }

    #[test]
    fn a_header_reads_as_prost_reads_a_varint(message in prop::collection::vec(any::<u8>(), 0..14)) {
        let mut rest = &message[..];
        let expected = prost::decode_length_delimiter(&mut rest);
        match frame::decode(&message) {
            Ok(payload) => {
                prop_assert_eq!(expected, Ok(0));
                prop_assert_eq!(payload, rest);
            }
            Err(FrameError::Header { value }) => prop_assert_eq!(expected, Ok(value as usize)),
            Err(FrameError::Overlong | FrameError::Truncated) => prop_assert!(expected.is_err()),
        }
    }

    #[test]
    fn a_message_without_header_is_told_from_one_with_it(uid: [u8; 16], sequence: u64) {
        let mut payload = Vec::new();
        opamp_proto::encode::bytes_field(1, &uid, &mut payload);
        opamp_proto::encode::varint_field(2, sequence, &mut payload);
        prop_assert_eq!(frame::decode_either(&payload), Ok((&payload[..], Framing::Headerless)));
        let mut framed = Vec::new();
        frame::encode(&payload, &mut framed);
        prop_assert_eq!(frame::decode_either(&framed), Ok((&payload[..], Framing::Header)));
        prop_assert_eq!(frame::decode_either(&[]), Err(FrameError::Truncated));
    }

    #[test]
    fn every_value_but_zero_is_named(value in 1..=u64::MAX) {
        let mut message = Vec::new();
        opamp_proto::encode::varint(value, &mut message);
        prop_assert_eq!(frame::decode(&message), Err(FrameError::Header { value }));
    }
}
