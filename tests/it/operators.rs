//! What an operator does to the real program while it runs: pauses, breakers, dead letters, bounds; and that it outlives
//! the program. Commands are typed as a person types them.

mod answers;
mod bounds;
mod breaker;
mod cancelled;
mod dead;
mod forget;
mod pause;
mod state;
mod waiting;

use crate::harness::guests;
use crate::harness::process::{Place, Process};
use sluicebox::log::embedded::EmbeddedLog;
use sluicebox::message::Message;
use std::sync::Arc;

/// One handler on the guest `ledger` with these further settings.
fn place(settings: &str) -> Place {
    let handler = r#"
[handlers.first]
module = "ledger.wasm"
subscribe = ["in"]
start = "earliest"
publish = ["out"]
shards = 4
"#;
    let place = Place::new(&format!("{handler}{settings}"), &[]);
    place.put("ledger.wasm", guests::ledger(1));
    place
}

/// Types a command and demands that it works; what it printed.
#[track_caller]
fn typed(place: &Place, host: &Process, arguments: &[&str]) -> String {
    let (code, output, said) = place.command(&[arguments, &["--url", &host.url]].concat());
    assert_eq!(code, 0, "{arguments:?}: {output}{said}");
    output
}

async fn outcome(host: &Process, name: &str) -> u64 {
    host.metric(&format!(r#"messages_total{{handler="first",outcome="{name}",topic="in"}}"#)).await
}

async fn until(host: &Process, name: &str, count: u64) {
    host.until(&format!("{count} are {name}"), async |host| outcome(host, name).await == count).await;
}

/// Runs that were begun and ended, however they ended.
async fn attempts(host: &Process) -> u64 {
    let metrics = host.get("/metrics").await;
    let of_first = metrics.lines().filter(|line| line.starts_with(r#"sluicebox_attempts_total{handler="first""#));
    of_first.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

async fn publish(host: &Process, key: &str, body: &str) {
    assert!(host.publish("in", Some(key), None, body).await, "{body}");
}

/// Commands that every shard has applied.
async fn until_applied(host: &Process, commands: u64) {
    let metric = r#"commands_applied_total{handler="first",result="applied"}"#;
    host.until("every shard heard it", async |host| host.metric(metric).await == 4 * commands).await;
}

async fn messages(place: &Place, topic: &str) -> Vec<Arc<Message>> {
    let log = EmbeddedLog::open_read_only(&place.data()).unwrap();
    let all = crate::harness::everything(&log).await;
    all.into_iter().filter(|message| message.topic.as_str() == topic).collect()
}

/// The keys of what the handler published, in the order of the log.
async fn handled_keys(place: &Place) -> Vec<String> {
    let key = |message: &Arc<Message>| message.key.as_ref().map_or(String::new(), |key| key.as_str().to_owned());
    messages(place, "out").await.iter().map(key).collect()
}
