//! What people look at: open heads, delayed messages, keys with state, a page at a time.

use crate::harness::logs::{commit, key, message, shard};
use sluicebox::clock::Timestamp;
use sluicebox::commit::{Committed, Delayed, Head, HeadScope, KeyWrites, ShardCommit};
use sluicebox::effects::StateWrite;
use sluicebox::handler::{Digest, HandlerName};
use sluicebox::log::{
    DelayedFilter, DelayedPlace, DelayedQuery, HeadFilter, HeadQuery, Log, MessageFacts, OpenHead, StateQuery,
};
use sluicebox::message::{Key, NewMessage, Offset};
use sluicebox::topic::Pattern;

fn handler() -> HandlerName {
    HandlerName::parse("h").unwrap()
}

fn head(offset: Offset, lane: Option<&str>, attempt: u32, error: &str) -> Head {
    let digest = (attempt > 0).then(|| Digest::of(b"module"));
    let (key, scope) = (lane.map(key), HeadScope::Lane);
    Head { offset, key, attempt, due: Timestamp(u64::from(attempt) * 1000), error: error.into(), digest, scope }
}

async fn heads(log: &dyn Log, filter: HeadFilter, after: Offset, heads_max: usize) -> Vec<OpenHead> {
    log.heads(HeadQuery { handler: handler(), filter, after, heads_max }).await.unwrap()
}

/// Appends one message a head on two shards in turn, and opens them with these attempts; their offsets.
async fn open(log: &dyn Log, attempts: &[u32]) -> Vec<Offset> {
    let new = |at: usize| NewMessage { id: Some(format!("id{at}").into()), ..message(["a.x", "b.y"][at % 2], "body") };
    let offsets = log.append((0..attempts.len()).map(new).collect()).await.unwrap();
    for index in 0..2u16 {
        let id = shard("h", index);
        let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
        let mine = (0..attempts.len()).filter(|at| at % 2 == usize::from(index));
        let open_put = mine.map(|at| {
            let error = if attempts[at] > 0 { format!("trapped: Bang {at}") } else { String::new() };
            head(offsets[at], Some(&format!("k{at}")), attempts[at], &error)
        });
        let (open_put, read) = (open_put.collect(), *offsets.last().unwrap());
        assert_eq!(log.commit(ShardCommit { open_put, read, ..commit(&id, term, 1) }).await, Ok(Committed::default()));
    }
    offsets
}

fn delayed(number: u64, due: u64, topic: &str, lane: Option<&str>) -> Delayed {
    let message = NewMessage { key: lane.map(key), id: Some("id".into()), ..message(topic, "body") };
    Delayed { number, due: Timestamp(due), message }
}

async fn state(log: &dyn Log, handler: &str, keys: &[&str]) {
    let id = shard(handler, 0);
    let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
    let write = |entry: &str, value: &'static str| StateWrite { entry: entry.into(), value: Some(value.into()) };
    let writes = || vec![write("é", "12345"), write("b", "")];
    let state = keys.iter().map(|text| KeyWrites { key: key(text), writes: writes() }).collect();
    assert_eq!(log.commit(ShardCommit { state, ..commit(&id, term, 1) }).await, Ok(Committed::default()));
}

async fn keys(log: &dyn Log, prefix: &str, after: Option<Key>, keys_max: usize) -> Vec<String> {
    let query = StateQuery { handler: handler(), prefix: prefix.into(), after, keys_max };
    log.state_keys(query).await.unwrap().into_iter().map(|found| found.key.to_string()).collect()
}

