-- What was deleted, with the signed orders (docs/protocol.md §7). No row ever goes: nodes that join later need them, too.
CREATE TABLE deletions (
    sequence    INTEGER PRIMARY KEY AUTOINCREMENT,    -- the platform's own number, never used again
    publication TEXT NOT NULL UNIQUE,
    owner       INTEGER NOT NULL REFERENCES users (id),
    network     TEXT NOT NULL,
    deleted     INTEGER NOT NULL,
    signed      TEXT NOT NULL                         -- the order as it is sent
) STRICT;

CREATE INDEX deletions_by_network ON deletions (network, sequence);

-- Up to which number each node has the orders of its network.
CREATE TABLE deletion_progress (
    network TEXT NOT NULL,
    node    TEXT NOT NULL,                            -- PeerId
    through INTEGER NOT NULL,
    PRIMARY KEY (network, node)
) STRICT, WITHOUT ROWID;
