//! What waits costs nobody else anything, and nothing that waits is forgotten: through the whole host, with native
//! handlers.

mod commands;
mod delayed;
mod host_faults;
mod leaving;
#[cfg(debug_assertions)]
mod marks;
mod memory;
mod publishers;
mod shut;
#[cfg(debug_assertions)]
mod shut_memory;
#[cfg(debug_assertions)]
mod still_time;

use crate::harness::PATIENCE;
use sluicebox::config::Start;
use sluicebox::handler::{HandlerName, Policy};
use sluicebox::host::Handler;
use sluicebox::invoke::Invoke;
use sluicebox::message::{Key, NewMessage};
use sluicebox::routing::{IdFrom, KeyFrom};
use sluicebox::telemetry::Metrics;
use sluicebox::topic::{Pattern, Topic};
use std::sync::Arc;

fn handler(name: &str, shards: u16, policy: Policy, invoke: Arc<dyn Invoke>) -> Handler {
    Handler {
        name: HandlerName::parse(name).unwrap(),
        subscribe: vec![Pattern::parse("in").unwrap()],
        key: KeyFrom::Message,
        id: IdFrom::Message,
        shards,
        start: Start::Earliest,
        policy,
        invoke,
    }
}

fn message(topic: &str, key: &str, body: Vec<u8>) -> NewMessage {
    NewMessage { key: Key::parse(key).unwrap(), ..NewMessage::new(Topic::parse(topic).unwrap(), body) }
}

/// The value of a metric, 0 while there is none.
fn metric(metrics: &Metrics, name_and_labels: &str) -> u64 {
    let rendered = metrics.render();
    let line = rendered.lines().find_map(|line| {
        line.strip_prefix(name_and_labels).or_else(|| line.strip_prefix(&format!("sluicebox_{name_and_labels}")))
    });
    line.map_or(0, |value| value.trim().parse().unwrap())
}

/// Gives others their turn until it is so.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let holding = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, holding).await.is_ok(), "{what}: in vain");
}
