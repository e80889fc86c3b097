//! A real host is killed again and again under load, and an independent history is read from what it left behind.
//!
//! Among the work are messages without keys, delayed ones, a handler that gives order up (`on_failure = "skip"`), orders to
//! retry and drop dead letters ([`orders`]), ids that are sent again, and `retain`, which deletes what [`archive`] has seen.
//! What the checker would say of a history that is not true, [`lies`] show.

mod archive;
mod lies;
mod orders;

use crate::checker::{self, Handler, History};
use crate::harness::guests::guest;
use crate::harness::process::{Place, Process};
use crate::harness::{counts, dead_letters, everything};
use archive::Archive;
use orders::Orders;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sluicebox::handler::{Policy, Retry};
use sluicebox::log::Log;
use sluicebox::log::embedded::EmbeddedLog;
use sluicebox::message::Key;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::watch;

const ROUNDS: usize = 60;
/// Between two looks of the archive: in most rounds the host itself finds what the one before left when it was killed.
const ROUNDS_PER_LOOK: usize = 5;
const KEYS: usize = 20;

pub const SETTINGS: &str = r#"
[handlers.first]
module = "ledger.wasm"
subscribe = ["in"]
start = "earliest"
publish = ["out.first", "later.first"]
shards = 4
timeout = "200ms"
retry = { attempts = 4, min = "5ms", max = "50ms" }
config = { output = "out.first", later = "later.first" }

[handlers.second]
module = "ledger.wasm"
subscribe = ["out.first"]
start = "earliest"
publish = ["out.second"]
shards = 2
sandbox = "warm"
config = { output = "out.second" }
"#;

/// What this test has besides.
const MORE: &str = r#"
[handlers.third]
module = "ledger.wasm"
subscribe = ["in"]
start = "earliest"
publish = ["out.third", "later.third"]
shards = 3
timeout = "200ms"
retry = { attempts = 4, min = "5ms", max = "50ms" }
on_failure = "skip"
config = { output = "out.third", later = "later.third" }
"#;

/// What is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kinds {
    /// Each has a key, and what it leads to comes at once.
    Plain,
    All,
}

/// Key and body of the message with this id: whoever sends it again sends the same.
fn message(kinds: Kinds, round: usize, number: usize) -> (Option<String>, String) {
    let mut rng = StdRng::seed_from_u64((round * 1_000_000 + number) as u64);
    let body = match rng.random_range(0..100) {
        0..4 => "fail 2",
        4 => "fail 9",
        5 => "reject",
        6 => "trap",
        7 if number.is_multiple_of(50) => "spin",
        8..14 if kinds == Kinds::All => "later 1",
        _ => "ok",
    };
    let key = format!("k{}", rng.random_range(0..KEYS));
    let has_key = kinds == Kinds::Plain || rng.random_bool(0.85);
    (has_key.then_some(key), body.to_owned())
}

/// Publishes until the host is gone, one message in ten again that it or an earlier host may have; returns the ids that it
/// said were durable.
pub async fn load(host: &Process, round: usize, messages: usize, seed: u64) -> Vec<String> {
    load_of(Kinds::Plain, host, round, messages, seed).await
}

/// As [`load`], also without keys and with what comes later.
pub async fn load_all(host: &Process, round: usize, messages: usize, seed: u64) -> Vec<String> {
    load_of(Kinds::All, host, round, messages, seed).await
}

async fn load_of(kinds: Kinds, host: &Process, round: usize, messages: usize, seed: u64) -> Vec<String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let sent = (0..messages).map(|number| match rng.random_bool(0.1) {
        true => (rng.random_range(0..=round), rng.random_range(0..messages)),
        false => (round, number),
    });
    send(kinds, host, sent.collect(), watch::Sender::new(0)).await
}

/// Publishes these messages, each named by its round and its number, until the host is gone; counts in `taken` and returns
/// what it said was durable.
async fn send(kinds: Kinds, host: &Process, sent: Vec<(usize, usize)>, taken: watch::Sender<usize>) -> Vec<String> {
    // Several clients at once, so that appends and commits are merged.
    let clients = sent.chunks(sent.len().div_ceil(8)).map(async |share| {
        let mut acknowledged = vec![];
        for (round, number) in share {
            let (key, body) = message(kinds, *round, *number);
            let id = format!("{round}-{number}");
            if !host.publish("in", key.as_deref(), Some(&id), &body).await {
                break;
            }
            acknowledged.push(id);
            taken.send_modify(|taken| *taken += 1);
        }
        acknowledged
    });
    futures_util::future::join_all(clients).await.concat()
}

/// New messages of this round, one in ten again that was acknowledged before.
fn some_again(round: usize, messages: usize, acknowledged: &BTreeSet<String>, rng: &mut StdRng) -> Vec<(usize, usize)> {
    let known: Vec<&String> = acknowledged.iter().collect();
    let sent = (0..messages).map(|number| match known.is_empty() || !rng.random_bool(0.1) {
        true => (round, number),
        false => {
            let (round, number) = known[rng.random_range(0..known.len())].split_once('-').unwrap();
            (round.parse().unwrap(), number.parse().unwrap())
        }
    });
    sent.collect()
}

