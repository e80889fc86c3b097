//! Several hosts on one log, each with its own files and its own disk: a deployed version reaches all of them, also one that
//! starts later and one that cannot have had it.

use super::ONE;
use crate::harness::process::Place;
use crate::harness::{PATIENCE, guests, logs, watch};
use sluicebox::commit::Pin;
use sluicebox::config::{self, HandlerSettings, Overrides};
use sluicebox::control::Command;
use sluicebox::handler::{Digest, HandlerName, ShardId};
use sluicebox::host::{self, Host, Owned};
use sluicebox::log::Log;
use sluicebox::message::{Key, NewMessage};
use sluicebox::reader::Options;
use sluicebox::registry::{Registry, View};
use sluicebox::sandbox::{Pool, Sandboxes, tracing_sink};
use sluicebox::telemetry::Metrics;
use sluicebox::topic::Topic;
use std::collections::BTreeSet;
use std::sync::Arc;

fn name() -> HandlerName {
    HandlerName::parse("first").unwrap()
}

/// A host that works on one of the two shards, or on none.
struct Working {
    host: Arc<Host>,
    registry: Arc<Registry>,
    settings: Vec<HandlerSettings>,
    _place: Place,
    _versions: tempfile::TempDir,
}

impl Working {
    /// `file`: the version in this host's file; `None`: what is there is no module.
    async fn start(log: &Arc<dyn Log>, shard: Option<u16>, file: Option<u64>) -> Self {
        let (place, versions) = (Place::new(ONE, &[]), tempfile::tempdir().unwrap());
        place.put("ledger.wasm", file.map_or(b"no module".to_vec(), guests::ledger));
        let file = place.path().join("sluicebox.toml");
        let settings = config::load(&file, &Overrides::default()).unwrap().settings.handlers;
        let sandboxes = Sandboxes::new(&Pool { running: 16, idle: 4, cache: None }, tracing_sink()).unwrap();
        let metrics = Arc::new(Metrics::new());
        let registry = Arc::new(Registry::open(sandboxes, versions.path(), log.clone(), metrics.clone()).unwrap());
        let pins = host::recorded_pins(&**log, |_| true).await.unwrap();
        let prepared = registry.prepare(&settings, &pins).await.unwrap();
        let owned = Owned::Only(shard.into_iter().map(|index| ShardId { handler: name(), index }).collect());
        let started = Host::start_as_owner(log.clone(), prepared.handlers(), metrics, Options::default(), owned);
        let host = Arc::new(started.await.unwrap());
        registry.put_in_force(prepared).await;
        Self { host, registry, settings, _place: place, _versions: versions }
    }

    fn view(&self) -> View {
        self.registry.views().remove(0)
    }

