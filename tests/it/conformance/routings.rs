//! Routings: read with their version, replaced by compare and set.

use sluicebox::handler::HandlerName;
use sluicebox::log::LogError;
use sluicebox::message::Offset;
use sluicebox::routing::{Field, IdFrom, KeyFrom, Routing, Span};
use sluicebox::topic::Pattern;

fn routing(handler: &str) -> Routing {
    Routing {
        handler: HandlerName::parse(handler).unwrap(),
        key: KeyFrom::Fields(vec![Field::Pointer("/user".into()), Field::Header("User".into()), Field::TopicToken(2)]),
        id: IdFrom::Message,
        shards: 8,
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
