//! Question: what do 1,000 handlers of different code cost that have nothing to do, each with its shards, its routing and
//! its module; and what does a busy one among them lose?
//! Expected: less than 300 MiB, no processor time, and next to no loss: an idle handler is a few waiting tasks.
//!
//! `cargo bench --bench crowd [-- MESSAGES]`. The data goes below `SLUICEBOX_BENCH_DIR`, or the system's temporary folder.

#[path = "../../tests/it/harness/guests.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod guests;

use anyhow::Context as _;
use sluicebox::bench::{self, Identity, Load};
use sluicebox::clock::instant;
use sluicebox::handler::HandlerName;
use sluicebox::host::{Handler, Host};
use sluicebox::log::Log;
use sluicebox::log::embedded::{EmbeddedLog, Options};
use sluicebox::reader;
use sluicebox::sandbox::{Mode, Pool, Sandboxes, Settings, tracing_sink};
use sluicebox::telemetry::Metrics;
use sluicebox::topic::Pattern;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HANDLERS: usize = 1000;
const SHARDS: u16 = 8;
/// A measurement that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_secs(5);

fn main() -> anyhow::Result<()> {
    let messages = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(200_000);
    let parent = std::env::var_os("SLUICEBOX_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let folder = tempfile::tempdir_in(parent)?;
    println!("machine: {}", bench::machine());
    println!(
        "{HANDLERS} idle handlers of different code with {SHARDS} shards each; {messages} messages for a busy one, fresh sandboxes, publishing in the measured time"
    );
    let bytes = std::fs::read(guests::handler("order"))?;
    // Kept from run to run: a host that starts again finds its modules compiled.
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled");
    let sandboxes = Sandboxes::new(&Pool { cache: Some(cache), ..Pool::default() }, tracing_sink())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let invoke = Arc::new(sandboxes.handler(&sandboxes.load(&bytes)?, settings("bench")?)?);
    let load = Load { identity: Identity::Given, shards: SHARDS, publishing: true, ..Load::new(messages, invoke) };
    let alone = |name| runtime.block_on(measure(&folder.path().join(name), &load, &sandboxes, vec![]));
    let before = alone("before")?;
    let crowd = (0..HANDLERS).map(|number| idle(&load, &sandboxes, &bytes, number)).collect::<anyhow::Result<_>>()?;
    let among = runtime.block_on(measure(&folder.path().join("among"), &load, &sandboxes, crowd))?;
    let after = alone("after")?;
    println!(
        "busy handler: alone {before:.0}/s and {after:.0}/s, among {HANDLERS} idle ones {among:.0}/s: {:.2} ×",
        among / before.max(after)
    );
    Ok(())
}

fn settings(name: &str) -> anyhow::Result<Settings> {
    Ok(Settings {
        publish: vec![Pattern::parse("orders.*")?],
        mode: Mode::Fresh,
        ..Settings::new(HandlerName::parse(name)?)
    })
}

/// The number-th handler that nobody publishes to.
fn idle(load: &Load, sandboxes: &Sandboxes, bytes: &[u8], number: usize) -> anyhow::Result<Handler> {
    // A custom section (id 0) at the end, named by a number, makes it another module of the same code.
    let section = [&[0, 9, 8], format!("{number:08}").as_bytes()].concat();
    let name = format!("idle-{number}");
    let handler = sandboxes.handler(&sandboxes.load(&[bytes, &section].concat())?, settings(&name)?)?;
    Ok(Handler {
        name: HandlerName::parse(&name)?,
        subscribe: vec![Pattern::parse(&format!("idle.{number}"))?],
        invoke: Arc::new(handler),
        ..bench::handler(load)
    })
}

/// Messages a second of the busy handler, after a look at what the host takes while nothing happens.
async fn measure(
    directory: &Path,
    load: &Load,
    sandboxes: &Sandboxes,
    mut handlers: Vec<Handler>,
) -> anyhow::Result<f64> {
    let idle = handlers.len();
    handlers.push(bench::handler(load));
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(directory, Options::default())?);
    let started = instant();
    let host = Host::start(log.clone(), handlers, Arc::new(Metrics::new()), reader::Options::default()).await?;
    while log.status().await?.len() < (idle + 1) * usize::from(SHARDS) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{idle} idle handlers: every shard claimed after {:?}", started.elapsed());
    // What is only needed to start goes, and the ticker falls asleep.
    tokio::time::sleep(Duration::from_secs(2)).await;
    // As the program does every minute: what did not run between two looks lets go.
    println!("{idle} idle handlers, just started: {}", resident());
    sandboxes.release_idle();
    sandboxes.release_idle();
    let before = processor_seconds();
    tokio::time::sleep(PAUSE).await;
    let used = processor_seconds() - before;
    println!("{idle} idle handlers: {}; {:.0} ms of processor time in {PAUSE:?}", resident(), used * 1e3);
    let mut tail = log.tail().await?;
    let started = instant();
    let publisher = tokio::spawn({
        let (log, load) = (log.clone(), load.clone());
        async move { bench::fill(&log, &load).await }
    });
    let published = bench::until_published(&log, &mut *tail, load.messages);
    tokio::time::timeout(PATIENCE, published).await.context("the outputs do not come")??;
    let took = started.elapsed();
    publisher.await??;
    host.stop().await;
    Ok(load.messages as f64 / took.as_secs_f64())
}

/// Resident memory. What is mapped from files the kernel takes back when it needs room.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mib = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() / 1024
    };
    format!("{} MiB resident, {} of them mapped from files", mib("VmRSS:"), mib("RssFile:"))
}

/// Processor time of the process so far.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    // utime and stime, in clock ticks of a hundredth of a second on every Linux.
    (ticks(11) + ticks(12)) / 100.0
}
