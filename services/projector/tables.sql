-- Everything the projector keeps, in the schema `read`; a rebuild makes it in another one. All of it can be made again
-- from the log.
-- Times are text as in schemas.times, RFC 3339 with milliseconds: fixed width, so that their order is the order of
-- time; '' where there is none and an order is needed. Hashes are SHA-256 in hex. Ids are compared byte by byte.

-- Where the projector goes on in each partition, and in which incarnation of the topic.
CREATE TABLE IF NOT EXISTS checkpoints (
    topic       text    NOT NULL,
    partition   integer NOT NULL,
    next_offset bigint  NOT NULL,
    last_hash   bytea   NOT NULL,
    topic_id    text    NOT NULL,
    whole       boolean NOT NULL, -- Every record from offset 0 on was read; false once retention was faster than we were.
    PRIMARY KEY (topic, partition)
);

-- Up to when everything in the log was in these tables, by lifecycle partition; milliseconds since 1970.
CREATE TABLE IF NOT EXISTS freshness (
    partition integer PRIMARY KEY,
    as_of_ms  bigint NOT NULL
);

-- The chain of each organisation, and why it is halted.
CREATE TABLE IF NOT EXISTS heads (
    org_id      text COLLATE "C" PRIMARY KEY,
    partition   integer NOT NULL,
    revision    bigint  NOT NULL,
    hash        text    NOT NULL,
    time        text    NOT NULL,
    halt_why    text,
    halt_detail text
);
CREATE INDEX IF NOT EXISTS heads_halted ON heads (partition) WHERE halt_why IS NOT NULL;

-- Halting records that wait to be sorted again.
CREATE TABLE IF NOT EXISTS halting_records (
    org_id   text COLLATE "C" NOT NULL,
    "offset" bigint NOT NULL,
    revision bigint NOT NULL,
    parent   text   NOT NULL,
    hash     text   NOT NULL,
    time     text   NOT NULL,
    value    bytea  NOT NULL,
    PRIMARY KEY (org_id, "offset")
);

-- Applied events of halted organisations that wait to be folded.
CREATE TABLE IF NOT EXISTS waiting_events (
    org_id   text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    "offset" bigint NOT NULL,
    value    bytea  NOT NULL,
    PRIMARY KEY (org_id, revision)
);

-- The archive: every sealed record of key-lifecycle, byte for byte. What it takes to append them again.
CREATE TABLE IF NOT EXISTS ledger_records (
    partition integer NOT NULL,
    "offset"  bigint  NOT NULL,
    org_id    text COLLATE "C" NOT NULL,
    revision  bigint  NOT NULL,
    outcome   text    NOT NULL CHECK (outcome IN ('applied', 'void', 'halting')),
    hash      text    NOT NULL,
    parent    text    NOT NULL,
    time      text COLLATE "C" NOT NULL,
    key_id    text COLLATE "C",             -- The key it is about, if any.
    value     bytea   NOT NULL,
    headers   bytea   NOT NULL,   -- JSON: [[name, value in base64 or null], ...]
    PRIMARY KEY (partition, "offset")
);
CREATE INDEX IF NOT EXISTS ledger_records_org ON ledger_records (org_id, revision, "offset");
CREATE INDEX IF NOT EXISTS ledger_records_key ON ledger_records (org_id, key_id) WHERE key_id IS NOT NULL;

CREATE TABLE IF NOT EXISTS orgs (
    org_id        text COLLATE "C" PRIMARY KEY,
    name          text,
    keys_enabled  boolean NOT NULL,
    registered_at text COLLATE "C" NOT NULL
);

CREATE TABLE IF NOT EXISTS users (
    org_id     text COLLATE "C" NOT NULL,
    user_id    text COLLATE "C" NOT NULL,
    kind       text   NOT NULL,
    role       text   NOT NULL,
    status     text   NOT NULL CHECK (status IN ('active', 'disabled', 'erased')),
    created_at text COLLATE "C" NOT NULL,
    revision   bigint NOT NULL,
    PRIMARY KEY (org_id, user_id)
);
CREATE INDEX IF NOT EXISTS users_newest ON users (org_id, created_at, user_id);

