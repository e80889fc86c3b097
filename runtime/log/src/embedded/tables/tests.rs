//! What the writer remembers beside the tables is what they hold, also after transactions that were undone.

use super::super::format;
use super::super::queries::Reader;
use super::super::room::Bounds;
use super::*;
use crate::contract::DeadUsage;
use proptest::prelude::*;
use rusqlite::StatementStatus;
use sluicebox_core::commit::{DeadFilter, DeadLetter, DeadQuery, Deaths};
use sluicebox_core::handler::Digest;
use sluicebox_core::topic::Topic;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const BYTES_MAX: u64 = 64 * 1024 * 1024;

fn open(directory: &Path) -> Connection {
    format::open_or_create(&format::database(directory), 1024 * 1024).unwrap()
}

fn tables<'c>(directory: &Path, connection: &'c Connection) -> Tables<'c> {
    let bounds = Bounds::new(directory.to_owned(), Some(BYTES_MAX), 0);
    Tables::open(connection, Room::limit(connection, bounds).unwrap()).unwrap()
}

fn message(topic: &str) -> NewMessage {
    NewMessage::new(Topic::parse(topic).unwrap(), "body")
}

fn id(handler: &str) -> ShardId {
    ShardId { handler: HandlerName::parse(handler).unwrap(), index: 0 }
}

fn letter(shard: &ShardId) -> DeadLetter {
    DeadLetter {
        shard: shard.clone(),
        message: Arc::new(Message::from_new(message("a.b"), Offset(1), Timestamp(1))),
        key: None,
        attempts: 1,
        kind: "reject".into(),
        error: "".into(),
        digest: None,
        time: Timestamp(1),
        identity: None,
        deaths: Deaths::first(Offset(1), Timestamp(1)),
    }
}

impl Tables<'_> {
    /// Claims the shard and gives up so many messages.
    fn give_up(&mut self, id: &ShardId, letters: usize, dead_max: u64) {
        self.give_up_these(id, vec![letter(id); letters], dead_max);
    }

    fn give_up_these(&mut self, id: &ShardId, dead: Vec<DeadLetter>, dead_max: u64) {
        let term = self.claim(id, Offset::START).unwrap();
        let number = self.find(id).unwrap().unwrap().commit_number + 1;
        let commit = ShardCommit {
            shard: id.clone(),
            term,
            number,
            read: Offset::START,
            open_put: vec![],
            open_drop: vec![],
            marks: vec![],
            marks_since: Timestamp(0),
            marks_max: usize::MAX,
            state: vec![],
            outputs: vec![message("out")],
            delayed_put: vec![],
            delayed_drop: vec![],
            dead,
            dead_window: Duration::ZERO,
            dead_max,
            dead_drop: vec![],
            controlled: Offset::END,
            control: None,
        };
        self.commit(&commit).unwrap().unwrap();
    }

    /// How often all topics, and the letters of a handler, were gone through.
    fn scans(&self) -> (i32, i32) {
        let runs = |statement: &rusqlite::Statement<'_>| statement.get_status(StatementStatus::Run);
        (runs(&self.sql.topics_bytes), runs(&self.sql.dead_count))
    }

    /// What is remembered is what a scan says.
    fn check(&mut self) {
        if let Some(remembered) = self.topics.bytes() {
            let counted: i64 = self.sql.topics_bytes.query_row([], |row| row.get(0)).unwrap();
            assert_eq!(remembered, counted.cast_unsigned());
        }
        for (handler_id, remembered) in self.dead.counts() {
            let counted = self.sql.dead_count.query_row([handler_id], |row| {
                let (letters, bytes) = (row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned());
                Ok(DeadUsage { letters, bytes, dropped_for_bytes: 0 })
            });
            assert_eq!(remembered, counted.unwrap(), "handler {handler_id}");
        }
    }
}

#[test]
fn an_undone_transaction_makes_nobody_count_anew() {
    let directory = tempfile::tempdir().unwrap();
    let connection = open(directory.path());
    let mut tables = tables(directory.path(), &connection);
    tables.begin(Timestamp(1)).unwrap();
    tables.append(&[message("a")]).unwrap().unwrap();
    tables.give_up(&id("h"), 3, 10);
    tables.finish().unwrap();
    let counted = tables.scans();
    assert_eq!(counted, (1, 1));
    for round in 0..20 {
        tables.begin(Timestamp(1)).unwrap();
        tables.append(&[message(&format!("new.{round}"))]).unwrap().unwrap();
        tables.give_up(&id("h"), 2, 4);
        tables.undo().unwrap();
    }
    assert_eq!(tables.scans(), counted);
    tables.check();
}

#[test]
fn what_was_counted_under_the_number_of_an_erased_handler_is_not_kept_when_that_is_undone() {
    let directory = tempfile::tempdir().unwrap();
    let connection = open(directory.path());
    let mut tables = tables(directory.path(), &connection);
    tables.begin(Timestamp(1)).unwrap();
    tables.give_up(&id("old"), 1, 10);
    tables.forget(&id("old").handler).unwrap();
    tables.finish().unwrap();
    tables.begin(Timestamp(1)).unwrap();
    assert!(tables.erase().unwrap());
    tables.give_up(&id("new"), 2, 10);
    tables.undo().unwrap();
    tables.check();
}

