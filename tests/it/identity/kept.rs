//! What returned to a handler is that handler's, as it was: not that of a later one of its name.

use super::{handler, message, start};
use crate::harness::native::{Native, count};
use crate::harness::{everything, watch};
use sluicebox::commit::DeadFilter;
use sluicebox::control::Command;
use sluicebox::host::Handler;
use sluicebox::invoke::Failure;
use sluicebox::log::Log;
use sluicebox::log::memory::MemoryLog;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[tokio::test]
async fn a_returned_dead_letter_is_handled_once_after_forget_and_earliest() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let mended = Arc::new(AtomicBool::new(false));
    let seen = mended.clone();
    let invoke = Native::new(move |call| {
        let mended = seen.load(Ordering::SeqCst);
        async move {
            match mended {
                true => Ok(count(&call, "out")),
                false => Err(Failure::Reject { reason: "broken".into() }),
            }
        }
    });
    // Without an id: nothing but the offset tells the copy from the original.
    let handler = Handler { invoke, ..handler(4) };
    let host = start(&log, handler.clone()).await;
    log.append(vec![sluicebox::message::NewMessage { id: None, ..message("k", "") }]).await.unwrap();
    let mut letters = log.dead_count(DeadFilter::default()).await.unwrap();
    while letters.letters == 0 {
        tokio::task::yield_now().await;
        letters = log.dead_count(DeadFilter::default()).await.unwrap();
    }
    mended.store(true, Ordering::SeqCst);
    let filter = DeadFilter { upto: Some(letters.newest), ..DeadFilter::default() };
    log.append(vec![Command::RetryDead { filter }.message(&handler.name)]).await.unwrap();
    watch(&*log, |message| message.topic.as_str() == "out").await;
    host.stop().await;

    log.forget(handler.name.clone()).await.unwrap();
    let host = start(&log, handler).await;
    log.append(vec![message("k", "last")]).await.unwrap();
    let last = log.end().await.unwrap();
    let of_last = format!(r#"{{"source":{last},"n":2}}"#);
    watch(&*log, |message| message.topic.as_str() == "out" && message.body == of_last).await;
    host.stop().await;
    // Once by the handler as it was, and the original and the last one by the new one.
    assert_eq!(everything(&*log).await.iter().filter(|message| message.topic.as_str() == "out").count(), 3);
}
