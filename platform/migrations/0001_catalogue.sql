-- Times are whole seconds since 1970. Ids are lowercase hex, digests are bytes.

CREATE TABLE users (
    id                INTEGER PRIMARY KEY,
    name              TEXT NOT NULL UNIQUE,
    api_key_sha256    BLOB UNIQUE,          -- NULL: nobody signs in as this user (the guest)
    private_key_pkcs8 BLOB NOT NULL,        -- the custodial RSA key
    created           INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
    token_sha256 BLOB PRIMARY KEY,
    user         INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    expires      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE contents (
    sequence     INTEGER PRIMARY KEY AUTOINCREMENT,   -- order of registration
    publication  TEXT NOT NULL UNIQUE,
    owner        INTEGER NOT NULL REFERENCES users (id),
    title        TEXT NOT NULL,
    visibility   TEXT NOT NULL CHECK (visibility IN ('public', 'unlisted', 'owner')),
    state        TEXT NOT NULL CHECK (state IN ('pending', 'processing', 'ready', 'published', 'rejected')),
    network      TEXT NOT NULL,
    node         TEXT NOT NULL,              -- PeerId of the ingest node
    upload_url   TEXT NOT NULL,
    upload_token TEXT,                       -- NULL once nothing needs it any more
    size         INTEGER NOT NULL,
    content_key  TEXT,
    duration_ms  INTEGER,
    created      INTEGER NOT NULL,
    progress     TEXT,                       -- JSON
    error        TEXT,                       -- JSON, a problem object
    -- What can be watched has a key.
    CHECK (state NOT IN ('ready', 'published') OR content_key IS NOT NULL)
) STRICT;

CREATE INDEX contents_by_key ON contents (content_key) WHERE content_key IS NOT NULL;
CREATE INDEX contents_by_owner ON contents (owner, state);
CREATE INDEX contents_unfinished ON contents (state) WHERE state IN ('pending', 'processing');

CREATE TABLE fragments (
    publication TEXT NOT NULL REFERENCES contents (publication) ON DELETE CASCADE,
    position    INTEGER NOT NULL,            -- the order, from 1
    sha256      BLOB NOT NULL,
    length      INTEGER NOT NULL,
    PRIMARY KEY (publication, position)
) STRICT, WITHOUT ROWID;

-- Shared by all publications of the same content.
CREATE TABLE index_blocks (
    content_key TEXT PRIMARY KEY,
    bytes       BLOB NOT NULL
) STRICT;
