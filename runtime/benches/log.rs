//! Question: what does the embedded log do per second by itself: no Wasm, no shards, no reader?
//! Expected: one message at a time is bounded by fsync (some thousand a second); 256 to 1024 rows in a transaction give
//! some hundred thousand. The commits write what a handler's commit writes: output, state, mark and position. Their
//! rate is the limit that end-to-end numbers are compared with. `writer` is the processor time of the thread that
//! writes, per message: what is left of a core for the rest of the way.
//!
//! `cargo bench --bench log [-- FILTER]`; the data goes below `SLUICEBOX_BENCH_DIR`, or the system's temporary folder.

use bytes::Bytes;
use futures_util::future::join_all;
use sluicebox::bench::machine;
use sluicebox::clock::{Timestamp, instant};
use sluicebox::commit::{Head, HeadScope, KeyWrites, Mark, Record, ShardCommit, Term};
use sluicebox::effects::StateWrite;
use sluicebox::handler::{Digest, HandlerName, ShardId};
use sluicebox::log::embedded::{EmbeddedLog, Options};
use sluicebox::log::{Log, ReadRequest, Trim};
use sluicebox::message::{IdHash, Key, NewMessage, Offset};
use sluicebox::topic::{Pattern, Topic};
use std::sync::Arc;
use std::time::Duration;

const KEYS: usize = 10_000;
const SHARDS: u16 = 8;
const MEASURED: Duration = Duration::from_secs(3);

fn key(number: usize) -> Key {
    Key::parse(&format!("user-{}", number.wrapping_mul(7919) % KEYS)).expect("a short key").expect("not empty")
}

fn message(topic: &Topic, number: usize) -> NewMessage {
    let mut message = NewMessage::new(topic.clone(), Bytes::from_static(&[b'x'; 100]));
    message.key = Some(key(number));
    message.id = Some(format!("{:032x}", IdHash::of(None, &number.to_string()).0).into());
    message
}

/// The commit of `count` handled messages, the first of which is number `first`.
fn commit(shard: &ShardId, term: Term, number: u64, topic: &Topic, first: usize, count: usize) -> ShardCommit {
    let numbers = first..first + count;
    let write = || StateWrite { entry: "totals".into(), value: Some(Bytes::from_static(b"sixteen bytes ok")) };
    ShardCommit {
        shard: shard.clone(),
        term,
        number,
        read: Offset(number),
        open_put: vec![],
        open_drop: vec![],
        marks: numbers
            .clone()
            .map(|n| Mark { id: IdHash::of(None, &n.to_string()), time: Timestamp(number) })
            .collect(),
        marks_since: Timestamp(0),
        marks_max: 125_000,
        state: numbers.clone().map(|n| KeyWrites { key: key(n), writes: vec![write()] }).collect(),
        outputs: numbers.map(|n| message(topic, n)).collect(),
        delayed_put: vec![],
        delayed_drop: vec![],
        dead: vec![],
        dead_window: Duration::from_secs(60),
        dead_max: u64::MAX,
        dead_drop: vec![],
        controlled: Offset::END,
        control: None,
    }
}

