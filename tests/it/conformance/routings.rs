//! Routings: read with their version, replaced by compare and set.

use crate::harness::logs::{commit, shard};
use sluicebox::clock::Timestamp;
use sluicebox::commit::{Committed, Head, HeadScope, ShardCommit};
use sluicebox::handler::HandlerName;
use sluicebox::log::LogError;
use sluicebox::message::Offset;
use sluicebox::routing::{Field, IdFrom, KeyFrom, Routing, Since, Span};
use sluicebox::topic::Pattern;

fn routing(handler: &str) -> Routing {
    Routing {
        handler: HandlerName::parse(handler).unwrap(),
        key: KeyFrom::Fields(vec![Field::Pointer("/user".into()), Field::Header("User".into()), Field::TopicToken(2)]),
        id: IdFrom::Message,
        shards: 8,
        recorded: Offset::START,
        identity: Since::default(),
        spans: vec![
            Span { after: Offset(3), subscribe: vec![Pattern::parse("a.>").unwrap(), Pattern::parse("b").unwrap()] },
            Span { after: Offset(9), subscribe: vec![] },
        ],
    }
}

on_every_kind! {
    async fn routings_come_back_as_they_were_put(log) {
        let empty = log.routings().await.unwrap();
        assert!(empty.routings.is_empty());
        let put = vec![routing("a"), Routing { key: KeyFrom::None, id: IdFrom::Fields(vec![]), ..routing("b") }];
        log.put_routings(empty.version, put.clone()).await.unwrap();
        let read = log.routings().await.unwrap();
        assert_eq!(read.routings, put);
        log.put_routings(read.version, vec![]).await.unwrap();
        assert!(log.routings().await.unwrap().routings.is_empty());
    }

    async fn subscriptions_that_every_shard_has_left_behind_go_when_routings_are_written(log) {
        let span = |after| Span { after: Offset(after), subscribe: vec![Pattern::parse("a").unwrap()] };
        let put = Routing { shards: 2, spans: vec![span(0), span(5), span(10), span(15)], ..routing("h") };
        let afters = async || {
            let read = log.routings().await.unwrap();
            log.put_routings(read.version, vec![put.clone(), routing("other")]).await.unwrap();
            let routings = log.routings().await.unwrap().routings;
            assert_eq!(routings[1], routing("other"));
            routings[0].spans.iter().map(|span| span.after.0).collect::<Vec<_>>()
        };
        assert_eq!(afters().await, [0, 5, 10, 15], "no shard was ever claimed");
        let (first, second) = (shard("h", 0), shard("h", 1));
        let term = log.claim(first.clone(), Offset::START).await.unwrap().term;
        let far = ShardCommit { read: Offset(20), ..commit(&first, term, 1) };
        assert_eq!(log.commit(far).await, Ok(Committed::default()));
        assert_eq!(afters().await, [0, 5, 10, 15], "a shard was never claimed");

        let term = log.claim(second.clone(), Offset::START).await.unwrap().term;
        let head = Head {
            offset: Offset(10),
            key: None,
            attempt: 1,
            due: Timestamp(0),
            error: "".into(),
            digest: None,
            scope: HeadScope::Message,
        };
        let waits = ShardCommit { read: Offset(16), open_put: vec![head], ..commit(&second, term, 1) };
        assert_eq!(log.commit(waits).await, Ok(Committed::default()));
        assert_eq!(afters().await, [5, 10, 15], "message 10 waits and is of the subscription after 5");
        let settled = ShardCommit { read: Offset(16), open_drop: vec![Offset(10)], ..commit(&second, term, 2) };
        assert_eq!(log.commit(settled).await, Ok(Committed::default()));
        assert_eq!(afters().await, [15]);
    }

    async fn of_two_changes_to_one_version_one_wins(log) {
        let version = log.routings().await.unwrap().version;
        let tasks = (0..8).map(|who| {
            let log = log.clone();
            tokio::spawn(async move { (who, log.put_routings(version, vec![routing(&format!("h{who}"))]).await) })
        });
        let mut winners = vec![];
        for task in tasks.collect::<Vec<_>>() {
            match task.await.unwrap() {
                (who, Ok(())) => winners.push(who),
                (_, Err(error)) => assert!(matches!(error, LogError::Conflict), "{error}"),
            }
        }
        assert_eq!(winners.len(), 1);
        assert_eq!(log.routings().await.unwrap().routings, [routing(&format!("h{}", winners[0]))]);
    }
}
