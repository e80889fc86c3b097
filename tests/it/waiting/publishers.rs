//! What publishers delay stays bounded, and goes on being accepted, whatever happens to the host's own handler for it.

use super::{metric, until};
use crate::harness::logs;
use futures_util::FutureExt;
use sluicebox::delays::NoDelay;
use sluicebox::handler::{DelayedBound, HandlerName, ShardId};
use sluicebox::host::{Host, Natives, Owned};
use sluicebox::log::Log;
use sluicebox::log::memory::MemoryLog;
use sluicebox::message::{NewMessage, Offset};
use sluicebox::reader::Options;
use sluicebox::routing::reserved;
use sluicebox::shard::Amount;
use sluicebox::telemetry::Metrics;
use std::sync::Arc;
use std::time::Duration;

const HELD: &str = r#"delayed_messages{handler="_delay"}"#;

async fn start(log: &Arc<dyn Log>, metrics: &Arc<Metrics>, messages_max: usize) -> Arc<Host> {
    let bound = DelayedBound { messages_max, ..DelayedBound::default() };
    let options = Options::default();
    let natives = Natives::new(bound);
    Arc::new(Host::start_with(log.clone(), vec![], metrics.clone(), options, Owned::All, natives).await.unwrap())
}

fn later() -> NewMessage {
    logs::message("late", "body")
}

/// Publishes as the face does.
async fn publish(host: &Arc<Host>, log: &Arc<dyn Log>) -> Result<(), NoDelay> {
    let message = later();
    let room = host.delay(Amount { messages: 1, bytes: message.bytes() }).await?;
    room.settle(&append(log, 1).await);
    Ok(())
}

async fn append(log: &Arc<dyn Log>, count: usize) -> Result<Vec<Offset>, sluicebox::log::LogError> {
    log.append((0..count).map(|_| reserved::delayed(later(), Duration::from_secs(3600))).collect()).await
}

#[tokio::test]
async fn the_first_one_that_hangs_up_does_not_keep_others_from_delaying_something() {
    let fresh = logs::embedded();
    let host = start(&fresh.log, &Arc::default(), 10).await;
    assert!(publish(&host, &fresh.log).now_or_never().is_none(), "it hangs up while the handler begins");
    publish(&host, &fresh.log).await.unwrap();
    host.stop().await;
}

#[tokio::test]
async fn what_is_held_counts_also_while_its_shard_is_claimed_again() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let metrics = Arc::new(Metrics::new());
    let host = start(&log, &metrics, 3).await;
    for _ in 0..3 {
        publish(&host, &log).await.unwrap();
    }
    until("all are held", || metric(&metrics, HELD) == 3).await;
    // Somebody takes the shard away, and the next commit shows it.
    log.claim(ShardId { handler: HandlerName::delay(), index: 0 }, Offset::START).await.unwrap();
    append(&log, 1).await.unwrap();
    while metric(&metrics, HELD) < 4 {
        let refused = publish(&host, &log).await;
        assert!(matches!(refused, Err(NoDelay::Full { .. })), "{refused:?}");
        tokio::task::yield_now().await;
    }
    host.stop().await;
}

#[tokio::test]
async fn after_a_restart_with_a_lower_bound_what_finds_no_room_is_counted_and_publishers_are_told_so() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let host = start(&log, &Arc::default(), 100).await;
    publish(&host, &log).await.unwrap();
    host.stop().await;
    // Accepted, and not taken up before the end.
    append(&log, 9).await.unwrap();
    let metrics = Arc::new(Metrics::new());
    let host = start(&log, &metrics, 2).await;
    let refused = publish(&host, &log).await.unwrap_err();
    assert!(matches!(refused, NoDelay::Full { messages: 10, .. }), "{refused}");
    assert_eq!(metric(&metrics, HELD), 4, "the handler itself has room for twice as many");
    host.stop().await;
}
