//! Much state over a long log, and a long backlog: what a host takes over, and how fast.

use crate::engine::Engine;
use crate::{Arguments, Modes};
use sluicebox::bench::{self, Load};
use sluicebox::clock;
use sluicebox::handler::ShardId;
use sluicebox::host::Host;
use sluicebox::log::Log;
use sluicebox::message::Offset;
use sluicebox::reader;
use sluicebox::telemetry::Metrics;
use std::sync::Arc;
use std::time::Duration;

const BACKLOG: usize = 1_000_000;
const KEYS: usize = 100_000;
/// The log grows until one of these is reached.
const TIME: Duration = Duration::from_secs(75);
const BYTES: u64 = 3 << 30;
/// Messages between two looks.
const STEP: usize = 250_000;
const MIB: u64 = 1 << 20;

pub async fn measure(engine: &impl Engine, modes: &Modes, arguments: &Arguments) -> anyhow::Result<()> {
    let only = arguments.only.as_str();
    if "state".contains(only) {
        state(engine, modes).await?;
    }
    for (mode, invoke) in [("fresh", &modes.fresh), ("warm", &modes.warm)] {
        if format!("backlog, {mode}").contains(only) {
            let log = engine.log(&format!("bench-backlog-{mode}")).await?;
            let ran = bench::run(log, &Load::new(BACKLOG, invoke.clone())).await?;
            engine.clear().await?;
            println!("backlog of {BACKLOG} messages, {mode}: drained at {:.0}/s", ran.messages_per_second(BACKLOG));
        }
    }
    Ok(())
}

async fn state(engine: &impl Engine, modes: &Modes) -> anyhow::Result<()> {
    println!(
        "state of {KEYS} keys that come in turns, {STEP} messages a step, warm sandboxes, publishing in the time, until {} \
         MiB or {TIME:?}",
        BYTES / MIB
    );
    const NAMESPACE: &str = "bench-state";
    let load = Load { keys: KEYS, ..Load::new(STEP, modes.warm.clone()) };
    let first = engine.log(NAMESPACE).await?;
    let host = start(&first, &load).await?;
    let began = clock::instant();
    let mut messages = 0;
    while began.elapsed() < TIME && engine.bytes() < BYTES {
        let took = step(&first, &Load { first: messages, ..load.clone() }).await?;
        messages += STEP;
        println!(
            "  {messages} messages: {:.0}/s; host {} MiB; data of the server {} MiB",
            STEP as f64 / took.as_secs_f64(),
            resident() / MIB,
            engine.bytes() / MIB
        );
    }
    let began = clock::instant();
    let second = engine.log(NAMESPACE).await?;
    println!("  a second host has all that is in the log after {:.2} s", began.elapsed().as_secs_f64());
    host.stop().await;
    let began = clock::instant();
    for index in 0..load.shards {
        let shard = ShardId { handler: bench::handler(&load).name, index };
        second.claim(shard, Offset::START).await?;
    }
    println!(
        "  it claims the {} shards of the first within {:.1} ms",
        load.shards,
        began.elapsed().as_secs_f64() * 1e3
    );
    drop(first);
    let began = clock::instant();
    let host = start(&second, &load).await?;
    step(&second, &Load { first: messages, messages: 1, ..load.clone() }).await?;
    println!("  and has handled a message {:.1} ms after it started its handler", began.elapsed().as_secs_f64() * 1e3);
    host.stop().await;
    drop(second);
    let began = clock::instant();
    let third = engine.log(NAMESPACE).await?;
    let host = start(&third, &load).await?;
    step(&third, &Load { first: messages + 1, messages: 1, ..load.clone() }).await?;
    println!("  a cold start, until a message is handled: {:.2} s", began.elapsed().as_secs_f64());
    host.stop().await;
    drop(third);
    engine.clear().await
}

async fn start(log: &Arc<dyn Log>, load: &Load) -> anyhow::Result<Host> {
    let metrics = Arc::new(Metrics::new());
    Ok(Host::start(log.clone(), vec![bench::handler(load)], metrics, reader::Options::default()).await?)
}

/// Publishes, and waits for the outputs.
async fn step(log: &Arc<dyn Log>, load: &Load) -> anyhow::Result<Duration> {
    let mut tail = log.tail().await?;
    let began = clock::instant();
    tokio::try_join!(bench::fill(log, load), bench::until_published(log, &mut *tail, load.messages))?;
    Ok(began.elapsed())
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() * 1024
}
