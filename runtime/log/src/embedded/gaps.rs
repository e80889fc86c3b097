//! How many messages there are up to an offset, in a log whose offsets have gaps because it was another kind of log before.
//!
//! This log's own offsets have none. Those that were brought along may: then some places of them are kept in a table with
//! the number of messages up to there, and between two places it is about so many. A log without the table has no gaps.

use super::failure::Failure;
use super::queries::Reader;
use super::rows::{int, uint};
use rusqlite::{Connection, OptionalExtension as _, params};
use sluicebox_core::message::Offset;

/// Messages between two places.
const STEP: u64 = 256;

/// What came, as it comes.
#[derive(Default)]
pub(super) struct Gaps {
    last: Offset,
    messages: u64,
    /// Some places, and the number of messages up to there.
    places: Vec<(Offset, u64)>,
    has_any: bool,
}

impl Gaps {
    /// The first message comes after this one, and so many are gone.
    pub(super) fn begin(after: Offset, gone: u64) -> Self {
        Self { last: after, messages: gone, places: vec![(after, gone)], has_any: gone != after.0 }
    }

    pub(super) fn last(&self) -> Offset {
        self.last
    }

    pub(super) fn add(&mut self, offset: Offset) {
        self.has_any |= offset.0 != self.last.0 + 1;
        (self.last, self.messages) = (offset, self.messages + 1);
        if self.messages.is_multiple_of(STEP) {
            self.places.push((offset, self.messages));
        }
    }

    /// Keeps them, if there are gaps. `end`: nothing lies between the last message and that.
    pub(super) fn write(&mut self, connection: &Connection, end: Offset) -> Result<(), Failure> {
        if !self.has_any && end == self.last {
            return Ok(());
        }
        let last = (self.last, self.messages);
        self.places.extend([last, (end, self.messages)]);
        connection.execute_batch("CREATE TABLE gaps (upto INTEGER PRIMARY KEY, messages INTEGER NOT NULL)")?;
        let mut put = connection.prepare("REPLACE INTO gaps VALUES (?1, ?2)")?;
        for (upto, messages) in &self.places {
            put.execute(params![int(upto.0), int(*messages)])?;
        }
        Ok(())
    }
}

/// Whether a log has any.
pub(super) fn has_any(connection: &Connection) -> Result<bool, Failure> {
    let mut select = connection.prepare_cached("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'gaps'")?;
    Ok(select.exists([])?)
}

impl Reader {
    /// How many messages there were up to an offset, those that are gone included.
    pub(super) fn messages_upto(&self, offset: Offset) -> Result<u64, Failure> {
        if !has_any(self.connection())? {
            return Ok(offset.0);
        }
        let place = |sql: &str| -> Result<Option<(u64, u64)>, Failure> {
            let mut select = self.connection().prepare_cached(sql)?;
            let found = select.query_row([int(offset.0)], |row| Ok((uint(row, 0), uint(row, 1)))).optional()?;
            found.map(|(upto, messages)| Ok((upto?, messages?))).transpose()
        };
        let before = place("SELECT upto, messages FROM gaps WHERE upto <= ?1 ORDER BY upto DESC LIMIT 1")?;
        let Some((from, messages)) = before else { return Ok(0) };
        let beyond = offset.0 - from;
        match place("SELECT upto, messages FROM gaps WHERE upto > ?1 ORDER BY upto LIMIT 1")? {
            // Where there are no gaps between the two it is exactly so many.
            Some((upto, more)) => Ok(messages + share(beyond, upto - from, more - messages)),
            // What came since has no gaps.
            None => Ok(messages + beyond),
        }
    }
}

/// `part` of `whole`, of so many messages.
fn share(part: u64, whole: u64, messages: u64) -> u64 {
    let share = u128::from(messages) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(share).unwrap_or(messages)
}