on_every_kind! {
    async fn open_heads_of_all_shards_come_by_offset_a_page_at_a_time_with_what_their_message_is(log) {
        let offsets = open(&*log, &[1, 0, 3, 2, 0, 1]).await;
        let all = heads(&*log, HeadFilter::default(), Offset::START, 100).await;
        assert_eq!(all.iter().map(|found| found.head.offset).collect::<Vec<_>>(), offsets);
        let OpenHead { shard, head, message } = &all[2];
        assert_eq!((*shard, head), (0, &self::head(offsets[2], Some("k2"), 3, "trapped: Bang 2")));
        let MessageFacts { topic, id, time } = message.as_ref().unwrap();
        assert_eq!((topic.as_str(), id.as_deref(), time.0 > 0), ("a.x", Some("id2"), true));
        let mut paged = vec![];
        while let page = heads(&*log, HeadFilter::default(), paged.last().copied().unwrap_or(Offset::START), 4).await
            && !page.is_empty()
        {
            assert!(page.len() <= 4);
            paged.extend(page.iter().map(|found| found.head.offset));
        }
        assert_eq!(paged, offsets);
        assert!(heads(&*log, HeadFilter::default(), Offset::END, 4).await.is_empty());
        let other = HandlerName::parse("other").unwrap();
        let query = HeadQuery { handler: other, filter: HeadFilter::default(), after: Offset::START, heads_max: 9 };
        assert!(log.heads(query).await.unwrap().is_empty());
    }

    async fn heads_are_found_by_key_topic_error_attempts_and_offset(log) {
        let offsets = open(&*log, &[1, 0, 3, 2, 0, 1]).await;
        let cases = [
            (HeadFilter { key: Some(key("k3")), ..Default::default() }, vec![3]),
            (HeadFilter { topic: Some(Pattern::parse("b.*").unwrap()), ..Default::default() }, vec![1, 3, 5]),
            (HeadFilter { error: Some("bANG".into()), ..Default::default() }, vec![0, 2, 3, 5]),
            (HeadFilter { error: Some("no such".into()), ..Default::default() }, vec![]),
            (HeadFilter { attempts_min: 2, ..Default::default() }, vec![2, 3]),
            (HeadFilter { offset: Some(offsets[4]), ..Default::default() }, vec![4]),
            (HeadFilter { offset: Some(Offset::END), ..Default::default() }, vec![]),
            (HeadFilter { attempts_min: 1, key: Some(key("k1")), ..Default::default() }, vec![]),
        ];
        for (filter, expected) in cases {
            let found: Vec<Offset> =
                heads(&*log, filter.clone(), Offset::START, 100).await.iter().map(|found| found.head.offset).collect();
            let expected: Vec<Offset> = expected.into_iter().map(|at: usize| offsets[at]).collect();
            assert_eq!(found, expected, "{filter:?}");
        }
    }

    async fn a_head_whose_message_is_gone_is_listed_without_it(log) {
        let id = shard("h", 0);
        let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
        let open_put = vec![head(Offset(7), None, 0, "")];
        assert_eq!(log.commit(ShardCommit { open_put, read: Offset(7), ..commit(&id, term, 1) }).await, Ok(Committed::default()));
        let found = heads(&*log, HeadFilter::default(), Offset::START, 10).await;
        assert_eq!((found.len(), &found[0].message), (1, &None));
    }

    async fn delayed_messages_of_all_shards_come_by_due_time_a_page_at_a_time(log) {
        for (index, delayed_put) in [
            (0, vec![delayed(1, 500, "a", None), delayed(2, 100, "b", Some("k"))]),
            (1, vec![delayed(1, 300, "a", Some("k")), delayed(2, 100, "a", None)]),
        ] {
            let id = shard("h", index);
            let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
            assert_eq!(log.commit(ShardCommit { delayed_put, ..commit(&id, term, 1) }).await, Ok(Committed::default()));
        }
        let ask = async |filter: DelayedFilter, after, delayed_max| {
            let query = DelayedQuery { handler: handler(), filter, after, delayed_max };
            let found = log.delayed(query).await.unwrap();
            found.iter().map(|found| (found.place.due.0, found.place.shard, found.place.number)).collect::<Vec<_>>()
        };
        let all = [(100, 0, 2), (100, 1, 2), (300, 1, 1), (500, 0, 1)];
        assert_eq!(ask(DelayedFilter::default(), None, 10).await, all);
        assert_eq!(ask(DelayedFilter::default(), None, 2).await, all[..2]);
        let last = DelayedPlace { due: Timestamp(100), shard: 1, number: 2 };
        assert_eq!(ask(DelayedFilter::default(), Some(last), 10).await, all[2..]);
        let of_key = DelayedFilter { key: Some(key("k")), ..Default::default() };
        assert_eq!(ask(of_key, None, 10).await, [all[0], all[2]]);
        let of_topic = DelayedFilter { topic: Some(Pattern::parse("b").unwrap()), ..Default::default() };
        assert_eq!(ask(of_topic, None, 10).await, all[..1]);
        let one = DelayedFilter { shard: Some(1), number: Some(1), ..Default::default() };
        assert_eq!(ask(one, None, 10).await, all[2..3]);
    }

    async fn keys_with_state_come_in_order_a_page_at_a_time_and_by_prefix(log) {
        state(&*log, "h", &["b", "user:ü", "a", "user:1", "user:2", "v"]).await;
        state(&*log, "other", &["foreign"]).await;
        assert_eq!(keys(&*log, "", None, 10).await, ["a", "b", "user:1", "user:2", "user:ü", "v"]);
        assert_eq!(keys(&*log, "user:", None, 10).await, ["user:1", "user:2", "user:ü"]);
        assert_eq!(keys(&*log, "user:", None, 2).await, ["user:1", "user:2"]);
        assert_eq!(keys(&*log, "user:", Some(key("user:2")), 2).await, ["user:ü"]);
        assert_eq!(keys(&*log, "", Some(key("b")), 1).await, ["user:1"]);
        assert!(keys(&*log, "w", None, 10).await.is_empty());
        let query = StateQuery { handler: handler(), prefix: "a".into(), after: None, keys_max: 1 };
        let found = &log.state_keys(query).await.unwrap()[0];
        assert_eq!((found.entries, found.bytes), (2, 8), "two bytes of é, one of b, five of its value");
    }
}
