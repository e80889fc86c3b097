//! What integration tests stand on: handlers, logs, real processes.

pub mod again;
pub mod certificates;
pub mod disk;
pub mod guests;
pub mod logs;
pub mod native;
pub mod nats;
pub mod nats_cluster;
pub mod process;
pub mod proxy;
pub mod recorder;
pub mod redis;
pub mod sentinels;
pub mod servers;

use sluicebox::commit::{DeadFilter, DeadQuery};
use sluicebox::handler::ShardId;
use sluicebox::log::{Log, ReadRequest};
use sluicebox::message::{Key, Message, Offset};
use sluicebox::routing::Routing;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Nothing in a test takes longer than this unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Everything in the log after an offset, and how far that is.
pub async fn after(log: &dyn Log, mut from: Offset) -> (Vec<Arc<Message>>, Offset) {
    let mut messages = vec![];
    loop {
        let request = ReadRequest {
            after: from,
            upto: Offset::END,
            patterns: vec![],
            messages_max: 10_000,
            bytes_max: usize::MAX,
        };
        let batch = log.read(request).await.unwrap();
        messages.extend(batch.messages);
        if batch.upto == from {
            return (messages, from);
        }
        from = batch.upto;
    }
}

/// Everything in the log.
pub async fn everything(log: &dyn Log) -> Vec<Arc<Message>> {
    after(log, Offset::START).await.0
}

/// Every dead letter.
pub async fn dead_letters(log: &dyn Log) -> Vec<sluicebox::commit::DeadLetter> {
    let query = DeadQuery::newest(DeadFilter::default(), usize::MAX);
    log.dead(query).await.unwrap().into_iter().map(|numbered| numbered.letter).collect()
}

/// Looks at every message of the log, as it comes, until `done` says that it saw enough.
pub async fn watch(log: &dyn Log, mut done: impl FnMut(&Message) -> bool) {
    let mut tail = log.tail().await.unwrap();
    let mut seen = Offset::START;
    let read = async {
        loop {
            let (messages, upto) = after(log, seen).await;
            seen = upto;
            if messages.iter().any(|message| done(message)) {
                return;
            }
            // Only as a bell: what it rings for is read from the log.
            while tail.start() <= seen
                && tail.next().await.is_some_and(|batch| batch.is_ok_and(|batch| batch.upto <= seen))
            {}
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("the awaited message does not come");
}

/// `n` in the state of each key of a handler; 0 where there is none.
pub async fn counts(log: &dyn Log, routing: &Routing, keys: &[Key]) -> BTreeMap<Key, u64> {
    let mut counts = BTreeMap::new();
    for key in keys {
        // State is the handler's and the key's, whatever shard asks.
        let shard = ShardId { handler: routing.handler.clone(), index: 0 };
        let state = log.load(shard, vec![key.clone()]).await.unwrap().remove(0);
        let n = state.get("n").map_or(0, |n| String::from_utf8(n.to_vec()).unwrap().parse().unwrap());
        counts.insert(key.clone(), n);
    }
    counts
}
