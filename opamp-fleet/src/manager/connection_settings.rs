//! Connection settings of one agent.

use std::sync::Arc;

use bytes::Bytes;
use opamp_proto::{AgentCapabilities, AgentId, ServerCapabilities, pb};
use opamp_server::capability::Negotiated;
use opamp_server::{ConnectionSettingsOffer, Desired, Target};
use opamp_store::{AgentRecord, BlobId, CommitError, DesiredSettings, ReadError};
use prost::Message as _;
use serde_json::{Map, Value, json};

use super::audit::Deed;
use super::desire::{DecideError, Decided, Decision, is_key, scoped};
use super::error::{ConnectionSettingsError, StoreFailure};
use super::types::{Actor, Assigned};
use super::{FleetManager, Inner};

impl FleetManager {
    /// Sets the connection settings one agent should use. Committed together with its audit entry, which shows no
    /// secret, before they are offered; an agent that is away, or never came, gets them when it comes.
    ///
    /// Setting the same settings again starts a new generation, in which they are offered once more even if the agent
    /// failed them before. A call repeated under the same idempotency key changes nothing. The settings lie in the store
    /// with everything they hold, until they are replaced or withdrawn.
    ///
    /// # Errors
    /// [`ConnectionSettingsError`]; nothing was changed, except perhaps on [`StoreFailure::OutcomeUnknown`].
    pub async fn set_connection_settings(
        &self,
        actor: &Actor,
        agent: &AgentId,
        offer: ConnectionSettingsOffer,
        idempotency_key: Option<String>,
    ) -> Result<Assigned<DesiredSettings>, ConnectionSettingsError> {
        let (bytes, bytes_max) =
            (offer.settings().encoded_len(), self.inner.settings.connection_settings_bytes_max);
        if bytes > bytes_max {
            return Err(ConnectionSettingsError::TooLarge { bytes, bytes_max });
        }
        self.change_settings(actor, agent, Some(offer), idempotency_key).await
    }

    /// Withdraws an agent's connection settings: it is offered none any more. What it uses stays.
    ///
    /// # Errors
    /// [`ConnectionSettingsError`]; nothing was changed, except perhaps on [`StoreFailure::OutcomeUnknown`].
    pub async fn clear_connection_settings(
        &self,
        actor: &Actor,
        agent: &AgentId,
        idempotency_key: Option<String>,
    ) -> Result<Assigned<DesiredSettings>, ConnectionSettingsError> {
        self.change_settings(actor, agent, None, idempotency_key).await
    }

    /// The connection settings an agent should use, with their generation, secrets included: for whoever answers a
    /// certificate request with them, or shows them without their secrets. None if there is no such agent.
    ///
    /// # Errors
    /// [`StoreFailure`] if they cannot be read.
    pub async fn connection_settings(
        &self,
        agent: &AgentId,
    ) -> Result<Option<Target<ConnectionSettingsOffer>>, StoreFailure> {
        let Some(newest) = self.inner.peek(agent).await? else { return Ok(None) };
        let offer = match &newest.record.desired_settings {
            Some(desired) => self.inner.settings_offer(agent, desired).await?,
            None => None,
        };
        Ok(Some(Target::new(newest.record.settings_generation, offer)))
    }

    async fn change_settings(
        &self,
        actor: &Actor,
        agent: &AgentId,
        offer: Option<ConnectionSettingsOffer>,
        idempotency_key: Option<String>,
    ) -> Result<Assigned<DesiredSettings>, ConnectionSettingsError> {
        if !is_key(idempotency_key.as_ref()) {
            return Err(ConnectionSettingsError::IdempotencyKey);
        }
        let key = idempotency_key.map(|key| match &offer {
            Some(offer) => scoped("settings", agent, &fixed(offer), &key),
            None => scoped("settings", agent, "none", &key),
        });
        let (actor, agent) = (actor.clone(), *agent);
        self.complete(|inner| async move { inner.change_settings(&actor, &agent, offer, key).await }).await
    }
}

impl Inner {
    async fn change_settings(
        self: Arc<Self>,
        actor: &Actor,
        id: &AgentId,
        offer: Option<ConnectionSettingsOffer>,
        key: Option<String>,
    ) -> Result<Assigned<DesiredSettings>, ConnectionSettingsError> {
        let _writer = self.writer.lock().await;
        let base = self.record(id).await?.ok_or(ConnectionSettingsError::NotFound(*id))?;
        let generation = base.record.settings_generation + 1;
        let encoded = match &offer {
            Some(offer) => {
                check_accepts(&base.record, offer)?;
                Some(Bytes::from(offer.settings().encode_to_vec()))
            }
            None => None,
        };
        let desired = offer.as_ref().zip(encoded.as_ref()).map(|(offer, encoded)| DesiredSettings {
            hash: offer.hash().clone(),
            blob: BlobId::of(encoded),
            generation,
            assigned_by: actor.name.clone(),
            assigned_at: self.now().wall,
        });
        let changed = AgentRecord {
            desired_settings: desired,
            settings_generation: generation,
            ..AgentRecord::clone(&base.record)
        };
        let action =
            if offer.is_some() { "agent.set_connection_settings" } else { "agent.clear_connection_settings" };
        let before = settings_value(base.record.desired_settings.as_ref(), None);
        let after = settings_value(changed.desired_settings.as_ref(), offer.as_ref());
        let former = base.record.desired_settings.clone();
        let decision = Decision {
            blobs: encoded.into_iter().collect(),
            require: Vec::new(),
            deed: Deed::of_agent(action, id, before, after),
            desired: Desired::connection_settings(generation, offer),
            changed: changed.clone(),
        };
        match self.decide(actor, base, decision, key).await {
            Ok(decided) => {
                let desired =
                    if matches!(decided, Decided::Now(_)) { changed.desired_settings } else { former };
                let (dispatch, replayed) = decided.outcome();
                Ok(Assigned { desired, dispatch, replayed })
            }
            Err(DecideError::Commit(CommitError::Precondition(_))) => {
                Err(ConnectionSettingsError::Conflict(*id))
            }
            Err(DecideError::Commit(error)) => Err(StoreFailure::from(error).into()),
            Err(DecideError::Store(failure)) => Err(failure.into()),
        }
    }

