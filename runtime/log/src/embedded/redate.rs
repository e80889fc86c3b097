//! Moves the times in the tables when the host's time is set: one transaction, before the log is at work.

use super::failure::Failure;
use super::rows::{self, int};
use crate::routings;
use rusqlite::{Connection, OptionalExtension as _, named_params, params};
use sluicebox_core::clock::{Timestamp, millis};
use sluicebox_core::skew::Redate;

/// [`Redate::time`] for a column, and which rows it changes.
const TIME_BACK: (&str, &str) = ("min({}, :now)", "{} > :now");
const TIME_FORWARD: (&str, &str) = ("max({}, min({} + :by, :now))", "{} >= :since");
/// [`Redate::due`], likewise.
const DUE_BACK: (&str, &str) = ("max({} - :by, :now)", "{} > :now");
const DUE_FORWARD: (&str, &str) = ("{} + :by", "{} >= :since AND {} > 0");

/// Where times are, and where dues are. Times of marks are in blobs.
const TIMES: [(&str, &str); 6] = [
    ("log", "time"),
    ("log_end", "time"),
    ("dead", "time"),
    ("dead", "given_up"),
    ("dead", "first_given_up"),
    ("modules", "time"),
];
const DUES: [(&str, &str); 2] = [("open", "due"), ("delayed", "due")];

/// The host's time in one boot of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostBoot {
    /// Names the boot.
    pub boot_id: String,
    /// The host's time when the machine booted. It is the same as long as nobody sets it.
    pub boot: Timestamp,
}

pub(super) fn redate(connection: &Connection, redate: &Redate, accepted: &HostBoot) -> Result<(), Failure> {
    let (times, dues, now, since, by) = match *redate {
        Redate::Back { now, by } => (TIME_BACK, DUE_BACK, now, Timestamp(0), by),
        Redate::Forward { now, since, by } => (TIME_FORWARD, DUE_FORWARD, now, since, by),
    };
    let transaction = connection.unchecked_transaction()?;
    let columns = TIMES.map(|column| (column, times)).into_iter().chain(DUES.map(|column| (column, dues)));
    for ((table, column), (value, condition)) in columns {
        let (value, condition) = (value.replace("{}", column), condition.replace("{}", column));
        // Each statement names all three, so that one set of values serves them all.
        let sql = format!(
            "UPDATE {table} SET {column} = {value} WHERE {condition} AND :now IS NOT NULL AND :since IS NOT NULL \
             AND :by IS NOT NULL"
        );
        let by = int(millis(by));
        transaction.execute(&sql, named_params! { ":now": int(now.0), ":since": int(since.0), ":by": by })?;
    }
    marks(&transaction, redate)?;
    identities(&transaction, redate)?;
    let HostBoot { boot_id, boot } = accepted;
    transaction.execute("REPLACE INTO accepted_clock VALUES (1, ?1, ?2)", params![boot_id, int(boot.0)])?;
    // DURABLE: all times move together, and the next start knows that they did; after a crash before this line it finds
    // the old ones.
    Ok(transaction.commit()?)
}

/// Since when the rules of identity of today hold, which is compared with the times of messages.
fn identities(connection: &Connection, redate: &Redate) -> Result<(), Failure> {
    let (version, text): (i64, String) =
        connection.query_row("SELECT version, routings FROM routings", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if version == 0 {
        return Ok(());
    }
    let mut all = routings::decode(&text).map_err(Failure::Broken)?;
    all.iter_mut().for_each(|routing| routing.identity.time = redate.time(routing.identity.time));
    connection.execute("UPDATE routings SET routings = ?1", [routings::encode(&all)])?;
    Ok(())
}

/// What an operator accepted and no host has taken note of.
pub(super) fn accepted(connection: &Connection) -> Result<Option<HostBoot>, Failure> {
    let found = connection.query_row("SELECT boot_id, boot FROM accepted_clock", [], |row| {
        Ok(HostBoot { boot_id: row.get(0)?, boot: Timestamp(row.get::<_, i64>(1)?.cast_unsigned()) })
    });
    Ok(found.optional()?)
}

pub(super) fn forget_accepted(connection: &Connection) -> Result<(), Failure> {
    connection.execute("DELETE FROM accepted_clock", [])?;
    Ok(())
}

fn marks(connection: &Connection, redate: &Redate) -> Result<(), Failure> {
    let mut update = connection
        .prepare("UPDATE marks SET newest_time = ?3, marks = ?4 WHERE shard_id = ?1 AND commit_number = ?2")?;
    let mut keys = connection.prepare("SELECT shard_id, commit_number FROM marks")?;
    // The keys first: a table must not be changed where it is being read.
    let keys = keys.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    let mut select = connection.prepare("SELECT marks FROM marks WHERE shard_id = ?1 AND commit_number = ?2")?;
    for (shard_id, commit_number) in keys {
        let mut marks = vec![];
        let blob: Vec<u8> = select.query_row([shard_id, commit_number], |row| row.get(0))?;
        rows::read_marks(&blob, &mut marks)?;
        let mut newest = Timestamp(0);
        let mut changed = false;
        for mark in &mut marks {
            let time = redate.time(mark.time);
            changed |= time != mark.time;
            mark.time = time;
            newest = newest.max(time);
        }
        if changed {
            update.execute(params![shard_id, commit_number, int(newest.0), rows::marks_blob(&marks)])?;
        }
    }
    Ok(())
}
