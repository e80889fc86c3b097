//! Dead letters keep who they are: sent again under their id, returned, sent to another handler; and what returned to a
//! handler is not that of a later one of its name.

use super::{handler, message, start};
use crate::harness::native::{Native, count};
use crate::harness::{dead_letters, everything, watch};
use sluicebox::commit::{DeadFilter, Deaths};
use sluicebox::control::Command;
use sluicebox::handler::HandlerName;
use sluicebox::host::{Handler, Host};
use sluicebox::invoke::{Failure, Invoke};
use sluicebox::log::Log;
use sluicebox::log::memory::MemoryLog;
use sluicebox::message::{NewMessage, Offset};
use sluicebox::reader::Options;
use sluicebox::telemetry::Metrics;
use sluicebox::topic::Pattern;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Gives everything up but `ok`, until it is mended.
fn broken(mended: &Arc<AtomicBool>) -> Arc<dyn Invoke> {
    let mended = mended.clone();
    Native::new(move |call| {
        let works = mended.load(Ordering::SeqCst) || call.message.body == "ok";
        async move {
            match works {
                true => Ok(count(&call, "out")),
                false => Err(Failure::Reject { reason: "broken".into() }),
            }
        }
    })
}

/// Waits until everything of the key is settled: appends a message and waits for its output.
async fn settled(log: &dyn Log) -> Offset {
    let last = log.append(vec![NewMessage { id: None, body: "ok".into(), ..message("k", "") }]).await.unwrap()[0];
    let source = format!(r#"{{"source":{last},"#);
    watch(log, |message| message.topic.as_str() == "out" && message.body.starts_with(source.as_bytes())).await;
    last
}

async fn retry(log: &dyn Log, to: Option<&str>) {
    let upto = Some(log.dead_count(DeadFilter::default()).await.unwrap().newest);
    let filter = DeadFilter { upto, ..DeadFilter::default() };
    let to = to.map(|to| HandlerName::parse(to).unwrap());
    log.append(vec![Command::RetryDead { filter, to }.message(&handler(1).name)]).await.unwrap();
    watch(log, |message| message.topic.as_str().starts_with("_retry.")).await;
}

#[tokio::test]
async fn a_returned_dead_letter_is_handled_once_after_forget_and_earliest() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let mended = Arc::new(AtomicBool::new(false));
    let handler = Handler { invoke: broken(&mended), ..handler(4) };
    let host = start(&log, handler.clone()).await;
    // Without an id: nothing but the offset tells the copy from the original.
    log.append(vec![NewMessage { id: None, ..message("k", "") }]).await.unwrap();
    settled(&*log).await;
    mended.store(true, Ordering::SeqCst);
    retry(&*log, None).await;
    settled(&*log).await;
    host.stop().await;
    let outputs = async || everything(&*log).await.iter().filter(|message| message.topic.as_str() == "out").count();
    assert_eq!(outputs().await, 3);

    log.forget(handler.name.clone()).await.unwrap();
    let host = start(&log, handler).await;
    settled(&*log).await;
    host.stop().await;
    // The three messages of before and the last one, not the copy.
    assert_eq!(outputs().await, 3 + 4);
}

#[tokio::test]
async fn a_bad_message_sent_again_under_its_id_is_one_dead_letter_that_is_counted() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let mended = Arc::new(AtomicBool::new(false));
    let handler = Handler { invoke: broken(&mended), ..handler(4) };
    let metrics = Arc::new(Metrics::new());
    let host = Host::start(log.clone(), vec![handler], metrics.clone(), Options::default()).await.unwrap();
    let bad = message("k", "bad");
    let none = NewMessage { id: None, ..message("k", "") };
    let offsets = log.append(vec![bad.clone(), bad, none.clone(), none]).await.unwrap();
    settled(&*log).await;
    let letters = dead_letters(&*log).await;
    assert_eq!(letters.len(), 3);
    let joined = letters.iter().find(|letter| letter.message.id.is_some()).unwrap();
    assert_eq!(joined.message.offset, offsets[1]);
    let first = joined.deaths;
    assert_eq!(first, Deaths { count: 2, first_offset: offsets[0], ..first });
    let gauge = |letters| format!(r#"dead_letters{{handler="h"}} {letters}"#);
    assert!(metrics.render().contains(&gauge(3)), "{}", metrics.render());

    // Returned and given up once more, it is still the same.
    retry(&*log, None).await;
    settled(&*log).await;
    let letters = dead_letters(&*log).await;
    assert_eq!(letters.len(), 3);
    let again = letters.iter().find(|letter| letter.message.id.is_some()).unwrap();
    assert_eq!(again.deaths, Deaths { count: 3, returns: 1, ..first });
    let alone = letters.iter().filter(|letter| letter.message.id.is_none()).map(|letter| letter.deaths);
    assert!(alone.clone().all(|deaths| (deaths.count, deaths.returns) == (2, 1)));
    assert!(alone.map(|deaths| deaths.first_offset).eq([offsets[3], offsets[2]]));
    assert!(metrics.render().contains(&gauge(3)), "{}", metrics.render());
    mended.store(true, Ordering::SeqCst);
    retry(&*log, None).await;
    settled(&*log).await;
    host.stop().await;
    assert_eq!(dead_letters(&*log).await, []);
}

#[tokio::test]
async fn a_letter_sent_to_another_handler_is_handled_by_that_one_alone() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let first = Handler { invoke: broken(&Arc::default()), ..handler(4) };
    let other = Handler {
        name: HandlerName::parse("other").unwrap(),
        subscribe: vec![Pattern::parse("elsewhere").unwrap()],
        invoke: Native::new(|call| async move { Ok(count(&call, "mended")) }),
        ..handler(2)
    };
    let handlers = vec![first, other];
    let host = Host::start(log.clone(), handlers, Arc::new(Metrics::new()), Options::default()).await.unwrap();
    log.append(vec![message("k", "bad")]).await.unwrap();
    settled(&*log).await;
    retry(&*log, Some("other")).await;
    watch(&*log, |message| message.topic.as_str() == "mended").await;
    settled(&*log).await;
    host.stop().await;
    assert_eq!(dead_letters(&*log).await, []);
    let sent = everything(&*log).await;
    let sent: Vec<_> = sent.iter().filter(|message| message.topic.as_str() == "_retry.other").collect();
    assert_eq!((sent.len(), sent[0].hops), (1, 1));
    assert_eq!(sent[0].key.as_ref().unwrap().as_str(), "k");
}
