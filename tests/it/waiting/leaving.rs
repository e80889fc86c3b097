//! What went of a handler before it left is counted, though nobody had heard of it.

use super::{handler, message, metric, until};
use crate::harness::native::Native;
use sluicebox::commit::DeadFilter;
use sluicebox::handler::Policy;
use sluicebox::host::Host;
use sluicebox::invoke::Failure;
use sluicebox::log::Log;
use sluicebox::log::embedded::{EmbeddedLog, Options};
use sluicebox::reader;
use sluicebox::telemetry::Metrics;
use std::sync::Arc;

#[tokio::test]
async fn dead_letters_that_went_for_their_bytes_last_are_counted_when_their_handler_leaves() {
    const MESSAGES: u64 = 30;
    let directory = tempfile::tempdir().unwrap();
    let options = Options { bytes_max: Some(8 << 20), ..Options::default() };
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(directory.path(), options).unwrap());
    let metrics = Arc::new(Metrics::new());
    let invoke = Native::new(|_| async { Err(Failure::Reject { reason: "never".into() }) });
    let handlers = vec![handler("h", 1, Policy::default(), invoke)];
    let host = Host::start(log.clone(), handlers, metrics.clone(), reader::Options::default()).await.unwrap();
    for _ in 0..MESSAGES {
        log.append(vec![message("in", "k", vec![b'x'; 100 * 1024])]).await.unwrap();
    }
    let dead = r#"messages_total{handler="h",outcome="dead",topic="in"}"#;
    until("all are dead", || metric(&metrics, dead) == MESSAGES).await;
    host.apply(vec![]).await.unwrap();
    let left = log.dead_count(DeadFilter::default()).await.unwrap().letters;
    assert!(left < MESSAGES, "their share is a part of the log");
    assert_eq!(metric(&metrics, r#"dead_letters_dropped_total{handler="h"}"#), MESSAGES - left);
    host.stop().await;
}
