//! What the host cannot do costs messages time and no attempt.

use super::{handler, message, metric, until};
use crate::harness::dead_letters;
use crate::harness::native::{Native, count};
use sluicebox::handler::{Policy, Retry};
use sluicebox::host::Host;
use sluicebox::invoke::Failure;
use sluicebox::log::Log;
use sluicebox::log::memory::MemoryLog;
use sluicebox::reader::Options;
use sluicebox::telemetry::Metrics;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

#[tokio::test]
async fn messages_wait_out_a_fault_of_the_host_without_losing_an_attempt() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let (healed, tries, most) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let invoke = {
        let (healed, tries, most) = (healed.clone(), tries.clone(), most.clone());
        Native::new(move |call| {
            most.fetch_max(call.attempt as usize, Ordering::Relaxed);
            tries.fetch_add(1, Ordering::Relaxed);
            let result = match healed.load(Ordering::Relaxed) {
                true => Ok(count(&call, "out")),
                false => Err(Failure::Host { reason: "no memory for a sandbox".into() }),
            };
            async move { result }
        })
    };
    let retry = Retry { attempts: 2, min: Duration::from_millis(1), max: Duration::from_millis(1) };
    let policy = Policy { retry, ..Policy::default() };
    let metrics = Arc::new(Metrics::new());
    let handlers = vec![handler("h", 2, policy, invoke)];
    let host = Host::start(log.clone(), handlers, metrics.clone(), Options::default()).await.unwrap();
    log.append((0..20).map(|key| message("in", &format!("k{key}"), vec![])).collect()).await.unwrap();
    until("it was tried more often than there are attempts", || tries.load(Ordering::Relaxed) >= 5).await;
    // Two shards, and a wait of 50 ms and more after each fault: it is not tried in a loop.
    assert!(tries.load(Ordering::Relaxed) < 1000);
    healed.store(true, Ordering::Relaxed);
    until("all are done", || metric(&metrics, r#"messages_total{handler="h",outcome="done",topic="in"}"#) == 20).await;
    host.stop().await;
    assert_eq!((dead_letters(&*log).await.len(), most.load(Ordering::Relaxed)), (0, 1));
}