/// Processor time that the log's writer threads took so far; only differences mean something, and only while they live.
fn writer_cpu() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let writers = tasks
        .map(|task| task.path())
        .filter(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim_end() == "log writer"));
    let nanoseconds = writers.filter_map(|task| {
        std::fs::read_to_string(task.join("schedstat")).ok()?.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

struct Bench {
    filter: Option<String>,
    topic: Topic,
}

impl Bench {
    fn wants(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| name.contains(filter))
    }

    /// Calls `step` one after the other and prints the rate and the time of a call. What `step` does before it asks
    /// for the time it returns is not measured.
    async fn measure<F: Future<Output = Duration>>(&self, name: &str, messages: usize, mut step: impl FnMut() -> F) {
        let mut took: Vec<Duration> = vec![];
        let (started, writer_before) = (instant(), writer_cpu());
        while started.elapsed() < MEASURED {
            took.push(step().await);
        }
        self.print(name, messages, took, writer_cpu().saturating_sub(writer_before));
    }

    fn print(&self, name: &str, messages: usize, mut took: Vec<Duration>, writer: Duration) {
        let total: Duration = took.iter().sum();
        let count = (took.len() * messages) as f64;
        let (rate, writer_micros) = (count / total.as_secs_f64(), writer.as_secs_f64() * 1e6 / count);
        took.sort();
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        println!(
            "{name:<44} {rate:>9.0} messages/s   writer {writer_micros:>6.2} µs   p50 {:>7.3} ms   p99 {:>7.3} ms   {:>6} calls",
            at(0.5),
            at(0.99),
            took.len()
        );
    }
}

fn open() -> (tempfile::TempDir, Arc<EmbeddedLog>) {
    let parent = std::env::var_os("SLUICEBOX_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let directory = tempfile::tempdir_in(parent).expect("a folder for the data");
    let log = EmbeddedLog::open(directory.path(), Options::default()).expect("a fresh log");
    (directory, Arc::new(log))
}

async fn appends(bench: &Bench) {
    for count in [1, 64, 256, 1024] {
        let name = format!("append of {count}");
        if !bench.wants(&name) {
            continue;
        }
        let (_directory, log) = open();
        let mut number = 0;
        let step = || {
            number += count;
            let messages: Vec<NewMessage> = (number..number + count).map(|n| message(&bench.topic, n)).collect();
            async {
                let started = instant();
                log.append(messages).await.expect("an append");
                started.elapsed()
            }
        };
        bench.measure(&name, count, step).await;
    }
}

async fn commits(bench: &Bench) {
    for count in [1, 64, 256, 1024] {
        let name = format!("commit of {count}: output, state, mark, position");
        if !bench.wants(&name) {
            continue;
        }
        let (_directory, log) = open();
        // All shards commit at once, and the log merges what waits.
        let shards = if count == 1 { 1 } else { SHARDS };
        let mut claims = vec![];
        for index in 0..shards {
            let shard = ShardId { handler: HandlerName::parse("bench").expect("a name"), index };
            let term = log.claim(shard.clone(), Offset::START).await.expect("a claim").term;
            claims.push((shard, term));
        }
        let each = count / usize::from(shards);
        let (mut first, mut number) = (0, 0);
        let step = || {
            number += 1;
            let commits: Vec<ShardCommit> = claims
                .iter()
                .map(|(shard, term)| {
                    first += each;
                    commit(shard, *term, number, &bench.topic, first, each)
                })
                .collect();
            async {
                let started = instant();
                let answers = join_all(commits.into_iter().map(|commit| log.commit(commit))).await;
                let took = started.elapsed();
                assert!(answers.iter().all(Result::is_ok), "{answers:?}");
                took
            }
        };
        bench.measure(&name, count, step).await;
    }
}

/// Many callers at once, one message each: what one fsync for all of them is worth.
async fn callers_at_once(bench: &Bench) {
    for callers in [16, 256] {
        let name = format!("append of 1 by {callers} callers at once");
        if !bench.wants(&name) {
            continue;
        }
        let (_directory, log) = open();
        let (started, writer_before) = (instant(), writer_cpu());
        let tasks = (0..callers).map(|caller| {
            let (log, topic) = (log.clone(), bench.topic.clone());
            tokio::spawn(async move {
                let mut count = 0;
                while started.elapsed() < MEASURED {
                    log.append(vec![message(&topic, caller)]).await.expect("an append");
                    count += 1;
                }
                count
            })
        });
        let mut total = 0;
        for task in tasks.collect::<Vec<_>>() {
            total += task.await.expect("a caller");
        }
        let writer_micros = writer_cpu().saturating_sub(writer_before).as_secs_f64() * 1e6 / f64::from(total);
        let rate = f64::from(total) / started.elapsed().as_secs_f64();
        println!("{name:<44} {rate:>9.0} messages/s   writer {writer_micros:>6.2} µs");
    }
}

async fn reads(bench: &Bench) {
    if !bench.wants("read") && !bench.wants("load") {
        return;
    }
    let (_directory, log) = open();
    let foreign = Topic::parse("bench.foreign").expect("a topic");
    for chunk in 0..400 {
        let topic = |n| if n % 10 == 0 { &bench.topic } else { &foreign };
        log.append((chunk * 1000..(chunk + 1) * 1000).map(|n| message(topic(n), n)).collect())
            .await
            .expect("an append");
    }
    for (name, patterns) in [("read of all", vec![]), ("read of every tenth", vec![Pattern::from(&bench.topic)])] {
        let (mut found, mut seen, started) = (0, 0, instant());
        while started.elapsed() < MEASURED {
            let mut after = Offset::START;
            loop {
                let request = ReadRequest {
                    after,
                    upto: Offset::END,
                    patterns: patterns.clone(),
                    messages_max: 4096,
                    bytes_max: 4 * 1024 * 1024,
                };
                let batch = log.read(request).await.expect("a read");
                if batch.upto == after {
                    break;
                }
                found += batch.messages.len();
                after = batch.upto;
            }
            seen += 400_000;
        }
        let seconds = started.elapsed().as_secs_f64();
        println!("{name:<44} {:>9.0} messages/s   {:>9.0} rows/s", found as f64 / seconds, f64::from(seen) / seconds);
    }
    let handler = HandlerName::parse("bench").expect("a name");
    let shard = ShardId { handler: handler.clone(), index: 0 };
    let term = log.claim(shard.clone(), Offset::START).await.expect("a claim").term;
    log.commit(commit(&shard, term, 1, &bench.topic, 0, KEYS)).await.expect("a commit");
    for count in [1, 64, 1024] {
        let mut first = 0;
        let step = || {
            first += count;
            let keys: Vec<Key> = (first..first + count).map(key).collect();
            async {
                let started = instant();
                log.load(shard.clone(), keys).await.expect("a load");
                started.elapsed()
            }
        };
        bench.measure(&format!("load of {count} keys"), count, step).await;
    }
}

/// What `retain` costs whoever waits for the writer.
async fn trims(bench: &Bench) {
    const ROUNDS: usize = 100;
    for count in [1024, 4096, 16384] {
        let name = format!("trim of {count}");
        if !bench.wants(&name) {
            continue;
        }
        let (_directory, log) = open();
        for first in (0..ROUNDS * count).step_by(1024) {
            log.append((first..first + 1024).map(|n| message(&bench.topic, n)).collect()).await.expect("an append");
        }
        let trim =
            Trim { older_than: Some(Timestamp(u64::MAX)), bytes_max: None, holders: vec![], messages_max: count };
        let (mut took, writer_before): (Vec<Duration>, _) = (vec![], writer_cpu());
        for _ in 0..ROUNDS {
            let started = instant();
            let trimmed = log.trim(trim.clone()).await.expect("a trim");
            assert_eq!(trimmed.deleted, count as u64);
            took.push(started.elapsed());
        }
        bench.print(&name, count, took, writer_cpu().saturating_sub(writer_before));
    }
}

/// How long a start takes after a busy day: open the log and claim every shard.
async fn start(bench: &Bench) {
    const MARKS_PER_COMMIT: usize = 100;
    const COMMITS: u64 = 1250;
    const HEADS: u64 = 12_500;
    if !bench.wants("start") {
        return;
    }
    let (directory, log) = open();
    let shard = |index| ShardId { handler: HandlerName::parse("bench").expect("a name"), index };
    let mut claims = vec![];
    for index in 0..SHARDS {
        claims.push((shard(index), log.claim(shard(index), Offset::START).await.expect("a claim").term));
    }
    for number in 1..=COMMITS {
        let commits = claims.iter().map(|(shard, term)| {
            let mut commit = commit(shard, *term, number, &bench.topic, 0, 0);
            let mark = |n| Mark { id: IdHash::of(None, &format!("{number} {n}")), time: Timestamp(number) };
            commit.marks = (0..MARKS_PER_COMMIT).map(mark).collect();
            let heads = if number == 1 { HEADS } else { 0 };
            commit.open_put = (1..=heads).map(head).collect();
            commit
        });
        let answers = join_all(commits.map(|commit| log.commit(commit))).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }
    drop(log);
    let started = instant();
    let log = EmbeddedLog::open(directory.path(), Options::default()).expect("the log again");
    let records = join_all((0..SHARDS).map(|index| log.claim(shard(index), Offset::START))).await;
    let took = started.elapsed();
    let count = |count: fn(&Record) -> usize| -> usize {
        records.iter().map(|claim| count(&claim.as_ref().expect("a claim").record)).sum()
    };
    let (marks, heads) = (count(|record| record.marks.len()), count(|record| record.open.len()));
    println!("start with {marks} marks and {heads} open heads: {:.0} ms", took.as_secs_f64() * 1e3);
}

fn head(number: u64) -> Head {
    Head {
        offset: Offset(number),
        key: Some(key(number as usize)),
        attempt: 1,
        due: Timestamp(number),
        error: "failed to reach the shop".into(),
        digest: Some(Digest::of(b"module")),
        scope: HeadScope::Lane,
    }
}

fn main() -> anyhow::Result<()> {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let (_directory, log) = open();
    println!("embedded log, {KEYS} keys, 100-byte body, one call at a time unless said: {}", machine());
    println!("{}", log.guarantees().summary);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let bench = Bench { filter, topic: Topic::parse("bench.out")? };
        appends(&bench).await;
        commits(&bench).await;
        callers_at_once(&bench).await;
        reads(&bench).await;
        trims(&bench).await;
        start(&bench).await;
        Ok(())
    })
}
