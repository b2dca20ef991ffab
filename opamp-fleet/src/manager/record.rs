//! Between what the server reports, what the store keeps and what the inventory counts: pure conversions.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opamp_proto::{AgentCapabilities, ConfigHash, Part, PartSet, Wall, material, pb};
use opamp_server::{
    AgentChange, AgentSnapshot, ChangedFacts, DisconnectReason, Principal, PrincipalKind, RemoteConfigReport,
    Seed, StickyFacts,
};
use opamp_store::{AgentRecord, Blob, Checkpoint, ConnectionFacts, StickyRecord, StoredParts};
use prost::Message;

use super::effective::{Effective, EffectiveConfigs};
use super::offers;
use crate::{AgentFacts, Drift, DriftFacts, Health, Labels, Liveness};

/// What [`absorb`] found while it merged a change into a record.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Absorbed {
    /// The record is not what it was.
    pub(super) changed: bool,
    /// What the record refers to now, to be stored with it: an effective config, components.
    pub(super) blobs: Vec<Blob>,
    /// The description changed, and the labels with it.
    pub(super) relabelled: bool,
    /// The credentials changed: the former ones.
    pub(super) former_identity: Option<String>,
    /// An offer was applied, and how long that took.
    pub(super) applied_in: Option<Duration>,
}

/// Merges what changed into the record: newest wins, part by part, and sticky facts never go back.
///
/// `earlier` are the sticky counters from before the server's session, where that did not begin with them.
pub(super) fn absorb(
    record: &mut AgentRecord,
    change: &AgentChange,
    earlier: &mut Option<StickyRecord>,
    configs: &mut EffectiveConfigs,
) -> Absorbed {
    let snapshot = &change.snapshot;
    let mut absorbed = Absorbed::default();
    absorbed.set(&mut record.capabilities, snapshot.capabilities.bits());
    absorb_sticky(record, snapshot, earlier, &mut absorbed);
    absorb_connection(record, snapshot, change.facts, &mut absorbed);
    let restarted = snapshot.sticky.start_time_changes > 0 && started_anew(record, snapshot);
    // The components come below: of them the hash is kept, and the list goes into a blob.
    for part in StoredParts::PARTS.into_iter().filter(|part| *part != Part::AvailableComponents) {
        let changed = change.changed.contains(part) || (part == Part::Health && restarted);
        if let (true, Some(bytes)) = (changed, snapshot.state.part(part)) {
            absorbed.relabelled |= part == Part::AgentDescription;
            if record.parts.part(part) != Some(bytes) {
                record.parts.set(part, Some(bytes.clone()));
                absorbed.changed = true;
            }
        }
    }
    if change.changed.contains(Part::EffectiveConfig)
        && let Some(bytes) = snapshot.state.part(Part::EffectiveConfig)
    {
        absorb_effective_config(record, bytes, configs, &mut absorbed);
    }
    if change.changed.contains(Part::AvailableComponents) || change.facts.contains(ChangedFacts::COMPONENTS) {
        absorb_components(record, change, &mut absorbed);
    }
    absorbed.changed |= offers::note_offered(record, snapshot);
    absorbed
}

impl Absorbed {
    /// Sets a field of the record.
    fn set<T: PartialEq>(&mut self, field: &mut T, value: T) {
        if *field != value {
            *field = value;
            self.changed = true;
        }
    }
}

fn absorb_connection(
    record: &mut AgentRecord,
    snapshot: &AgentSnapshot,
    facts: ChangedFacts,
    absorbed: &mut Absorbed,
) {
    let Some(connection) = &snapshot.connection else { return };
    let end = snapshot.disconnect;
    let same = |known: &ConnectionFacts| {
        known.connected_at == connection.connected_at
            && known.transport == connection.transport.as_str()
            && known.disconnected_at == end.map(|(_, at)| at)
            && known.disconnect_reason.as_deref() == end.map(|(reason, _)| reason.as_str())
    };
    if !facts.contains(ChangedFacts::CONNECTION) && record.connection.as_deref().is_some_and(same) {
        return;
    }
    let present = ConnectionFacts {
        transport: connection.transport.as_str().to_owned(),
        remote_addr: connection.remote_addr.map(|addr| addr.to_string()),
        connected_at: connection.connected_at,
        disconnected_at: end.map(|(_, at)| at),
        disconnect_reason: end.map(|(reason, _)| reason.as_str().to_owned()),
        graceful: end.is_some_and(|(reason, _)| reason.is_graceful()),
    };
    if record.connection.as_deref() != Some(&present) {
        record.connection = Some(Arc::new(present));
        absorbed.changed = true;
    }
    if let Some(identity) = identity(&connection.principal)
        && record.identity.as_ref() != Some(&identity)
    {
        absorbed.former_identity = record.identity.replace(identity);
        absorbed.changed = true;
    }
}

