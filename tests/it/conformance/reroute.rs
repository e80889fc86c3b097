//! Rerouting a handler: all of its records anew, or nothing.

use crate::harness::again;
use crate::harness::logs::{commit, key, message, shard};
use sluicebox::clock::Timestamp;
use sluicebox::commit::{
    CommitError, Control, DeadFilter, DeadLetter, DeadQuery, Deaths, Delayed, Head, HeadScope, KeyWrites, Mark, Record,
    ShardCommit, Term,
};
use sluicebox::effects::StateWrite;
use sluicebox::handler::ShardId;
use sluicebox::log::embedded::{EmbeddedLog, Options};
use sluicebox::log::{Log, LogError, MovedLetter, Rerouting};
use sluicebox::message::{IdHash, Message, Offset};
use sluicebox::routing::{IdFrom, KeyFrom, Routing, Since, Span};
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Runtime;

fn routing(handler: &str, shards: u16) -> Routing {
    Routing {
        handler: shard(handler, 0).handler,
        key: KeyFrom::Message,
        id: IdFrom::Message,
        shards,
        recorded: Offset::START,
        identity: Since::default(),
        spans: vec![Span { after: Offset::START, subscribe: vec![] }],
    }
}

fn head(offset: u64) -> Head {
    let (key, digest, scope) = (Some(key("k")), None, HeadScope::Lane);
    Head { offset: Offset(offset), key, attempt: 2, due: Timestamp(5), error: "down".into(), digest, scope }
}

fn mark(id: u128) -> Mark {
    Mark { id: IdHash(id), time: Timestamp(id as u64) }
}

fn delayed(number: u64) -> Delayed {
    Delayed { number, due: Timestamp(9), message: message("a", "later") }
}

/// What a shard has before.
async fn before(log: &dyn Log, id: &ShardId) -> (Term, u64) {
    let claim = log.claim(id.clone(), Offset::START).await.unwrap();
    let offset = Offset(1 + u64::from(id.index));
    let letter = DeadLetter {
        shard: id.clone(),
        message: Arc::new(Message::from_new(message("a", ""), offset, Timestamp(1))),
        key: None,
        attempts: 1,
        kind: "trap".into(),
        error: "".into(),
        digest: None,
        time: Timestamp(1),
        identity: Some(IdHash(7)),
        deaths: Deaths::first(offset, Timestamp(1)),
    };
    let write = StateWrite { entry: "e".into(), value: Some("v".into()) };
    let commit = ShardCommit {
        read: Offset(50),
        open_put: vec![head(offset.0)],
        marks: vec![mark(1), mark(2)],
        state: vec![KeyWrites { key: key("k"), writes: vec![write] }],
        delayed_put: vec![delayed(3)],
        dead: vec![letter],
        ..commit(id, claim.term, 1)
    };
    assert!(log.commit(commit).await.is_ok());
    (claim.term, 1)
}

/// A handler with two shards and another one beside it; what replaces the two with `shards` of them.
async fn prepared(log: &dyn Log, shards: u16) -> Rerouting {
    let mut from = vec![];
    for index in 0..2 {
        from.push(before(log, &shard("h", index)).await);
    }
    before(log, &shard("other", 0)).await;
    log.put_routings(0, vec![routing("other", 1), routing("h", 2)]).await.unwrap();
    let letters = log.dead(DeadQuery::newest(DeadFilter::default(), 9)).await.unwrap();
    let first = letters.last().unwrap().number;
    let records = (0..shards).map(record).collect();
    let letters = vec![MovedLetter { number: first, shard: shards - 1, identity: Some(IdHash(8)) }];
    Rerouting { version: 1, routing: routing("h", shards), from, records, letters }
}

/// What a shard has afterwards.
fn record(index: u16) -> Record {
    let number = u64::from(index);
    Record {
        commit_number: 0,
        read: Offset(70),
        open: vec![head(10 + number), head(20 + number)],
        // More than one row of them.
        marks: (1..=2500).map(|mark_number| mark(u128::from(mark_number + 10_000 * number))).collect(),
        delayed: vec![delayed(4), delayed(5 + number)],
        controlled: Offset(60),
        control: Control { paused: true, ..Control::default() },
    }
}

/// Everything of the handler is as after `rerouting`.
async fn is_after(log: &dyn Log, rerouting: &Rerouting, shards: u16) {
    let routings = log.routings().await.unwrap();
    assert_eq!((routings.version, routings.routings), (2, vec![routing("other", 1), rerouting.routing.clone()]));
    let status = log.status().await.unwrap();
    let indices = status.iter().filter(|status| status.shard.handler == rerouting.routing.handler);
    assert_eq!(indices.map(|status| status.shard.index).collect::<Vec<_>>(), (0..shards).collect::<Vec<_>>());
    for index in 0..shards {
        let claim = log.claim(shard("h", index), Offset::START).await.unwrap();
        assert!(rerouting.from.iter().all(|(term, _)| claim.term > *term));
        let mut found = claim.record;
        let number = std::mem::take(&mut found.commit_number);
        found.delayed.sort_by_key(|delayed| delayed.number);
        assert_eq!(found, record(index));
        let next = ShardCommit {
            read: Offset(70),
            marks: vec![mark(3)],
            ..commit(&shard("h", index), claim.term, number + 1)
        };
        assert!(log.commit(next).await.is_ok(), "it goes on from there");
    }
}

