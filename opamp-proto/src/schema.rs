//! The shape of `AgentToServer` and everything below it, as tables that the validator and the digests walk.
//!
//! A test compares the tables with the compiled schema files, field by field.

/// A message type. Field numbers run from 1 upwards without holes, so a field's place in `fields` is its number less one.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) shape: Shape,
    pub(crate) fields: &'static [Field],
}

/// What presence means in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A key and a value. Either may be left out when it is empty: entries of maps, and `KeyValue`.
    Entry,
    /// At most one field is set, and even its default is written: `AnyValue`.
    OneOf,
    /// A default and an absent field are the same, but for sub-messages.
    Plain,
}

/// A field of a message type.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Whether a change of the field is a material change of the whole; see [`crate::material`].
    pub(crate) material: bool,
}

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// `bool`, `int64`, `uint64` and enums.
    Varint,
    /// `fixed64` and `double`.
    Fixed64,
    Bytes,
    Text,
    Message(&'static Message),
    /// A list of strings.
    TextList,
    /// A list of messages whose order has no meaning.
    MessageList(&'static Message),
    /// A list of messages whose order has meaning.
    MessageSequence(&'static Message),
    /// A map, as a list of entries with `key` and `value`.
    Map(&'static Message),
}

impl Message {
    pub(crate) fn field(&self, number: u32) -> Option<&'static Field> {
        self.fields.get(usize::try_from(number).ok()?.checked_sub(1)?)
    }
}

const fn message(fields: &'static [Field]) -> Message {
    Message { shape: Shape::Plain, fields }
}

const fn entry(fields: &'static [Field; 2]) -> Message {
    Message { shape: Shape::Entry, fields }
}

const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, material: true }
}

/// A field that ticks, or only illustrates, without a change of state.
const fn immaterial(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, material: false }
}

pub(crate) static AGENT_TO_SERVER: Message = message(&[
    field("instance_uid", Kind::Bytes),
    field("sequence_num", Kind::Varint),
    field("agent_description", Kind::Message(&AGENT_DESCRIPTION)),
    field("capabilities", Kind::Varint),
    field("health", Kind::Message(&COMPONENT_HEALTH)),
    field("effective_config", Kind::Message(&EFFECTIVE_CONFIG)),
    field("remote_config_status", Kind::Message(&REMOTE_CONFIG_STATUS)),
    field("package_statuses", Kind::Message(&PACKAGE_STATUSES)),
    field("agent_disconnect", Kind::Message(&AGENT_DISCONNECT)),
    field("flags", Kind::Varint),
    field("connection_settings_request", Kind::Message(&CONNECTION_SETTINGS_REQUEST)),
    field("custom_capabilities", Kind::Message(&CUSTOM_CAPABILITIES)),
    field("custom_message", Kind::Message(&CUSTOM_MESSAGE)),
    field("available_components", Kind::Message(&AVAILABLE_COMPONENTS)),
    field("connection_settings_status", Kind::Message(&CONNECTION_SETTINGS_STATUS)),
]);

static AGENT_DESCRIPTION: Message = message(&[
    field("identifying_attributes", Kind::MessageList(&KEY_VALUE)),
    field("non_identifying_attributes", Kind::MessageList(&KEY_VALUE)),
]);

pub(crate) static COMPONENT_HEALTH: Message = message(&[
    field("healthy", Kind::Varint),
    immaterial("start_time_unix_nano", Kind::Fixed64),
    field("last_error", Kind::Text),
    field("status", Kind::Text),
    immaterial("status_time_unix_nano", Kind::Fixed64),
    field("component_health_map", Kind::Map(&COMPONENT_HEALTH_ENTRY)),
    immaterial("attributes", Kind::MessageList(&KEY_VALUE)),
]);

static COMPONENT_HEALTH_ENTRY: Message =
    entry(&[field("key", Kind::Text), field("value", Kind::Message(&COMPONENT_HEALTH))]);

