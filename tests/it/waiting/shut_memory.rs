//! A handler that runs nothing keeps nothing in memory, whatever it had taken up before; and goes on where it was.

use super::still_time::{in_still_time, in_time, pass};
use super::{handler, message};
use crate::harness::native::{Native, count};
use bytes::Bytes;
use sluicebox::control::Command;
use sluicebox::handler::{BreakerSettings, Policy, RateLimit, Retry, Trip};
use sluicebox::host::{Handler, Host};
use sluicebox::invoke::{Failure, Invoke};
use sluicebox::log::Log;
use sluicebox::log::memory::MemoryLog;
use sluicebox::memory::Budget;
use sluicebox::message::{MESSAGE_BYTES_MAX, NewMessage, Offset};
use sluicebox::reader::Options;
use sluicebox::telemetry::Metrics;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Two messages of each key are less than half of what a shard may hold: beyond that it gives back what begins to wait.
const BODY_BYTES: usize = 128 * 1024;
const HANDLERS: usize = 4;
const KEYS: usize = 12;

/// Fails until it is healed, and keeps in which order each key was done.
#[derive(Clone, Default)]
struct Guest {
    healed: Arc<AtomicBool>,
    failed: Arc<AtomicUsize>,
    done: Arc<Mutex<BTreeMap<String, Vec<Offset>>>>,
}

impl Guest {
    fn invoke(&self) -> Arc<dyn Invoke> {
        let guest = self.clone();
        Native::new(move |call| {
            let result = match guest.healed.load(Ordering::Relaxed) {
                true => {
                    let key = call.key.clone().unwrap().as_str().to_owned();
                    guest.done.lock().unwrap().entry(key).or_default().push(call.message.offset);
                    Ok(count(&call, "out"))
                }
                false => {
                    guest.failed.fetch_add(1, Ordering::Relaxed);
                    Err(Failure::Retry { reason: "down".into(), after: None })
                }
            };
            async move { result }
        })
    }

    fn done(&self) -> usize {
        self.done.lock().unwrap().values().map(Vec::len).sum()
    }
}

fn large(key: &str) -> NewMessage {
    NewMessage { body: Bytes::from(vec![b'x'; BODY_BYTES]), ..message("in", key, vec![]) }
}

struct Stage {
    log: Arc<dyn Log>,
    budget: Arc<Budget>,
    guests: Vec<Guest>,
    handlers: Vec<Handler>,
    host: Host,
}

/// Handlers whose messages all failed, two of each key, with waits too short for memory to be given back for their length.
async fn all_failed(breaker: Option<BreakerSettings>) -> Stage {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let budget = Budget::new(Budget::BYTES_DEFAULT);
    let guests: Vec<Guest> = (0..HANDLERS).map(|_| Guest::default()).collect();
    let wait = Duration::from_millis(200);
    let retry = Retry { attempts: 1_000_000, min: wait, max: wait };
    let policy = Policy { retry, breaker, ..Policy::default() };
    let named = |(number, guest): (usize, &Guest)| handler(&format!("h{number}"), 1, policy.clone(), guest.invoke());
    let handlers: Vec<Handler> = guests.iter().enumerate().map(named).collect();
    let options = Options { waiting: budget.clone(), ..Options::default() };
    let host = Host::start(log.clone(), handlers.clone(), Arc::new(Metrics::new()), options).await.unwrap();
    for _ in 0..2 {
        log.append((0..KEYS).map(|key| large(&format!("k{key}"))).collect()).await.unwrap();
    }
    in_time("each first message of a key failed", || {
        guests.iter().all(|guest| guest.failed.load(Ordering::Relaxed) >= KEYS)
    })
    .await;
    Stage { log, budget, guests, handlers, host }
}

impl Stage {
    async fn say(&self, command: Command) {
        let commands = self.handlers.iter().map(|handler| command.message(&handler.name)).collect();
        self.log.append(commands).await.unwrap();
    }

