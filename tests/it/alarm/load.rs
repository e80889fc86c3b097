//! One user's messages in order among 10,000 users on 8 shards, and the same with kills in the middle.

use super::{model, place};
use crate::harness::everything;
use crate::harness::process::{Place, Process};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use sluicebox::log::embedded::EmbeddedLog;
use sluicebox::log::{Log, ShardStatus};
use sluicebox::message::{Message, Offset};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A request with many lines.
struct Import {
    topic: &'static str,
    lines: Vec<Value>,
}

/// In each round some changes and then some requests for digests; in the end every user asks for one. Lines are numbered.
fn imports(users: usize, rounds: usize, changes: usize, rng: &mut StdRng) -> Vec<Import> {
    let mut imports = vec![];
    let mut number = 0;
    let mut numbered = |mut event: Value| {
        number += 1;
        event["number"] = json!(number);
        event
    };
    for round in 0..rounds {
        let lines = (0..changes).map(|_| numbered(change(users, round, rng))).collect();
        imports.push(Import { topic: "AlarmStatusChanged", lines });
        let mut asking: Vec<usize> = (0..users).collect();
        asking.shuffle(rng);
        asking.truncate(if round + 1 == rounds { users } else { users / 2 });
        let lines = asking.into_iter().map(|user| numbered(json!({ "UserID": format!("u{user}") }))).collect();
        imports.push(Import { topic: "SendAlarmDigest", lines });
    }
    imports
}

/// Few alarms and few times, so that changes are late, repeated and of the same time as others.
fn change(users: usize, round: usize, rng: &mut StdRng) -> Value {
    let user = format!("u{}", rng.random_range(0..users));
    let alarm = format!("a{}", rng.random_range(0..3));
    let status = ["CLEARED", "WARNING", "CRITICAL"][rng.random_range(0..3)];
    let nanosecond = 4 * round + rng.random_range(0..8);
    let changed_at = match rng.random_range(0..2) {
        0 => format!("2026-01-02T03:04:05.{nanosecond:09}Z"),
        _ => format!("2026-01-01T22:04:05.{nanosecond:09}-05:00"),
    };
    match rng.random_range(0..4) {
        0 => json!({"AlarmId": alarm, "UserId": user, "Status": status, "ChangedAt": changed_at}),
        _ => json!({"AlarmID": alarm, "UserID": user, "Status": status, "ChangedAt": changed_at}),
    }
}

/// Sends it; true if the host said that all of it is durable.
async fn send(host: &Process, import: &Import) -> bool {
    let body: String = import.lines.iter().map(|line| format!("{line}\n")).collect();
    let request = host.client.post(format!("{}/v1/topics/{}", host.url, import.topic));
    let sent = request.header("content-type", "application/x-ndjson").body(body).send().await;
    let Ok(answer) = sent.and_then(reqwest::Response::error_for_status) else { return false };
    answer.json::<Value>().await.is_ok_and(|answer| answer["accepted"] == import.lines.len())
}

/// What has to be settled: the last message of each shard.
struct Work {
    log: EmbeddedLog,
    last: BTreeMap<u16, Offset>,
}

impl Work {
    async fn of(place: &Place) -> Self {
        let log = EmbeddedLog::open_read_only(&place.data()).unwrap();
        let routing = log.routings().await.unwrap().routings.remove(0);
        let mut last = BTreeMap::new();
        for message in everything(&log).await.iter().filter(|message| routing.subscribes(message)) {
            last.insert(routing.route(message).shard(routing.shards), message.offset);
        }
        Self { log, last }
    }

    /// By the records of the shards.
    async fn is_done(&self) -> bool {
        let shards = self.log.status().await.unwrap();
        let is_done = |shard: &ShardStatus| {
            shard.open == 0 && self.last.get(&shard.shard.index).is_none_or(|last| shard.read >= *last)
        };
        shards.len() == 8 && shards.iter().all(is_done)
    }
}

/// Ends a host when every message is settled.
async fn finish(place: &Place, host: Process) {
    let work = Work::of(place).await;
    host.until("every message is settled", async |_| work.is_done().await).await;
    assert!(host.stop().success());
}

