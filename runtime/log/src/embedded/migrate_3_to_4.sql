-- From format 3 to 4: routings say where the handler was recorded and from where on its rules of identity hold; dead
-- letters say which message they are and how often it died.

-- What the old rules took up stays where it is: for the handlers that exist the new ones hold from the end on.
UPDATE routings SET routings = (
    SELECT json_object('format', 2, 'routings', json_group_array(json_set(
        each.value, '$.recorded', 0, '$.identity', json_object('after', log_end.offset, 'time', log_end.time)
    ))) FROM json_each(routings.routings, '$.routings') AS each, log_end
) WHERE version > 0;

-- What identity the letters of before had nobody knows any more: they stand alone.
ALTER TABLE dead ADD COLUMN identity BLOB;
ALTER TABLE dead ADD COLUMN deaths INTEGER NOT NULL DEFAULT 1;
ALTER TABLE dead ADD COLUMN first_offset INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dead ADD COLUMN first_given_up INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dead ADD COLUMN returns INTEGER NOT NULL DEFAULT 0;
UPDATE dead SET first_offset = offset, first_given_up = given_up;
CREATE INDEX dead_by_identity ON dead (shard_id, identity) WHERE identity IS NOT NULL;