fn absorb_sticky(
    record: &mut AgentRecord,
    snapshot: &AgentSnapshot,
    earlier: &mut Option<StickyRecord>,
    absorbed: &mut Absorbed,
) {
    if began_anew(record, snapshot, earlier.as_ref()) {
        *earlier = Some(record.sticky.clone());
    }
    let (told, sticky) = (&snapshot.sticky, &mut record.sticky);
    let before = |counter: fn(&StickyRecord) -> u64| earlier.as_ref().map_or(0, counter);
    let mut raise = |counter: &mut u64, told: u32, before: u64| {
        let raised = (*counter).max(u64::from(told) + before);
        absorbed.set(counter, raised);
    };
    raise(&mut sticky.connects, told.connects, before(|earlier| earlier.connects));
    raise(&mut sticky.disconnects, told.disconnects, before(|earlier| earlier.disconnects));
    raise(&mut sticky.gaps, told.gaps, before(|earlier| earlier.gaps));
    raise(
        &mut sticky.start_time_changes,
        told.start_time_changes,
        before(|earlier| earlier.start_time_changes),
    );
    let requests = before(|earlier| earlier.full_state_requests);
    raise(&mut sticky.full_state_requests, told.full_state_requests, requests);
    raise(&mut sticky.uid_conflicts, told.uid_conflicts, before(|earlier| earlier.uid_conflicts));
    let last_uid_conflict = sticky.last_uid_conflict.max(told.last_uid_conflict);
    absorbed.set(&mut sticky.last_uid_conflict, last_uid_conflict);

    let (config, settings, packages) =
        (&snapshot.remote_config, &snapshot.connection_settings, &snapshot.packages);
    let desired = record.desired.as_ref().map(|desired| &desired.hash);
    let applied = note_applied(&mut sticky.last_applied, config.last_applied.as_ref(), desired);
    absorbed.changed |= applied
        | note_applied(&mut sticky.last_settings_applied, settings.last_applied.as_ref(), None)
        | note_applied(&mut sticky.last_packages_applied, packages.last_applied.as_ref(), None)
        | offers::note_failure(&mut sticky.last_failure, config.last_failure.as_ref())
        | offers::note_failure(&mut sticky.last_settings_failure, settings.last_failure.as_ref())
        | offers::note_failure(&mut sticky.last_packages_failure, packages.last_failure.as_ref());
    if applied
        && let (Some((hash, at)), Some((offered, offered_at))) = (&sticky.last_applied, &config.offered)
        && hash == offered
        && at >= offered_at
    {
        absorbed.applied_in = Some(Duration::from_millis(at.0 - offered_at.0));
    }
}

/// Takes over the last success; says whether it is another one. A hash that is `known` already is not kept a second time.
fn note_applied(
    kept: &mut Option<(ConfigHash, Wall)>,
    told: Option<&(ConfigHash, Wall)>,
    known: Option<&ConfigHash>,
) -> bool {
    let Some((hash, at)) = told.filter(|told| kept.as_ref() != Some(told)) else { return false };
    *kept = Some((known.filter(|known| *known == hash).unwrap_or(hash).clone(), *at));
    true
}

/// Whether the server forgot the agent meanwhile, so that its counters began at nothing: they are lower than what
/// was taken from them, or did not grow with a new connection.
fn began_anew(record: &AgentRecord, snapshot: &AgentSnapshot, earlier: Option<&StickyRecord>) -> bool {
    let taken = record.sticky.connects.saturating_sub(earlier.map_or(0, |earlier| earlier.connects));
    let connected_at = |connection: &ConnectionFacts| connection.connected_at;
    let reconnected = snapshot.connection.as_ref().map(|connection| connection.connected_at)
        != record.connection.as_deref().map(connected_at);
    let told = u64::from(snapshot.sticky.connects);
    told < taken || (told == taken && taken > 0 && reconnected && snapshot.connection.is_some())
}

fn absorb_effective_config(
    record: &mut AgentRecord,
    bytes: &Bytes,
    configs: &mut EffectiveConfigs,
    absorbed: &mut Absorbed,
) {
    let Some(Effective { blob, hash }) = configs.stored(bytes) else { return };
    if record.effective_config != Some(blob.id()) {
        record.effective_config = Some(blob.id());
        record.effective_config_hash = Some(hash);
        absorbed.blobs.push(blob);
        absorbed.changed = true;
    }
}

