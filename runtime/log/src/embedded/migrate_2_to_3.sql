-- From format 2 to 3: a log tells itself from every other.

CREATE TABLE log_id (one INTEGER PRIMARY KEY CHECK (one = 1), id BLOB NOT NULL);
INSERT INTO log_id VALUES (1, randomblob(16));
