//! What fills an embedded log with `max_bytes`: dead letters and topics keep bounds of their own inside it.

use crate::harness::logs::{commit, message, shard};
use sluicebox::clock::Timestamp;
use sluicebox::commit::{
    CommitError, Committed, DeadFilter, DeadLetter, DeadOrder, DeadQuery, Deaths, Delayed, ShardCommit,
};
use sluicebox::log::embedded::{EmbeddedLog, Options};
use sluicebox::log::{Log, LogError};
use sluicebox::message::{Message, Offset};
use std::path::Path;
use std::sync::Arc;

const MAX: u64 = 8 * 1024 * 1024;

fn open(directory: &Path) -> EmbeddedLog {
    EmbeddedLog::open(directory, Options { bytes_max: Some(MAX), ..Options::default() }).unwrap()
}

/// Gives up so many messages of 100 kB, one in a commit.
async fn give_up(log: &EmbeddedLog, handler: &str, letters: u64, dead_max: u64) {
    let id = shard(handler, 0);
    let claim = log.claim(id.clone(), Offset::START).await.unwrap();
    for number in 1..=letters {
        let letter = DeadLetter {
            shard: id.clone(),
            message: Arc::new(Message::from_new(message("a", vec![7; 100_000]), Offset(number), Timestamp(1))),
            key: None,
            attempts: 1,
            kind: "reject".into(),
            error: number.to_string(),
            digest: None,
            time: Timestamp(1),
            identity: None,
            deaths: Deaths::first(Offset(number), Timestamp(1)),
        };
        let number = claim.record.commit_number + number;
        let written = ShardCommit { dead: vec![letter], dead_max, ..commit(&id, claim.term, number) };
        assert_eq!(log.commit(written).await, Ok(Committed::default()));
    }
}

async fn letters(log: &EmbeddedLog, handler: &str) -> Vec<String> {
    let filter = DeadFilter { handler: Some(shard(handler, 0).handler), ..DeadFilter::default() };
    let query = DeadQuery { order: DeadOrder::Oldest { above: 0 }, ..DeadQuery::newest(filter, usize::MAX) };
    log.dead(query).await.unwrap().into_iter().map(|dead| dead.letter.error).collect()
}

#[tokio::test]
async fn dead_letters_never_fill_a_log_and_those_that_went_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    give_up(&log, "h", 200, 10_000).await;
    let usage = log.usage().await.unwrap();
    assert!(usage.full.is_none() && usage.bytes < MAX / 2, "{usage:?}");
    let of_h = usage.dead[&shard("h", 0).handler];
    assert!((10..=20).contains(&of_h.letters), "a quarter of {MAX} bytes: {of_h:?}");
    assert!(of_h.bytes <= usage.dead_bytes_max.unwrap(), "{usage:?}");
    assert_eq!(of_h.letters + of_h.dropped_for_bytes, 200);
    let newest: Vec<String> = (201 - of_h.letters..=200).map(|number| number.to_string()).collect();
    assert_eq!(letters(&log, "h").await, newest);
    log.append(vec![message("a", vec![7; 100_000])]).await.unwrap();

    // Another handler has a share of its own, and both have less.
    give_up(&log, "other", 50, 10_000).await;
    give_up(&log, "h", 1, 10_000).await;
    let usage = log.usage().await.unwrap();
    assert_eq!(usage.dead_bytes_max, Some(MAX / 4 / 2));
    let kept: Vec<u64> = usage.dead.values().map(|dead| dead.letters).collect();
    assert!(kept.iter().all(|kept| (5..=10).contains(kept)), "{usage:?}");
}

#[tokio::test]
async fn the_count_of_dead_letters_outlives_a_restart_and_an_order_to_drop_them() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    give_up(&log, "h", 30, 10_000).await;
    drop(log);
    let log = open(directory.path());
    let filter = DeadFilter { handler: Some(shard("h", 0).handler), ..DeadFilter::default() };
    let counted = log.dead_count(filter.clone()).await.unwrap();
    let kept = log.dead(DeadQuery::newest(filter, usize::MAX)).await.unwrap();
    assert_eq!(counted.letters, kept.len() as u64);
    let id = shard("h", 0);
    let claim = log.claim(id.clone(), Offset::START).await.unwrap();
    let dead_drop = kept[1..].iter().map(|dead| dead.number).collect();
    let dropped = ShardCommit { dead_drop, ..commit(&id, claim.term, claim.record.commit_number + 1) };
    assert_eq!(log.commit(dropped).await, Ok(Committed::default()));
    let of_h = log.usage().await.unwrap().dead[&id.handler];
    assert_eq!((of_h.letters, of_h.bytes), (1, counted.bytes / counted.letters));
}

