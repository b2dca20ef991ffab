//! The schema is frozen: names, numbers, types and places of declaration are those of OpAMP v0.20.0 (R-INTEROP-06).

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on should fail")]

mod common;

use std::fmt::Write as _;

use protox::prost_reflect::{
    EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor, Syntax,
};

#[test]
fn the_schema_files_declare_what_the_specification_lists() {
    let listed: Vec<_> = include_str!("data/schema.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    let declared: Vec<_> = ["opamp/v1/anyvalue.proto", "opamp/v1/opamp.proto"]
        .into_iter()
        .flat_map(|name| {
            let file = common::SCHEMA.get_file_by_name(name).expect("the file is compiled");
            listing(&file).lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    for (number, (listed, declared)) in listed.iter().zip(&declared).enumerate() {
        assert_eq!(declared, listed, "declaration {number}");
    }
    assert_eq!(declared.len(), listed.len());
}

#[test]
fn package_imports_options_and_counts_are_those_of_the_specification() {
    let main = common::SCHEMA.get_file_by_name("opamp/v1/opamp.proto").expect("main file");
    let values = common::SCHEMA.get_file_by_name("opamp/v1/anyvalue.proto").expect("file of values");
    assert_eq!((main.messages().count(), main.enums().count()), (37, 10));
    assert_eq!((values.messages().count(), values.enums().count()), (4, 0));
    assert_eq!(main.dependencies().map(|file| file.name().to_owned()).collect::<Vec<_>>(), [values.name()]);
    assert_eq!(values.dependencies().count(), 0);
    assert_eq!((main.services().count(), main.extensions().count()), (0, 0));
    for file in [main, values] {
        assert_eq!(file.package_name(), "opamp.proto.v1");
        assert_eq!(file.syntax(), Syntax::Proto3);
        let options = file.file_descriptor_proto().options.clone().expect("options");
        assert_eq!(options.go_package(), "github.com/open-telemetry/opamp-go/protobufs");
        assert_eq!(options.csharp_namespace(), "OpAmp.Proto.V1");
    }
}

#[test]
fn nothing_is_reserved_optional_or_left_out() {
    for message in common::SCHEMA.all_messages() {
        let name = message.name();
        assert_eq!(message.reserved_ranges().count() + message.reserved_names().count(), 0, "{name}");
        let fields: Vec<_> = message.fields().collect();
        assert!(fields.iter().all(|field| !field.field_descriptor_proto().proto3_optional()), "{name}");
        let numbers: Vec<_> = fields.iter().map(FieldDescriptor::number).collect();
        assert_eq!(numbers, (1..=fields.len() as u32).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn field_numbers_for_splicing_are_those_of_the_schema() {
    use opamp_proto::encode::server_to_agent as number;
    let constants = [
        ("instance_uid", number::INSTANCE_UID),
        ("error_response", number::ERROR_RESPONSE),
        ("remote_config", number::REMOTE_CONFIG),
        ("connection_settings", number::CONNECTION_SETTINGS),
        ("packages_available", number::PACKAGES_AVAILABLE),
        ("flags", number::FLAGS),
        ("capabilities", number::CAPABILITIES),
        ("agent_identification", number::AGENT_IDENTIFICATION),
        ("command", number::COMMAND),
        ("custom_capabilities", number::CUSTOM_CAPABILITIES),
        ("custom_message", number::CUSTOM_MESSAGE),
    ];
    let message = common::message("ServerToAgent");
    let declared: Vec<_> = message.fields().map(|field| (field.name().to_owned(), field.number())).collect();
    assert_eq!(declared, constants.map(|(name, number)| (name.to_owned(), number)));
}

#[test]
fn parts_have_the_names_and_numbers_of_the_schema() {
    use opamp_proto::Part;
    let message = common::message("AgentToServer");
    let declared: Vec<_> = message
        .fields()
        .filter(|field| matches!(field.kind(), Kind::Message(_)))
        .map(|field| (field.name().to_owned(), field.number()))
        .collect();
    assert_eq!(declared, Part::ALL.map(|part| (part.name().to_owned(), part.field_number())));
}

fn listing(file: &FileDescriptor) -> String {
    let mut text = format!("file {}\n", file.name());
    for message in file.messages() {
        list_message(&message, &mut text);
    }
    for descriptor in file.enums() {
        list_enum(&descriptor, &mut text);
    }
    text
}

fn list_message(message: &MessageDescriptor, text: &mut String) {
    let _ = writeln!(text, "message {}", message.name());
    let nested = message.child_messages().filter(|child| !child.is_map_entry()).count();
    assert_eq!(nested + message.child_enums().count(), 0, "{} declares nothing within", message.name());
    for field in message.fields() {
        let _ = write!(text, "  {} {}: {}", field.number(), field.name(), type_name(&field));
        if let Some(one_of) = field.containing_oneof() {
            let _ = write!(text, " in {}", one_of.name());
        }
        text.push('\n');
    }
}

fn list_enum(descriptor: &EnumDescriptor, text: &mut String) {
    let _ = writeln!(text, "enum {}", descriptor.name());
    for value in descriptor.values() {
        let _ = writeln!(text, "  {} {}", value.number(), value.name());
    }
}

fn type_name(field: &FieldDescriptor) -> String {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
            format!("map<{}, {}>", type_name(&key), type_name(&value))
        }
        Kind::Message(message) => repeated(field, message.name()),
        Kind::Enum(descriptor) => repeated(field, descriptor.name()),
        scalar => repeated(field, &format!("{scalar:?}")),
    }
}

fn repeated(field: &FieldDescriptor, name: &str) -> String {
    if field.is_list() { format!("repeated {name}") } else { name.to_owned() }
}
