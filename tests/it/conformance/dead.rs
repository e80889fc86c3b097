//! Dead letters and the status of shards.

use crate::harness::logs::{commit, key, message, shard};
use sluicebox::clock::Timestamp;
use sluicebox::commit::{DeadLetter, Delayed, Head, HeadScope, IdHash, Mark, ShardCommit};
use sluicebox::control::Control;
use sluicebox::handler::{Digest, ShardId};
use sluicebox::log::{DeadFilter, DeadOrder, DeadQuery, Log, ShardStatus};
use sluicebox::message::{Headers, Message, NewMessage, Offset};
use std::sync::Arc;

fn letter(shard: &ShardId, error: &str) -> DeadLetter {
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
        assert_eq!(log.commit(vec![ShardCommit { dead: written.clone(), ..commit(&id, term, 1) }]).await, [Ok(())]);
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
                assert_eq!(log.commit(vec![ShardCommit { dead, ..commit(id, term, number) }]).await, [Ok(())]);
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
        assert_eq!(log.commit(vec![full]).await, [Ok(())]);
        let expected = [
            ShardStatus { shard: first, term, commit_number: 1, read: offsets[1], open: 1, marks: 2, dead: 1, delayed: 1, behind: 2, control: Control::default() },
            ShardStatus { shard: second, term: second_term, commit_number: 0, read: offsets[3], open: 0, marks: 0, dead: 0, delayed: 0, behind: 0, control: Control::default() },
        ];
        assert_eq!(log.status().await.unwrap(), expected);
    }
}
