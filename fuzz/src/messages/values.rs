//! Attribute values.

use bytes::Bytes;
use opamp_proto::pb::any_value::Value;
use opamp_proto::pb::{AnyValue, ArrayValue, KeyValue, KeyValueList};

use super::{DEPTH_MAX, list, some};
use crate::tape::Tape;

/// A value of any type, with many coincidences: few keys, few texts, so that equality is often true.
#[must_use]
pub fn any_value(tape: &mut Tape<'_>) -> AnyValue {
    nested_value(tape, DEPTH_MAX)
}

/// A list of attributes, whose keys may repeat.
#[must_use]
pub fn attributes(tape: &mut Tape<'_>) -> Vec<KeyValue> {
    nested_attributes(tape, DEPTH_MAX)
}

fn nested_value(tape: &mut Tape<'_>, depth: u32) -> AnyValue {
    let value = match tape.below(if depth == 0 { 6 } else { 8 }) {
        0 => None,
        1 => Some(Value::StringValue(tape.text())),
        2 => Some(Value::BoolValue(tape.flag())),
        3 => Some(Value::IntValue(tape.number() as i64)),
        4 => Some(Value::DoubleValue(double(tape))),
        5 => Some(Value::BytesValue(Bytes::copy_from_slice(tape.bytes(4)))),
        6 => {
            let values = list(tape, |tape| nested_value(tape, depth - 1));
            Some(Value::ArrayValue(ArrayValue { values }))
        }
        _ => {
            let values = nested_attributes(tape, depth - 1);
            Some(Value::KvlistValue(KeyValueList { values }))
        }
    };
    AnyValue { value }
}

fn nested_attributes(tape: &mut Tape<'_>, depth: u32) -> Vec<KeyValue> {
    const KEYS: [&str; 6] = ["service.name", "service.version", "os.type", "a", "", "host.name"];
    list(tape, |tape| KeyValue {
        key: tape.pick(&KEYS).to_owned(),
        value: some(tape, |tape| nested_value(tape, depth)),
    })
}

fn double(tape: &mut Tape<'_>) -> f64 {
    const DOUBLES: [f64; 7] = [0.0, -0.0, 1.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE, 0.1];
    match tape.below(DOUBLES.len() + 1) {
        place if place < DOUBLES.len() => DOUBLES[place],
        _ => f64::from_bits(tape.number().rotate_left(48)),
    }
}