    /// The handlers work again: everything is done once and in order.
    async fn end(self) {
        self.guests.iter().for_each(|guest| guest.healed.store(true, Ordering::Relaxed));
        in_time("all is done", || self.guests.iter().all(|guest| guest.done() >= 2 * KEYS)).await;
        for guest in &self.guests {
            for (key, offsets) in &*guest.done.lock().unwrap() {
                assert!(offsets.len() == 2 && offsets.is_sorted(), "{key}: {offsets:?}");
            }
        }
        self.host.stop().await;
    }
}

fn check_by_hand(command: Command, undo: Command) {
    in_still_time(async {
        let stage = all_failed(None).await;
        assert!(stage.budget.used_bytes() >= HANDLERS * KEYS * BODY_BYTES, "{}", stage.budget.used_bytes());
        stage.say(command).await;
        in_time("nothing of it is in memory", || stage.budget.used_bytes() == 0).await;
        // Whatever becomes due meanwhile stays where it is.
        for _ in 0..100 {
            pass(Duration::from_millis(100)).await;
            assert_eq!(stage.budget.used_bytes(), 0);
        }
        stage.guests.iter().for_each(|guest| guest.healed.store(true, Ordering::Relaxed));
        stage.say(undo).await;
        stage.end().await;
    });
}

#[test]
fn a_handler_that_is_paused_gives_back_what_its_lanes_hold() {
    check_by_hand(Command::Pause, Command::Resume);
}

#[test]
fn a_handler_that_is_tripped_by_hand_gives_back_what_its_lanes_hold() {
    check_by_hand(Command::Trip, Command::Reset);
}

#[test]
fn a_handler_whose_breaker_is_open_keeps_one_message_to_try() {
    in_still_time(async {
        let wait = Duration::from_secs(30);
        let trip = Trip::Count { failures: KEYS as u32, window: Duration::from_secs(10) };
        let stage = all_failed(Some(BreakerSettings { trip, wait, max_wait: wait })).await;
        assert!(stage.budget.used_bytes() >= HANDLERS * KEYS * BODY_BYTES, "{}", stage.budget.used_bytes());
        let most = HANDLERS * MESSAGE_BYTES_MAX;
        in_time("what is not tried next is not in memory", || stage.budget.used_bytes() <= most).await;
        // Neither do probes that fail bring it back.
        let failed =
            |stage: &Stage| stage.guests.iter().map(|guest| guest.failed.load(Ordering::Relaxed)).sum::<usize>();
        let before = failed(&stage);
        while failed(&stage) < before + 5 * HANDLERS {
            pass(Duration::from_millis(100)).await;
            assert!(stage.budget.used_bytes() <= most, "{}", stage.budget.used_bytes());
        }
        stage.end().await;
    });
}

#[test]
fn a_handler_at_its_rate_keeps_what_waits_between_two_runs() {
    const MESSAGES: usize = 40;
    in_still_time(async {
        let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
        let budget = Budget::new(Budget::BYTES_DEFAULT);
        let left = Arc::new(Mutex::new(vec![]));
        let invoke = {
            let (budget, left) = (budget.clone(), left.clone());
            Native::new(move |call| {
                left.lock().unwrap().push(budget.used_bytes());
                async move { Ok(count(&call, "out")) }
            })
        };
        let rate = Some(RateLimit { runs: 4, per: Duration::from_secs(1) });
        let handlers = vec![handler("h", 8, Policy { rate, ..Policy::default() }, invoke)];
        let options = Options { waiting: budget.clone(), ..Options::default() };
        let host = Host::start(log.clone(), handlers, Arc::new(Metrics::new()), options).await.unwrap();
        log.append((0..MESSAGES).map(|key| large(&format!("k{key}"))).collect()).await.unwrap();
        in_time("all ran", || left.lock().unwrap().len() == MESSAGES).await;
        // By then all of them were delivered.
        for (ran, bytes) in left.lock().unwrap().iter().enumerate().take(MESSAGES - 5).skip(8) {
            assert!(*bytes >= (MESSAGES - ran - 2) * BODY_BYTES, "after {ran} runs {bytes} bytes were left");
        }
        host.stop().await;
    });
}
