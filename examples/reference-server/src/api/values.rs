//! Protocol values as the API shows them.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use opamp_proto::{AgentId, ConfigHash, InstanceUid, Wall, pb};
use serde_json::{Map, Number, Value, json};

use super::schema::{Schema, reply};

reply! {
    /// One file of a configuration. Text is given as it is, anything else in base64.
    pub(crate) struct ConfigFile {
        /// MIME type, empty if not given.
        content_type: String,
        /// Role within the configuration, defined by the agent type; empty if not given.
        role: String,
        /// Size of the content in bytes.
        size_bytes: u64,
        /// The content, if it is UTF-8 text.
        body: Option<String>,
        /// The content in base64, if it is not text.
        body_base64: Option<String>,
    }
}

reply! {
    /// Health of an agent or of one of its components.
    pub(crate) struct HealthNode {
        /// Whether it is up and well.
        healthy: bool,
        /// When it started; null while it is not running.
        start_time: Option<Wall>,
        /// What is wrong, in the agent's words.
        last_error: String,
        /// Status word of the agent's own.
        status: String,
        /// When this was observed.
        status_time: Option<Wall>,
        /// Further attributes.
        attributes: Value,
        /// Sub-components by name.
        components: BTreeMap<String, HealthNode>,
    }
}

reply! {
    /// A component that is built into an agent: a type, not a running instance.
    pub(crate) struct Component {
        /// What the agent says about it.
        metadata: Value,
        /// What it consists of, by name.
        sub_components: BTreeMap<String, Component>,
    }
}

/// Bytes as the API gives them: as text if they are, else in base64; never both.
#[derive(Default)]
pub(crate) struct TextOrBytes {
    pub(crate) text: Option<String>,
    pub(crate) base64: Option<String>,
}

pub(crate) fn text_or_bytes(bytes: &[u8]) -> TextOrBytes {
    match std::str::from_utf8(bytes) {
        Ok(text) => TextOrBytes { text: Some(text.to_owned()), base64: None },
        Err(_) => TextOrBytes { text: None, base64: Some(BASE64.encode(bytes)) },
    }
}

impl From<&pb::AgentConfigObject> for ConfigFile {
    fn from(object: &pb::AgentConfigObject) -> Self {
        let TextOrBytes { text, base64 } = text_or_bytes(&object.body);
        ConfigFile {
            content_type: object.content_type.clone(),
            role: object.role.clone(),
            size_bytes: object.body.len() as u64,
            body: text,
            body_base64: base64,
        }
    }
}

impl From<&pb::ComponentDetails> for Component {
    fn from(component: &pb::ComponentDetails) -> Self {
        Component {
            metadata: attributes(&component.metadata),
            sub_components: components(&component.sub_component_map),
        }
    }
}

/// Components by name, with all they consist of.
pub(crate) fn components(map: &BTreeMap<String, pb::ComponentDetails>) -> BTreeMap<String, Component> {
    map.iter().map(|(name, component)| (name.clone(), component.into())).collect()
}

impl From<&pb::ComponentHealth> for HealthNode {
    fn from(health: &pb::ComponentHealth) -> Self {
        let sub_components = health.component_health_map.iter();
        HealthNode {
            healthy: health.healthy,
            start_time: from_nanos(health.start_time_unix_nano),
            last_error: health.last_error.clone(),
            status: health.status.clone(),
            status_time: from_nanos(health.status_time_unix_nano),
            attributes: attributes(&health.attributes),
            components: sub_components.map(|(name, health)| (name.clone(), health.into())).collect(),
        }
    }
}

/// The files of a configuration by name.
pub(crate) fn files(map: &pb::AgentConfigMap) -> BTreeMap<String, ConfigFile> {
    map.config_map.iter().map(|(name, object)| (name.clone(), object.into())).collect()
}

/// A list of attributes as an object; of several entries with one key the last counts.
pub(crate) fn attributes(list: &[pb::KeyValue]) -> Value {
    let entries =
        list.iter().map(|entry| (entry.key.clone(), entry.value.as_ref().map_or(Value::Null, any_value)));
    Value::Object(entries.collect::<Map<_, _>>())
}

/// An attribute value. Bytes become `{"base64": …}`; numbers that JSON does not have become text.
fn any_value(value: &pb::AnyValue) -> Value {
    use pb::any_value::Value as Any;
    match &value.value {
        None => Value::Null,
        Some(Any::StringValue(text)) => text.as_str().into(),
        Some(Any::BoolValue(flag)) => (*flag).into(),
        Some(Any::IntValue(number)) => (*number).into(),
        Some(Any::DoubleValue(number)) => {
            Number::from_f64(*number).map_or_else(|| number.to_string().into(), Value::Number)
        }
        Some(Any::ArrayValue(array)) => array.values.iter().map(any_value).collect::<Vec<_>>().into(),
        Some(Any::KvlistValue(list)) => attributes(&list.values),
        Some(Any::BytesValue(bytes)) => json!({"base64": BASE64.encode(bytes)}),
    }
}

fn from_nanos(nanos: u64) -> Option<Wall> {
    (nanos != 0).then_some(Wall(nanos / 1_000_000))
}

macro_rules! text_schemas {
    ($($type:ty => $format:literal;)*) => {
        $(impl Schema for $type {
            fn schema() -> Value {
                json!({"type": "string", "format": $format})
            }
        })*
    };
}

text_schemas! {
    AgentId => "uuid";
    ConfigHash => "hex";
    InstanceUid => "uuid";
    Wall => "date-time";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(value: pb::any_value::Value) -> pb::AnyValue {
        pb::AnyValue { value: Some(value) }
    }

    #[test]
    fn attribute_values_keep_their_types_in_json() {
        use pb::any_value::Value as Any;
        let list = [
            ("text", Any::StringValue("x".into())),
            ("flag", Any::BoolValue(true)),
            ("int", Any::IntValue(i64::MIN)),
            ("nan", Any::DoubleValue(f64::NAN)),
            ("bytes", Any::BytesValue(vec![0xff].into())),
            (
                "list",
                Any::ArrayValue(pb::ArrayValue {
                    values: vec![value(Any::IntValue(1)), pb::AnyValue::default()],
                }),
            ),
        ];
        let list: Vec<_> = list
            .into_iter()
            .map(|(key, any)| pb::KeyValue { key: key.into(), value: Some(value(any)) })
            .collect();
        let expected = json!({
            "text": "x", "flag": true, "int": i64::MIN, "nan": "NaN", "bytes": {"base64": "/w=="}, "list": [1, null],
        });
        assert_eq!(attributes(&list), expected);
    }

    #[test]
    fn a_file_is_text_or_base64_never_both() {
        let text = pb::AgentConfigObject { body: "a: 1\n".into(), ..Default::default() };
        let file = ConfigFile::from(&text);
        assert_eq!((file.body.as_deref(), file.body_base64.as_deref()), (Some("a: 1\n"), None));
        let binary = pb::AgentConfigObject { body: vec![0xff, 0].into(), ..Default::default() };
        let file = ConfigFile::from(&binary);
        assert_eq!((file.body.as_deref(), file.body_base64.as_deref()), (None, Some("/wA=")));
    }
}
