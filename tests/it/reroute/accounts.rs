//! What is settled and what is not is the same before and after, whatever the shards had: random records are moved, and both
//! are read by the rule that a record is written by.

use crate::harness::logs::{commit, key};
use crate::harness::{everything, logs};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sluicebox::clock::Timestamp;
use sluicebox::commit::{Control, Head, HeadScope, Mark, Record, ShardCommit};
use sluicebox::handler::{HandlerName, ShardId};
use sluicebox::log::Log;
use sluicebox::log::memory::{MemoryCore, MemoryLog};
use sluicebox::message::{Message, NewMessage, Offset};
use sluicebox::reroute::{RerouteError, Wanted, plan};
use sluicebox::routing::{Field, IdFrom, KeyFrom, Routed, Routing, Since, Span};
use sluicebox::topic::{Pattern, Topic};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const MESSAGES: usize = 200;
const SEEDS: u64 = 300;

fn handler() -> HandlerName {
    HandlerName::parse("h").unwrap()
}

fn routing(shards: u16) -> Routing {
    Routing {
        handler: handler(),
        key: KeyFrom::Message,
        id: IdFrom::Fields(vec![Field::Pointer("/id".into())]),
        shards,
        recorded: Offset::START,
        identity: Since::default(),
        spans: vec![Span { after: Offset::START, subscribe: vec![Pattern::parse("in").unwrap()] }],
    }
}

