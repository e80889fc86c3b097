//! A log that an earlier version wrote: what it took up stays where it is, and its marks are found until they expire.

use super::{handler, message, start};
use crate::harness::{everything, watch};
use sluicebox::clock::Timestamp;
use sluicebox::commit::{Head, HeadScope, Mark, ShardCommit};
use sluicebox::handler::ShardId;
use sluicebox::log::Log;
use sluicebox::log::memory::MemoryLog;
use sluicebox::message::{IdHash, Offset};
use sluicebox::routing::{IdFrom, KeyFrom, Routing, Since, Span};
use sluicebox::topic::Pattern;
use std::sync::Arc;

/// A log with a handler of an earlier version, which took up what is in it; its routing.
async fn before(log: &dyn Log) -> Routing {
    let (after, shards) = (log.end().await.unwrap(), 8);
    let time = everything(log).await.last().unwrap().time;
    let routing = Routing {
        handler: handler(shards).name,
        key: KeyFrom::Message,
        id: IdFrom::Message,
        shards,
        recorded: Offset::START,
        identity: Since { after, time },
        spans: vec![Span { after: Offset::START, subscribe: vec![Pattern::parse("in").unwrap()] }],
    };
    log.put_routings(0, vec![routing.clone()]).await.unwrap();
    routing
}

/// Each shard writes what it had in an earlier version.
async fn write(log: &dyn Log, routing: &Routing, content: impl Fn(u16, ShardCommit) -> ShardCommit) {
    for index in 0..routing.shards {
        let id = ShardId { handler: routing.handler.clone(), index };
        let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
        let empty = crate::harness::logs::commit(&id, term, 1);
        let read = ShardCommit { read: routing.identity.after, controlled: routing.identity.after, ..empty };
        log.commit(content(index, read)).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_open_before_is_handled_once_in_its_old_shard() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let messages: Vec<_> = (0..40).map(|id| message("", &id.to_string())).collect();
    log.append(messages.clone()).await.unwrap();
    let routing = before(&*log).await;
    let inputs = everything(&*log).await;
    write(&*log, &routing, |index, commit| {
        let own = inputs.iter().filter(|message| {
            let hash = Routing::lane_hash(None, message.offset);
            hash % u64::from(routing.shards) == u64::from(index)
        });
        let head = |offset| Head {
            offset,
            key: None,
            attempt: 1,
            due: Timestamp(0),
            error: "down".into(),
            digest: None,
            scope: HeadScope::Message,
        };
        ShardCommit { open_put: own.map(|message| head(message.offset)).collect(), ..commit }
    })
    .await;
    let host = start(&log, handler(routing.shards)).await;
    // New ones go by their id, and so do these, sent again.
    let last = log.append((100..140).map(|id| message("", &id.to_string())).collect()).await.unwrap();
    let mut outputs = 0;
    watch(&*log, |message| {
        outputs += usize::from(message.topic.as_str() == "out");
        outputs == messages.len() + last.len()
    })
    .await;
    host.stop().await;
    let mut sources: Vec<_> =
        everything(&*log).await.into_iter().filter(|message| message.topic.as_str() == "out").collect();
    assert_eq!(sources.len(), 80);
    sources.sort_by_key(|message| message.body.clone());
    sources.dedup_by_key(|message| message.body.clone());
    assert_eq!(sources.len(), 80);
}

#[tokio::test]
async fn marks_of_the_id_alone_are_found_until_they_expire() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    log.append(vec![message("ada", "old")]).await.unwrap();
    let routing = before(&*log).await;
    let time = routing.identity.time;
    write(&*log, &routing, |_, commit| ShardCommit {
        marks: vec![Mark { id: IdHash::of_id_alone(b"old"), time }],
        ..commit
    })
    .await;
    let host = start(&log, handler(routing.shards)).await;
    let [.., last] = log.append(vec![message("ada", "old"), message("ada", "new")]).await.unwrap()[..] else {
        panic!()
    };
    let expected = format!(r#"{{"source":{last},"n":1}}"#);
    watch(&*log, |message| message.topic.as_str() == "out" && message.body == expected).await;
    host.stop().await;
}
