-- How far the receipts of each node's log are counted (docs/receipts.md). Changes in one transaction with `served`.
CREATE TABLE receipt_logs (
    node      TEXT NOT NULL,                -- PeerId
    log       TEXT NOT NULL,                -- the node's id for it
    through   INTEGER NOT NULL,             -- number of the last receipt that is counted
    last_hash BLOB NOT NULL,                -- SHA-256 of its text
    PRIMARY KEY (node, log)
) STRICT, WITHOUT ROWID;

-- Sums of receipts. They stay when the publication is deleted: its operators are to be paid all the same.
CREATE TABLE served (
    publication TEXT NOT NULL,
    node        TEXT NOT NULL,
    bytes       INTEGER NOT NULL,           -- previews included
    played_ms   INTEGER NOT NULL,           -- of playback only, as the next
    views       INTEGER NOT NULL,
    PRIMARY KEY (publication, node)
) STRICT, WITHOUT ROWID;