static EFFECTIVE_CONFIG: Message = message(&[field("config_map", Kind::Message(&AGENT_CONFIG_MAP))]);

static AGENT_CONFIG_MAP: Message = message(&[field("config_map", Kind::Map(&AGENT_CONFIG_ENTRY))]);

static AGENT_CONFIG_ENTRY: Message =
    entry(&[field("key", Kind::Text), field("value", Kind::Message(&AGENT_CONFIG_OBJECT))]);

static AGENT_CONFIG_OBJECT: Message =
    message(&[field("body", Kind::Bytes), field("content_type", Kind::Text), field("role", Kind::Text)]);

static REMOTE_CONFIG_STATUS: Message = message(&[
    field("last_remote_config_hash", Kind::Bytes),
    field("status", Kind::Varint),
    field("error_message", Kind::Text),
]);

static CONNECTION_SETTINGS_STATUS: Message = message(&[
    field("last_connection_settings_hash", Kind::Bytes),
    field("status", Kind::Varint),
    field("error_message", Kind::Text),
]);

static PACKAGE_STATUSES: Message = message(&[
    field("packages", Kind::Map(&PACKAGE_STATUS_ENTRY)),
    field("server_provided_all_packages_hash", Kind::Bytes),
    field("error_message", Kind::Text),
]);

static PACKAGE_STATUS_ENTRY: Message =
    entry(&[field("key", Kind::Text), field("value", Kind::Message(&PACKAGE_STATUS))]);

static PACKAGE_STATUS: Message = message(&[
    field("name", Kind::Text),
    field("agent_has_version", Kind::Text),
    field("agent_has_hash", Kind::Bytes),
    field("server_offered_version", Kind::Text),
    field("server_offered_hash", Kind::Bytes),
    field("status", Kind::Varint),
    field("error_message", Kind::Text),
    immaterial("download_details", Kind::Message(&PACKAGE_DOWNLOAD_DETAILS)),
]);

static PACKAGE_DOWNLOAD_DETAILS: Message =
    message(&[field("download_percent", Kind::Fixed64), field("download_bytes_per_second", Kind::Fixed64)]);

static AGENT_DISCONNECT: Message = message(&[]);

static CONNECTION_SETTINGS_REQUEST: Message =
    message(&[field("opamp", Kind::Message(&OPAMP_CONNECTION_SETTINGS_REQUEST))]);

static OPAMP_CONNECTION_SETTINGS_REQUEST: Message =
    message(&[field("certificate_request", Kind::Message(&CERTIFICATE_REQUEST))]);

static CERTIFICATE_REQUEST: Message = message(&[field("csr", Kind::Bytes)]);

static CUSTOM_CAPABILITIES: Message = message(&[field("capabilities", Kind::TextList)]);

static CUSTOM_MESSAGE: Message =
    message(&[field("capability", Kind::Text), field("type", Kind::Text), field("data", Kind::Bytes)]);

static AVAILABLE_COMPONENTS: Message =
    message(&[field("components", Kind::Map(&COMPONENT_DETAILS_ENTRY)), field("hash", Kind::Bytes)]);

static COMPONENT_DETAILS: Message = message(&[
    field("metadata", Kind::MessageList(&KEY_VALUE)),
    field("sub_component_map", Kind::Map(&COMPONENT_DETAILS_ENTRY)),
]);

static COMPONENT_DETAILS_ENTRY: Message =
    entry(&[field("key", Kind::Text), field("value", Kind::Message(&COMPONENT_DETAILS))]);

static KEY_VALUE: Message = entry(&[field("key", Kind::Text), field("value", Kind::Message(&ANY_VALUE))]);

static ANY_VALUE: Message = Message {
    shape: Shape::OneOf,
    fields: &[
        field("string_value", Kind::Text),
        field("bool_value", Kind::Varint),
        field("int_value", Kind::Varint),
        field("double_value", Kind::Fixed64),
        field("array_value", Kind::Message(&ARRAY_VALUE)),
        field("kvlist_value", Kind::Message(&KEY_VALUE_LIST)),
        field("bytes_value", Kind::Bytes),
    ],
};

