//! Holds every answer of the REST API against the OpenAPI document: an undocumented status, field or type fails the test
//! that met it.

use std::sync::LazyLock;

use serde_json::Value;

static DOCUMENT: LazyLock<Value> = LazyLock::new(reference_server::openapi_document);

/// Checks one answer. Paths that are not the API's, and methods a path does not have, are not described.
pub fn check(method: &str, path: &str, status: u16, body: &[u8]) {
    let path = path.split('?').next().unwrap();
    let Some(operation) = operation(method, path) else {
        assert!(
            !(200..300).contains(&status) || !path.starts_with("/api/"),
            "{method} {path} is not described"
        );
        return;
    };
    let place = format!("{method} {path} {status}");
    let response = &operation["responses"][status.to_string()];
    assert!(response.is_object(), "{place}: the status is not described: {}", String::from_utf8_lossy(body));
    let schema = &response["content"]["application/json"]["schema"];
    if schema.is_null() {
        assert!(body.is_empty(), "{place}: a body is not described");
        return;
    }
    let value: Value = serde_json::from_slice(body).unwrap_or_else(|error| panic!("{place}: {error}"));
    if let Err(problem) = validate(&value, schema) {
        panic!("{place}: {problem}\n{value:#}");
    }
}

fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let paths = DOCUMENT["paths"].as_object().unwrap();
    // A fixed segment is more specific than a parameter: `/audit/verify` before `/agents/{id}`.
    let mut matching: Vec<_> = paths.iter().filter(|(template, _)| matches(template, path)).collect();
    matching.sort_by_key(|(template, _)| template.matches('{').count());
    matching.first()?.1.get(method.to_ascii_lowercase())
}

fn matches(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    let fits = |(part, segment): (&&str, &&str)| part.starts_with('{') || part == segment;
    template.len() == path.len() && template.iter().zip(&path).all(fits)
}

fn validate(value: &Value, schema: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let pointer = reference.strip_prefix('#').unwrap();
        let target = DOCUMENT.pointer(pointer).ok_or_else(|| format!("{reference} is not defined"))?;
        return validate(value, target);
    }
    if let Some(alternatives) = schema["anyOf"].as_array() {
        let problems: Vec<_> =
            alternatives.iter().map_while(|schema| validate(value, schema).err()).collect();
        return if problems.len() == alternatives.len() { Err(problems.join(" and ")) } else { Ok(()) };
    }
    match schema["type"].as_str() {
        None => Ok(()),
        Some("null") if value.is_null() => Ok(()),
        Some("boolean") if value.is_boolean() => Ok(()),
        Some("integer") if value.is_u64() || value.is_i64() => Ok(()),
        Some("number") if value.is_number() => Ok(()),
        Some("string") if value.is_string() => format(value.as_str().unwrap(), &schema["format"]),
        Some("array") if value.is_array() => {
            value.as_array().unwrap().iter().try_for_each(|item| validate(item, &schema["items"]))
        }
        Some("object") if value.is_object() => object(value, schema),
        Some(expected) => Err(format!("{value} is not of type {expected}")),
    }
}

fn object(value: &Value, schema: &Value) -> Result<(), String> {
    let fields = value.as_object().unwrap();
    let properties = schema["properties"].as_object();
    for required in schema["required"].as_array().into_iter().flatten() {
        if !fields.contains_key(required.as_str().unwrap()) {
            return Err(format!("{required} is missing"));
        }
    }
    for (name, value) in fields {
        let schema = match properties.and_then(|properties| properties.get(name)) {
            Some(schema) => schema,
            None if schema["additionalProperties"].is_object() => &schema["additionalProperties"],
            None => return Err(format!("{name} is not described")),
        };
        validate(value, schema).map_err(|problem| format!("{name}: {problem}"))?;
    }
    Ok(())
}

fn format(text: &str, format: &Value) -> Result<(), String> {
    let fits = match format.as_str() {
        Some("date-time") => opamp_proto::Wall::from_rfc3339(text).is_ok(),
        Some("uuid") => text.len() == 36 && text.bytes().filter(|byte| *byte == b'-').count() == 4,
        Some("hex") => text.bytes().all(|byte| byte.is_ascii_hexdigit()),
        Some(other) => return Err(format!("format {other} is not known to this test")),
        None => true,
    };
    if fits { Ok(()) } else { Err(format!("{text:?} is no {format}")) }
}
