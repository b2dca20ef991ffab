//! Who the agent is: attributes by the resource conventions of OpenTelemetry.

use bytes::Bytes;
use opamp_proto::{InstanceUid, any_value, pb};
use prost::Message as _;

const SERVICE_NAME: &str = "service.name";
const SERVICE_NAMESPACE: &str = "service.namespace";
const SERVICE_VERSION: &str = "service.version";
const SERVICE_INSTANCE_ID: &str = "service.instance.id";

/// The keys of a resource that identify an SDK's agent (R-OTEL-04). The guideline spells the namespace in a way of
/// its own.
const IDENTIFYING: [&str; 4] =
    [SERVICE_NAME, SERVICE_INSTANCE_ID, SERVICE_NAMESPACE, "service.namespace.name"];

/// Who the agent is: attributes that together single it out, and others that describe it (spec section
/// "AgentDescription").
///
/// ```
/// use opamp_client::Description;
///
/// let description = Description::new("com.example.collector")
///     .version("1.4.2")
///     .namespace("edge")
///     .attribute("deployment.environment.name", "production");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    identifying: Vec<pb::KeyValue>,
    others: Vec<pb::KeyValue>,
    mirrors_uid: bool,
}

/// The value of an attribute; made from text, numbers, truth values, lists, or any `AnyValue`.
#[derive(Clone, Debug, PartialEq)]
pub struct AttributeValue(pb::AnyValue);

impl Description {
    /// An agent of a type, which is a reverse domain name such as `com.example.collector` (R-DESC-04). Its
    /// `service.instance.id` is the instance uid and follows it (R-DESC-05). The operating system and the architecture
    /// this program was built for are there as well (R-DESC-06).
    pub fn new(service_name: impl Into<String>) -> Self {
        let described = Self { identifying: Vec::new(), others: Vec::new(), mirrors_uid: true };
        described
            .identifying(SERVICE_NAME, service_name.into())
            .attribute("os.type", os_type())
            .attribute("host.arch", host_arch())
    }

    /// The agent inside an SDK, described by the SDK's resource: its service name, instance id and namespace
    /// identify, all else describes, with the values the telemetry has (R-OTEL-04 to R-OTEL-06).
    pub fn from_resource<K, V>(attributes: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<String>,
        V: Into<AttributeValue>,
    {
        let mut described = Self { identifying: Vec::new(), others: Vec::new(), mirrors_uid: true };
        for (key, value) in attributes {
            let key = key.into();
            described = if IDENTIFYING.contains(&key.as_str()) {
                described.identifying(key, value)
            } else {
                described.attribute(key, value)
            };
        }
        described
    }

    /// The build of the agent, `service.version`.
    #[must_use]
    pub fn version(self, version: impl Into<String>) -> Self {
        self.identifying(SERVICE_VERSION, version.into())
    }

    /// The namespace, `service.namespace`.
    #[must_use]
    pub fn namespace(self, namespace: impl Into<String>) -> Self {
        self.identifying(SERVICE_NAMESPACE, namespace.into())
    }

    /// An attribute that, with the others, singles out this agent's telemetry (R-DESC-03). A second one of the same key
    /// replaces the first. A `service.instance.id` set here no longer follows the instance uid.
    #[must_use]
    pub fn identifying(mut self, key: impl Into<String>, value: impl Into<AttributeValue>) -> Self {
        let key = key.into();
        self.mirrors_uid &= key != SERVICE_INSTANCE_ID;
        put(&mut self.identifying, key, value.into());
        self
    }

    /// An attribute that describes the agent without identifying it.
    #[must_use]
    pub fn attribute(mut self, key: impl Into<String>, value: impl Into<AttributeValue>) -> Self {
        put(&mut self.others, key.into(), value.into());
        self
    }

    /// The attributes that identify the agent while it has this uid, in canonical order; what its own telemetry
    /// should carry in its resource (R-DESC-02).
    #[must_use]
    pub fn identifying_attributes(&self, uid: &InstanceUid) -> Vec<pb::KeyValue> {
        let mut identifying = self.identifying.clone();
        if self.mirrors_uid {
            put(&mut identifying, SERVICE_INSTANCE_ID.to_owned(), uid.to_string().into());
        }
        any_value::canonical_attributes(&identifying)
    }

    /// The canonical encoding: descriptions that mean the same have the same bytes.
    pub(crate) fn encode(&self, uid: &InstanceUid) -> Bytes {
        let message = pb::AgentDescription {
            identifying_attributes: self.identifying_attributes(uid),
            non_identifying_attributes: any_value::canonical_attributes(&self.others),
        };
        message.encode_to_vec().into()
    }
}

impl From<AttributeValue> for pb::AnyValue {
    fn from(value: AttributeValue) -> Self {
        value.0
    }
}

impl From<pb::AnyValue> for AttributeValue {
    fn from(value: pb::AnyValue) -> Self {
        Self(value)
    }
}

impl<V: Into<AttributeValue>> From<Vec<V>> for AttributeValue {
    fn from(values: Vec<V>) -> Self {
        let values = values.into_iter().map(|value| value.into().0).collect();
        Self::of(pb::any_value::Value::ArrayValue(pb::ArrayValue { values }))
    }
}

macro_rules! attribute_from {
    ($($type:ty => $variant:ident,)+) => {
        $(impl From<$type> for AttributeValue {
            fn from(value: $type) -> Self {
                Self::of(pb::any_value::Value::$variant(value.into()))
            }
        })+
    };
}

attribute_from! {
    &str => StringValue,
    String => StringValue,
    bool => BoolValue,
    i32 => IntValue,
    i64 => IntValue,
    u32 => IntValue,
    f64 => DoubleValue,
    Bytes => BytesValue,
}

impl AttributeValue {
    const fn of(value: pb::any_value::Value) -> Self {
        Self(pb::AnyValue { value: Some(value) })
    }
}

fn put(attributes: &mut Vec<pb::KeyValue>, key: String, value: AttributeValue) {
    attributes.retain(|attribute| attribute.key != key);
    attributes.push(pb::KeyValue { key, value: Some(value.0) });
}

/// The value of `os.type` in the resource conventions.
const fn os_type() -> &'static str {
    match std::env::consts::OS.as_bytes() {
        b"macos" => "darwin",
        _ => std::env::consts::OS,
    }
}

