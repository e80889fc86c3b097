//! A host that is killed again and again while modules are swapped and broken under load.

use crate::crash;
use crate::harness::guests;
use crate::harness::process::Place;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const ROUNDS: usize = 24;

/// Replaces the module every so often: mostly by a newer version, sometimes by one that cannot run.
async fn swap(place: &Place, version: &mut u64, rng: &mut StdRng) {
    loop {
        let wait = Duration::from_millis(rng.random_range(250..600));
        // Not a wait for something to happen: when modules change is what the round is about.
        let _ = tokio::time::timeout(wait, std::future::pending::<()>()).await;
        *version += 1;
        let module = guests::ledger(*version);
        match rng.random_range(0..5) {
            0 => place.put("ledger.wasm", &module[..module.len() / 2]),
            // In place: whoever reads it meanwhile reads a part.
            1 => std::fs::write(place.path().join("ledger.wasm"), module).unwrap(),
            _ => place.put("ledger.wasm", module),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_between_swaps_loses_nothing_and_goes_back_to_no_older_version() {
    let seed = std::env::var("SLUICEBOX_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("SLUICEBOX_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    // A breaker would hold the load back when messages trap one after the other.
    let place = Place::new(&crash::SETTINGS.replace("shards = ", "breaker = false\nshards = "), &[]);
    let mut version = 0;
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        // A host needs a module to start with; what was broken when the last one was killed has been mended.
        version += 1;
        place.put("ledger.wasm", guests::ledger(version));
        // Every third round ends right before or after a commit; the others anywhere.
        let point = format!("{}:{}", ["before-commit", "after-commit"][round / 3 % 2], rng.random_range(50..400));
        let at_point = round % 3 == 0;
        let variables: &[(&str, &str)] = if at_point { &[("SLUICEBOX_CRASH_POINT", &point)] } else { &[] };
        let host = place.start_with(variables);
        if host.url.is_empty() {
            continue;
        }
        let life = Duration::from_millis(rng.random_range(700..2500));
        let messages = rng.random_range(2000..5000);
        let pid = rustix::process::Pid::from_raw(host.pid() as i32).unwrap();
        let work = crash::load(&host, round, messages, rng.random());
        let killer = async {
            // Not a wait for something to happen: the moment of the kill is what the round is about.
            let _ = tokio::time::timeout(life, swap(&place, &mut version, &mut rng)).await;
            // One that ended at its point is gone already.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        };
        acknowledged.extend(tokio::join!(work, killer).0);
        assert!(!host.ended().success());
    }
    version += 1;
    place.put("ledger.wasm", guests::ledger(version));
    let history = crash::settled(&place, &acknowledged).await;

    let mut last = BTreeMap::new();
    let mut versions = BTreeSet::new();
    for message in history.messages.iter().filter(|message| message.topic.as_str().starts_with("out.")) {
        let made_by = super::fact(message).version;
        versions.insert(made_by);
        if let Some(before) = last.insert((message.topic.clone(), message.key.clone()), made_by) {
            assert!(before <= made_by, "{:?}: version {made_by} after {before}", message.key);
        }
    }
    println!(
        "{ROUNDS} kills, {} messages acknowledged, {} in the log, {} versions put, {} made outputs: 0 lost, 0 twice, 0 out of order",
        acknowledged.len(),
        history.messages.len(),
        version,
        versions.len()
    );
    assert!(acknowledged.len() > 1000 && versions.len() > ROUNDS, "too little happened to show anything");
}
