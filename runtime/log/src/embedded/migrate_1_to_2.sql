-- From format 1 to 2: operator commands, letters by handler, handlers being forgotten.

ALTER TABLE handlers ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0;

-- No message of format 1 was a command, so all of them are applied.
ALTER TABLE shards ADD COLUMN controlled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE shards ADD COLUMN control TEXT NOT NULL DEFAULT '{}';
UPDATE shards SET controlled = (SELECT offset FROM log_end);

ALTER TABLE dead ADD COLUMN handler_id INTEGER NOT NULL DEFAULT 0;
UPDATE dead SET handler_id = (SELECT handler_id FROM shards WHERE shards.id = shard_id);
CREATE INDEX dead_by_handler ON dead (handler_id);
CREATE INDEX dead_by_shard ON dead (shard_id);