    /// The offer of desired connection settings. They are read each time, because every agent has its own.
    pub(super) async fn settings_offer(
        &self,
        agent: &AgentId,
        desired: &DesiredSettings,
    ) -> Result<Option<ConnectionSettingsOffer>, StoreFailure> {
        let decoded = match self.store.blob(&desired.blob).await {
            Ok(Some(bytes)) => pb::ConnectionSettingsOffers::decode(bytes).map_err(|_| "they are damaged"),
            Ok(None) => Err("they are missing"),
            Err(ReadError::Corrupt { .. }) => Err("they are unreadable"),
            Err(error) => return Err(error.into()),
        };
        match decoded {
            Ok(settings) => Ok(Some(ConnectionSettingsOffer::restored(settings))),
            Err(reason) => {
                tracing::error!(%agent, reason, "an agent's connection settings are unusable");
                Ok(None)
            }
        }
    }
}

/// An agent that announced its capabilities must be able to take a part of the settings; of one that never came nobody
/// knows.
fn check_accepts(
    agent: &AgentRecord,
    offer: &ConnectionSettingsOffer,
) -> Result<(), ConnectionSettingsError> {
    let capabilities = AgentCapabilities::from_bits(agent.capabilities);
    let negotiated = Negotiated::new(capabilities, ServerCapabilities::OFFERS_CONNECTION_SETTINGS);
    let accepted = negotiated.settings_permits().parts() & offer.parts();
    if capabilities.bits() == 0 || !accepted.is_empty() {
        return Ok(());
    }
    Err(ConnectionSettingsError::NotAccepted(agent.id))
}

/// The hash in a form of bounded length.
fn fixed(offer: &ConnectionSettingsOffer) -> String {
    BlobId::of(offer.hash().as_bytes()).to_string()
}

/// Connection settings as the audit log shows them: which parts, and where they lead. Headers, keys, certificates and
/// what a URL may hide before an `@` or behind a `?` stay out.
pub(super) fn settings_value(
    desired: Option<&DesiredSettings>,
    offer: Option<&ConnectionSettingsOffer>,
) -> Option<Value> {
    let desired = desired?;
    let mut value = json!({ "hash": desired.hash.to_hex(), "generation": desired.generation });
    if let (Some(offer), Some(members)) = (offer, value.as_object_mut()) {
        members.insert("parts".to_owned(), parts_value(offer.settings()));
    }
    Some(value)
}

fn parts_value(settings: &pb::ConnectionSettingsOffers) -> Value {
    let mut parts = Map::new();
    if let Some(opamp) = &settings.opamp {
        let certificate = opamp.certificate.is_some();
        let endpoint = without_credentials(&opamp.destination_endpoint);
        parts.insert("opamp".to_owned(), json!({ "endpoint": endpoint, "certificate": certificate }));
    }
    let telemetry = [
        ("own_metrics", &settings.own_metrics),
        ("own_traces", &settings.own_traces),
        ("own_logs", &settings.own_logs),
    ];
    for (name, part) in telemetry {
        if let Some(part) = part {
            let endpoint = without_credentials(&part.destination_endpoint);
            parts.insert(name.to_owned(), json!({ "endpoint": endpoint }));
        }
    }
    if !settings.other_connections.is_empty() {
        let names: Vec<_> = settings.other_connections.keys().collect();
        parts.insert("other_connections".to_owned(), json!(names));
    }
    Value::Object(parts)
}

/// A URL without user, password, query and fragment.
fn without_credentials(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let rest = &rest[..end];
    let (authority, path) = rest.split_at(rest.find(['/', '\\']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if scheme.is_empty() { format!("{host}{path}") } else { format!("{scheme}://{host}{path}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_what_it_may_hide() {
        for (url, shown) in [
            ("wss://opamp.example:4320/v1/opamp", "wss://opamp.example:4320/v1/opamp"),
            ("https://user:hunter2@host/p?token=hunter2#hunter2", "https://host/p"),
            ("https://a@b:hunter2@host", "https://host"),
            ("https://host?hunter2", "https://host"),
            ("user:hunter2@host:4317", "host:4317"),
            ("", ""),
        ] {
            assert_eq!(without_credentials(url), shown);
        }
    }
}