#[tokio::test]
async fn letters_of_a_handler_that_stops_at_a_full_box_stay() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    give_up(&log, "h", 40, u64::MAX).await;
    assert_eq!(letters(&log, "h").await.len(), 40);
}

/// A topic as a publisher makes it who puts an id into it.
fn long(number: u64) -> String {
    format!("{number}.{}", vec!["t".repeat(60); 14].join("."))
}

#[tokio::test]
async fn what_was_delayed_comes_although_its_topic_is_new_and_has_no_room_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let id = shard("h", 0);
    let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
    let delayed = |number: u64| Delayed { number, due: Timestamp(1), message: message(&long(number), "") };
    let hold = |number: u64, held: u64| {
        let delayed_put = vec![delayed(held)];
        log.commit(ShardCommit { delayed_put, ..commit(&id, term, number) })
    };
    assert_eq!(hold(1, 7).await, Ok(Committed::default()));
    let mut number = 2;
    while number < 2000 {
        let outputs = vec![message(&long(10_000 + number), "")];
        match log.commit(ShardCommit { outputs, ..commit(&id, term, number) }).await {
            Ok(_) => number += 1,
            Err(CommitError::Refused { .. }) => break,
            Err(other) => panic!("{other}"),
        }
    }
    // One that begins to wait is refused while its handler can still be told.
    let refused = hold(number, 8).await;
    assert!(
        matches!(&refused, Err(CommitError::Refused { reason, .. }) if reason.contains("new topic")),
        "{refused:?}"
    );
    // One that was taken is not, whether it is to wait until another time or comes: the shard would try the same commit for
    // ever.
    assert_eq!(hold(number, 7).await, Ok(Committed::default()));
    number += 1;
    let beside = ShardCommit { delayed_put: vec![delayed(7), delayed(8)], ..commit(&id, term, number) };
    assert!(matches!(log.commit(beside).await, Err(CommitError::Refused { .. })), "a new one beside it passed");
    let beside = ShardCommit {
        delayed_put: vec![delayed(7)],
        outputs: vec![message(&long(20_000), "")],
        ..commit(&id, term, number)
    };
    assert!(matches!(log.commit(beside).await, Err(CommitError::Refused { .. })), "an output beside it passed");
    let due = ShardCommit { delayed_drop: vec![7], outputs: vec![delayed(7).message], ..commit(&id, term, number) };
    assert_eq!(log.commit(due).await, Ok(Committed::default()));
}

#[tokio::test]
async fn new_topics_are_refused_when_their_names_fill_their_part_and_others_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let mut topics = 0;
    let reason = loop {
        match log.append(vec![message(&long(topics), "")]).await {
            Ok(_) => topics += 1,
            Err(LogError::Full { reason }) => break reason,
            Err(other) => panic!("{other}"),
        }
    };
    assert!((400..700).contains(&topics), "an eighth of {MAX} bytes: {topics}");
    assert!(reason.contains("new topic") && reason.contains("key or the body"), "{reason}");
    // With one that is new none of them is taken.
    let both = vec![message(&long(0), ""), message(&long(topics), "")];
    assert!(matches!(log.append(both).await, Err(LogError::Full { .. })));
    log.append(vec![message(&long(0), "")]).await.unwrap();
    log.append(vec![message("_control.h", "{}")]).await.unwrap();
    assert!(log.usage().await.unwrap().full.is_none());

    // What handlers publish has as much again.
    let id = shard("h", 0);
    let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
    let publish = |number: u64, topic: String| {
        let outputs = vec![message(&topic, "")];
        log.commit(ShardCommit { outputs, ..commit(&id, term, number) })
    };
    let mut number = 0;
    let error = loop {
        number += 1;
        if let Err(error) = publish(number, long(10_000 + number)).await {
            break error;
        }
    };
    assert!(matches!(&error, CommitError::Refused { reason, .. } if reason.contains("new topic")), "{error}");
    assert!((400..700).contains(&number), "{number}");
    assert_eq!(publish(number, long(0)).await, Ok(Committed::default()));
}