    /// Brings what operators said in force, as a running host does, until that is this version.
    async fn until_runs(&self, version: u64) {
        let digest = Digest::of(&guests::ledger(version));
        let mut pins = self.host.pins();
        let runs = async {
            loop {
                let in_force = pins.borrow_and_update().clone();
                let prepared = self.registry.prepare(&self.settings, &in_force).await.unwrap();
                self.host.apply(prepared.handlers()).await.unwrap();
                self.registry.put_in_force(prepared).await;
                if self.view().digest == digest {
                    return;
                }
                pins.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, runs).await.expect("it never ran");
        assert_eq!(self.view().problem, None);
    }
}

async fn deploy(log: &dyn Log, version: u64) {
    let digest = log.put_module(name(), guests::ledger(version).into(), vec![]).await.unwrap();
    log.append(vec![Command::Rollback { pin: Pin::deployed(digest) }.message(&name())]).await.unwrap();
}

/// Publishes for many keys, and waits until all were handled; which versions did.
async fn handled(log: &dyn Log) -> BTreeSet<u64> {
    const KEYS: usize = 20;
    let topic = Topic::parse("in").unwrap();
    let message = |number: usize| {
        let key = Key::parse(&format!("k{number}")).unwrap();
        NewMessage { key, ..NewMessage::new(topic.clone(), "ok") }
    };
    let offsets = log.append((0..KEYS).map(message).collect()).await.unwrap();
    let (mut versions, mut left): (_, BTreeSet<u64>) =
        (BTreeSet::new(), offsets.iter().map(|offset| offset.0).collect());
    watch(log, |message| {
        if message.topic.as_str() == "out" {
            let fact: serde_json::Value = serde_json::from_slice(&message.body).unwrap();
            if left.remove(&fact["source"].as_u64().unwrap()) {
                versions.insert(fact["version"].as_u64().unwrap());
            }
        }
        left.is_empty()
    })
    .await;
    versions
}

async fn every_host_takes_what_is_deployed(log: Arc<dyn Log>) {
    let one = Working::start(&log, Some(0), Some(1)).await;
    let two = Working::start(&log, Some(1), Some(1)).await;
    assert_eq!(handled(&*log).await, BTreeSet::from([1]));
    for version in [2, 3] {
        deploy(&*log, version).await;
        for host in [&one, &two] {
            host.until_runs(version).await;
            assert!(host.view().deployed);
        }
        assert_eq!(handled(&*log).await, BTreeSet::from([version]));
    }

    // One that starts later takes it at once, whatever its file holds.
    let later = Working::start(&log, None, Some(4)).await;
    assert_eq!(later.view().digest, Digest::of(&guests::ledger(3)));
    let bare = Working::start(&log, None, None).await;
    assert_eq!((bare.view().digest, bare.view().problem), (Digest::of(&guests::ledger(3)), None));

    // Back to a version that the later ones never had on their disks.
    let pin = Pin::deployed(Digest::of(&guests::ledger(2)));
    log.append(vec![Command::Rollback { pin }.message(&name())]).await.unwrap();
    for host in [&one, &two, &later, &bare] {
        host.until_runs(2).await;
    }
    assert_eq!(handled(&*log).await, BTreeSet::from([2]));

    // Each to its own file.
    log.append(vec![Command::Unpin.message(&name())]).await.unwrap();
    for (host, version) in [(&one, 1), (&two, 1), (&later, 4)] {
        host.until_runs(version).await;
    }
    assert_eq!(handled(&*log).await, BTreeSet::from([1]));
    for host in [one, two, later, bare] {
        host.host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_host_on_a_log_in_memory_takes_what_is_deployed() {
    every_host_takes_what_is_deployed(logs::memory().log).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_host_on_nats_takes_what_is_deployed() {
    every_host_takes_what_is_deployed(logs::nats().log).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_cannot_have_a_version_says_so_and_goes_on_with_the_one_it_had() {
    let log = logs::memory().log;
    let host = Working::start(&log, Some(0), Some(1)).await;
    deploy(&*log, 2).await;
    host.until_runs(2).await;
    let pins = [(name(), Pin::deployed(Digest::of(b"nobody has it")))].into();
    let prepared = host.registry.prepare(&host.settings, &pins).await.unwrap();
    assert!(prepared.is_behind() && !prepared.is_swap());
    host.registry.put_in_force(prepared).await;
    let View { digest, problem, .. } = host.view();
    assert_eq!(digest, Digest::of(&guests::ledger(2)), "not the one in its file");
    assert!(problem.unwrap().contains("neither this host nor the log has it"));

    // One that cannot run is not tried again before something changes.
    let bad = log.put_module(name(), "no component".into(), vec![]).await.unwrap();
    let prepared = host.registry.prepare(&host.settings, &[(name(), Pin::deployed(bad))].into()).await.unwrap();
    assert!(!prepared.is_behind());
    host.registry.put_in_force(prepared).await;
    assert!(host.view().problem.unwrap().contains("not a WebAssembly component"));
    host.host.stop().await;
}
