//! A host that is killed again and again while versions are deployed under load: between the bytes and the command, between the
//! command and the swap, anywhere.

use super::digest;
use crate::crash;
use crate::harness::logs::{key, message};
use crate::harness::process::{Place, Process};
use crate::harness::{everything, guests};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sluicebox::commit::Pin;
use sluicebox::control::Command;
use sluicebox::handler::HandlerName;
use sluicebox::log::Log;
use sluicebox::log::embedded::{EmbeddedLog, Options};
use sluicebox::message::NewMessage;
use std::collections::BTreeSet;
use std::time::Duration;

const ROUNDS: usize = 16;

/// Deploys a newer version every so often; notes which the host said are deployed.
async fn deploy(host: &Process, version: &mut u64, taken: &mut u64, rng: &mut StdRng) {
    let url = format!("{}/v1/handlers/first/module", host.url);
    loop {
        let wait = Duration::from_millis(rng.random_range(20..200));
        // Not a wait for something to happen: when versions are deployed is what the round is about.
        let _ = tokio::time::timeout(wait, std::future::pending::<()>()).await;
        *version += 1;
        let sent = host.client.put(&url).body(guests::ledger(*version)).send().await;
        if sent.is_ok_and(|answer| answer.status() == 202) {
            *taken = *version;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_between_deploys_loses_no_message_and_no_deploy() {
    let seed = std::env::var("SLUICEBOX_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("SLUICEBOX_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    // A breaker would hold the load back when messages trap one after the other.
    let place = Place::new(&crash::SETTINGS.replace("shards = ", "breaker = false\nshards = "), &[]);
    // The file never changes: whatever else runs came through the log.
    place.put("ledger.wasm", guests::ledger(1));
    let (mut version, mut taken) = (1, 1);
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        // Every other round ends right before or after a commit; the others anywhere.
        let point = format!("{}:{}", ["before-commit", "after-commit"][round / 2 % 2], rng.random_range(20..300));
        let at_point = round % 2 == 0;
        let variables: &[(&str, &str)] = if at_point { &[("SLUICEBOX_CRASH_POINT", &point)] } else { &[] };
        let host = place.start_with(variables);
        if host.url.is_empty() {
            continue;
        }
        let life = Duration::from_millis(rng.random_range(700..2000));
        let pid = rustix::process::Pid::from_raw(host.pid() as i32).unwrap();
        let work = crash::load(&host, round, 3000, rng.random());
        let killer = async {
            // Not a wait for something to happen: the moment of the kill is what the round is about.
            let _ = tokio::time::timeout(life, deploy(&host, &mut version, &mut taken, &mut rng)).await;
            // One that ended at its point is gone already.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        };
        acknowledged.extend(tokio::join!(work, killer).0);
        assert!(!host.ended().success());
    }
    let history = crash::settled(&place, &acknowledged).await;

    // What was said to be deployed is in force, or what came after it and nobody was told of.
    let host = place.start();
    let candidates: Vec<String> = (taken..=version).map(digest).collect();
    host.until("a deployed version is in force", async |host| {
        let view = super::shown(host).await;
        candidates.iter().any(|digest| view["running"]["digest"] == **digest)
    })
    .await;
    assert!(host.stop().success());

    let outputs = history.messages.iter().filter(|message| message.topic.as_str() == "out.first");
    let versions: BTreeSet<u64> = outputs
        .map(|message| serde_json::from_slice::<serde_json::Value>(&message.body).unwrap()["version"].as_u64().unwrap())
        .collect();
    println!(
        "{ROUNDS} kills, {} messages acknowledged, {} versions sent, the last acknowledged {taken}, {} made outputs: 0 lost, \
         0 twice, 0 out of order",
        acknowledged.len(),
        version - 1,
        versions.len()
    );
    assert!(acknowledged.len() > 500 && taken > 1 && versions.len() > 3, "too little happened to show anything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_was_killed_right_after_the_answer_begins_with_the_version_that_was_deployed() {
    const MESSAGES: usize = 200;
    let place = super::place();
    assert!(place.start().stop().success());
    {
        // As it is then: the version and the command are in the log, and no shard has written down that it knows.
        let log = EmbeddedLog::open(&place.data(), Options::default()).unwrap();
        let name = HandlerName::parse("first").unwrap();
        let digest = log.put_module(name.clone(), guests::ledger(2).into(), vec![]).await.unwrap();
        log.append(vec![Command::Rollback { pin: Pin::deployed(digest) }.message(&name)]).await.unwrap();
        let new = |at: usize| NewMessage { key: Some(key(&format!("k{}", at % 20))), ..message("in", "ok") };
        log.append((0..MESSAGES).map(new).collect()).await.unwrap();
    }
    let host = place.start();
    let mut versions = vec![];
    host.until("all are handled", async |_| {
        let log = EmbeddedLog::open_read_only(&place.data()).unwrap();
        let found = everything(&log).await;
        let outputs = found.iter().filter(|message| message.topic.as_str() == "out");
        let version =
            |body: &[u8]| serde_json::from_slice::<serde_json::Value>(body).unwrap()["version"].as_u64().unwrap();
        versions = outputs.map(|message| version(&message.body)).collect();
        versions.len() == MESSAGES
    })
    .await;
    let old = versions.iter().filter(|version| **version != 2).count();
    assert_eq!(old, 0, "were handled by the version of before");
    assert!(host.stop().success());
}
