-- Everything the console keeps. It is no projection: no rebuild touches it, and erasing a person deletes a row.
CREATE SCHEMA IF NOT EXISTS console;

-- People and service accounts: the only place with names, e-mail addresses and passwords.
-- A row is pending from before its AddUser command until the command's answer is known; times are ms since 1970.
CREATE TABLE IF NOT EXISTS console.people (
    idempotency_key      text PRIMARY KEY, -- Sent with the AddUser command, so that a repeat finds the first one.
    org_id               text NOT NULL,
    user_id              text,
    name                 text NOT NULL,
    email                text,
    kind                 text NOT NULL,
    role                 text NOT NULL,    -- As it was asked for. Rights come from the ledger, never from here.
    password_hash        text,
    must_change_password boolean NOT NULL,
    status               text NOT NULL CHECK (status IN ('pending', 'active')),
    added_revision       bigint,
    created_ms           bigint NOT NULL,
    claimed_until_ms     bigint NOT NULL,  -- Until then somebody is at work on a pending row.
    CHECK ((status = 'active') = (user_id IS NOT NULL AND added_revision IS NOT NULL))
);
CREATE UNIQUE INDEX IF NOT EXISTS people_user ON console.people (org_id, user_id);
CREATE UNIQUE INDEX IF NOT EXISTS people_email ON console.people (lower(email));

-- Failed sign-ins per account and per address. An account is the SHA-256 of its e-mail, known here or not.
CREATE TABLE IF NOT EXISTS console.failed_sign_ins (
    subject    text PRIMARY KEY,
    failures   integer NOT NULL,
    last_at_ms bigint NOT NULL
);

-- One row: what makes the first start repeatable, and whether it is done.
CREATE TABLE IF NOT EXISTS console.installation (
    only_one     boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    secret       text NOT NULL,
    bootstrapped boolean NOT NULL DEFAULT false
);

-- How the people of an organisation sign in; one that is absent here takes passwords.
CREATE TABLE IF NOT EXISTS console.org_sign_in (
    org_id   text PRIMARY KEY,
    sso_only boolean NOT NULL
);

-- Browsers that are signed in. Dropping a row signs its browser out. Times are ms since 1970.
CREATE TABLE IF NOT EXISTS console.sessions (
    cookie_hash    bytea PRIMARY KEY,        -- SHA-256 of the cookie, so that a copy of this table opens nothing.
    org_id         text NOT NULL,
    user_id        text NOT NULL,
    proof          bytea,                    -- SHA-256 of the password hash that was judged; NULL after single sign-on.
    revision       bigint NOT NULL,          -- Of the org's ledger at sign-in; the tokens made for this browser carry it.
    acted_org      text,                     -- What this browser did last, so that its next page waits for it.
    acted_revision bigint,
    notice         text,                     -- One sentence for the next page.
    created_ms     bigint NOT NULL,
    seen_ms        bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS sessions_user ON console.sessions (org_id, user_id);
CREATE INDEX IF NOT EXISTS sessions_old ON console.sessions (created_ms);
