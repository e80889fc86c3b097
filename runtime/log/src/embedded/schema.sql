-- Format 6. Unsigned 64-bit numbers are kept as SQLite's signed ones, bit for bit.

-- The offset and time of the last message ever appended: neither falls back, whatever is deleted.
CREATE TABLE log_end (one INTEGER PRIMARY KEY CHECK (one = 1), offset INTEGER NOT NULL, time INTEGER NOT NULL);
INSERT INTO log_end VALUES (1, 0, 0);

-- Tells this log from every other: 128 random bits.
CREATE TABLE log_id (one INTEGER PRIMARY KEY CHECK (one = 1), id BLOB NOT NULL);
INSERT INTO log_id VALUES (1, randomblob(16));

-- A machine's clock that an operator accepted and no host has taken note of yet: which boot of the machine, and the host's
-- time then.
CREATE TABLE accepted_clock (one INTEGER PRIMARY KEY CHECK (one = 1), boot_id TEXT NOT NULL, boot INTEGER NOT NULL);

CREATE TABLE topics (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    used_until INTEGER NOT NULL DEFAULT 0 -- no message after this offset names it
);

-- No secondary index: it would double what an append writes, and reads go by offset. The body comes last, so that
-- skipping a message does not read the pages of a long body.
CREATE TABLE log (
    offset INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, time INTEGER NOT NULL, hops INTEGER NOT NULL,
    key TEXT, id TEXT, headers BLOB, body BLOB NOT NULL
);

-- A forgotten handler keeps its row, under a name that no handler can have, until everything of it is deleted: its
-- number must not be given out again before.
CREATE TABLE handlers (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, forgotten INTEGER NOT NULL DEFAULT 0);

-- Terms up to here are gone with handlers that were forgotten, and are not given again.
CREATE TABLE terms (one INTEGER PRIMARY KEY CHECK (one = 1), gone INTEGER NOT NULL);
INSERT INTO terms VALUES (1, 0);

CREATE TABLE shards (
    id INTEGER PRIMARY KEY, handler_id INTEGER NOT NULL, shard_index INTEGER NOT NULL,
    term INTEGER NOT NULL, commit_number INTEGER NOT NULL, read INTEGER NOT NULL,
    marks INTEGER NOT NULL, -- how many, over all rows of the table
    controlled INTEGER NOT NULL DEFAULT 0,
    control TEXT NOT NULL DEFAULT '{}', -- JSON
    UNIQUE (handler_id, shard_index)
);

CREATE TABLE open (
    shard_id INTEGER, offset INTEGER, key TEXT, attempt INTEGER NOT NULL, due INTEGER NOT NULL, error TEXT NOT NULL,
    digest BLOB, scope INTEGER NOT NULL, PRIMARY KEY (shard_id, offset)
) WITHOUT ROWID;

-- One row a commit: `marks` is 24 bytes each, 16 of the id's hash and 8 of the time in milliseconds, little-endian.
CREATE TABLE marks (
    shard_id INTEGER, commit_number INTEGER, newest_time INTEGER NOT NULL, count INTEGER NOT NULL, marks BLOB NOT NULL,
    PRIMARY KEY (shard_id, commit_number)
) WITHOUT ROWID;

CREATE TABLE state (
    handler_id INTEGER, key TEXT, entry TEXT, value BLOB NOT NULL, PRIMARY KEY (handler_id, key, entry)
) WITHOUT ROWID;

CREATE TABLE delayed (
    shard_id INTEGER, number INTEGER, due INTEGER NOT NULL, topic TEXT NOT NULL, hops INTEGER NOT NULL,
    key TEXT, id TEXT, headers BLOB, body BLOB NOT NULL, PRIMARY KEY (shard_id, number)
) WITHOUT ROWID;

CREATE TABLE dead (
    number INTEGER PRIMARY KEY AUTOINCREMENT, shard_id INTEGER NOT NULL, lane_key TEXT, attempts INTEGER NOT NULL,
    kind TEXT NOT NULL, error TEXT NOT NULL, digest BLOB, given_up INTEGER NOT NULL,
    offset INTEGER NOT NULL, time INTEGER NOT NULL, topic TEXT NOT NULL, hops INTEGER NOT NULL,
    key TEXT, id TEXT, headers BLOB, body BLOB NOT NULL,
    handler_id INTEGER NOT NULL DEFAULT 0, -- that of the shard, for the order over all shards of a handler
    identity BLOB, -- 16 bytes: the hash of key and id, as in a mark
    deaths INTEGER NOT NULL DEFAULT 1, -- how often the message was given up, and since when
    first_offset INTEGER NOT NULL DEFAULT 0, first_given_up INTEGER NOT NULL DEFAULT 0,
    returns INTEGER NOT NULL DEFAULT 0
);
-- Each ends with the number, so that a handler's or a shard's letters are listed in order.
CREATE INDEX dead_by_handler ON dead (handler_id);
CREATE INDEX dead_by_shard ON dead (shard_id);
CREATE INDEX dead_by_identity ON dead (shard_id, identity) WHERE identity IS NOT NULL;

CREATE TABLE routings (one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL, routings TEXT NOT NULL);
INSERT INTO routings VALUES (1, 0, '');

-- Modules that were deployed, by handler. One whose number is 0 is not whole and in nobody's sight; the others are numbered in
-- the order in which they were put.
CREATE TABLE modules (
    id INTEGER PRIMARY KEY, handler_id INTEGER NOT NULL, digest BLOB NOT NULL, number INTEGER NOT NULL,
    time INTEGER NOT NULL, bytes INTEGER NOT NULL, UNIQUE (handler_id, digest)
);
CREATE TABLE module_pieces (module_id INTEGER NOT NULL, piece INTEGER NOT NULL, bytes BLOB NOT NULL, UNIQUE (module_id, piece));
