//! The measurements that `sluicebox bench` and `cargo bench --bench end_to_end` print, each against its parts in the same run
//! (*sum of parts*: all cores busy with the sandbox call and the plain commit, nothing between them): absolute numbers are this
//! machine's, ratios travel. `taskset -c 0 sluicebox bench` shows one core.

use super::{Identity, Load, latencies, machine, parts, run, swap};
use crate::effects::Effects;
use crate::handler::{Digest, HandlerName};
use crate::invoke::{Call, Failure, Invoke};
use crate::log::Log;
use crate::log::embedded::{EmbeddedLog, Options};
use crate::sandbox::{Mode, Pool, Sandboxes, Settings, tracing_sink};
use crate::topic::Pattern;
use anyhow::Context as _;
use futures_util::future::BoxFuture;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What to measure, and on what.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The compiled `order` handler.
    pub module: PathBuf,
    /// Where the logs are made; each is deleted when the next one is.
    pub folder: PathBuf,
    /// Messages per throughput measurement.
    pub messages: usize,
}

const KEYS: usize = 10_000;
const LATENCY_MESSAGES: usize = 2_000;
const WAIT: Duration = Duration::from_millis(10);

/// Measures everything and hands out one line at a time.
pub async fn measure(plan: &Plan, mut print: impl FnMut(String)) -> anyhow::Result<()> {
    let bytes = std::fs::read(&plan.module).with_context(|| {
        format!("failed to read `{}`: build it with `sluicebox build handlers`", plan.module.display())
    })?;
    let sandboxes = Sandboxes::new(&Pool::default(), tracing_sink())?;
    let module = sandboxes.load(&bytes)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    print(format!("machine: {}", machine()));
    print(format!("sandboxes: {}", sandboxes.describe()));
    print(format!(
        "log: embedded, WAL, synchronous=FULL (fsync per commit); {} messages of 100 bytes, {KEYS} keys",
        plan.messages
    ));
    let mut cheapest = Duration::MAX;
    for batch in [256, 1024] {
        let took = parts::plain_commit(plan.empty_log()?, plan.messages, KEYS, batch).await?;
        cheapest = cheapest.min(took);
        let rate = 1.0 / took.as_secs_f64();
        print(format!("plain commit of the same rows, {batch} a commit: {:.1} µs, {rate:.0} messages/s", micros(took)));
    }
    let mut modes = vec![];
    for (name, mode) in [("fresh", Mode::Fresh), ("warm", Mode::Warm)] {
        let settings = Settings { mode, ..guest()? };
        let invoke: Arc<dyn Invoke> = Arc::new(sandboxes.handler(&module, settings)?);
        let (call, bare) = parts::call(invoke.as_ref(), &sandboxes.bare(&module)?, mode, KEYS).await?;
        let sum = cores as f64 / (call + cheapest).as_secs_f64();
        print(format!(
            "sandbox call, {name}: {:.1} µs; bare call of the same component with imports that do nothing {:.1} µs: {:.2} ×",
            micros(call),
            micros(bare),
            call.as_secs_f64() / bare.as_secs_f64()
        ));
        print(format!("sum of parts, {name}: {cores} cores ÷ (call + plain commit) = {sum:.0} messages/s"));
        modes.push((name, invoke, sum));
    }
    for publishing in [false, true] {
        for (shards, identity) in [(1, Identity::Pointers), (8, Identity::Pointers), (8, Identity::Given)] {
            for (name, invoke, sum) in &modes {
                let load = Load { shards, publishing, identity, ..plan.load(invoke) };
                let ran = run(plan.empty_log()?, &load).await?;
                let rate = ran.messages_per_second(plan.messages);
                let how = if publishing { "publishing in the time" } else { "log filled before" };
                let by = match identity {
                    Identity::Pointers => "key and id by pointer",
                    Identity::Given => "key and id given",
                };
                let share = rate / sum;
                print(format!(
                    "{how}, {shards} shard(s), {by}, {name}: {rate:.0} messages/s, {share:.2} of the sum of parts"
                ));
                print(format!("  processor time in µs a message: {}", ran.processor));
            }
        }
    }
    let two = parts::two_synced_writes(plan.empty_log()?, LATENCY_MESSAGES, KEYS).await?;
    print(format!("two plain synced commits, one after the other: p50 {:.2} ms", micros(two) / 1e3));
    for (name, invoke, _) in &modes {
        let load = Load { messages: LATENCY_MESSAGES, ..plan.load(invoke) };
        let took = latencies(plan.empty_log()?, &load).await?;
        let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
        let (p50, p99, longest) = (at(0.5), at(0.99), at(1.0));
        let ratio = p50 * 1e3 / micros(two);
        print(format!(
            "one at a time, {name}: publish to visible output p50 {p50:.2} ms ({ratio:.2} × the two commits), \
             p99 {p99:.2} ms, longest {longest:.2} ms"
        ));
    }
    let waiting: Arc<dyn Invoke> = Arc::new(Waiting(modes[1].1.clone()));
    let load = Load { messages: plan.messages.min(200_000), keys: 1_000, concurrency: 1_000, ..plan.load(&waiting) };
    let rate = run(plan.empty_log()?, &load).await?.messages_per_second(load.messages);
    print(format!("handler that waits 10 ms, 1,000 keys, warm: {rate:.0} messages/s"));
    let load = Load { publishing: true, ..plan.load(&modes[0].1) };
    let swaps = swap::Swaps { sandboxes: &sandboxes, settings: guest()?, module: &bytes };
    for line in swaps.measure(|| plan.empty_log(), &load).await? {
        print(line);
    }
    Ok(())
}

fn guest() -> anyhow::Result<Settings> {
    Ok(Settings { publish: vec![Pattern::parse("orders.*")?], ..Settings::new(HandlerName::parse("bench")?) })
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

impl Plan {
    fn load(&self, invoke: &Arc<dyn Invoke>) -> Load {
        let invoke = invoke.clone();
        let identity = Identity::Pointers;
        Load { messages: self.messages, keys: KEYS, identity, shards: 8, concurrency: 64, publishing: false, invoke }
    }

    /// A log in a folder of its own, which the next call deletes.
    fn empty_log(&self) -> anyhow::Result<Arc<dyn Log>> {
        let folder = self.folder.join("log");
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("failed to remove `{}`", folder.display()));
            }
            _ => {}
        }
        Ok(Arc::new(EmbeddedLog::open(&folder, Options::default())?))
    }
}

/// Waits before it runs the handler, as one does that asks another service.
struct Waiting(Arc<dyn Invoke>);

impl Invoke for Waiting {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Effects, Failure>> {
        let handler = self.0.clone();
        Box::pin(async move {
            tokio::time::sleep(WAIT).await;
            handler.call(call).await
        })
    }

    fn uses_state(&self) -> bool {
        self.0.uses_state()
    }

    fn digest(&self) -> Option<Digest> {
        self.0.digest()
    }
}
