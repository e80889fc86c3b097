//! Swaps under load: a new version every second while messages keep coming.

use super::{Fact, fact, place};
use crate::harness::guests;
use crate::harness::process::{Place, Process};
use sluicebox::clock::Timestamp;
use sluicebox::log::Log;
use sluicebox::log::embedded::EmbeddedLog;
use sluicebox::message::{Key, Message, Offset};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Before the first swap, to compare.
const CALM: usize = 20_000;
const SWAPPED: usize = 100_000;
const KEYS: usize = 2_000;
const CHUNK: usize = 100;
/// One chunk in so long: about what a debug build can do on two busy cores, so that delays are not those of a queue.
const PACE: Duration = Duration::from_millis(25);
const SWAP: Duration = Duration::from_secs(1);

const SETTINGS: &str = r#"
[handlers.first]
module = "ledger.wasm"
subscribe = ["in"]
start = "earliest"
publish = ["out"]
key = ["/key"]
timeout = "20s"
config = { output = "out" }
"#;

async fn publish(host: &Process, messages: std::ops::Range<usize>) {
    let mut pace = tokio::time::interval(PACE);
    for first in messages.step_by(CHUNK) {
        pace.tick().await;
        let line = |number| format!("{{\"key\":\"k{}\"}}\n", number % KEYS);
        let lines: String = (first..first + CHUNK).map(line).collect();
        let request = host.client.post(format!("{}/v1/topics/in", host.url));
        let answer = request.header("content-type", "application/x-ndjson").body(lines).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }
}

async fn swap_every_second(place: &Place) {
    let mut version = 1;
    let mut pace = tokio::time::interval(SWAP);
    loop {
        pace.tick().await;
        version += 1;
        place.put("ledger.wasm", guests::ledger(version));
    }
}

async fn done(host: &Process) -> u64 {
    host.metric(r#"messages_total{handler="first",outcome="done",topic="in"}"#).await
}

/// Milliseconds from the log's time of each message to that of what came out, sorted.
fn delays<'m>(pairs: impl Iterator<Item = (&'m Message, &'m Message)>) -> Vec<u64> {
    let mut delays: Vec<u64> =
        pairs.map(|(message, output)| output.time.since(message.time).as_millis() as u64).collect();
    delays.sort_unstable();
    delays
}

fn show(what: &str, delays: &[u64]) {
    let at = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize];
    println!(
        "{what}: {} messages, publish to output p50 {} ms, p99 {} ms, longest {} ms",
        delays.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_every_second_under_load_loses_nothing_and_runs_nothing_by_two_versions() {
    let place = place(SETTINGS);
    let host = place.start();
    publish(&host, 0..CALM).await;
    host.until("the calm part is done", async |host| done(host).await == CALM as u64).await;
    tokio::select! {
        () = publish(&host, CALM..CALM + SWAPPED) => {}
        () = swap_every_second(&place) => {}
    }
    host.until("all are done", async |host| done(host).await == (CALM + SWAPPED) as u64).await;
    let swaps = super::reloads(&host, "ok").await;
    assert_eq!(super::reloads(&host, "refused").await, 0);
    // No message ran twice, so none by two versions.
    assert_eq!(host.metric(r#"attempts_total{handler="first",result="ok"}"#).await, (CALM + SWAPPED) as u64);
    assert!(host.stop().success());

    let log = EmbeddedLog::open_read_only(&place.data()).unwrap();
    assert!(crate::harness::dead_letters(&log).await.is_empty());
    assert_eq!(log.status().await.unwrap().iter().map(|shard| shard.open).sum::<u64>(), 0);
    let all = crate::harness::everything(&log).await;
    let of = |topic: &str| all.iter().filter(|message| message.topic.as_str() == topic).collect::<Vec<_>>();
    let (inputs, outputs) = (of("in"), of("out"));
    assert_eq!((inputs.len(), outputs.len()), (CALM + SWAPPED, CALM + SWAPPED), "nothing lost, nothing twice");
    let facts: Vec<Fact> = outputs.iter().map(|output| fact(output)).collect();
    let sources: BTreeSet<u64> = facts.iter().map(|fact| fact.source).collect();
    assert_eq!(sources, inputs.iter().map(|input| input.offset.0).collect());
    let mut last: HashMap<&Option<Key>, &Fact> = HashMap::new();
    for (output, fact) in outputs.iter().zip(&facts) {
        if let Some(before) = last.insert(&output.key, fact) {
            assert!(before.source < fact.source, "{:?}: out of order", output.key);
            assert!(before.version <= fact.version, "{:?}: an older version after a newer one", output.key);
        }
    }
    let by_offset: BTreeMap<Offset, &Arc<Message>> = inputs.iter().map(|input| (input.offset, *input)).collect();
    let mut since: BTreeMap<u64, Timestamp> = BTreeMap::new();
    for (fact, output) in facts.iter().zip(&outputs) {
        let first = since.entry(fact.version).or_insert(output.time);
        *first = output.time.min(*first);
    }
    let delays_of = |wanted: &dyn Fn(&Fact, &Message) -> bool| {
        let of = facts.iter().zip(&outputs).filter(|(fact, output)| wanted(fact, output));
        delays(of.map(|(fact, output)| (&**by_offset[&Offset(fact.source)], &***output)))
    };
    show("without swaps", &delays_of(&|fact, _| fact.version == 1));
    show(&format!("with a swap every second ({swaps} swaps)"), &delays_of(&|fact, _| fact.version > 1));
    let right_after = |fact: &Fact, output: &Message| {
        fact.version > 1 && output.time.since(since[&fact.version]) < Duration::from_millis(100)
    };
    show("of these, in the 100 ms after a new version's first output", &delays_of(&right_after));
    let versions: BTreeSet<u64> = facts.iter().map(|fact| fact.version).collect();
    assert!(versions.len() >= 10 && swaps >= 10, "too few swaps to show anything: {versions:?}");
}
