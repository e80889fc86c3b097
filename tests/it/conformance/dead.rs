//! Dead letters and the status of shards.

use crate::harness::logs::{commit, key, message, shard};
use sluicebox::clock::Timestamp;
use sluicebox::commit::{
    Committed, Control, DeadFilter, DeadLetter, DeadOrder, DeadQuery, Deaths, Delayed, Head, HeadScope, Mark,
    ShardCommit,
};
use sluicebox::handler::{Digest, ShardId};
use sluicebox::log::{Log, ShardStatus};
use sluicebox::message::{Headers, IdHash, Message, NewMessage, Offset};
use sluicebox::topic::Pattern;
use std::sync::Arc;

pub fn letter(shard: &ShardId, error: &str) -> DeadLetter {
    let new = NewMessage {
        key: Some(key("own key")),
        id: Some("id".into()),
        headers: Headers::new(vec![("a".into(), "b".into())]),
        hops: 3,
        ..message("orders.made", "body")
    };
    DeadLetter {
        shard: shard.clone(),
        message: Arc::new(Message::from_new(new, Offset(17), Timestamp(1_700_000_000_000))),
        key: Some(key("lane")),
        attempts: 8,
        kind: "trap".into(),
        error: error.into(),
        digest: Some(Digest::of(b"module")),
        time: Timestamp(1_700_000_001_000),
        identity: None,
        deaths: Deaths { count: 3, first_offset: Offset(9), first_time: Timestamp(1_600_000_000_000), returns: 2 },
    }
}

/// A letter of this key, topic and kind.
fn special(shard: &ShardId, lane: &str, topic: &str, kind: &str) -> DeadLetter {
    let new = message(topic, "body");
    DeadLetter {
        message: Arc::new(Message::from_new(new, Offset(17), Timestamp(1))),
        key: Some(key(lane)),
        kind: kind.into(),
        ..letter(shard, &format!("{shard} {lane} {topic} {kind}"))
    }
}

fn of_handler(shard: &ShardId) -> DeadFilter {
    DeadFilter { handler: Some(shard.handler.clone()), ..DeadFilter::default() }
}

/// Claims each shard and commits these letters to it, one commit a letter.
async fn write(log: &dyn Log, letters: &[DeadLetter]) {
    let mut numbers = std::collections::HashMap::new();
    for letter in letters {
        let id = &letter.shard;
        if !numbers.contains_key(id) {
            numbers.insert(id.clone(), (log.claim(id.clone(), Offset::START).await.unwrap().term, 0));
        }
        let (term, number) = numbers.get_mut(id).unwrap();
        *number += 1;
        let dead = vec![letter.clone()];
        assert_eq!(log.commit(ShardCommit { dead, ..commit(id, *term, *number) }).await, Ok(Committed::default()));
    }
}

async fn listed(log: &dyn Log, query: DeadQuery) -> Vec<String> {
    log.dead(query).await.unwrap().into_iter().map(|dead| dead.letter.error).collect()
}

