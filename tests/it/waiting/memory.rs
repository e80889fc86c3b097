//! One budget of memory for all that waits: counted, not measured.

use super::{handler, message, until};
use crate::harness::logs::commit;
use crate::harness::native::Native;
use bytes::Bytes;
use sluicebox::clock::Timestamp;
use sluicebox::commit::{Head, HeadScope, ShardCommit};
use sluicebox::control::Command;
use sluicebox::effects::Effects;
use sluicebox::handler::{HandlerName, Policy, Retry, ShardId};
use sluicebox::host::{Handler, Host};
use sluicebox::invoke::{Failure, Invoke};
use sluicebox::log::Log;
use sluicebox::log::memory::MemoryLog;
use sluicebox::memory::Budget;
use sluicebox::message::{Key, MESSAGE_BYTES_MAX, NewMessage, Offset};
use sluicebox::reader::Options;
use sluicebox::telemetry::Metrics;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const BODY_BYTES: usize = 512 * 1024;
const MIB: u64 = 1024 * 1024;

/// A handler under which keys that begin with `bad` fail, others are counted, and the budget is looked at in each run.
#[derive(Clone, Default)]
struct Seen {
    done: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    most_bytes: Arc<AtomicUsize>,
}

impl Seen {
    fn invoke(&self, budget: &Arc<Budget>) -> Arc<dyn Invoke> {
        let (seen, budget) = (self.clone(), budget.clone());
        Native::new(move |call| {
            seen.most_bytes.fetch_max(budget.used_bytes(), Ordering::Relaxed);
            let bad = call.key.as_ref().unwrap().as_str().starts_with("bad");
            let counter = if bad { &seen.failed } else { &seen.done };
            counter.fetch_add(1, Ordering::Relaxed);
            let result = match bad {
                true => Err(Failure::Retry { reason: "down".into(), after: None }),
                false => Ok(Effects::default()),
            };
            async move { result }
        })
    }

    fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }
}

/// Fails for longer than any test takes, with waits too short for memory to be given back for their length.
fn patient() -> Policy {
    let (attempts, wait) = (1_000_000, Duration::from_millis(200));
    Policy { retry: Retry { attempts, min: wait, max: wait }, breaker: None, ..Policy::default() }
}

/// The same body for all: what is counted is what would be held if each had its own.
fn large(key: &str, body: &Bytes) -> NewMessage {
    NewMessage { body: body.clone(), ..message("in", key, vec![]) }
}

async fn start(log: &Arc<dyn Log>, handlers: Vec<Handler>, budget: &Arc<Budget>) -> Host {
    let options = Options { waiting: budget.clone(), ..Options::default() };
    Host::start(log.clone(), handlers, Arc::new(Metrics::new()), options).await.unwrap()
}