CREATE TABLE IF NOT EXISTS keys (
    org_id     text COLLATE "C" NOT NULL,
    key_id     text COLLATE "C" NOT NULL,
    user_id    text COLLATE "C" NOT NULL,
    name       text   NOT NULL,
    last4      text   NOT NULL,
    scopes     jsonb,
    cidrs      jsonb,
    created_at text COLLATE "C" NOT NULL,
    expires_at text COLLATE "C",
    revoked_at text COLLATE "C",
    revision   bigint NOT NULL,
    PRIMARY KEY (org_id, key_id)
);
CREATE INDEX IF NOT EXISTS keys_newest ON keys (org_id, created_at, key_id);
CREATE INDEX IF NOT EXISTS keys_of_user ON keys (org_id, user_id, created_at, key_id);
-- Whose key is it, when a use names the wrong organisation.
CREATE INDEX IF NOT EXISTS keys_by_id ON keys (key_id);
-- What is counted and searched most, without touching the table.
CREATE INDEX IF NOT EXISTS keys_not_revoked ON keys (org_id, user_id) INCLUDE (key_id, expires_at)
    WHERE revoked_at IS NULL;

-- Uses by key. A table of its own, because a KeyUsed can overtake its KeyCreated. `last_used_...` are of one use, the
-- newest VALID one. A page has room for the next state of its rows: then no index is touched.
CREATE TABLE IF NOT EXISTS key_usage (
    org_id           text COLLATE "C" NOT NULL,
    key_id           text COLLATE "C" NOT NULL,
    uses             bigint NOT NULL, -- With any outcome.
    valid_uses       bigint NOT NULL,
    last_used_at     text COLLATE "C" NOT NULL,
    last_used_ip     text COLLATE "C" NOT NULL,
    last_used_agent  text COLLATE "C" NOT NULL,
    last_used_source text COLLATE "C" NOT NULL,
    PRIMARY KEY (org_id, key_id)
) WITH (fillfactor = 60);

CREATE TABLE IF NOT EXISTS key_usage_hours (
    org_id   text COLLATE "C" NOT NULL,
    key_id   text COLLATE "C" NOT NULL,
    user_id  text COLLATE "C" NOT NULL,
    hour     text COLLATE "C" NOT NULL,
    outcome  text COLLATE "C" NOT NULL,
    ip       text COLLATE "C" NOT NULL,
    count    bigint NOT NULL,
    first_at text COLLATE "C" NOT NULL,
    last_at  text COLLATE "C" NOT NULL,
    PRIMARY KEY (org_id, key_id, hour, outcome, ip, user_id)
) WITH (fillfactor = 60);
-- For services.projector.retention; rows come roughly in the order of time, so this costs next to nothing.
CREATE INDEX IF NOT EXISTS key_usage_hours_old ON key_usage_hours USING brin (hour);

CREATE INDEX IF NOT EXISTS key_usage_hours_refused ON key_usage_hours (org_id, hour) WHERE outcome <> 'VALID';

-- The numbers seen of each sender in each partition of a usage topic, and those that are missing (both ends included).
CREATE TABLE IF NOT EXISTS usage_sources (
    source    text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    last      bigint  NOT NULL,
    topic     text COLLATE "C" NOT NULL,
    PRIMARY KEY (topic, source, partition)
);
CREATE TABLE IF NOT EXISTS usage_gaps (
    source    text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    first     bigint  NOT NULL,
    last      bigint  NOT NULL,
    topic     text COLLATE "C" NOT NULL,
    PRIMARY KEY (topic, source, partition, first)
);

-- Records of key-usage-external that carry no number: each is remembered by its id.
CREATE TABLE IF NOT EXISTS external_usage_ids (
    source  text COLLATE "C" NOT NULL,
    id      text COLLATE "C" NOT NULL,
    sent_ms bigint NOT NULL, -- The time of the record, by which Kafka lets it go; milliseconds since 1970.
    PRIMARY KEY (source, id)
);
CREATE INDEX IF NOT EXISTS external_usage_ids_old ON external_usage_ids USING brin (sent_ms);

-- Uses that were not counted, and why; those whose key is not there are, once it is.
CREATE TABLE IF NOT EXISTS usage_quarantine (
    topic     text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    "offset"  bigint  NOT NULL,
    reason    text    NOT NULL CHECK (reason IN ('waiting', 'unknown_key', 'wrong_org', 'future', 'before_creation')),
    source    text COLLATE "C" NOT NULL,
    id        text COLLATE "C" NOT NULL,
    org_id    text COLLATE "C" NOT NULL,
    key_id    text COLLATE "C" NOT NULL,
    outcome   text COLLATE "C" NOT NULL,
    count     bigint  NOT NULL,
    last_at   text COLLATE "C" NOT NULL,
    sent_ms   bigint  NOT NULL, -- The time of the record.
    value     bytea   NOT NULL, -- The record, to be judged again.
    PRIMARY KEY (topic, partition, "offset")
);
CREATE INDEX IF NOT EXISTS usage_quarantine_newest ON usage_quarantine (sent_ms, topic, partition, "offset");
CREATE INDEX IF NOT EXISTS usage_quarantine_org ON usage_quarantine (org_id, sent_ms, topic, partition, "offset");
CREATE INDEX IF NOT EXISTS usage_quarantine_keyless ON usage_quarantine (org_id, key_id)
    WHERE reason IN ('waiting', 'unknown_key', 'wrong_org');
