//! What keeps its very code, so that the host swaps nothing, and what does not.

use super::{ONE, place};
use crate::harness::guests;
use crate::harness::process::Place;
use sluicebox::config::{self, HandlerSettings, Overrides};
use sluicebox::invoke::Invoke;
use sluicebox::log::memory::MemoryLog;
use sluicebox::registry::{Pins, Registry};
use sluicebox::sandbox::{Pool, Sandboxes, tracing_sink};
use sluicebox::telemetry::Metrics;
use std::path::Path;
use std::sync::Arc;

fn settings(place: &Place) -> Vec<HandlerSettings> {
    config::load(&place.path().join("sluicebox.toml"), &Overrides::default()).unwrap().settings.handlers
}

fn registry(versions: &Path) -> Registry {
    let sandboxes = Sandboxes::new(&Pool { running: 32, idle: 4, cache: None }, tracing_sink()).unwrap();
    Registry::open(sandboxes, versions, Arc::new(MemoryLog::new()), Arc::new(Metrics::new())).unwrap()
}

/// Prepares the settings as they are now and puts them in force; the code of the only handler.
async fn taken(registry: &Registry, place: &Place) -> Arc<dyn Invoke> {
    let prepared = registry.prepare(&settings(place), &Pins::new()).await.unwrap();
    let invoke = prepared.handlers().remove(0).invoke;
    registry.put_in_force(prepared).await;
    invoke
}

#[tokio::test]
async fn a_handler_whose_module_and_guest_settings_are_as_they_were_keeps_its_code() {
    let place = place(ONE);
    let registry = registry(&place.data());
    let first = taken(&registry, &place).await;
    let mut before = first.clone();
    let mut check = async |is_same: bool, what: &str| {
        let now = taken(&registry, &place).await;
        assert_eq!(Arc::ptr_eq(&before, &now), is_same, "{what}");
        before = now;
    };
    check(true, "nothing changed").await;
    place.put("ledger.wasm", guests::ledger(1));
    check(true, "another file of the same bytes").await;
    place.settings(&ONE.replace("shards = 2", "shards = 2\nretry = { attempts = 3 }\nlimit = { concurrency = 2 }"));
    check(true, "settings of the shards").await;
    place.settings(&ONE.replace("shards = 2", "shards = 2\ntimeout = \"3s\""));
    check(false, "a setting of the guest").await;
    place.settings(&ONE.replace("shards = 2", "shards = 2\nsandbox = \"warm\""));
    check(false, "the mode").await;
    place.put("ledger.wasm", guests::ledger(2));
    check(false, "the module").await;
    place.put("ledger.wasm", "no module");
    check(true, "a file that cannot run").await;
    let problem = registry.views().remove(0).problem.unwrap();
    assert!(problem.contains("not a WebAssembly component"), "{problem}");
    place.put("ledger.wasm", guests::ledger(2));
    check(true, "the file is what runs again").await;
    assert_eq!(registry.views().remove(0).problem, None);
}

#[tokio::test]
async fn what_is_prepared_and_not_put_in_force_leaves_no_trace() {
    let place = place(ONE);
    let registry = registry(&place.data());
    taken(&registry, &place).await;
    let before = registry.views();
    place.put("ledger.wasm", guests::ledger(2));
    let prepared = registry.prepare(&settings(&place), &Pins::new()).await.unwrap();
    assert!(prepared.is_swap());
    drop(prepared);
    assert_eq!(registry.views(), before);
}
