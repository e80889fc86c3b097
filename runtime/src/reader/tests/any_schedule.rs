//! The one promise that all else serves, under random loads, bounds, losses, failures and rejoins.

use super::*;
use crate::memory::Budget;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::HashMap;
use tokio::sync::watch;
use tokio::task::JoinSet;

const SEEDS: u64 = 60;
/// What each shard must get, once all is published.
type Expected = HashMap<ShardId, Vec<Offset>>;

const TOPICS: [&str; 5] = ["a.x", "a.y", "b.x", "c", "_retry.h0"];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_message_comes_once_and_in_order_whatever_the_schedule() {
    for seed in 0..SEEDS {
        run(seed).await;
    }
}

async fn run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let log = match rng.random_range(0..3) {
        0 => WatchedLog::default(),
        _ => WatchedLog::with_chaos(seed, rng.random_range(2..30)),
    };
    let rig = Rig::over(log, tiny(&mut rng)).await;
    for _ in 0..rng.random_range(0..3) {
        rig.append(TOPICS[rng.random_range(0..5)], rng.random_range(1..50)).await;
    }

    let routings: Vec<Arc<Routing>> =
        (0..rng.random_range(1..4)).map(|number| Arc::new(any_routing(number, &mut rng))).collect();
    let (expect, expected) = watch::channel(None);
    let mut shards = JoinSet::new();
    for routing in &routings {
        rig.reader.route(routing.clone());
        for index in 0..routing.shards {
            let id = ShardId { handler: routing.handler.clone(), index };
            shards.spawn(shard_of(rig.reader.clone(), id, expected.clone(), StdRng::seed_from_u64(rng.random())));
        }
    }
    let publishers: JoinSet<()> =
        (0..2).map(|_| publisher(rig.log.clone(), StdRng::seed_from_u64(rng.random()))).collect();
    publishers.join_all().await;

    let mut all = Expected::new();
    for routing in &routings {
        for index in 0..routing.shards {
            let id = ShardId { handler: routing.handler.clone(), index };
            all.insert(id.clone(), rig.expected(routing, &id, Offset::START).await);
        }
    }
    expect.send_replace(Some(all.clone()));
    let got = tokio::time::timeout(DEADLINE, shards.join_all()).await;
    let mut got = got.unwrap_or_else(|_| panic!("seed {seed}: a message did not come"));
    rig.reader.stop().await;

    for (id, expected) in all {
        let at = got.iter().position(|got| got.id == id).expect("every shard answers");
        let Got { taken, told, mut inbox, .. } = got.swap_remove(at);
        assert_eq!(taken, expected, "seed {seed}: {id}");
        for (upto, count) in told {
            let due = expected.partition_point(|offset| *offset <= upto);
            assert_eq!(due, count, "seed {seed}: {id} was told {upto}");
        }
        while let Some(late) = next(&mut inbox).await {
            assert_eq!(offsets(&late), [], "seed {seed}: {id} got more than it should");
        }
    }
}

fn tiny(rng: &mut StdRng) -> Options {
    Options {
        waiting: Budget::new(rng.random_range(1..100_000)),
        inbox_messages_max: rng.random_range(1..12),
        inbox_bytes_max: rng.random_range(1..2000),
        chunk_messages_max: rng.random_range(1..20),
        chunk_bytes_max: rng.random_range(1..4000),
        reads_max: rng.random_range(1..3),
        recent_messages_max: rng.random_range(0..30),
        recent_bytes_max: rng.random_range(1..5000),
        foreign_messages_max: rng.random_range(1..100),
        topics_max: rng.random_range(1..4),
        retry_min: Duration::from_micros(1),
        retry_max: Duration::from_micros(50),
    }
}

fn any_routing(number: usize, rng: &mut StdRng) -> Routing {
    let patterns: [&[&str]; 5] = [&["a.*"], &["a.x", "c"], &[">"], &["*.x"], &["none"]];
    let mut any = routing(&format!("h{number}"), patterns[rng.random_range(0..5)], rng.random_range(1..5));
    if rng.random_bool(0.3) {
        any.spans.push(span(Offset(rng.random_range(1..400)), patterns[rng.random_range(0..5)]));
    }
    if rng.random_bool(0.3) {
        // Begun at the earliest message, in a log that had a handler of its name before.
        any.recorded = Offset(rng.random_range(1..400));
    }
    any
}

async fn publisher(log: Arc<WatchedLog>, mut rng: StdRng) {
    for _ in 0..rng.random_range(1..60) {
        let topic = TOPICS[rng.random_range(0..5)];
        let one = |rng: &mut StdRng| new_message(topic, rng.random_range(0..20), rng.random_range(0..600));
        let batch = (0..rng.random_range(1..10)).map(|_| one(&mut rng)).collect();
        log.append(batch).await.unwrap();
        for _ in 0..rng.random_range(0..10) {
            tokio::task::yield_now().await;
        }
    }
}

struct Got {
    id: ShardId,
    taken: Vec<Offset>,
    /// Each `upto`, and how many messages there had been then.
    told: Vec<(Offset, usize)>,
    inbox: Inbox,
}

/// A shard that takes its time and sometimes starts over from an earlier place.
async fn shard_of(
    reader: Reader,
    id: ShardId,
    mut expected: watch::Receiver<Option<Expected>>,
    mut rng: StdRng,
) -> Got {
    let (mut taken, mut told) = (vec![], vec![(Offset::START, 0)]);
    let mut inbox = reader.join(&id, Offset::START);
    let mut rejoins = 3;
    loop {
        let count = expected.borrow_and_update().as_ref().map(|all| all[&id].len());
        if count.is_some_and(|count| taken.len() >= count) {
            return Got { id, taken, told, inbox };
        }
        let delivery = tokio::select! {
            delivery = inbox.next() => delivery.expect("the reader goes on"),
            _ = expected.changed() => continue,
        };
        let last = told.last().map_or(Offset::START, |(upto, _)| *upto);
        assert!(delivery.upto > last, "{id}: `upto` rises");
        taken.extend(offsets(&delivery));
        told.push((delivery.upto, taken.len()));
        if rejoins > 0 && rng.random_bool(0.1) {
            rejoins -= 1;
            told.truncate(rng.random_range(1..=told.len()));
            let (upto, count) = told[told.len() - 1];
            taken.truncate(count);
            inbox = reader.join(&id, upto);
        }
        for _ in 0..rng.random_range(0..5) {
            tokio::task::yield_now().await;
        }
    }
}