CREATE INDEX IF NOT EXISTS usage_quarantine_waiting ON usage_quarantine (partition) WHERE reason = 'waiting';

-- Usage records that expired before they were read.
CREATE TABLE IF NOT EXISTS usage_losses (
    topic        text    NOT NULL,
    partition    integer NOT NULL,
    next_offset  bigint  NOT NULL,
    first_offset bigint  NOT NULL,
    PRIMARY KEY (topic, partition, next_offset)
);

CREATE OR REPLACE FUNCTION now_text() RETURNS text STABLE LANGUAGE sql
    RETURN to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');

-- How names are compared where upper and lower case are the same; also where the database has no locale.
CREATE OR REPLACE FUNCTION folded(whole text) RETURNS text IMMUTABLE LANGUAGE sql
    RETURN lower(whole COLLATE pg_c_utf8) COLLATE "C";

CREATE OR REPLACE FUNCTION has_part(whole text, part text) RETURNS boolean IMMUTABLE LANGUAGE sql
    RETURN strpos(folded(whole), folded(part)) > 0;

-- Every key with its last use; `user_keys` holds the same rows, read by owner.
CREATE OR REPLACE VIEW org_keys AS
SELECT
    keys.org_id, keys.key_id, keys.user_id, keys.name, keys.last4, keys.scopes, keys.cidrs,
    keys.created_at, keys.expires_at, keys.revoked_at, keys.revision,
    NULLIF(used.last_used_at, '') AS last_used_at, NULLIF(used.last_used_ip, '') AS last_used_ip,
    COALESCE(used.uses, 0) AS uses, COALESCE(used.valid_uses, 0) AS valid_uses,
    CASE
        WHEN keys.revoked_at IS NOT NULL THEN 'revoked'
        WHEN keys.expires_at <= (SELECT now_text()) THEN 'expired' -- Asked once, not for every row.
        ELSE 'active'
    END AS state,
    COALESCE(used.last_used_agent, '') AS last_used_agent, COALESCE(used.last_used_source, '') AS last_used_source
FROM keys LEFT JOIN key_usage AS used USING (org_id, key_id);

CREATE OR REPLACE VIEW user_keys AS SELECT * FROM org_keys;

-- One pass over the keys of an organisation, and none where no count is asked for. New columns stand at the end.
CREATE OR REPLACE VIEW org_summary AS
SELECT
    heads.org_id, orgs.name, COALESCE(orgs.keys_enabled, false) AS keys_enabled, heads.revision,
    COALESCE(orgs.registered_at, '') AS registered_at, heads.halt_why, heads.halt_detail,
    counted.active_keys, counted.never_used, counted.last_activity_at,
    (SELECT count(*) FROM users WHERE users.org_id = heads.org_id AND users.status <> 'erased') AS users,
    counted.key_owners
FROM heads
LEFT JOIN orgs USING (org_id)
LEFT JOIN LATERAL (
    SELECT
        COALESCE(sum(owner.active_keys), 0)::bigint AS active_keys,
        COALESCE(sum(owner.never_used), 0)::bigint AS never_used,
        max(owner.last_used_at) AS last_activity_at,
        count(*) FILTER (WHERE owner.active_keys > 0) AS key_owners
    FROM (
        SELECT
            count(*) FILTER (WHERE state = 'active') AS active_keys,
            count(*) FILTER (WHERE state = 'active' AND last_used_at IS NULL) AS never_used,
            max(last_used_at) AS last_used_at
        FROM org_keys WHERE org_keys.org_id = heads.org_id GROUP BY user_id
    ) AS owner
) AS counted ON true;

CREATE OR REPLACE VIEW user_summary AS
SELECT
    users.org_id, users.user_id, users.kind, users.role, users.status, users.created_at, users.revision,
    counted.active_keys, counted.never_used, counted.last_activity_at
FROM users
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE state = 'active') AS active_keys,
        count(*) FILTER (WHERE state = 'active' AND last_used_at IS NULL) AS never_used,
        max(last_used_at) AS last_activity_at
    FROM org_keys WHERE org_keys.org_id = users.org_id AND org_keys.user_id = users.user_id
) AS counted;
