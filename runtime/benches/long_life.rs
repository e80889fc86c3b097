//! Question: does a host that publishes, handles and deletes at full rate stay as it is? Rate, memory, the size of the
//! database and of its write-ahead log, from the first to the last of millions of messages; and what a copy of the data
//! costs meanwhile.
//! Expected: the rate of the end is that of the start; memory grows until the marks reach their maximum, then no more; the
//! database stays below `bytes_max`, its write-ahead log near 256 MiB but while a copy is made, which stops it from
//! starting over. A copy of all pages and `VACUUM INTO` both take as long as the disk takes to write so much.
//!
//! The handler is a native function that does what `handlers/order` does: it reads and writes state and publishes once.
//!
//! `cargo bench --bench long_life [-- MESSAGES]`; the data goes below `SLUICEBOX_BENCH_DIR`, or the system's temporary
//! folder.

use anyhow::Context as _;
use futures_util::future::BoxFuture;
use sluicebox::bench::machine;
use sluicebox::clock::instant;
use sluicebox::config::{Retain, Start};
use sluicebox::effects::{Effects, Outgoing, StateWrite};
use sluicebox::handler::{Dedup, Digest, HandlerName, Policy, ShardId};
use sluicebox::host::{Handler, Host};
use sluicebox::invoke::{Call, Failure, Invoke};
use sluicebox::log::embedded::{EmbeddedLog, Options};
use sluicebox::log::{Log, LogError, ReadRequest};
use sluicebox::message::{Headers, Key, NewMessage, Offset};
use sluicebox::reader;
use sluicebox::retention::Retention;
use sluicebox::routing::{IdFrom, KeyFrom};
use sluicebox::telemetry::Metrics;
use sluicebox::topic::{Pattern, Topic};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// As the program has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MESSAGES: u64 = 5_000_000;
const KEYS: u64 = 10_000;
const SHARDS: u16 = 8;
const BYTES_MAX: u64 = 512 << 20;
const AGE: Duration = Duration::from_secs(3600);
/// Messages published and not yet handled: the backlog is not what is measured.
const AHEAD_MAX: u64 = 50_000;
const CHUNK: u64 = 1000;
const LINES: u64 = 20;
const MIB: u64 = 1 << 20;