async fn history(place: &Place) -> Vec<Arc<Message>> {
    everything(&EmbeddedLog::open_read_only(&place.data()).unwrap()).await
}

/// The digests in the log are those of the model, all of them and in order; how many there are.
#[track_caller]
fn check(history: &[Arc<Message>]) -> usize {
    let (found, expected) = (model::found(history), model::expected(history));
    for user in found.keys().chain(expected.keys()) {
        assert_eq!(found.get(user), expected.get(user), "digests of {user}");
    }
    found.values().map(Vec::len).sum()
}

fn rng() -> StdRng {
    let seed = std::env::var("SLUICEBOX_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("SLUICEBOX_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_10_000_users_gets_the_digests_of_its_own_messages_in_order() {
    const USERS: usize = 10_000;
    let imports = imports(USERS, 3, 12_000, &mut rng());
    let place = place();
    let host = place.start();
    for import in &imports {
        assert!(send(&host, import).await);
    }
    finish(&place, host).await;

    let history = history(&place).await;
    let digests = check(&history);
    assert!(digests > USERS, "only {digests} digests");
    println!("{} events, {digests} digests", history.len() - digests);
}

/// How a life of the host ends: at a point of the log's writer, or from outside when so many messages were handled.
enum End {
    At(String),
    After(u64),
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_in_the_middle_loses_no_unsent_alarm_and_sends_none_twice() {
    let mut rng = rng();
    let place = place();
    let mut acknowledged = BTreeSet::new();
    let mut imports = imports(1_000, 8, 4_000, &mut rng).into_iter();
    let cuts = rng.random_range(0..20);
    let at = |point: &str| End::At(format!("{point}:{}", 20 + cuts));
    let ends = [End::After(1_000 + 50 * cuts), at("before-commit"), End::After(500), at("after-commit")];
    let mut interrupted = 0;
    for end in &ends {
        let variables: &[(&str, &str)] = match end {
            End::At(point) => &[("SLUICEBOX_CRASH_POINT", point)],
            End::After(_) => &[],
        };
        let host = place.start_with(variables);
        assert!(!host.url.is_empty());
        let pid = rustix::process::Pid::from_raw(host.pid() as i32).unwrap();
        let load = async {
            for import in imports.by_ref() {
                if !send(&host, &import).await {
                    return;
                }
                acknowledged.extend(import.lines.iter().map(|line| line["number"].as_u64().unwrap()));
            }
        };
        let killer = async {
            if let End::After(handled) = end {
                let done = ["change_ok", "change_late", "digest_ok", "digest_empty"];
                host.until("it is in the middle of its work", async |host| {
                    let metrics = host.get("/metrics").await;
                    let line = |name: &str| format!(r#"sluicebox_guest_count_total{{handler="alarm",name="{name}"}} "#);
                    let count = |name: &&str| metrics.lines().find_map(|l| l.strip_prefix(&line(name)));
                    done.iter().filter_map(|name| count(name)?.parse::<u64>().ok()).sum::<u64>() >= *handled
                })
                .await;
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            }
        };
        tokio::join!(load, killer);
        assert!(!host.ended().success());
        interrupted += usize::from(!Work::of(&place).await.is_done().await);
    }
    assert_eq!(interrupted, ends.len(), "a host was killed when it had nothing to do");

    let host = place.start();
    for import in imports {
        assert!(send(&host, &import).await);
        acknowledged.extend(import.lines.iter().map(|line| line["number"].as_u64().unwrap()));
    }
    finish(&place, host).await;

    let history = history(&place).await;
    let digests = check(&history);
    let numbers = history.iter().filter_map(|m| serde_json::from_slice::<Value>(&m.body).unwrap()["number"].as_u64());
    let known: BTreeSet<u64> = numbers.collect();
    assert!(acknowledged.is_subset(&known), "acknowledged and not in the log");
    assert!(digests > 1_000, "only {digests} digests");
    println!(
        "{} kills, {} events acknowledged, {} in the log, {digests} digests",
        ends.len(),
        acknowledged.len(),
        known.len()
    );
}