#[tokio::test]
async fn a_failing_key_with_large_messages_does_not_stop_its_shard() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let (seen, budget) = (Seen::default(), Budget::new(Budget::BYTES_DEFAULT));
    let host = start(&log, vec![handler("h", 1, patient(), seen.invoke(&budget))], &budget).await;
    let body = Bytes::from(vec![b'x'; BODY_BYTES]);
    log.append(vec![large("bad", &body); 32]).await.unwrap();
    log.append(vec![large("good", &body); 32]).await.unwrap();
    until("the healthy key is done", || seen.done() == 32).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_shards_with_large_messages_behind_failing_keys_stay_within_one_budget() {
    const HANDLERS: usize = 4;
    const SHARDS: u16 = 4;
    const GOOD: usize = 200;
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let (seen, budget) = (Seen::default(), Budget::new(16 * MIB));
    let invoke = |_| seen.invoke(&budget);
    let handlers: Vec<Handler> =
        (0..HANDLERS).map(|number| handler(&format!("h{number}"), SHARDS, patient(), invoke(number))).collect();
    let host = start(&log, handlers, &budget).await;
    let body = Bytes::from(vec![b'x'; BODY_BYTES]);
    for round in 0..GOOD {
        // Behind each of 50 failing keys four large messages wait, in each of the handlers: 400 MiB.
        let bad = large(&format!("bad{}", round % 50), &body);
        log.append(vec![bad, large(&format!("good{round}"), &body)]).await.unwrap();
    }
    until("the healthy keys are done", || seen.done() == GOOD * HANDLERS).await;
    // What each shard, and each inbox, may have above what is left: a message, and one that is read.
    let above = HANDLERS * usize::from(SHARDS) * 3 * MESSAGE_BYTES_MAX;
    let most = seen.most_bytes.load(Ordering::Relaxed);
    println!("{most} bytes at most, of {} and {above} above", 16 * MIB);
    assert!(most <= 16 * MIB as usize + above, "{most} bytes");
    assert!(seen.failed.load(Ordering::Relaxed) >= 50 * HANDLERS);
    host.stop().await;
    assert_eq!(budget.used_bytes(), 0, "what was taken goes back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_that_are_paused_give_the_memory_of_what_waits_for_them_back() {
    const HANDLERS: usize = 8;
    const MESSAGES: usize = 40;
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let (seen, budget) = (Seen::default(), Budget::new(16 * MIB));
    let handlers: Vec<Handler> =
        (0..HANDLERS).map(|number| handler(&format!("h{number}"), 1, patient(), seen.invoke(&budget))).collect();
    let host = start(&log, handlers.clone(), &budget).await;
    let recorded = async |holds: &dyn Fn(&sluicebox::log::ShardStatus) -> bool| {
        let status = log.status().await.unwrap();
        status.len() == HANDLERS && status.iter().all(holds)
    };
    while !recorded(&|_| true).await {
        tokio::task::yield_now().await;
    }
    let command = |command: Command| handlers.iter().map(|handler| command.message(&handler.name)).collect::<Vec<_>>();
    log.append(command(Command::Pause)).await.unwrap();
    while !recorded(&|status| status.control.paused).await {
        tokio::task::yield_now().await;
    }
    let body = Bytes::from(vec![b'x'; BODY_BYTES]);
    for number in 0..MESSAGES {
        log.append(vec![large(&format!("good{number}"), &body)]).await.unwrap();
    }
    until("nothing of it is in memory", || budget.used_bytes() == 0).await;
    log.append(command(Command::Resume)).await.unwrap();
    until("all is done", || seen.done() == MESSAGES * HANDLERS).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_99_000_failed_large_messages_stays_within_the_budget_and_a_healthy_key_goes_on() {
    // With 100,000 the shard stops reading, whatever they hold.
    const HEADS: usize = 99_000;
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let (seen, budget) = (Seen::default(), Budget::new(16 * MIB));
    let body = Bytes::from(vec![b'x'; BODY_BYTES]);
    let keys: Vec<String> = (0..HEADS).map(|number| format!("bad{number}")).collect();
    let offsets = log.append(keys.iter().map(|key| large(key, &body)).collect()).await.unwrap();
    let shard = ShardId { handler: HandlerName::parse("h").unwrap(), index: 0 };
    let claim = log.claim(shard.clone(), Offset::START).await.unwrap();
    let head = |(key, offset): (&String, &Offset)| Head {
        offset: *offset,
        key: Key::parse(key).unwrap(),
        attempt: 1,
        due: Timestamp(1),
        error: "down".into(),
        digest: None,
        scope: HeadScope::Lane,
    };
    let open_put = keys.iter().zip(&offsets).map(head).collect();
    let read = *offsets.last().unwrap();
    let number = claim.record.commit_number + 1;
    let recorded = ShardCommit { read, open_put, controlled: read, ..commit(&shard, claim.term, number) };
    log.commit(recorded).await.unwrap();
    // Each waits long after its next try, so that all are tried.
    let retry = Retry { attempts: 9, min: Duration::from_secs(3600), max: Duration::from_secs(3600) };
    let policy = Policy { retry, breaker: None, ..Policy::default() };
    let host = start(&log, vec![handler("h", 1, policy, seen.invoke(&budget))], &budget).await;
    log.append(vec![large("good", &body)]).await.unwrap();
    until("the healthy key is done", || seen.done() == 1).await;
    let before = seen.failed.load(Ordering::Relaxed);
    println!("{before} of {HEADS} were tried before the healthy key was done");
    assert!(before < HEADS / 2, "a healthy key waited for {before} failed ones");
    until("each failed message is tried again", || seen.failed.load(Ordering::Relaxed) >= HEADS).await;
    let most = seen.most_bytes.load(Ordering::Relaxed);
    assert!(most <= 16 * MIB as usize + 3 * MESSAGE_BYTES_MAX, "{most} bytes");
    host.stop().await;
}