on_every_kind! {
    async fn a_dead_letter_comes_back_with_every_field(log) {
        let id = shard("h", 3);
        let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
        let bare = DeadLetter { key: None, digest: None, attempts: 0, ..letter(&id, "") };
        let written = vec![letter(&id, "ключ"), bare];
        assert_eq!(log.commit(ShardCommit { dead: written.clone(), ..commit(&id, term, 1) }).await, Ok(Committed::default()));
        let found = log.dead(DeadQuery::newest(DeadFilter::default(), 10)).await.unwrap();
        assert!(found[0].number > found[1].number);
        let found: Vec<DeadLetter> = found.into_iter().rev().map(|dead| dead.letter).collect();
        assert_eq!(found, written);
    }

    async fn dead_letters_are_listed_newest_first_in_pages(log) {
        let (a, b) = (shard("a", 0), shard("b", 0));
        for id in [&a, &b] {
            let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
            for number in 1..=5u64 {
                let dead = vec![letter(id, &format!("{}{number}", id.handler))];
                assert_eq!(log.commit(ShardCommit { dead, ..commit(id, term, number) }).await, Ok(Committed::default()));
            }
        }
        let all = DeadQuery::newest(DeadFilter::default(), usize::MAX);
        let expected = ["b5", "b4", "b3", "b2", "b1", "a5", "a4", "a3", "a2", "a1"];
        assert_eq!(listed(&*log, all.clone()).await, expected);
        let of_a = DeadQuery { filter: DeadFilter { handler: Some(a.handler.clone()), ..DeadFilter::default() }, ..all.clone() };
        assert_eq!(listed(&*log, of_a.clone()).await, expected[5..]);
        let of_nobody = DeadQuery { filter: DeadFilter { handler: Some(shard("c", 0).handler), ..DeadFilter::default() }, ..all.clone() };
        assert!(listed(&*log, of_nobody).await.is_empty());

        let mut pages = vec![];
        let mut query = DeadQuery { letters_max: 2, ..of_a };
        loop {
            let page = log.dead(query.clone()).await.unwrap();
            let Some(last) = page.last() else { break };
            assert!(page.len() <= 2);
            query.order = DeadOrder::Newest { below: Some(last.number) };
            pages.extend(page.into_iter().map(|dead| dead.letter.error));
        }
        assert_eq!(pages, expected[5..]);
    }

    async fn a_letter_of_the_same_message_takes_the_place_of_the_older_one(log) {
        let (a, b) = (shard("h", 0), shard("h", 1));
        let same = |shard: &ShardId, identity: Option<u128>, offset: u64, seconds: u64| {
            let time = Timestamp(1_700_000_000_000 + seconds * 1000);
            let message = Message { offset: Offset(offset), time, ..(*letter(shard, "").message).clone() };
            DeadLetter {
                message: Arc::new(message),
                identity: identity.map(IdHash),
                time,
                deaths: Deaths::first(Offset(offset), time),
                ..letter(shard, &format!("{shard} {offset}"))
            }
        };
        let mut terms = vec![];
        for id in [&a, &b] {
            terms.push(log.claim(id.clone(), Offset::START).await.unwrap().term);
        }
        let write = async |shard: &ShardId, number: u64, dead: Vec<DeadLetter>| {
            let term = terms[usize::from(shard.index)];
            log.commit(ShardCommit { dead, dead_max: 5, ..commit(shard, term, number) }).await.unwrap().dead_joined
        };
        // Of one commit, of two, of another message, of another shard, of none.
        assert_eq!(write(&a, 1, vec![same(&a, Some(1), 17, 0), same(&a, Some(2), 18, 0), same(&a, None, 19, 0)]).await, 0);
        assert_eq!(write(&a, 2, vec![same(&a, Some(1), 20, 30), same(&a, Some(1), 21, 59), same(&a, None, 22, 30)]).await, 2);
        assert_eq!(write(&b, 1, vec![same(&b, Some(1), 23, 30)]).await, 0);
        // The bound on letters counts those that are there.
        let newest = DeadQuery::newest(of_handler(&a), 10);
        assert_eq!(listed(&*log, newest.clone()).await, ["h/1 23", "h/0 22", "h/0 21", "h/0 19", "h/0 18"]);
        let found = log.dead(newest.clone()).await.unwrap().remove(2).letter;
        let first = Deaths::first(Offset(17), Timestamp(1_700_000_000_000));
        assert_eq!(found, DeadLetter { deaths: Deaths { count: 3, ..first }, ..same(&a, Some(1), 21, 59) });
        // One that was returned brings what became of it; longer ago than ids are remembered it was another message.
        let deaths = Deaths { count: 4, returns: 2, ..Deaths::first(Offset(3), Timestamp(1)) };
        let returned = DeadLetter { deaths, ..same(&a, Some(1), 30, 70) };
        assert_eq!(write(&a, 3, vec![returned]).await, 1);
        assert_eq!(log.dead(newest.clone()).await.unwrap()[0].letter.deaths, Deaths { count: 7, ..deaths });
        // And so it is when the earlier one is given up later.
        assert_eq!(write(&a, 4, vec![same(&a, Some(1), 31, 130)]).await, 0);
        assert_eq!(write(&a, 5, vec![same(&a, Some(2), 15, 0), same(&a, Some(2), 14, 0)]).await, 1);
        assert_eq!(listed(&*log, newest).await, ["h/0 14", "h/0 31", "h/0 30", "h/1 23", "h/0 22"]);
    }

    async fn letters_are_found_by_every_condition_of_a_filter(log) {
        let (a, b, other) = (shard("h", 0), shard("h", 1), shard("i", 1));
        let letters = [
            special(&a, "k1", "orders.made", "trap"),
            special(&b, "k1", "orders.paid", "reject"),
            special(&a, "k2", "users.made", "trap"),
            special(&other, "k1", "orders.made", "trap"),
            DeadLetter { key: None, ..special(&a, "none", "orders.made", "reject") },
        ];
        write(&*log, &letters).await;
        let all = log.dead(DeadQuery::newest(DeadFilter::default(), 10)).await.unwrap();
        let numbers: Vec<u64> = all.iter().rev().map(|letter| letter.number).collect();
        let any = DeadFilter::default();
        let h = of_handler(&a);
        let cases = [
            (any.clone(), vec![0, 1, 2, 3, 4]),
            (h.clone(), vec![0, 1, 2, 4]),
            (DeadFilter { shard: Some(1), ..any.clone() }, vec![1, 3]),
            (DeadFilter { shard: Some(1), ..h.clone() }, vec![1]),
            (DeadFilter { shard: Some(2), ..h.clone() }, vec![]),
            (DeadFilter { key: Some(key("k1")), ..any.clone() }, vec![0, 1, 3]),
            (DeadFilter { topic: Some(Pattern::parse("orders.*").unwrap()), ..any.clone() }, vec![0, 1, 3, 4]),
            (DeadFilter { topic: Some(Pattern::parse("orders.made").unwrap()), ..h.clone() }, vec![0, 4]),
            (DeadFilter { kind: Some("trap".into()), key: Some(key("k1")), ..any.clone() }, vec![0, 3]),
            (DeadFilter { numbers: vec![numbers[4], numbers[1], numbers[1], u64::MAX, 0], ..any.clone() }, vec![1, 4]),
            (DeadFilter { numbers: vec![numbers[3]], ..h.clone() }, vec![]),
            (DeadFilter { upto: Some(numbers[2]), ..h.clone() }, vec![0, 1, 2]),
            (DeadFilter { upto: Some(u64::MAX), ..any.clone() }, vec![0, 1, 2, 3, 4]),
            (DeadFilter { handler: Some(shard("nobody", 0).handler), ..any }, vec![]),
        ];
        for (filter, expected) in cases {
            let texts: Vec<&str> = expected.iter().map(|at| letters[*at].error.as_str()).collect();
            let oldest = DeadQuery { order: DeadOrder::Oldest { above: 0 }, ..DeadQuery::newest(filter.clone(), 10) };
            assert_eq!(listed(&*log, oldest).await, texts, "{filter:?}");
            let mut newest = listed(&*log, DeadQuery::newest(filter.clone(), 10)).await;
            newest.reverse();
            assert_eq!(newest, texts, "{filter:?}");
            let count = log.dead_count(filter.clone()).await.unwrap();
            let newest = expected.last().map_or(0, |at| numbers[*at]);
            assert_eq!((count.letters, count.newest), (expected.len() as u64, newest), "{filter:?}");
        }
    }

    async fn letters_come_oldest_first_in_pages_of_letters_or_bytes(log) {
        let id = shard("h", 0);
        let names: Vec<String> = (0..7).map(|number| format!("k{number}")).collect();
        let letters: Vec<DeadLetter> = names.iter().map(|name| special(&id, name, "a.b", "trap")).collect();
        write(&*log, &letters).await;
        let filter = DeadFilter { topic: Some(Pattern::parse("a.*").unwrap()), ..of_handler(&id) };
        let bytes = letters[0].message.bytes();
        for (letters_max, bytes_max, page) in [(2, usize::MAX, 2), (100, bytes * 3, 3), (100, bytes * 3 - 1, 3), (100, 1, 1)] {
            let order = DeadOrder::Oldest { above: 0 };
            let mut query = DeadQuery { filter: filter.clone(), order, letters_max, bytes_max };
            let mut found = vec![];
            loop {
                let letters = log.dead(query.clone()).await.unwrap();
                let Some(last) = letters.last() else { break };
                assert!(letters.len() == page || found.len() + letters.len() == 7, "{} in a page", letters.len());
                query.order = DeadOrder::Oldest { above: last.number };
                found.extend(letters.into_iter().map(|letter| letter.letter.key.unwrap().to_string()));
            }
            assert_eq!(found, names);
        }
    }

    async fn a_commit_deletes_letters_of_its_own_shard_only(log) {
        let (a, b) = (shard("h", 0), shard("h", 1));
        write(&*log, &[letter(&a, "a1"), letter(&b, "b1"), letter(&a, "a2")]).await;
        let all = log.dead(DeadQuery::newest(DeadFilter::default(), 10)).await.unwrap();
        let everything: Vec<u64> = all.iter().map(|letter| letter.number).collect();
        let claim = log.claim(a.clone(), Offset::START).await.unwrap();
        let (term, number) = (claim.term, claim.record.commit_number + 1);
        let fenced = ShardCommit { dead_drop: everything.clone(), ..commit(&a, term, number + 1) };
        assert!(log.commit(fenced).await.is_err());
        assert_eq!(log.dead_count(DeadFilter::default()).await.unwrap().letters, 3);
        let outputs = vec![message("again", "a2")];
        let drop = ShardCommit { dead_drop: vec![everything[0], everything[1], u64::MAX], outputs, ..commit(&a, term, number) };
        assert_eq!(log.commit(drop).await, Ok(Committed::default()));
        assert_eq!(listed(&*log, DeadQuery::newest(DeadFilter::default(), 10)).await, ["b1", "a1"]);
    }

    async fn the_oldest_letters_of_a_handler_beyond_the_maximum_go(log) {
        let ids = [shard("h", 0), shard("h", 1)];
        let other = shard("other", 0);
        write(&*log, &[letter(&other, "other")]).await;
        let mut terms = vec![];
        for id in &ids {
            terms.push(log.claim(id.clone(), Offset::START).await.unwrap().term);
        }
        for number in 1..=10u64 {
            let commits = ids.iter().zip(&terms).map(|(id, term)| {
                let dead = vec![letter(id, &format!("{} {number}", id.index))];
                ShardCommit { dead, dead_max: 5, ..commit(id, *term, number) }
            });
            assert_eq!(crate::conformance::commit_at_once(&*log, commits.collect()).await, [Ok(Committed::default()), Ok(Committed::default())]);
            let count = log.dead_count(of_handler(&ids[0])).await.unwrap();
            assert_eq!(count.letters, (2 * number).min(5));
        }
        let expected = ["1 10", "0 10", "1 9", "0 9", "1 8"];
        assert_eq!(listed(&*log, DeadQuery::newest(of_handler(&ids[0]), 10)).await, expected);
        // Without any new letter, when the setting was lowered; and none is kept at 0.
        let lowered = ShardCommit { dead_max: 2, ..commit(&ids[1], terms[1], 11) };
        assert_eq!(log.commit(lowered).await, Ok(Committed::default()));
        assert_eq!(listed(&*log, DeadQuery::newest(of_handler(&ids[0]), 10)).await, expected[..2]);
        let newest = log.dead(DeadQuery::newest(of_handler(&ids[0]), 1)).await.unwrap()[0].number;
        let none = ShardCommit { dead: vec![letter(&ids[1], "x")], dead_drop: vec![newest], dead_max: 0, ..commit(&ids[1], terms[1], 12) };
        assert_eq!(log.commit(none).await, Ok(Committed::default()));
        assert_eq!(listed(&*log, DeadQuery::newest(DeadFilter::default(), 10)).await, ["other"]);
    }

    async fn status_says_what_operators_asked_for(log) {
        let id = shard("h", 0);
        let claim = log.claim(id.clone(), Offset::START).await.unwrap();
        let control = Control { paused: true, ..Control::default() };
        let paused = ShardCommit { control: Some(control.clone()), ..commit(&id, claim.term, 1) };
        assert_eq!(log.commit(paused).await, Ok(Committed::default()));
        assert_eq!(log.commit(commit(&id, claim.term, 2)).await, Ok(Committed::default()));
        assert_eq!(log.status().await.unwrap()[0].control, control);
    }

    async fn status_counts_what_each_shard_holds(log) {
        assert_eq!(log.status().await.unwrap(), []);
        let offsets = log.append(vec![message("a", ""); 4]).await.unwrap();
        let (first, second) = (shard("h", 0), shard("h", 1));
        let term = log.claim(first.clone(), Offset::START).await.unwrap().term;
        let second_term = log.claim(second.clone(), offsets[3]).await.unwrap().term;
        let head = Head {
            offset: offsets[0],
            key: None,
            attempt: 1,
            due: Timestamp(5),
            error: "".into(),
            digest: None,
            scope: HeadScope::Message,
        };
        let full = ShardCommit {
            read: offsets[1],
            open_put: vec![head],
            marks: vec![Mark { id: IdHash(1), time: Timestamp(1) }, Mark { id: IdHash(2), time: Timestamp(2) }],
            delayed_put: vec![Delayed { number: 1, due: Timestamp(9), message: message("a", "") }],
            dead: vec![letter(&first, "e")],
            ..commit(&first, term, 1)
        };
        assert_eq!(log.commit(full).await, Ok(Committed::default()));
        let expected = [
            ShardStatus { shard: first, term, commit_number: 1, read: offsets[1], open: 1, marks: 2, dead: 1, delayed: 1, behind: 2, control: Control::default(), controlled: Offset::END },
            ShardStatus { shard: second, term: second_term, commit_number: 0, read: offsets[3], open: 0, marks: 0, dead: 0, delayed: 0, behind: 0, control: Control::default(), controlled: offsets[3] },
        ];
        let mut status = log.status().await.unwrap();
        if !log.guarantees().lag_is_exact {
            status.iter_mut().zip(&expected).for_each(|(found, expected)| found.behind = expected.behind);
        }
        assert_eq!(status, expected);
    }
}
