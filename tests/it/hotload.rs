//! What changes while the real program runs: modules, settings, handlers, versions; and what cannot change, and what a
//! person is told then.

mod dev;
mod kill;
mod load;
mod refused;
mod rollback;
mod same;
mod taken;

use crate::harness::guests;
use crate::harness::process::{Place, Process};
use serde::Deserialize;
use sluicebox::log::Log;
use sluicebox::log::embedded::EmbeddedLog;
use sluicebox::message::{Message, Offset};
use std::sync::Arc;

/// One handler on the guest `ledger`, which says its version in what it publishes.
const ONE: &str = r#"
[handlers.first]
module = "ledger.wasm"
subscribe = ["in"]
start = "earliest"
publish = ["out"]
shards = 2
config = { output = "out", mode = "a" }
"#;

/// A place with version 1 of the module.
fn place(settings: &str) -> Place {
    let place = Place::new(settings, &[]);
    place.put("ledger.wasm", guests::ledger(1));
    place
}

/// What the guest publishes for a message.
#[derive(Clone, Debug, Deserialize)]
struct Fact {
    source: u64,
    version: u64,
    mode: Option<String>,
}

fn fact(message: &Message) -> Fact {
    serde_json::from_slice(&message.body).unwrap()
}

/// The messages of a topic, in the order of the log.
async fn messages(place: &Place, topic: &str) -> Vec<Arc<Message>> {
    let log = EmbeddedLog::open_read_only(&place.data()).unwrap();
    let all = crate::harness::everything(&log).await;
    all.into_iter().filter(|message| message.topic.as_str() == topic).collect()
}

/// Publishes a message and waits for what the handler made of it.
async fn handled(place: &Place, host: &Process, body: &str) -> Fact {
    let log = EmbeddedLog::open_read_only(&place.data()).unwrap();
    let before = log.end().await.unwrap();
    assert!(host.publish("in", Some("ada"), None, body).await);
    let out = next(&log, before, "out").await;
    fact(&out)
}

/// The first message on a topic after an offset, which may be still to come.
async fn next(log: &EmbeddedLog, after: Offset, topic: &str) -> Arc<Message> {
    let mut pace = tokio::time::interval(std::time::Duration::from_millis(10));
    let found = async {
        loop {
            let found = crate::harness::after(log, after).await.0;
            if let Some(message) = found.into_iter().find(|message| message.topic.as_str() == topic) {
                return message;
            }
            pace.tick().await;
        }
    };
    tokio::time::timeout(crate::harness::PATIENCE, found).await.expect("nothing came out")
}

/// How many reloads ended so.
async fn reloads(host: &Process, result: &str) -> u64 {
    host.metric(&format!(r#"reloads_total{{result="{result}"}}"#)).await
}

/// Waits until so many changes were taken up since the start.
async fn until_taken(host: &Process, count: u64) {
    host.until(&format!("{count} changes are in force"), async |host| reloads(host, "ok").await >= count).await;
}

/// Waits until so many changes were refused since the start.
async fn until_refused(host: &Process, count: u64) {
    host.until(&format!("{count} changes are refused"), async |host| reloads(host, "refused").await >= count).await;
}
