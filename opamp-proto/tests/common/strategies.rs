//! Values with many coincidences: few keys, few texts, so that equality is often true.

use bytes::Bytes;
use opamp_proto::pb::any_value::Value;
use opamp_proto::pb::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use proptest::prelude::*;

pub(crate) fn any_value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        Just(None),
        "[ab]{0,2}".prop_map(|text| Some(Value::StringValue(text))),
        any::<bool>().prop_map(|value| Some(Value::BoolValue(value))),
        (-2..3_i64).prop_map(|value| Some(Value::IntValue(value))),
        double().prop_map(|value| Some(Value::DoubleValue(value))),
        prop::collection::vec(0..2_u8, 0..3).prop_map(|bytes| Some(Value::BytesValue(Bytes::from(bytes)))),
    ]
    .prop_map(|value| AnyValue { value });
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|values| AnyValue { value: Some(Value::ArrayValue(ArrayValue { values })) }),
            attributes_of(inner)
                .prop_map(|values| AnyValue { value: Some(Value::KvlistValue(KeyValueList { values })) }),
        ]
    })
}

pub(crate) fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    attributes_of(any_value())
}

fn attributes_of(value: impl Strategy<Value = AnyValue>) -> impl Strategy<Value = Vec<KeyValue>> {
    let pair = ("[abc]?", prop::option::of(value)).prop_map(|(key, value)| KeyValue { key, value });
    prop::collection::vec(pair, 0..4)
}

fn double() -> impl Strategy<Value = f64> {
    prop::sample::select(vec![0.0, -0.0, 1.0, f64::INFINITY, f64::NAN, f64::from_bits(0xfff8_0000_0000_0001)])
}
