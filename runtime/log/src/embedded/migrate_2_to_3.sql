-- From format 2 to 3: a log tells itself from every other, and topics say how long they may be in use.

CREATE TABLE log_id (one INTEGER PRIMARY KEY CHECK (one = 1), id BLOB NOT NULL);
INSERT INTO log_id VALUES (1, randomblob(16));

ALTER TABLE topics ADD COLUMN used_until INTEGER NOT NULL DEFAULT 0;
UPDATE topics SET used_until = (SELECT offset FROM log_end);
