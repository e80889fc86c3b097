//! Messages held back until they are due are bounded for the handler, and a full bound stops nobody else.

use super::{handler, message, metric, until};
use crate::harness::dead_letters;
use crate::harness::native::Native;
use sluicebox::effects::{Effects, Outgoing};
use sluicebox::handler::{DelayedBound, Policy, Retry};
use sluicebox::host::Host;
use sluicebox::invoke::Failure;
use sluicebox::log::Log;
use sluicebox::log::memory::MemoryLog;
use sluicebox::message::Headers;
use sluicebox::reader::Options;
use sluicebox::telemetry::Metrics;
use sluicebox::topic::Topic;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The body says for how many milliseconds the output is held back.
fn delays(ms: u64) -> Effects {
    let output = Outgoing {
        topic: Topic::parse("out").unwrap(),
        key: None,
        id: None,
        headers: Headers::default(),
        body: "".into(),
        delay: Some(Duration::from_millis(ms)).filter(|delay| !delay.is_zero()),
    };
    Effects { outputs: vec![output], ..Effects::default() }
}

#[tokio::test]
async fn beyond_the_bound_of_delayed_messages_runs_wait_without_losing_an_attempt_and_others_go_on() {
    const BOUND: usize = 50;
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let most = Arc::new(AtomicUsize::new(0));
    let invoke = {
        let most = most.clone();
        Native::new(move |call| {
            most.fetch_max(call.attempt as usize, Ordering::Relaxed);
            let ms = std::str::from_utf8(&call.message.body).unwrap().parse().unwrap();
            // As a guest does that gives up when it may not publish.
            let result = match ms > 0 && call.delayed_room.messages == 0 {
                true => Err(Failure::Full { reason: "refused".into() }),
                false => Ok(delays(ms)),
            };
            async move { result }
        })
    };
    let retry = Retry { attempts: 2, min: Duration::from_millis(1), max: Duration::from_millis(20) };
    let delayed = DelayedBound { messages_max: BOUND, ..DelayedBound::default() };
    let metrics = Arc::new(Metrics::new());
    let handlers = vec![handler("h", 4, Policy { retry, delayed, ..Policy::default() }, invoke)];
    let host = Host::start(log.clone(), handlers, metrics.clone(), Options::default()).await.unwrap();
    let held = || metric(&metrics, r#"delayed_messages{handler="h"}"#);
    let done = || metric(&metrics, r#"messages_total{handler="h",outcome="done",topic="in"}"#);
    let publish = |key: String, ms: u64| message("in", &key, ms.to_string().into_bytes());
    log.append((0..2 * BOUND).map(|key| publish(format!("k{key}"), 86_400_000)).collect()).await.unwrap();
    until("the bound is reached", || held() == BOUND as u64).await;
    log.append((0..100).map(|key| publish(format!("other{key}"), 0)).collect()).await.unwrap();
    until("who delays nothing is done", || done() == BOUND as u64 + 100).await;
    until("runs were refused", || metric(&metrics, r#"delayed_refused_total{handler="h"}"#) >= 100).await;
    assert_eq!((held(), most.load(Ordering::Relaxed)), (BOUND as u64, 1), "no try counted");
    host.stop().await;
    assert_eq!(dead_letters(&*log).await.len(), 0);
    // After a restart they wait on, and when there is room they go on.
    let seen = Arc::new(AtomicUsize::new(0));
    let invoke = {
        let seen = seen.clone();
        Native::new(move |call| {
            seen.fetch_max(call.attempt as usize, Ordering::Relaxed);
            async { Ok(delays(86_400_000)) }
        })
    };
    let delayed = DelayedBound { messages_max: 2 * BOUND, ..DelayedBound::default() };
    let metrics = Arc::new(Metrics::new());
    let handlers = vec![handler("h", 4, Policy { delayed, ..Policy::default() }, invoke)];
    let host = Host::start(log.clone(), handlers, metrics.clone(), Options::default()).await.unwrap();
    until("all are held back", || metric(&metrics, r#"delayed_messages{handler="h"}"#) == 2 * BOUND as u64).await;
    assert_eq!(seen.load(Ordering::Relaxed), 1, "no try counted across the restart");
    host.stop().await;
}
