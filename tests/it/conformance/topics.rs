//! Topics in the embedded log: a topic takes room only while a message names it, and none is ever taken for another.

use crate::harness::everything;
use crate::harness::logs::{commit, message, shard};
use sluicebox::clock::Timestamp;
use sluicebox::commit::{Committed, ShardCommit};
use sluicebox::log::embedded::{EmbeddedLog, Options};
use sluicebox::log::{Log, LogError, Trim};
use sluicebox::message::{NewMessage, Offset};
use std::path::Path;

fn open(directory: &Path) -> EmbeddedLog {
    EmbeddedLog::open(directory, Options { readers: 1, ..Options::default() }).unwrap()
}

/// Everything goes that no shard of `h` needs.
async fn trim(log: &dyn Log) {
    let trim = Trim {
        older_than: Some(Timestamp(u64::MAX)),
        bytes_max: None,
        holders: vec![shard("h", 0).handler],
        messages_max: 1000,
    };
    // What became unused in one step goes in a later one.
    loop {
        let trimmed = log.trim(trim.clone()).await.unwrap();
        if !trimmed.more && trimmed.deleted == 0 {
            return;
        }
    }
}

/// One message on each of so many topics of their own.
fn on_own_topics(name: &str, count: usize) -> Vec<NewMessage> {
    (0..count).map(|number| message(&format!("{name}.{number}"), "")).collect()
}

fn topics(messages: &[impl AsRef<sluicebox::message::Message>]) -> Vec<String> {
    messages.iter().map(|message| message.as_ref().topic.to_string()).collect()
}

fn topics_in_file(directory: &Path) -> u64 {
    let database = rusqlite::Connection::open(directory.join("sluicebox.db")).unwrap();
    database.query_row("SELECT count(*) FROM topics", [], |row| row.get::<_, i64>(0)).unwrap().cast_unsigned()
}

#[tokio::test]
async fn topics_whose_messages_are_gone_do_not_shut_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { bytes_max: Some(32 * 1024 * 1024), ..Options::default() };
    let log = EmbeddedLog::open(directory.path(), options).unwrap();
    for round in 0..3 {
        let mut appended = 0;
        let error = loop {
            // As a publisher does who puts an id into the topic.
            let name = format!("{round}.{appended}.{}", vec!["t".repeat(60); 12].join("."));
            match log.append(on_own_topics(&name, 100)).await {
                Ok(_) => appended += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, LogError::Full { .. }), "{error}");
        assert!(appended > 10, "after {appended} times 100 topics in round {round}: {error}");
        trim(&log).await;
        assert_eq!(everything(&log).await, []);
    }
    assert_eq!(topics_in_file(directory.path()), 1, "the highest number stays taken");
}

#[tokio::test]
async fn a_new_topic_is_never_read_as_one_that_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path());
    // It meets the topics of every round, and keeps what it knows.
    let view = EmbeddedLog::open_read_only(directory.path()).unwrap();
    for round in 0..6 {
        let name = format!("round{round}");
        let expected: Vec<String> = (0..10).map(|number| format!("{name}.{number}")).collect();
        log.append(on_own_topics(&name, 10)).await.unwrap();
        assert_eq!(topics(&everything(&log).await), expected);
        assert_eq!(topics(&everything(&view).await), expected);
        trim(&log).await;
        assert_eq!(topics_in_file(directory.path()), 1);
        if round % 2 == 1 {
            drop(log);
            log = open(directory.path());
        }
    }
}

#[tokio::test]
async fn a_topic_comes_back_after_it_was_let_go() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    for _ in 0..3 {
        log.append(vec![message("again", ""), message("last", "")]).await.unwrap();
        assert_eq!(topics(&everything(&log).await), ["again", "last"]);
        trim(&log).await;
    }
}

#[tokio::test]
async fn topics_of_messages_that_stay_stay_and_the_others_go() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path());
    let id = shard("h", 0);
    let mut number = 0;
    for round in 0..4 {
        let mut messages = on_own_topics(&format!("once{round}"), 3000);
        // Far apart, and early in each round.
        (0..10).for_each(|at| messages[at * 300] = message("often", ""));
        let offsets = log.append(messages.clone()).await.unwrap();
        let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
        number += 1;
        let read = offsets[2599];
        assert_eq!(log.commit(ShardCommit { read, ..commit(&id, term, number) }).await, Ok(Committed::default()));
        trim(&log).await;
        let left: Vec<String> = messages[2600..].iter().map(|message| message.topic.to_string()).collect();
        assert_eq!(topics(&everything(&log).await), left);
        // What cannot be told apart without a write for each message is bounded, and goes later.
        let in_file = topics_in_file(directory.path());
        assert!((400..=402).contains(&in_file), "{in_file} topics for 400 messages");
        if round % 2 == 0 {
            drop(log);
            log = open(directory.path());
        }
    }
}
