//! Deployed modules in their tables. A module comes in pieces, one transaction each, so that commits wait for none for long; only
//! the last transaction makes it whole. What a crash leaves of one that was not goes when the log is opened.

use super::failure::Failure;
use super::queries::Reader;
use super::rows::{int, uint};
use crate::modules::{Modules, StoredModule, surplus};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, params};
use sluicebox_core::clock::Timestamp;
use sluicebox_core::handler::{Digest, HandlerName};

/// Most pieces deleted in one step.
const PIECES_PER_STEP: i64 = 32;

/// A step on the way of a module into the log.
pub(super) enum ModuleWrite {
    Piece {
        handler: HandlerName,
        digest: Digest,
        index: u32,
        bytes: Bytes,
    },
    /// All pieces are there: it is the handler's newest from here on, and what is beyond the bound goes.
    Whole {
        handler: HandlerName,
        digest: Digest,
        bytes: u64,
        needed: Vec<Digest>,
    },
    /// It will not be whole: its pieces go.
    Undo {
        handler: HandlerName,
        digest: Digest,
    },
    /// It is damaged.
    Delete {
        handler: HandlerName,
        digest: Digest,
    },
}

impl ModuleWrite {
    pub(super) fn handler(&self) -> &HandlerName {
        match self {
            Self::Piece { handler, .. }
            | Self::Whole { handler, .. }
            | Self::Undo { handler, .. }
            | Self::Delete { handler, .. } => handler,
        }
    }

    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Piece { bytes, .. } => 64 + bytes.len(),
            Self::Whole { .. } | Self::Undo { .. } | Self::Delete { .. } => 1024,
        }
    }
}