static ARRAY_VALUE: Message = message(&[field("values", Kind::MessageSequence(&ANY_VALUE))]);

static KEY_VALUE_LIST: Message = message(&[field("values", Kind::MessageList(&KEY_VALUE))]);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use protox::prost_reflect as reflect;

    use super::*;

    #[test]
    fn tables_are_what_the_schema_files_declare() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
        let files = protox::compile(["opamp/v1/opamp.proto"], [root]).unwrap();
        let schema = reflect::DescriptorPool::from_file_descriptor_set(files).unwrap();
        let declared = schema.get_message_by_name("opamp.proto.v1.AgentToServer").unwrap();
        let mut seen = BTreeSet::new();
        compare(&AGENT_TO_SERVER, &declared, &mut seen);
        // All 23 messages that an agent can send, and the 5 kinds of map entries among them.
        assert_eq!(seen.len(), 28, "{seen:?}");
    }

    fn compare(table: &Message, declared: &reflect::MessageDescriptor, seen: &mut BTreeSet<String>) {
        if !seen.insert(declared.full_name().to_owned()) {
            return;
        }
        let name = declared.full_name();
        let shape = match declared.name() {
            "AnyValue" => Shape::OneOf,
            "KeyValue" => Shape::Entry,
            _ if declared.is_map_entry() => Shape::Entry,
            _ => Shape::Plain,
        };
        assert_eq!(table.shape, shape, "{name}");
        assert_eq!(declared.oneofs().count(), usize::from(shape == Shape::OneOf), "{name}");
        assert_eq!(table.fields.len(), declared.fields().count(), "{name}");
        for (at, (field, declared)) in table.fields.iter().zip(declared.fields()).enumerate() {
            assert_eq!((at + 1, field.name), (declared.number() as usize, declared.name()), "{name}");
            assert_eq!(kind_name(field.kind), declared_kind_name(&declared), "{}", declared.full_name());
            if let (Some(below), reflect::Kind::Message(declared)) = (below(field.kind), declared.kind()) {
                compare(below, &declared, seen);
            }
        }
    }

    fn kind_name(kind: Kind) -> &'static str {
        match kind {
            Kind::Varint => "varint",
            Kind::Fixed64 => "fixed64",
            Kind::Bytes => "bytes",
            Kind::Text => "text",
            Kind::TextList => "texts",
            Kind::Message(_) => "message",
            Kind::MessageList(_) => "messages",
            Kind::MessageSequence(_) => "messages in order",
            Kind::Map(_) => "map",
        }
    }

    fn declared_kind_name(field: &reflect::FieldDescriptor) -> &'static str {
        match field.kind() {
            reflect::Kind::Message(_) if field.is_map() => "map",
            reflect::Kind::Message(_) if field.full_name() == "opamp.proto.v1.ArrayValue.values" => {
                "messages in order"
            }
            reflect::Kind::Message(_) if field.is_list() => "messages",
            reflect::Kind::Message(_) => "message",
            reflect::Kind::String if field.is_list() => "texts",
            _ if field.is_list() => "a list that the tables cannot express",
            reflect::Kind::String => "text",
            reflect::Kind::Bytes => "bytes",
            reflect::Kind::Double | reflect::Kind::Fixed64 => "fixed64",
            reflect::Kind::Bool | reflect::Kind::Int64 | reflect::Kind::Uint64 | reflect::Kind::Enum(_) => {
                "varint"
            }
            _ => "a type that the tables cannot express",
        }
    }

    fn below(kind: Kind) -> Option<&'static Message> {
        match kind {
            Kind::Message(message)
            | Kind::MessageList(message)
            | Kind::MessageSequence(message)
            | Kind::Map(message) => Some(message),
            Kind::Varint | Kind::Fixed64 | Kind::Bytes | Kind::Text | Kind::TextList => None,
        }
    }
}