#[derive(Clone, Debug)]
enum Step {
    Append(u8),
    GiveUp { handler: u8, letters: usize, dead_max: u64 },
    Forget(u8),
    Erase,
}

fn step() -> impl Strategy<Value = Step> {
    let give_up = |(handler, letters, dead_max)| Step::GiveUp { handler, letters, dead_max };
    prop_oneof![
        3 => any::<u8>().prop_map(Step::Append),
        4 => (0u8..3, 0usize..4, 0u64..6).prop_map(give_up),
        1 => (0u8..3).prop_map(Step::Forget),
        1 => Just(Step::Erase),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_remembered_is_what_the_tables_hold(
        transactions in proptest::collection::vec((proptest::collection::vec(step(), 1..4), any::<bool>()), 1..20),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let connection = open(directory.path());
        let mut tables = tables(directory.path(), &connection);
        for (steps, is_undone) in transactions {
            tables.begin(Timestamp(1)).unwrap();
            for step in steps {
                match step {
                    Step::Append(topic) => drop(tables.append(&[message(&format!("t.{topic}"))]).unwrap().unwrap()),
                    Step::GiveUp { handler, letters, dead_max } => {
                        tables.give_up(&id(&format!("h{handler}")), letters, dead_max);
                    }
                    Step::Forget(handler) => tables.forget(&id(&format!("h{handler}")).handler).unwrap(),
                    Step::Erase => drop(tables.erase().unwrap()),
                }
            }
            if is_undone {
                tables.undo().unwrap();
            } else {
                tables.finish().unwrap();
            }
            tables.check();
        }
    }
}

#[test]
fn new_topics_are_refused_when_the_names_of_those_that_are_new_do_not_fit_and_known_ones_never() {
    let directory = tempfile::tempdir().unwrap();
    let connection = open(directory.path());
    let mut tables = tables(directory.path(), &connection);
    let is_refused = |tables: &mut Tables<'_>, names: &[&str], bytes_max| {
        let topics: Vec<Topic> = names.iter().map(|name| Topic::parse(name).unwrap()).collect();
        tables.topics.refusal(&mut tables.sql, topics.iter(), bytes_max).unwrap().is_some()
    };
    assert!(is_refused(&mut tables, &["a.b"], 0), "nothing is used, and nothing fits");
    tables.begin(Timestamp(1)).unwrap();
    tables.append(&[message("a.b")]).unwrap().unwrap();
    tables.finish().unwrap();
    let one = tables.topics.bytes().unwrap();
    assert!(!is_refused(&mut tables, &["a.b", "a.b"], 0));
    for (names, takes) in [(&["c.d"][..], 2), (&["c.d", "a.b", "c.d"], 2), (&["c.d", "e.f"], 3)] {
        assert!(!is_refused(&mut tables, names, takes * one), "{names:?}");
        assert!(is_refused(&mut tables, names, takes * one - 1), "{names:?}");
    }
    drop(tables);
    let mut again = self::tables(directory.path(), &connection);
    assert!(!is_refused(&mut again, &["a.b"], 0), "it is known from the table");
}

#[test]
fn every_dead_letter_is_found_also_beyond_those_of_one_snapshot() {
    const LETTERS: usize = 10_001;
    let directory = tempfile::tempdir().unwrap();
    let connection = open(directory.path());
    let mut tables = tables(directory.path(), &connection);
    tables.begin(Timestamp(1)).unwrap();
    tables.give_up(&id("h"), LETTERS, u64::MAX);
    tables.finish().unwrap();
    let reader = format::open_to_read(&format::database(directory.path()), 0).unwrap();
    let query = DeadQuery::newest(DeadFilter::default(), usize::MAX);
    let found = Reader::new(reader).dead(&query).unwrap();
    let numbers: std::collections::BTreeSet<u64> = found.iter().map(|letter| letter.number).collect();
    assert_eq!((found.len(), numbers.len()), (LETTERS, LETTERS));
    for nothing in [DeadQuery { letters_max: 0, ..query.clone() }, DeadQuery { bytes_max: 0, ..query.clone() }] {
        let reader = format::open_to_read(&format::database(directory.path()), 0).unwrap();
        assert_eq!(Reader::new(reader).dead(&nothing).unwrap().len(), 0);
    }
}

#[test]
fn when_fewer_letters_are_kept_the_oldest_go_some_with_each_commit_and_the_newest_stays_whatever_its_size() {
    let directory = tempfile::tempdir().unwrap();
    let connection = open(directory.path());
    let mut tables = tables(directory.path(), &connection);
    let left = |tables: &mut Tables<'_>, letters, dead_max| {
        tables.begin(Timestamp(1)).unwrap();
        tables.give_up(&id("h"), letters, dead_max);
        tables.finish().unwrap();
        tables.check();
        tables.dead.counts()[0].1.letters
    };
    assert_eq!(left(&mut tables, 3000, u64::MAX), 3000);
    let first = left(&mut tables, 1, 2);
    assert!((1500..2999).contains(&first), "{first} left after one commit");
    while left(&mut tables, 0, 2) > 2 {}
    let large = DeadLetter { error: "x".repeat(BYTES_MAX as usize / 2), ..letter(&id("h")) };
    tables.begin(Timestamp(1)).unwrap();
    tables.give_up_these(&id("h"), vec![large], 2);
    tables.finish().unwrap();
    tables.check();
    assert_eq!(tables.dead.counts()[0].1.letters, 1);
}

