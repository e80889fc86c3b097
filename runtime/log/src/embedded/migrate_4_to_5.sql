-- From format 4 to 5: a clock that was accepted, and terms that are gone.

CREATE TABLE accepted_clock (one INTEGER PRIMARY KEY CHECK (one = 1), boot_id TEXT NOT NULL, boot INTEGER NOT NULL);

-- What the handlers had that were forgotten before, nobody knows; no process that claimed one of their shards is left.
CREATE TABLE terms (one INTEGER PRIMARY KEY CHECK (one = 1), gone INTEGER NOT NULL);
INSERT INTO terms VALUES (1, 0);
