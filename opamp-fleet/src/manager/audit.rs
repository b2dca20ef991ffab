//! Audit entries the manager writes, and the log as callers see it.

use std::borrow::Cow;

use opamp_proto::{AgentId, Wall};
use opamp_server::Refusal;
use opamp_store::{AuditEntry, AuditQuery, AuditReport, DesiredConfig, NewAuditEntry, Page, WriteBatch};
use serde_json::{Value, json};

use super::error::StoreFailure;
use super::types::Actor;
use super::{FleetManager, Inner};

/// What an entry is about, beside who and when.
#[derive(Debug)]
pub(super) struct Deed {
    pub(super) action: Cow<'static, str>,
    pub(super) entity: String,
    pub(super) before: Option<Value>,
    pub(super) after: Option<Value>,
}

impl Deed {
    pub(super) fn of_agent(
        action: &'static str,
        id: &AgentId,
        before: Option<Value>,
        after: Option<Value>,
    ) -> Self {
        Self { action: action.into(), entity: format!("agent:{id}"), before, after }
    }

    pub(super) fn of_version(
        action: &'static str,
        config: &str,
        version: u32,
        before: Option<Value>,
        after: Option<Value>,
    ) -> Self {
        Self { action: action.into(), entity: format!("config:{config}@{version}"), before, after }
    }
}

impl Inner {
    /// A complete entry, bounded in size whatever its parts are.
    pub(super) fn audit_entry(&self, actor: &Actor, at: Wall, deed: Deed) -> NewAuditEntry {
        NewAuditEntry {
            writer: self.settings.audit_writer.clone(),
            at,
            actor: cut(&actor.name),
            role: cut(&actor.role),
            action: cut(&deed.action),
            entity: cut(&deed.entity),
            before: deed.before.map(bounded),
            after: deed.after.map(bounded),
            source: actor.source.as_deref().map(cut),
            trace_id: actor.trace_id.as_deref().map(cut),
        }
    }

    /// An agent that was turned away, with `folded` others that were left out before it.
    pub(super) fn refusal_entry(&self, refusal: &Refusal, folded: u64) -> NewAuditEntry {
        let actor = Actor {
            name: refusal.principal.clone().unwrap_or_else(|| "anonymous".to_owned()),
            role: "agent".to_owned(),
            source: refusal.remote_addr.map(|addr| addr.to_string()),
            trace_id: None,
        };
        let after = json!({
            "reason": refusal.reason.as_str(),
            "detail": refusal.detail,
            "transport": refusal.transport.map(|transport| transport.as_str()),
            "left_out_before": folded,
        });
        let deed = Deed {
            action: "agent.refuse".into(),
            entity: "endpoint:opamp".to_owned(),
            before: None,
            after: Some(after),
        };
        self.audit_entry(&actor, refusal.at, deed)
    }

    /// Entries that were left out and have no later one to be told with.
    pub(super) fn folded_entry(&self, action: &'static str, at: Wall, folded: u64) -> NewAuditEntry {
        let after = json!({ "reason": "folded", "left_out_before": folded });
        let deed = Deed {
            action: action.into(),
            entity: "endpoint:opamp".to_owned(),
            before: None,
            after: Some(after),
        };
        self.audit_entry(&Actor::system(), at, deed)
    }
}

impl FleetManager {
    /// Entries of the audit log.
    ///
    /// # Errors
    /// [`StoreFailure`] if it cannot be read.
    pub async fn audit(&self, query: AuditQuery) -> Result<Page<AuditEntry, u64>, StoreFailure> {
        Ok(self.inner.store.audit(query).await?)
    }

    /// Walks the audit log and checks every chain; takes time in proportion to its length.
    ///
    /// # Errors
    /// [`StoreFailure`] if it cannot be read. A broken chain is no error but in the report.
    pub async fn audit_verify(&self) -> Result<AuditReport, StoreFailure> {
        Ok(self.inner.store.verify().await?)
    }

    /// Appends an entry for something that was done outside the manager. Acknowledged means written. Texts are cut
    /// after 1 KiB, and a value of more than 64 KiB is replaced by its size.
    ///
    /// # Errors
    /// [`StoreFailure`] if it was not written.
    pub async fn append_audit(
        &self,
        actor: &Actor,
        action: impl Into<String>,
        entity: impl Into<String>,
        before: Option<Value>,
        after: Option<Value>,
    ) -> Result<(), StoreFailure> {
        let deed = Deed { action: Cow::Owned(action.into()), entity: entity.into(), before, after };
        let entry = self.inner.audit_entry(actor, self.inner.now().wall, deed);
        self.complete(|inner| async move {
            let mut batch = WriteBatch::new();
            batch.append_audit(entry);
            inner.commit(batch, None).await?;
            Ok(())
        })
        .await
    }
}

/// Longest text of an entry, in bytes.
const TEXT_BYTES_MAX: usize = 1 << 10;

/// Longest encoded value before or after, in bytes.
const VALUE_BYTES_MAX: usize = 64 << 10;

/// More than what an entry with one value counts for in a batch.
pub(super) const ENTRY_BYTES_MAX: usize = 2 * VALUE_BYTES_MAX;

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

fn bounded(value: Value) -> Value {
    match length(&value) {
        bytes if bytes > VALUE_BYTES_MAX => json!({ "left_out_bytes": bytes }),
        _ => value,
    }
}

/// How long a value is as text, which is not made for that.
fn length(value: &Value) -> usize {
    struct Length(usize);
    impl std::io::Write for Length {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut length = Length(0);
    // Neither a value nor a counter can fail.
    let _ = serde_json::to_writer(&mut length, value);
    length.0
}

/// An assignment as the audit log shows it.
pub(super) fn desired_value(desired: Option<&DesiredConfig>) -> Option<Value> {
    desired.map(|desired| {
        json!({
            "config": desired.config,
            "version": desired.version,
            "hash": desired.hash.to_hex(),
            "generation": desired.generation,
        })
    })
}
