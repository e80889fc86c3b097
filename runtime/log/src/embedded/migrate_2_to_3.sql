-- From format 2 to 3: topics say how long they may be in use.

ALTER TABLE topics ADD COLUMN used_until INTEGER NOT NULL DEFAULT 0;
UPDATE topics SET used_until = (SELECT offset FROM log_end);
