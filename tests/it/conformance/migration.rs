//! Databases of older formats: migrated at the first start, with everything that was in them.

use super::dead::letter;
use crate::harness::everything;
use crate::harness::logs::{commit, key, message, shard};
use sluicebox::clock::Timestamp;
use sluicebox::commit::{Committed, Control, DeadFilter, DeadLetter, DeadQuery, Deaths, LogId, ShardCommit, Term};
use sluicebox::log::embedded::{EmbeddedLog, Options};
use sluicebox::log::{Log, Trim};
use sluicebox::message::Offset;
use sluicebox::routing::{Field, IdFrom, KeyFrom, Routing, Since, Span};
use sluicebox::topic::Pattern;
use std::path::Path;

/// What the first version wrote into an empty directory.
const FORMAT_1: &str = "
CREATE TABLE log_end (one INTEGER PRIMARY KEY CHECK (one = 1), offset INTEGER NOT NULL, time INTEGER NOT NULL);
INSERT INTO log_end VALUES (1, 0, 0);
CREATE TABLE topics (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE log (
    offset INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, time INTEGER NOT NULL, hops INTEGER NOT NULL,
    key TEXT, id TEXT, headers BLOB, body BLOB NOT NULL
);
CREATE TABLE handlers (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE shards (
    id INTEGER PRIMARY KEY, handler_id INTEGER NOT NULL, shard_index INTEGER NOT NULL,
    term INTEGER NOT NULL, commit_number INTEGER NOT NULL, read INTEGER NOT NULL,
    marks INTEGER NOT NULL, -- how many, over all rows of the table
    UNIQUE (handler_id, shard_index)
);
CREATE TABLE open (
    shard_id INTEGER, offset INTEGER, key TEXT, attempt INTEGER NOT NULL, due INTEGER NOT NULL, error TEXT NOT NULL,
    digest BLOB, scope INTEGER NOT NULL, PRIMARY KEY (shard_id, offset)
) WITHOUT ROWID;
CREATE TABLE marks (
    shard_id INTEGER, commit_number INTEGER, newest_time INTEGER NOT NULL, count INTEGER NOT NULL, marks BLOB NOT NULL,
    PRIMARY KEY (shard_id, commit_number)
) WITHOUT ROWID;
CREATE TABLE state (
    handler_id INTEGER, key TEXT, entry TEXT, value BLOB NOT NULL, PRIMARY KEY (handler_id, key, entry)
) WITHOUT ROWID;
CREATE TABLE delayed (
    shard_id INTEGER, number INTEGER, due INTEGER NOT NULL, topic TEXT NOT NULL, hops INTEGER NOT NULL,
    key TEXT, id TEXT, headers BLOB, body BLOB NOT NULL, PRIMARY KEY (shard_id, number)
) WITHOUT ROWID;
CREATE TABLE dead (
    number INTEGER PRIMARY KEY AUTOINCREMENT, shard_id INTEGER NOT NULL, lane_key TEXT, attempts INTEGER NOT NULL,
    kind TEXT NOT NULL, error TEXT NOT NULL, digest BLOB, given_up INTEGER NOT NULL,
    offset INTEGER NOT NULL, time INTEGER NOT NULL, topic TEXT NOT NULL, hops INTEGER NOT NULL,
    key TEXT, id TEXT, headers BLOB, body BLOB NOT NULL
);
CREATE TABLE routings (one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL, routings TEXT NOT NULL);
INSERT INTO routings VALUES (1, 0, '');
PRAGMA application_id = 0x534c4258;
PRAGMA user_version = 1;
";

const CONTENT: &str = "
INSERT INTO topics VALUES (1, 'a.b'), (2, 'gone'), (3, 'last');
INSERT INTO log VALUES (1, 1, 1000, 0, 'k', 'id', NULL, x'31'), (2, 1, 1001, 0, NULL, NULL, NULL, x'32');
UPDATE log_end SET offset = 2, time = 1001;
INSERT INTO handlers VALUES (1, 'other'), (2, 'h');
INSERT INTO shards VALUES (1, 1, 0, 1, 0, 0, 0), (2, 2, 0, 3, 7, 1, 0);
INSERT INTO state VALUES (2, 'k', 'e', x'76');
INSERT INTO dead VALUES (4, 2, 'k', 8, 'trap', 'it broke', NULL, 1002, 1, 1000, 'a.b', 0, 'k', 'id', NULL, x'31');
INSERT INTO dead VALUES (6, 1, 'k', 8, 'trap', 'of other', NULL, 1002, 1, 1000, 'a.b', 0, 'k', 'id', NULL, x'31');
";

fn database(directory: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(directory.join("sluicebox.db")).unwrap()
}

fn format_1(directory: &Path) {
    let database = database(directory);
    database.pragma_update(None, "auto_vacuum", "INCREMENTAL").unwrap();
    database.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
    database.execute_batch(FORMAT_1).unwrap();
    database.execute_batch(CONTENT).unwrap();
}

/// What format 6 added, taken back.
const BACK_TO_FORMAT_5: &str = "
DROP TABLE module_pieces;
DROP TABLE modules;
PRAGMA user_version = 5;
";

/// What format 5 added, taken back.
const BACK_TO_FORMAT_4: &str = "
DROP TABLE accepted_clock;
DROP TABLE terms;
PRAGMA user_version = 4;
";

/// What format 4 added, taken back.
const BACK_TO_FORMAT_3: &str = "
UPDATE routings SET routings = (
    SELECT json_object('format', 1, 'routings', json_group_array(json_remove(value, '$.recorded', '$.identity')))
    FROM json_each(routings.routings, '$.routings')
);
DROP INDEX dead_by_identity;
ALTER TABLE dead DROP COLUMN identity;
ALTER TABLE dead DROP COLUMN deaths;
ALTER TABLE dead DROP COLUMN first_offset;
ALTER TABLE dead DROP COLUMN first_given_up;
ALTER TABLE dead DROP COLUMN returns;
PRAGMA user_version = 3;
";

#[tokio::test]
async fn what_a_log_of_format_3_took_up_keeps_its_place_and_what_comes_follows_the_new_rules() {
    let directory = tempfile::tempdir().unwrap();
    let open = || EmbeddedLog::open(directory.path(), Options::default()).unwrap();
    let routing = |name: &str| Routing {
        handler: shard(name, 0).handler,
        key: KeyFrom::Fields(vec![Field::Pointer("/user".into())]),
        id: IdFrom::Message,
        shards: 8,
        recorded: Offset::START,
        identity: Since::default(),
        spans: vec![Span { after: Offset(1), subscribe: vec![Pattern::parse("a.*").unwrap()] }],
    };
    let log = open();
    let last = log.append(vec![message("a.b", "1"), message("a.b", "2")]).await.unwrap()[1];
    let time = everything(&log).await[1].time;
    log.put_routings(0, vec![routing("h"), routing("i")]).await.unwrap();
    let id = shard("h", 3);
    let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
    let written = letter(&id, "it broke");
    log.commit(ShardCommit { dead: vec![written.clone()], ..commit(&id, term, 1) }).await.unwrap();
    drop(log);
    database(directory.path()).execute_batch(BACK_TO_FORMAT_5).unwrap();
    database(directory.path()).execute_batch(BACK_TO_FORMAT_4).unwrap();
    database(directory.path()).execute_batch(BACK_TO_FORMAT_3).unwrap();

    let log = open();
    let identity = Since { after: last, time };
    let expected = ["h", "i"].map(|name| Routing { identity, ..routing(name) });
    assert_eq!(log.routings().await.unwrap().routings, expected);
    let letters = log.dead(DeadQuery::newest(DeadFilter::default(), 10)).await.unwrap();
    let deaths = Deaths::first(written.message.offset, written.time);
    assert_eq!(letters[0].letter, DeadLetter { identity: None, deaths, ..written });
    drop(log);
    let fresh = tempfile::tempdir().unwrap();
    drop(EmbeddedLog::open(fresh.path(), Options::default()).unwrap());
    assert_eq!(shape(directory.path()), shape(fresh.path()));
}

#[tokio::test]
async fn a_log_of_format_4_goes_on_and_gives_no_term_again_from_then_on() {
    let directory = tempfile::tempdir().unwrap();
    let open = || EmbeddedLog::open(directory.path(), Options::default()).unwrap();
    let id = shard("h", 0);
    let log = open();
    for _ in 0..3 {
        log.claim(id.clone(), Offset::START).await.unwrap();
    }
    drop(log);
    database(directory.path()).execute_batch(BACK_TO_FORMAT_5).unwrap();
    database(directory.path()).execute_batch(BACK_TO_FORMAT_4).unwrap();
    let log = open();
    let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
    assert_eq!(term, Term(4));
    log.forget(id.handler.clone()).await.unwrap();
    assert!(log.claim(id.clone(), Offset::START).await.unwrap().term > term);
    drop(log);
    let fresh = tempfile::tempdir().unwrap();
    drop(EmbeddedLog::open(fresh.path(), Options::default()).unwrap());
    assert_eq!(shape(directory.path()), shape(fresh.path()));
}

#[tokio::test]
async fn a_log_of_format_5_goes_on_and_keeps_modules_from_then_on() {
    let directory = tempfile::tempdir().unwrap();
    let open = || EmbeddedLog::open(directory.path(), Options::default()).unwrap();
    let id = shard("h", 0);
    let log = open();
    let offset = log.append(vec![message("a.b", "1")]).await.unwrap()[0];
    log.claim(id.clone(), Offset::START).await.unwrap();
    drop(log);
    database(directory.path()).execute_batch(BACK_TO_FORMAT_5).unwrap();
    let log = open();
    assert_eq!((log.end().await.unwrap(), log.modules().await.unwrap().len()), (offset, 0));
    assert_eq!(log.claim(id.clone(), Offset::START).await.unwrap().term, Term(2));
    let digest = log.put_module(id.handler.clone(), "module".into(), vec![]).await.unwrap();
    assert_eq!(log.module(id.handler.clone(), digest).await.unwrap().unwrap(), "module");
    drop(log);
    let fresh = tempfile::tempdir().unwrap();
    drop(EmbeddedLog::open(fresh.path(), Options::default()).unwrap());
    assert_eq!(shape(directory.path()), shape(fresh.path()));
}

/// Tables with their columns, and indexes.
fn shape(directory: &Path) -> Vec<String> {
    let database = database(directory);
    let shape = "SELECT s.type || ' ' || s.name || ': ' || c.name || ' ' || c.type || c.\"notnull\" || c.pk || \
                 coalesce(c.dflt_value, '') FROM sqlite_schema s JOIN pragma_table_xinfo(s.name) c ORDER BY 1";
    let mut select = database.prepare(shape).unwrap();
    select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[tokio::test]
async fn a_database_of_format_1_is_migrated_with_all_that_is_in_it() {
    let directory = tempfile::tempdir().unwrap();
    format_1(directory.path());
    let refused = EmbeddedLog::open_read_only(directory.path()).err().unwrap().to_string();
    assert!(refused.contains("has the older format 1: start `sluicebox run` once to migrate it"), "{refused}");

    let log = EmbeddedLog::open(directory.path(), Options::default()).unwrap();
    let bodies: Vec<_> = everything(&log).await.iter().map(|message| message.body.clone()).collect();
    assert_eq!(bodies, ["1", "2"]);
    let id = shard("h", 0);
    let of_h = DeadFilter { handler: Some(id.handler.clone()), ..DeadFilter::default() };
    let letters = log.dead(DeadQuery::newest(of_h, 10)).await.unwrap();
    assert_eq!((letters.len(), letters[0].number, letters[0].letter.error.as_str()), (1, 4, "it broke"));
    let claim = log.claim(id.clone(), Offset::START).await.unwrap();
    let log_id = claim.log;
    assert_ne!(log_id, LogId::default());
    assert_eq!((claim.term.0, claim.record.commit_number, claim.record.read), (4, 7, Offset(1)));
    // Nothing in it was a command.
    assert_eq!((claim.record.controlled, claim.record.control), (Offset(2), Control::default()));
    assert_eq!(log.load(id.clone(), vec![key("k")]).await.unwrap()[0].get("e").unwrap(), "v");
    let next = ShardCommit { read: Offset(2), ..commit(&id, claim.term, 8) };
    assert_eq!(log.commit(next).await, Ok(Committed::default()));
    // Topics that nothing named before go as those of today do, once the messages of before are gone.
    let all = Trim { older_than: Some(Timestamp(u64::MAX)), bytes_max: None, holders: vec![], messages_max: 1000 };
    assert_eq!(log.trim(all.clone()).await.unwrap().deleted, 2);
    while log.trim(all.clone()).await.unwrap().more {}
    drop(log);
    let topics = database(directory.path()).query_row("SELECT group_concat(name) FROM topics", [], |row| row.get(0));
    assert_eq!(topics, Ok("last".to_owned()));
    // It was given its identity once.
    let log = EmbeddedLog::open(directory.path(), Options::default()).unwrap();
    assert_eq!(log.claim(id.clone(), Offset::START).await.unwrap().log, log_id);
    drop(log);

    // It has the shape of one that was made now, and opens as such.
    let fresh = tempfile::tempdir().unwrap();
    drop(EmbeddedLog::open(fresh.path(), Options::default()).unwrap());
    assert_eq!(shape(directory.path()), shape(fresh.path()));
    let view = EmbeddedLog::open_read_only(directory.path()).unwrap();
    assert_eq!(view.status().await.unwrap()[0].commit_number, 8);
    assert_eq!(view.status().await.unwrap()[0].behind, 0);
}
