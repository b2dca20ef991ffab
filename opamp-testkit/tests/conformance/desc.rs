//! R-DESC: agent description.

use opamp_proto::pb::any_value::Value;
use opamp_proto::{Part, pb};

use super::common::*;

fn any(value: Value) -> pb::AnyValue {
    pb::AnyValue { value: Some(value) }
}

/// One attribute of every kind, nested ones included, and what an unset value and the values that look unset are.
fn every_kind() -> Vec<pb::KeyValue> {
    let list = Value::ArrayValue(pb::ArrayValue {
        values: vec![any(text("x")), any(Value::IntValue(-1)), pb::AnyValue { value: None }],
    });
    let nested = Value::KvlistValue(pb::KeyValueList {
        values: vec![attribute("inner", list.clone()), attribute("again", text("y"))],
    });
    vec![
        attribute("string", text("späße")),
        attribute("empty", text("")),
        attribute("true", Value::BoolValue(true)),
        attribute("false", Value::BoolValue(false)),
        attribute("int", Value::IntValue(i64::MIN)),
        attribute("zero", Value::IntValue(0)),
        attribute("double", Value::DoubleValue(-0.0)),
        attribute("huge", Value::DoubleValue(f64::MAX)),
        attribute("bytes", Value::BytesValue(vec![0, 0xff, b'\n'].into())),
        attribute("list", list),
        attribute("nested", nested),
        pb::KeyValue { key: "null".to_owned(), value: None },
    ]
}

on_both_transports! {
    /// R-DESC-07.
    async fn attributes_of_every_kind_are_kept(wire: Wire) {
        let server = TestServer::start().await;
        let mut persona = Persona::new(1);
        persona.description = pb::AgentDescription {
            identifying_attributes: every_kind(),
            non_identifying_attributes: every_kind().into_iter().rev().collect(),
        };
        let agent = server.agent(wire, persona).await;
        let kept: pb::AgentDescription = server.part(agent.persona.uid, Part::AgentDescription).unwrap();
        assert_eq!(kept.encode_to_vec(), agent.persona.description.encode_to_vec(), "to the bit");
    }
}
