//! Modules through the log: deployed once, in force on every host, over any file, until an operator says otherwise.

mod hosts;
mod kill;
mod refused;
mod typed;

use crate::harness::guests;
use crate::harness::process::{Place, Process};
use serde_json::Value;
use sluicebox::handler::Digest;
use sluicebox::log::Log;
use sluicebox::log::embedded::EmbeddedLog;
use std::time::Duration;

/// One handler on the guest `ledger`, which says its version in what it publishes.
const ONE: &str = r#"
[handlers.first]
module = "ledger.wasm"
subscribe = ["in"]
start = "earliest"
publish = ["out"]
shards = 2
config = { output = "out" }
"#;

/// A place with version 1 in the file, and others beside it to deploy.
fn place() -> Place {
    let place = Place::new(ONE, &[]);
    place.put("ledger.wasm", guests::ledger(1));
    for version in 2..5 {
        place.put(&format!("v{version}.wasm"), guests::ledger(version));
    }
    place
}

fn digest(version: u64) -> String {
    Digest::of(&guests::ledger(version)).to_string()
}

/// Publishes a message and waits for what the handler made of it; the version that did.
async fn handled(place: &Place, host: &Process) -> u64 {
    let log = EmbeddedLog::open_read_only(&place.data()).unwrap();
    let before = log.end().await.unwrap();
    assert!(host.publish("in", Some("ada"), None, "ok").await);
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    let found = async {
        loop {
            let found = crate::harness::after(&log, before).await.0;
            if let Some(out) = found.into_iter().find(|message| message.topic.as_str() == "out") {
                return serde_json::from_slice::<Value>(&out.body).unwrap()["version"].as_u64().unwrap();
            }
            pace.tick().await;
        }
    };
    tokio::time::timeout(crate::harness::PATIENCE, found).await.expect("nothing came out")
}

/// What the host says of the handler.
async fn shown(host: &Process) -> Value {
    serde_json::from_str(&host.get("/v1/handlers/first").await).unwrap()
}

/// Runs a command of the program beside a host; its exit code, output and diagnostics.
fn command(place: &Place, host: &Process, arguments: &[&str]) -> (i32, String, String) {
    place.command(&[arguments, &["--url", &host.url]].concat())
}

#[track_caller]
fn typed(place: &Place, host: &Process, arguments: &[&str]) -> String {
    let (code, output, said) = command(place, host, arguments);
    assert_eq!(code, 0, "{arguments:?}: {output}{said}");
    output
}