/// The list of components goes into a blob that agents of one build share, and its hash stays with the record. A hash
/// whose list is not known (yet) has none.
fn absorb_components(record: &mut AgentRecord, change: &AgentChange, absorbed: &mut Absorbed) {
    let snapshot = &change.snapshot;
    let decoded = |bytes: &Bytes| pb::AvailableComponents::decode(bytes.clone()).ok();
    let news = snapshot.state.part(Part::AvailableComponents);
    let news = news.filter(|_| change.changed.contains(Part::AvailableComponents));
    let reported = news.or(record.parts.available_components.as_ref());
    let Some(reported) = reported.and_then(decoded) else { return };
    let bare = pb::AvailableComponents { hash: reported.hash.clone(), ..pb::AvailableComponents::default() };
    let bare = Some(Bytes::from(bare.encode_to_vec()));
    if record.parts.available_components != bare {
        record.parts.set(Part::AvailableComponents, bare);
        absorbed.changed = true;
    }
    // The one the server knows under this hash, or else what the agent itself just listed.
    let known = snapshot.components.as_ref().and_then(decoded).filter(|known| known.hash == reported.hash);
    let list = known.unwrap_or(reported);
    let canonical = (!list.components.is_empty()).then(|| Blob::new(list.encode_to_vec().into()));
    let id = canonical.as_ref().map(Blob::id);
    if record.components != id {
        record.components = id;
        absorbed.blobs.extend(canonical);
        absorbed.changed = true;
    }
}

/// The start time is not material by itself, but a restart is: the stored health must have the new one, or the
/// next process would count the restart again.
fn started_anew(record: &AgentRecord, snapshot: &AgentSnapshot) -> bool {
    let start_time =
        |health: Option<&Bytes>| health.map(|bytes| material::health_summary(bytes).start_time_unix_nano);
    let reported = start_time(snapshot.state.part(Part::Health));
    reported.is_some() && reported != start_time(record.parts.health.as_ref())
}

/// Last known good; says whether it is another one. It is the desired hash, reported as APPLIED by an agent that is
/// healthy. Of one that does not report health, APPLIED is all there is to know.
pub(super) fn note_known_good(record: &mut AgentRecord, health: Health) -> bool {
    let Some(desired) = &record.desired else { return false };
    if record.last_known_good.as_ref() == Some(&desired.hash) {
        return false;
    }
    let applied = reported(&record.parts).is_some_and(|reported| {
        reported.hash == desired.hash.as_bytes()
            && reported.status == pb::RemoteConfigStatuses::Applied as i32
    });
    let reports_health =
        AgentCapabilities::from_bits(record.capabilities).contains(AgentCapabilities::REPORTS_HEALTH);
    let well = match health {
        Health::Healthy => true,
        Health::Unhealthy => false,
        Health::Unknown => !reports_health,
    };
    if applied && well {
        record.last_known_good = Some(desired.hash.clone());
    }
    applied && well
}

/// The inventory's view of a record.
pub(super) fn facts(record: &AgentRecord, liveness: Liveness, liveness_since: Wall) -> AgentFacts {
    AgentFacts {
        id: record.id,
        uid: record.uid,
        capabilities: AgentCapabilities::from_bits(record.capabilities),
        liveness,
        liveness_since,
        health: health(record),
        drift: drift(record),
        labels: labels(record),
    }
}

/// What the agent says of itself and what operators say of it.
pub(super) fn labels(record: &AgentRecord) -> Labels {
    let described =
        record.parts.agent_description.clone().and_then(|bytes| pb::AgentDescription::decode(bytes).ok());
    let mut labels = described.map(|description| Labels::from_description(&description)).unwrap_or_default();
    labels.set_server(&record.labels);
    labels
}

/// Health as last reported.
pub(super) fn health(record: &AgentRecord) -> Health {
    Health::from_report(record.parts.health.as_ref().map(|bytes| material::health_summary(bytes).healthy))
}

/// Drift by what the record holds.
pub(super) fn drift(record: &AgentRecord) -> Drift {
    Drift::judge(&DriftFacts {
        desired: record.desired.as_ref().map(|desired| (&desired.hash, desired.assigned_at)),
        reported: reported(&record.parts).map(|reported| (reported.hash, reported.status)),
        last_failure: record.sticky.last_failure.as_ref().map(|failure| (&failure.hash, failure.at)),
        last_applied_at: record.sticky.last_applied.as_ref().map(|(_, at)| *at),
        last_known_good: record.last_known_good.as_ref(),
        effective: record.effective_config_hash.as_ref(),
    })
}

