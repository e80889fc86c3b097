//! Retention: old messages go while the host runs, and what a handler still needs stays.

use crate::harness::logs::{commit, message, shard};
use crate::harness::native::Native;
use crate::harness::{PATIENCE, everything};
use sluicebox::clock::Timestamp;
use sluicebox::commit::{Committed, ShardCommit};
use sluicebox::config::{Retain, Start};
use sluicebox::effects::Effects;
use sluicebox::handler::{HandlerName, Policy, ShardId};
use sluicebox::host::{Handler, Host};
use sluicebox::log::Log;
use sluicebox::log::embedded::{EmbeddedLog, Options};
use sluicebox::log::memory::{MemoryCore, MemoryLog};
use sluicebox::message::Offset;
use sluicebox::reader;
use sluicebox::retention::{Retained, Retention};
use sluicebox::routing::{IdFrom, KeyFrom};
use sluicebox::telemetry::Metrics;
use sluicebox::topic::Pattern;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

struct Running {
    retention: Retention,
    holders: watch::Sender<Vec<HandlerName>>,
    metrics: Metrics,
    stop: CancellationToken,
}

impl Running {
    fn start(log: &Arc<dyn Log>, retain: Retain, holder: &str) -> Self {
        Self::start_with(log, retain, holder, |_| ())
    }

    fn start_with(log: &Arc<dyn Log>, retain: Retain, holder: &str, hurry: impl Fn(&ShardId) + Send + 'static) -> Self {
        let (holders, told) = watch::channel(vec![HandlerName::parse(holder).unwrap()]);
        let (metrics, stop) = (Metrics::new(), CancellationToken::new());
        let retention = Retention::start(log.clone(), retain, told, &metrics, hurry, None, stop.clone());
        Self { retention, holders, metrics, stop }
    }

    async fn until(&self, done: impl FnMut(&Retained) -> bool) -> Retained {
        let mut retained = self.retention.retained();
        let waited = tokio::time::timeout(PATIENCE, retained.wait_for(done)).await;
        waited.expect("waited in vain").unwrap().clone()
    }

    /// 200 kB, as a client that comes back when it is told that the log is full; the last offset.
    async fn append(&self, log: &dyn Log, bytes_max: u64) -> Offset {
        loop {
            match log.append(vec![message("a", vec![7; 20_000]); 10]).await {
                Ok(offsets) => return offsets[9],
                Err(error) => {
                    assert!(error.to_string().contains("max_bytes"), "{error}");
                    self.until(|retained| retained.bytes <= bytes_max / 10 * 9).await;
                }
            }
        }
    }

    fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix("sluicebox_")?.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap().parse().unwrap()
    }
}

#[tokio::test]
async fn what_is_too_old_goes_when_its_handler_has_settled_it() {
    // All messages are of 1970, and the age is a week.
    let log: Arc<dyn Log> = Arc::new(MemoryLog::with(MemoryCore::default(), || Timestamp(1)));
    let offsets = log.append(vec![message("a", ""); 10]).await.unwrap();
    let id = shard("h", 3);
    let term = log.claim(id.clone(), offsets[3]).await.unwrap().term;
    let running = Running::start(&log, Retain::default(), "h");
    let retained = running.until(|retained| retained.held_by().is_some()).await;
    assert_eq!((retained.deleted, retained.held_by()), (4, Some(&id)));
    assert_eq!(everything(&*log).await.len(), 6);
    assert_eq!((running.metric("trimmed_messages_total"), running.metric("retention_held")), (4, 1));

    let moved = ShardCommit { read: offsets[7], ..commit(&id, term, 1) };
    assert_eq!(log.commit(moved).await, Ok(Committed::default()));
    running.until(|retained| retained.deleted == 8 && retained.held_by().is_some()).await;
    running.holders.send(vec![]).unwrap();
    running.until(|retained| retained.deleted == 10 && retained.held_by().is_none()).await;
    assert_eq!(everything(&*log).await, []);
    assert_eq!((running.metric("trimmed_messages_total"), running.metric("retention_held")), (10, 0));
    running.stop.cancel();
    running.retention.ended().await;
}

#[tokio::test]
async fn young_messages_stay_and_so_does_everything_without_an_age() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    log.append(vec![message("a", ""); 10]).await.unwrap();
    for age in [Some(Duration::from_secs(3600)), None] {
        let running = Running::start(&log, Retain { age, bytes_max: None }, "h");
        running.until(|retained| retained.bytes > 0).await;
        assert_eq!(everything(&*log).await.len(), 10);
        running.stop.cancel();
        running.retention.ended().await;
    }
}

#[tokio::test]
async fn a_log_with_a_bound_of_bytes_goes_on_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let bytes_max = 8 * 1024 * 1024;
    let options = Options { bytes_max: Some(bytes_max), ..Options::default() };
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(directory.path(), options).unwrap());
    let id = shard("h", 0);
    let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
    let running = Running::start(&log, Retain { age: None, bytes_max: Some(bytes_max) }, "h");
    let mut appended = 0;
    for number in 1..=100 {
        let read = running.append(&*log, bytes_max).await;
        appended += 10;
        assert_eq!(log.commit(ShardCommit { read, ..commit(&id, term, number) }).await, Ok(Committed::default()));
    }
    // 20 MB went through a log of 8 MiB.
    let retained = running.until(|retained| retained.bytes <= bytes_max / 10 * 9).await;
    assert_eq!(everything(&*log).await.len() as u64, appended - retained.deleted);
    running.stop.cancel();
    running.retention.ended().await;
}

#[tokio::test]
async fn handlers_that_hear_nothing_do_not_fill_a_log_with_a_bound() {
    let directory = tempfile::tempdir().unwrap();
    let bytes_max = 8 * 1024 * 1024;
    let options = Options { bytes_max: Some(bytes_max), ..Options::default() };
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(directory.path(), options).unwrap());
    // By themselves they would write how far they are after a hundred thousand messages, and the log has room for 400.
    let idle = |name: &str| Handler {
        name: HandlerName::parse(name).unwrap(),
        subscribe: vec![Pattern::parse("rare").unwrap()],
        key: KeyFrom::Message,
        id: IdFrom::Message,
        shards: 2,
        start: Start::Earliest,
        policy: Policy::default(),
        invoke: Native::new(async |_| Ok(Effects::default())),
    };
    let metrics = Arc::new(Metrics::new());
    let handlers = vec![idle("first"), idle("second")];
    let host = Arc::new(Host::start(log.clone(), handlers, metrics, reader::Options::default()).await.unwrap());
    let hurried = host.clone();
    let retain = Retain { age: None, bytes_max: Some(bytes_max) };
    let running = Running::start_with(&log, retain, "first", move |shard| hurried.write_positions(&shard.handler));
    running.holders.send(host.holders().borrow().clone()).unwrap();
    for _ in 0..100 {
        running.append(&*log, bytes_max).await;
    }
    running.until(|retained| retained.bytes <= bytes_max / 10 * 9 && retained.held_by().is_none()).await;
    running.stop.cancel();
    running.retention.ended().await;
    host.stop().await;
}
