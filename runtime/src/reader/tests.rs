//! The promises of the reader, over a log in memory that can be told to lag and to fail.

mod any_schedule;
mod catching_up;
mod ending;
mod foreign;
mod rejoining;
mod watched_log;

use self::watched_log::WatchedLog;
use super::{Delivery, Inbox, Options, Reader};
use crate::handler::{HandlerName, ShardId};
use crate::log::Log;
use crate::message::{Key, NewMessage, Offset};
use crate::routing::{IdFrom, KeyFrom, Routing, Since, Span};
use crate::topic::{Pattern, Topic};
use std::sync::Arc;
use std::time::Duration;

/// Far beyond what anything here takes; whoever waits so long waits for ever.
const DEADLINE: Duration = Duration::from_secs(60);

/// A reader over a watched log.
struct Rig {
    log: Arc<WatchedLog>,
    reader: Reader,
}

impl Rig {
    async fn new(options: Options) -> Self {
        Self::over(WatchedLog::default(), options).await
    }

    async fn over(log: WatchedLog, options: Options) -> Self {
        let log = Arc::new(log);
        let reader = Reader::start(log.clone(), options).await.unwrap();
        Self { log, reader }
    }

    /// Appends one batch of messages with the keys `0`, `1`, … on one topic.
    async fn append(&self, topic: &str, count: usize) -> Vec<Offset> {
        let message = |number| new_message(topic, number, 0);
        self.log.append((0..count).map(message).collect()).await.unwrap()
    }

    /// What a shard must get, in order.
    async fn expected(&self, routing: &Routing, shard: &ShardId, after: Offset) -> Vec<Offset> {
        let mine = |message: &&Arc<_>| {
            routing.subscribes(message) && routing.route(message).shard(routing.shards) == shard.index
        };
        let all = self.log.all().await;
        all.iter().filter(mine).map(|message| message.offset).filter(|offset| *offset > after).collect()
    }
}

fn new_message(topic: &str, key: usize, body_bytes: usize) -> NewMessage {
    let topic = Topic::parse(topic).unwrap();
    NewMessage { key: Key::parse(&key.to_string()).unwrap(), ..NewMessage::new(topic, vec![b'x'; body_bytes]) }
}

pub(super) fn routing(handler: &str, patterns: &[&str], shards: u16) -> Routing {
    Routing {
        handler: HandlerName::parse(handler).unwrap(),
        key: KeyFrom::Message,
        id: IdFrom::Message,
        shards,
        recorded: Offset::START,
        identity: Since::default(),
        spans: vec![span(Offset::START, patterns)],
    }
}

pub(super) fn span(after: Offset, patterns: &[&str]) -> Span {
    Span { after, subscribe: patterns.iter().map(|pattern| Pattern::parse(pattern).unwrap()).collect() }
}

pub(super) fn shard(handler: &str, index: u16) -> ShardId {
    ShardId { handler: HandlerName::parse(handler).unwrap(), index }
}

pub(super) fn offsets(delivery: &Delivery) -> Vec<Offset> {
    delivery.messages.iter().map(|routed| routed.message.offset).collect()
}

async fn next(inbox: &mut Inbox) -> Option<Delivery> {
    tokio::time::timeout(DEADLINE, inbox.next()).await.expect("the next delivery before the deadline")
}

/// Takes deliveries until there were so many messages.
async fn take(inbox: &mut Inbox, messages: usize) -> Vec<Offset> {
    let mut taken = vec![];
    while taken.len() < messages {
        taken.extend(offsets(&next(inbox).await.expect("the inbox has not ended")));
    }
    taken
}

/// Lets every task that can go on without time passing do so. Only on a runtime of one thread.
async fn settle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}