/// What there is, without what `retain` has deleted.
pub async fn history(place: &Place) -> History {
    history_of(&EmbeddedLog::open_read_only(&place.data()).unwrap()).await
}

/// As [`history`], of a log of any kind.
pub async fn history_of(log: &dyn Log) -> History {
    let keys: Vec<Key> = (0..KEYS).filter_map(|key| Key::parse(&format!("k{key}")).unwrap()).collect();
    let mut handlers = vec![];
    for routing in log.routings().await.unwrap().routings {
        let name = routing.handler.clone();
        if name.as_str() == archive::KEEPER_NAME {
            continue;
        }
        let attempts = if name.as_str() == "second" { 8 } else { 4 };
        handlers.push(Handler {
            policy: Policy { retry: Retry { attempts, ..Retry::default() }, ..Policy::default() },
            output: format!("out.{name}"),
            state: counts(log, &routing, &keys).await,
            ordered: name.as_str() != "third",
            life: Default::default(),
            routing,
        });
    }
    History { messages: everything(log).await, dead: dead_letters(log).await, handlers, ..History::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_under_load_loses_nothing_and_does_nothing_twice() {
    let seed = std::env::var("SLUICEBOX_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("SLUICEBOX_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let place = Place::new(&[SETTINGS, MORE, archive::KEEPER].concat(), &[&guest("ledger")]);
    // So that the log knows all handlers before anything may be deleted.
    place.start().stop();
    let (mut archive, mut orders) = (Archive::default(), Orders::default());
    archive.look(&place).await;
    archive::delete_what_is_old(&place);
    let mut acknowledged = BTreeSet::new();
    let mut crashes = 0;
    for round in 0..ROUNDS {
        if round % ROUNDS_PER_LOOK == ROUNDS_PER_LOOK - 1 {
            archive.look(&place).await;
        }
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
        let (taken, mut count) = watch::channel(0);
        let enough = rng.random_range(0..60);
        let pid = rustix::process::Pid::from_raw(host.pid() as i32).unwrap();
        let sent = some_again(round, messages, &acknowledged, &mut rng);
        let work = send(Kinds::All, &host, sent, taken);
        let killer = async {
            // Not a wait for something to happen: the moment of the kill is what the round is about.
            let _ = tokio::time::timeout(life, std::future::pending::<()>()).await;
            // However slow the machine is, something is under way by then. A load that is done has no more to come.
            let _ = count.wait_for(|taken| *taken >= enough).await;
            if !at_point {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            }
        };
        acknowledged.extend(tokio::join!(work, killer, orders.give(&host, round)).0);
        if at_point {
            // A host that did not come as far as the point is killed like the others.
            host.kill();
        } else {
            assert!(!host.ended().success());
        }
        crashes += 1;
    }
    assert!(crashes >= 50);
    archive.look(&place).await;
    let deleted = archive.deleted();

    let history = settled_as(&place, &acknowledged, async |place| {
        let history = archive.complete(history(place).await);
        orders.tell(history)
    })
    .await;
    let known = history.messages.iter().filter(|message| message.topic.as_str() == "in").count();
    let again = known - ids(&history).len();
    println!(
        "{crashes} kills, {again} sent again, {} messages acknowledged, {known} in the log, {} dead letters, {} retried, {} \
         dropped, {} messages deleted: 0 lost, 0 twice, 0 out of order",
        acknowledged.len(),
        history.dead.len(),
        history.retried.len(),
        history.removed.len() - history.retried.len(),
        deleted.len(),
    );
    assert!(deleted.len() > 1000, "too few were deleted between the kills: {}", deleted.len());
    assert!(again > 50, "too few were sent again to show anything: {again}");
    assert!(acknowledged.len() > 1000, "the load was too small to show anything: {}", acknowledged.len());
    orders.check_taken(&history);
    lies::check_each_is_caught(&history, &deleted);
}

/// The ids of all that was published.
pub fn ids(history: &History) -> BTreeSet<&str> {
    let published = history.messages.iter().filter(|message| message.topic.as_str() == "in");
    published.filter_map(|message| message.id.as_deref()).collect()
}

/// Lets a host finish what is left, and checks what there is then.
pub async fn settled(place: &Place, acknowledged: &BTreeSet<String>) -> History {
    settled_as(place, acknowledged, history).await
}

/// As [`settled`]; `history` says what there is.
async fn settled_as(
    place: &Place,
    acknowledged: &BTreeSet<String>,
    history: impl AsyncFn(&Place) -> History,
) -> History {
    let host = place.start();
    let mut found = Err("nobody looked".to_owned());
    host.until("everything is settled", async |_| {
        let status = EmbeddedLog::open_read_only(&place.data()).unwrap().status().await.unwrap();
        let of_others = status.iter().filter(|shard| shard.shard.handler.as_str() != archive::KEEPER_NAME);
        let waits: u64 = of_others.map(|shard| shard.open + shard.delayed).sum();
        if waits == 0 {
            found = checker::check(&history(place).await);
        }
        waits == 0 && found.is_ok()
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