/// The value of `host.arch` in the resource conventions.
const fn host_arch() -> &'static str {
    match std::env::consts::ARCH.as_bytes() {
        b"x86_64" => "amd64",
        b"aarch64" => "arm64",
        b"arm" => "arm32",
        b"powerpc64" => "ppc64",
        _ => std::env::consts::ARCH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: InstanceUid = InstanceUid::from_bytes([7; 16]);

    fn decoded(description: &Description, uid: &InstanceUid) -> pb::AgentDescription {
        pb::AgentDescription::decode(description.encode(uid)).unwrap()
    }

    fn text(attributes: &[pb::KeyValue], key: &str) -> Option<String> {
        let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
        match attribute.value.as_ref()?.value.as_ref()? {
            pb::any_value::Value::StringValue(text) => Some(text.clone()),
            other => panic!("{key} is {other:?}"),
        }
    }

    #[test]
    fn a_standalone_agent_is_described_by_the_keys_of_the_conventions() {
        let description = Description::new("com.example.agent").version("1.2").namespace("edge");
        let message = decoded(&description, &UID);
        let identifying = &message.identifying_attributes;
        assert_eq!(text(identifying, "service.name").as_deref(), Some("com.example.agent"));
        assert_eq!(text(identifying, "service.version").as_deref(), Some("1.2"));
        assert_eq!(text(identifying, "service.namespace").as_deref(), Some("edge"));
        assert_eq!(text(identifying, "service.instance.id"), Some(UID.to_string()));
        assert!(text(&message.non_identifying_attributes, "os.type").is_some());
        assert!(text(&message.non_identifying_attributes, "host.arch").is_some());
    }

    #[test]
    fn two_agents_of_one_type_differ_in_an_identifying_attribute() {
        let description = Description::new("com.example.agent");
        let other = InstanceUid::from_bytes([8; 16]);
        assert_ne!(description.identifying_attributes(&UID), description.identifying_attributes(&other));
    }

    #[test]
    fn an_instance_id_of_its_own_does_not_follow_the_uid() {
        let description = Description::new("a").identifying("service.instance.id", "pod-3");
        let message = decoded(&description, &UID);
        assert_eq!(text(&message.identifying_attributes, "service.instance.id").as_deref(), Some("pod-3"));
    }

    #[test]
    fn the_agent_of_an_sdk_copies_its_resource() {
        let resource = [
            ("service.name", "shop"),
            ("service.namespace.name", "eu"),
            ("service.instance.id", "7"),
            ("cloud.region", "x"),
            ("team", "blue"),
        ];
        let message = decoded(&Description::from_resource(resource), &UID);
        let keys = |attributes: &[pb::KeyValue]| -> Vec<String> {
            attributes.iter().map(|attribute| attribute.key.clone()).collect()
        };
        assert_eq!(
            keys(&message.identifying_attributes),
            ["service.instance.id", "service.name", "service.namespace.name"]
        );
        assert_eq!(keys(&message.non_identifying_attributes), ["cloud.region", "team"]);
        assert_eq!(text(&message.identifying_attributes, "service.instance.id").as_deref(), Some("7"));
    }

    #[test]
    fn the_order_in_which_attributes_are_given_has_no_meaning() {
        let a = Description::new("a").attribute("x", 1).attribute("y", vec!["p", "q"]);
        let b = Description::new("a").attribute("y", vec!["p", "q"]).attribute("x", 1);
        assert_eq!(a.encode(&UID), b.encode(&UID));
        let c = Description::new("a").attribute("x", 1).attribute("y", vec!["q", "p"]);
        assert_ne!(a.encode(&UID), c.encode(&UID), "the order within a list has");
    }
}
