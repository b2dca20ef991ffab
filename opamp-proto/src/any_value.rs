//! Equality and order of attribute values by what they mean.
//!
//! The messages of the schema compare field by field, which is too narrow for attributes: the same list of pairs arrives in
//! another order from every peer whose language has unordered maps. Here
//!
//! - key/value lists and attribute lists are sets by key: order has no meaning, and of a repeated key the last value counts;
//! - arrays are compared element by element, in order;
//! - doubles are compared by their bits, except that one NaN is as good as another: 0.0 and -0.0 differ;
//! - a value of another type is another value: the integer 1, the double 1.0 and the text "1" all differ;
//! - no value, and a value with nothing set, are both null. A key with null differs from no such key.

use std::cmp::Ordering;

use crate::pb::any_value::Value;
use crate::pb::{AnyValue, ArrayValue, KeyValue, KeyValueList};

/// Whether two values mean the same.
#[must_use]
pub fn canonical_eq(a: &AnyValue, b: &AnyValue) -> bool {
    canonical_cmp(a, b).is_eq()
}

/// A total order of values, in which those that mean the same are equal: by type in the order of field numbers, null
/// first; within a type as one expects, maps by their sorted pairs.
#[must_use]
pub fn canonical_cmp(a: &AnyValue, b: &AnyValue) -> Ordering {
    match (&a.value, &b.value) {
        (Some(Value::StringValue(a)), Some(Value::StringValue(b))) => a.cmp(b),
        (Some(Value::BoolValue(a)), Some(Value::BoolValue(b))) => a.cmp(b),
        (Some(Value::IntValue(a)), Some(Value::IntValue(b))) => a.cmp(b),
        (Some(Value::DoubleValue(a)), Some(Value::DoubleValue(b))) => one_nan(*a).total_cmp(&one_nan(*b)),
        (Some(Value::ArrayValue(a)), Some(Value::ArrayValue(b))) => {
            compare_all(&a.values, &b.values, canonical_cmp)
        }
        (Some(Value::KvlistValue(a)), Some(Value::KvlistValue(b))) => attributes_cmp(&a.values, &b.values),
        (Some(Value::BytesValue(a)), Some(Value::BytesValue(b))) => a.cmp(b),
        (a, b) => rank(a.as_ref()).cmp(&rank(b.as_ref())),
    }
}

/// Whether two lists of attributes mean the same.
#[must_use]
pub fn attributes_eq(a: &[KeyValue], b: &[KeyValue]) -> bool {
    attributes_cmp(a, b).is_eq()
}

/// The one value among those that mean the same which has its pairs sorted by key and each key once, every pair a
/// value, and every NaN the same bits. Values that mean the same have the same canonical form and so the same encoding.
#[must_use]
pub fn canonical(value: &AnyValue) -> AnyValue {
    let value = match &value.value {
        Some(Value::DoubleValue(double)) => Some(Value::DoubleValue(one_nan(*double))),
        Some(Value::ArrayValue(array)) => {
            Some(Value::ArrayValue(ArrayValue { values: array.values.iter().map(canonical).collect() }))
        }
        Some(Value::KvlistValue(list)) => {
            Some(Value::KvlistValue(KeyValueList { values: canonical_attributes(&list.values) }))
        }
        other => other.clone(),
    };
    AnyValue { value }
}

/// The canonical form of a list of attributes; see [`canonical`].
#[must_use]
pub fn canonical_attributes(attributes: &[KeyValue]) -> Vec<KeyValue> {
    let canonical_pair =
        |(key, value): (&str, &AnyValue)| KeyValue { key: key.to_owned(), value: Some(canonical(value)) };
    sorted(attributes).into_iter().map(canonical_pair).collect()
}

fn attributes_cmp(a: &[KeyValue], b: &[KeyValue]) -> Ordering {
    compare_all(&sorted(a), &sorted(b), |a, b| a.0.cmp(b.0).then_with(|| canonical_cmp(a.1, b.1)))
}

/// The pairs by ascending key, each key once with its last value.
fn sorted(attributes: &[KeyValue]) -> Vec<(&str, &AnyValue)> {
    const NULL: &AnyValue = &AnyValue { value: None };
    fn pair(attribute: &KeyValue) -> (&str, &AnyValue) {
        (&attribute.key, attribute.value.as_ref().unwrap_or(NULL))
    }
    // Backwards, so that of equal keys the last comes first in a stable sort, and survives.
    let mut pairs: Vec<_> = attributes.iter().rev().map(pair).collect();
    pairs.sort_by_key(|&(key, _)| key);
    pairs.dedup_by_key(|&mut (key, _)| key);
    pairs
}

fn compare_all<T>(a: &[T], b: &[T], mut compare: impl FnMut(&T, &T) -> Ordering) -> Ordering {
    let difference = a.iter().zip(b).map(|(a, b)| compare(a, b)).find(|ordering| ordering.is_ne());
    difference.unwrap_or_else(|| a.len().cmp(&b.len()))
}

fn one_nan(double: f64) -> f64 {
    if double.is_nan() { f64::NAN } else { double }
}

const fn rank(value: Option<&Value>) -> u8 {
    match value {
        None => 0,
        Some(Value::StringValue(_)) => 1,
        Some(Value::BoolValue(_)) => 2,
        Some(Value::IntValue(_)) => 3,
        Some(Value::DoubleValue(_)) => 4,
        Some(Value::ArrayValue(_)) => 5,
        Some(Value::KvlistValue(_)) => 6,
        Some(Value::BytesValue(_)) => 7,
    }
}