/// Hash and number of the stored remote config status: what judgements need of it.
fn reported(parts: &StoredParts) -> Option<material::RemoteConfigSummary<'_>> {
    material::remote_config_summary(parts.remote_config_status.as_deref()?)
}

/// The stored remote config status.
pub(super) fn remote_config(parts: &StoredParts) -> Option<RemoteConfigReport> {
    let status = pb::RemoteConfigStatus::decode(parts.remote_config_status.clone()?).ok()?;
    Some(RemoteConfigReport::of(&status))
}

/// Liveness of an agent no connection is known of yet, and since when.
pub(super) fn resting(record: &AgentRecord, checkpoint: Option<&Checkpoint>) -> (Liveness, Wall) {
    match &record.connection {
        None => (Liveness::NeverSeen, record.first_seen),
        Some(connection) => {
            let last_seen = checkpoint.map_or(connection.connected_at, |checkpoint| checkpoint.last_seen);
            (
                Liveness::Disconnected,
                connection.disconnected_at.unwrap_or(last_seen.max(connection.connected_at)),
            )
        }
    }
}

/// What the server needs to know so that it need not ask the agent; all but what the agent should have.
///
/// Without a checkpoint nobody can tell whether the agent said anything that was lost, so that nothing counts as
/// known and it is asked.
pub(super) fn seed(record: &AgentRecord, checkpoint: Option<&Checkpoint>) -> Seed {
    let mut known = PartSet::NONE;
    let mut digests = Vec::new();
    if checkpoint.is_some() {
        for (part, bytes) in record.parts.iter() {
            known.insert(part);
            digests.push((part, material::digest(part, bytes)));
        }
        if record.effective_config.is_some() {
            // Its digest would need the blob; an equal report is told from a change when it is merged.
            known.insert(Part::EffectiveConfig);
        }
    }
    let start_time =
        record.parts.health.as_ref().map(|bytes| material::health_summary(bytes).start_time_unix_nano);
    Seed {
        sequence_num: checkpoint.map(|checkpoint| opamp_proto::SequenceNum(checkpoint.sequence_num)),
        capabilities: AgentCapabilities::from_bits(record.capabilities),
        last_seen: resting(record, checkpoint).1,
        known,
        digests,
        remote_config: offers::remote_config_seed(record),
        connection_settings: offers::settings_seed(record),
        packages: offers::packages_seed(record),
        sticky: sticky_facts(&record.sticky),
        custom_capabilities: record.parts.custom_capabilities.clone(),
        start_time_unix_nano: start_time.unwrap_or(0),
        principal: record.identity.as_deref().and_then(principal),
        disconnect: record.connection.as_deref().and_then(disconnect),
        ..Seed::new(record.uid)
    }
}

/// Who authenticated, as it is stored; none for nobody in particular.
fn identity(principal: &Principal) -> Option<String> {
    (principal.kind != PrincipalKind::Anonymous).then(|| principal.to_string())
}

fn principal(identity: &str) -> Option<Principal> {
    let (kind, id) = identity.split_once(':')?;
    let kinds = [PrincipalKind::Certificate, PrincipalKind::Custom, PrincipalKind::Token];
    let kind = kinds.into_iter().find(|known| known.as_str() == kind)?;
    Some(Principal { kind, id: id.to_owned() })
}

/// The stored reason, as far as the word alone says it.
fn disconnect(connection: &ConnectionFacts) -> Option<(DisconnectReason, Wall)> {
    let known = [
        DisconnectReason::Closed,
        DisconnectReason::Error,
        DisconnectReason::Graceful,
        DisconnectReason::Replaced,
        DisconnectReason::Requested,
        DisconnectReason::ServerShutdown,
        DisconnectReason::Timeout,
    ];
    let word = connection.disconnect_reason.as_deref()?;
    let reason = known.into_iter().find(|reason| reason.as_str() == word)?;
    Some((reason, connection.disconnected_at?))
}

fn sticky_facts(record: &StickyRecord) -> StickyFacts {
    let count = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    StickyFacts {
        connects: count(record.connects),
        disconnects: count(record.disconnects),
        gaps: count(record.gaps),
        start_time_changes: count(record.start_time_changes),
        full_state_requests: count(record.full_state_requests),
        uid_conflicts: count(record.uid_conflicts),
        last_uid_conflict: record.last_uid_conflict,
        ..StickyFacts::default()
    }
}
