-- From format 5 to 6: modules that were deployed. In a log of before there are none.

CREATE TABLE modules (
    id INTEGER PRIMARY KEY, handler_id INTEGER NOT NULL, digest BLOB NOT NULL, number INTEGER NOT NULL,
    time INTEGER NOT NULL, bytes INTEGER NOT NULL, UNIQUE (handler_id, digest)
);
CREATE TABLE module_pieces (module_id INTEGER NOT NULL, piece INTEGER NOT NULL, bytes BLOB NOT NULL, UNIQUE (module_id, piece));
