-- From format 3 to 4: routings say where the handler was recorded and from where on its rules of identity hold.

-- What the old rules took up stays where it is: for the handlers that exist the new ones hold from the end on.
UPDATE routings SET routings = (
    SELECT json_object('format', 2, 'routings', json_group_array(json_set(
        each.value, '$.recorded', 0, '$.identity', json_object('after', log_end.offset, 'time', log_end.time)
    ))) FROM json_each(routings.routings, '$.routings') AS each, log_end
) WHERE version > 0;