#[test]
fn topics_are_gone_through_in_turn_however_many_there_are_and_so_many_at_a_time() {
    const TOPICS: usize = 5000;
    let directory = tempfile::tempdir().unwrap();
    let connection = open(directory.path());
    let mut tables = tables(directory.path(), &connection);
    tables.begin(Timestamp(1)).unwrap();
    let messages: Vec<NewMessage> = (0..TOPICS).map(|number| message(&format!("t.{number}"))).collect();
    tables.append(&messages).unwrap().unwrap();
    tables.finish().unwrap();
    let reader = Reader::new(format::open_to_read(&format::database(directory.path()), 0).unwrap());
    let (unused, next) = reader.unused_topics(0).unwrap();
    assert!(unused.is_empty() && next > 0, "the first are in use, and there are more");
    assert_eq!(reader.unused_topics(next).unwrap(), (vec![], 0), "it begins anew");
    connection.execute("DELETE FROM log", []).unwrap();
    let (mut found, mut after, mut looks) = (0, 0, 0);
    loop {
        let (unused, next) = reader.unused_topics(after).unwrap();
        (found, after, looks) = (found + unused.len(), next, looks + 1);
        if next == 0 {
            break;
        }
    }
    // The last one has the number after which others are given out.
    assert_eq!(found, TOPICS - 1);
    assert!((5..50).contains(&looks), "{looks} looks");
}

/// So many rows in the tables of modules, and of their pieces.
fn module_rows(connection: &Connection) -> (i64, i64) {
    let count = |table| connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
    (count("modules"), count("module_pieces"))
}

/// Puts so many pieces of three bytes each.
fn put_pieces(tables: &mut Tables<'_>, handler: &HandlerName, pieces: u32) -> Digest {
    let digest = Digest::of(b"module");
    tables.begin(Timestamp(1)).unwrap();
    for index in 0..pieces {
        let write = ModuleWrite::Piece { handler: handler.clone(), digest, index, bytes: "abc".into() };
        tables.write_module(&write).unwrap().unwrap();
    }
    tables.finish().unwrap();
    digest
}

#[test]
fn a_module_is_whole_only_with_all_its_pieces_and_parts_go_when_the_log_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let connection = open(directory.path());
    let handler = id("h").handler;
    let mut first = tables(directory.path(), &connection);
    let digest = put_pieces(&mut first, &handler, 2);
    first.begin(Timestamp(1)).unwrap();
    let whole = |bytes| ModuleWrite::Whole { handler: handler.clone(), digest, bytes, needed: vec![digest] };
    assert!(first.write_module(&whole(9)).unwrap().is_err(), "a piece is missing");
    first.finish().unwrap();
    assert_eq!(module_rows(&connection), (1, 2));
    drop(first);
    let mut second = tables(directory.path(), &connection);
    assert_eq!(module_rows(&connection), (0, 0));
    put_pieces(&mut second, &handler, 3);
    second.begin(Timestamp(1)).unwrap();
    second.write_module(&whole(9)).unwrap().unwrap();
    second.finish().unwrap();
    drop(second);
    drop(tables(directory.path(), &connection));
    assert_eq!(module_rows(&connection), (1, 3), "what is whole stays");
}

#[test]
fn of_a_forgotten_handler_nothing_is_left_neither_modules_nor_what_was_counted() {
    let directory = tempfile::tempdir().unwrap();
    let connection = open(directory.path());
    let mut tables = tables(directory.path(), &connection);
    let handler = id("h").handler;
    let digest = put_pieces(&mut tables, &handler, 100);
    tables.begin(Timestamp(1)).unwrap();
    let whole = ModuleWrite::Whole { handler: handler.clone(), digest, bytes: 300, needed: vec![digest] };
    tables.write_module(&whole).unwrap().unwrap();
    tables.give_up(&id("h"), 3, 10);
    tables.finish().unwrap();
    let dead = |tables: &Tables<'_>| tables.room.bounds.usage(&connection).unwrap().dead.len();
    assert_eq!(dead(&tables), 1);
    tables.begin(Timestamp(1)).unwrap();
    tables.forget(&handler).unwrap();
    tables.finish().unwrap();
    assert_eq!(dead(&tables), 0);
    let mut steps = 0;
    loop {
        steps += 1;
        tables.begin(Timestamp(1)).unwrap();
        let is_done = tables.erase().unwrap();
        tables.finish().unwrap();
        if is_done {
            break;
        }
    }
    assert_eq!(module_rows(&connection), (0, 0));
    assert!(steps > 3, "many pieces go in several steps: {steps}");
}
