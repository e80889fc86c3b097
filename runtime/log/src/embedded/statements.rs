//! The statements of the writer, prepared once.

use rusqlite::{Connection, Statement};

/// What a dead letter takes, about, as SQL: SQLite knows the length of a body without reading it.
macro_rules! letter_bytes {
    () => {
        "(length(dead.body) + coalesce(length(dead.headers), 0) + length(dead.error) + length(dead.topic) + 200)"
    };
}
pub(super) use letter_bytes;

macro_rules! statements {
    ($($name:ident: $sql:expr,)*) => {
        /// Every statement the writer runs.
        pub(super) struct Statements<'c> {
            $(pub(super) $name: Statement<'c>,)*
        }

        impl<'c> Statements<'c> {
            pub(super) fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
                Ok(Self { $($name: connection.prepare($sql)?,)* })
            }
        }
    };
}

statements! {
    begin: "BEGIN IMMEDIATE",
    commit: "COMMIT",
    rollback: "ROLLBACK",
    pages: "SELECT page_count - freelist_count FROM pragma_page_count, pragma_freelist_count",

    end: "SELECT offset, time FROM log_end",
    end_set: "UPDATE log_end SET offset = ?1, time = ?2",
    topic: "SELECT id, used_until FROM topics WHERE name = ?1",
    topic_add: "INSERT INTO topics (name, used_until) VALUES (?1, ?2)",
    topic_used: "UPDATE topics SET used_until = ?2 WHERE id = ?1",
    append: "INSERT INTO log VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",

    handler: "SELECT id FROM handlers WHERE name = ?1",
    handler_add: "INSERT INTO handlers (name) VALUES (?1)",
    shard: "SELECT id, term, commit_number, read, marks, controlled FROM shards WHERE handler_id = ?1 AND shard_index = ?2",
    shard_add: "INSERT INTO shards (handler_id, shard_index, term, commit_number, read, marks, controlled) \
                VALUES (?1, ?2, ?5, 0, ?3, 0, ?4)",
    terms: "SELECT gone FROM terms",
    terms_set: "UPDATE terms SET gone = max(gone, (SELECT coalesce(max(term), 0) FROM shards WHERE handler_id = ?1))",
    shard_term: "UPDATE shards SET term = ?2 WHERE id = ?1",
    shard_commit: "UPDATE shards SET commit_number = ?2, read = ?3, marks = ?4, controlled = ?5 WHERE id = ?1",
    shard_control: "UPDATE shards SET control = ?2 WHERE id = ?1",

    open_put: "REPLACE INTO open VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    open_drop: "DELETE FROM open WHERE shard_id = ?1 AND offset = ?2",
    marks_put: "INSERT INTO marks VALUES (?1, ?2, ?3, ?4, ?5)",
    marks_oldest: "SELECT commit_number, newest_time, count FROM marks WHERE shard_id = ?1 ORDER BY commit_number LIMIT 64",
    marks_drop: "DELETE FROM marks WHERE shard_id = ?1 AND commit_number = ?2",
    state_put: "REPLACE INTO state VALUES (?1, ?2, ?3, ?4)",
    state_drop: "DELETE FROM state WHERE handler_id = ?1 AND key = ?2 AND entry = ?3",
    delayed_put: "REPLACE INTO delayed VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    delayed_has: "SELECT 1 FROM delayed WHERE shard_id = ?1 AND number = ?2",
    delayed_drop: "DELETE FROM delayed WHERE shard_id = ?1 AND number = ?2",
    dead_add: concat!(
        "INSERT INTO dead (shard_id, lane_key, attempts, kind, error, digest, given_up, offset, time, topic, hops, key, id, \
         headers, body, handler_id, identity, deaths, first_offset, first_given_up, returns) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21) RETURNING ",
        letter_bytes!()
    ),
    dead_drop: concat!("DELETE FROM dead WHERE number = ?2 AND shard_id = ?1 RETURNING ", letter_bytes!()),
    dead_drop_oldest: concat!(
        "DELETE FROM dead WHERE number = (SELECT min(number) FROM dead WHERE handler_id = ?1) RETURNING ",
        letter_bytes!()
    ),
    dead_count: concat!(
        "SELECT count(*), coalesce(sum(", letter_bytes!(), "), 0) FROM dead WHERE handler_id = ?1"
    ),
    handlers_count: "SELECT count(*) FROM handlers WHERE NOT forgotten",
    topics_bytes: "SELECT coalesce(sum(2 * length(name) + 48), 0) FROM topics",
    dead_same: "SELECT number, deaths, first_offset, first_given_up, returns FROM dead \
                WHERE shard_id = ?1 AND identity = ?2 AND time > ?3 AND time < ?4 ORDER BY number DESC LIMIT 1",

    routings: "SELECT version FROM routings",
    routings_set: "UPDATE routings SET version = ?1, routings = ?2",
}
