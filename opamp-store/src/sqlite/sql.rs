//! Every SQL statement of this crate.
//!
//! All tables carry the prefix `opamp_`, because the database may be shared with the application that embeds the store.
//! Lists are bound as one JSON array of hexadecimal ids and read with `json_each`, so that a statement is prepared once
//! whatever the length of the list.

use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments as _, AssertSqlSafe, SqlSafeStr as _, SqlStr};

use crate::{AuditOrder, AuditQuery};

/// One step per schema version, in order. A released step never changes; changes are new steps.
pub(super) const MIGRATIONS: &[&str] = &[SCHEMA_1, SCHEMA_2];

const SCHEMA_1: &str = "
CREATE TABLE opamp_meta (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    revision  INTEGER NOT NULL,
    audit_seq INTEGER NOT NULL
) STRICT;
INSERT INTO opamp_meta (id, revision, audit_seq) VALUES (1, 0, 0);

-- Written to see whether writing works.
CREATE TABLE opamp_probe (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    bytes BLOB NOT NULL
) STRICT;

-- body is JSON without the parts, parts is packed; format says which version of both.
CREATE TABLE opamp_agent (
    id              BLOB PRIMARY KEY,
    uid             BLOB NOT NULL UNIQUE,
    revision        INTEGER NOT NULL,
    format          INTEGER NOT NULL,
    body            TEXT NOT NULL,
    parts           BLOB NOT NULL,
    pins            BLOB NOT NULL,
    known_good_hash BLOB,
    known_good_blob BLOB
) STRICT;
CREATE INDEX opamp_agent_revision ON opamp_agent (revision, id);

CREATE TABLE opamp_blob (
    id    BLOB PRIMARY KEY,
    bytes BLOB NOT NULL
) STRICT;
-- The ids in opamp_agent.pins once more, searchable by blob.
CREATE TABLE opamp_blob_pin (
    blob  BLOB NOT NULL,
    agent BLOB NOT NULL,
    PRIMARY KEY (blob, agent)
) STRICT, WITHOUT ROWID;

-- Leaves of packed checkpoints: a leaf holds the agents from `first` up to the `first` of the next leaf.
CREATE TABLE opamp_checkpoint_leaf (
    first   BLOB PRIMARY KEY,
    entries BLOB NOT NULL
) STRICT;

CREATE TABLE opamp_config_version (
    config   TEXT NOT NULL,
    version  INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    blob     BLOB NOT NULL,
    format   INTEGER NOT NULL,
    body     TEXT NOT NULL,
    PRIMARY KEY (config, version)
) STRICT;
CREATE INDEX opamp_config_version_blob ON opamp_config_version (blob);

CREATE TABLE opamp_audit (
    seq       INTEGER PRIMARY KEY,
    writer    TEXT NOT NULL,
    at        INTEGER NOT NULL,
    actor     TEXT NOT NULL,
    role      TEXT NOT NULL,
    action    TEXT NOT NULL,
    entity    TEXT NOT NULL,
    before    TEXT,
    after     TEXT,
    source    TEXT,
    trace_id  TEXT,
    prev_hash BLOB NOT NULL,
    hash      BLOB NOT NULL
) STRICT;
CREATE INDEX opamp_audit_actor ON opamp_audit (actor, seq);
CREATE INDEX opamp_audit_entity ON opamp_audit (entity, seq);
CREATE TABLE opamp_audit_chain (
    writer TEXT PRIMARY KEY,
    length INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    hash   BLOB NOT NULL
) STRICT;

CREATE TABLE opamp_token (
    id     TEXT PRIMARY KEY,
    secret BLOB NOT NULL UNIQUE,
    format INTEGER NOT NULL,
    body   TEXT NOT NULL
) STRICT;

CREATE TABLE opamp_idempotency_key (
    place    INTEGER PRIMARY KEY,
    key      TEXT NOT NULL UNIQUE,
    revision INTEGER NOT NULL
) STRICT;

