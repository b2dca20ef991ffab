-- A database as the release with schema version 1 left it: two agents, a published config, a token, an audit entry, a
-- checkpoint, a lease, an idempotency key and a blob nobody refers to.
BEGIN TRANSACTION;
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
INSERT INTO "opamp_agent" VALUES(X'00000000000177078707070707070707',X'00000000000178088808080808080808',1,1,'{"id":"00000000-0001-7707-8707-070707070707","uid":"00000000-0001-7808-8808-080808080808","previous_uids":[],"identity":"token:edge","labels":{"env":"prod"},"first_seen":"1970-01-01T00:00:00.001Z","capabilities":7,"parts":{},"effective_config":"46e0876178516073c5ae0fb62d07c070fe57249cbad44068272a7ad9373143ab","effective_config_hash":"010203","desired":{"config":"edge","version":1,"hash":"010203","blob":"2d22a06aaf0753e72cbc96209fe2832d3709ce1656118f2b8fa1ad1adf1a6d73","generation":4,"assigned_by":"olga","assigned_at":"2023-11-14T22:13:20.000Z"},"desired_generation":4,"desired_history":[{"config":"edge","version":1,"hash":"010203","blob":"2d22a06aaf0753e72cbc96209fe2832d3709ce1656118f2b8fa1ad1adf1a6d73","generation":4,"assigned_by":"olga","assigned_at":"2023-11-14T22:13:20.000Z"}],"last_known_good":"010203","connection":{"transport":"http","remote_addr":null,"connected_at":"1970-01-01T00:00:00.005Z","disconnected_at":null,"disconnect_reason":null,"graceful":false},"sticky":{"connects":3,"disconnects":0,"gaps":0,"start_time_changes":0,"full_state_requests":0,"last_failure":{"hash":"010203","error":"no such file","at":"1970-01-01T00:00:00.007Z"},"last_applied":["010203","1970-01-01T00:00:00.008Z"]},"revision":0}',X'05000000020801',X'2D22A06AAF0753E72CBC96209FE2832D3709CE1656118F2B8FA1AD1ADF1A6D7346E0876178516073C5AE0FB62D07C070FE57249CBAD44068272A7AD9373143AB',X'010203',X'2D22A06AAF0753E72CBC96209FE2832D3709CE1656118F2B8FA1AD1ADF1A6D73');
INSERT INTO "opamp_agent" VALUES(X'00000000000277078707070707070707',X'00000000000278088808080808080808',1,1,'{"id":"00000000-0002-7707-8707-070707070707","uid":"00000000-0002-7808-8808-080808080808","previous_uids":[],"identity":null,"labels":{},"first_seen":"1970-01-01T00:00:00.002Z","capabilities":0,"parts":{},"effective_config":null,"effective_config_hash":null,"desired":null,"desired_generation":0,"desired_history":[],"last_known_good":null,"connection":null,"sticky":{"connects":0,"disconnects":0,"gaps":0,"start_time_changes":0,"full_state_requests":0,"last_failure":null,"last_applied":null},"revision":0}',X'',X'',NULL,NULL);
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
INSERT INTO "opamp_audit" VALUES(1,'fleet',1,'olga','admin','config.publish','config:edge@1',NULL,NULL,NULL,NULL,X'0000000000000000000000000000000000000000000000000000000000000000',X'B728A25DD2586B976C4ABA7BF0F0B22A949AF92366FB4C3C21DA819C0EF68EF7');
CREATE TABLE opamp_audit_chain (
    writer TEXT PRIMARY KEY,
    length INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    hash   BLOB NOT NULL
) STRICT;
INSERT INTO "opamp_audit_chain" VALUES('fleet',1,1,X'B728A25DD2586B976C4ABA7BF0F0B22A949AF92366FB4C3C21DA819C0EF68EF7');
CREATE TABLE opamp_blob (
    id    BLOB PRIMARY KEY,
    bytes BLOB NOT NULL
) STRICT;
INSERT INTO "opamp_blob" VALUES(X'2D22A06AAF0753E72CBC96209FE2832D3709CE1656118F2B8FA1AD1ADF1A6D73',X'7265636569766572733A207B7D');
INSERT INTO "opamp_blob" VALUES(X'46E0876178516073C5AE0FB62D07C070FE57249CBAD44068272A7AD9373143AB',X'656666656374697665');
INSERT INTO "opamp_blob" VALUES(X'766D63F0332125220ADC982E51598010024ACC16A916D500187BF15F5D0E4A54',X'6E6F626F64792773');
CREATE TABLE opamp_blob_pin (
    blob  BLOB NOT NULL,
    agent BLOB NOT NULL,
    PRIMARY KEY (blob, agent)
) STRICT, WITHOUT ROWID;
INSERT INTO "opamp_blob_pin" VALUES(X'2D22A06AAF0753E72CBC96209FE2832D3709CE1656118F2B8FA1AD1ADF1A6D73',X'00000000000177078707070707070707');
INSERT INTO "opamp_blob_pin" VALUES(X'46E0876178516073C5AE0FB62D07C070FE57249CBAD44068272A7AD9373143AB',X'00000000000177078707070707070707');
CREATE TABLE opamp_checkpoint_leaf (
    first   BLOB PRIMARY KEY,
    entries BLOB NOT NULL
) STRICT;
INSERT INTO "opamp_checkpoint_leaf" VALUES(X'00000000000000000000000000000000',X'000000000001770787070707070707070000000000000009000000000000000A');
CREATE TABLE opamp_config_version (
    config   TEXT NOT NULL,
    version  INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    blob     BLOB NOT NULL,
    format   INTEGER NOT NULL,
    body     TEXT NOT NULL,
    PRIMARY KEY (config, version)
) STRICT;
INSERT INTO "opamp_config_version" VALUES('edge',1,1,X'2D22A06AAF0753E72CBC96209FE2832D3709CE1656118F2B8FA1AD1ADF1A6D73',1,'{"config":"edge","version":1,"state":"published","blob":"2d22a06aaf0753e72cbc96209fe2832d3709ce1656118f2b8fa1ad1adf1a6d73","hash":"010203","created_at":"1970-01-01T00:00:00.001Z","created_by":"olga","published_at":"1970-01-01T00:00:00.002Z","published_by":"otto","comment":"first","revision":0}');
CREATE TABLE opamp_idempotency_key (
    place    INTEGER PRIMARY KEY,
    key      TEXT NOT NULL UNIQUE,
    revision INTEGER NOT NULL
) STRICT;
INSERT INTO "opamp_idempotency_key" VALUES(1,'once',1);
CREATE TABLE opamp_lease (
    role       TEXT PRIMARY KEY,
    holder     TEXT NOT NULL,
    epoch      INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
INSERT INTO "opamp_lease" VALUES('leader','me',1,1795193574477);
CREATE TABLE opamp_meta (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    revision  INTEGER NOT NULL,
    audit_seq INTEGER NOT NULL
) STRICT;
INSERT INTO "opamp_meta" VALUES(1,1,1);
CREATE TABLE opamp_probe (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    bytes BLOB NOT NULL
) STRICT;
CREATE TABLE opamp_schema (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL) STRICT;
INSERT INTO "opamp_schema" VALUES(1,1795193573460);
CREATE TABLE opamp_token (
    id     TEXT PRIMARY KEY,
    secret BLOB NOT NULL UNIQUE,
    format INTEGER NOT NULL,
    body   TEXT NOT NULL
) STRICT;
INSERT INTO "opamp_token" VALUES('a',X'0707070707070707070707070707070707070707070707070707070707070707',1,'{"id":"a","name":"laptop","role":"admin","secret_sha256":"0707070707070707070707070707070707070707070707070707070707070707","created_at":"1970-01-01T00:00:00.001Z","created_by":"olga","expires_at":null,"revoked_at":null}');
CREATE INDEX opamp_agent_revision ON opamp_agent (revision, id);
CREATE INDEX opamp_config_version_blob ON opamp_config_version (blob);
CREATE INDEX opamp_audit_actor ON opamp_audit (actor, seq);
CREATE INDEX opamp_audit_entity ON opamp_audit (entity, seq);
COMMIT;
