//! Which messages are the same one: by key and id, whatever the shards, and for as long as the settings say. Through the
//! whole pipeline, since routing, marks and the log each have a part in it.

mod kept;
mod upgraded;

use crate::harness::native::{Native, count};
use crate::harness::{everything, watch};
use sluicebox::config::Start;
use sluicebox::handler::{Dedup, HandlerName, Policy};
use sluicebox::host::{Handler, Host};
use sluicebox::log::Log;
use sluicebox::log::memory::MemoryLog;
use sluicebox::message::{Key, NewMessage};
use sluicebox::reader::Options;
use sluicebox::routing::{IdFrom, KeyFrom};
use sluicebox::telemetry::Metrics;
use sluicebox::topic::{Pattern, Topic};
use std::sync::Arc;

/// Messages that follow those under test, so many that every shard gets some: when they are done, so are the others.
const LAST: usize = 100;

fn handler(shards: u16) -> Handler {
    Handler {
        name: HandlerName::parse("h").unwrap(),
        subscribe: vec![Pattern::parse("in").unwrap()],
        key: KeyFrom::Message,
        id: IdFrom::Message,
        shards,
        start: Start::Earliest,
        policy: Policy::default(),
        invoke: Native::new(|call| async move { Ok(count(&call, "out")) }),
    }
}

fn message(key: &str, id: &str) -> NewMessage {
    NewMessage {
        key: Key::parse(key).unwrap(),
        id: Some(id.into()),
        ..NewMessage::new(Topic::parse("in").unwrap(), "body")
    }
}

/// How many of the messages had an effect, with a restart of the host between the parts.
async fn handled(handler: Handler, parts: Vec<Vec<NewMessage>>) -> usize {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    for (part, messages) in parts.into_iter().enumerate() {
        let host = start(&log, handler.clone()).await;
        log.append(messages).await.unwrap();
        log.append((0..LAST).map(|number| message("", &format!("last {part} {number}"))).collect()).await.unwrap();
        log.append((0..LAST).map(|number| message(&format!("last {number}"), &part.to_string())).collect())
            .await
            .unwrap();
        let mut last = 0;
        let sources = everything(&*log).await;
        watch(&*log, |output| {
            last += usize::from(output.topic.as_str() == "out" && is_last(&sources, &output.body, part));
            last == 2 * LAST
        })
        .await;
        host.stop().await;
        assert_eq!(log.status().await.unwrap().iter().map(|shard| shard.open).sum::<u64>(), 0);
    }
    let sources = everything(&*log).await;
    let parts = sources.iter().filter(|output| output.topic.as_str() == "out");
    parts.filter(|output| (0..9).all(|part| !is_last(&sources, &output.body, part))).count()
}

async fn start(log: &Arc<dyn Log>, handler: Handler) -> Host {
    Host::start(log.clone(), vec![handler], Arc::new(Metrics::new()), Options::default()).await.unwrap()
}

/// Whether an output with this body is that of one of the last messages of a part.
fn is_last(sources: &[Arc<sluicebox::message::Message>], output: &[u8], part: usize) -> bool {
    let source = serde_json::from_slice::<serde_json::Value>(output).unwrap()["source"].as_u64().unwrap();
    let Ok(at) = sources.binary_search_by_key(&source, |message| message.offset.0) else { return false };
    let (key, id) = (sources[at].key.as_ref(), sources[at].id.as_deref().unwrap_or_default());
    id.starts_with(&format!("last {part} "))
        || (key.is_some_and(|key| key.as_str().starts_with("last ")) && id == part.to_string())
}

#[tokio::test]
async fn an_id_without_a_key_is_handled_once_over_all_shards() {
    let ids: Vec<NewMessage> = (0..50).map(|id| message("", &id.to_string())).collect();
    assert_eq!(handled(handler(8), vec![[ids.clone(), ids.clone()].concat(), ids]).await, 50);
}

#[tokio::test]
async fn the_same_id_under_another_key_is_another_message() {
    for shards in [1, 8] {
        let keys: Vec<NewMessage> = (0..50).map(|key| message(&format!("k{key}"), "same")).collect();
        let none = vec![message("", "same")];
        let all = [keys, none].concat();
        assert_eq!(handled(handler(shards), vec![[all.clone(), all.clone()].concat(), all]).await, 51);
    }
}

#[tokio::test]
async fn as_many_ids_as_dedup_promises_are_remembered_although_all_are_of_one_key() {
    let policy = Policy { dedup: Some(Dedup { marks_max: 1000, ..Dedup::default() }), ..Policy::default() };
    let orders: Vec<NewMessage> = (0..600).map(|id| message("one user", &id.to_string())).collect();
    let all = [orders.clone(), orders.clone()].concat();
    assert_eq!(handled(Handler { policy, ..handler(8) }, vec![all, orders]).await, 600);
}
