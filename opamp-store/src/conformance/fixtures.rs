//! Records to test with.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opamp_proto::{AgentId, ConfigHash, InstanceUid, Wall};
use serde_json::json;

use crate::{
    AgentRecord, ApiToken, AssignedPackage, BlobId, Checkpoint, CommitError, ConfigState, ConfigVersion,
    ConnectionFacts, DesiredConfig, DesiredPackages, DesiredSettings, FailureRecord, NewAuditEntry,
    OfferRecord, OffersRecord, PackageKey, PackageKind, PackageVersion, Revision, Role, StickyRecord, Store,
    StoredParts, WriteBatch,
};

/// Long enough that no lease of a test ends while it runs.
pub(super) const LONG: Duration = Duration::from_secs(3_600);

pub(super) fn agent_id(number: u64) -> AgentId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    AgentId::from_bytes(bytes)
}

pub(super) fn uid(number: u64) -> InstanceUid {
    let mut bytes = [0x75; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    InstanceUid::from_bytes(bytes)
}

pub(super) fn hash(number: u64) -> ConfigHash {
    ConfigHash::new(number.to_be_bytes().to_vec())
}

pub(super) fn bytes(number: u64) -> Bytes {
    Bytes::from(format!("receivers: {{otlp/{number}: }}"))
}

pub(super) fn blob_id(number: u64) -> BlobId {
    BlobId::of(&bytes(number))
}

/// A record that refers to no blob.
pub(super) fn agent(number: u64) -> AgentRecord {
    AgentRecord::new(agent_id(number), uid(number), Wall(1_700_000_000_000 + number))
}

pub(super) fn desired(number: u64) -> Arc<DesiredConfig> {
    Arc::new(DesiredConfig {
        config: "edge".into(),
        version: 1,
        hash: hash(number),
        blob: blob_id(number),
        generation: number,
        assigned_by: "olga".into(),
        assigned_at: Wall(1_700_000_000_000),
    })
}

pub(super) fn settings(number: u64) -> DesiredSettings {
    DesiredSettings {
        hash: hash(number),
        blob: blob_id(number),
        generation: number,
        assigned_by: "olga".into(),
        assigned_at: Wall(1_700_000_000_000),
    }
}

pub(super) fn key(name: &str, version: &str) -> PackageKey {
    PackageKey::new(name, version)
}

/// A package version whose content is the given blobs; their lengths play no part.
pub(super) fn package(key: PackageKey, chunks: usize) -> PackageVersion {
    PackageVersion {
        key,
        kind: PackageKind::TopLevel,
        size_bytes: chunks as u64 * 10 - 3,
        content_sha256: [chunks as u8; 32],
        signature: Some(Bytes::from_static(&[0, 255, 1])),
        chunk_bytes: 10,
        created_at: Wall(1_700_000_000_000),
        created_by: "olga".into(),
        revision: Revision::default(),
    }
}

/// Puts a package version of the given blobs into a batch.
pub(super) fn put_package(batch: &mut WriteBatch, key: PackageKey, chunks: &[u64]) {
    let blobs = chunks.iter().map(|number| blob_id(*number)).collect();
    batch.put_package(package(key, chunks.len()), blobs);
}

pub(super) fn packages(keys: impl IntoIterator<Item = PackageKey>) -> DesiredPackages {
    let assigned = |key| AssignedPackage { key, content_sha256: [7; 32] };
    DesiredPackages {
        packages: keys.into_iter().map(assigned).collect(),
        hash: hash(77),
        generation: 5,
        assigned_by: "olga".into(),
        assigned_at: Wall(1_700_000_000_000),
    }
}

fn offer(number: u64) -> Option<OfferRecord> {
    Some(OfferRecord { hash: hash(number), generation: number, at: Wall(number) })
}

/// A record with a value in every field; refers to blobs 1, 2, 3 and 4, and to version 1 of package `collector`.
pub(super) fn full_agent(number: u64) -> AgentRecord {
    AgentRecord {
        previous_uids: vec![(uid(900 + number), Wall(5)), (uid(800 + number), Wall(6))],
        identity: Some("token:collector-7".into()),
        labels: [("env", "prod"), ("zone", "ä/\"1\"")].map(|(key, value)| (key.into(), value.into())).into(),
        capabilities: u64::MAX,
        parts: StoredParts {
            agent_description: Some(Bytes::from_static(&[0, 255, 1, 128])),
            health: Some(Bytes::new()),
            remote_config_status: Some(Bytes::from_static(b"status")),
            package_statuses: None,
            custom_capabilities: Some(Bytes::from(vec![7; 3_000])),
            available_components: Some(Bytes::from_static(b"components")),
            connection_settings_status: Some(Bytes::from_static(b"settings")),
        },
        effective_config: Some(blob_id(1)),
        effective_config_hash: Some(hash(1)),
        desired: Some(desired(2)),
        desired_generation: u64::MAX,
        desired_history: [desired(3), desired(2)].into(),
        desired_settings: Some(settings(4)),
        settings_generation: u64::MAX - 1,
        desired_packages: Some(packages([key("collector", "1")])),
        packages_generation: u64::MAX - 2,
        offered: OffersRecord { remote_config: offer(2), connection_settings: offer(3), packages: offer(4) },
        components: Some(blob_id(1)),
        last_known_good: Some(hash(3)),
        connection: Some(Arc::new(ConnectionFacts {
            transport: "websocket".into(),
            remote_addr: Some("192.0.2.1:4711".into()),
            connected_at: Wall(1_700_000_000_001),
            disconnected_at: Some(Wall(1_700_000_000_002)),
            disconnect_reason: Some("closed".into()),
            graceful: true,
        })),
        sticky: StickyRecord {
            connects: 1,
            disconnects: 2,
            gaps: 3,
            start_time_changes: 4,
            full_state_requests: u64::MAX,
            last_failure: Some(FailureRecord { hash: hash(9), error: "no such file".into(), at: Wall(7) }),
            last_applied: Some((hash(3), Wall(8))),
            last_settings_failure: Some(FailureRecord {
                hash: hash(4),
                error: "refused".into(),
                at: Wall(9),
            }),
            last_settings_applied: Some((hash(5), Wall(10))),
            last_packages_failure: Some(FailureRecord {
                hash: hash(6),
                error: "no disk".into(),
                at: Wall(11),
            }),
            last_packages_applied: Some((hash(7), Wall(12))),
            uid_conflicts: 5,
            last_uid_conflict: Some(Wall(13)),
        },
        ..agent(number)
    }
}

pub(super) fn checkpoint(number: u64, sequence_num: u64) -> Checkpoint {
    Checkpoint { id: agent_id(number), sequence_num, last_seen: Wall(1_700_000_000_000 + sequence_num) }
}

/// A draft whose content is blob `content`.
pub(super) fn version(config: &str, version: u32, content: u64) -> ConfigVersion {
    ConfigVersion {
        config: config.into(),
        version,
        state: ConfigState::Draft,
        blob: blob_id(content),
        hash: hash(content),
        created_at: Wall(1_700_000_000_000),
        created_by: "olga".into(),
        published_at: None,
        published_by: None,
        comment: format!("version {version}"),
        revision: Revision::default(),
    }
}

pub(super) fn token(id: &str, secret: u8) -> ApiToken {
    ApiToken {
        id: id.into(),
        name: format!("token {id}"),
        role: Role::Operator,
        secret_sha256: [secret; 32],
        created_at: Wall(1_700_000_000_000),
        created_by: "olga".into(),
        expires_at: Some(Wall(1_800_000_000_000)),
        revoked_at: None,
    }
}

pub(super) fn audit(writer: &str, number: u64) -> NewAuditEntry {
    NewAuditEntry {
        writer: writer.into(),
        at: Wall(1_700_000_000_000 + number),
        actor: "olga".into(),
        role: "operator".into(),
        action: "config.assign".into(),
        entity: format!("agent:{number}"),
        before: Some(json!({"ratio": 0.1, "big": 1.234_567_890_123_456_7e300, "list": [null, true, -1]})),
        after: None,
        source: Some("192.0.2.1".into()),
        trace_id: None,
    }
}

/// A batch made by `build`.
pub(super) fn batch(build: impl FnOnce(&mut WriteBatch)) -> WriteBatch {
    let mut batch = WriteBatch::new();
    build(&mut batch);
    batch
}

/// Commits a batch that must be accepted.
pub(super) async fn commit(store: &dyn Store, build: impl FnOnce(&mut WriteBatch)) -> Revision {
    store.commit(batch(build), None).await.unwrap()
}

/// Commits a batch that must be refused.
pub(super) async fn refused(store: &dyn Store, build: impl FnOnce(&mut WriteBatch)) -> CommitError {
    store.commit(batch(build), None).await.unwrap_err()
}

/// The revision of the store: what an empty batch answers.
pub(super) async fn revision(store: &dyn Store) -> Revision {
    commit(store, |_| ()).await
}

/// Puts the records of agents that refer to no blob.
pub(super) async fn put_agents(store: &dyn Store, numbers: impl IntoIterator<Item = u64>) -> Revision {
    commit(store, |batch| {
        for number in numbers {
            batch.put_agent(agent(number));
        }
    })
    .await
}