fn main() -> anyhow::Result<()> {
    let messages = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(MESSAGES);
    let parent = std::env::var_os("SLUICEBOX_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let folder = tempfile::tempdir_in(parent)?;
    println!("machine: {}", machine());
    println!(
        "log: embedded, fsync per commit, bytes_max {} MiB; {messages} messages of 100 bytes, {KEYS} keys, {SHARDS} shards, native handler",
        BYTES_MAX / MIB
    );
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(live(messages, folder.path()))
}

fn topic(text: &str) -> Topic {
    Topic::parse(text).expect("a valid topic")
}

fn message(number: u64, topic: &Topic) -> NewMessage {
    let mut message = NewMessage::new(topic.clone(), vec![b'x'; 100]);
    message.key = Key::parse(&format!("user-{}", number.wrapping_mul(7919) % KEYS)).expect("a short key");
    message.id = Some(format!("id-{number}").into());
    message
}

/// Counts in the state of the key and publishes the count.
struct Count(Topic);

impl Invoke for Count {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Effects, Failure>> {
        let seen = call.state.get("n").and_then(|n| std::str::from_utf8(n).ok()?.parse().ok()).unwrap_or(0u64);
        let n = (seen + 1).to_string();
        let output = Outgoing {
            topic: self.0.clone(),
            key: call.key,
            id: None,
            headers: Headers::default(),
            body: format!("{n:0>100}").into(),
            delay: None,
        };
        let write = StateWrite { entry: "n".into(), value: Some(n.into()) };
        Box::pin(std::future::ready(Ok(Effects { outputs: vec![output], writes: vec![write], counts: vec![] })))
    }

    fn uses_state(&self) -> bool {
        true
    }

    fn digest(&self) -> Option<Digest> {
        None
    }
}

fn handler() -> Handler {
    // As many marks as the first part of the run makes, so that the memory they take is there from then on.
    let dedup = Dedup { marks_max: 200_000, ..Dedup::default() };
    Handler {
        name: HandlerName::parse("bench").expect("a valid name"),
        subscribe: vec![Pattern::from(&topic("in"))],
        key: KeyFrom::Message,
        id: IdFrom::Message,
        shards: SHARDS,
        start: Start::Earliest,
        policy: Policy { dedup: Some(dedup), ..Policy::default() },
        invoke: Arc::new(Count(topic("out"))),
    }
}

/// Sizes of the files, now and at most.
#[derive(Default)]
struct Sizes {
    wal_max: AtomicU64,
    database_max: AtomicU64,
}

impl Sizes {
    fn look(&self, directory: &Path) -> (u64, u64) {
        let bytes = |name: &str| std::fs::metadata(directory.join(name)).map_or(0, |file| file.len());
        let (database, wal) = (bytes("sluicebox.db"), bytes("sluicebox.db-wal"));
        self.database_max.fetch_max(database, Ordering::Relaxed);
        self.wal_max.fetch_max(wal, Ordering::Relaxed);
        (database, wal)
    }
}

/// Memory of the process that no file backs.
fn anonymous_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Counts what arrives on `out`, whatever the tail misses.
async fn count_outputs(log: Arc<dyn Log>, handled: Arc<AtomicU64>) -> anyhow::Result<()> {
    let out = topic("out");
    let mut tail = log.tail().await?;
    let mut from = tail.start();
    loop {
        match tail.next().await {
            Some(Ok(batch)) => {
                let new = batch.messages.iter().filter(|message| message.offset > from && message.topic == out);
                handled.fetch_add(new.count() as u64, Ordering::Relaxed);
                from = from.max(batch.upto);
            }
            Some(Err(_)) => loop {
                let patterns = vec![Pattern::from(&out)];
                let request = ReadRequest {
                    after: from,
                    upto: Offset::END,
                    patterns,
                    messages_max: 10_000,
                    bytes_max: usize::MAX,
                };
                let batch = log.read(request).await?;
                handled.fetch_add(batch.messages.len() as u64, Ordering::Relaxed);
                if batch.upto == from {
                    break;
                }
                from = batch.upto;
            },
            None => return Ok(()),
        }
    }
}

/// Publishes all, never too far ahead; returns how often it was told that the log is full.
async fn publish(log: Arc<dyn Log>, messages: u64, handled: Arc<AtomicU64>) -> anyhow::Result<u64> {
    let (input, mut refused) = (topic("in"), 0);
    let mut pace = tokio::time::interval(Duration::from_millis(1));
    for first in (0..messages).step_by(CHUNK as usize) {
        while first > handled.load(Ordering::Relaxed) + AHEAD_MAX {
            pace.tick().await;
        }
        let chunk: Vec<NewMessage> =
            (first..messages.min(first + CHUNK)).map(|number| message(number, &input)).collect();
        loop {
            match log.append(chunk.clone()).await {
                Err(LogError::Full { .. }) => refused += 1,
                appended => break drop(appended?),
            }
            pace.tick().await;
        }
    }
    Ok(refused)
}

/// Copies the data and says what it cost.
async fn copy(directory: &Path, handled: &AtomicU64, sizes: &Sizes, line: &'static str) -> anyhow::Result<()> {
    let to: PathBuf = directory.with_file_name("copy");
    let (from, target) = (directory.to_owned(), to.clone());
    let (started, before) = (instant(), handled.load(Ordering::Relaxed));
    let bytes = tokio::task::spawn_blocking(move || -> anyhow::Result<u64> {
        if line == "backup" {
            return Ok(EmbeddedLog::backup(&from, &from.join("modules"), &target, |_, _| ())?.bytes);
        }
        std::fs::create_dir(&target)?;
        let file = target.join("sluicebox.db");
        let database = rusqlite::Connection::open(from.join("sluicebox.db"))?;
        database.execute("VACUUM INTO ?1", [file.to_str().context("a path of text")?])?;
        let file = std::fs::File::open(file)?;
        file.sync_all()?;
        Ok(file.metadata()?.len())
    });
    let bytes = bytes.await??;
    let took = started.elapsed().as_secs_f64();
    let meanwhile = (handled.load(Ordering::Relaxed) - before) as f64 / took;
    let wal = sizes.look(directory).1 / MIB;
    println!(
        "{line}: {} MiB in {took:.1} s; meanwhile {meanwhile:.0} messages/s, then {wal} MiB of write-ahead log",
        bytes / MIB
    );
    std::fs::remove_dir_all(to)?;
    Ok(())
}

async fn live(messages: u64, folder: &Path) -> anyhow::Result<()> {
    let directory = folder.join("data");
    let options = Options { bytes_max: Some(BYTES_MAX), ..Options::default() };
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(&directory, options)?);
    let metrics = Arc::new(Metrics::new());
    let host = Host::start(log.clone(), vec![handler()], metrics.clone(), reader::Options::default()).await?;
    let stop = CancellationToken::new();
    let retain = Retain { age: Some(AGE), bytes_max: Some(BYTES_MAX) };
    let host = Arc::new(host);
    let hurried = host.clone();
    let hurry = move |shard: &ShardId| hurried.write_positions(&shard.handler);
    let retention = Retention::start(log.clone(), retain, host.holders(), &metrics, hurry, None, stop.clone());
    let (handled, sizes) = (Arc::new(AtomicU64::new(0)), Sizes::default());
    let counting = tokio::spawn(count_outputs(log.clone(), handled.clone()));
    let publishing = tokio::spawn(publish(log.clone(), messages, handled.clone()));

    println!("  handled    messages/s   RssAnon   database        wal    deleted");
    let (started, mut at, mut since) = (instant(), 0, instant());
    let mut rates = vec![];
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    while at < messages {
        pace.tick().await;
        let (database, wal) = sizes.look(&directory);
        let now = handled.load(Ordering::Relaxed);
        anyhow::ensure!(!counting.is_finished(), "the log was closed");
        if now < messages && now - at < messages / LINES {
            continue;
        }
        let rate = (now - at) as f64 / since.elapsed().as_secs_f64();
        let (memory, deleted) = (anonymous_bytes(), retention.retained().borrow().deleted);
        rates.push((rate, memory));
        println!(
            "{now:>9}   {rate:>11.0}   {:>3} MiB   {:>4} MiB   {:>4} MiB   {deleted:>8}",
            memory / MIB,
            database / MIB,
            wal / MIB
        );
        match rates.len() as u64 {
            line if line == LINES / 2 => copy(&directory, &handled, &sizes, "backup").await?,
            line if line == LINES / 2 + 3 => copy(&directory, &handled, &sizes, "VACUUM INTO").await?,
            _ => {}
        }
        (at, since) = (now.max(at), instant());
        if now < messages {
            at = handled.load(Ordering::Relaxed);
        }
    }
    let refused = publishing.await??;
    let third = (rates.len() / 4).max(1);
    let mean = |part: &[(f64, u64)]| part.iter().map(|(rate, _)| rate).sum::<f64>() / part.len() as f64;
    println!(
        "in {:.0} s: {:.0} messages/s in the first quarter, {:.0} in the last; RssAnon {} MiB after the first part, {} MiB at the end",
        started.elapsed().as_secs_f64(),
        mean(&rates[..third]),
        mean(&rates[rates.len() - third..]),
        rates[0].1 / MIB,
        rates[rates.len() - 1].1 / MIB
    );
    println!(
        "database at most {} MiB, write-ahead log at most {} MiB, {refused} appends told that the log is full",
        sizes.database_max.load(Ordering::Relaxed) / MIB,
        sizes.wal_max.load(Ordering::Relaxed) / MIB
    );
    stop.cancel();
    retention.ended().await;
    host.stop().await;
    counting.abort();
    Ok(())
}
