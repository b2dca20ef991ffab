//! JSON shapes of the API: one declaration gives the Rust type, its (de)serialisation and its OpenAPI schema.
//!
//! `reply!` declares what the server sends: every field is always there, `null` where there is nothing to say.
//! `request!` declares what it takes: unknown fields are refused, `Option` fields may be left out.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// A type with an OpenAPI 3.1 schema.
pub(crate) trait Schema {
    /// Whether the field may be absent or null.
    const OPTIONAL: bool = false;

    /// The schema, as it stands where the type is used: objects are references into the components.
    fn schema() -> Value;

    /// Adds the definitions that [`Schema::schema`] refers to.
    fn define(_components: &mut Map<String, Value>) {}
}

macro_rules! scalar {
    ($($type:ty => $schema:expr;)*) => {
        $(impl Schema for $type {
            fn schema() -> Value {
                $schema
            }
        })*
    };
}

scalar! {
    bool => json!({"type": "boolean"});
    u8 => json!({"type": "integer", "minimum": 0, "maximum": 255});
    i32 => json!({"type": "integer"});
    u32 => json!({"type": "integer", "minimum": 0});
    u64 => json!({"type": "integer", "minimum": 0});
    f64 => json!({"type": "number"});
    String => json!({"type": "string"});
    &'static str => json!({"type": "string"});
    Value => json!({});
}

impl<T: Schema> Schema for Option<T> {
    const OPTIONAL: bool = true;

    fn schema() -> Value {
        json!({"anyOf": [T::schema(), {"type": "null"}]})
    }

    fn define(components: &mut Map<String, Value>) {
        T::define(components);
    }
}

impl<T: Schema> Schema for Vec<T> {
    fn schema() -> Value {
        json!({"type": "array", "items": T::schema()})
    }

    fn define(components: &mut Map<String, Value>) {
        T::define(components);
    }
}

impl<T: Schema> Schema for BTreeMap<String, T> {
    fn schema() -> Value {
        json!({"type": "object", "additionalProperties": T::schema()})
    }

    fn define(components: &mut Map<String, Value>) {
        T::define(components);
    }
}

/// Declares a type that the server sends.
macro_rules! reply {
    ($(#[doc = $doc:literal])+ pub(crate) struct $name:ident { $($(#[doc = $field_doc:literal])+ $field:ident: $type:ty,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Debug, serde::Serialize)]
        pub(crate) struct $name { $($(#[doc = $field_doc])+ pub(crate) $field: $type,)+ }

        $crate::api::schema::object_schema! { $name [$($doc)+] all { $([$($field_doc)+] $field: $type,)+ } }
    };
}

/// Declares a type that the server takes.
macro_rules! request {
    ($(#[doc = $doc:literal])+ pub(crate) struct $name:ident { $($(#[doc = $field_doc:literal])+ $field:ident: $type:ty,)+ }) => {
        $(#[doc = $doc])+
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $name { $($(#[doc = $field_doc])+ pub(crate) $field: $type,)+ }

        $crate::api::schema::object_schema! { $name [$($doc)+] given { $([$($field_doc)+] $field: $type,)+ } }
    };
}

macro_rules! object_schema {
    ($name:ident [$($doc:literal)+] $required:ident { $([$($field_doc:literal)+] $field:ident: $type:ty,)+ }) => {
        impl $crate::api::schema::Schema for $name {
            fn schema() -> serde_json::Value {
                serde_json::json!({"$ref": concat!("#/components/schemas/", stringify!($name))})
            }

            fn define(components: &mut serde_json::Map<String, serde_json::Value>) {
                if components.contains_key(stringify!($name)) {
                    return;
                }
                // Entered before the fields are visited, so that a type may contain itself.
                components.insert(stringify!($name).into(), serde_json::Value::Null);
                let all = stringify!($required) == "all";
                let mut object = $crate::api::schema::ObjectSchema::new(&[$($doc),+]);
                $({
                    let required = all || !<$type as $crate::api::schema::Schema>::OPTIONAL;
                    let schema = <$type as $crate::api::schema::Schema>::schema();
                    object.field(stringify!($field), &[$($field_doc),+], schema, required);
                    <$type as $crate::api::schema::Schema>::define(components);
                })+
                components.insert(stringify!($name).into(), object.finish());
            }
        }
    };
}

pub(crate) use {object_schema, reply, request};

/// Collects the parts of an object's schema for the macros above.
pub(crate) struct ObjectSchema {
    description: String,
    properties: Map<String, Value>,
    required: Vec<Value>,
}

impl ObjectSchema {
    pub(crate) fn new(doc: &[&str]) -> Self {
        ObjectSchema { description: joined(doc), properties: Map::new(), required: Vec::new() }
    }

    pub(crate) fn field(&mut self, name: &str, doc: &[&str], schema: Value, required: bool) {
        // `r#type` and the like.
        let name = name.strip_prefix("r#").unwrap_or(name);
        let mut schema = schema;
        if let Some(object) = schema.as_object_mut() {
            object.insert("description".into(), joined(doc).into());
        }
        self.properties.insert(name.into(), schema);
        if required {
            self.required.push(name.into());
        }
    }

    pub(crate) fn finish(self) -> Value {
        json!({
            "type": "object",
            "description": self.description,
            "properties": self.properties,
            "required": self.required,
            "additionalProperties": false,
        })
    }
}

fn joined(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}
