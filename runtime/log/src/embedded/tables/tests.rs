//! What the writer remembers beside the tables is what they hold, also after transactions that were undone.

use super::super::format;
use super::super::room::Bounds;
use super::*;
use crate::contract::DeadUsage;
use proptest::prelude::*;
use rusqlite::StatementStatus;
use sluicebox_core::commit::{DeadLetter, Deaths};
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
            dead: vec![letter(id); letters],
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
