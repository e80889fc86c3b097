//! A handler that is paused or tripped does not hold messages of others in the log.

use super::{handler, message, until};
use crate::harness::PATIENCE;
use crate::harness::native::Native;
use sluicebox::control::Command;
use sluicebox::effects::Effects;
use sluicebox::handler::{HandlerName, Policy};
use sluicebox::host::Host;
use sluicebox::log::memory::MemoryLog;
use sluicebox::log::{Log, ShardStatus};
use sluicebox::reader::Options;
use sluicebox::telemetry::Metrics;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Asks the shards to write down how far they are, as retention does, until the log says so of all.
async fn until_written(host: &Host, log: &dyn Log, what: &str, holds: impl Fn(&ShardStatus) -> bool) {
    let name = HandlerName::parse("h").unwrap();
    let written = async {
        loop {
            let status = log.status().await.unwrap();
            if status.len() == 2 && status.iter().all(&holds) {
                return;
            }
            host.write_positions(&name);
            tokio::task::yield_now().await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, written).await.is_ok();
    assert!(in_time, "{what}: in vain; {:?}", log.status().await.unwrap());
}

async fn check(command: Command, undo: Command) {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let ran = Arc::new(AtomicUsize::new(0));
    let invoke = {
        let ran = ran.clone();
        Native::new(move |_| {
            ran.fetch_add(1, Ordering::Relaxed);
            async { Ok(Effects::default()) }
        })
    };
    let handlers = vec![handler("h", 2, Policy::default(), invoke)];
    let host = Host::start(log.clone(), handlers, Arc::new(Metrics::new()), Options::default()).await.unwrap();
    let name = HandlerName::parse("h").unwrap();
    until_written(&host, &*log, "the shards are claimed", |_| true).await;
    log.append(vec![command.message(&name)]).await.unwrap();
    until_written(&host, &*log, "it is shut", |status| status.control.paused || status.control.tripped).await;
    let foreign = || vec![message("other", "k", vec![]); 100];
    let passed = *log.append(foreign()).await.unwrap().last().unwrap();
    until_written(&host, &*log, "shut, it says that nothing was for it", |status| status.read >= passed).await;
    let own = log.append(vec![message("in", "k", vec![]), message("in", "l", vec![])]).await.unwrap();
    let last = *log.append(foreign()).await.unwrap().last().unwrap();
    // Who has one of them keeps to what came before.
    for _ in 0..1000 {
        host.write_positions(&name);
        tokio::task::yield_now().await;
        let status = log.status().await.unwrap();
        assert!(status.iter().any(|shard| shard.read < own[1]), "it took a message up: {status:?}");
    }
    assert_eq!(ran.load(Ordering::Relaxed), 0);
    log.append(vec![undo.message(&name)]).await.unwrap();
    until("what waited runs", || ran.load(Ordering::Relaxed) == 2).await;
    until_written(&host, &*log, "it goes on", |status| status.read >= last).await;
    host.stop().await;
}

#[tokio::test]
async fn a_paused_handler_says_how_far_the_log_has_nothing_for_it() {
    check(Command::Pause, Command::Resume).await;
}

#[tokio::test]
async fn a_tripped_handler_says_how_far_the_log_has_nothing_for_it() {
    check(Command::Trip, Command::Reset).await;
}
