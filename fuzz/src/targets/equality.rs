//! Equality of attribute values is an equality, blind to what has no meaning and to nothing else, and agrees with the
//! digest by which a server tells a change from a repetition.

use std::cmp::Ordering;

use opamp_proto::any_value::{attributes_eq, canonical, canonical_attributes, canonical_cmp, canonical_eq};
use opamp_proto::pb::any_value::Value;
use opamp_proto::pb::{AgentDescription, AnyValue, ArrayValue, KeyValue, KeyValueList};
use opamp_proto::{Part, material};
use prost::Message as _;

use crate::messages;
use crate::tape::Tape;

pub(crate) fn run(input: &[u8]) {
    let mut tape = Tape::new(input);
    let (a, b) = (messages::attributes(&mut tape), messages::attributes(&mut tape));
    let values = [&a, &b].map(|values| list(values.clone()));
    let third = messages::any_value(&mut tape);

    an_order(&[&values[0], &values[1], &third]);
    for value in values.iter().chain([&third]) {
        let form = canonical(value);
        assert!(canonical_eq(value, &form));
        assert_eq!(canonical(&form).encode_to_vec(), form.encode_to_vec(), "the canonical form is its own");
        assert!(
            canonical_eq(value, &shuffled(value, &mut tape)),
            "order and what is overridden mean nothing"
        );
    }

    let equal = attributes_eq(&a, &b);
    assert_eq!(equal, canonical_eq(&values[0], &values[1]), "attributes are equal like a list of pairs");
    let forms = [&a, &b].map(|values| canonical_attributes(values));
    let encodings = [&forms[0], &forms[1]].map(|form| list(form.clone()).encode_to_vec());
    assert_eq!(equal, encodings[0] == encodings[1], "what is equal has the same canonical form");
    // Each key once: a digest sees all pairs of a repeated key, where equality sees the last.
    let digests = [&forms[0], &forms[1]].map(|form| digest(form));
    assert_eq!(equal, digests[0] == digests[1], "the digest sees a change where there is one");
    let mut reversed = forms[0].clone();
    reversed.reverse();
    assert_eq!(digest(&reversed), digests[0], "and none in another order");
}

/// Reflexive, symmetric, transitive and total.
fn an_order(values: &[&AnyValue; 3]) {
    for x in values {
        assert!(canonical_cmp(x, x) == Ordering::Equal);
        for y in values {
            assert_eq!(canonical_cmp(x, y), canonical_cmp(y, x).reverse());
            assert_eq!(canonical_eq(x, y), canonical_cmp(x, y).is_eq());
            for z in values {
                if canonical_cmp(x, y).is_le() && canonical_cmp(y, z).is_le() {
                    assert!(canonical_cmp(x, z).is_le());
                }
            }
        }
    }
}

fn digest(attributes: &[KeyValue]) -> u64 {
    let description =
        AgentDescription { identifying_attributes: attributes.to_vec(), non_identifying_attributes: vec![] };
    material::digest(Part::AgentDescription, &description.encode_to_vec())
}

fn list(values: Vec<KeyValue>) -> AnyValue {
    AnyValue { value: Some(Value::KvlistValue(KeyValueList { values })) }
}

/// The same value in other words: pairs in another order at every level, some preceded by one that they override.
fn shuffled(value: &AnyValue, tape: &mut Tape<'_>) -> AnyValue {
    let value = match &value.value {
        Some(Value::ArrayValue(array)) => {
            let values = array.values.iter().map(|value| shuffled(value, tape)).collect();
            Some(Value::ArrayValue(ArrayValue { values }))
        }
        Some(Value::KvlistValue(list)) => {
            let mut values = Vec::new();
            for pair in canonical_attributes(&list.values) {
                let meant = KeyValue {
                    value: pair.value.as_ref().map(|value| shuffled(value, tape)),
                    key: pair.key.clone(),
                };
                let at = tape.below(values.len() + 1);
                values.insert(at, meant);
                if tape.flag() {
                    values.insert(tape.below(at + 1), KeyValue { key: pair.key, value: None });
                }
            }
            Some(Value::KvlistValue(KeyValueList { values }))
        }
        other => other.clone(),
    };
    AnyValue { value }
}

pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let pair = [1, 0, 1, 1, 2, 1, 2];
    vec![
        ("equal", [pair, pair].concat()),
        ("nested", vec![2, 0, 1, 7, 2, 3, 1, 6, 1, 3, 5, 3, 1, 4, 3, 1, 3, 1, 7, 1, 0, 1, 2, 1]),
        ("doubles", vec![2, 0, 1, 4, 3, 1, 1, 4, 0, 2, 1, 1, 4, 1, 0, 1, 4, 3]),
        ("repeated", vec![2, 3, 1, 3, 1, 3, 1, 3, 2, 1, 3, 1, 3, 2]),
    ]
}
