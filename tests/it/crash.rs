//! A real host is killed again and again under load, and an independent history is read from what it left behind.

use crate::checker::{self, Handler, History};
use crate::harness::guests::guest;
use crate::harness::process::{Place, Process};
use crate::harness::{counts, dead_letters, everything};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sluicebox::handler::{HandlerName, Policy, Retry};
use sluicebox::log::Log;
use sluicebox::log::embedded::EmbeddedLog;
use sluicebox::message::Key;
use std::collections::BTreeSet;
use std::time::Duration;

const ROUNDS: usize = 60;
const KEYS: usize = 20;

pub const SETTINGS: &str = r#"
[handlers.first]
module = "ledger.wasm"
subscribe = ["in"]
start = "earliest"
publish = ["out.first"]
shards = 4
timeout = "200ms"
retry = { attempts = 4, min = "5ms", max = "50ms" }
config = { output = "out.first" }

[handlers.second]
module = "ledger.wasm"
subscribe = ["out.first"]
start = "earliest"
publish = ["out.second"]
shards = 2
sandbox = "warm"
config = { output = "out.second" }
"#;

/// Key and body of the message with this id: whoever sends it again sends the same.
fn message(round: usize, number: usize) -> (String, String) {
    let mut rng = StdRng::seed_from_u64((round * 1_000_000 + number) as u64);
    let body = match rng.random_range(0..100) {
        0..4 => "fail 2",
        4 => "fail 9",
        5 => "reject",
        6 => "trap",
        7 if number.is_multiple_of(50) => "spin",
        _ => "ok",
    };
    (format!("k{}", rng.random_range(0..KEYS)), body.to_owned())
}

/// Publishes until the host is gone, one message in ten again that it or an earlier host may have; returns the ids that it
/// said were durable.
pub async fn load(host: &Process, round: usize, messages: usize, seed: u64) -> Vec<String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut lines = vec![];
    for number in 0..messages {
        let (round, number) = match rng.random_bool(0.1) {
            true => (rng.random_range(0..=round), rng.random_range(0..messages)),
            false => (round, number),
        };
        let (key, body) = message(round, number);
        lines.push((key, format!("{round}-{number}"), body));
    }
    // Several clients at once, so that appends and commits are merged.
    let clients = lines.chunks(messages.div_ceil(8)).map(|share| async move {
        let mut acknowledged = vec![];
        for (key, id, body) in share {
            if !host.publish("in", Some(key), Some(id), body).await {
                break;
            }
            acknowledged.push(id.clone());
        }
        acknowledged
    });
    futures_util::future::join_all(clients).await.concat()
}

pub async fn history(place: &Place) -> History {
    let log = EmbeddedLog::open_read_only(&place.data()).unwrap();
    let keys: Vec<Key> = (0..KEYS).filter_map(|key| Key::parse(&format!("k{key}")).unwrap()).collect();
    let mut handlers = vec![];
    for routing in log.routings().await.unwrap().routings {
        let name = routing.handler.clone();
        let attempts = if name == HandlerName::parse("first").unwrap() { 4 } else { 8 };
        handlers.push(Handler {
            policy: Policy { retry: Retry { attempts, ..Retry::default() }, ..Policy::default() },
            output: format!("out.{name}"),
            state: counts(&log, &routing, &keys).await,
            ordered: true,
            life: Default::default(),
            routing,
        });
    }
    History { messages: everything(&log).await, dead: dead_letters(&log).await, handlers, ..History::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_under_load_loses_nothing_and_does_nothing_twice() {
    let seed = std::env::var("SLUICEBOX_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("SLUICEBOX_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let place = Place::new(SETTINGS, &[&guest("ledger")]);
    let mut acknowledged = BTreeSet::new();
    let mut crashes = 0;
    for round in 0..ROUNDS {
        // Every third round ends at a point where it matters most; the others anywhere.
        let point = format!("{}:{}", ["before-commit", "after-commit"][round / 3 % 2], rng.random_range(2..60));
        let at_point = round % 3 == 0;
        let variables: &[(&str, &str)] = if at_point { &[("SLUICEBOX_CRASH_POINT", &point)] } else { &[] };
        let host = place.start_with(variables);
        if host.url.is_empty() {
            crashes += 1;
            continue;
        }
        let life = Duration::from_millis(rng.random_range(20..250));
        let messages = rng.random_range(100..600);
        let pid = rustix::process::Pid::from_raw(host.pid() as i32).unwrap();
        let work = load(&host, round, messages, rng.random());
        let killer = async {
            // Not a wait for something to happen: the moment of the kill is what the round is about.
            let _ = tokio::time::timeout(life, std::future::pending::<()>()).await;
            if !at_point {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            }
        };
        acknowledged.extend(tokio::join!(work, killer).0);
        if at_point {
            // A host that did not come as far as the point is killed like the others.
            host.kill();
        } else {
            assert!(!host.ended().success());
        }
        crashes += 1;
    }
    assert!(crashes >= 50);

    let history = settled(&place, &acknowledged).await;
    let known = history.messages.iter().filter(|message| message.topic.as_str() == "in").count();
    let again = known - ids(&history).len();
    println!(
        "{crashes} kills, {again} sent again, {} messages acknowledged, {known} in the log, {} dead letters: 0 lost, 0 twice, 0 out of order",
        acknowledged.len(),
        history.dead.len()
    );
    assert!(again > 50, "too few were sent again to show anything: {again}");
    assert!(acknowledged.len() > 1000, "the load was too small to show anything: {}", acknowledged.len());
}

/// The ids of all that was published.
fn ids(history: &History) -> BTreeSet<&str> {
    let published = history.messages.iter().filter(|message| message.topic.as_str() == "in");
    published.filter_map(|message| message.id.as_deref()).collect()
}

/// Lets a host finish what is left, and checks what there is then.
pub async fn settled(place: &Place, acknowledged: &BTreeSet<String>) -> History {
    let host = place.start();
    host.until("everything is settled", async |_| {
        let status = EmbeddedLog::open_read_only(&place.data()).unwrap().status().await.unwrap();
        let history = history(place).await;
        let open: u64 = status.iter().map(|shard| shard.open).sum();
        open == 0 && checker::check(&history).is_ok()
    })
    .await;
    host.stop();

    let history = history(place).await;
    checker::check(&history).unwrap();
    let known = ids(&history);
    let lost: Vec<&String> = acknowledged.iter().filter(|id| !known.contains(id.as_str())).collect();
    assert!(lost.is_empty(), "acknowledged and not in the log: {lost:?}");
    history
}