/// A log with messages, some of which are of others, each dated later than the one before.
async fn filled(rng: &mut StdRng) -> MemoryLog {
    let time = AtomicU64::new(1000);
    let log = MemoryLog::with(MemoryCore::default(), move || Timestamp(time.fetch_add(7, Ordering::Relaxed)));
    for number in 0..MESSAGES {
        let topic = if rng.random_range(0..4) == 0 { "other" } else { "in" };
        let body = format!(r#"{{"id":"id-{number}","other":"other-{number}"}}"#);
        let key = (rng.random_range(0..5) > 0).then(|| key(&format!("k{}", rng.random_range(0..12))));
        let message = NewMessage { key, ..NewMessage::new(Topic::parse(topic).unwrap(), body) };
        log.append(vec![message]).await.unwrap();
    }
    log
}

fn head(offset: Offset, routed: &Routed, attempt: u32, scope: HeadScope) -> Head {
    let (due, error, digest) = (Timestamp(5), "down".into(), None);
    Head { offset, key: routed.key.clone(), attempt, due, error, digest, scope }
}

/// The handler's messages as this routing has them, by shard.
fn by_shard(messages: &[Arc<Message>], routing: &Routing) -> BTreeMap<u16, Vec<Routed>> {
    let mut shards: BTreeMap<u16, Vec<Routed>> = (0..routing.shards).map(|index| (index, vec![])).collect();
    for message in messages.iter().filter(|message| routing.subscribes(message)) {
        let routed = routing.route(message);
        shards.get_mut(&routed.shard(routing.shards)).unwrap().push(routed);
    }
    shards
}

/// A record as a shard may have it, and the marks of what it did.
fn record(rng: &mut StdRng, own: &[Routed], end: Offset) -> (Offset, Vec<Head>, Vec<Mark>) {
    let read = Offset(rng.random_range(0..=end.0));
    let taken: Vec<&Routed> = own.iter().filter(|routed| routed.message.offset <= read).collect();
    let mut heads = vec![];
    let mut open = BTreeSet::new();
    let keys: BTreeSet<_> = taken.iter().filter_map(|routed| routed.key.clone()).collect();
    for key in keys {
        let lane: Vec<&&Routed> = taken.iter().filter(|routed| routed.key.as_ref() == Some(&key)).collect();
        let settled = rng.random_range(0..=lane.len());
        let (done, left) = lane.split_at(settled);
        open.extend(left.iter().map(|routed| routed.message.offset));
        match (left.first(), done.last()) {
            (Some(_), Some(last)) if rng.random() => heads.push(head(last.message.offset, last, 0, HeadScope::After)),
            (Some(first), _) => {
                heads.push(head(first.message.offset, first, rng.random_range(0..3), HeadScope::Lane));
            }
            (None, _) => {}
        }
        // One that gave up its place.
        let has_head = |offset| heads.iter().any(|head: &Head| head.offset == offset);
        let skipped = done.get(rng.random_range(0..=done.len()));
        if let Some(skipped) = skipped.filter(|skipped| !has_head(skipped.message.offset)) {
            open.insert(skipped.message.offset);
            heads.push(head(skipped.message.offset, skipped, 1, HeadScope::Message));
        }
    }
    for alone in taken.iter().filter(|routed| routed.key.is_none()) {
        if rng.random_range(0..3) == 0 {
            open.insert(alone.message.offset);
            heads.push(head(alone.message.offset, alone, 1, HeadScope::Message));
        }
    }
    let done = taken.iter().filter(|routed| !open.contains(&routed.message.offset));
    let marks = done.filter_map(|routed| Some(Mark { id: routed.id_hash()?, time: routed.message.time })).collect();
    (read, heads, marks)
}

/// What is not settled, as records say it, with the failed tries of each that has a head of its own.
fn unsettled(messages: &[Arc<Message>], routing: &Routing, records: &[Record]) -> BTreeMap<Offset, u32> {
    let mut unsettled = BTreeMap::new();
    for (index, own) in by_shard(messages, routing) {
        let record = &records[usize::from(index)];
        for routed in own {
            let offset = routed.message.offset;
            let head = record.open.iter().find(|head| head.offset == offset && head.scope != HeadScope::After);
            let is_behind = record.open.iter().any(|head| {
                head.scope != HeadScope::Message && head.key == routed.key && head.key.is_some() && head.offset < offset
            });
            if offset > record.read || head.is_some() || is_behind {
                unsettled.insert(offset, head.map_or(0, |head| head.attempt));
            }
        }
    }
    unsettled
}

async fn records(log: &dyn Log, shards: u16) -> Vec<Record> {
    let mut records = vec![];
    for index in 0..shards {
        records.push(log.claim(ShardId { handler: handler(), index }, Offset::START).await.unwrap().record);
    }
    records
}

async fn check(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let log = filled(&mut rng).await;
    let messages = everything(&log).await;
    let end = log.end().await.unwrap();
    let from = routing(rng.random_range(1..6));
    log.put_routings(0, vec![from.clone()]).await.unwrap();
    let mut done = vec![];
    for (index, own) in by_shard(&messages, &from) {
        let id = ShardId { handler: handler(), index };
        let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
        let (read, open_put, marks) = record(&mut rng, &own, end);
        done.extend(marks.iter().map(|mark| mark.time));
        let paused_keys = BTreeSet::from([key("k1")]).into_iter().filter(|key| from.shard_of(key) == index).collect();
        let control = Some(Control { paused_keys, ..Control::default() });
        let controlled = Offset(end.0 + rng.random_range(0..9));
        let commit = ShardCommit { read, open_put, marks, control, controlled, ..commit(&id, term, 1) };
        log.commit(commit).await.unwrap();
    }
    let before = records(&log, from.shards).await;
    let is_other_id = rng.random();
    let id = if is_other_id { IdFrom::Fields(vec![Field::Pointer("/other".into())]) } else { from.id.clone() };
    let to = Routing { shards: rng.random_range(1..8), id, ..from.clone() };
    let Some(made) = plan(&log, &wanted(&to)).await.unwrap() else {
        assert_eq!(from, to);
        return;
    };
    let summary = made.summary.clone();
    made.execute(&log).await.unwrap();
    assert_eq!(log.routings().await.unwrap().routings[..], std::slice::from_ref(&to)[..]);
    let after = records(&log, to.shards).await;

    assert_eq!(unsettled(&messages, &to, &after), unsettled(&messages, &from, &before));
    let furthest = before.iter().map(|record| record.read).max();
    assert!(after.iter().all(|record| Some(record.read) == furthest));
    // Each that was done is remembered where its twin will come to, and nothing else is.
    let own = by_shard(&messages, &to);
    let mut marks = 0;
    for (index, own) in own {
        let record = &after[usize::from(index)];
        let expected: BTreeSet<_> = own.iter().filter(|routed| done.contains(&routed.message.time)).collect_marks();
        let found: BTreeSet<_> = record.marks.iter().map(|mark| (mark.time, mark.id.0)).collect();
        assert_eq!(found, expected);
        assert!(record.marks.is_sorted_by_key(|mark| mark.time));
        marks += found.len();
        assert_eq!(record.control.paused_keys.contains(&key("k1")), to.shard_of(&key("k1")) == index);
    }
    assert_eq!((summary.marks, summary.marks_everywhere, summary.marks_lost), (marks, 0, 0));
    assert_eq!(after.iter().map(|record| record.open.len()).sum::<usize>(), summary.open);
}

trait CollectMarks {
    fn collect_marks(self) -> BTreeSet<(Timestamp, u128)>;
}

impl<'r, I: Iterator<Item = &'r Routed>> CollectMarks for I {
    fn collect_marks(self) -> BTreeSet<(Timestamp, u128)> {
        self.map(|routed| (routed.message.time, routed.id_hash().unwrap().0)).collect()
    }
}

#[tokio::test]
async fn what_is_settled_is_the_same_before_and_after_whatever_the_shards_had() {
    let seeds = match std::env::var("SLUICEBOX_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..SEEDS).collect(),
    };
    for seed in seeds {
        println!("SLUICEBOX_SEED={seed}");
        check(seed).await;
    }
}

/// A handler with two shards, of which one has done the message and the other has read nothing.
async fn one_done(log: &dyn Log) -> Arc<Message> {
    let message = NewMessage { key: Some(key("k")), ..logs::message("in", r#"{"id":"a","other":"b"}"#) };
    log.append(vec![message]).await.unwrap();
    let message = everything(log).await.remove(0);
    let from = routing(2);
    log.put_routings(0, vec![from.clone()]).await.unwrap();
    let id = ShardId { handler: handler(), index: from.shard_of(&key("k")) };
    let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
    let mark = Mark { id: from.route(&message).id_hash().unwrap(), time: message.time };
    log.commit(ShardCommit { read: message.offset, marks: vec![mark], ..commit(&id, term, 1) }).await.unwrap();
    message
}

fn wanted(to: &Routing) -> Wanted {
    let Routing { handler, key, id, shards, .. } = to.clone();
    Wanted { handler, key, id, shards, marks_max: 1000, keep_state: false }
}

#[tokio::test]
async fn an_id_whose_message_is_gone_is_remembered_by_every_shard_or_said_to_be_lost() {
    for (id, marks_max, everywhere, lost) in [("/id", 3, 1, 0), ("/other", 3, 0, 1), ("/id", 0, 0, 1)] {
        let log = MemoryLog::new();
        one_done(&log).await;
        let trim = sluicebox::log::Trim {
            older_than: Some(Timestamp(u64::MAX)),
            bytes_max: None,
            holders: vec![],
            messages_max: 9,
        };
        assert_eq!(log.trim(trim).await.unwrap().deleted, 1);
        let to = Routing { id: IdFrom::Fields(vec![Field::Pointer(id.into())]), ..routing(3) };
        let made = plan(&log, &Wanted { marks_max, ..wanted(&to) }).await.unwrap().unwrap();
        assert_eq!((made.summary.marks_everywhere, made.summary.marks_lost), (everywhere, lost));
        made.execute(&log).await.unwrap();
        let marks: Vec<usize> = records(&log, 3).await.iter().map(|record| record.marks.len()).collect();
        assert_eq!(marks, [everywhere; 3]);
    }
}

#[tokio::test]
async fn under_another_key_marks_follow_and_open_messages_are_refused() {
    let log = MemoryLog::new();
    let done = one_done(&log).await;
    let to = Routing { key: KeyFrom::Fields(vec![Field::Pointer("/other".into())]), ..routing(2) };
    let made = plan(&log, &wanted(&to)).await.unwrap().unwrap();
    assert_eq!((made.summary.marks, made.summary.open), (1, 0));
    // One that only the other shard has not taken up is open.
    let own = |name: &&String| routing(2).shard_of(&key(name)) != routing(2).shard_of(&key("k"));
    let names: Vec<String> = (0..9).map(|number| format!("k{number}")).collect();
    let other = names.iter().find(own).unwrap();
    let behind = NewMessage { key: Some(key(other)), ..logs::message("in", r#"{"id":"c","other":"d"}"#) };
    let last = log.append(vec![behind, logs::message("elsewhere", "")]).await.unwrap()[1];
    let id = ShardId { handler: handler(), index: routing(2).shard_of(&key("k")) };
    let claim = log.claim(id.clone(), Offset::START).await.unwrap();
    let read = ShardCommit { read: last, ..commit(&id, claim.term, claim.record.commit_number + 1) };
    log.commit(read).await.unwrap();
    let refused = plan(&log, &wanted(&to)).await.unwrap_err();
    assert!(matches!(refused, RerouteError::Open { open: 1, .. }), "{refused}");
    // What was made before something moved is refused.
    assert!(matches!(made.execute(&log).await, Err(sluicebox::log::LogError::Fenced { .. })));
    assert_eq!(log.fetch(vec![done.offset]).await.unwrap().len(), 1);
}