CREATE TABLE opamp_lease (
    role       TEXT PRIMARY KEY,
    holder     TEXT NOT NULL,
    epoch      INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
";

/// Packages and what pins them; secrets of the server.
const SCHEMA_2: &str = "
-- The package versions a record names: a JSON array of [name, version].
ALTER TABLE opamp_agent ADD COLUMN packages TEXT NOT NULL DEFAULT '[]';
-- The same once more, searchable by package.
CREATE TABLE opamp_package_pin (
    name    TEXT NOT NULL,
    version TEXT NOT NULL,
    agent   BLOB NOT NULL,
    PRIMARY KEY (name, version, agent)
) STRICT, WITHOUT ROWID;

CREATE TABLE opamp_package (
    name     TEXT NOT NULL,
    version  TEXT NOT NULL,
    revision INTEGER NOT NULL,
    format   INTEGER NOT NULL,
    body     TEXT NOT NULL,
    PRIMARY KEY (name, version)
) STRICT;
CREATE TABLE opamp_package_chunk (
    name    TEXT NOT NULL,
    version TEXT NOT NULL,
    place   INTEGER NOT NULL,
    blob    BLOB NOT NULL,
    PRIMARY KEY (name, version, place)
) STRICT, WITHOUT ROWID;
CREATE INDEX opamp_package_chunk_blob ON opamp_package_chunk (blob);

CREATE TABLE opamp_secret (
    name  TEXT PRIMARY KEY,
    bytes BLOB NOT NULL
) STRICT;
";

pub(super) const SCHEMA_TABLE: &str = "CREATE TABLE IF NOT EXISTS opamp_schema \
    (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL) STRICT";
pub(super) const SCHEMA_VERSION: &str = "SELECT coalesce(max(version), 0) FROM opamp_schema";
pub(super) const SCHEMA_APPLIED: &str =
    "INSERT INTO opamp_schema (version, applied_at) VALUES (?1, CAST(unixepoch('subsec') * 1000 AS INTEGER))";

pub(super) const BEGIN_WRITE: &str = "BEGIN IMMEDIATE";
pub(super) const COMMIT: &str = "COMMIT";
pub(super) const ROLLBACK: &str = "ROLLBACK";
/// How durable a connection is: the journal mode, and 2 for flushing at every commit.
pub(super) const DURABILITY: &str =
    "SELECT journal_mode, synchronous FROM pragma_journal_mode, pragma_synchronous";
/// For a connection of the application's own pool; our own connections are opened with the same settings.
pub(super) const MAKE_DURABLE: &str =
    "PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA secure_delete = FAST";
pub(super) const TRUNCATE_WAL: &str = "PRAGMA wal_checkpoint(TRUNCATE)";

pub(super) const META: &str = "SELECT revision, audit_seq FROM opamp_meta";
pub(super) const SET_META: &str = "UPDATE opamp_meta SET revision = ?1, audit_seq = ?2";
/// Needs about as much space as a usual commit: a full disk has room for a single page for quite some time.
pub(super) const PROBE: &str = "INSERT INTO opamp_probe (id, bytes) VALUES (1, zeroblob(131072)) \
    ON CONFLICT (id) DO UPDATE SET bytes = excluded.bytes";

pub(super) const KEY: &str = "SELECT revision FROM opamp_idempotency_key WHERE key = ?1";
pub(super) const PUT_KEY: &str = "INSERT INTO opamp_idempotency_key (key, revision) VALUES (?1, ?2)";
pub(super) const FORGET_KEYS: &str = "DELETE FROM opamp_idempotency_key \
    WHERE place <= (SELECT max(place) FROM opamp_idempotency_key) - ?1";

// What a batch is judged by.
pub(super) const EXISTING_AGENTS: &str = "SELECT id, uid, revision, pins, packages, known_good_hash, known_good_blob \
    FROM opamp_agent WHERE id IN (SELECT unhex(value) FROM json_each(?1))";
pub(super) const EXISTING_AGENT_IDS: &str =
    "SELECT id FROM opamp_agent WHERE id IN (SELECT unhex(value) FROM json_each(?1))";
pub(super) const UID_OWNERS: &str =
    "SELECT uid, id FROM opamp_agent WHERE uid IN (SELECT unhex(value) FROM json_each(?1))";
pub(super) const EXISTING_BLOBS: &str =
    "SELECT id FROM opamp_blob WHERE id IN (SELECT unhex(value) FROM json_each(?1))";
pub(super) const EXISTING_TOKENS: &str =
    "SELECT id FROM opamp_token WHERE id IN (SELECT value FROM json_each(?1))";
pub(super) const TOKEN_COUNT: &str = "SELECT count(*) FROM opamp_token";
pub(super) const SECRET_OWNERS: &str =
    "SELECT secret, id FROM opamp_token WHERE secret IN (SELECT unhex(value) FROM json_each(?1))";
pub(super) const EXISTING_PACKAGE: &str =
    "SELECT revision FROM opamp_package WHERE name = ?1 AND version = ?2";
pub(super) const PACKAGE_COUNT: &str = "SELECT count(*) FROM opamp_package";
pub(super) const PACKAGE_USER: &str =
    "SELECT agent FROM opamp_package_pin WHERE name = ?1 AND version = ?2 ORDER BY agent LIMIT 1";
pub(super) const EXISTING_SECRETS: &str =
    "SELECT name FROM opamp_secret WHERE name IN (SELECT value FROM json_each(?1))";
pub(super) const SECRET_COUNT: &str = "SELECT count(*) FROM opamp_secret";
pub(super) const EPOCH: &str = "SELECT epoch FROM opamp_lease WHERE role = ?1";

// Agents.
pub(super) const AGENT: &str = "SELECT id, revision, format, body, parts FROM opamp_agent WHERE id = ?1";
pub(super) const AGENT_BY_UID: &str =
    "SELECT id, revision, format, body, parts FROM opamp_agent WHERE uid = ?1";
pub(super) const AGENTS: &str = "SELECT id, revision, format, body, parts FROM opamp_agent \
    WHERE id > ?1 ORDER BY id LIMIT ?2";
/// The changes after revision ?1 up to the end of the commit that the ?2-th of them belongs to, each with the revision
/// of the store and of the newest record; without changes, one row without a record. One statement: one snapshot.
pub(super) const CHANGES: &str = "SELECT m.revision AS store_revision, \
        (SELECT max(revision) FROM opamp_agent) AS newest, a.id, a.revision, a.format, a.body, a.parts \
    FROM opamp_meta m LEFT JOIN opamp_agent a ON a.revision > ?1 AND a.revision <= coalesce(\
        (SELECT max(revision) FROM (SELECT revision FROM opamp_agent WHERE revision > ?1 ORDER BY revision LIMIT ?2)), \
        ?1) \
    ORDER BY a.revision, a.id";
pub(super) const PUT_AGENT: &str = "INSERT INTO opamp_agent \
        (id, uid, revision, format, body, parts, pins, known_good_hash, known_good_blob, packages) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
    ON CONFLICT (id) DO UPDATE SET uid = excluded.uid, revision = excluded.revision, format = excluded.format, \
        body = excluded.body, parts = excluded.parts, pins = excluded.pins, packages = excluded.packages, \
        known_good_hash = excluded.known_good_hash, known_good_blob = excluded.known_good_blob";
pub(super) const DELETE_AGENT: &str = "DELETE FROM opamp_agent WHERE id = ?1";

// Checkpoints.
pub(super) const LEAF: &str = "SELECT first, entries, \
        (SELECT min(first) FROM opamp_checkpoint_leaf later WHERE later.first > leaf.first) AS upper \
    FROM opamp_checkpoint_leaf leaf WHERE first <= ?1 ORDER BY first DESC LIMIT 1";
pub(super) const FIRST_LEAF: &str = "SELECT min(first) AS upper FROM opamp_checkpoint_leaf";
pub(super) const PUT_LEAF: &str = "INSERT INTO opamp_checkpoint_leaf (first, entries) VALUES (?1, ?2) \
    ON CONFLICT (first) DO UPDATE SET entries = excluded.entries";
pub(super) const DELETE_LEAF: &str = "DELETE FROM opamp_checkpoint_leaf WHERE first = ?1";
pub(super) const LEAVES_FROM: &str = "SELECT entries FROM opamp_checkpoint_leaf \
    WHERE first >= coalesce((SELECT max(first) FROM opamp_checkpoint_leaf WHERE first <= ?1), x'') ORDER BY first";

// Blobs.
pub(super) const BLOB: &str = "SELECT bytes FROM opamp_blob WHERE id = ?1";
pub(super) const PUT_BLOB: &str =
    "INSERT INTO opamp_blob (id, bytes) VALUES (?1, ?2) ON CONFLICT (id) DO NOTHING";
pub(super) const UNREFERENCED_BLOBS: &str = "SELECT id FROM opamp_blob b WHERE id > ?1 \
        AND NOT EXISTS (SELECT 1 FROM opamp_blob_pin p WHERE p.blob = b.id) \
        AND NOT EXISTS (SELECT 1 FROM opamp_config_version v WHERE v.blob = b.id) \
        AND NOT EXISTS (SELECT 1 FROM opamp_package_chunk c WHERE c.blob = b.id) \
    ORDER BY id LIMIT ?2";
pub(super) const DELETE_BLOBS: &str = "DELETE FROM opamp_blob \
    WHERE id IN (SELECT unhex(value) FROM json_each(?1)) \
        AND NOT EXISTS (SELECT 1 FROM opamp_blob_pin p WHERE p.blob = opamp_blob.id) \
        AND NOT EXISTS (SELECT 1 FROM opamp_config_version v WHERE v.blob = opamp_blob.id) \
        AND NOT EXISTS (SELECT 1 FROM opamp_package_chunk c WHERE c.blob = opamp_blob.id)";
pub(super) const PIN: &str =
    "INSERT INTO opamp_blob_pin (blob, agent) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
pub(super) const UNPIN: &str = "DELETE FROM opamp_blob_pin WHERE blob = ?1 AND agent = ?2";

// Configs.
pub(super) const CONFIG_NAMES: &str = "SELECT DISTINCT config FROM opamp_config_version \
    WHERE config > ?1 ORDER BY config LIMIT ?2";
pub(super) const VERSIONS: &str = "SELECT config, version, revision, format, body FROM opamp_config_version \
    WHERE config = ?1 ORDER BY version";
pub(super) const VERSION: &str = "SELECT config, version, revision, format, body FROM opamp_config_version \
    WHERE config = ?1 AND version = ?2";
pub(super) const PUT_VERSION: &str = "INSERT INTO opamp_config_version \
        (config, version, revision, blob, format, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
    ON CONFLICT (config, version) DO UPDATE SET revision = excluded.revision, blob = excluded.blob, \
        format = excluded.format, body = excluded.body";

// Packages.
pub(super) const PACKAGE: &str = "SELECT name, version, revision, format, body FROM opamp_package \
    WHERE name = ?1 AND version = ?2";
pub(super) const PACKAGES: &str = "SELECT name, version, revision, format, body FROM opamp_package \
    WHERE (name, version) > (?1, ?2) ORDER BY name, version LIMIT ?3";
pub(super) const PACKAGE_CHUNKS: &str = "SELECT blob FROM opamp_package_chunk \
    WHERE name = ?1 AND version = ?2 AND place >= ?3 ORDER BY place LIMIT ?4";
pub(super) const PUT_PACKAGE: &str =
    "INSERT INTO opamp_package (name, version, revision, format, body) VALUES (?1, ?2, ?3, ?4, ?5)";
pub(super) const PUT_PACKAGE_CHUNKS: &str = "INSERT INTO opamp_package_chunk (name, version, place, blob) \
    SELECT ?1, ?2, key, unhex(value) FROM json_each(?3)";
pub(super) const DELETE_PACKAGE: &str = "DELETE FROM opamp_package WHERE name = ?1 AND version = ?2";
pub(super) const DELETE_PACKAGE_CHUNKS: &str =
    "DELETE FROM opamp_package_chunk WHERE name = ?1 AND version = ?2";
pub(super) const PIN_PACKAGE: &str =
    "INSERT INTO opamp_package_pin (name, version, agent) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
pub(super) const UNPIN_PACKAGE: &str =
    "DELETE FROM opamp_package_pin WHERE name = ?1 AND version = ?2 AND agent = ?3";

// Secrets of the server.
pub(super) const SECRET: &str = "SELECT bytes FROM opamp_secret WHERE name = ?1";
pub(super) const PUT_SECRET: &str = "INSERT INTO opamp_secret (name, bytes) VALUES (?1, ?2) \
    ON CONFLICT (name) DO UPDATE SET bytes = excluded.bytes";

// Tokens.
pub(super) const TOKEN: &str = "SELECT id, format, body FROM opamp_token WHERE id = ?1";
pub(super) const TOKEN_BY_SECRET: &str = "SELECT id, format, body FROM opamp_token WHERE secret = ?1";
pub(super) const TOKENS: &str = "SELECT id, format, body FROM opamp_token ORDER BY id";
pub(super) const DELETE_TOKENS: &str =
    "DELETE FROM opamp_token WHERE id IN (SELECT value FROM json_each(?1))";
pub(super) const PUT_TOKEN: &str =
    "INSERT INTO opamp_token (id, secret, format, body) VALUES (?1, ?2, ?3, ?4)";

// Audit.
pub(super) const CHAIN: &str = "SELECT writer, length, seq, hash FROM opamp_audit_chain WHERE writer = ?1";
pub(super) const CHAINS: &str = "SELECT writer, length, seq, hash FROM opamp_audit_chain";
pub(super) const PUT_CHAIN: &str = "INSERT INTO opamp_audit_chain (writer, length, seq, hash) VALUES (?1, ?2, ?3, ?4) \
    ON CONFLICT (writer) DO UPDATE SET length = excluded.length, seq = excluded.seq, hash = excluded.hash";
pub(super) const PUT_AUDIT: &str = "INSERT INTO opamp_audit (seq, writer, at, actor, role, action, entity, before, \
        after, source, trace_id, prev_hash, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
const AUDIT_COLUMNS: &str = "SELECT seq, writer, at, actor, role, action, entity, before, after, source, trace_id, \
    prev_hash, hash FROM opamp_audit";
pub(super) const AUDIT_ALL: &str = "SELECT seq, writer, at, actor, role, action, entity, before, after, source, \
    trace_id, prev_hash, hash FROM opamp_audit ORDER BY seq";

// Leases; the clock is the database's.
pub(super) const ACQUIRE: &str = "INSERT INTO opamp_lease (role, holder, epoch, expires_at) \
    VALUES (?1, ?2, 1, CAST(unixepoch('subsec') * 1000 AS INTEGER) + ?3) \
    ON CONFLICT (role) DO UPDATE SET holder = excluded.holder, epoch = opamp_lease.epoch + 1, \
        expires_at = excluded.expires_at \
        WHERE opamp_lease.expires_at <= CAST(unixepoch('subsec') * 1000 AS INTEGER) \
    RETURNING role, holder, epoch, expires_at, CAST(unixepoch('subsec') * 1000 AS INTEGER) AS store_time";
pub(super) const RENEW: &str = "UPDATE opamp_lease \
    SET expires_at = CAST(unixepoch('subsec') * 1000 AS INTEGER) + ?4 \
    WHERE role = ?1 AND holder = ?2 AND epoch = ?3 AND expires_at <> 0 \
    RETURNING role, holder, epoch, expires_at, CAST(unixepoch('subsec') * 1000 AS INTEGER) AS store_time";
pub(super) const RELEASE: &str = "UPDATE opamp_lease SET expires_at = 0 \
    WHERE role = ?1 AND holder = ?2 AND epoch = ?3 AND expires_at <> 0 \
    RETURNING role, holder, epoch, expires_at, CAST(unixepoch('subsec') * 1000 AS INTEGER) AS store_time";
pub(super) const LEASE: &str = "SELECT role, holder, epoch, expires_at, \
    CAST(unixepoch('subsec') * 1000 AS INTEGER) AS store_time FROM opamp_lease WHERE role = ?1";

/// The statement for an audit query with the conditions it has, and the values to bind: one more row than asked for.
pub(super) fn audit_query(
    query: &AuditQuery,
    limit: usize,
) -> Result<(SqlStr, SqliteArguments), sqlx::error::BoxDynError> {
    let (beyond, order) = match query.order {
        AuditOrder::NewestFirst => ("seq < ?", " ORDER BY seq DESC LIMIT ?"),
        AuditOrder::OldestFirst => ("seq > ?", " ORDER BY seq LIMIT ?"),
    };
    let mut text = String::from(AUDIT_COLUMNS);
    let mut arguments = SqliteArguments::default();
    let mut glue = " WHERE ";
    let mut condition = |condition: &str| {
        text.push_str(glue);
        text.push_str(condition);
        glue = " AND ";
    };
    let texts = [("actor = ?", &query.actor), ("action = ?", &query.action), ("entity = ?", &query.entity)];
    for (sql, value) in texts {
        if let Some(value) = value {
            condition(sql);
            arguments.add(value.clone())?;
        }
    }
    let numbers = [
        ("at >= ?", query.since.map(|since| since.0)),
        ("at < ?", query.until.map(|until| until.0)),
        (beyond, query.after),
    ];
    for (sql, value) in numbers {
        if let Some(value) = value {
            condition(sql);
            // Times and places beyond 2^63 do not occur in the table; the bound must not wrap around to before it.
            arguments.add(i64::try_from(value).unwrap_or(i64::MAX))?;
        }
    }
    text.push_str(order);
    arguments.add(i64::try_from(limit + 1).unwrap_or(i64::MAX))?;
    Ok((AssertSqlSafe(text).into_sql_str(), arguments))
}
