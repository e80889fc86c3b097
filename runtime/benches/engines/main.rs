//! Question: how much faster or slower is exactly once than the at-least-once consumer that a good engineer would write by
//! hand for the same engine, on the same server, in the same run? And where does it go: processor time of host and server,
//! latency of one message at a time?
//! Expected on NATS JetStream: at least the consumer's rate with fresh sandboxes and half as much again with warm ones,
//! since a commit of many messages is one entry and the consumer's messages are one each.
//!
//! On Redis, where a message of the consumer costs the server little: six tenths of its rate with fresh sandboxes, and as much
//! with warm ones.
//!
//! Both do the work of `handlers/order`. The product makes output, state and mark of each message durable in one commit; the
//! consumer publishes its output, waits for the answer, and then acknowledges: its state is in memory only, and a crash makes
//! it handle up to 256 messages again.
//!
//! `cargo bench --bench engines [-- --engine nats|redis] [--only TEXT] [--messages N] [--rounds N] [--sync everysec|always]
//! [--large] [--scale]`. `nats-server` and `redis-server` are taken from `SLUICEBOX_NATS_SERVER` and `SLUICEBOX_REDIS_SERVER`,
//! from where `tests/run.sh` installs them, or from the path; their data goes below `SLUICEBOX_BENCH_DIR`, or the system's
//! temporary folder. `--large` measures much state and a long backlog instead, `--scale` several hosts.

mod compare;
mod engine;
mod large;
mod nats;
mod order;
mod redis;
mod scale;
mod server;

#[path = "../../../tests/it/harness/guests.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod guests;

use clap::Parser;
use sluicebox::bench::machine;
use sluicebox::handler::HandlerName;
use sluicebox::invoke::Invoke;
use sluicebox::sandbox::{Mode, Pool, Sandboxes, Settings, tracing_sink};
use sluicebox::topic::Pattern;
use std::sync::Arc;

/// As the program has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exactly once against a consumer written by hand.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only measurements whose name contains this text, such as `filled` or `warm`
    #[arg(long, default_value = "")]
    only: String,
    /// Messages of each measurement
    #[arg(long, default_value_t = 100_000)]
    messages: usize,
    /// How often each is measured, in turns
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Much state and a long backlog, instead of the comparison
    #[arg(long)]
    large: bool,
    /// One, two and three hosts, and one that is killed, instead of the comparison
    #[arg(long)]
    scale: bool,
    /// On this engine alone
    #[arg(long, value_enum)]
    engine: Option<Kind>,
    /// When Redis syncs its file
    #[arg(long, value_enum, default_value_t = Sync::Everysec)]
    sync: Sync,
    /// `cargo bench` says it.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Nats,
    Redis,
}

/// `appendfsync` of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Sync {
    Everysec,
    Always,
}

impl Sync {
    fn name(self) -> &'static str {
        match self {
            Self::Everysec => "everysec",
            Self::Always => "always",
        }
    }
}

/// The handler in both kinds of sandboxes.
struct Modes {
    sandboxes: Sandboxes,
    fresh: Arc<dyn Invoke>,
    warm: Arc<dyn Invoke>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let sandboxes = Sandboxes::new(&Pool::default(), tracing_sink())?;
    let module = sandboxes.load(&std::fs::read(guests::handler("order"))?)?;
    let mode = |mode| -> anyhow::Result<Arc<dyn Invoke>> {
        let publish = vec![Pattern::parse("orders.*")?];
        let settings = Settings { publish, mode, ..Settings::new(HandlerName::parse("bench")?) };
        Ok(Arc::new(sandboxes.handler(&module, settings)?))
    };
    println!("machine: {}", machine());
    println!("sandboxes: {}", sandboxes.describe());
    let modes = Modes { fresh: mode(Mode::Fresh)?, warm: mode(Mode::Warm)?, sandboxes };
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let wants = |kind| arguments.engine.is_none_or(|wanted| wanted == kind);
        if wants(Kind::Nats) {
            measure(&nats::Nats::start().await?, &modes, &arguments).await?;
        }
        if wants(Kind::Redis) {
            measure(&redis::Redis::start(arguments.sync).await?, &modes, &arguments).await?;
        }
        Ok(())
    })
}

async fn measure(engine: &impl engine::Engine, modes: &Modes, arguments: &Arguments) -> anyhow::Result<()> {
    println!("{}", engine.describe());
    match arguments {
        Arguments { large: true, .. } => large::measure(engine, modes, arguments).await,
        Arguments { scale: true, .. } => scale::measure(engine, modes, arguments).await,
        _ => compare::measure(engine, modes, arguments).await,
    }
}
