//! Audit entries and the hash that chains them.

use opamp_proto::Wall;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::hex_digest;

/// An entry as its author knows it; the store adds place and hashes.
///
/// Bodies of configs, header values, keys and tokens must not be put into `before` and `after`: the log is kept for
/// ever and shown to every viewer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewAuditEntry {
    /// Which process writes; entries are chained per writer, so that several replicas do not share one hot row.
    pub writer: String,
    /// When it happened, by the author's clock.
    pub at: Wall,
    /// Who did it.
    pub actor: String,
    /// In which role.
    pub role: String,
    /// What was done, such as `config.publish`.
    pub action: String,
    /// To what, such as `agent:0190…`.
    pub entity: String,
    /// What it was before.
    pub before: Option<Value>,
    /// What it is after.
    pub after: Option<Value>,
    /// Where the request came from.
    pub source: Option<String>,
    /// The trace it belongs to.
    pub trace_id: Option<String>,
}

/// A stored, chained audit entry.
///
/// `hash` is SHA-256 over every other field, `prev_hash` included, in a length-prefixed, domain-separated form with the
/// keys of JSON objects sorted; `prev_hash` is the hash of the entry the same writer appended before (zeros for its
/// first). Changing, inserting or removing an entry therefore breaks the chain from there on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Place in the log over all writers, from 1 on.
    pub seq: u64,
    /// Which process wrote it.
    pub writer: String,
    /// When it happened.
    pub at: Wall,
    /// Who did it.
    pub actor: String,
    /// In which role.
    pub role: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub entity: String,
    /// What it was before.
    pub before: Option<Value>,
    /// What it is after.
    pub after: Option<Value>,
    /// Where the request came from.
    pub source: Option<String>,
    /// The trace it belongs to.
    pub trace_id: Option<String>,
    /// Hash of this writer's previous entry.
    #[serde(with = "hex_digest")]
    pub prev_hash: [u8; 32],
    /// Hash of this entry.
    #[serde(with = "hex_digest")]
    pub hash: [u8; 32],
}

impl AuditEntry {
    /// Gives a new entry its place: what every store does while it appends.
    pub fn seal(new: NewAuditEntry, seq: u64, prev_hash: [u8; 32]) -> Self {
        let mut entry = Self {
            seq,
            writer: new.writer,
            at: new.at,
            actor: new.actor,
            role: new.role,
            action: new.action,
            entity: new.entity,
            before: new.before,
            after: new.after,
            source: new.source,
            trace_id: new.trace_id,
            prev_hash,
            hash: [0; 32],
        };
        entry.hash = entry.computed_hash();
        entry
    }

    /// The hash this entry must have. Differs from `hash` when the entry was tampered with.
    pub fn computed_hash(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(b"opamp audit entry v1\0");
        hasher.update(self.prev_hash);
        hasher.update(self.seq.to_be_bytes());
        hasher.update(self.at.0.to_be_bytes());
        for field in [&self.writer, &self.actor, &self.role, &self.action, &self.entity] {
            update_text(&mut hasher, field);
        }
        for field in [&self.source, &self.trace_id] {
            update_option(&mut hasher, field.as_deref());
        }
        for field in [&self.before, &self.after] {
            update_option(&mut hasher, field.as_ref().map(canonical_json).as_deref());
        }
        hasher.finalize().into()
    }
}

impl NewAuditEntry {
    /// A rough size in bytes, used to bound batches.
    pub(crate) fn weight(&self) -> usize {
        let texts = [&self.writer, &self.actor, &self.role, &self.action, &self.entity];
        let json = |value: &Option<Value>| value.as_ref().map_or(0, json_weight);
        let origin = self.source.iter().chain(&self.trace_id);
        let texts = texts.into_iter().chain(origin).map(String::len).sum::<usize>();
        256 + texts + json(&self.before) + json(&self.after)
    }
}

/// About how long a value is as text, without making it.
fn json_weight(value: &Value) -> usize {
    match value {
        Value::Array(items) => 2 + items.iter().map(|item| 1 + json_weight(item)).sum::<usize>(),
        Value::Object(members) => {
            2 + members.iter().map(|(key, member)| 4 + key.len() + json_weight(member)).sum::<usize>()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => 2 + text.len(),
    }
}

fn update_text(hasher: &mut Sha256, text: &str) {
    hasher.update((text.len() as u64).to_be_bytes());
    hasher.update(text);
}

fn update_option(hasher: &mut Sha256, text: Option<&str>) {
    hasher.update([u8::from(text.is_some())]);
    update_text(hasher, text.unwrap_or_default());
}

/// JSON with sorted keys: whether serde_json keeps insertion order is decided by whoever links this crate.
fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(key, _)| *key);
            out.push('{');
            for (index, (key, member)) in members.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_text(key, out);
                out.push(':');
                write_canonical(member, out);
            }
            out.push('}');
        }
        Value::String(text) => write_text(text, out),
        Value::Null | Value::Bool(_) | Value::Number(_) => out.push_str(&value.to_string()),
    }
}

fn write_text(text: &str, out: &mut String) {
    if text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        out.push_str(&Value::from(text).to_string());
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_form_escapes_as_json_does() {
        let text: String = ('\0'..'\u{180}').chain(['\u{2028}', '\u{1f980}']).collect();
        for text in [text.as_str(), "plain", "", "a\"b", "a\\b", "a\nb", "\u{7f}ü"] {
            let value = serde_json::json!({ text: [text] });
            assert_eq!(canonical_json(&value), value.to_string());
        }
    }

    #[test]
    fn everything_of_unbounded_length_counts() {
        let text = || "x".repeat(10_000);
        let entries = [
            NewAuditEntry { actor: text(), ..NewAuditEntry::default() },
            NewAuditEntry { entity: text(), ..NewAuditEntry::default() },
            NewAuditEntry { before: Some(text().into()), ..NewAuditEntry::default() },
            NewAuditEntry { source: Some(text()), ..NewAuditEntry::default() },
            NewAuditEntry { trace_id: Some(text()), ..NewAuditEntry::default() },
        ];
        for entry in entries {
            assert!(entry.weight() >= 10_000, "{entry:?}");
        }
    }
}