on_every_kind! {
    async fn a_rerouted_handler_has_new_records_and_its_neighbours_theirs(log) {
        for shards in [5] {
            let rerouting = prepared(&*log, shards).await;
            let other = shard("other", 0);
            let status = |status: Vec<sluicebox::log::ShardStatus>| status.into_iter().find(|s| s.shard.handler.as_str() == "other");
            let before = status(log.status().await.unwrap());
            log.reroute(rerouting.clone()).await.unwrap();
            assert_eq!(status(log.status().await.unwrap()), before);
            assert_eq!(log.load(shard("h", 0), vec![key("k")]).await.unwrap()[0].get("e").unwrap(), "v");
            assert_eq!(log.load(other, vec![key("k")]).await.unwrap()[0].get("e").unwrap(), "v");
            let letters = log.dead(DeadQuery::newest(DeadFilter::default(), 9)).await.unwrap();
            let places = letters.iter().rev().map(|dead| (dead.letter.shard.to_string(), dead.letter.identity.unwrap().0));
            assert_eq!(places.collect::<Vec<_>>(), [("h/4".into(), 8), ("h/1".into(), 7), ("other/0".into(), 7)]);
            is_after(&*log, &rerouting, shards).await;
        }
    }

    async fn of_shards_that_go_nothing_is_left_but_their_letters(log) {
        let rerouting = prepared(&*log, 1).await;
        log.reroute(rerouting.clone()).await.unwrap();
        let filter = DeadFilter { handler: Some(shard("h", 0).handler), shard: Some(0), ..DeadFilter::default() };
        assert_eq!(log.dead_count(filter).await.unwrap().letters, 2);
        is_after(&*log, &rerouting, 1).await;
    }

    async fn who_worked_on_a_shard_before_is_fenced_also_where_its_index_comes_back(log) {
        let rerouting = prepared(&*log, 1).await;
        let terms: Vec<Term> = rerouting.from.iter().map(|(term, _)| *term).collect();
        log.reroute(rerouting).await.unwrap();
        let grown = Rerouting {
            version: 2,
            routing: routing("h", 2),
            from: vec![(log.claim(shard("h", 0), Offset::START).await.unwrap().term, {
                log.status().await.unwrap()[0].commit_number
            })],
            records: vec![record(0), record(1)],
            letters: vec![],
        };
        log.reroute(grown).await.unwrap();
        for (index, term) in (0..).zip(terms) {
            let id = shard("h", index);
            let late = ShardCommit { read: Offset(90), ..commit(&id, term, 2) };
            assert_eq!(log.commit(late).await, Err(CommitError::Fenced { shard: id }));
        }
    }

    async fn what_moved_meanwhile_is_not_rerouted_and_nothing_is_written(log) {
        let rerouting = prepared(&*log, 3).await;
        let old = Rerouting { version: 0, ..rerouting.clone() };
        assert!(matches!(log.reroute(old).await, Err(LogError::Conflict)));
        let (term, _) = rerouting.from[1];
        let id = shard("h", 1);
        assert!(log.commit(ShardCommit { read: Offset(51), ..commit(&id, term, 2) }).await.is_ok());
        let before = (log.status().await.unwrap(), log.routings().await.unwrap().version);
        assert!(matches!(log.reroute(rerouting.clone()).await, Err(LogError::Fenced { shard }) if shard == id));
        let claim = log.claim(id.clone(), Offset::START).await.unwrap();
        let mut claimed = rerouting;
        claimed.from[1] = (term, 2);
        assert!(matches!(log.reroute(claimed.clone()).await, Err(LogError::Fenced { shard }) if shard == id));
        let mut after = (log.status().await.unwrap(), log.routings().await.unwrap().version);
        after.0.iter_mut().filter(|status| status.shard == id).for_each(|status| status.term = term);
        assert_eq!(after, before);
        claimed.from[1] = (claim.term, 2);
        log.reroute(claimed).await.unwrap();
    }
}

// The crash points only exist with debug assertions.
#[cfg(debug_assertions)]
#[test]
fn a_crash_leaves_a_handler_rerouted_whole_or_not_at_all() {
    let name = "conformance::reroute::a_crash_leaves_a_handler_rerouted_whole_or_not_at_all";
    if let Some(directory) = again::directory_of_child() {
        return reroute(&directory);
    }
    // Three claims, three commits and the routings come before.
    for (point, is_done) in [("before-commit:8", false), ("after-commit:8", true)] {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let mut child = again::child(name, directory).env("SLUICEBOX_CRASH_POINT", point).spawn().unwrap();
        assert_eq!(again::listen(&mut child).collect::<Vec<_>>(), ["prepared"], "{point}");
        assert!(!child.wait().unwrap().success());
        Runtime::new().unwrap().block_on(async {
            let log = EmbeddedLog::open(directory, Options::default()).unwrap();
            let made = Rerouting { from: vec![(Term(1), 1); 2], ..empty(5) };
            if !is_done {
                assert_eq!(log.routings().await.unwrap().routings[1], routing("h", 2));
                assert_eq!(log.claim(shard("h", 1), Offset::START).await.unwrap().record.open, [head(2)]);
                return;
            }
            is_after(&log, &made, 5).await;
        });
    }
}

#[cfg(debug_assertions)]
fn empty(shards: u16) -> Rerouting {
    Rerouting { version: 1, routing: routing("h", shards), from: vec![], records: vec![], letters: vec![] }
}

#[cfg(debug_assertions)]
fn reroute(directory: &Path) {
    Runtime::new().unwrap().block_on(async {
        let log = EmbeddedLog::open(directory, Options::default()).unwrap();
        let rerouting = prepared(&log, 5).await;
        again::say("prepared");
        log.reroute(rerouting).await.unwrap();
        again::say("rerouted");
    });
}