/// A module's number in its table, and whether it is whole.
fn find(connection: &Connection, handler_id: i64, digest: Digest) -> Result<Option<(i64, bool)>, Failure> {
    let mut select =
        connection.prepare_cached("SELECT id, number > 0 FROM modules WHERE handler_id = ?1 AND digest = ?2")?;
    Ok(select.query_row(params![handler_id, digest.0], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

pub(super) fn put_piece(
    connection: &Connection,
    handler_id: i64,
    digest: Digest,
    index: u32,
    bytes: &[u8],
) -> Result<(), Failure> {
    let id = match find(connection, handler_id, digest)? {
        Some((_, true)) => return Ok(()),
        Some((id, false)) => id,
        None => {
            let add = "INSERT INTO modules (handler_id, digest, number, time, bytes) VALUES (?1, ?2, 0, 0, 0)";
            connection.prepare_cached(add)?.insert(params![handler_id, digest.0])?
        }
    };
    connection.prepare_cached("REPLACE INTO module_pieces VALUES (?1, ?2, ?3)")?.execute(params![id, index, bytes])?;
    Ok(())
}

/// False when pieces are missing: they went meanwhile.
pub(super) fn make_whole(
    connection: &Connection,
    handler_id: i64,
    digest: Digest,
    bytes: u64,
    needed: &[Digest],
    now: Timestamp,
) -> Result<bool, Failure> {
    let Some((id, is_whole)) = find(connection, handler_id, digest)? else { return Ok(false) };
    if !is_whole {
        let mut there = connection
            .prepare_cached("SELECT coalesce(sum(length(bytes)), 0) FROM module_pieces WHERE module_id = ?1")?;
        if there.query_row([id], |row| row.get::<_, i64>(0))?.cast_unsigned() != bytes {
            return Ok(false);
        }
    }
    let newest =
        "UPDATE modules SET number = (SELECT max(number) + 1 FROM modules), time = ?2, bytes = ?3 WHERE id = ?1";
    connection.prepare_cached(newest)?.execute(params![id, int(now.0), int(bytes)])?;
    let mut select =
        connection.prepare_cached("SELECT digest FROM modules WHERE handler_id = ?1 AND number > 0 ORDER BY number")?;
    let digests = select.query_map([handler_id], |row| row.get(0).map(Digest))?;
    let digests = digests.collect::<Result<Vec<Digest>, _>>()?;
    for digest in surplus(&digests, needed) {
        delete(connection, handler_id, digest)?;
    }
    Ok(true)
}

/// Deletes what is there of a module unless it is whole.
pub(super) fn undo(connection: &Connection, handler_id: i64, digest: Digest) -> Result<(), Failure> {
    match find(connection, handler_id, digest)? {
        Some((_, false)) => delete(connection, handler_id, digest),
        Some((_, true)) | None => Ok(()),
    }
}

pub(super) fn delete(connection: &Connection, handler_id: i64, digest: Digest) -> Result<(), Failure> {
    let Some((id, _)) = find(connection, handler_id, digest)? else { return Ok(()) };
    connection.prepare_cached("DELETE FROM module_pieces WHERE module_id = ?1")?.execute([id])?;
    connection.prepare_cached("DELETE FROM modules WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// Deletes what nobody puts together any more: the process that did has ended.
pub(super) fn delete_parts(connection: &Connection) -> Result<(), Failure> {
    let parts = "SELECT handler_id, digest FROM modules WHERE number = 0";
    let mut select = connection.prepare(parts)?;
    let parts = select.query_map([], |row| Ok((row.get::<_, i64>(0)?, Digest(row.get(1)?))))?;
    // Read first: a table must not be changed where it is being read.
    let parts = parts.collect::<Result<Vec<_>, _>>()?;
    parts.into_iter().try_for_each(|(handler_id, digest)| delete(connection, handler_id, digest))
}

/// Deletes some pieces of a forgotten handler, or its modules once they have none; true when it deleted anything.
pub(super) fn erase(connection: &Connection, handler_id: i64) -> Result<bool, Failure> {
    let pieces = "DELETE FROM module_pieces WHERE rowid IN (SELECT module_pieces.rowid FROM module_pieces \
                  JOIN modules ON modules.id = module_id WHERE handler_id = ?1 LIMIT ?2)";
    if connection.prepare_cached(pieces)?.execute(params![handler_id, PIECES_PER_STEP])? > 0 {
        return Ok(true);
    }
    Ok(connection.prepare_cached("DELETE FROM modules WHERE handler_id = ?1")?.execute([handler_id])? > 0)
}

impl Reader {
    /// The bytes of a module, not compared with its digest.
    pub(super) fn module(&self, handler: &HandlerName, digest: Digest) -> Result<Option<Bytes>, Failure> {
        let snapshot = self.connection().unchecked_transaction()?;
        let mut select = snapshot.prepare_cached(
            "SELECT modules.id, bytes FROM modules JOIN handlers ON handlers.id = handler_id \
             WHERE name = ?1 AND digest = ?2 AND number > 0",
        )?;
        let found = select.query_row(params![handler.as_str(), digest.0], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
        });
        let Some((id, bytes)) = found.optional()? else { return Ok(None) };
        let mut module = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
        let mut pieces =
            snapshot.prepare_cached("SELECT bytes FROM module_pieces WHERE module_id = ?1 ORDER BY piece")?;
        let mut pieces = pieces.query([id])?;
        while let Some(piece) = pieces.next()? {
            module.extend_from_slice(piece.get_ref(0)?.as_blob().map_err(Failure::damaged)?);
        }
        Ok(Some(module.into()))
    }

    pub(super) fn modules(&self) -> Result<Modules, Failure> {
        let mut select = self.connection().prepare_cached(
            "SELECT name, digest, time, bytes FROM modules JOIN handlers ON handlers.id = handler_id \
             WHERE number > 0 AND NOT forgotten ORDER BY name, number",
        )?;
        let mut found = select.query([])?;
        let mut modules = Modules::new();
        while let Some(row) = found.next()? {
            let handler = HandlerName::parse(row.get_ref(0)?.as_str().map_err(Failure::damaged)?);
            let handler = handler.map_err(Failure::damaged)?;
            let module =
                StoredModule { digest: Digest(row.get(1)?), time: Timestamp(uint(row, 2)?), bytes: uint(row, 3)? };
            modules.entry(handler).or_default().push(module);
        }
        Ok(modules)
    }
}
