//! Checks a message and makes its material digest in one walk.

use super::error::{DecodeError, DecodeErrorKind};
use super::validate::{Validator, delimited, key};
use crate::material::{self, Fields};
use crate::schema::{Field, Kind, Message, Shape};
use crate::wire::{self, WireType};

impl Validator<'_> {
    /// Checks a message like [`Validator::message`]. What is accepted has this digest in [`material::digest`] too.
    pub(super) fn digested(
        &mut self,
        schema: &'static Message,
        mut rest: &[u8],
        depth: u32,
    ) -> Result<u64, DecodeError> {
        self.enter(depth)?;
        let mut fields = Fields::default();
        // What is left out of a pair is empty.
        let (mut name, mut value) = (material::bytes_digest(&[]), Fields::default().digest());
        while !rest.is_empty() {
            let (number, wire_type) = key(&mut rest)?;
            let Some(field) = schema.field(number) else {
                rest = self
                    .skip_unknown(number, wire_type, rest, depth)
                    .map_err(|error| error.within_unknown(number))?;
                continue;
            };
            let digest = self
                .digested_value(field, schema.shape, wire_type, &mut rest, depth)
                .map_err(|error| error.within(field.name))?;
            let Some(digest) = digest else { continue };
            match (schema.shape, number) {
                (Shape::Entry, 1) => name = digest,
                (Shape::Entry, _) => value = digest,
                _ if matches!(field.kind, Kind::MessageSequence(_)) => fields.add_in_sequence(number, digest),
                _ => fields.add(number, digest),
            }
        }
        Ok(match schema.shape {
            Shape::Entry => material::pair_digest(name, value),
            Shape::OneOf | Shape::Plain => fields.digest(),
        })
    }

    /// The digest of a value; none if it is not material, or the same as absent.
    #[inline]
    fn digested_value(
        &mut self,
        field: &'static Field,
        shape: Shape,
        wire_type: WireType,
        rest: &mut &[u8],
        depth: u32,
    ) -> Result<Option<u64>, DecodeError> {
        let counts = |is_default: bool| field.material && (!is_default || shape != Shape::Plain);
        // By wire type first, as the other walk does.
        match wire_type {
            WireType::Bytes => {
                let content = delimited(wire_type, rest)?;
                let is_empty = content.is_empty();
                let digest = match field.kind {
                    Kind::Bytes => return Ok(counts(is_empty).then(|| material::bytes_digest(content))),
                    Kind::Text => {
                        self.text(content)?;
                        return Ok(counts(is_empty).then(|| material::bytes_digest(content)));
                    }
                    Kind::TextList => {
                        self.count_list_entry()?;
                        self.text(content)?;
                        material::bytes_digest(content)
                    }
                    Kind::Message(schema) => self.digested_if(field.material, schema, content, depth + 1)?,
                    Kind::MessageList(schema) | Kind::MessageSequence(schema) => {
                        self.count_list_entry()?;
                        self.digested_if(field.material, schema, content, depth + 1)?
                    }
                    Kind::Map(entry) => {
                        self.count_map_entry()?;
                        self.digested_if(field.material, entry, content, depth + 1)?
                    }
                    Kind::Varint | Kind::Fixed64 => return Err(DecodeErrorKind::WireType.into()),
                };
                Ok(field.material.then_some(digest))
            }
            WireType::Varint if matches!(field.kind, Kind::Varint) => {
                let value = wire::varint(rest)?;
                Ok(counts(value == 0).then(|| material::number_digest(value)))
            }
            WireType::Fixed64 if matches!(field.kind, Kind::Fixed64) => {
                let value = wire::fixed64(rest).ok_or(DecodeErrorKind::Truncated)?;
                Ok(counts(value == 0).then(|| material::number_digest(value)))
            }
            _ => Err(DecodeErrorKind::WireType.into()),
        }
    }

    #[inline]
    fn digested_if(
        &mut self,
        material: bool,
        schema: &'static Message,
        content: &[u8],
        depth: u32,
    ) -> Result<u64, DecodeError> {
        if material {
            self.digested(schema, content, depth)
        } else {
            self.message(schema, content, depth).map(|()| 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message as _;

    use super::*;
    use crate::pb::any_value::Value;
    use crate::schema::AGENT_TO_SERVER;
    use crate::{Limits, Part, pb};

    fn attribute(key: &str, value: Option<Value>) -> pb::KeyValue {
        pb::KeyValue { key: key.to_owned(), value: value.map(|value| pb::AnyValue { value: Some(value) }) }
    }

    /// Values of every type, and the default of every type.
    fn attributes() -> Vec<pb::KeyValue> {
        let number = |number| pb::AnyValue { value: Some(Value::IntValue(number)) };
        let array = |values: Vec<_>| Value::ArrayValue(pb::ArrayValue { values });
        let values = [
            Value::StringValue("a".to_owned()),
            Value::StringValue(String::new()),
            Value::BoolValue(true),
            Value::BoolValue(false),
            Value::IntValue(-1),
            Value::IntValue(0),
            Value::DoubleValue(0.5),
            Value::DoubleValue(0.0),
            Value::BytesValue(Bytes::from_static(b"\xff")),
            Value::BytesValue(Bytes::new()),
            array(vec![]),
            array(vec![number(1), number(1), number(2)]),
            Value::KvlistValue(pb::KeyValueList { values: vec![attribute("", None), attribute("", None)] }),
        ];
        (0..).zip(values).map(|(at, value)| attribute(&at.to_string(), Some(value))).collect()
    }

    /// Every field that has a digest.
    fn message() -> pb::AgentToServer {
        let health = |status: &str| pb::ComponentHealth {
            healthy: status.is_empty(),
            start_time_unix_nano: 1,
            last_error: status.to_owned(),
            status: status.to_owned(),
            status_time_unix_nano: 2,
            component_health_map: [].into(),
            attributes: attributes(),
        };
        let package = pb::PackageStatus {
            name: "p".to_owned(),
            status: 3,
            download_details: Some(pb::PackageDownloadDetails {
                download_percent: 1.0,
                ..Default::default()
            }),
            ..Default::default()
        };
        let object = pb::AgentConfigObject { body: Bytes::from_static(b"\xff"), ..Default::default() };
        let config = pb::AgentConfigMap { config_map: [(String::new(), object)].into() };
        let details = pb::ComponentDetails { metadata: attributes(), sub_component_map: [].into() };
        pb::AgentToServer {
            agent_description: Some(pb::AgentDescription {
                identifying_attributes: attributes(),
                non_identifying_attributes: vec![attribute("k", None)],
            }),
            health: Some(pb::ComponentHealth {
                component_health_map: ["", "a", "b"].map(|name| (name.to_owned(), health(name))).into(),
                ..health("up")
            }),
            effective_config: Some(pb::EffectiveConfig { config_map: Some(config) }),
            remote_config_status: Some(pb::RemoteConfigStatus { status: 1, ..Default::default() }),
            package_statuses: Some(pb::PackageStatuses {
                packages: [("p".to_owned(), package)].into(),
                ..Default::default()
            }),
            custom_capabilities: Some(pb::CustomCapabilities {
                capabilities: ["", "a", "a"].map(str::to_owned).into(),
            }),
            available_components: Some(pb::AvailableComponents {
                components: [("c".to_owned(), details)].into(),
                hash: Bytes::new(),
            }),
            ..Default::default()
        }
    }

    #[test]
    fn one_walk_makes_the_digest_of_the_other() {
        let bytes = message().encode_to_vec();
        let decoded = crate::AgentMessage::decode(&bytes, &Limits::default()).unwrap();
        let mut seen = 0;
        for part in Part::ALL {
            let Some(Field { kind: Kind::Message(schema), .. }) = AGENT_TO_SERVER.field(part.field_number())
            else {
                panic!("{part} is a message");
            };
            for encoded in [decoded.part(part), Some(&[])].into_iter().flatten() {
                let digest = Validator::new(&Limits::default()).digested(schema, encoded, 1).unwrap();
                assert_eq!(digest, material::digest(part, encoded), "{part}");
                seen += 1;
            }
        }
        assert_eq!(seen, Part::COUNT + 7);
    }

    #[test]
    fn both_walks_accept_the_same() {
        let bytes = message().encode_to_vec();
        // As many as there are.
        let limits = Limits { list_entries_max: 112, map_entries_max: 6, ..Limits::default() };
        let judged = |bytes: &[u8]| {
            let digested = Validator::new(&limits).digested(&AGENT_TO_SERVER, bytes, 0).map(|_| ());
            assert_eq!(digested, Validator::new(&limits).message(&AGENT_TO_SERVER, bytes, 0));
            digested.is_ok()
        };
        assert!(judged(&bytes));
        let changed = (0..bytes.len() * 8).map(|bit| {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            judged(&changed)
        });
        let accepted = changed.filter(|accepted| *accepted).count();
        assert!((100..bytes.len() * 8 - 100).contains(&accepted), "{accepted}");
        assert!((0..bytes.len()).any(|len| !judged(&bytes[..len])));
    }
}
