//! Commands are heard whatever the shard does when they come.

use super::{handler, message, metric, until};
use sluicebox::commit::{Over, Pin};
use sluicebox::control::Command;
use sluicebox::effects::Effects;
use sluicebox::handler::{Digest, HandlerName, Policy};
use sluicebox::host::Host;
use sluicebox::log::Log;
use sluicebox::log::memory::MemoryLog;
use sluicebox::reader::Options;
use sluicebox::telemetry::Metrics;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_command_that_comes_while_a_run_begins_is_applied_while_it_goes_on() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let name = HandlerName::parse("h").unwrap();
    let go_on = Arc::new(Notify::new());
    let host: Arc<Mutex<Option<Arc<Host>>>> = Arc::default();
    let invoke = {
        let (log, go_on, host, name) = (log.clone(), go_on.clone(), host.clone(), name.clone());
        crate::harness::native::Native::new(move |_| {
            let (log, go_on, host, name) = (log.clone(), go_on.clone(), host.clone(), name.clone());
            async move {
                // Not before the follower heard the command does the shard look again.
                let pin = Pin { digest: Digest::of(b"old"), over: Over::File(Digest::of(b"new")) };
                let append = move || {
                    let append = log.append(vec![Command::Rollback { pin }.message(&name)]);
                    futures_util::FutureExt::now_or_never(append).expect("in memory it takes no time").unwrap();
                };
                std::thread::spawn(append).join().unwrap();
                let pins = host.lock().unwrap().as_ref().unwrap().pins();
                let began = Instant::now();
                while pins.borrow().is_empty() && began.elapsed() < Duration::from_secs(60) {
                    std::thread::yield_now();
                }
                go_on.notified().await;
                Ok(Effects::default())
            }
        })
    };
    let metrics = Arc::new(Metrics::new());
    let handlers = vec![handler("h", 1, Policy::default(), invoke)];
    let started = Host::start(log.clone(), handlers, metrics.clone(), Options::default()).await.unwrap();
    *host.lock().unwrap() = Some(Arc::new(started));
    log.append(vec![message("in", "k", vec![])]).await.unwrap();
    until("the command is applied while the run goes on", || {
        metric(&metrics, r#"commands_applied_total{handler="h",result="applied"}"#) == 1
    })
    .await;
    go_on.notify_one();
    let host = host.lock().unwrap().take().unwrap();
    host.stop().await;
}
