//! Endpoints of the audit log.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State};
use data_encoding::HEXLOWER;
use opamp_proto::Wall;
use opamp_store::{AuditEntry, AuditOrder, AuditQuery};
use serde_json::Value;

use super::{
    error::ApiError,
    extract::{NoParameters, Parameters, Query, parse},
    paging,
    schema::reply,
    state::App,
};

reply! {
    /// One thing that somebody did.
    pub(crate) struct AuditItem {
        /// Place in the log.
        seq: u64,
        /// Which process wrote it.
        writer: String,
        /// When it happened.
        at: Wall,
        /// Who did it: the name of an API token, `local`, `anonymous` or an agent's principal.
        actor: String,
        /// In which role.
        role: String,
        /// What was done, such as `config.publish`.
        action: String,
        /// To what, such as `agent:0190…`.
        entity: String,
        /// What it was before.
        before: Value,
        /// What it is after.
        after: Value,
        /// Where the request came from.
        source: Option<String>,
        /// The trace it belongs to.
        trace_id: Option<String>,
        /// Hash of this writer's previous entry.
        prev_hash: String,
        /// Hash of this entry.
        hash: String,
    }
}

reply! {
    /// A page of the audit log.
    pub(crate) struct AuditPage {
        /// The entries, newest first unless asked otherwise.
        entries: Vec<AuditItem>,
        /// Pass it as `cursor` for the next page; null on the last one.
        next_cursor: Option<u64>,
    }
}

reply! {
    /// The end of one writer's chain. A copy kept elsewhere anchors the log.
    pub(crate) struct ChainEnd {
        /// Entries in the chain.
        length: u64,
        /// Place of the last in the log.
        seq: u64,
        /// Hash of the last.
        hash: String,
    }
}

reply! {
    /// The outcome of checking every hash of the log.
    pub(crate) struct AuditVerification {
        /// Whether every entry is what was written and none is missing.
        intact: bool,
        /// Entries checked.
        entries: u64,
        /// The end of each chain by writing process.
        chains: BTreeMap<String, ChainEnd>,
        /// The first thing wrong, if any.
        problem: Option<String>,
    }
}

/// Query parameters of the list.
pub(crate) struct AuditParameters(AuditQuery);

impl Default for AuditParameters {
    fn default() -> Self {
        AuditParameters(AuditQuery { order: AuditOrder::NewestFirst, ..AuditQuery::default() })
    }
}

impl Parameters for AuditParameters {
    const NAMES: &'static [&'static str] =
        &["actor", "action", "entity", "since", "until", "order", "limit", "cursor"];

    fn set(&mut self, name: &str, value: &str) -> Result<(), ApiError> {
        let query = &mut self.0;
        match name {
            "actor" => query.actor = Some(value.to_owned()),
            "action" => query.action = Some(value.to_owned()),
            "entity" => query.entity = Some(value.to_owned()),
            "since" => query.since = Some(parse(name, value)?),
            "until" => query.until = Some(parse(name, value)?),
            "limit" => query.limit = paging::limit(value)?,
            "cursor" => query.after = Some(parse(name, value)?),
            _ => {
                query.order = match value {
                    "newest" => AuditOrder::NewestFirst,
                    "oldest" => AuditOrder::OldestFirst,
                    _ => {
                        return Err(ApiError::bad_request("query parameter `order` is `newest` or `oldest`"));
                    }
                }
            }
        }
        Ok(())
    }
}

impl From<AuditEntry> for AuditItem {
    fn from(entry: AuditEntry) -> Self {
        AuditItem {
            seq: entry.seq,
            writer: entry.writer,
            at: entry.at,
            actor: entry.actor,
            role: entry.role,
            action: entry.action,
            entity: entry.entity,
            before: entry.before.unwrap_or_default(),
            after: entry.after.unwrap_or_default(),
            source: entry.source,
            trace_id: entry.trace_id,
            prev_hash: HEXLOWER.encode(&entry.prev_hash),
            hash: HEXLOWER.encode(&entry.hash),
        }
    }
}

pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Query(AuditParameters(query)): Query<AuditParameters>,
) -> Result<Json<AuditPage>, ApiError> {
    let page = app.fleet.audit(query).await?;
    let entries = page.items.into_iter().map(AuditItem::from).collect();
    Ok(Json(AuditPage { entries, next_cursor: page.next }))
}

pub(crate) async fn verify(
    State(app): State<Arc<App>>,
    _: Query<NoParameters>,
) -> Result<Json<AuditVerification>, ApiError> {
    let _turn = app.verifying.try_lock().map_err(|_| {
        ApiError::conflict("the audit log is being verified already").hint("try again when that is done")
    })?;
    let report = app.fleet.audit_verify().await?;
    let chains = report.chains.iter().map(|(writer, head)| {
        (writer.clone(), ChainEnd { length: head.length, seq: head.seq, hash: HEXLOWER.encode(&head.hash) })
    });
    Ok(Json(AuditVerification {
        intact: report.is_intact(),
        entries: report.entries,
        chains: chains.collect(),
        problem: report.broken.as_ref().map(ToString::to_string),
    }))
}
