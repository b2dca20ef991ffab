//! Equality of attribute values is what it says it is, and not its opposite for arrays and maps.

mod common;

use std::cmp::Ordering;

use bytes::Bytes;
use common::strategies::{any_value, attributes};
use opamp_proto::any_value::{attributes_eq, canonical, canonical_attributes, canonical_cmp, canonical_eq};
use opamp_proto::pb::any_value::Value;
use opamp_proto::pb::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use proptest::prelude::*;
use prost::Message;

fn value(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn int(number: i64) -> AnyValue {
    value(Value::IntValue(number))
}

fn array(values: impl IntoIterator<Item = AnyValue>) -> AnyValue {
    value(Value::ArrayValue(ArrayValue { values: values.into_iter().collect() }))
}

fn list<'a>(pairs: impl IntoIterator<Item = (&'a str, AnyValue)>) -> AnyValue {
    let pair = |(key, value): (&str, AnyValue)| KeyValue { key: key.to_owned(), value: Some(value) };
    value(Value::KvlistValue(KeyValueList { values: pairs.into_iter().map(pair).collect() }))
}

const NULL: AnyValue = AnyValue { value: None };

#[test]
fn equal_arrays_are_equal_and_different_ones_are_not() {
    assert!(canonical_eq(&array([int(1), int(2)]), &array([int(1), int(2)])));
    assert!(!canonical_eq(&array([int(1), int(2)]), &array([int(2), int(1)])));
    assert!(!canonical_eq(&array([int(1)]), &array([int(1), int(1)])));
    assert!(canonical_eq(&array([]), &array([])));
    assert!(!canonical_eq(&array([]), &NULL));
}

#[test]
fn equal_maps_are_equal_in_any_order_and_different_ones_are_not() {
    assert!(canonical_eq(&list([("a", int(1)), ("b", int(2))]), &list([("b", int(2)), ("a", int(1))])));
    assert!(!canonical_eq(&list([("a", int(1)), ("b", int(2))]), &list([("a", int(2)), ("b", int(1))])));
    assert!(!canonical_eq(&list([("a", int(1))]), &list([("a", int(1)), ("b", int(2))])));
    assert!(!canonical_eq(&list([("a", int(1))]), &list([("b", int(1))])));
    assert!(!canonical_eq(&list([]), &array([])));
}

#[test]
fn of_a_repeated_key_the_last_value_counts() {
    assert!(canonical_eq(&list([("a", int(1)), ("a", int(2))]), &list([("a", int(2))])));
    assert!(!canonical_eq(&list([("a", int(1)), ("a", int(2))]), &list([("a", int(1))])));
}

#[test]
fn order_within_nested_values_counts_as_it_does_on_top() {
    let a = array([list([("x", array([int(1)])), ("y", NULL)])]);
    let b = array([list([("y", NULL), ("x", array([int(1)]))])]);
    assert!(canonical_eq(&a, &b));
    assert!(!canonical_eq(&a, &array([list([("y", NULL), ("x", array([int(2)]))])])));
}

#[test]
fn doubles_are_equal_by_bits_and_every_nan_is_the_same() {
    let double = |number| value(Value::DoubleValue(number));
    assert!(canonical_eq(&double(f64::NAN), &double(-f64::NAN)));
    assert!(canonical_eq(&double(f64::NAN), &double(f64::from_bits(0x7ff0_0000_0000_0001))));
    assert!(!canonical_eq(&double(0.0), &double(-0.0)));
    assert!(canonical_eq(&double(0.1), &double(0.1)));
}

#[test]
fn values_of_different_types_are_different() {
    let values = [
        NULL,
        value(Value::StringValue("1".to_owned())),
        value(Value::BoolValue(true)),
        int(1),
        value(Value::DoubleValue(1.0)),
        array([]),
        list([]),
        value(Value::BytesValue(Bytes::from_static(b"1"))),
    ];
    for (i, a) in values.iter().enumerate() {
        for (j, b) in values.iter().enumerate() {
            assert_eq!(canonical_cmp(a, b), i.cmp(&j));
        }
    }
}

#[test]
fn a_pair_without_value_is_null_and_not_absent() {
    let without = [KeyValue { key: "a".to_owned(), value: None }];
    assert!(attributes_eq(&without, &[KeyValue { key: "a".to_owned(), value: Some(NULL) }]));
    assert!(!attributes_eq(&without, &[]));
}

/// Reverses key/value lists at every level, and puts in front of each pair one of the same key that it overrides.
fn shuffled(original: &AnyValue) -> AnyValue {
    match &original.value {
        Some(Value::ArrayValue(inner)) => array(inner.values.iter().map(shuffled)),
        Some(Value::KvlistValue(inner)) => {
            value(Value::KvlistValue(KeyValueList { values: shuffled_attributes(&inner.values) }))
        }
        other => AnyValue { value: other.clone() },
    }
}

fn shuffled_attributes(attributes: &[KeyValue]) -> Vec<KeyValue> {
    let canonical = canonical_attributes(attributes);
    let overridden = canonical.iter().map(|pair| KeyValue { key: pair.key.clone(), value: Some(int(77)) });
    let meant = canonical
        .iter()
        .rev()
        .map(|pair| KeyValue { key: pair.key.clone(), value: pair.value.as_ref().map(shuffled) });
    overridden.chain(meant).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn equality_is_reflexive(a in any_value()) {
        prop_assert!(canonical_eq(&a, &a));
        prop_assert!(canonical_eq(&a, &a.clone()));
    }

    #[test]
    fn equality_is_symmetric_and_the_order_total(a in any_value(), b in any_value(), c in any_value()) {
        prop_assert_eq!(canonical_eq(&a, &b), canonical_eq(&b, &a));
        prop_assert_eq!(canonical_cmp(&a, &b), canonical_cmp(&b, &a).reverse());
        prop_assert_eq!(canonical_eq(&a, &b), canonical_cmp(&a, &b) == Ordering::Equal);
        let mut sorted = [a, b, c];
        sorted.sort_by(canonical_cmp);
        prop_assert!(canonical_cmp(&sorted[0], &sorted[2]).is_le());
    }

    #[test]
    fn values_are_equal_exactly_when_their_canonical_forms_are(a in any_value(), b in any_value()) {
        let same_form = canonical(&a).encode_to_vec() == canonical(&b).encode_to_vec();
        prop_assert_eq!(canonical_eq(&a, &b), same_form);
    }

    #[test]
    fn the_canonical_form_means_the_same_and_is_its_own(a in any_value()) {
        let form = canonical(&a);
        prop_assert!(canonical_eq(&a, &form));
        prop_assert_eq!(canonical(&form).encode_to_vec(), form.encode_to_vec());
    }

    #[test]
    fn order_of_pairs_and_overridden_pairs_mean_nothing(a in any_value(), attributes in attributes()) {
        prop_assert!(canonical_eq(&a, &shuffled(&a)));
        prop_assert!(attributes_eq(&attributes, &shuffled_attributes(&attributes)));
    }

    #[test]
    fn attribute_lists_are_equal_like_key_value_lists(a in attributes(), b in attributes()) {
        let wrap = |values| value(Value::KvlistValue(KeyValueList { values }));
        prop_assert_eq!(attributes_eq(&a, &b), canonical_eq(&wrap(a.clone()), &wrap(b.clone())));
    }
}
