//! Which subscriptions of a routing no shard can still need: those that every shard has read past, with nothing open
//! from before. What a shard has settled only moves on, so what went is never asked for again.

use super::failure::Failure;
use super::rows::uint;
use crate::routings::drop_settled_spans;
use rusqlite::Connection;
use sluicebox_core::message::Offset;
use sluicebox_core::routing::Routing;

/// Drops the spans that every shard has left behind, as the transaction under way sees the shards.
pub(super) fn drop_settled(connection: &Connection, routing: &mut Routing) -> Result<(), Failure> {
    if routing.spans.len() < 2 {
        return Ok(());
    }
    let mut select = connection.prepare_cached(
        "SELECT count(*), coalesce(min(min(read, coalesce( \
             (SELECT min(offset) - 1 FROM open WHERE shard_id = shards.id), read))), 0) \
         FROM shards WHERE handler_id = (SELECT id FROM handlers WHERE name = ?1)",
    )?;
    let mut found = select.query([routing.handler.as_str()])?;
    let Some(row) = found.next()? else { return Ok(()) };
    // A shard that was never claimed begins at the start of the first span.
    if uint(row, 0)? >= u64::from(routing.shards) {
        drop_settled_spans(routing, Offset(uint(row, 1)?));
    }
    Ok(())
}
